//! A name server for one process of a test: it answers for one SRV record and knows nothing else. It listens at a loopback
//! address of its own, and the process sees an `/etc/resolv.conf` that names it. Plain UDP in a thread, gone when dropped.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use crate::{ctl::Outcome, process, tools};

/// `$1` is the file to see as `/etc/resolv.conf`, the rest the command to run.
const WITH_RESOLV_CONF: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;

const TYPE_SRV: u16 = 33;

/// Priority, weight, port, target.
pub type Srv = (u16, u16, u16, &'static str);

#[derive(Debug)]
pub struct NameServer {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    answering: Option<JoinHandle<()>>,
    dir: TempDir,
}

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<Vec<Srv>>,
    is_closed: AtomicBool,
}

impl NameServer {
    /// None, and a line that says why, where this host does not permit it. `what` is what cannot be tested then.
    pub fn start(what: &str, records: Vec<Srv>) -> Option<Self> {
        let id = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 53, id[2], id[3].max(1));
        let socket = match UdpSocket::bind((address, 53)) {
            Ok(socket) => socket,
            Err(error) => {
                tools::skipped(what, &format!("no name server can be run here: {error}"));
                return None;
            }
        };
        // So that it looks whether it is still wanted.
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time-out");
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("resolv.conf"), format!("nameserver {address}\n")).expect("a file");
        let shared = Arc::new(Shared {
            records: Mutex::new(records),
            is_closed: AtomicBool::new(false),
        });
        let answering = {
            let shared = shared.clone();
            thread::spawn(move || shared.answer_all(&socket))
        };
        let server = Self {
            address,
            shared,
            answering: Some(answering),
            dir,
        };
        let mut trial = process::clean_command("unshare", server.dir.path());
        trial.args(&server.wrapper()[1..]).arg("true");
        let outcome = Outcome::of(trial);
        if outcome.code != 0 {
            tools::skipped(
                what,
                &format!("no view of its own for a process: {}", outcome.stderr.trim()),
            );
            return None;
        }
        Some(server)
    }

    /// What to put before a command that shall ask here.
    pub fn wrapper(&self) -> Vec<String> {
        let resolv_conf = self.dir.path().join("resolv.conf").display().to_string();
        ["unshare", "--mount", "sh", "-c", WITH_RESOLV_CONF, "sh", &resolv_conf]
            .map(str::to_owned)
            .to_vec()
    }

    pub fn set(&self, records: Vec<Srv>) {
        *self.shared.records.lock().unwrap_or_else(PoisonError::into_inner) = records;
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        if let Some(answering) = self.answering.take() {
            let _ = answering.join();
        }
    }
}

impl Shared {
    fn answer_all(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1500];
        while !self.is_closed.load(Ordering::Relaxed) {
            let Ok((count, client)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(answer) = answer(&buffer[..count], &records) {
                let _ = socket.send_to(&answer, client);
            }
        }
    }
}

/// None: this is no question.
fn answer(question: &[u8], records: &[Srv]) -> Option<Vec<u8>> {
    let id = question.get(..2)?;
    let name = question.get(12..)?;
    let end = 12 + name.iter().position(|byte| *byte == 0)? + 1;
    let asked = question.get(12..end + 4)?;
    let is_srv = question[end..end + 2] == TYPE_SRV.to_be_bytes();
    let records = if is_srv { records } else { &[] };
    // An answer, authoritative; recursion desired and available; no error, or no such name.
    let flags: u16 = if is_srv { 0x8580 } else { 0x8583 };
    let mut answer = id.to_vec();
    for number in [flags, 1, u16::try_from(records.len()).ok()?, 0, 0] {
        answer.extend(number.to_be_bytes());
    }
    answer.extend(asked);
    for (priority, weight, port, target) in records {
        let mut data = [*priority, *weight, *port].map(u16::to_be_bytes).concat();
        for label in target.split('.').filter(|label| !label.is_empty()) {
            data.push(u8::try_from(label.len()).ok()?);
            data.extend(label.bytes());
        }
        data.push(0);
        // The name is that of the question; class IN; 60 s.
        for number in [0xc00c, TYPE_SRV, 1, 0, 60, u16::try_from(data.len()).ok()?] {
            answer.extend(number.to_be_bytes());
        }
        answer.extend(data);
    }
    Some(answer)
}
