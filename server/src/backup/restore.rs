//! `muster-server restore`: from a backup to a controller that can run, all of it or nothing. The database begins a new epoch:
//! what was handed out between the backup and its restore nobody here knows, and the rules for that are `Tx::epoch_begin`,
//! `renewal::rules` and what is said to whoever restores.

mod report;

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_certs::file;
use muster_proto::v1::{EventSeverity, PolicyPayload};
use prost::Message as _;
pub use report::Report;

use super::{
    Error, configuration,
    contents::{Contents, Item},
    passphrase::Passphrase,
    verify, written,
};
use crate::{
    cli,
    clock::{self, Micros},
    config::{Config, Database},
    events::Event,
    init,
    pki::Pki,
    store::{self, Restored, dump::Filling, lease},
};

/// Becomes `pki` when all the rest is done.
const KEYS: &str = "pki.incomplete";
/// What `musterctl token get` says of the tokens that are void now.
const VOID: &str = "a backup was restored: whether this token was used since then is not known";

/// Where it goes.
struct Target {
    config: Config,
    config_path: PathBuf,
    /// None: the configuration is there already, and stays as it is.
    text: Option<String>,
    url_file: Option<PathBuf>,
}

pub async fn run(options: &cli::Restore, now: Micros) -> Result<Report, Error> {
    let passphrase = Passphrase::known(options.passphrase_file.as_deref())?;
    restore(options, &passphrase, now).await
}

pub(super) async fn restore(options: &cli::Restore, passphrase: &Passphrase, now: Micros) -> Result<Report, Error> {
    // Before anything is made: it is whole, and it can be restored there.
    let backup = verify::read(&options.file, passphrase)?;
    if now <= backup.header.taken_at {
        return Err(Error::Target(format!(
            "this machine's clock says {}, and the backup was taken at {}; set the clock, since all that is signed from now on \
             has to be newer",
            clock::to_text(now),
            clock::to_text(backup.header.taken_at)
        )));
    }
    let target = target(options, &backup)?;
    let data_dir = target.config.data_dir.clone();
    let marker = data_dir.join(init::RESTORE_MARKER);
    let is_new_config = target.text.is_some();
    if init::exists(&marker) {
        init::remove_parts(&data_dir, parts(is_new_config)).map_err(Error::DataDir)?;
    }
    check_empty(&data_dir, is_new_config)?;
    let is_new = !init::exists(&data_dir);
    if is_new {
        if let Some(parent) = data_dir.parent() {
            fs::create_dir_all(parent).map_err(written(parent))?;
        }
        file::create_private_dir(&data_dir)?;
    } else {
        file::check_private_dir(&data_dir)?;
    }
    file::write_secret(
        &marker,
        b"`muster-server restore` did not finish; it starts over when it is run again.\n",
    )?;
    let made = make(options, passphrase, &backup, target, now).await;
    if made.is_err() && init::exists(&marker) {
        // The first error is the one to show; what cannot be removed now, the marker leaves to the next attempt.
        let _ = init::remove_parts(&data_dir, parts(is_new_config));
        if is_new {
            let _ = fs::remove_dir(&data_dir);
        }
    }
    made
}

/// What an attempt makes in the data directory. Where a configuration is already, the file with the URL of the database is its.
fn parts(is_new_config: bool) -> impl Iterator<Item = &'static str> {
    let parts = init::PARTS.into_iter();
    parts.filter(move |part| is_new_config || *part != init::URL_FILE)
}

/// What an attempt has left that was killed half-way is no obstacle.
fn check_empty(data_dir: &Path, is_new_config: bool) -> Result<(), Error> {
    let mut parts = parts(is_new_config).map(|part| data_dir.join(part));
    match parts.find(|part| init::exists(part)) {
        Some(part) if !init::exists(&data_dir.join(init::RESTORE_MARKER)) => Err(Error::Exists(part)),
        _ => Ok(()),
    }
}

/// The configuration that is there, or that of the backup for the place that was named.
fn target(options: &cli::Restore, backup: &verify::Report) -> Result<Target, Error> {
    let header = &backup.header;
    let absolute = |path: &Path| init::absolute(path).map_err(Error::DataDir);
    let config_path = absolute(&options.config_path())?;
    if let Some(data_dir) = &options.data_dir {
        check_empty(&absolute(data_dir)?, true)?;
    }
    if init::exists(&config_path) {
        if options.data_dir.is_some() || options.database.is_some() {
            return Err(Error::Target(format!(
                "{} exists already, and says where the data directory and the database are; leave out --data-dir and \
                 --database, or name another place with --config",
                config_path.display()
            )));
        }
        let config = Config::load(&config_path)?;
        let ours = (config.name.as_str(), config.trust_domain.to_string());
        if ours != (header.controller.as_str(), header.trust_domain.clone()) {
            return Err(Error::Target(format!(
                "{} is for controller {} of {}, and the backup is of {} of {}",
                config_path.display(),
                config.name,
                config.trust_domain,
                header.controller,
                header.trust_domain
            )));
        }
        return Ok(Target {
            config,
            config_path,
            text: None,
            url_file: None,
        });
    }
    let data_dir = absolute(options.data_dir.as_deref().unwrap_or(Path::new(cli::SYSTEM_DATA)))?;
    let database = options.database.clone().map_or(Database::Sqlite, Database::Postgres);
    let url_file = match &database {
        Database::Postgres(url) if url.has_password() => Some(data_dir.join(init::URL_FILE)),
        _ => None,
    };
    // Read back as it would be with a URL that needs no file, since that is not there yet.
    let name = config_path.display().to_string();
    let mut config = Config::parse(
        &name,
        &configuration::moved(&backup.configuration, &data_dir, &Database::Sqlite, None),
    )?;
    if config.data_dir != data_dir {
        return Err(Error::Target(format!(
            "server.yaml of the backup says where `data_dir` is in a way that cannot be changed to {}; write a server.yaml, and \
             name it with --config",
            data_dir.display()
        )));
    }
    config.database = database;
    let text = configuration::moved(&backup.configuration, &data_dir, &config.database, url_file.as_deref());
    Ok(Target {
        config,
        config_path,
        text: Some(text),
        url_file,
    })
}

/// Keys and files beside their places, the database in one transaction; then the database counts, then the keys, then the
/// configuration. What comes late enough to be left undone by a crash is the least of it.
async fn make(
    options: &cli::Restore,
    passphrase: &Passphrase,
    backup: &verify::Report,
    target: Target,
    now: Micros,
) -> Result<Report, Error> {
    let config = target.config;
    let source = config.source();
    // Held until all is there: a controller that is started meanwhile waits for that.
    let _lease = match &source {
        store::Source::Postgres(url) => {
            let mut holder = lease::Holder::connect(url).await?;
            if !holder.try_take().await? {
                return Err(Error::InUse);
            }
            Some(holder)
        }
        store::Source::Sqlite(_) => None,
    };
    let keys = config.data_dir.join(KEYS);
    file::create_private_dir(&keys)?;
    let mut filling = Filling::begin(&source, backup.header.schema).await?;
    let filled = fill(options, passphrase, &keys, &mut filling, backup, now).await;
    let (rows, tokens, policies) = match filled {
        Ok(filled) => filled,
        Err(error) => {
            filling.abandon().await;
            return Err(error);
        }
    };
    if let (Some(path), Database::Postgres(url)) = (&target.url_file, &config.database) {
        file::write_secret(path, url.expose().as_bytes())?;
    }
    if let Some(text) = &target.text {
        Config::parse(&target.config_path.display().to_string(), text)?;
        if let Some(parent) = target.config_path.parent() {
            fs::create_dir_all(parent).map_err(written(parent))?;
        }
    }
    filling.commit().await?;
    // From here on it is a controller's, which no later attempt may take for leftovers.
    let marker = config.data_dir.join(init::RESTORE_MARKER);
    fs::remove_file(&marker).map_err(written(&marker))?;
    let pki = config.pki_dir();
    fs::rename(&keys, &pki).map_err(written(&pki))?;
    init::sync(&config.data_dir).map_err(Error::DataDir)?;
    init::give_to_owner(&config.data_dir).map_err(Error::DataDir)?;
    if let Some(text) = &target.text {
        file::write_public(&target.config_path, text.as_bytes())?;
    }
    Ok(Report {
        header: backup.header.clone(),
        config,
        config_path: target.config_path,
        is_new_config: target.text.is_some(),
        rows,
        tokens,
        policies,
        restored_at: now,
    })
}

/// How many rows there are, how many tokens ended, and how many policies were signed again.
async fn fill(
    options: &cli::Restore,
    passphrase: &Passphrase,
    keys: &Path,
    filling: &mut Filling,
    backup: &verify::Report,
    now: Micros,
) -> Result<(u64, u64, usize), Error> {
    let mut contents = Contents::open(&options.file, passphrase)?;
    if *contents.header() != backup.header {
        return Err(super::damaged(&options.file, "it has changed while it was read"));
    }
    while let Some(item) = contents.next()? {
        match item {
            Item::Configuration(_) => {}
            Item::Key { name, bytes } => {
                let path = keys.join(&name);
                if let Some(folder) = path.parent() {
                    file::create_private_dir(folder)?;
                }
                file::write_secret(&path, &bytes)?;
            }
            Item::Rows { table, columns, rows } => filling.insert(table, &columns, &rows).await?,
        }
    }
    let rows = contents.counts().values().sum();
    filling.migrate().await?;

    let pki = Pki::load(keys)?;
    if pki.trust_domain().to_string() != backup.header.trust_domain {
        return Err(super::damaged(
            &options.file,
            "its keys are those of another controller",
        ));
    }
    // Agents may hold a bundle that the backup does not know of.
    pki.set_authorities(pki.authorities().with_new_version(now))?;
    let tx = filling.tx();
    let restored = Restored {
        restored_at: now,
        backup_at: backup.header.taken_at,
    };
    let epoch = backup.header.epoch + 1;
    let revision = tx.epoch_begin(epoch, restored).await?;
    let tokens = tx.token_void_all(VOID, revision, now).await?;
    let policies = sign_again(tx, &pki, revision, now).await?;
    let taken = clock::to_text(backup.header.taken_at);
    let event = Event::new(
        "BACKUP_RESTORED",
        None,
        format!(
            "the backup of {taken} was restored; what happened since then is not known here, certificates that were revoked since \
             then count again"
        ),
        now,
    )
    .severity(EventSeverity::Warning)
    .with("backup_at", taken)
    .with("epoch", epoch)
    .with("tokens_void", tokens)
    .with("policies_signed_again", policies);
    tx.event_insert_all(&[event.into_row()]).await?;
    Ok((rows, tokens, policies))
}

/// Agents may have seen versions that the backup does not know of, and take none that is lower.
async fn sign_again(tx: &mut store::Tx, pki: &Pki, revision: i64, now: Micros) -> Result<usize, Error> {
    let policies = tx.policy_list().await?;
    let count = policies.len();
    for mut row in policies {
        let mut payload = PolicyPayload::decode(row.payload.as_slice()).map_err(|error| store::Error::Corrupt {
            table: "policies",
            id: format!("{}/{}", row.kind, row.name),
            problem: error.to_string(),
        })?;
        let highest = tx.policy_version(&row.kind, &row.name).await?.max(row.version);
        payload.version = now.max(highest + 1);
        let signed = pki.sign_policy(&row.kind, payload.encode_to_vec().into());
        row.version = payload.version;
        row.payload = signed.payload.to_vec();
        row.key_id = signed.key_id;
        row.signature = signed.signature;
        row.revision = revision;
        tx.policy_put(&row).await?;
    }
    Ok(count)
}
