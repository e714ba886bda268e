//! Who is calling, and whether it may: by certificate or by key, by the standing of that, by what was granted.

use std::time::SystemTime;

use http::HeaderValue;
use muster_certs::{
    identity::Identity,
    tls::{PeerCertificate, Standing},
};
use muster_proto::{
    error::{ErrorReason, Problem, code_name, reason_name},
    ids::AgentId,
    v1::{AuditEntry, AuditOutcome},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{
    Caller, Operator, Renewer,
    layer::{Access, Call},
    refusals::{missing, no_audit, not_for, nothing_shown, refusal, unavailable, user_refusal},
    rights::{Rights, Subject},
    scope::Scopes,
    table::Who,
};
use crate::{clock, users};

impl Access {
    /// Who is calling, if this may be called by it. Refusals of callers that are known are entries of the audit log, those of
    /// others are counted in it.
    pub(super) async fn decide(&self, call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<Caller, Problem> {
        let method = call.method;
        let certificate = call.peer.certificate.as_ref();
        if method.who == Who::Anyone {
            return Ok(Caller::Anonymous);
        }
        if matches!(method.who, Who::Operator(_) | Who::AnyOperator) {
            return self.operator(call, authorization).await;
        }
        let Some(certificate) = certificate else {
            return match method.who {
                Who::Newcomer | Who::NewcomerOrAgent => Ok(Caller::Anonymous),
                _ => Err(nothing_shown("a client certificate is needed, and none was shown")),
            };
        };
        match (method.who, &certificate.identity) {
            (Who::Agent | Who::NewcomerOrAgent, Identity::Agent { id, .. }) => {
                self.agent(AgentId::from(*id), certificate).await
            }
            (Who::Renewer, Identity::Agent { id, .. }) => self.renewer(AgentId::from(*id), certificate).await,
            (Who::Newcomer, _) => Err(Problem::new(
                Code::PermissionDenied,
                ErrorReason::MethodNotAllowed,
                format!(
                    "this call is for machines without a certificate; {} has one",
                    certificate.identity
                ),
            )),
            _ => Err(not_for(call, certificate)),
        }
    }

    async fn operator(&self, call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<Caller, Problem> {
        let (subject, ended) = self.known(call, authorization).await.inspect_err(|problem| {
            let claimed = call.peer.certificate.as_ref().map(|it| it.identity.to_string());
            let source = call.peer.addr.ip();
            self.audit.stranger(
                source,
                claimed.as_deref(),
                call.method.path,
                reason_name(problem.reason),
            );
        })?;
        self.rates.take(&subject, call.method.rate, std::time::Instant::now())?;
        let mut rights = self.grants.rights().of(&subject);
        let may = |rights: &Rights| call.method.permission().map(|permission| rights.scopes(permission));
        let mut scopes = may(&rights);
        if scopes.as_ref().map_or(rights.grants.is_empty(), Scopes::is_none) {
            rights = self
                .grants
                .refreshed(&subject)
                .await
                .map_err(|error| unavailable(&error))?;
            scopes = may(&rights);
        }
        if let Some(permission) = call
            .method
            .permission()
            .filter(|_| scopes.as_ref().is_none_or(Scopes::is_none))
        {
            let problem = missing(&subject, permission, &rights);
            let entry = AuditEntry {
                code: code_name(problem.code).to_owned(),
                reason: reason_name(problem.reason).to_owned(),
                ..call.entry(&subject.to_string(), AuditOutcome::Refused)
            };
            self.audit.refused(call.peer.addr.ip(), entry).await.map_err(no_audit)?;
            return Err(problem);
        }
        Ok(Caller::Operator(Operator {
            subject,
            rights,
            scopes: scopes.unwrap_or_default(),
            ended,
        }))
    }

    /// Whose certificate or key it is, as long as that is good.
    async fn known(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Subject, CancellationToken), Problem> {
        match (&call.peer.certificate, authorization) {
            (Some(_), Some(_)) => Err(Problem::new(
                Code::Unauthenticated,
                ErrorReason::InvalidField,
                "the call shows a certificate and an API key; show one of them",
            )),
            (None, None) => Err(nothing_shown(
                "a client certificate or an API key (authorization: Bearer mk_...) is needed, and neither was shown",
            )),
            (None, Some(authorization)) => self.api_key(call, authorization),
            (Some(certificate), None) => match &certificate.identity {
                Identity::User { name, .. } => self.user(name.as_str(), certificate).await,
                _ => Err(not_for(call, certificate)),
            },
        }
    }

    fn api_key(&self, call: &Call<'_>, authorization: &HeaderValue) -> Result<(Subject, CancellationToken), Problem> {
        let refused = || {
            Problem::new(
                Code::Unauthenticated,
                ErrorReason::ApiKeyInvalid,
                "the API key is unknown, wrong, expired, revoked or not for this address",
            )
        };
        let text = authorization.to_str().map_err(|_| refused())?;
        let (scheme, key) = text.split_once(' ').ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        let known = self.api_keys.standing(key, call.peer.addr.ip(), clock::now());
        let (id, ended) = known.ok_or_else(refused)?;
        Ok((Subject::ApiKey(id), ended))
    }

    async fn agent(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Caller, Problem> {
        match self.standing(id, certificate).await? {
            Standing::Valid => {
                self.agents.certificate_used(id, &certificate.serial, clock::now());
                Ok(Caller::Agent(id))
            }
            standing => Err(refusal(id, certificate, standing)),
        }
    }

    async fn renewer(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Caller, Problem> {
        let standing = self.standing(id, certificate).await?;
        if standing == Standing::Revoked {
            return Err(refusal(id, certificate, standing));
        }
        if standing == Standing::Valid {
            self.agents.certificate_used(id, &certificate.serial, clock::now());
        }
        Ok(Caller::Renewer(Renewer {
            agent: id,
            serial: certificate.serial.clone(),
            standing,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }))
    }

    /// From memory for whoever will be let in; the database is asked only why somebody will not.
    async fn standing(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Standing, Problem> {
        if let Some(standing) = self.agents.standing(id, certificate, SystemTime::now()) {
            return Ok(standing);
        }
        let row = self
            .db
            .agent_certificate_get(&certificate.serial)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(match row {
            Some(row) if row.agent_id != id.to_string() => Standing::Unknown,
            Some(row) if row.revoked_at > 0 => Standing::Revoked,
            Some(_) => Standing::Superseded,
            None => Standing::Unknown,
        })
    }

    async fn user(&self, name: &str, certificate: &PeerCertificate) -> Result<(Subject, CancellationToken), Problem> {
        if certificate.is_expired(SystemTime::now()) {
            return Err(user_refusal(name, certificate, Standing::Expired));
        }
        let serial = &certificate.serial;
        match self.users.standing(name, serial).await {
            Ok(users::Standing::Live(ended)) => Ok((Subject::User(name.to_owned()), ended)),
            Ok(users::Standing::Revoked) => Err(user_refusal(name, certificate, Standing::Revoked)),
            Ok(users::Standing::Unknown) => Err(user_refusal(name, certificate, Standing::Unknown)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}
