//! What is said to whoever has restored a backup: what there is now, what nobody here knows, and what to do next.

use std::{fmt, path::PathBuf};

use crate::{
    backup::format::Header,
    clock::{self, Micros},
    config::{Config, Database},
};

/// What was restored.
#[derive(Debug)]
pub struct Report {
    pub(super) header: Header,
    pub(super) config: Config,
    pub(super) config_path: PathBuf,
    /// Whether the configuration came with the backup.
    pub(super) is_new_config: bool,
    pub(super) rows: u64,
    pub(super) tokens: u64,
    pub(super) policies: usize,
    pub(super) restored_at: Micros,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, header) = (&self.config, &self.header);
        let taken = clock::to_text(header.taken_at);
        writeln!(f, "restored        {} of {}", header.controller, header.trust_domain)?;
        writeln!(
            f,
            "backup          of {taken}, by release {}; now epoch {} at {}",
            header.muster,
            header.epoch + 1,
            clock::to_text(self.restored_at)
        )?;
        match &config.database {
            Database::Sqlite => writeln!(f, "database        SQLite in {}", config.data_dir.display())?,
            Database::Postgres(_) => writeln!(f, "database        PostgreSQL")?,
        }
        writeln!(f, "rows            {}", self.rows)?;
        writeln!(f, "keys            {}", config.pki_dir().display())?;
        let origin = if self.is_new_config {
            "of the backup"
        } else {
            "was there"
        };
        writeln!(f, "configuration   {} ({origin})", self.config_path.display())?;
        writeln!(f, "tokens          {} void; make new ones", self.tokens)?;
        writeln!(f, "policies        {} signed again", self.policies)?;
        writeln!(f)?;
        writeln!(f, "not known here  what happened since {taken}:")?;
        writeln!(
            f,
            "  certificates that were revoked since then count again; revoke them once more"
        )?;
        writeln!(
            f,
            "  agents that enrolled since then need a token: musterctl event list --reason AGENT_NOT_ON_FILE"
        )?;
        writeln!(
            f,
            "  operators that were made since then need new files: muster-server admin create NAME"
        )?;
        writeln!(
            f,
            "  a CA that was prepared since then is lost, and one that was retired since then is trusted again"
        )?;
        writeln!(f, "  the history of metrics was not in the backup")?;
        if let Some(files) = &config.api_certificate {
            writeln!(f)?;
            writeln!(
                f,
                "not in a backup {} and {}, which api_certificate names",
                files.certificate.display(),
                files.key.display()
            )?;
        }
        writeln!(f)?;
        writeln!(f, "next:")?;
        writeln!(
            f,
            "  see to it that the old controller does not run, and never does again: the two would not know of each other"
        )?;
        if !config.advertise.is_empty() {
            writeln!(
                f,
                "  let these names lead to this machine: {}",
                config.advertise.join(" ")
            )?;
        }
        writeln!(f, "  muster-server run --config {}", self.config_path.display())
    }
}
