//! An HTTP proxy that takes CONNECT, with or without user and password, and leads every way that is asked for to one place.
//! Plain threads, gone when dropped. It knows nothing of what it carries.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    /// The value of `Proxy-Authorization` that is asked for; none: everybody may come.
    authorization: Option<String>,
    asked: Mutex<Vec<Asked>>,
    is_closed: AtomicBool,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What stands behind CONNECT.
    pub endpoint: String,
    pub status: u16,
}

impl ConnectProxy {
    /// Leads to `target`, `host:port`, whatever it is asked for.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn to(target: &str) -> Self {
        Self::start(target, None)
    }

    /// The same for those who have this `Proxy-Authorization`.
    pub fn with_authorization(target: &str, authorization: &str) -> Self {
        Self::start(target, Some(authorization.to_owned()))
    }

    fn start(target: &str, authorization: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            authorization,
            asked: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        let accepting = {
            let shared = shared.clone();
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if shared.is_closed.load(Ordering::Relaxed) {
                        return;
                    }
                    let shared = shared.clone();
                    thread::spawn(move || shared.serve(client));
                }
            })
        };
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// For `server.proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it was asked for, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts. Connections end with either of their ends.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Some(head) = read_head(&mut client) else { return };
        let mut lines = head.split("\r\n");
        let mut request = lines.next().unwrap_or_default().split(' ');
        let is_connect = request.next() == Some("CONNECT");
        let endpoint = request.next().unwrap_or_default().to_owned();
        let given = lines.find_map(|line| line.strip_prefix("Proxy-Authorization: "));
        let is_welcome = self.authorization.is_none() || self.authorization.as_deref() == given;
        let server = TcpStream::connect(&self.target);
        let (status, words) = match (&server, is_connect, is_welcome) {
            (_, false, _) => (405, "Method Not Allowed"),
            (_, _, false) => (407, "Proxy Authentication Required"),
            (Err(_), ..) => (502, "Bad Gateway"),
            (Ok(_), ..) => (200, "Connection established"),
        };
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Asked { endpoint, status });
        let answer = format!("HTTP/1.1 {status} {words}\r\nContent-Length: 0\r\n\r\n");
        let answered = client.write_all(answer.as_bytes());
        if let (Ok(()), Ok(server), 200) = (answered, server, status) {
            carry(&client, &server);
        }
    }
}

fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 8 * 1024 || client.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn carry(client: &TcpStream, server: &TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
}
