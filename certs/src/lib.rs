//! Identity and trust: who a peer is, the CA that says so, keys and their files, join tokens, pins, signatures and the
//! TLS configurations built from them. Knows no gRPC, no storage and no other crate of the workspace; what time it is, is
//! always an argument (or the clock of the TLS configuration).

pub mod ca;
pub mod certificate;
pub mod context_file;
pub mod crl;
pub mod csr;
pub mod file;
mod fingerprint;
#[cfg(test)]
mod fixtures;
pub mod identity;
pub mod identity_file;
pub mod key;
pub mod pem;
pub mod pin;
pub mod sign;
pub mod tls;
pub mod token;

pub use identity::Identity;
/// The TLS stack that [`tls`] builds configurations for, so that every crate uses the same one.
pub use rustls;
pub use rustls_pki_types::{CertificateDer, ServerName};
pub use tokio_rustls;
