//! `CertificateService`.

use muster_certs::Identity;
use muster_proto::{
    error::{ErrorReason, Problem},
    ids::AgentId,
    v1::{self, CertificateStatus, certificate_service_server::CertificateService},
};
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
    revocation,
};
use crate::{
    agents::Ending,
    clock::{self, Micros, to_optional_timestamp},
    store::{CertificateFilter, CertificateRow},
};

/// Certificates that are looked through for one page of a caller who may see few of them.
const LOOKED_THROUGH: usize = 20_000;

#[tonic::async_trait]
impl CertificateService for Api {
    async fn list_certificates(
        &self,
        request: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let now = clock::now();
        let agent_id = match request.agent.as_str() {
            "" => String::new(),
            text => {
                let id = self.agents.find(text, &ctx.scopes());
                id.map_err(|error| status(&ctx, error))?.to_string()
            }
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => {
                let wrong = || status(&ctx, invalid_field("page_token", "is not one that a list has returned"));
                let (at, serial) = token.split_once('-').ok_or_else(wrong)?;
                Some((at.parse().map_err(|_| wrong())?, serial.to_owned()))
            }
        };
        let mut filter = CertificateFilter {
            agent_id,
            live_at: (!request.show_ended).then_some(now),
            after,
            limit: size as i64 + 1,
        };
        let revision = self.changes.revision();
        let scopes = ctx.scopes();
        let (mut items, mut looked_through, mut next_page_token) = (Vec::new(), 0, String::new());
        'pages: loop {
            let rows = self.db.agent_certificate_list(&filter).await;
            let rows = rows.map_err(|error| status(&ctx, error))?;
            let is_last = rows.len() <= size;
            for row in rows {
                if items.len() == size || looked_through == LOOKED_THROUGH {
                    next_page_token = filter
                        .after
                        .map(|(at, serial)| format!("{at}-{serial}"))
                        .unwrap_or_default();
                    break 'pages;
                }
                (filter.after, looked_through) = (Some((row.created_at, row.serial.clone())), looked_through + 1);
                if self.reaches(&scopes, &row.agent_id) {
                    items.push(encode(self, &row, now));
                }
            }
            if is_last {
                break;
            }
        }
        Ok(Response::new(v1::ListCertificatesResponse {
            items,
            revision,
            next_page_token,
        }))
    }

    async fn revoke_certificate(
        &self,
        request: Request<v1::RevokeCertificateRequest>,
    ) -> Result<Response<v1::RevokeCertificateResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let reason = revocation::reason(request.reason).map_err(|problem| status(&ctx, problem))?;
        let serial = request.serial.to_ascii_lowercase();
        let unknown = || {
            let text = format!("there is no certificate {serial}");
            status(&ctx, Problem::new(Code::NotFound, ErrorReason::NotFound, text))
        };
        ctx.note.resource("certificate", &serial);
        let found = self.db.agent_certificate_get(&serial).await;
        let found = found.map_err(|error| status(&ctx, error))?;
        let found = found
            .filter(|row| self.reaches(&ctx.scopes(), &row.agent_id))
            .ok_or_else(unknown)?;
        if let Ok(id) = found.agent_id.parse() {
            ctx.note.of_agent(id);
        }
        ctx.note.before(&encode(self, &found, clock::now()));
        let (fleet, by) = (self.fleet.clone(), ctx.user());
        let wanted = serial.clone();
        let change = async move {
            let ending = Ending {
                by: &by,
                reason: &reason,
            };
            fleet.revoke_certificate(&wanted, ending, clock::now()).await
        };
        let row = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        let row = row.ok_or_else(unknown)?;
        info!(
            serial,
            user = ctx.user(),
            request.id = ctx.request_id,
            "certificate revoked"
        );
        let certificate = encode(self, &row, clock::now());
        ctx.note.after(&certificate);
        Ok(Response::new(v1::RevokeCertificateResponse {
            certificate: Some(certificate),
        }))
    }
}

fn encode(api: &Api, row: &CertificateRow, now: Micros) -> v1::Certificate {
    let id = row.agent_id.parse::<AgentId>();
    let identity = id
        .as_ref()
        .map(|id| Identity::agent(api.pki.trust_domain(), id.uuid()).to_string());
    let name = id.ok().and_then(|id| api.agents.with(id, |entry| entry.name.clone()));
    let standing = match row {
        row if row.revoked_at > 0 => CertificateStatus::Revoked,
        row if row.superseded_at > 0 => CertificateStatus::Superseded,
        row if row.not_after <= now => CertificateStatus::Expired,
        row if row.used_at == 0 => CertificateStatus::Issued,
        _ => CertificateStatus::Active,
    };
    v1::Certificate {
        serial: row.serial.clone(),
        identity: identity.unwrap_or_default(),
        name: name.unwrap_or_default(),
        status: standing as i32,
        issue_time: to_optional_timestamp(row.created_at),
        expire_time: to_optional_timestamp(row.not_after),
        revoke_time: to_optional_timestamp(row.revoked_at),
        revoke_reason: row.revoke_reason.clone(),
        ca: row.ca.clone(),
    }
}
