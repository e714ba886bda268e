//! Why a caller is not let in, in words.

use muster_certs::tls::{PeerCertificate, Standing};
use muster_proto::{
    error::{ErrorReason, Problem},
    ids::AgentId,
};
use tonic::Code;
use tracing::warn;

use super::{
    layer::Call,
    permission::{Permission, Reach},
    rights::{Rights, Subject},
};
use crate::{audit::NotWritten, clock, store};

pub(super) fn nothing_shown(text: &str) -> Problem {
    Problem::new(Code::Unauthenticated, ErrorReason::CertificateRequired, text)
}

pub(super) fn not_for(call: &Call<'_>, certificate: &PeerCertificate) -> Problem {
    Problem::new(
        Code::PermissionDenied,
        ErrorReason::MethodNotAllowed,
        format!("{} may not call {}", certificate.identity, call.method.path),
    )
}

pub(super) fn missing(subject: &Subject, permission: &Permission, rights: &Rights) -> Problem {
    let is_scoped = rights.grants.iter().any(|grant| !grant.scope.is_all());
    let text = match permission.reach {
        Reach::Whole if is_scoped => format!(
            "{subject} has no role that gives the permission {} for everything; roles with a scope do not give it",
            permission.name
        ),
        _ => format!("{subject} has no role that gives the permission {}", permission.name),
    };
    Problem::new(Code::PermissionDenied, ErrorReason::PermissionMissing, text)
        .with_metadata("permission", permission.name)
}

pub(super) fn no_audit(why: NotWritten) -> Problem {
    match why {
        NotWritten::Full => Problem::new(
            Code::ResourceExhausted,
            ErrorReason::DiskFull,
            "the controller's disk has no room for the audit log, so nothing is done",
        ),
        NotWritten::Failed => Problem::new(
            Code::Unavailable,
            ErrorReason::Unavailable,
            "the audit log cannot be written now, so nothing is done; try again",
        ),
    }
}

/// Why a certificate of an agent does not open a method, with all that the agent needs to tell its people: both clocks too.
pub(super) fn refusal(id: AgentId, certificate: &PeerCertificate, standing: Standing) -> Problem {
    let not_after = clock::from_system(certificate.not_after);
    let serial = &certificate.serial;
    let (reason, text) = match standing {
        Standing::Expired => (
            ErrorReason::CertificateExpired,
            format!("the certificate of agent {id} expired at {}", clock::to_text(not_after)),
        ),
        Standing::Superseded => (
            ErrorReason::CertificateSuperseded,
            format!("the certificate {serial} of agent {id} is superseded: a newer one has been used"),
        ),
        Standing::Revoked => (
            ErrorReason::CertificateRevoked,
            format!("the certificate {serial} of agent {id} is revoked"),
        ),
        Standing::None | Standing::Valid | Standing::Unknown => (
            ErrorReason::CertificateUnknown,
            format!("the certificate {serial} of agent {id} is not on file"),
        ),
    };
    unauthenticated(reason, text, certificate, standing)
}

/// The same of an operator's certificate.
pub(super) fn user_refusal(name: &str, certificate: &PeerCertificate, standing: Standing) -> Problem {
    let serial = &certificate.serial;
    let (reason, text) = match standing {
        Standing::Expired => (
            ErrorReason::CertificateExpired,
            format!(
                "the certificate of user {name} expired at {}; it takes another admin, or `muster-server admin create`, to make \
                 a new one",
                clock::to_text(clock::from_system(certificate.not_after))
            ),
        ),
        Standing::Revoked => (
            ErrorReason::CertificateRevoked,
            format!("the certificate {serial} of user {name} is revoked"),
        ),
        _ => (
            ErrorReason::CertificateUnknown,
            format!("the certificate {serial} of user {name} is not on file"),
        ),
    };
    unauthenticated(reason, text, certificate, standing)
}

fn unauthenticated(reason: ErrorReason, text: String, certificate: &PeerCertificate, standing: Standing) -> Problem {
    Problem::new(Code::Unauthenticated, reason, text)
        .with_metadata("standing", standing.to_string())
        .with_metadata("serial", &certificate.serial)
        .with_metadata("not_after", clock::to_text(clock::from_system(certificate.not_after)))
        .with_metadata("controller_time", clock::to_text(clock::now()))
}

pub(super) fn unavailable(error: &store::Error) -> Problem {
    warn!(
        error = error as &dyn std::error::Error,
        "failed to look up a certificate"
    );
    let text = "the database does not answer now; try again";
    Problem::new(Code::Unavailable, ErrorReason::Unavailable, text)
}
