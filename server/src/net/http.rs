//! HTTP on one connection whose handshake is done: gives each request its peer, and ends the connection when it is time.
//! Takes no part in what a request means.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::{Connection, Limits, Peer};
use crate::aside::Aside;

/// A connection that has begun no request after this long is closed, where nothing else bounds its idleness.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// After [`super::Connection::close`], how long requests that are under way may take.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// After [`super::Connection::close`], how long the peer may take to leave by itself. An answer that says why it is shown
/// out must be read before the connection says that it ends, or some clients see the end alone.
const LINGER: Duration = Duration::from_millis(500);
/// After the end that [`super::Connection::end_with`] stands for and [`LINGER`], how long the connection may take to end.
const END_GRACE: Duration = Duration::from_millis(200);
/// What a peer whose handshake failed may still send: a little more than the first flight of a client that believed in it.
const LAST_WORDS: u64 = 64 * 1024;
/// Finds peers that are gone without a word.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Room for the largest frame of a link (1 MiB) would be held by each connection; a quarter lets it flow just as well.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What serving one connection depends on.
pub(super) struct Serving<'a> {
    pub(super) limits: &'a Limits,
    pub(super) http1: bool,
    /// See [`super::Listener::distrust`].
    pub(super) distrust: Option<watch::Receiver<()>>,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) gone: &'a CancellationToken,
    pub(super) tracker: &'a TaskTracker,
}

/// Makes small messages leave at once, and lets the kernel find dead peers.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 6)?;
    Ok(())
}

/// Ends a connection whose handshake failed so that the peer sees why. It may have sent more by then, and a socket that is
/// closed over unread bytes takes back what it has not delivered: the alert.
pub(super) async fn show_out(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(LAST_WORDS);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // That the peer is gone already, or talks on, is no error: it has been given its time.
    let _ = timeout(LINGER, drained).await;
}

/// Serves requests until the peer leaves, it is time to leave, or something breaks. A peer that hangs up is no error.
pub(super) fn drive<I, S, B>(io: I, peer: Peer, service: S, serving: Serving<'_>) -> BoxFuture<'_, Result<(), Error>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let connection = peer.connection.clone();
    let io = TokioIo::new(io);
    let service = service_fn(move |mut request: Request<Incoming>| {
        peer.connection.request_began();
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    // ALPN has said which it is. Each has a box of its own size, which is all that a connection is from here on.
    if serving.http1 {
        let served = one().serve_connection(io, service);
        let place = Place {
            connection,
            _streams: None,
        };
        return Box::pin(until_it_ends(Box::pin(served), place, serving));
    }
    let streams = serving.gone.child_token();
    let tasks = StreamTasks {
        tracker: serving.tracker.clone(),
        ended: streams.clone(),
    };
    let served = two(serving.limits, tasks).serve_connection(io, service);
    let place = Place {
        connection,
        _streams: Some(streams.drop_guard()),
    };
    Box::pin(until_it_ends(Box::pin(served), place, serving))
}

async fn until_it_ends<C>(mut served: Pin<Box<C>>, place: Place, serving: Serving<'_>) -> Result<(), Error>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let connection = &place.connection;
    let Serving { shutdown, gone, .. } = serving;
    let grace = serving.limits.grace;
    let mut leave = Aside::new(stream::once(time_to_leave(connection, serving)));
    let leave = tokio::select! {
        ended = served.as_mut() => return or_hung_up(ended),
        Some(leave) = leave.next() => leave,
    };
    let grace = match leave {
        Leave::Shutdown => grace,
        Leave::Distrusted | Leave::Impatient => CLOSE_GRACE,
        Leave::Closing => {
            tokio::select! {
                ended = served.as_mut() => return or_hung_up(ended),
                () = shutdown.cancelled() => {}
                () = gone.cancelled() => {}
                () = sleep(LINGER) => {}
            }
            CLOSE_GRACE
        }
        Leave::Ended => {
            // Streams that are under way may say why they end.
            if let Ok(ended) = timeout(LINGER, served.as_mut()).await {
                return or_hung_up(ended);
            }
            END_GRACE
        }
    };

    served.as_mut().graceful_shutdown();
    tokio::select! {
        ended = timeout(grace, served) => ended.map_or(Ok(()), or_hung_up),
        () = gone.cancelled() => Ok(()),
        () = async { connection.ended().await; sleep(LINGER).await; } => Ok(()),
    }
}

/// Why a connection ends whose peer would stay.
enum Leave {
    Shutdown,
    /// See [`super::Listener::distrust`].
    Distrusted,
    Closing,
    Ended,
    /// It has not shown in time what it is for.
    Impatient,
}

async fn time_to_leave(connection: &Connection, serving: Serving<'_>) -> Leave {
    let distrust = serving.distrust;
    let promote_within = serving.limits.promote_within;
    let patience = async {
        // In boxes, here and below, which are gone when they are no longer wanted.
        Box::pin(sleep(promote_within.unwrap_or(FIRST_REQUEST_WITHIN))).await;
        let has_shown = match promote_within {
            Some(_) => connection.is_promoted(),
            None => connection.has_requested(),
        };
        if has_shown {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = serving.shutdown.cancelled() => Leave::Shutdown,
        () = told(distrust) => Leave::Distrusted,
        () = connection.closing() => Leave::Closing,
        () = connection.ended() => Leave::Ended,
        () = patience => Leave::Impatient,
    }
}

/// Without a sender, or when it is gone, it waits for ever.
async fn told(distrust: Option<watch::Receiver<()>>) {
    if let Some(mut distrust) = distrust
        && Box::pin(async move { distrust.changed().await }).await.is_ok()
    {
        return;
    }
    pending().await
}

fn two(limits: &Limits, tasks: StreamTasks) -> http2::Builder<StreamTasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    // What is promoted has heartbeats of its own, and the rest is closed soon.
    if limits.promote_within.is_none() {
        builder
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
    }
    builder
}

fn one() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_REQUEST_WITHIN)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
}

/// The connection's place among those that are not links, until its task ends; the tasks of its streams end with it.
struct Place {
    connection: Connection,
    _streams: Option<DropGuard>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.release();
    }
}

/// Runs the streams of HTTP/2 connections: owned by the listener, ended with their connection.
#[derive(Debug, Clone)]
struct StreamTasks {
    tracker: TaskTracker,
    ended: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let ended = self.ended.clone();
        self.tracker.spawn(async move {
            ended.run_until_cancelled(stream).await;
        });
    }
}

fn or_hung_up(ended: hyper::Result<()>) -> Result<(), Error> {
    match ended {
        Err(error) if is_hang_up(&error) => Ok(()),
        other => other.map_err(Into::into),
    }
}

/// Whether an error, or a cause of it, is the peer's leaving without a goodbye of TLS or TCP.
fn is_hang_up(error: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::*;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
