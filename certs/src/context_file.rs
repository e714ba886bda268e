//! The context file of an operator as YAML: which controllers there are, what to know them by, and whom to be there. It is
//! written here, for the controller and for `musterctl` alike; `musterctl` reads it.

use std::fmt;

use zeroize::Zeroizing;

/// What every new file begins with.
pub const HEADER: &str = "\
# An operator of Muster, with the private key: keep this file to yourself.
# musterctl takes it by --config FILE, MUSTER_CONFIG or as ~/.config/muster/config.yaml.
";

/// The same of a file with an API key.
pub const KEY_HEADER: &str = "\
# An API key of Muster: keep this file to yourself.
# musterctl takes it by --config FILE, MUSTER_CONFIG or as ~/.config/muster/config.yaml.
";

/// Whom to be. Certificates and keys are PEM.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    Certificate {
        certificates: &'a str,
        /// None: whoever has it puts it at the end of the file.
        key: Option<&'a str>,
    },
    ApiKey(&'a str),
}

/// One controller and one identity to be there.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// "host:port".
    pub server: &'a str,
    pub trust_domain: &'a str,
    /// The host name in the controller's certificate, when that is what it is known by.
    pub server_name: Option<&'a str>,
    /// PEM.
    pub roots: &'a str,
    pub credentials: Credentials<'a>,
    /// Changes of anything there are to be confirmed.
    pub is_protected: bool,
}

impl Credentials<'_> {
    fn texts(&self) -> [&str; 2] {
        match self {
            Self::Certificate { certificates, key } => [certificates, key.unwrap_or_default()],
            Self::ApiKey(key) => [key, ""],
        }
    }
}

/// Of which kind they are.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate, redacted",
            Self::ApiKey(_) => "ApiKey, redacted",
        })
    }
}

/// Without the secret.
impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The whole file. `header` is comments. The text may hold private keys.
pub fn render(header: &str, current: Option<&str>, entries: &[Entry<'_>]) -> Zeroizing<String> {
    let size = |entry: &Entry<'_>| {
        let texts = entry.credentials.texts();
        let lines: usize = texts
            .iter()
            .chain([&entry.roots])
            .map(|text| text.len() + text.lines().count() * 8)
            .sum();
        lines + (entry.name.len() + entry.server.len() + entry.trust_domain.len()) * 6 + 512
    };
    // Room for all of it at once: a growing buffer would leave copies of the keys behind.
    let mut file = Zeroizing::new(String::with_capacity(
        header.len() + 1024 + entries.iter().map(size).sum::<usize>() * 2,
    ));
    file.push_str(header);
    if let Some(current) = current {
        field(&mut file, "current: ", current);
    }
    file.push_str("contexts:\n");
    for entry in entries {
        field(&mut file, "  - name: ", entry.name);
        field(&mut file, "    server: ", entry.server);
        field(&mut file, "    trust_domain: ", entry.trust_domain);
        if let Some(server_name) = entry.server_name {
            field(&mut file, "    server_name: ", server_name);
        }
        if entry.is_protected {
            file.push_str("    protected: true\n");
        }
        block(&mut file, "    ca: ", entry.roots);
        match entry.credentials {
            Credentials::Certificate { certificates, key } => {
                block(&mut file, "    certificate: ", certificates);
                if let Some(key) = key {
                    block(&mut file, "    key: ", key);
                }
            }
            Credentials::ApiKey(key) => field(&mut file, "    api_key: ", key),
        }
    }
    file
}

fn field(file: &mut String, name: &str, value: &str) {
    file.push_str(name);
    quote(file, value);
    file.push('\n');
}

/// A text of several lines as people read it best, if that says the same.
fn block(file: &mut String, name: &str, text: &str) {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_plain = |line: &str| {
        !line.is_empty() && !line.starts_with(' ') && line.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    if !body.split('\n').all(is_plain) {
        return field(file, name, text);
    }
    file.push_str(name);
    file.push_str(if body.len() < text.len() { "|\n" } else { "|-\n" });
    for line in body.split('\n') {
        file.push_str("      ");
        file.push_str(line);
        file.push('\n');
    }
}

/// A double-quoted scalar. What is not a plain character is escaped.
fn quote(file: &mut String, value: &str) {
    file.push('"');
    for character in value.chars() {
        match character {
            '"' => file.push_str("\\\""),
            '\\' => file.push_str("\\\\"),
            '\n' => file.push_str("\\n"),
            '\u{20}'..='\u{7e}' | '\u{a1}'..='\u{d7ff}' if !matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}') =>
            {
                file.push(character);
            }
            '\0'..='\u{ffff}' => file.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => file.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    file.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> = Entry {
        name: "prod",
        server: "127.0.0.1:9443",
        trust_domain: "example.muster",
        server_name: None,
        roots: "one\ntwo\n",
        credentials: Credentials::Certificate {
            certificates: "three",
            key: Some("four\n"),
        },
        is_protected: false,
    };

    #[test]
    fn certificates_and_keys_are_blocks_that_people_can_read() {
        assert_eq!(
            *render("# mine\n", Some("prod"), &[ENTRY]),
            "# mine\ncurrent: \"prod\"\ncontexts:\n  - name: \"prod\"\n    server: \"127.0.0.1:9443\"\n    \
             trust_domain: \"example.muster\"\n    ca: |\n      one\n      two\n    certificate: |-\n      three\n    \
             key: |\n      four\n"
        );
    }

    #[test]
    fn a_key_that_is_elsewhere_leaves_its_place_at_the_end() {
        let named = Entry {
            server_name: Some("muster.example.com"),
            credentials: Credentials::Certificate {
                certificates: "three",
                key: None,
            },
            ..ENTRY
        };
        let file = render("", None, &[named]);
        assert!(file.ends_with("    certificate: |-\n      three\n"), "{}", *file);
        assert!(file.contains("    server_name: \"muster.example.com\"\n"), "{}", *file);
    }

    #[test]
    fn what_is_protected_says_so() {
        let entry = Entry {
            is_protected: true,
            ..ENTRY
        };
        let file = render("", None, &[entry]);
        assert!(file.contains("muster\"\n    protected: true\n    ca: |\n"), "{}", *file);
    }

    #[test]
    fn an_api_key_stands_in_the_place_of_certificate_and_key() {
        let entry = Entry {
            credentials: Credentials::ApiKey("mk_1_2"),
            ..ENTRY
        };
        let file = render("", None, &[entry]);
        assert!(file.ends_with("      two\n    api_key: \"mk_1_2\"\n"), "{}", *file);
    }

    #[test]
    fn what_no_block_can_hold_is_quoted() {
        let odd = Entry {
            name: "a\"\\\u{1b}é\u{1f980}",
            roots: " indented\n",
            ..ENTRY
        };
        let file = render("", None, &[odd]);
        assert!(file.contains("name: \"a\\\"\\\\\\u001bé\\U0001f980\"\n"), "{}", *file);
        assert!(file.contains("ca: \" indented\\n\"\n"), "{}", *file);
    }
}
