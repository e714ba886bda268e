//! Backups as no release of this code writes them: older, newer, hostile. What it does write is tested through the binaries.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf, time::SystemTime};

use clap::Parser as _;
use muster_certs::file;
use proptest::prelude::*;

use super::{
    Error,
    archive::{Reader, Writer},
    format::{self, CONFIGURATION, FORMAT, HEADER, Header, Kind, MANIFEST, Manifest},
    passphrase::Passphrase,
    restore, verify,
};
use crate::{
    cli::{Cli, Verb},
    clock, init,
    pki::Pki,
    store::{Db, Source, dump},
};

const SECRET: &str = "correct horse battery staple";

/// What a test changes before it is written.
struct Recipe {
    header: Header,
    /// Behind the header and before the manifest.
    parts: Vec<(String, Vec<u8>)>,
    rows: BTreeMap<String, u64>,
}

/// A controller's keys and nothing in its database but its one row of the revision.
fn recipe(folder: &Path) -> Recipe {
    let pki = folder.join("pki");
    Pki::create(&pki, &"example.muster".parse().unwrap(), SystemTime::now()).unwrap();
    let configuration = "name: c1\ntrust_domain: example.muster\ndata_dir: /old\n";
    let mut parts = vec![(CONFIGURATION.to_owned(), configuration.as_bytes().to_vec())];
    for entry in fs::read_dir(&pki).unwrap() {
        let entry = entry.unwrap();
        let name = format::key_name(entry.file_name().to_str().unwrap());
        parts.push((name, fs::read(entry.path()).unwrap()));
    }
    parts.push((format::rows_name("revision", 1), b"[1,41]\n".to_vec()));
    let columns = |table: &dump::Table| table.columns.iter().map(|column| column.name.to_owned()).collect();
    Recipe {
        header: Header {
            format: FORMAT,
            muster: "0.0.9".to_owned(),
            schema: dump::schema(),
            taken_at: clock::now() - clock::DAY,
            trust_domain: "example.muster".to_owned(),
            controller: "c1".to_owned(),
            epoch: 2,
            tables: dump::TABLES
                .iter()
                .map(|table| (table.name.to_owned(), columns(table)))
                .collect(),
        },
        parts,
        rows: dump::TABLES
            .iter()
            .map(|table| (table.name.to_owned(), u64::from(table.name == "revision")))
            .collect(),
    }
}

impl Recipe {
    fn write(&self, path: &Path) {
        let mut writer = Writer::create(path, &Passphrase::from(SECRET)).unwrap();
        writer.add(HEADER, &serde_json::to_vec(&self.header).unwrap()).unwrap();
        for (name, bytes) in &self.parts {
            writer.add(name, bytes).unwrap();
        }
        let manifest = Manifest {
            header: self.header.clone(),
            rows: self.rows.clone(),
            parts: writer.parts().to_vec(),
        };
        writer.add(MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap();
        writer.finish().unwrap();
    }
}

/// Restores it into SQLite.
async fn restored(backup: &Path, data_dir: &Path) -> Result<restore::Report, Error> {
    restored_to(backup, "--data-dir", data_dir).await
}

/// The same to where this option says.
async fn restored_to(backup: &Path, option: &str, place: &Path) -> Result<restore::Report, Error> {
    let backup = backup.to_str().unwrap();
    let cli = Cli::parse_from(["muster-server", "restore", backup, option, place.to_str().unwrap()]);
    let Verb::Restore(mut options) = cli.verb else {
        panic!("not restore")
    };
    // The environment of whoever runs the test is not meant.
    options.database = None;
    restore::restore(&options, &Passphrase::from(SECRET), clock::now()).await
}

fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (backup, target) = (folder.path().join("backup.age"), folder.path().join("target"));
    (folder, backup, target)
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_restored_and_migrated() {
    let (folder, backup, target) = places();
    let mut recipe = recipe(folder.path());
    recipe.header.schema = 3;
    let tokens = [
        "id",
        "secret_hash",
        "description",
        "labels",
        "uses",
        "uses_left",
        "creator",
        "created_at",
    ];
    let tokens = tokens
        .iter()
        .chain(&["expires_at", "revision"])
        .map(|name| (*name).to_owned());
    recipe.header.tables.insert("tokens".to_owned(), tokens.collect());
    let token = b"[\"t1\",\"AAAA\",\"\",\"{}\",3,2,\"admin\",1,9000000000000000,7]\n";
    recipe.parts.push((format::rows_name("tokens", 1), token.to_vec()));
    recipe.rows.insert("tokens".to_owned(), 1);
    recipe.write(&backup);
    let report = restored(&backup, &target).await.unwrap();
    assert!(report.to_string().contains("tokens          1 void"), "{report}");

    let db = Db::open(&Source::Sqlite(target)).await.unwrap();
    let token = db.token_get("t1").await.unwrap().expect("the token");
    assert!(
        token.revoked_at > 0 && token.revoke_reason.contains("restored"),
        "{token:?}"
    );
    assert_eq!(token.uses_left, 2);
    // A new life, far above the old one, of which nobody can resume.
    assert_eq!(db.epoch().await.unwrap(), 3);
    assert_eq!(db.restored().await.unwrap().unwrap().backup_at, recipe.header.taken_at);
    let revision = db.revision_current().await.unwrap();
    assert!(revision > 1 << 40, "{revision}");
    assert_eq!(db.changes_oldest().await.unwrap(), revision + 1);
    db.close().await;
}

#[tokio::test]
async fn a_restored_controller_tells_agents_of_a_trust_bundle_above_any_that_they_hold() {
    let (folder, backup, target) = places();
    recipe(folder.path()).write(&backup);
    let before = clock::now();
    restored(&backup, &target).await.unwrap();
    let pki = Pki::load(&target.join("pki")).unwrap();
    assert!(pki.trust_bundle_version() >= before, "{}", pki.trust_bundle_version());
}

#[tokio::test]
async fn the_database_url_of_a_configuration_that_is_there_is_no_leftover() {
    let (folder, backup, target) = places();
    recipe(folder.path()).write(&backup);
    file::create_private_dir(&target).unwrap();
    let url_file = target.join(init::URL_FILE);
    file::write_secret(&url_file, b"postgres://muster@db/muster").unwrap();
    // Also for an attempt that starts over.
    file::write_secret(&target.join(init::RESTORE_MARKER), b"").unwrap();
    let configuration = folder.path().join("server.yaml");
    let text = format!(
        "name: c1\ntrust_domain: example.muster\ndata_dir: {}\n",
        target.display()
    );
    fs::write(&configuration, &text).unwrap();
    restored_to(&backup, "--config", &configuration).await.unwrap();
    assert!(url_file.exists() && target.join("pki").exists());
    assert_eq!(fs::read_to_string(&configuration).unwrap(), text);
}

#[tokio::test]
async fn what_an_init_that_was_cut_off_has_left_is_no_place_for_a_restore() {
    let (folder, backup, target) = places();
    recipe(folder.path()).write(&backup);
    file::create_private_dir(&target).unwrap();
    fs::write(target.join("init.incomplete"), "").unwrap();
    let error = restored(&backup, &target).await.unwrap_err();
    assert!(error.to_string().contains("init.incomplete exists already"), "{error}");
}

/// Refused with an error that says this, by whoever reads it, and nothing is made.
async fn refused(change: impl FnOnce(&mut Recipe), says: &str) {
    let (folder, backup, target) = places();
    let mut recipe = recipe(folder.path());
    change(&mut recipe);
    recipe.write(&backup);
    let error = restored(&backup, &target).await.unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
    assert!(!target.exists(), "something was made");
}

#[tokio::test]
async fn a_backup_of_a_newer_release_is_refused_with_its_release() {
    refused(|recipe| recipe.header.schema += 1, "a newer release, 0.0.9 (schema").await;
    refused(|recipe| recipe.header.format += 1, "a newer release, 0.0.9 (format").await;
}

#[tokio::test]
async fn what_does_not_add_up_is_refused() {
    refused(
        |recipe| *recipe.rows.entry("agents".into()).or_default() = 1,
        "more or fewer rows",
    )
    .await;
    refused(|recipe| recipe.header.taken_at += 2 * clock::DAY, "set the clock").await;
    refused(|recipe| drop(recipe.parts.remove(0)), "server.yaml is missing").await;
    let elsewhere = |recipe: &mut Recipe| {
        let text = b"name: c1\ntrust_domain: example.muster\n\"data_dir\": /old\n";
        recipe.parts[0].1 = text.to_vec();
    };
    refused(elsewhere, "cannot be changed").await;
    let stranger = |recipe: &mut Recipe| {
        recipe.header.tables.insert("secrets".into(), vec!["id".into()]);
        recipe.rows.insert("secrets".into(), 1);
        recipe
            .parts
            .push((format::rows_name("secrets", 1), b"[\"1\"]\n".to_vec()));
    };
    refused(stranger, "does not know it").await;
    let injected = |recipe: &mut Recipe| {
        let columns = vec!["id".into(), "n) SELECT 1, 2; --".into()];
        recipe.header.tables.insert("revision".into(), columns);
    };
    refused(injected, "columns that this release does not know").await;
    let outside = |recipe: &mut Recipe| recipe.parts.push(("pki/.ssh/authorized.pem".into(), Vec::new()));
    refused(outside, "none of ours").await;
    let large = |recipe: &mut Recipe| recipe.parts.push(("pki/large.pem".into(), vec![0; 2 << 20]));
    refused(large, "larger than any may be").await;
    let rows = |recipe: &mut Recipe| recipe.parts.push((format::rows_name("revision", 2), b"[1,".to_vec()));
    refused(rows, "cut off").await;
}

#[test]
fn only_names_that_stay_below_their_folder_are_keys() {
    for name in ["root.pem", "authorities.json", "0a1b2c/issuing-key.pem"] {
        assert!(format::is_key(name), "{name}");
    }
    for name in [
        "",
        "lock",
        ".pem",
        "../root.pem",
        "a/../root.pem",
        "a/b/c.pem",
        "/root.pem",
        "a//b.pem",
        "a\\b.pem",
        "a/.b.pem",
    ] {
        assert!(!format::is_key(name), "{name}");
    }
}

proptest! {
    #[test]
    fn a_name_of_a_part_is_one_of_ours_or_none(name in "(pki/|tables/)?[a-z./-]{0,12}(-[0-9]{1,7})?(\\.pem|\\.jsonl)?") {
        if let Some(Kind::Key(below)) = format::kind(&name) {
            prop_assert!(!Path::new(below).components().any(|part| !matches!(part, std::path::Component::Normal(_))));
        }
    }

    /// Without the passphrase nothing is decrypted, so all that a stranger's file meets is the head's parser.
    #[test]
    fn no_head_of_a_file_makes_more_of_it_than_an_error(
        start in prop::sample::select(vec!["", "age-encryption.org/v1\n", "age-encryption.org/v1\n-> X25519 a\n"]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [start.as_bytes(), &rest].concat()).unwrap();
        prop_assert!(Reader::open(&path, &Passphrase::from(SECRET)).is_err());
    }
}

#[test]
fn a_byte_that_was_changed_anywhere_is_noticed() {
    let (folder, backup, _) = places();
    recipe(folder.path()).write(&backup);
    let passphrase = Passphrase::from(SECRET);
    verify::read(&backup, &passphrase).unwrap();
    let whole = fs::read(&backup).unwrap();
    let changed = folder.path().join("changed.age");
    for part in 0..6 {
        let mut bytes = whole.clone();
        bytes[whole.len() * part / 6] ^= 1;
        fs::write(&changed, &bytes).unwrap();
        assert!(verify::read(&changed, &passphrase).is_err(), "part {part}");
        fs::write(&changed, &whole[..whole.len() * part / 6]).unwrap();
        assert!(verify::read(&changed, &passphrase).is_err(), "cut at part {part}");
    }
}
