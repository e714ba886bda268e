//! One connection of the swarm: TCP from a chosen source, our TLS, HTTP/2. Lighter than the agent's own, since there are
//! thousands in one process: nothing of it makes a connection anew, and the one that uses it also runs it. Can be cut in the
//! middle of anything.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_certs::{
    rustls::ClientConfig,
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tonic::body::Body;

/// For TCP and TLS together, as in an agent.
const CONNECT: Duration = Duration::from_secs(10);
/// As an agent asks after a connection that says nothing, and how long it waits for the answer.
const PING: Duration = Duration::from_secs(32);
const PING_ANSWER: Duration = Duration::from_secs(12);

/// Where to connect, and how.
#[derive(Debug, Clone)]
pub struct Route {
    pub to: SocketAddr,
    /// For the handshake only; nobody checks it.
    pub host: String,
    pub from: IpAddr,
    pub tls: Arc<ClientConfig>,
}

/// Sends the requests of one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wire(SendRequest<Body>);

/// Has to be polled for the connection to be alive.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens a connection; `cut` ends it as a broken cable does. What hyper runs beside it is of `tasks`.
pub async fn open(route: &Route, cut: CancellationToken, tasks: &TaskTracker) -> io::Result<(Wire, Running)> {
    let stream = timeout(CONNECT, secure(route))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let stream = Cuttable {
        stream,
        cut: Box::pin(cut.cancelled_owned()),
    };
    let mut builder = http2::Builder::new(Spawner(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true);
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // How it ended, its streams say.
    let running = async move {
        let _ = connection.await;
    };
    Ok((Wire(sender), Box::pin(running)))
}

async fn secure(route: &Route) -> io::Result<TlsStream<TcpStream>> {
    let socket = match route.from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if !route.from.is_unspecified() {
        socket.bind(SocketAddr::new(route.from, 0))?;
    }
    let stream = socket.connect(route.to).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(route.tls.clone())
        .connect(tls::server_name(&route.host), stream)
        .await
}

impl tower::Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Runs what hyper would leave to itself.
#[derive(Clone)]
struct Spawner(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A stream that can break at any moment.
struct Cuttable<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Cuttable<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
