//! Backups of a controller, and a controller from one: on a host that has nothing of the old one but its addresses.

use std::{fs, path::PathBuf};

use super::Controller;
use crate::{binaries, ctl::Outcome, postgres::Database, process};

/// A file and the file with its passphrase, which stay when the controller's data goes.
#[derive(Debug, Clone)]
pub struct Backup {
    pub file: PathBuf,
    pub passphrase: PathBuf,
}

impl Controller {
    /// `muster-server backup` under this name.
    #[track_caller]
    pub fn backup(&self, name: &str) -> Backup {
        let backup = Backup {
            file: self.path(&format!("{name}.age")),
            passphrase: self.passphrase("backup-passphrase", "correct horse battery staple"),
        };
        self.server(&[
            "backup",
            "--out",
            backup.file.to_str().expect("a path"),
            "--passphrase-file",
            backup.passphrase.to_str().expect("a path"),
        ])
        .expect_code(0);
        backup.verify().expect_code(0);
        backup
    }

    /// A file with a passphrase.
    pub fn passphrase(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        muster_certs::file::write_secret(&path, format!("{text}\n").as_bytes()).expect("the passphrase is written");
        path
    }

    /// Loses all that the controller, which does not run, has on this host, and restores it from the backup into `database`,
    /// or into SQLite.
    #[track_caller]
    pub fn restore(&mut self, backup: &Backup, database: Option<Database>) -> Outcome {
        assert!(self.process.is_none(), "the controller runs");
        fs::remove_dir_all(self.data_dir()).expect("the data is lost");
        self.database = database;
        let outcome = backup.restore(&self.data_dir(), self.database.as_ref());
        outcome.expect_code(0)
    }
}

impl Backup {
    pub fn verify(&self) -> Outcome {
        let mut command = process::clean_command(binaries::path("muster-server"), "/".as_ref());
        command.args(["backup", "verify"]).arg(&self.file);
        command.arg("--passphrase-file").arg(&self.passphrase);
        Outcome::of(command)
    }

    /// `muster-server restore` into this directory, and this database or SQLite.
    pub fn restore(&self, data_dir: &std::path::Path, database: Option<&Database>) -> Outcome {
        let mut command = process::clean_command(binaries::path("muster-server"), "/".as_ref());
        command.arg("restore").arg(&self.file).arg("--data-dir").arg(data_dir);
        command.arg("--passphrase-file").arg(&self.passphrase);
        if let Some(database) = database {
            command.env("MUSTER_DATABASE", database.url());
        }
        Outcome::of(command)
    }
}
