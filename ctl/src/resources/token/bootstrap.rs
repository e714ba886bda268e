//! From a token to a machine: what `musterctl token create --format` prints, ready to be given to a machine that is to
//! enroll. Text is made of the controller's answer and of options; nothing is written to files or sent anywhere.
//!
//! What goes into a file of a machine was parsed before (token, pins, endpoints, id, URL), so its characters are known and
//! none of them means anything to YAML, sh or HCL. What people wrote (labels, descriptions) goes into one comment, without
//! line breaks.

mod cloud_init;
mod files;
mod install;
mod shell;
mod terraform;
#[cfg(test)]
mod tests;

use clap::{Args, ValueEnum};
use muster_certs::{pin::Pin, token::Token};
use muster_proto::{endpoint::Endpoint, ids::AgentId, v1};

use self::install::{Install, Sha256, Source};
use crate::{age, count, exit::Exit, problem::Problem, resources};

/// EC2 takes no more user data than this, and the others take as much.
const MAX_BYTES: usize = 16 * 1024;
/// Of what people wrote, for the comment.
const MAX_COMMENT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The token alone
    Raw,
    /// Lines NAME=value: MUSTER_TOKEN, MUSTER_SERVER, MUSTER_CA_PIN, MUSTER_AGENT_ID
    Env,
    /// User data for cloud-init
    CloudInit,
    /// A script for sh, to be run as root
    Shell,
    /// A Terraform file that makes the user data from two variables
    Terraform,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ready for a machine")]
pub struct Options {
    /// Print what the machine needs, with the token in it: raw, env, cloud-init, shell or terraform
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    format: Option<Format>,
    /// How the machine gets muster-agent: none (it is in the image), apt, or the URL of the program, with --sha256
    #[arg(long, value_name = "none|apt|URL", requires = "format")]
    install: Option<Source>,
    /// SHA-256 of the program at the URL of --install
    #[arg(long, value_name = "HEX", requires = "install")]
    sha256: Option<Sha256>,
    /// Where the machine connects, instead of what the controller advertises; may be repeated
    #[arg(long = "endpoint", value_name = "HOST:PORT", requires = "format")]
    endpoints: Vec<Endpoint>,
}

/// Options that fit each other.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    format: Format,
    install: Install,
    endpoints: Vec<Endpoint>,
}

impl Options {
    /// `None` without `--format`. Before the token is made: one that nobody gets to see is good for nothing.
    pub fn checked(self) -> Result<Option<Bootstrap>, Problem> {
        let Some(format) = self.format else { return Ok(None) };
        let refuse = |headline: &str, step: &str| {
            Err(Problem::new(Exit::Usage, headline)
                .what("create a token")
                .why("no token was made")
                .step(step))
        };
        let installs = matches!(format, Format::CloudInit | Format::Shell | Format::Terraform);
        if self.install.is_some() && !installs {
            return refuse(
                "--install is for formats that set a machine up",
                "use --format cloud-init, shell or terraform, or leave --install out",
            );
        }
        let install = match (self.install.unwrap_or(Source::None), self.sha256) {
            (Source::Url(url), Some(sha256)) => Install::Url { url, sha256 },
            (Source::Url(_), None) => {
                return refuse(
                    "--install with a URL needs --sha256",
                    "sha256sum muster-agent   # of the program that the URL gives",
                );
            }
            (_, Some(_)) => {
                return refuse(
                    "--sha256 is for --install with a URL",
                    "leave --sha256 out: apt checks its packages itself",
                );
            }
            (Source::None, None) => Install::None,
            (Source::Apt, None) => Install::Apt,
        };
        Ok(Some(Bootstrap {
            format,
            install,
            endpoints: self.endpoints,
        }))
    }
}

impl Bootstrap {
    /// What goes to stdout.
    pub fn render(&self, response: &v1::CreateTokenResponse) -> Result<String, Problem> {
        let machine = self.machine(response)?;
        let text = match self.format {
            Format::Raw => format!("{}\n", *machine.token.expose()),
            Format::Env => env(&machine),
            Format::CloudInit => cloud_init::render(&machine),
            Format::Shell => shell::render(&machine),
            Format::Terraform => terraform::render(&machine),
        };
        if text.len() > MAX_BYTES {
            return Err(unusable(format!(
                "the text has {} bytes, and user data may have {MAX_BYTES}",
                text.len()
            )));
        }
        Ok(text)
    }

    fn machine(&self, response: &v1::CreateTokenResponse) -> Result<Machine, Problem> {
        fn all<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, T::Err> {
            texts.iter().map(|text| text.parse()).collect()
        }
        let granted = response.token.clone().unwrap_or_default();
        let agent_id = match &*granted.agent_id {
            "" => None,
            id => Some(
                id.parse()
                    .map_err(|error| unusable(format!("the agent's id: {error}")))?,
            ),
        };
        let endpoints = if self.endpoints.is_empty() {
            all::<Endpoint>(&response.endpoints).map_err(|error| unusable(format!("where agents connect: {error}")))?
        } else {
            self.endpoints.clone()
        };
        if endpoints.is_empty() {
            return Err(unusable(
                "it does not say where agents connect; give --endpoint HOST:PORT".to_owned(),
            ));
        }
        Ok(Machine {
            token: Token::parse(&response.secret).map_err(|error| unusable(error.to_string()))?,
            endpoints,
            pins: all::<Pin>(&response.ca_pins).map_err(|error| unusable(error.to_string()))?,
            agent_id,
            install: self.install.clone(),
            comment: comment(&granted),
        })
    }
}

/// What a machine is given. Each part is of characters that need no quotes anywhere.
#[derive(Debug, Clone)]
struct Machine {
    token: Token,
    endpoints: Vec<Endpoint>,
    pins: Vec<Pin>,
    agent_id: Option<AgentId>,
    install: Install,
    /// For people; one line without `#`.
    comment: String,
}

fn env(machine: &Machine) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(",");
    let mut text = format!(
        "MUSTER_TOKEN={}\nMUSTER_SERVER={}\n",
        *machine.token.expose(),
        list(&mut machine.endpoints.iter().map(ToString::to_string))
    );
    if !machine.pins.is_empty() {
        let pins = list(&mut machine.pins.iter().map(ToString::to_string));
        text.push_str(&format!("MUSTER_CA_PIN={pins}\n"));
    }
    if let Some(id) = machine.agent_id {
        text.push_str(&format!("MUSTER_AGENT_ID={id}\n"));
    }
    text
}

/// Which token this is, as far as that is no secret.
fn comment(token: &v1::Token) -> String {
    let mut parts = vec![format!(
        "Muster token {}, good for {}",
        token.id,
        count::of(i64::from(token.uses), "machine", "machines")
    )];
    parts.extend(age::moment(token.expire_time.as_ref()).map(|end| format!("until {end}")));
    if !token.labels.is_empty() {
        parts.push(format!("labels {}", resources::labels(&token.labels)));
    }
    if !token.description.is_empty() {
        parts.push(token.description.clone());
    }
    harmless(&parts.join(", "))
}

/// Letters, digits and the punctuation of ASCII stay; all else is a blank. So no line ends here, for whatever reads it: YAML
/// 1.1 knows line breaks beyond those of ASCII, and takes no control characters at all.
fn harmless(text: &str) -> String {
    let keep = |character: char| character.is_alphanumeric() || (' '..='~').contains(&character);
    let clean: String = text
        .chars()
        .map(|character| if keep(character) { character } else { ' ' })
        .take(MAX_COMMENT)
        .collect();
    clean.trim().to_owned()
}

fn unusable(why: String) -> Problem {
    Problem::new(
        Exit::Failure,
        "the token was made, but the machine's part of it cannot be printed",
    )
    .what("create a token")
    .why(why)
    .step("leave --format out: the token is then printed as it is; this one should be revoked")
}
