//! A call as the commands of others that do the same: `curl` and `grpcurl`. Keys are named by their files, which
//! `context export-pem` writes, and never shown.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use prost_reflect::DynamicMessage;
use serde_json::Value;

use super::method::{self, Method};
use crate::context::{Context, Credentials, pem_files::PemFiles};

/// The public key of the controller, as `curl` takes it, once there is a connection.
pub type ServerKey = Arc<Mutex<Option<String>>>;

#[derive(Debug)]
pub struct Show {
    server: String,
    server_name: Option<String>,
    is_key: bool,
    files: PemFiles,
    /// How the files are made, when they are not there or others.
    export: String,
    server_key: ServerKey,
}

impl Show {
    pub fn new(context: &Context, server_key: ServerKey) -> Show {
        let files = PemFiles::beside(context);
        let folder = files.folder.clone();
        Show {
            server: context.server.clone(),
            server_name: context.server_name.clone(),
            is_key: matches!(context.credentials, Credentials::ApiKey(_)),
            export: if files.are_of(context) {
                String::new()
            } else {
                format!(
                    "# the files below are written by: musterctl --config {} --context {} context export-pem {}\n",
                    quoted(&context.path.display().to_string()),
                    quoted(&context.name),
                    quoted(&folder.display().to_string())
                )
            },
            files,
            server_key,
        }
    }

    /// Ends with a line break.
    pub fn commands(&self, method: &Method, request: &DynamicMessage) -> String {
        format!(
            "# {}\n{}{}\n{}\n",
            method.name(),
            self.export,
            self.curl(method, request),
            self.grpcurl(method, request)
        )
    }

    fn curl(&self, method: &Method, request: &DynamicMessage) -> String {
        let (path, body) = method.http(request);
        let mut words = vec!["curl".to_owned(), "--silent".to_owned(), "--show-error".to_owned()];
        words.push("--fail-with-body".to_owned());
        if method.is_stream() {
            words.push("--no-buffer".to_owned());
        }
        let mut host = self.server.clone();
        match &self.server_name {
            Some(name) => {
                words.extend(["--cacert".to_owned(), text(&self.files.ca)]);
                let port = self.server.rsplit(':').next().unwrap_or_default();
                let named = format!("{name}:{port}");
                if named != self.server {
                    words.extend(["--connect-to".to_owned(), format!("{named}:{}", self.server)]);
                }
                host = named;
            }
            // The certificate names the controller by a URI, which curl does not look at; its key is as good.
            None => {
                let key = self.server_key.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let key = key.unwrap_or_default();
                words.extend(["--insecure".to_owned(), "--pinnedpubkey".to_owned(), key]);
            }
        }
        match self.is_key {
            true => words.extend(["--header".to_owned(), format!("@{}", text(&self.files.header))]),
            false => words.extend([
                "--cert".to_owned(),
                text(&self.files.certificate),
                "--key".to_owned(),
                text(&self.files.key),
            ]),
        }
        if *method.verb() != http::Method::GET {
            words.extend(["--request".to_owned(), method.verb().to_string()]);
        }
        if let Some(body) = body {
            words.extend(["--header".to_owned(), "content-type: application/json".to_owned()]);
            words.extend(["--data".to_owned(), body.to_string()]);
        }
        words.push(format!("https://{host}{path}"));
        joined(&words)
    }

    fn grpcurl(&self, method: &Method, request: &DynamicMessage) -> String {
        let mut words = vec!["grpcurl".to_owned()];
        match &self.server_name {
            Some(name) => {
                words.extend(["-cacert".to_owned(), text(&self.files.ca)]);
                words.extend(["-servername".to_owned(), name.clone()]);
            }
            None if self.is_key => {
                return "# grpcurl knows the controller by a host name only, and would show the API key to anybody"
                    .to_owned();
            }
            None => words.push("-insecure".to_owned()),
        }
        match self.is_key {
            true => {
                let header = "authorization: Bearer ${MUSTER_API_KEY}".to_owned();
                words.extend(["-expand-headers".to_owned(), "-H".to_owned(), header]);
            }
            false => words.extend([
                "-cert".to_owned(),
                text(&self.files.certificate),
                "-key".to_owned(),
                text(&self.files.key),
            ]),
        }
        let fields = method::fields(request);
        if !fields.is_empty() {
            words.extend(["-d".to_owned(), Value::Object(fields).to_string()]);
        }
        words.extend([self.server.clone(), method.name()]);
        joined(&words)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn joined(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word for a POSIX shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    // What a terminal would act on is no part of what is pasted.
    let clean: String = word.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", clean.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_when_a_shell_would_read_it_otherwise() {
        for (word, shown) in [
            ("https://a:1/v1/agents", "https://a:1/v1/agents"),
            ("sha256//ab+c=", "sha256//ab+c="),
            ("", "''"),
            ("it's $HOME", "'it'\\''s $HOME'"),
            ("/v1/agents?a=b&c=d", "'/v1/agents?a=b&c=d'"),
            ("a\u{1b}[2Jb", "'a[2Jb'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }
}
