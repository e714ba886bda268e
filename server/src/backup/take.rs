//! `muster-server backup`: a consistent look at keys and database while the controller goes on, written to one file.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use muster_certs::file;

use super::{
    Error,
    archive::{Named, Writer},
    format::{self, CONFIGURATION, FORMAT, HEADER, Header, MANIFEST, MAX_FILE, Manifest, PART},
    passphrase::Passphrase,
    read, rows,
};
use crate::{
    admin::on_host,
    cli::Installation,
    clock::{self, Micros},
    config::{self, Config, Database},
    init,
    store::dump::{self, Snapshot, TABLES},
};

/// What was written.
#[derive(Debug)]
pub struct Report {
    out: PathBuf,
    bytes: u64,
    controller: String,
    taken_at: Micros,
    rows: u64,
}

pub async fn run(installation: &Installation, out: &Path, passphrase_file: Option<&Path>) -> Result<Report, Error> {
    let (config, pki) = on_host::find(installation)?;
    let configuration = configuration(installation, &config)?;
    if fs::symlink_metadata(out).is_ok() {
        return Err(Error::Exists(out.to_owned()));
    }
    let passphrase = Passphrase::new(passphrase_file)?;
    let mut writer = Writer::create(out, &passphrase)?;

    // The CAs do not change between the look at the keys and that at the database.
    let (keys, snapshot) = {
        let _alone = pki.alone()?;
        (keys(pki.dir())?, Snapshot::open(&config.source()).await)
    };
    let mut snapshot = snapshot?;
    let written = write(&mut writer, &mut snapshot, &config, &configuration, &keys).await;
    snapshot.close().await?;
    // Root may have made files of SQLite that another user's controller needs.
    if config.database == Database::Sqlite {
        init::give_to_owner(&config.data_dir).map_err(Error::DataDir)?;
    }
    let manifest = written?;
    writer.finish()?;
    Ok(Report {
        out: out.to_owned(),
        bytes: fs::metadata(out).map_err(read(out))?.len(),
        controller: config.name,
        taken_at: manifest.header.taken_at,
        rows: manifest.rows.values().sum(),
    })
}

async fn write(
    writer: &mut Writer,
    snapshot: &mut Snapshot,
    config: &Config,
    configuration: &str,
    keys: &[Named],
) -> Result<Manifest, Error> {
    let columns = |table: &dump::Table| table.columns.iter().map(|column| column.name.to_owned()).collect();
    let header = Header {
        format: FORMAT,
        muster: env!("CARGO_PKG_VERSION").to_owned(),
        schema: dump::schema(),
        // Read after the look at the database: all that the backup holds is older.
        taken_at: clock::now(),
        trust_domain: config.trust_domain.to_string(),
        controller: config.name.clone(),
        epoch: snapshot.epoch().await?,
        tables: TABLES
            .iter()
            .map(|table| (table.name.to_owned(), columns(table)))
            .collect(),
    };
    writer.add(HEADER, &json(&header))?;
    writer.add(CONFIGURATION, configuration.as_bytes())?;
    for (name, bytes) in keys {
        writer.add(&format::key_name(name), bytes)?;
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for table in &TABLES {
        let (mut text, mut count, mut number) = (Vec::with_capacity(PART), 0, 0);
        snapshot
            .each_row(table, |row| {
                rows::write(&row, &mut text);
                count += 1;
                if text.len() >= PART {
                    number += 1;
                    writer.add(&format::rows_name(table.name, number), &text)?;
                    text.clear();
                }
                Ok::<_, Error>(())
            })
            .await?;
        if !text.is_empty() {
            writer.add(&format::rows_name(table.name, number + 1), &text)?;
        }
        counts.insert(table.name.to_owned(), count);
    }
    let manifest = Manifest {
        header,
        rows: counts,
        parts: writer.parts().to_vec(),
    };
    writer.add(MANIFEST, &json(&manifest))?;
    Ok(manifest)
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Maps with keys of text, and numbers: there is nothing here that JSON cannot say.
    serde_json::to_vec(value).unwrap_or_default()
}

/// `server.yaml`, or what would stand there: `muster-server dev` has none.
fn configuration(installation: &Installation, config: &Config) -> Result<String, Error> {
    let path = on_host::config_path(installation);
    if installation.data_dir.is_some() && !path.exists() {
        return Ok(config::render(config, None));
    }
    fs::read_to_string(&path).map_err(read(&path))
}

/// Every file below the folder of the keys that belongs to them.
fn keys(pki: &Path) -> Result<Vec<Named>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(pki).map_err(read(pki))? {
        let entry = entry.map_err(read(pki))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !path.is_dir() {
            names.push(name);
            continue;
        }
        for entry in fs::read_dir(&path).map_err(read(&path))? {
            if let Ok(file) = entry.map_err(read(&path))?.file_name().into_string() {
                names.push(format!("{name}/{file}"));
            }
        }
    }
    names.retain(|name| format::is_key(name));
    names.sort();
    let max = usize::try_from(MAX_FILE).unwrap_or(usize::MAX);
    names
        .into_iter()
        .map(|name| Ok((name.clone(), file::read_secret(&pki.join(&name), max)?)))
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = self.out.display();
        writeln!(
            f,
            "backup          of {} at {}: {} rows, {} bytes in {out}",
            self.controller,
            clock::to_text(self.taken_at),
            self.rows,
            self.bytes,
        )?;
        writeln!(
            f,
            "                keys, configuration and database; the history of metrics is not in it"
        )?;
        writeln!(f)?;
        writeln!(f, "next:")?;
        writeln!(f, "  muster-server backup verify {out}")?;
        writeln!(f, "  put it on another machine, and the passphrase elsewhere")
    }
}
