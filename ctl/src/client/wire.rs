//! Remembers what TLS said when a connection ended. With TLS 1.3 a client's certificate is refused after the handshake, in
//! an alert that comes with the first read; HTTP/2 passes on no more than the text of such an error.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_certs::{CertificateDer, pin};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::show::ServerKey;

/// What was said last, shared by the connections of one client.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    alert: Arc<Mutex<Option<String>>>,
    server_key: ServerKey,
    server_certificate: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl Wire {
    pub fn alert(&self) -> Option<String> {
        self.alert.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the controller has shown in the handshake.
    pub fn meet(&self, certificates: Option<&[CertificateDer<'_>]>) {
        let pin = certificates.and_then(|chain| pin::Pin::of_certificate(chain.first()?).ok());
        let key = pin.map(|pin| format!("sha256//{}", STANDARD.encode(pin.as_bytes())));
        *self.server_key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        let leaf = certificates
            .and_then(<[_]>::first)
            .map(|leaf| leaf.clone().into_owned());
        *self.server_certificate.lock().unwrap_or_else(PoisonError::into_inner) = leaf;
    }

    pub fn server_certificate(&self) -> Option<CertificateDer<'static>> {
        let certificate = self.server_certificate.lock();
        certificate.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn server_key(&self) -> ServerKey {
        self.server_key.clone()
    }

    /// A new connection: what was said of the one before is over.
    pub fn observe<S>(&self, stream: S) -> Observed<S> {
        *self.alert.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Observed {
            stream,
            wire: self.clone(),
        }
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(alert) = muster_certs::tls::describe(error)
        {
            *self.alert.lock().unwrap_or_else(PoisonError::into_inner) = Some(alert);
        }
        result
    }
}

#[derive(Debug)]
pub struct Observed<S> {
    stream: S,
    wire: Wire,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.wire.note(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wire.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wire.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.wire.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
