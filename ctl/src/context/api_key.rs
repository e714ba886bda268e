//! An API key that is given beside the context: by a file, or by the environment. Never by an argument, which every process of
//! the machine can read.

use std::path::Path;

use muster_certs::{file, token::ApiKey};
use zeroize::Zeroizing;

use super::chain;
use crate::{exit::Exit, problem::Problem};

const VARIABLE: &str = "MUSTER_API_KEY";
/// A key, with white space around it.
const MAX_BYTES: usize = 1024;

/// The key of the file, else that of the environment; an empty variable is one that is not set.
pub fn explicit(path: Option<&Path>) -> Result<Option<ApiKey>, Problem> {
    match path {
        Some(path) => {
            let text = file::read_secret_text(path, MAX_BYTES).map_err(|error| {
                Problem::new(Exit::Usage, format!("the API key in {} cannot be read", path.display()))
                    .what("find out whom to be")
                    .why(chain(&error))
                    .step("name a file that is there and that you alone can read: --api-key-file FILE")
            })?;
            read(&path.display().to_string(), &text).map(Some)
        }
        None => of_environment().map(|text| read(VARIABLE, &text)).transpose(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "clap reads the environment only for what may be an argument too"
)]
fn of_environment() -> Option<Zeroizing<String>> {
    let text = std::env::var_os(VARIABLE).filter(|text| !text.is_empty())?;
    Some(Zeroizing::new(text.to_string_lossy().into_owned()))
}

/// The secret is in no text that comes of this.
pub fn read(place: &str, text: &str) -> Result<ApiKey, Problem> {
    ApiKey::parse(text).map_err(|error| {
        Problem::new(Exit::Usage, format!("{place} holds no API key"))
            .what("find out whom to be")
            .why(chain(&error))
            .step("make one: musterctl apikey create --role ROLE -o name > FILE, after umask 077")
            .step(format!(
                "or be who the context says: unset {VARIABLE}, and no --api-key-file"
            ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_a_file_that_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = ApiKey::generate().unwrap();
        file::write_secret(&path, format!("{}\n", *key.expose()).as_bytes()).unwrap();
        assert_eq!(explicit(Some(&path)).unwrap().unwrap().id(), key.id());

        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let problem = explicit(Some(&path)).unwrap_err();
        assert!(problem.why.contains("0644"), "{problem:?}");
        let problem = explicit(Some(&folder.path().join("none"))).unwrap_err();
        assert!(problem.why.contains("No such file"), "{problem:?}");
    }

    #[test]
    fn what_is_no_key_is_told_and_not_shown() {
        let key = ApiKey::generate().unwrap().expose();
        for text in [&key[..key.len() - 1], &key[3..], "mst_1_2", "", " "] {
            let shown = format!("{:?}", read(VARIABLE, text).unwrap_err());
            assert!(shown.contains("MUSTER_API_KEY holds no API key"), "{shown}");
            assert!(text.trim().is_empty() || !shown.contains(text), "{shown}");
        }
        assert!(!format!("{:?}", read(VARIABLE, &key).unwrap()).contains(key.rsplit('_').next().unwrap()));
    }
}
