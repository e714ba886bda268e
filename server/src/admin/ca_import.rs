//! `muster-server ca import`: brings a CA of the operator's own PKI to the controller of this host, whether it is running or
//! not. All that follows is `musterctl ca`.

use std::{fmt, path::Path, time::SystemTime};

use super::on_host;
use crate::{
    cli::Installation,
    init,
    pki::{self, Imported},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to find the controller")]
    Find(#[from] on_host::Error),
    #[error("the CA cannot be taken")]
    Pki(#[from] pki::Error),
    #[error("failed to give the new files to the owner of the others")]
    Owner(#[from] init::Error),
}

/// What was done; displayed, it says what to type next.
#[derive(Debug)]
pub struct Report {
    imported: Imported,
    pins: Vec<String>,
}

pub fn import(installation: &Installation, certificates: &Path, key: &Path, now: SystemTime) -> Result<Report, Error> {
    let (_, pki) = on_host::find(installation)?;
    let chain = pki::import::read(pki.trust_domain(), certificates, key, now)?;
    let imported = pki.import(chain, now)?;
    // It is often root who does this, and another user who runs the controller.
    init::give_to_owner(pki.dir())?;
    Ok(Report {
        imported,
        pins: pki.pins().iter().map(ToString::to_string).collect(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.imported {
            Imported::Prepared(id) => writeln!(f, "prepared        the CA {id}, which issues nothing yet")?,
            Imported::Renewed(id) => writeln!(f, "renewed         the certificate of the CA {id}")?,
        }
        writeln!(f, "CA pins         {}", self.pins.join(" "))?;
        writeln!(f)?;
        writeln!(f, "next:")?;
        writeln!(f, "  musterctl ca status")?;
        match &self.imported {
            Imported::Prepared(_) => writeln!(f, "  musterctl ca activate --yes"),
            Imported::Renewed(_) => Ok(()),
        }
    }
}
