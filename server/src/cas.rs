//! The rotation of the CA: prepare, activate, retire, in this order and without a day on which all must change. What each
//! phase means for certificates is in `pki::authorities`; here is when the next one may come, and who still stands in the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use muster_certs::crl;
use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, EventSeverity},
};

use crate::{
    agents::{Agents, Entry},
    clock::{self, Micros, SECOND},
    events::{self, Event},
    link::{Close, Links},
    pki::{self, Authorities, Authority, Pki},
    store::{self, Db},
};

/// A revocation list is made anew after this time, when somebody asks.
const LIST_AGE: Micros = 5 * SECOND;
/// Agents that are named; how many there are is said of all.
const NAMED: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the CA's rotation is not at the point for this: {0}")]
    Phase(&'static str),
    #[error("{} agents still need the old CA", .0.count)]
    InUse(Waiting),
    #[error("failed to make or use the keys")]
    Pki(#[from] pki::Error),
    #[error("failed to make a revocation list")]
    List(#[from] crl::Error),
    #[error("failed to read the database")]
    Store(#[from] store::Error),
}

/// Agents that something waits for.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    pub count: usize,
    /// The first of them, and why.
    pub named: Vec<(AgentId, String, Micros, &'static str)>,
}

/// How the rotation stands.
#[derive(Clone, Debug)]
pub struct Status {
    pub authorities: Arc<Authorities>,
    /// By id: agents whose certificate is from it, of these the ones that only have the grace left, and tokens that were given
    /// out with its pin.
    pub uses: BTreeMap<String, Uses>,
    pub acknowledged: usize,
    pub total: usize,
    /// Those that have not acknowledged the trust bundle.
    pub waiting: Waiting,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    pub agents: usize,
    pub in_grace: usize,
    pub tokens: usize,
}

/// A revocation list in DER, and when it was made.
type List = (Micros, Arc<Vec<u8>>);

#[derive(Debug)]
pub struct Cas {
    pub db: Db,
    pub pki: Arc<Pki>,
    pub agents: Arc<Agents>,
    pub links: Arc<Links>,
    /// How long after its end an agent's certificate still renews.
    pub grace: Micros,
    /// Held over a change of phase.
    changing: tokio::sync::Mutex<()>,
    /// Revocation lists by CA, with the time of each: anybody may ask for them, as often as they like.
    lists: tokio::sync::Mutex<BTreeMap<String, List>>,
}

impl Cas {
    pub fn new(db: Db, pki: Arc<Pki>, agents: Arc<Agents>, links: Arc<Links>, grace: Micros) -> Self {
        Self {
            db,
            pki,
            agents,
            links,
            grace,
            changing: tokio::sync::Mutex::default(),
            lists: tokio::sync::Mutex::default(),
        }
    }

    pub async fn status(&self, now: Micros) -> Result<Status, Error> {
        let authorities = self.pki.authorities();
        let mut uses: BTreeMap<String, Uses> = BTreeMap::new();
        for row in self.db.token_list(false, now).await? {
            for ca in row.cas.split(' ') {
                uses.entry(ca.to_owned()).or_default().tokens += 1;
            }
        }
        let (mut acknowledged, mut total) = (0, 0);
        self.agents.each(|entry| {
            if !self.counts(entry, now) {
                return;
            }
            let of_ca = uses.entry(entry.certificate.ca.clone()).or_default();
            of_ca.agents += 1;
            of_ca.in_grace += usize::from(entry.certificate.not_after <= now);
            total += 1;
            acknowledged += usize::from(entry.bundle_version >= authorities.bundle_version);
        });
        let version = authorities.bundle_version;
        let waiting = self.waiting(now, |entry| {
            (entry.bundle_version < version).then_some("has not acknowledged the trust bundle")
        });
        Ok(Status {
            authorities,
            uses,
            acknowledged,
            total,
            waiting,
        })
    }

    /// The revocation list of a CA, or of the one that issues, in DER. None: there is no such CA, or it may not sign one.
    pub async fn revocation_list(&self, ca: Option<&str>, now: Micros) -> Result<Option<Arc<Vec<u8>>>, Error> {
        let authorities = self.pki.authorities();
        let wanted = ca.map_or_else(|| authorities.active().id(), str::to_owned);
        let Some(authority) = authorities.all().iter().find(|it| it.entry.id == wanted) else {
            return Ok(None);
        };
        if !authority.issuing.signs_lists() {
            return Ok(None);
        }
        let mut lists = self.lists.lock().await;
        if let Some((made, list)) = lists.get(&wanted)
            && (0..LIST_AGE).contains(&(now - made))
        {
            return Ok(Some(list.clone()));
        }
        let revoked = self.db.certificate_list_revoked(&wanted, now).await?;
        let revoked: Vec<_> = revoked
            .into_iter()
            .map(|(serial, at)| (serial, clock::to_system(at)))
            .collect();
        let list = crl::create(&authority.issuing, &revoked, now.unsigned_abs(), clock::to_system(now))?;
        let list = Arc::new(list);
        lists.insert(wanted, (now, list.clone()));
        Ok(Some(list))
    }

    /// Makes the next CA; all agents are told to trust it as well.
    pub async fn prepare(&self, by: &str, now: SystemTime) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let _alone = self.pki.alone()?;
        let authorities = self.pki.authorities();
        if authorities.prepared().is_some() {
            return Err(Error::Phase("the next CA is prepared already"));
        }
        if authorities.old().is_some() {
            return Err(Error::Phase("the CA before is not retired yet"));
        }
        let next = authorities.with_prepared(self.pki.dir(), now)?;
        let id = next.prepared().map(Authority::id).unwrap_or_default();
        self.pki.set_authorities(next)?;
        self.tell("CA_PREPARED", format!("{by} has prepared the CA {id}"), &id, by)
            .await;
        Ok(())
    }

    /// The prepared CA issues from now on.
    pub async fn activate(&self, force: bool, by: &str, now: Micros) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let _alone = self.pki.alone()?;
        let authorities = self.pki.authorities();
        let next = authorities
            .with_activated(now)
            .ok_or(Error::Phase("no CA is prepared"))?;
        let version = authorities.bundle_version;
        let waiting = self.waiting(now, |entry| {
            (entry.connection.is_some() && entry.bundle_version < version)
                .then_some("is connected and has not acknowledged the trust bundle")
        });
        if waiting.count > 0 && !force {
            return Err(Error::InUse(waiting));
        }
        let id = next.active().id();
        self.pki.set_authorities(next)?;
        self.tell("CA_ACTIVATED", format!("{by} has activated the CA {id}"), &id, by)
            .await;
        Ok(())
    }

    /// Nobody trusts the old CA from now on. Those that are left behind do not stand in the way; neither does anybody when it
    /// is compromised.
    pub async fn retire(
        &self,
        compromised: bool,
        left_behind: &BTreeSet<AgentId>,
        by: &str,
        now: Micros,
    ) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let _alone = self.pki.alone()?;
        let authorities = self.pki.authorities();
        let old = authorities
            .old()
            .ok_or(Error::Phase("no old CA is there to retire"))?
            .id();
        let active = &authorities.active().entry;
        let waiting = self.waiting(now, |entry| {
            needs_old(entry, &old, &active.id, active.bundle_version).filter(|_| !left_behind.contains(&entry.id))
        });
        if waiting.count > 0 && !compromised {
            return Err(Error::InUse(waiting));
        }
        // Who knows the old root alone, a token or an operator's file, can tell the controller by it until the last of them ends.
        let shown_until = self.db.ca_last_needed(&old).await?;
        let next = authorities
            .with_retired(compromised, shown_until, now)
            .ok_or(Error::Phase("no old CA is there to retire"))?;
        self.pki.set_authorities(next)?;
        // Nobody else has a certificate of it, unless it is compromised.
        let mut cut = Vec::new();
        self.agents.each(|entry| {
            if entry.certificate.ca == old {
                cut.push(entry.id);
            }
        });
        cut.into_iter().for_each(|id| self.links.cut(id, Close::Revoked));
        let how = match left_behind.len() {
            _ if compromised => ", whose key is in other hands".to_owned(),
            0 => String::new(),
            count => format!(", leaving {count} of its agents behind"),
        };
        self.tell("CA_RETIRED", format!("{by} has retired the CA {old}{how}"), &old, by)
            .await;
        Ok(())
    }

    /// Whether an agent's trust matters: it can connect, or renew.
    fn counts(&self, entry: &Entry, now: Micros) -> bool {
        entry.is_trusted() && now <= entry.certificate.not_after.saturating_add(self.grace)
    }

    fn waiting(&self, now: Micros, why: impl Fn(&Entry) -> Option<&'static str>) -> Waiting {
        let mut waiting = Waiting::default();
        self.agents.each(|entry| {
            if entry.status == AgentStatus::Expected || !self.counts(entry, now) {
                return;
            }
            if let Some(why) = why(entry) {
                waiting.count += 1;
                if waiting.named.len() < NAMED {
                    waiting.named.push((entry.id, entry.name.clone(), entry.last_seen, why));
                }
            }
        });
        waiting
    }

    async fn tell(&self, reason: &str, text: String, ca: &str, by: &str) {
        tracing::info!(ca, user = by, "{text}");
        let event = Event::new(reason, None, text, clock::now())
            .severity(EventSeverity::Warning)
            .with("ca", ca)
            .with("by", by);
        events::record(&self.db, vec![event]).await;
    }
}

/// What an agent needs the old CA for, if anything. `since` is the trust bundle that the active one came with.
fn needs_old(entry: &Entry, old: &str, active: &str, since: i64) -> Option<&'static str> {
    let certificate = &entry.certificate;
    // An agent of a release that knows nothing of bundles cannot say what it trusts; the answer that brought it a certificate
    // of the active CA has brought it the root as well.
    let got_with_certificate = entry.bundle_version == 0 && certificate.is_used && certificate.ca == active;
    if certificate.ca == old {
        Some("its certificate is from the old CA")
    } else if entry.bundle_version < since && !got_with_certificate {
        Some("it does not trust the new CA yet")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents::Certificate, store::NewAgent};

    fn entry(ca: &str, is_used: bool, bundle_version: i64) -> Entry {
        let mut entry = Entry::from(&NewAgent {
            id: AgentId::random(),
            name: "db-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: 1,
            revision: 1,
        });
        entry.bundle_version = bundle_version;
        entry.certificate = Certificate {
            ca: ca.into(),
            is_used,
            ..Certificate::default()
        };
        entry
    }

    #[test]
    fn the_old_ca_is_needed_for_its_certificates_and_by_who_does_not_trust_the_new_one() {
        let cases = [
            ("renewed, and says that it trusts it", entry("new", true, 7), false),
            ("has not renewed", entry("old", true, 7), true),
            ("says that it holds an older bundle", entry("new", true, 6), true),
            (
                "says nothing, and has used what came with the root",
                entry("new", true, 0),
                false,
            ),
            (
                "says nothing, and may never have got the answer",
                entry("new", false, 0),
                true,
            ),
            ("says nothing, and has not renewed", entry("old", true, 0), true),
        ];
        for (what, entry, needs) in cases {
            assert_eq!(needs_old(&entry, "old", "new", 7).is_some(), needs, "{what}");
        }
    }
}
