//! How a machine gets the program: not at all, from its package sources, or from a URL with a known hash.

use std::{fmt, str::FromStr};

use super::files;

/// The value of `--install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    None,
    Apt,
    Url(Url),
}

/// The same with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Install {
    None,
    Apt,
    Url { url: Url, sha256: Sha256 },
}

/// Of `https` or `http`: what counts is the hash. Characters that a shell or YAML has a use for are not taken, not even in
/// quotes; a URL has them percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

/// 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("expected none, apt, or a URL that starts with https:// or http://")]
    Source,
    #[error("a URL has at most 1024 characters")]
    Long,
    #[error("a URL for --install is of letters, digits and -._~:/?=&%+@,; other characters have to be percent-encoded")]
    Url,
    #[error("a SHA-256 is 64 hexadecimal digits")]
    Sha256,
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Source::None),
            "apt" => Ok(Source::Apt),
            url => url.parse().map(Source::Url),
        }
    }
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.filter(|rest| !rest.is_empty()).ok_or(Error::Source)?;
        if text.len() > 1024 {
            return Err(Error::Long);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?=&%+@,".contains(&byte);
        if rest.bytes().all(plain) {
            Ok(Url(text.to_owned()))
        } else {
            Err(Error::Url)
        }
    }
}

impl FromStr for Sha256 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Sha256(text.to_ascii_lowercase()))
        } else {
            Err(Error::Sha256)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lines for sh that install the program, as often as they are run. They expect `set -eu` and the functions of
/// [`FUNCTIONS`].
pub(super) fn commands(install: &Install) -> String {
    match install {
        Install::None => {
            "command -v muster-agent >/dev/null || fail \"muster-agent is not installed on this machine\"\n".to_owned()
        }
        Install::Apt => "\
if ! command -v muster-agent >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q muster-agent
fi
"
        .to_owned(),
        Install::Url { url, sha256 } => format!(
            "\
url='{url}'
sha256={sha256}
has_sha256() {{ printf '%s  %s\\n' \"$sha256\" \"$1\" | sha256sum --check --status 2>/dev/null; }}
if ! has_sha256 /usr/bin/muster-agent; then
  file=$(mktemp /usr/bin/.muster-agent.XXXXXX)
  trap 'rm -f \"$file\"' EXIT
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --retry 5 --retry-connrefused --output \"$file\" \"$url\"
  else
    wget --quiet --tries=5 --output-document=\"$file\" \"$url\"
  fi
  has_sha256 \"$file\" || fail \"$url has another SHA-256 than $sha256; nothing was installed\"
  chmod 0755 \"$file\"
  mv -f \"$file\" /usr/bin/muster-agent
  trap - EXIT
fi
if [ ! -e {unit} ] && [ ! -e /usr/lib/systemd/system/muster-agent.service ] &&
  [ ! -e /lib/systemd/system/muster-agent.service ]; then
  write {unit} 0644 <<'MUSTER_END'
{text}MUSTER_END
  systemctl daemon-reload
fi
",
            unit = files::UNIT,
            text = files::unit(),
        ),
    }
}

/// Functions for sh: a way to end with a reason, and one to write a file whole.
pub(super) const FUNCTIONS: &str = "\
fail() { printf 'muster: %s\\n' \"$*\" >&2; exit 1; }
write() { cat >\"$1.new\" && chmod \"$2\" \"$1.new\" && mv -f \"$1.new\" \"$1\"; }
";
