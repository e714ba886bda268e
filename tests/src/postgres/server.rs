//! A PostgreSQL server of a test's own, which it may start again, and whose disk it may fill. In the run on PostgreSQL only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{SmallDisk, ctl::Outcome, ports, process, settings, tools};

/// It is stopped when dropped. Its data may be on a small disk; its log of transactions is elsewhere, so that a disk that is
/// full does not end it.
#[derive(Debug)]
pub struct Server {
    bin: PathBuf,
    port: u16,
    password: String,
    disk: Option<SmallDisk>,
    dir: TempDir,
}

impl Server {
    /// None: this is not the run for it, or there is no PostgreSQL, which is said then.
    pub fn start(what: &str) -> Option<Self> {
        Self::start_on(what, None)
    }

    /// With its data on a small disk; see [`SmallDisk::at`] for its options.
    pub fn start_on(what: &str, options: Option<&str>) -> Option<Self> {
        if settings::postgres_url().is_none_or(|url| url.is_empty()) {
            return None;
        }
        let Some(bin) = programs() else {
            tools::skipped(what, "initdb of PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let password = format!("{:032x}", rand::random::<u128>());
        fs::write(dir.path().join("password"), &password).expect("a file");
        let disk = options.map(|options| SmallDisk::at(&dir.path().join("disk"), options));
        for folder in ["disk", "data"] {
            fs::create_dir_all(dir.path().join(folder)).expect("a directory");
        }
        let server = Self {
            bin,
            port: ports::free(),
            password,
            disk,
            dir,
        };
        server.give_away();
        let (data, log) = (server.data(), server.dir.path().join("log"));
        let password_file = server.dir.path().join("password");
        let mut init = server.command("initdb");
        init.args(["-U", "muster", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .args(["--auth=scram-sha-256", "--pwfile"])
            .arg(password_file)
            .arg("--waldir")
            .arg(log)
            .arg("-D")
            .arg(data);
        Outcome::of(init).expect_code(0);
        server.control(&["start"]);
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("postgres://muster:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// The one that its data is on.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it was started on one")
    }

    /// Ends all connections at once, and takes new ones a moment later.
    pub fn restart(&self) {
        self.control(&["restart", "-m", "fast"]);
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("disk/data")
    }

    fn control(&self, arguments: &[&str]) {
        let options = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off -c shared_buffers=16MB",
            self.port,
            self.dir.path().display()
        );
        let mut control = self.command("pg_ctl");
        control
            .args(["-w", "-t", "60", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.dir.path().join("data/server.log"))
            .args(["-o", &options])
            .args(arguments);
        Outcome::of(control).expect_code(0);
    }

    /// initdb refuses root: root becomes postgres, to whom all of this belongs then.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !rustix::process::geteuid().is_root() {
            return process::clean_command(program, self.dir.path());
        }
        let mut command = process::clean_command("runuser", self.dir.path());
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    }

    fn give_away(&self) {
        if rustix::process::geteuid().is_root() {
            let mut chown = process::clean_command("chown", Path::new("/"));
            chown.args(["-R", "postgres"]).arg(self.dir.path());
            Outcome::of(chown).expect_code(0);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["-w", "-m", "immediate", "-D"]).arg(self.data()).arg("stop");
        Outcome::of(stop);
    }
}

/// The folder of initdb and pg_ctl: the newest that Debian has installed, or what is on the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        bin.join("initdb").is_file().then_some((version, bin))
    });
    match installed.max() {
        Some((_, bin)) => Some(bin),
        None => Some(tools::find("initdb")?.parent()?.to_owned()),
    }
}
