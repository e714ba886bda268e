//! The context file as a whole: which contexts there are, and changes of it. Always written in one step, for its owner alone; a
//! link stays one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use muster_certs::{
    context_file::{self, HEADER},
    file::{self, Error as FileError},
    pem,
};

use super::{Context, Credentials, Entry, File, MAX_BYTES, chain, parse, place, unreadable, write};
use crate::{exit::Exit, problem::Problem};

/// The file that is there, or one that is to be.
pub struct Stored {
    pub path: PathBuf,
    header: String,
    file: File,
}

/// What can be said of a context without its secrets.
#[derive(Debug, Clone)]
pub struct Summary {
    pub name: String,
    pub server: String,
    pub server_name: Option<String>,
    pub trust_domain: String,
    pub is_current: bool,
    pub is_protected: bool,
    /// Whom to be there: "user/alice", "apikey/5f1e0c7b8d213a4b".
    pub identity: String,
    /// Of the certificate.
    pub not_after: Option<SystemTime>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Stored {
    pub fn open(config: Option<&Path>) -> Result<Stored, Problem> {
        let path = place(config)?;
        let text = file::read_secret_text(&path, MAX_BYTES).map_err(|error| unreadable(&path, &error))?;
        let file = parse(&path, &text)?;
        let header = write::header(&text);
        Ok(Stored { path, header, file })
    }

    /// As `open`; one that is not there is empty.
    pub fn open_or_new(config: Option<&Path>) -> Result<Stored, Problem> {
        let path = place(config)?;
        match file::read_secret(&path, MAX_BYTES) {
            Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Stored {
                path,
                header: HEADER.to_owned(),
                file: File {
                    current: None,
                    contexts: Vec::new(),
                },
            }),
            _ => Stored::open(Some(&path)),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.contexts.iter().map(|entry| entry.name.as_str())
    }

    /// The one that is used when none is named.
    pub fn current(&self) -> Option<&str> {
        match (&self.file.current, self.file.contexts.as_slice()) {
            (Some(current), _) => Some(current),
            (None, [only]) => Some(&only.name),
            (None, _) => None,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    pub fn is_protected(&self, name: &str) -> bool {
        self.file
            .contexts
            .iter()
            .any(|entry| entry.name == name && entry.protected)
    }

    pub fn summaries(&self) -> Vec<Summary> {
        let current = self.current();
        let summary = |entry: &Entry| {
            let context = Context::new(&self.path, entry.clone(), None);
            let (identity, not_after) = match context.as_ref().map(|context| &context.credentials) {
                Ok(Credentials::Certificate(file)) => {
                    let identity = file.identity();
                    (identity.to_string(), Some(file.not_after()))
                }
                Ok(Credentials::ApiKey(key)) => (format!("apikey/{}", key.id()), None),
                Err(_) => (String::new(), None),
            };
            Summary {
                name: entry.name.clone(),
                server: entry.server.clone(),
                server_name: entry.server_name.clone(),
                trust_domain: entry.trust_domain.clone(),
                is_current: current == Some(entry.name.as_str()),
                is_protected: entry.protected,
                identity,
                not_after,
                problem: context.err().map(|problem| problem.why.clone()),
            }
        };
        self.file.contexts.iter().map(summary).collect()
    }

    /// NOT_FOUND in the words of this file.
    pub fn missing(&self, name: &str) -> Problem {
        let names: Vec<&str> = self.names().collect();
        let step = match muster_proto::document::suggest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "see which there are: musterctl context list".to_owned(),
        };
        Problem::new(Exit::NotFound, format!("there is no context {name}"))
            .what(format!("find context {name}"))
            .why(format!(
                "{} has {}",
                self.path.display(),
                match names.as_slice() {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                }
            ))
            .step(step)
    }

    pub fn set_current(&mut self, name: &str) -> Result<(), Problem> {
        self.entry(name)?;
        self.file.current = Some(name.to_owned());
        Ok(())
    }

    pub fn protect(&mut self, name: &str, is_protected: bool) -> Result<(), Problem> {
        self.entry(name)?.protected = is_protected;
        Ok(())
    }

    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), Problem> {
        self.entry(name)?;
        if self.has(new) {
            return Err(self.taken(new));
        }
        if self.file.current.as_deref() == Some(name) {
            self.file.current = Some(new.to_owned());
        }
        self.entry(name)?.name = new.to_owned();
        Ok(())
    }

    pub fn delete(&mut self, name: &str) -> Result<(), Problem> {
        self.entry(name)?;
        self.file.contexts.retain(|entry| entry.name != name);
        if self.file.current.as_deref() == Some(name) {
            self.file.current = None;
        }
        Ok(())
    }

    /// A name that is there already.
    pub fn taken(&self, name: &str) -> Problem {
        Problem::new(Exit::Conflict, format!("there is a context {name} already"))
            .what(format!("write context {name} into {}", self.path.display()))
            .why("it may hold the only copy of a key, and is not overwritten")
            .step("take another name")
            .step(format!(
                "or delete the other one first: musterctl context delete {name}"
            ))
    }

    /// Adds a context, or puts it in the place of the one of its name; that one's protection stays.
    pub fn put(&mut self, context: &Context) {
        let (certificate, key, api_key) = match &context.credentials {
            Credentials::Certificate(identity) => (
                Some(pem::encode_certificates(identity.chain())),
                Some(identity.key().to_pem()),
                None,
            ),
            Credentials::ApiKey(key) => (None, None, Some(key.expose())),
        };
        let entry = Entry {
            name: context.name.clone(),
            server: context.server.clone(),
            trust_domain: context.trust_domain.as_str().to_owned(),
            ca: pem::encode_certificates(&context.roots),
            certificate,
            key,
            api_key,
            server_name: context.server_name.clone(),
            protected: context.is_protected || self.is_protected(&context.name),
        };
        match self.file.contexts.iter_mut().find(|known| known.name == context.name) {
            Some(known) => *known = entry,
            None => self.file.contexts.push(entry),
        }
    }

    /// Writes the file, whole or not at all. All else in it stays as it is, but for comments below the first lines.
    pub fn save(&self) -> Result<(), Problem> {
        let failed = |why: String| {
            Problem::new(Exit::Failure, format!("{} was not written", self.path.display()))
                .what("change the context file")
                .why(why)
                .step("make sure that the file may be written; it is as it was before")
        };
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        {
            file::create_private_dir(folder).map_err(|error| failed(chain(&error)))?;
        }
        let entries: Vec<context_file::Entry<'_>> = self.file.contexts.iter().map(Entry::written).collect();
        let text = context_file::render(&self.header, self.file.current.as_deref(), &entries);
        file::write_secret(&path, text.as_bytes()).map_err(|error| failed(chain(&error)))
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, Problem> {
        if !self.has(name) {
            return Err(self.missing(name));
        }
        let missing = self.missing(name);
        let mut entries = self.file.contexts.iter_mut();
        entries.find(|entry| entry.name == name).ok_or(missing)
    }
}
