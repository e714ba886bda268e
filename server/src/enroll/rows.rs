//! The rows that a batch of enrollments adds, each kind in one statement. Whose they are was decided before.

use super::{
    commit::{Job, Stored},
    matching::Match,
};
use crate::{
    clock::Micros,
    events::Event,
    store::{self, NewAgent, NewCertificate, NewRedemption, Tx},
};

pub(super) async fn insert(tx: &mut Tx, stored: &[Stored], now: Micros) -> Result<(), store::Error> {
    let agents: Vec<_> = stored
        .iter()
        .filter(|it| !it.is_on_file)
        .map(|it| agent(&it.job, &it.agent_labels, it.entry.revision, now))
        .collect();
    tx.agent_insert_all(&agents).await?;
    for it in stored.iter().filter(|it| !it.is_on_file) {
        let token = &it.job.token;
        if token.ephemeral > 0 || !token.on_clone.is_empty() {
            let id = it.job.id.to_string();
            tx.agent_set_terms(&id, token.ephemeral, &token.on_clone).await?;
        }
    }

    let with_ids: Vec<_> = stored.iter().map(|it| (it.job.id.to_string(), it)).collect();
    let certificates: Vec<_> = with_ids
        .iter()
        .map(|(id, Stored { job, entry, .. })| NewCertificate {
            agent_id: id,
            serial: &job.issued.serial,
            not_after: entry.certificate.not_after,
            public_key: &job.public_key,
            ca: &job.issued.ca,
            predecessor: "",
            certificate: &job.issued.der,
            now,
        })
        .collect();
    tx.agent_certificate_insert_all(&certificates).await?;

    let sources: Vec<_> = stored.iter().map(|it| it.job.request.source.to_string()).collect();
    let redemptions: Vec<_> = with_ids
        .iter()
        .zip(&sources)
        .map(|((id, Stored { job, .. }), source)| NewRedemption {
            token_id: &job.token.id,
            public_key: &job.public_key,
            agent_id: id,
            certificate: &job.issued.der,
            source,
            now,
        })
        .collect();
    tx.redemption_put_all(&redemptions).await?;

    let events: Vec<_> = stored.iter().map(|it| event(it, now).into_row()).collect();
    tx.event_insert_all(&events).await
}

/// What is put on file of an agent that has just enrolled.
pub(super) fn agent<'a>(job: &'a Job, agent_labels: &'a str, revision: i64, now: Micros) -> NewAgent<'a> {
    NewAgent {
        id: job.id,
        name: &job.request.name,
        agent_labels,
        token_labels: &job.token.labels,
        version: &job.request.version,
        now,
        revision,
    }
}

fn event(Stored { job, found, entry, .. }: &Stored, now: Micros) -> Event {
    let (reason, what) = match found {
        Match::New | Match::Expected => ("AGENT_ENROLLED", "enrolled"),
        Match::Again => ("AGENT_REENROLLED", "enrolled again"),
    };
    let text = format!("{} {what} with token {}", entry.name, job.token.id);
    Event::new(reason, Some(entry.id), text, now)
        .with("token", &job.token.id)
        .with("source", job.request.source)
        .with("serial", &job.issued.serial)
}
