//! What cannot be restored is refused with the reason, and nothing is made of it.

use std::{fs, path::Path};

use muster_tests::{Controller, controller::Backup, ctl::Outcome, postgres::Database};

fn backup() -> (Controller, Backup) {
    let controller = Controller::set_up("");
    let backup = controller.backup("backup");
    (controller, backup)
}

/// Refused with these words by both who reads it and who restores it, and nothing is there afterwards.
#[track_caller]
fn refused(controller: &Controller, backup: &Backup, words: &[&str]) {
    backup.verify().expect_code(1).says(words);
    let target = controller.path("target");
    let database = Database::create();
    backup.restore(&target, database.as_ref()).expect_code(1).says(words);
    assert!(!target.exists(), "something was made");
    if let Some(database) = database {
        assert_eq!(database.tables(), "", "something was made");
    }
}

fn with_file(controller: &Controller, backup: &Backup, change: impl FnOnce(&mut Vec<u8>)) -> Backup {
    let mut bytes = fs::read(&backup.file).expect("the backup");
    change(&mut bytes);
    let file = controller.path("changed.age");
    fs::write(&file, bytes).expect("a file");
    Backup { file, ..backup.clone() }
}

#[test]
fn what_is_no_whole_backup_is_refused_and_nothing_is_made_of_it() {
    let (controller, backup) = backup();
    let wrong = Backup {
        passphrase: controller.passphrase("wrong", "not the passphrase"),
        ..backup.clone()
    };
    refused(&controller, &wrong, &["the passphrase is not the one"]);
    let cut = with_file(&controller, &backup, |bytes| bytes.truncate(bytes.len() / 2));
    refused(&controller, &cut, &["is damaged"]);
    let short = with_file(&controller, &backup, |bytes| bytes.truncate(bytes.len() - 1));
    refused(&controller, &short, &["is damaged"]);
    let changed = with_file(&controller, &backup, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    refused(&controller, &changed, &["is damaged"]);
    let other = with_file(&controller, &backup, |bytes| {
        *bytes = b"a letter to somebody\n".to_vec()
    });
    refused(&controller, &other, &["is not a backup of muster-server"]);
    let endless = with_file(&controller, &backup, |bytes| {
        *bytes = b"age-encryption.org/v1\n-> ".to_vec();
        bytes.resize(4 << 20, b'x');
    });
    refused(&controller, &endless, &["is not a backup of muster-server"]);
    let missing = Backup {
        file: controller.path("missing.age"),
        ..backup.clone()
    };
    refused(&controller, &missing, &["failed to read", "missing.age"]);
    // A passphrase that others can read is none.
    let open = controller.passphrase("open", "correct horse battery staple");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&open, mode).expect("a mode");
    let open = Backup {
        passphrase: open,
        ..backup
    };
    refused(&controller, &open, &["chmod 600"]);
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let (controller, backup) = backup();
    let before = fs::read(&backup.file).expect("the backup");
    let again = |file: &Path| {
        controller.server(&[
            "backup",
            "--out",
            file.to_str().expect("a path"),
            "--passphrase-file",
            backup.passphrase.to_str().expect("a path"),
        ])
    };
    again(&backup.file).expect_code(1).says(&["backup.age exists already"]);
    assert_eq!(fs::read(&backup.file).expect("the backup"), before);

    // Neither the place of a controller, nor its database.
    let key = || fs::read(controller.data_dir().join("pki/issuing-key.pem")).expect("a key");
    let before = key();
    let database = Database::create();
    let into = |path: &Path| backup.restore(path, database.as_ref());
    into(&controller.data_dir())
        .expect_code(1)
        .says(&["exists already", "nothing is overwritten"]);
    assert_eq!(key(), before);
    if let Some(url) = controller.database_url() {
        let target = controller.path("target");
        let outcome = restore_into_url(&backup, &target, &url);
        outcome.expect_code(1).says(&["the database is not empty"]);
        assert!(!target.exists(), "something was made");
    }
    assert_eq!(leftovers(&controller), Vec::<String>::new());
}

#[test]
fn a_restore_that_was_cut_off_starts_over() {
    let (controller, backup) = backup();
    let target = controller.path("target");
    muster_certs::file::create_private_dir(&target.join("pki.incomplete")).expect("a folder");
    fs::write(target.join("restore.incomplete"), "").expect("a file");
    fs::write(target.join("control.db"), "half").expect("a file");
    let database = Database::create();
    backup.restore(&target, database.as_ref()).expect_code(0);
    assert!(target.join("pki/issuing-key.pem").is_file() && !target.join("restore.incomplete").exists());
    // The next one finds a controller, and not leftovers.
    backup
        .restore(&target, database.as_ref())
        .expect_code(1)
        .says(&["exists already"]);
    assert!(target.join("pki/issuing-key.pem").is_file());
}

#[track_caller]
fn restore_into_url(backup: &Backup, target: &Path, url: &str) -> Outcome {
    let mut command = muster_tests::process::clean_command(muster_tests::binaries::path("muster-server"), "/".as_ref());
    command.arg("restore").arg(&backup.file).arg("--data-dir").arg(target);
    command.arg("--passphrase-file").arg(&backup.passphrase);
    command.env("MUSTER_DATABASE", url);
    Outcome::of(command)
}

/// Files of a write that did not come to its end.
fn leftovers(controller: &Controller) -> Vec<String> {
    let names = fs::read_dir(controller.path(".")).expect("the folder");
    names
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".tmp"))
        .collect()
}
