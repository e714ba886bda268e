//! A context as PEM files, which other programs want: the CA, the certificate with its chain, the key; of an API key the header
//! that shows it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_certs::{file, pem};
use zeroize::Zeroizing;

use super::{Context, Credentials, chain};
use crate::{exit::Exit, problem::Problem};

#[derive(Debug, Clone)]
pub struct PemFiles {
    pub folder: PathBuf,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// "authorization: Bearer ...", for `curl --header @FILE`.
    pub header: PathBuf,
}

impl PemFiles {
    pub fn of(folder: &Path, context: &Context) -> PemFiles {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = context.name.chars().map(plain).collect();
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        PemFiles {
            ca: file("ca.pem"),
            certificate: file("cert.pem"),
            key: file("key.pem"),
            header: file("header"),
            folder: folder.to_owned(),
        }
    }

    /// Where they are when no folder is named.
    pub fn beside(context: &Context) -> PemFiles {
        let folder = context.path.parent().unwrap_or(Path::new("")).join("pem");
        PemFiles::of(&std::path::absolute(&folder).unwrap_or(folder), context)
    }

    /// Whether they hold what the context holds now.
    pub fn are_of(&self, context: &Context) -> bool {
        let same = |(path, wanted): &(&Path, Zeroizing<String>)| {
            fs::read_to_string(path)
                .map(Zeroizing::new)
                .is_ok_and(|text| text == *wanted)
        };
        self.contents(context).iter().all(same)
    }

    /// Each is for its owner alone.
    pub fn write(&self, context: &Context) -> Result<Vec<PathBuf>, Problem> {
        let failed = |error: &file::Error| {
            Problem::new(Exit::Failure, "the PEM files were not written")
                .what(format!("write context {} as PEM files", context.name))
                .why(chain(error))
                .step("name a folder that is yours: musterctl context export-pem DIR")
        };
        if !self.folder.exists() {
            file::create_private_dir(&self.folder).map_err(|error| failed(&error))?;
        }
        let contents = self.contents(context);
        for (path, text) in &contents {
            file::write_secret(path, text.as_bytes()).map_err(|error| failed(&error))?;
        }
        Ok(contents.iter().map(|(path, _)| (*path).to_owned()).collect())
    }

    fn contents(&self, context: &Context) -> Vec<(&Path, Zeroizing<String>)> {
        let roots = Zeroizing::new(pem::encode_certificates(&context.roots));
        let mut contents = vec![(self.ca.as_path(), roots)];
        match &context.credentials {
            Credentials::Certificate(identity) => {
                let chain = Zeroizing::new(pem::encode_certificates(identity.chain()));
                contents.push((&self.certificate, chain));
                contents.push((&self.key, identity.key().to_pem()));
            }
            Credentials::ApiKey(key) => {
                let header = Zeroizing::new(format!("authorization: Bearer {}\n", *key.expose()));
                contents.push((&self.header, header));
            }
        }
        contents
    }
}
