//! What is in a backup, part by part, checked on the way: names, sizes, hashes, counts, and that nothing is missing at the end.
//! Whoever reads to the end without an error has read what was written.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    Error,
    archive::Reader,
    damaged,
    format::{self, FORMAT, HEADER, Header, Kind, MANIFEST, MAX_FILE, MAX_FILES, MAX_PART, Manifest, Part},
    passphrase::Passphrase,
    rows,
};
use crate::store::dump::{self, Column, Table, Value};

pub struct Contents {
    reader: Reader,
    path: std::path::PathBuf,
    header: Header,
    parts: Vec<Part>,
    counts: BTreeMap<String, u64>,
    files: usize,
}

pub enum Item {
    Configuration(Zeroizing<Vec<u8>>),
    /// A file below the folder of the keys.
    Key {
        name: String,
        bytes: Zeroizing<Vec<u8>>,
    },
    Rows {
        table: &'static Table,
        columns: Vec<Column>,
        rows: Vec<Vec<Value>>,
    },
}

/// So much of the first part can be read in any format.
#[derive(Deserialize)]
struct Form {
    format: u32,
    #[serde(default)]
    muster: String,
}

impl Contents {
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, Error> {
        let mut reader = Reader::open(path, passphrase)?;
        let no_backup = || Error::NotABackup {
            path: path.to_owned(),
            why: "it does not say what it is",
        };
        let (name, bytes) = reader.next(|_| MAX_FILE)?.ok_or_else(no_backup)?;
        if name != HEADER {
            return Err(no_backup());
        }
        let form: Form = serde_json::from_slice(&bytes).map_err(|_| no_backup())?;
        let newer = |muster: &str, what: String| Error::Newer {
            path: path.to_owned(),
            muster: muster.to_owned(),
            what,
        };
        if form.format > FORMAT {
            let what = format!("format {}, this release knows {FORMAT}", form.format);
            return Err(newer(&form.muster, what));
        }
        let header: Header = serde_json::from_slice(&bytes).map_err(|_| no_backup())?;
        if header.schema > dump::schema() {
            let what = format!("schema {}, this release has {}", header.schema, dump::schema());
            return Err(newer(&header.muster, what));
        }
        Ok(Self {
            reader,
            path: path.to_owned(),
            counts: header.tables.keys().map(|name| (name.clone(), 0)).collect(),
            header,
            parts: vec![Part::of(&name, &bytes)],
            files: 0,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Rows of each table, as far as it was read.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// None: all of it was read, and it is what was written.
    pub fn next(&mut self) -> Result<Option<Item>, Error> {
        let max = |name: &str| match format::kind(name) {
            Some(Kind::Rows(_) | Kind::Manifest) => MAX_PART,
            _ => MAX_FILE,
        };
        let Some((name, bytes)) = self.reader.next(max)? else {
            return Err(damaged(&self.path, format!("{MANIFEST} is missing")));
        };
        let unknown = || damaged(&self.path, "it has a part that is none of ours");
        let item = match format::kind(&name).ok_or_else(unknown)? {
            Kind::Manifest => return self.compare(&bytes).map(|()| None),
            Kind::Configuration => Item::Configuration(bytes.clone()),
            Kind::Key(below) => Item::Key {
                name: below.to_owned(),
                bytes: bytes.clone(),
            },
            Kind::Rows(table) => self.rows(table, &bytes)?,
        };
        if !matches!(item, Item::Rows { .. }) {
            self.files += 1;
            if self.files > MAX_FILES {
                return Err(damaged(&self.path, format!("it has more than {MAX_FILES} files")));
            }
        }
        self.parts.push(Part::of(&name, &bytes));
        Ok(Some(item))
    }

    fn rows(&mut self, name: &str, bytes: &[u8]) -> Result<Item, Error> {
        let wrong = |problem: String| damaged(&self.path, format!("table {name:?}: {problem}"));
        let table = dump::table(name).ok_or_else(|| wrong("this release does not know it".to_owned()))?;
        let names = self.header.tables.get(name);
        let names = names.ok_or_else(|| wrong("it is not announced".to_owned()))?;
        let columns: Option<Vec<Column>> = names.iter().map(|name| table.column(name)).collect();
        let columns = columns.filter(|columns| !columns.is_empty());
        let columns = columns.ok_or_else(|| wrong("it has columns that this release does not know".to_owned()))?;
        let rows = rows::read(bytes, &columns).map_err(wrong)?;
        if let Some(count) = self.counts.get_mut(name) {
            *count += rows.len() as u64;
        }
        Ok(Item::Rows { table, columns, rows })
    }

    fn compare(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let wrong = |problem: &str| damaged(&self.path, problem);
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| wrong(&format!("{MANIFEST} cannot be read: {error}")))?;
        if manifest.header != self.header {
            return Err(wrong("its beginning and its end are of two backups"));
        }
        if manifest.parts != self.parts {
            return Err(wrong("its parts are not those that were written"));
        }
        if manifest.rows != self.counts {
            return Err(wrong("it has more or fewer rows than were written"));
        }
        match self.reader.next(|_| 0)? {
            None => Ok(()),
            Some(_) => Err(wrong("there is something behind its end")),
        }
    }
}
