//! A box that inspects TLS, as far as an agent gets to see of it: a TLS server with a certificate from a CA of its own, made
//! and served by `openssl`.

use std::net::TcpStream;

use tempfile::TempDir;

use crate::{
    Process,
    ctl::Outcome,
    poll::{self, SECOND},
    ports, process, tools,
};

/// The CA's name, as errors show it.
pub const ISSUER: &str = "CN=Example Inspection CA";

#[derive(Debug)]
pub struct Inspection {
    pub port: u16,
    _server: Process,
    _dir: TempDir,
}

impl Inspection {
    /// None, and a line that says why, where there is no `openssl`.
    pub fn start() -> Option<Self> {
        if tools::find("openssl").is_none() {
            tools::skipped("what inspects TLS", "openssl is not installed (Debian: openssl)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let openssl = |arguments: &[&str]| {
            let mut command = process::clean_command("openssl", dir.path());
            command.current_dir(dir.path()).args(arguments);
            command
        };
        let make = |arguments: &[&str]| {
            let common = [
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ];
            Outcome::of(openssl(&[&common, arguments].concat())).expect_code(0);
        };
        make(&[
            "-subj",
            "/CN=Example Inspection CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        make(&[
            "-subj",
            "/CN=controller.example.com",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.pem",
        ]);
        let port = ports::free();
        let listen = format!("127.0.0.1:{port}");
        let server = openssl(&[
            "s_server",
            "-accept",
            &listen,
            "-cert",
            "leaf.pem",
            "-key",
            "leaf.key",
            "-cert_chain",
            "ca.pem",
            "-alpn",
            "h2",
            "-quiet",
        ]);
        let server = Process::start("openssl s_server", server, dir.path().join("log"));
        poll::until("openssl listens", 20 * SECOND, || TcpStream::connect(&listen).map(drop));
        Some(Self {
            port,
            _server: server,
            _dir: dir,
        })
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
