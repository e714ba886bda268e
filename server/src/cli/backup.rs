//! The command line of backups: `backup`, `backup verify` and `restore`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Installation, SYSTEM_CONFIG, SYSTEM_DATA};
use crate::config::DatabaseUrl;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Backup {
    #[command(subcommand)]
    pub verb: Option<BackupVerb>,
    /// The file to write; one that exists is not overwritten
    #[arg(long, value_name = "FILE", required = true)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub passphrase: PassphraseFile,
    #[command(flatten)]
    pub installation: Installation,
}

#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    /// Read all of a backup and say what is in it
    Verify {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseFile,
    },
}

#[derive(Debug, Args)]
pub struct PassphraseFile {
    /// A file of mode 0600 with the passphrase in one line [default: ask at the terminal]
    #[arg(long = "passphrase-file", value_name = "FILE")]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where keys and, with SQLite, the database are to be kept [default: /var/lib/muster]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The configuration: that of the backup is written there, unless there is one, which then says where everything is
    /// [default: as with init]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Into PostgreSQL instead of SQLite: postgres://user@host/database. With a password use the variable, not the flag
    #[arg(long, value_name = "URL", env = "MUSTER_DATABASE", hide_env_values = true, value_parser = DatabaseUrl::parse)]
    pub database: Option<DatabaseUrl>,
    /// A file of mode 0600 with the passphrase in one line [default: ask at the terminal]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Restore {
    pub fn config_path(&self) -> PathBuf {
        match (&self.config, &self.data_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(data_dir)) if data_dir != Path::new(SYSTEM_DATA) => data_dir.join("server.yaml"),
            (None, _) => SYSTEM_CONFIG.into(),
        }
    }
}
