//! `muster-server init`: from nothing to a controller that can run. Nothing is overwritten; what fails half-way is taken back,
//! and what was killed half-way is taken back by the next attempt.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use muster_certs::ca::foreign::Chain;
use muster_certs::file;

use crate::cli;
use crate::config::{self, Config, Database};
use crate::pki::{self, Pki};
use crate::store::{self, Db};
use crate::{admin, clock};

/// There while an attempt is not finished.
const MARKER: &str = "init.incomplete";
/// The same of a restore.
pub(crate) const RESTORE_MARKER: &str = "restore.incomplete";
const ADMIN_CONTEXT: &str = "admin.yaml";
pub(crate) const URL_FILE: &str = "database-url";
/// What an attempt of this kind or of a restore makes in the data directory; whoever finds its own marker may remove these. The
/// markers come last: while anything else is there, one of them is.
pub(crate) const PARTS: [&str; 12] = [
    "pki",
    "pki.incomplete",
    "control.db",
    "control.db-wal",
    "control.db-shm",
    "history.db",
    "history.db-wal",
    "history.db-shm",
    ADMIN_CONTEXT,
    URL_FILE,
    MARKER,
    RESTORE_MARKER,
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists already, and init overwrites nothing; choose another place, or remove it if it is not needed", .0.display())]
    Exists(PathBuf),
    #[error("the database is in use by another controller; init needs an empty one")]
    DatabaseInUse,
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to prepare the data directory")]
    File(#[from] file::Error),
    #[error("failed to make the keys")]
    Pki(#[from] pki::Error),
    #[error("failed to set up the database")]
    Store(#[from] store::Error),
    #[error("failed to make the first operator")]
    Admin(#[from] admin::Error),
    #[error("the configuration that was written cannot be read back")]
    Config(#[from] config::Error),
}

/// What was made; displayed, it says what to type next.
#[derive(Debug)]
pub struct Report {
    config: PathBuf,
    context: PathBuf,
    admin: String,
    not_after: SystemTime,
    pins: Vec<String>,
}

/// Sets up a controller.
pub async fn run(options: &cli::Init, now: SystemTime) -> Result<Report, Error> {
    let data_dir = absolute(&options.data_dir)?;
    let config_path = absolute(&options.config_path())?;
    let config = Config {
        advertise: options.advertise.clone(),
        database: options.database.clone().map_or(Database::Sqlite, Database::Postgres),
        ..Config::new(options.name.clone(), options.trust_domain.clone(), data_dir.clone())
    };

    if exists(&config_path) {
        return Err(Error::Exists(config_path));
    }
    let marker = data_dir.join(MARKER);
    if exists(&marker) {
        remove_parts(&data_dir, PARTS)?;
    }
    if let Some(part) = PARTS.iter().map(|part| data_dir.join(part)).find(|part| exists(part)) {
        return Err(Error::Exists(part));
    }
    // What is wrong with these is told before anything is made.
    let own_ca = match (&options.ca_cert, &options.ca_key) {
        (Some(certificates), Some(key)) => Some(pki::import::read(&options.trust_domain, certificates, key, now)?),
        _ => None,
    };
    let is_new = !exists(&data_dir);
    if is_new {
        if let Some(parent) = data_dir.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        file::create_private_dir(&data_dir)?;
    } else {
        file::check_private_dir(&data_dir)?;
    }
    file::write_secret(
        &marker,
        b"`muster-server init` did not finish; it starts over when it is run again.\n",
    )?;

    let made = make(&config, &config_path, options, own_ca.as_ref(), now).await;
    if made.is_err() {
        // The first error is the one to show; what cannot be removed now, the marker leaves to the next attempt.
        let _ = remove_parts(&data_dir, PARTS);
        if is_new {
            let _ = fs::remove_dir(&data_dir);
        }
    }
    made
}

/// Everything but the configuration lies in the data directory; the configuration comes last, and makes it count.
async fn make(
    config: &Config,
    config_path: &Path,
    options: &cli::Init,
    own_ca: Option<&Chain>,
    now: SystemTime,
) -> Result<Report, Error> {
    let pki = match own_ca {
        Some(chain) => Pki::create_external(&config.pki_dir(), chain)?,
        None => Pki::create(&config.pki_dir(), &config.trust_domain, now)?,
    };
    let store = Db::open(&config.source()).await?;
    let context = config.data_dir.join(ADMIN_CONTEXT);
    let operator = async {
        if store.revision_current().await? != 0 {
            return Err(Error::DatabaseInUse);
        }
        Ok(admin::create(&store, &pki, &options.admin, config.certificates.user, now).await?)
    };
    let operator = operator.await;
    store.close().await;
    let operator = operator?;
    operator.write(&context, &config.name, config.api_listen)?;

    let url_file = match &config.database {
        Database::Postgres(url) if url.has_password() => {
            let path = config.data_dir.join(URL_FILE);
            file::write_secret(&path, url.expose().as_bytes())?;
            Some(path)
        }
        _ => None,
    };
    give_to_owner(&config.data_dir)?;

    let text = config::render(config, url_file.as_deref());
    Config::parse(&config_path.display().to_string(), &text)?;
    if let Some(parent) = config_path.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    // From here on it is a controller's, which no later attempt may take for leftovers.
    let marker = config.data_dir.join(MARKER);
    fs::remove_file(&marker).map_err(failed(&marker))?;
    sync(&config.data_dir)?;
    file::write_public(config_path, text.as_bytes())?;
    Ok(Report {
        config: config_path.to_owned(),
        context,
        admin: operator.name,
        not_after: operator.not_after,
        pins: pki.pins().iter().map(ToString::to_string).collect(),
    })
}

/// Root sets up what another user will run: all belongs to whom the data directory belongs to.
pub(crate) fn give_to_owner(data_dir: &Path) -> Result<(), Error> {
    let owner = fs::metadata(data_dir).map_err(failed(data_dir))?;
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            let meta = fs::symlink_metadata(&path).map_err(failed(&path))?;
            if meta.is_dir() {
                folders.push(path.clone());
            }
            if !meta.is_symlink() && meta.uid() != owner.uid() {
                chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(failed(&path))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn remove_parts(data_dir: &Path, parts: impl IntoIterator<Item = &'static str>) -> Result<(), Error> {
    for path in parts.into_iter().map(|part| data_dir.join(part)) {
        let removed = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(failed(&path))?;
    }
    Ok(())
}

/// What was made, renamed or removed in a folder stays so, whatever happens to the machine.
pub(crate) fn sync(folder: &Path) -> Result<(), Error> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(failed(path))
}

pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, context) = (self.config.display(), self.context.display());
        writeln!(f, "configuration   {config}")?;
        writeln!(
            f,
            "operator        {} in {context}, good until {}",
            self.admin,
            clock::to_text(clock::from_system(self.not_after))
        )?;
        writeln!(f, "CA pin          {}", self.pins.join(" "))?;
        writeln!(f)?;
        writeln!(f, "next:")?;
        writeln!(f, "  muster-server run --config {config}")?;
        writeln!(f, "  musterctl --config {context} token create --ttl 1h --uses 10")
    }
}

#[cfg(test)]
mod tests;
