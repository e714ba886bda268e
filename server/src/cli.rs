//! The command line of `muster-server`: what may be said, not what is done about it.

mod backup;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_certs::identity::TrustDomain;
use muster_proto::ids::name_is_valid;

pub use backup::{Backup, BackupVerb, Restore};

use crate::config::{self, DatabaseUrl};

/// Where a packaged controller keeps its things.
pub const SYSTEM_CONFIG: &str = "/etc/muster/server.yaml";
pub const SYSTEM_DATA: &str = "/var/lib/muster";

/// The controller of Muster: enrolls machines, tells them what to check, and keeps what they find.
#[derive(Debug, Parser)]
#[command(name = "muster-server", version, max_term_width = 100)]
pub struct Cli {
    /// What is logged, instead of the configured level: info,muster_server::net=debug
    #[arg(long, global = true, env = "MUSTER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Try everything on this machine: a controller, an agent and example policies in one process
    Dev(Dev),
    /// Set up a controller: keys, configuration, database and the first admin
    Init(Init),
    /// Run the controller
    Run {
        /// Its configuration, which `init` writes
        #[arg(long, value_name = "FILE", default_value = SYSTEM_CONFIG)]
        config: PathBuf,
    },
    /// Put everything but the history of metrics into one encrypted file, while the controller goes on
    Backup(Backup),
    /// Set up a controller from a backup, on this host and with either database
    Restore(Restore),
    /// Operators, on the host of the controller
    #[command(subcommand)]
    Admin(Admin),
    /// The CA, on the host of the controller; `musterctl ca` does the rest
    #[command(subcommand)]
    Ca(CaVerb),
    /// Look at the controller of this host, whether it runs or not, and say what is wrong and what to do
    ///
    /// Looks at the configuration, room on the disk and what takes it, what retention may let it grow to, whether the files of
    /// the database are whole (which reads all of them), who is running, when CAs and certificates end, the clock, and modes and
    /// owners of files. Changes nothing. Exits with 1 when there is a problem; warnings are none yet.
    Doctor {
        #[command(flatten)]
        installation: Installation,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// The configuration file
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
}

#[derive(Debug, Args)]
pub struct Dev {
    /// Where everything is kept [default: a new temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where agents connect; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub agent_listen: SocketAddr,
    /// Where operators connect; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9443")]
    pub api_listen: SocketAddr,
    /// Allow addresses that other machines can reach
    #[arg(long)]
    pub allow_remote: bool,
}

#[derive(Debug, Args)]
pub struct Init {
    /// Where keys and, with SQLite, the database are kept
    #[arg(long, value_name = "DIR", default_value = SYSTEM_DATA)]
    pub data_dir: PathBuf,
    /// What this controller is called; cannot change later
    #[arg(long, value_parser = name)]
    pub name: String,
    /// The namespace of all identities, such as example.muster; cannot change later
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: TrustDomain,
    /// The configuration to write [default: /etc/muster/server.yaml with /var/lib/muster, else DIR/server.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the first operator is called
    #[arg(long, value_name = "NAME", default_value = "admin", value_parser = name)]
    pub admin: String,
    /// PostgreSQL instead of SQLite: postgres://user@host/database. With a password use the variable, not the flag
    #[arg(long, value_name = "URL", env = "MUSTER_DATABASE", hide_env_values = true, value_parser = DatabaseUrl::parse)]
    pub database: Option<DatabaseUrl>,
    /// How agents reach this controller, host:port [default: the name of this machine]
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_parser = endpoint)]
    pub advertise: Vec<String>,
    /// An issuing CA of your own PKI instead of a new one: its certificate, those above it and the root, as PEM
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// The key of that CA, without a passphrase and for its owner alone
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum CaVerb {
    /// Bring the next issuing CA of your own PKI, or a new certificate of the one in use
    ///
    /// It is prepared: all agents are told to trust its root, and it issues nothing until `musterctl ca activate`. A
    /// controller that runs takes it over within seconds.
    Import {
        /// Its certificate, those above it and the root, as PEM; for another root than the present one with a certificate of
        /// the new root that the present one has signed
        #[arg(long, value_name = "FILE")]
        ca_cert: PathBuf,
        /// Its key, without a passphrase and for its owner alone
        #[arg(long, value_name = "FILE")]
        ca_key: PathBuf,
        #[command(flatten)]
        installation: Installation,
    },
}

#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Make an operator, and the file with which musterctl acts as it
    ///
    /// Whether the controller runs or not. One of that name gets a further certificate; one who was revoked is an operator
    /// again, with this certificate alone.
    Create {
        /// What the operator is called
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        installation: Installation,
        /// The file to write [default: NAME.yaml in the data directory]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Which controller of this host is meant.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Installation {
    /// Its configuration [default: /etc/muster/server.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its data directory, which need not hold a configuration
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Tell what is wrong with a configuration file
    Check {
        /// The file to look at
        #[arg(long, value_name = "FILE", default_value = SYSTEM_CONFIG)]
        config: PathBuf,
    },
}

impl Dev {
    /// What is meant for one machine must not be open to others by accident.
    pub fn check(&self) -> Result<(), String> {
        for (flag, addr) in [("--agent-listen", self.agent_listen), ("--api-listen", self.api_listen)] {
            if !addr.ip().is_loopback() && !self.allow_remote {
                return Err(format!(
                    "{flag} {addr} can be reached from other machines; add --allow-remote if that is what you want"
                ));
            }
        }
        Ok(())
    }
}

impl Init {
    pub fn config_path(&self) -> PathBuf {
        match &self.config {
            Some(path) => path.clone(),
            None if self.data_dir == Path::new(SYSTEM_DATA) => SYSTEM_CONFIG.into(),
            None => self.data_dir.join("server.yaml"),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    if name_is_valid(text) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 63 of a-z, 0-9, `-`, `_` and `.`, with a letter or digit at both ends".to_owned())
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    config::check_endpoint(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn dev(args: &[&str]) -> Dev {
        let cli = Cli::parse_from([&["muster-server", "dev"], args].concat());
        let Verb::Dev(dev) = cli.verb else { panic!("not dev") };
        dev
    }

    #[test]
    fn dev_listens_to_other_machines_only_when_allowed() {
        assert_eq!(dev(&[]).check(), Ok(()));
        let error = dev(&["--api-listen", "0.0.0.0:9443"]).check().unwrap_err();
        assert!(
            error.contains("--api-listen") && error.contains("--allow-remote"),
            "{error}"
        );
        assert_eq!(dev(&["--api-listen", "0.0.0.0:9443", "--allow-remote"]).check(), Ok(()));
    }

    fn init(args: &[&str]) -> Result<Init, clap::Error> {
        let must = [
            "muster-server",
            "init",
            "--name",
            "controller1",
            "--trust-domain",
            "example.muster",
        ];
        Cli::try_parse_from([&must, args].concat()).map(|cli| match cli.verb {
            Verb::Init(init) => init,
            other => panic!("not init: {other:?}"),
        })
    }

    #[test]
    fn the_configuration_lies_in_etc_only_for_the_system_wide_controller() {
        assert_eq!(init(&[]).unwrap().config_path(), Path::new(SYSTEM_CONFIG));
        assert_eq!(
            init(&["--data-dir", "/srv/m"]).unwrap().config_path(),
            Path::new("/srv/m/server.yaml")
        );
        assert_eq!(
            init(&["--data-dir", "/srv/m", "--config", "/x.yaml"])
                .unwrap()
                .config_path(),
            Path::new("/x.yaml")
        );
    }

    #[test]
    fn init_refuses_names_and_addresses_that_would_not_work() {
        for bad in [
            ["--admin", "A B"],
            ["--advertise", "nohost"],
            ["--database", "mysql://x"],
            ["--trust-domain", "UPPER"],
        ] {
            assert!(init(&bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_password_in_a_database_url_is_not_shown() {
        let init = init(&["--database", "postgres://muster:geheim@db/muster"]).unwrap();
        assert!(!format!("{init:?}").contains("geheim"));
    }
}
