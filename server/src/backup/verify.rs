//! `muster-server backup verify`: reads all of a backup and says what is in it. Needs no controller.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Error,
    contents::{Contents, Item},
    damaged,
    format::{CONFIGURATION, Header},
    passphrase::Passphrase,
};
use crate::clock;

/// A backup that was read to its end and found good.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    pub header: Header,
    pub rows: BTreeMap<String, u64>,
    /// Names of files below the folder of the keys.
    pub keys: Vec<String>,
    pub configuration: Zeroizing<String>,
}

pub fn run(path: &Path, passphrase_file: Option<&Path>) -> Result<Report, Error> {
    read(path, &Passphrase::known(passphrase_file)?)
}

pub(super) fn read(path: &Path, passphrase: &Passphrase) -> Result<Report, Error> {
    let mut contents = Contents::open(path, passphrase)?;
    let (mut keys, mut configuration) = (Vec::new(), None);
    while let Some(item) = contents.next()? {
        match item {
            Item::Rows { .. } => {}
            Item::Key { name, .. } => keys.push(name),
            Item::Configuration(bytes) => {
                let text = str::from_utf8(&bytes).map_err(|_| damaged(path, format!("{CONFIGURATION} is no text")))?;
                configuration = Some(Zeroizing::new(text.to_owned()));
            }
        }
    }
    Ok(Report {
        path: path.to_owned(),
        header: contents.header().clone(),
        rows: contents.counts().clone(),
        keys,
        configuration: configuration.ok_or_else(|| damaged(path, format!("{CONFIGURATION} is missing")))?,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        writeln!(f, "{} is whole", self.path.display())?;
        writeln!(f, "controller      {} of {}", header.controller, header.trust_domain)?;
        writeln!(f, "taken           {}", clock::to_text(header.taken_at))?;
        writeln!(
            f,
            "release         {}, schema {}, epoch {}",
            header.muster, header.schema, header.epoch
        )?;
        writeln!(f, "keys            {}", self.keys.join(" "))?;
        let rows = self.rows.iter().filter(|(_, count)| **count > 0);
        let rows: Vec<String> = rows.map(|(table, count)| format!("{table} {count}")).collect();
        writeln!(f, "rows            {}", rows.join(", "))
    }
}
