//! Failed handshakes in words for a person: what happened and what mostly lies behind it. Nothing decides by these texts.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};
use rustls_pki_types::UnixTime;
use x509_parser::time::ASN1Time;

use super::{Seen, ServerError};

/// What went wrong with TLS, if anything in the chain of causes says so: give it the error of a connection attempt as it is.
/// `None`: it was not TLS.
pub fn describe(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls_text(tls));
        }
        // By its text, since HTTP/2 shows what it met as text only; rustls puts the address of its manual there.
        if error.to_string().contains("without sending TLS close_notify") {
            return Some("the other side broke off the connection: it was killed, or the network failed".to_owned());
        }
        next = cause(error);
    }
    None
}

/// What was shown by a server whose chain is not trusted, if anything in the chain of causes tells of one.
pub fn seen<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Seen> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
            error.downcast_ref()
        {
            return match inner.downcast_ref()? {
                ServerError::PinMismatch { seen, .. } | ServerError::UnknownIssuer(seen) => Some(seen),
                _ => None,
            };
        }
        next = cause(error);
    }
    None
}

/// Whether the other side has refused the certificate that it was shown, if anything in the chain of causes says so. With TLS
/// 1.3 a client learns of it after the handshake, and only when the alert reaches it before the end of the connection.
pub fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return is_of_certificate(*alert);
        }
        // HTTP/2 shows what it met as text only.
        let text = error.to_string();
        if let Some((_, alert)) = text.split_once("received fatal alert: ") {
            return OF_CERTIFICATE
                .iter()
                .any(|known| alert.starts_with(&format!("{known:?}")));
        }
        next = cause(error);
    }
    false
}

/// An io::Error answers `source` with the source of what it wraps, and so hides it.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn tls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_text(error),
        rustls::Error::AlertReceived(alert) => alert_text(*alert),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS; is it the right port?".to_owned()
        }
        rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the other side does not speak TLS 1.3".to_owned(),
        other => other.to_string(),
    }
}

fn certificate_text(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the server's certificate does not come from a CA that is trusted here".to_owned()
        }
        // Which of the two clocks is wrong cannot be known here: both are named.
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate was good until {}, and the clock of this machine says {}",
            time_text(*not_after),
            time_text(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is good from {}, and the clock of this machine says {}",
            time_text(*not_before),
            time_text(*time)
        ),
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<ServerError>() {
            Some(error) => error.to_string(),
            None => inner.to_string(),
        },
        other => other.to_string(),
    }
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => "the other side does not speak TLS 1.3".to_owned(),
        AlertDescription::NoApplicationProtocol => {
            "the other side speaks TLS, but not HTTP/2; is it the right port?".to_owned()
        }
        alert if is_of_certificate(alert) => {
            format!("the other side refused the certificate that it was shown (alert {alert:?})")
        }
        other => format!("the other side ended the handshake (alert {other:?})"),
    }
}

/// What a peer says of a certificate that it does not take.
const OF_CERTIFICATE: [AlertDescription; 7] = [
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::DecryptError,
    AlertDescription::AccessDenied,
];

fn is_of_certificate(alert: AlertDescription) -> bool {
    OF_CERTIFICATE.contains(&alert)
}

fn time_text(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()) {
        Ok(at) => {
            let (hour, minute, second) = at.to_hms();
            let month = u8::from(at.month());
            format!(
                "{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
                at.year(),
                at.day()
            )
        }
        Err(_) => format!("{seconds} s after 1970"),
    }
}
