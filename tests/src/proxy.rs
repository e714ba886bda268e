//! A TCP proxy that breaks the connections it carries: after so many bytes each way, at once, or by silence. Plain threads,
//! so that a test of any kind can hold one. It knows nothing of what it carries.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// What the proxy does to a connection. A new fault holds for connections that are open and for those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: every byte goes through.
    Forward,
    /// The connection ends once so many bytes went from the client to the server; these still arrive.
    CutUp(u64),
    /// The same for the bytes from the server to the client.
    CutDown(u64),
    /// Nothing moves and nothing ends, until another fault is set.
    Stall,
    /// The same for what comes after so many bytes from the client to the server; the other way goes on.
    StallUp(u64),
    /// The same for the bytes from the server to the client.
    StallDown(u64),
    /// Connections end as soon as they are made.
    Refuse,
}

/// How much one connection has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
}

/// Listens on a port of 127.0.0.1 of its own; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    closed: bool,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: Option<TcpStream>,
    carried: Carried,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    /// In front of `target`, `host:port`. It forwards until a fault is set.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                fault: Fault::Forward,
                closed: false,
                connections: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let accepting = {
            let (shared, target) = (shared.clone(), target.to_owned());
            thread::spawn(move || accept(&listener, &target, &shared))
        };
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Where to connect instead of the target.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, fault: Fault) {
        self.shared.lock().fault = fault;
        self.shared.changed.notify_all();
    }

    /// Ends every connection that is open; new ones meet the fault that is set.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.connections.iter_mut().for_each(Connection::end);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// What each connection has carried so far, in the order in which they were made. Those refused count too.
    pub fn carried(&self) -> Vec<Carried> {
        let state = self.shared.lock();
        state.connections.iter().map(|connection| connection.carried).collect()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        let state = self.shared.lock();
        state.connections.iter().filter(|connection| !connection.ended).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, index: usize) {
        self.lock().connections[index].end();
        self.changed.notify_all();
    }
}

impl State {
    fn stalls(&self, index: usize, direction: Direction) -> bool {
        let connection = &self.connections[index];
        let stalls = match (self.fault, direction) {
            (Fault::Stall, _) => true,
            (Fault::StallUp(bytes), Direction::Up) => connection.carried.up >= bytes,
            (Fault::StallDown(bytes), Direction::Down) => connection.carried.down >= bytes,
            _ => false,
        };
        stalls && !connection.ended
    }
}

impl Connection {
    fn end(&mut self) {
        self.ended = true;
        // One that the peer has ended already is as good.
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(server) = &self.server {
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, target: &str, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let mut state = shared.lock();
        if state.closed {
            return;
        }
        let Ok(kept) = client.try_clone() else { continue };
        state.connections.push(Connection {
            client: kept,
            server: None,
            carried: Carried::default(),
            ended: false,
        });
        let index = state.connections.len() - 1;
        if state.fault == Fault::Refuse {
            state.connections[index].end();
            continue;
        }
        drop(state);
        let (shared, target) = (shared.clone(), target.to_owned());
        thread::spawn(move || carry(&client, &target, index, &shared));
    }
}

/// One connection to its end.
fn carry(client: &TcpStream, target: &str, index: usize, shared: &Shared) {
    let server = TcpStream::connect(target).and_then(|server| {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok((server.try_clone()?, server))
    });
    let Ok((kept, server)) = server else {
        return shared.end(index);
    };
    {
        let mut state = shared.lock();
        let connection = &mut state.connections[index];
        connection.server = Some(kept);
        if connection.ended {
            connection.end();
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, Direction::Up, index, shared));
        pump(&server, client, Direction::Down, index, shared);
    });
    shared.end(index);
}

/// Carries bytes one way until either end is gone or a fault says so.
fn pump(mut from: &TcpStream, mut to: &TcpStream, direction: Direction, index: usize, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            // The other direction may have more to say.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Some((allowed, last)) = shared.admit(index, direction, rest.len()) else {
                return;
            };
            let (now, later) = rest.split_at(allowed);
            if to.write_all(now).is_err() || last {
                return shared.end(index);
            }
            rest = later;
        }
    }
    shared.end(index);
}

impl Shared {
    /// How many of `count` bytes may go on, and whether they are the last. Waits out a stall; `None` when the connection
    /// has ended.
    fn admit(&self, index: usize, direction: Direction, count: usize) -> Option<(usize, bool)> {
        let mut state = self.lock();
        while state.stalls(index, direction) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = state.fault;
        let connection = &mut state.connections[index];
        if connection.ended {
            return None;
        }
        let carried = match direction {
            Direction::Up => &mut connection.carried.up,
            Direction::Down => &mut connection.carried.down,
        };
        let (limit, ends) = match (fault, direction) {
            (Fault::CutUp(bytes), Direction::Up) | (Fault::CutDown(bytes), Direction::Down) => (bytes, true),
            (Fault::StallUp(bytes), Direction::Up) | (Fault::StallDown(bytes), Direction::Down) => (bytes, false),
            _ => (u64::MAX, false),
        };
        let left = limit.saturating_sub(*carried);
        let allowed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        *carried += allowed as u64;
        Some((allowed, ends && *carried >= limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{self, SECOND};

    /// Sends back what it gets, to any number of clients.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut from, mut to) = (&stream, &stream);
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        address
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.endpoint()).unwrap();
        stream.set_read_timeout(Some(20 * SECOND)).unwrap();
        stream
    }

    fn read(mut stream: &TcpStream, count: usize) -> Vec<u8> {
        let mut buffer = vec![0; count];
        stream.read_exact(&mut buffer).unwrap();
        buffer
    }

    fn rest(mut stream: &TcpStream) -> Vec<u8> {
        let mut buffer = Vec::new();
        let _ = stream.read_to_end(&mut buffer);
        buffer
    }

    #[test]
    fn without_a_fault_every_byte_arrives_and_is_counted() {
        let proxy = Proxy::to(&echo());
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        assert_eq!(read(&stream, 5), b"hello");
        assert_eq!(proxy.carried(), [Carried { up: 5, down: 5 }]);
        assert_eq!(proxy.open(), 1);
    }

    #[test]
    fn a_connection_is_cut_after_as_many_bytes_as_asked_each_way() {
        let proxy = Proxy::to(&echo());
        proxy.set(Fault::CutDown(3));
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        assert_eq!(rest(&stream), b"hel");

        proxy.set(Fault::CutUp(2));
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        // The echo of the two bytes may or may not make it back before the end.
        assert!(b"he".starts_with(&rest(&stream)));
        assert_eq!(proxy.carried()[1].up, 2);
        poll::until("both have ended", 10 * SECOND, || match proxy.open() {
            0 => Ok(()),
            open => Err(format!("{open} open")),
        });
    }

    #[test]
    fn a_stalled_connection_goes_on_where_it_was() {
        let proxy = Proxy::to(&echo());
        proxy.set(Fault::Stall);
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        stream.set_read_timeout(Some(SECOND / 5)).unwrap();
        assert!(stream.read(&mut [0; 5]).is_err(), "a byte got through");
        stream.set_read_timeout(Some(20 * SECOND)).unwrap();
        proxy.set(Fault::Forward);
        assert_eq!(read(&stream, 5), b"hello");
    }

    #[test]
    fn one_way_falls_silent_after_as_many_bytes_and_the_other_goes_on() {
        let proxy = Proxy::to(&echo());
        proxy.set(Fault::StallUp(8));
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        assert_eq!(read(&stream, 5), b"hello");
        // Also when the limit is within what comes at once.
        stream.write_all(b" world").unwrap();
        assert_eq!(read(&stream, 3), b" wo");
        stream.set_read_timeout(Some(SECOND / 5)).unwrap();
        assert!(stream.read(&mut [0; 3]).is_err(), "a byte got through");
        assert_eq!(proxy.carried(), [Carried { up: 8, down: 8 }]);
        stream.set_read_timeout(Some(20 * SECOND)).unwrap();
        proxy.set(Fault::Forward);
        assert_eq!(read(&stream, 3), b"rld");
    }

    #[test]
    fn refused_and_cut_connections_end() {
        let proxy = Proxy::to(&echo());
        let open = client(&proxy);
        proxy.set(Fault::Refuse);
        assert!(rest(&client(&proxy)).is_empty());
        proxy.cut();
        assert!(rest(&open).is_empty());
        proxy.set(Fault::Forward);
        let mut stream = client(&proxy);
        stream.write_all(b"x").unwrap();
        assert_eq!(read(&stream, 1), b"x");
    }
}
