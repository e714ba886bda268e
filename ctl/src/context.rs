//! The context file: which controllers there are, what to know them by, and whom to be there. It holds private keys, so a
//! file that others could read is refused. Opens no connection; that is `client`.

mod api_key;
mod edit;
pub mod pem_files;
mod write;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use muster_certs::{
    CertificateDer,
    file::{self, Error as FileError},
    identity::TrustDomain,
    identity_file::IdentityFile,
    pem,
    token::ApiKey,
};
use serde::Deserialize;
use zeroize::Zeroizing;

pub use api_key::{explicit as explicit_api_key, read as read_api_key};
pub use edit::{Stored, Summary};
pub use write::{Issued, NewFile, new_file_of_key};

use crate::{exit::Exit, problem::Problem};

/// Far more than a hundred contexts need.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const DO_CREATE: &str = "on the controller's host, as its owner: muster-server admin create NAME writes one";
const DO_LOGIN: &str = "or, with a certificate or an API key at hand: musterctl login HOST:PORT --ca-pin PIN";
const DO_PASS: &str = "then name it: musterctl --config FILE, or set MUSTER_CONFIG";

/// Whom to be.
#[derive(Debug)]
pub enum Credentials {
    /// An operator, or whoever the certificate is of.
    Certificate(Box<IdentityFile>),
    ApiKey(ApiKey),
}

/// One controller and one identity to be there.
#[derive(Debug)]
pub struct Context {
    /// Where it was read from.
    pub path: PathBuf,
    pub name: String,
    /// "host:port".
    pub server: String,
    pub trust_domain: TrustDomain,
    pub roots: Vec<CertificateDer<'static>>,
    pub credentials: Credentials,
    /// The host name in the controller's certificate, for one of the web PKI; `roots` are those of that PKI then. None: the
    /// controller's own certificate, known by the identity in it and by no host name.
    pub server_name: Option<String>,
    /// Changes of anything there are to be confirmed.
    pub is_protected: bool,
}

impl Context {
    /// Reads the file and picks the context called `name`, else the one that the file calls current. A key that is given takes
    /// the place of whatever the context holds of that kind.
    pub fn load(config: Option<&Path>, name: Option<&str>, key: Option<ApiKey>) -> Result<Context, Problem> {
        let path = place(config)?;
        let text = file::read_secret_text(&path, MAX_BYTES).map_err(|error| unreadable(&path, &error))?;
        let file = parse(&path, &text)?;
        Context::new(&path, pick(&path, file, name)?, key)
    }

    fn new(path: &Path, entry: Entry, key: Option<ApiKey>) -> Result<Context, Problem> {
        let wrong = |why: String| {
            problem(format!("context {} in {} cannot be used", entry.name, path.display()))
                .why(why)
                .step("get a new context file on the controller's host: muster-server admin create NAME")
        };
        let named = |key: &str, cause: &dyn std::error::Error| wrong(format!("`{key}`: {}", chain(cause)));
        Ok(Context {
            trust_domain: entry
                .trust_domain
                .parse()
                .map_err(|error| named("trust_domain", &error))?,
            roots: pem::certificates(&entry.ca).map_err(|error| named("ca", &error))?,
            credentials: match key {
                Some(key) => Credentials::ApiKey(key),
                None => entry.credentials().map_err(wrong)?,
            },
            path: path.to_owned(),
            name: entry.name,
            server: entry.server,
            server_name: entry.server_name,
            is_protected: entry.protected,
        })
    }

    /// The certificate with its key, if that is what is shown.
    pub fn identity(&self) -> Option<&IdentityFile> {
        match &self.credentials {
            Credentials::Certificate(identity) => Some(identity),
            Credentials::ApiKey(_) => None,
        }
    }

    /// How many days the certificate lasts, when that is less than a week: something to say before it is too late.
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        let left = self.identity()?.not_after().duration_since(now);
        let days = left.ok()?.as_secs() / 86_400;
        (days < 7).then_some(days)
    }
}

/// As it stands in the file. Without `Debug`, because of the keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: Option<String>,
    #[serde(default)]
    contexts: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    server: String,
    trust_domain: String,
    ca: String,
    certificate: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    key: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "secret")]
    api_key: Option<Zeroizing<String>>,
    server_name: Option<String>,
    #[serde(default)]
    protected: bool,
}

impl Entry {
    /// An error says what is wrong with them and repeats nothing of them.
    fn credentials(&self) -> Result<Credentials, String> {
        match (&self.api_key, &self.certificate, &self.key) {
            (Some(key), None, None) => ApiKey::parse(key)
                .map(Credentials::ApiKey)
                .map_err(|error| format!("`api_key`: {error}")),
            (None, Some(certificate), Some(key)) => {
                IdentityFile::from_pem(&Zeroizing::new(format!("{}\n{certificate}", key.as_str())))
                    .map(|identity| Credentials::Certificate(Box::new(identity)))
                    .map_err(|error| format!("`certificate and key`: {}", chain(&error)))
            }
            (Some(_), _, _) => Err("it has `api_key` beside `certificate` or `key`; leave one of them out".to_owned()),
            (None, Some(_), None) => Err("`key` is missing, which belongs to `certificate`".to_owned()),
            (None, None, Some(_)) => Err("`certificate` is missing, which `key` belongs to".to_owned()),
            (None, None, None) => Err("it has neither `certificate` and `key` nor `api_key`".to_owned()),
        }
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(input)?.map(Zeroizing::new))
}

/// Where the file is: where it is said to be, else in its usual place.
pub fn place(config: Option<&Path>) -> Result<PathBuf, Problem> {
    match config {
        Some(path) => Ok(path.to_owned()),
        None => default_path().ok_or_else(no_home),
    }
}

fn default_path() -> Option<PathBuf> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .map(|home| home.join(".config/muster/config.yaml"))
}

fn parse(path: &Path, text: &str) -> Result<File, Problem> {
    // Without snippets: the lines around a mistake may be those of a key.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        problem(format!("the context file {} cannot be read", path.display()))
            .why(error.to_string())
            .step("correct it; its keys are current and contexts, and in each context name, server, trust_domain, ca, certificate and key or else api_key, server_name for a controller that is known by its host name, and protected")
            .step("or get a new one on the controller's host: muster-server admin create NAME")
    })
}

fn pick(path: &Path, file: File, name: Option<&str>) -> Result<Entry, Problem> {
    let names: Vec<String> = file.contexts.iter().map(|entry| entry.name.clone()).collect();
    let listed = if names.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", names.join(", "))
    };
    let wanted = match (name, &file.current, names.as_slice()) {
        (Some(name), _, _) => name.to_owned(),
        (None, Some(current), _) => current.clone(),
        (None, None, [only]) => only.clone(),
        (None, None, _) => {
            return Err(problem(format!("no context of {} is chosen", path.display()))
                .why(format!("the file does not say which one is `current`; {listed}"))
                .step("musterctl --context NAME, or write `current: NAME` into the file"));
        }
    };
    file.contexts
        .into_iter()
        .find(|entry| entry.name == wanted)
        .ok_or_else(|| {
            let mut problem = problem(format!("there is no context {wanted}"))
                .why(format!("{} has no context of that name; {listed}", path.display()));
            match muster_proto::document::suggest(&wanted, names.iter().map(String::as_str)) {
                Some(meant) => problem = problem.step(format!("did you mean --context {meant}?")),
                None => problem = problem.step("take one that is there: --context NAME"),
            }
            problem
        })
}

fn unreadable(path: &Path, error: &FileError) -> Problem {
    let shown = path.display();
    match error {
        FileError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            problem("no context file: it is not known which controller to ask")
                .why(format!("{shown} does not exist"))
                .step(DO_CREATE)
                .step(DO_PASS)
                .step(DO_LOGIN)
        }
        FileError::FileTooOpen { mode, .. } => problem(format!("{shown} is open to other users"))
            .why(format!(
                "it holds a private key, and its mode is {mode:04o} where 0600 is needed"
            ))
            .step(format!("chmod 600 {shown}"))
            .step("if others may have read it: muster-server admin create NAME makes a new key"),
        _ => problem(format!("the context file {shown} cannot be read"))
            .why(chain(error))
            .step(DO_PASS),
    }
}

fn no_home() -> Problem {
    problem("no context file: it is not known which controller to ask")
        .why("HOME is not set, so there is no place to look for one")
        .step(DO_PASS)
}

fn problem(headline: impl Into<String>) -> Problem {
    Problem::new(Exit::Failure, headline).what("find out which controller to ask, and as whom")
}

/// An error with its causes, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
