//! `AuditService`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use muster_proto::{
    audit::{Hash, Head, NOTHING},
    v1::{self, AuditEntry, AuditLink, AuditOutcome, audit_service_server::AuditService, export_audit_response::Item},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    Api, paging,
    problem::{context, invalid_field, moment, status},
};
use crate::{
    access::OpCtx,
    audit, clock, store,
    store::{AuditFilter, AuditRow, Db},
};

/// Links read from the database at once.
const PAGE: i64 = 1_000;
/// Entries that are looked through for one page of a caller who may see few of them.
const LOOKED_THROUGH: usize = 20_000;

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 100, 1_000).map_err(|problem| status(&ctx, problem))?;
        let before = match request.page_token.as_str() {
            "" => i64::MAX,
            token => token
                .parse()
                .map_err(|_| status(&ctx, invalid_field("page_token", "is not one that a list has returned")))?,
        };
        let time = |field, time, default| moment(field, time, default).map_err(|problem| status(&ctx, problem));
        let mut filter = AuditFilter {
            caller: request.caller,
            resource: request.resource,
            method: request.method,
            outcome: if request.refused {
                AuditOutcome::Refused as i64
            } else {
                0
            },
            since: time("since", request.since, i64::MIN)?,
            until: time("until", request.until, i64::MAX)?,
            before,
            limit: PAGE,
        };
        let (mut items, mut looked_through, mut next_page_token) = (Vec::new(), 0, String::new());
        'pages: loop {
            let rows = self.db.audit_list(&filter).await.map_err(|error| status(&ctx, error))?;
            let is_last = rows.len() < PAGE as usize;
            for row in rows {
                if items.len() == size || looked_through == LOOKED_THROUGH {
                    // The last one that was looked at; the next page goes on below it.
                    next_page_token = filter.before.to_string();
                    break 'pages;
                }
                (filter.before, looked_through) = (row.seq, looked_through + 1);
                let entry = AuditEntry::decode(row.entry.as_slice()).unwrap_or_else(|_| unreadable(&row));
                if self.may_see(&ctx, &entry) {
                    items.push(entry);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(Response::new(v1::ListAuditEntriesResponse { items, next_page_token }))
    }

    type ExportAuditStream = Pin<Box<dyn Stream<Item = Result<v1::ExportAuditResponse, Status>> + Send>>;

    async fn export_audit(
        &self,
        request: Request<v1::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        let ctx = context(&request)?;
        let start = request.into_inner().start_seq.max(0);
        let failed = move |error: store::Error| status(&ctx, error);
        let links = pages(self.db.clone(), start, |db, from| async move {
            let rows = db.audit_from(from, PAGE).await?;
            Ok(rows.into_iter().map(|row| (row.seq, Item::Link(link(row)))).collect())
        });
        let heads = pages(self.db.clone(), start, |db, from| async move {
            let rows = db.audit_heads_from(from, PAGE).await?;
            let head = |row: store::AuditHeadRow| v1::Signed {
                payload: row.payload.into(),
                key_id: row.key_id,
                signature: row.signature,
            };
            Ok(rows.into_iter().map(|row| (row.seq, Item::Head(head(row)))).collect())
        });
        let items = links.chain(heads).map(move |item| match item {
            Ok(item) => Ok(v1::ExportAuditResponse { item: Some(item) }),
            Err(error) => Err(failed(error)),
        });
        Ok(Response::new(Box::pin(items)))
    }

    async fn get_audit_head(
        &self,
        request: Request<v1::GetAuditHeadRequest>,
    ) -> Result<Response<v1::GetAuditHeadResponse>, Status> {
        let ctx = context(&request)?;
        let last = self.db.audit_last().await.map_err(|error| status(&ctx, error))?;
        let head = last.map_or(Head { seq: 0, hash: NOTHING }, |row| Head {
            seq: row.seq,
            hash: Hash::try_from(row.hash.as_slice()).unwrap_or(NOTHING),
        });
        Ok(Response::new(v1::GetAuditHeadResponse {
            head: Some(audit::sign(&self.pki, head, clock::now())),
            public_key: self.pki.policy_public_key().to_vec(),
        }))
    }
}

impl Api {
    /// What somebody with a scope did itself, and what is about agents in it.
    fn may_see(&self, ctx: &OpCtx, entry: &AuditEntry) -> bool {
        entry.caller == ctx.who() || self.reaches(&ctx.scopes(), &entry.agent_id)
    }
}

fn link(row: AuditRow) -> AuditLink {
    AuditLink {
        seq: row.seq,
        relabelled: audit::is_relabelled(&row),
        entry: row.entry,
        hash: row.hash,
    }
}

/// Somebody has changed it; its number and what it is found by are all that is left.
fn unreadable(row: &AuditRow) -> AuditEntry {
    AuditEntry {
        seq: row.seq,
        caller: row.caller.clone(),
        method: row.method.clone(),
        resource: row.resource.clone(),
        reason: "THIS ENTRY CANNOT BE READ".to_owned(),
        ..AuditEntry::default()
    }
}

/// Page after page, each from behind the last number of the one before.
fn pages<F, R>(db: Db, start: i64, page: F) -> impl Stream<Item = Result<Item, store::Error>> + Send
where
    F: Fn(Db, i64) -> R + Send,
    R: Future<Output = Result<Vec<(i64, Item)>, store::Error>> + Send,
{
    let state = (db, Some(start), page);
    stream::unfold(state, async |(db, from, page)| {
        let found = page(db.clone(), from?).await;
        let (items, next) = match found {
            Ok(items) => {
                let next = items.last().map(|(seq, _)| seq + 1);
                (items.into_iter().map(|(_, item)| Ok(item)).collect(), next)
            }
            Err(error) => (vec![Err(error)], None),
        };
        Some((stream::iter(items), (db, next, page)))
    })
    .flatten()
}
