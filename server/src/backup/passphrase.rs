//! The passphrase of a backup: from a file for its owner alone, or asked for at the terminal without being shown. Never from
//! the command line or the environment, where others may see it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
};

use age::secrecy::SecretString;
use muster_certs::file;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::Error;

const MAX: usize = 1024;
/// What is shorter can be guessed, and the keys of a whole fleet lie behind it.
const MIN: usize = 12;

pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Passphrase {
    /// For a new backup: not too short, and typed twice.
    pub fn new(path: Option<&Path>) -> Result<Self, Error> {
        let passphrase = match path {
            Some(path) => Self::read(path)?,
            None => {
                let first = ask("Passphrase of the backup: ")?;
                let second = ask("Once more: ")?;
                if *first.0 != *second.0 {
                    return Err(Error::Passphrase("the two passphrases are not the same".to_owned()));
                }
                first
            }
        };
        if passphrase.0.chars().count() < MIN {
            return Err(Error::Passphrase(format!(
                "the passphrase has less than {MIN} characters, and the keys of the CA will lie behind it; take a longer one"
            )));
        }
        Ok(passphrase)
    }

    /// For one that is there.
    pub fn known(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(path) => Self::read(path),
            None => ask("Passphrase of the backup: "),
        }
    }

    pub fn secret(&self) -> SecretString {
        SecretString::from(self.0.as_str().to_owned())
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let text = file::read_secret_text(path, MAX).map_err(Error::PassphraseFile)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.contains('\n') {
            return Err(Error::Passphrase(format!(
                "{} must hold the passphrase in one line, and nothing else",
                path.display()
            )));
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }
}

#[cfg(test)]
impl From<&str> for Passphrase {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

/// The terminal as it was, whatever happens meanwhile.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn ask(question: &str) -> Result<Passphrase, Error> {
    let none = |error: &dyn fmt::Display| {
        Error::Passphrase(format!(
            "there is no terminal to ask for the passphrase ({error}); put it into a file of mode 0600 and name that with \
             --passphrase-file"
        ))
    };
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|error| none(&error))?;
    let before = tcgetattr(&terminal).map_err(|error| none(&error))?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    let hidden = Hidden {
        terminal: &terminal,
        before,
    };
    tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(|error| none(&error))?;
    (&terminal)
        .write_all(question.as_bytes())
        .map_err(|error| none(&error))?;
    let mut line = Zeroizing::new(String::with_capacity(MAX + 1));
    let mut input = BufReader::with_capacity(MAX, &terminal).take(MAX as u64);
    let got = input.read_line(&mut line).map_err(|error| none(&error));
    let _ = (&terminal).write_all(b"\n");
    drop(hidden);
    got?;
    let line = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if line.is_empty() {
        return Err(Error::Passphrase("no passphrase was given".to_owned()));
    }
    Ok(Passphrase(line))
}
