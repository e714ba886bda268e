//! Context files that are written: a new one, which takes nobody's place, and another identity in a context that is there.
//! Where certificates come from is not known here.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use muster_certs::{
    CertificateDer, Identity,
    certificate::Certificate,
    context_file::{self, HEADER, KEY_HEADER},
    file,
    identity_file::IdentityFile,
    key::{KeyPair, PublicKey},
    pem,
};
use zeroize::Zeroizing;

use super::{Context, Credentials, MAX_BYTES, chain, parse, unreadable};
use crate::{exit::Exit, problem::Problem};

/// A certificate that the controller has issued for a user, with the roots that the user should know it by.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    pub roots: Vec<CertificateDer<'static>>,
}

/// A file that is there already, empty and for its owner alone, so that nobody else makes it and it is known to be writable
/// before anything is asked of the controller. Dropped without `write`, it is gone.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    is_written: bool,
}

impl Issued {
    /// An answer of the controller. An error says in what it is not what was asked for.
    pub fn of(
        context: &Context,
        user: &str,
        key: &PublicKey,
        certificates: Vec<Vec<u8>>,
        roots: Vec<Vec<u8>>,
    ) -> Result<Issued, String> {
        let der = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
        let issued = Issued {
            certificates: der(certificates),
            roots: der(roots),
        };
        let leaf = issued.certificates.first().ok_or("it holds no certificate")?;
        if Certificate::parse(leaf)
            .map_err(|error| error.to_string())?
            .public_key_der
            != key.der()
        {
            return Err("the certificate is for another key".to_owned());
        }
        let identity = Identity::from_certificate(leaf).map_err(|error| error.to_string())?;
        let wanted = Identity::user(&context.trust_domain, user).map_err(|error| error.to_string())?;
        if identity != wanted {
            return Err(format!("the certificate is of {identity} and not of {wanted}"));
        }
        for certificate in issued.certificates.iter().chain(&issued.roots) {
            Certificate::parse(certificate).map_err(|error| error.to_string())?;
        }
        if issued.roots.is_empty() {
            return Err("it holds no root certificate".to_owned());
        }
        Ok(issued)
    }

    /// A context file for the controller of `context`. Without a key it is one to which its owner adds it.
    pub fn new_file(&self, context: &Context, key: Option<&KeyPair>) -> Zeroizing<String> {
        let key = key.map(KeyPair::to_pem);
        let entry = context_file::Entry {
            name: &context.name,
            server: &context.server,
            trust_domain: context.trust_domain.as_str(),
            server_name: context.server_name.as_deref(),
            roots: &pem::encode_certificates(context.roots_after(self)),
            credentials: context_file::Credentials::Certificate {
                certificates: &pem::encode_certificates(&self.certificates),
                key: key.as_ref().map(|key| key.as_str()),
            },
            is_protected: false,
        };
        context_file::render(HEADER, Some(&context.name), &[entry])
    }
}

/// A context file for the controller of `context`, and for who has this API key.
pub fn new_file_of_key(context: &Context, key: &str) -> Zeroizing<String> {
    let entry = context_file::Entry {
        name: &context.name,
        server: &context.server,
        trust_domain: context.trust_domain.as_str(),
        server_name: context.server_name.as_deref(),
        roots: &pem::encode_certificates(&context.roots),
        credentials: context_file::Credentials::ApiKey(key),
        is_protected: false,
    };
    context_file::render(KEY_HEADER, Some(&context.name), &[entry])
}

impl Context {
    /// The same controller with a new identity.
    pub fn renewed(&self, issued: &Issued, identity: IdentityFile) -> Context {
        Context {
            path: self.path.clone(),
            name: self.name.clone(),
            server: self.server.clone(),
            trust_domain: self.trust_domain.clone(),
            roots: self.roots_after(issued).to_vec(),
            credentials: Credentials::Certificate(Box::new(identity)),
            server_name: self.server_name.clone(),
            is_protected: self.is_protected,
        }
    }

    /// Puts this one into its file, in the place of `before`, whole or not at all. All else in the file stays as it is, but for
    /// comments below the first lines.
    pub fn replace(&self, before: &Context) -> Result<(), Problem> {
        let failed = |why: String| {
            Problem::new(Exit::Failure, format!("{} was not written", self.path.display()))
                .what(format!("renew context {}", self.name))
                .why(why)
                .step("the context is as it was before, and goes on to be good until its end")
                .step("make sure that the file may be written, then try again: musterctl user renew")
        };
        // A link stays one: what it points to is replaced.
        let path = fs::canonicalize(&self.path).map_err(|error| failed(error.to_string()))?;
        let text = file::read_secret_text(&path, MAX_BYTES).map_err(|error| unreadable(&path, &error))?;
        let mut file = parse(&path, &text)?;
        let entry = file.contexts.iter_mut().find(|entry| entry.name == self.name);
        let leaf = |context: &Context| context.identity().and_then(|it| it.chain().first().cloned());
        let is_same = |entry: &super::Entry| {
            let chain = entry.certificate.as_deref().map(pem::certificates);
            chain.is_some_and(|chain| chain.is_ok_and(|chain| chain.first() == leaf(before).as_ref()))
        };
        let (Some(entry), Some(identity)) = (entry.filter(|entry| is_same(entry)), self.identity()) else {
            return Err(failed("the context in the file is another one by now".to_owned()));
        };
        entry.ca = pem::encode_certificates(&self.roots);
        entry.certificate = Some(pem::encode_certificates(identity.chain()));
        entry.key = Some(identity.key().to_pem());
        let entries: Vec<context_file::Entry<'_>> = file.contexts.iter().map(super::Entry::written).collect();
        let text = context_file::render(&header(&text), file.current.as_deref(), &entries);
        file::write_secret(&path, text.as_bytes()).map_err(|error| failed(chain(&error)))
    }

    /// Who is known by the web PKI has its roots elsewhere.
    fn roots_after<'a>(&'a self, issued: &'a Issued) -> &'a [CertificateDer<'static>] {
        match self.server_name {
            Some(_) => &self.roots,
            None => &issued.roots,
        }
    }
}

impl super::Entry {
    pub(super) fn written(&self) -> context_file::Entry<'_> {
        context_file::Entry {
            is_protected: self.protected,
            name: &self.name,
            server: &self.server,
            trust_domain: &self.trust_domain,
            server_name: self.server_name.as_deref(),
            roots: &self.ca,
            credentials: match &self.api_key {
                Some(key) => context_file::Credentials::ApiKey(key),
                None => context_file::Credentials::Certificate {
                    certificates: self.certificate.as_deref().unwrap_or_default(),
                    key: self.key.as_ref().map(|key| key.as_str()),
                },
            },
        }
    }
}

impl NewFile {
    pub fn claim(path: &Path) -> Result<NewFile, Problem> {
        let claimed = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let shown = path.display();
        match claimed {
            Ok(_) => Ok(NewFile {
                path: path.to_owned(),
                is_written: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Problem::new(Exit::Usage, format!("{shown} exists already"))
                    .what("write a context file")
                    .why("a file is never overwritten: it may hold the only copy of a key")
                    .step("name another file: --out FILE"))
            }
            Err(error) => Err(Problem::new(Exit::Failure, format!("{shown} cannot be written"))
                .what("write a context file")
                .why(error.to_string())
                .step("name a file in a folder that is yours: --out FILE")),
        }
    }

    pub fn write(mut self, text: &str) -> Result<(), Problem> {
        file::write_secret(&self.path, text.as_bytes()).map_err(|error| {
            Problem::new(Exit::Failure, format!("{} was not written", self.path.display()))
                .what("write a context file")
                .why(chain(&error))
                .step("the certificate is of no use without it; get another one: musterctl user renew NAME --out FILE")
        })?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_written {
            // What cannot be removed is an empty file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The comments that a file begins with.
pub(super) fn header(text: &str) -> String {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests;
