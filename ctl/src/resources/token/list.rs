//! `musterctl token list`, `get` and `revoke`: tokens without their secrets, which nobody has but their bearers.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::{super::labels, GetArgs, ListArgs};
use crate::{
    age,
    app::Session,
    output::{
        Row,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    paging,
    problem::{Problem, status::Asked},
};

pub(super) async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list tokens");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListTokensRequest {
            page_size,
            page_token,
            show_ended: args.all,
        };
        client.call(
            &asked,
            async |request| client.tokens().list_tokens(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

pub(super) async fn get(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = asked(&args.id, "get");
    let client = session.connect(&asked).await?;
    let call = async |request| client.tokens().get_token(request).await;
    let response = client.call(&asked, call, v1::GetTokenRequest { id: args.id }).await?;
    let token = response.token.unwrap_or_default();
    session.printer.item(&token, |page, now| describe(&token, page, now))?;
    Ok(())
}

pub(super) async fn revoke(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = asked(&args.id, "revoke");
    let client = session.connect(&asked).await?;
    let call = async |request| client.tokens().revoke_token(request).await;
    let response = client
        .call(
            &asked,
            call,
            v1::RevokeTokenRequest {
                id: args.id,
                revision: 0,
            },
        )
        .await?;
    let token = response.token.unwrap_or_default();
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(&token))?;
    } else {
        session.printer.item(&token, |_, _| ())?;
    }
    Ok(())
}

fn asked(id: &str, verb: &str) -> Asked {
    Asked::new(format!("{verb} token {id}")).listed_by("musterctl token list --all")
}

fn describe(token: &v1::Token, page: &mut Page, now: Timestamp) {
    let (word, _) = status(token);
    page.field("Token", &token.id);
    page.field("Status", word);
    page.field("Reason", &token.revoke_reason);
    page.field("Made by", &token.creator);
    page.field("Description", &token.description);
    page.field("Made", age::dated(now, token.create_time.as_ref()).unwrap_or_default());
    page.field("Ends", age::moment(token.expire_time.as_ref()).unwrap_or_default());
    page.field("Uses left", format!("{} of {}", token.uses_left, token.uses));
    page.field("Labels", labels(&token.labels));
    page.field("Scope", &token.scope);
    page.field("Agent", &token.agent_id);
    page.field("Source", &token.source);
    if token.allow_reenroll {
        page.field("Re-enroll", "allowed");
    }
    if let Some(ephemeral) = &token.ephemeral {
        page.field("Ephemeral", age::span_of(ephemeral));
    }
    for used in &token.redemptions {
        let name = if used.agent_name.is_empty() {
            "an agent that is gone"
        } else {
            &used.agent_name
        };
        let when = age::dated(now, used.time.as_ref()).unwrap_or_default();
        page.field(
            "Used",
            format!("{when} by {name} ({}) from {}", used.agent_id, used.source),
        );
    }
}

fn status(token: &v1::Token) -> (&'static str, Tone) {
    match token.status() {
        v1::TokenStatus::Unspecified => ("unknown", Tone::Doubtful),
        v1::TokenStatus::Active => ("active", Tone::Good),
        v1::TokenStatus::UsedUp => ("used up", Tone::Faint),
        v1::TokenStatus::Expired => ("expired", Tone::Faint),
        v1::TokenStatus::Revoked => ("revoked", Tone::Bad),
    }
}

impl Row for v1::Token {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("STATUS"),
        Column::new("USES LEFT"),
        Column::new("AGE"),
        Column::new("ENDS"),
        Column::new("LAST USED"),
        Column::new("BY"),
        Column::cut("LABELS"),
        Column::sparse("SCOPE"),
        Column::wide("AGENT"),
        Column::wide("SOURCE"),
        Column::wide("MADE BY"),
        Column::wide("DESCRIPTION"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = status(self);
        let used = self.redemptions.first();
        let ends = match age::until(now, self.expire_time.as_ref()) {
            Some(left) => format!("in {left}"),
            None => "ended".to_owned(),
        };
        vec![
            Cell::new(&self.id),
            Cell::toned(word, tone),
            Cell::new(format!("{}/{}", self.uses_left, self.uses)),
            age::since(now, self.create_time.as_ref()).into(),
            Cell::new(ends),
            used.and_then(|used| age::since(now, used.time.as_ref())).into(),
            used.map(|used| used.agent_name.clone()).into(),
            Cell::new(labels(&self.labels)),
            Cell::new(&self.scope),
            Cell::new(&self.agent_id),
            Cell::new(&self.source),
            Cell::new(&self.creator),
            Cell::new(&self.description),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}
