//! The machines behind each agent, in the inventory: what a decision about a newcomer leaves behind, and the events and
//! warnings that people read of it. The decision itself is in `clones`.

use muster_proto::{ids::AgentId, v1::EventSeverity};
use tracing::warn;

use super::{Agents, Entry, OnClone, Parts};
use crate::{
    clock::Micros,
    clones::{self, Decision, Live, Party, Refusal, Suspicion},
    events::Event,
    store::EventRow,
};

impl Agents {
    /// What a newcomer gets. None: the agent is not on file.
    pub fn judge(
        &self,
        id: AgentId,
        live: Option<Live<'_>>,
        newcomer: &Party,
        absence: Micros,
        now: Micros,
    ) -> Option<Decision> {
        let is_gone = self.is_gone(id, absence, now);
        self.with(id, |entry| entry.machines.decide(live, is_gone, newcomer, now))
    }

    /// Whether nothing was heard of an agent for that long, as far as this controller can tell.
    pub fn is_gone(&self, id: AgentId, absence: Micros, now: Micros) -> bool {
        let heard_at = self
            .with(id, |entry| entry.last_seen)
            .unwrap_or(0)
            .max(self.started_at());
        now.saturating_sub(heard_at) >= absence
    }

    /// A newcomer was let in.
    pub fn machine_admitted(
        &self,
        id: AgentId,
        decision: Decision,
        live: Option<&Party>,
        newcomer: &Party,
        now: Micros,
    ) {
        let mut notice = None;
        self.update(id, |entry| {
            let before = entry.machines.clone();
            let suspicion = entry.machines.decided(decision, live, newcomer, now);
            notice = suspicion
                .filter(|_| entry.conflict.suspected(now))
                .map(|suspicion| suspected(id, &entry.name, suspicion, newcomer, live, now));
            Parts::MACHINES.when(entry.machines != before)
        });
        self.notices(notice);
    }

    /// A newcomer is refused, since the agent is connected from another machine. None: the agent is not on file.
    pub fn clone_refused(
        &self,
        id: AgentId,
        live: Option<&Party>,
        newcomer: &Party,
        configured: OnClone,
        now: Micros,
    ) -> Option<Refusal> {
        let mut notices = Vec::new();
        let mut refusal = None;
        self.update(id, |entry| {
            let before = entry.machines.clone();
            let suspicion = entry.machines.decided(Decision::Refuse, live, newcomer, now);
            if let Some(suspicion) = suspicion
                && entry.conflict.suspected(now)
            {
                notices.push(suspected(id, &entry.name, suspicion, newcomer, live, now));
            }
            let made = Refusal {
                agent: id.to_string(),
                name: entry.name.clone(),
                on_clone: clones::on_clone(entry.fork_until, entry.on_clone, configured, now),
                live: live.cloned().unwrap_or_default(),
                newcomer: newcomer.clone(),
            };
            let due = entry.conflict.refused(newcomer, now);
            if let Some(count) = due {
                warn!(agent.id = %id, agent.name = entry.name, count, "{}", made.message());
                notices.push(refused(id, &made, count, now));
            }
            refusal = Some(made);
            // The warning that operators see follows the events: watchers need not hear of every attempt.
            Parts::SHOWN.when(due.is_some()) | Parts::MACHINES.when(entry.machines != before)
        });
        self.notices(notices);
        refusal
    }

    /// False when too many copies of this agent became agents of late.
    pub fn count_fork(&self, id: AgentId, limit: u32, now: Micros) -> bool {
        let mut entries = self.write();
        entries
            .get_mut(&id)
            .is_some_and(|entry| entry.conflict.count_fork(limit, now))
    }

    /// A window for copies is on file. None: the agent is not, any longer.
    pub fn fork_opened(&self, id: AgentId, until: Micros, revision: i64) -> Option<Entry> {
        let mut entries = self.write();
        let entry = entries.get_mut(&id)?;
        entry.fork_until = until;
        entry.revision = revision;
        Some(entry.clone())
    }

    pub(super) fn notices(&self, notices: impl IntoIterator<Item = EventRow>) {
        self.lock_notices().extend(notices);
        self.persist.notify_one();
    }
}

fn refused(id: AgentId, refusal: &Refusal, count: u64, now: Micros) -> EventRow {
    let Refusal { live, newcomer, .. } = refusal;
    Event::new("AGENT_CLONE_REFUSED", Some(id), refusal.message(), now)
        .severity(EventSeverity::Warning)
        .with("count", count)
        .with("on_clone", refusal.on_clone.as_str())
        .with("remote", &live.remote)
        .with("machine_id", &live.machine)
        .with("boot_id", &live.boot)
        .with("host_name", &live.host)
        .with("refused_remote", &newcomer.remote)
        .with("refused_machine_id", &newcomer.machine)
        .with("refused_boot_id", &newcomer.boot)
        .with("refused_host_name", &newcomer.host)
        .into_row()
}

fn suspected(
    id: AgentId,
    name: &str,
    suspicion: Suspicion,
    newcomer: &Party,
    live: Option<&Party>,
    now: Micros,
) -> EventRow {
    let why = match suspicion {
        Suspicion::CameBack => "a machine came back that another had taken over from",
        Suspicion::Displacements => "machines took over from each other three times within ten minutes",
    };
    let other = live.map_or_else(String::new, |live| format!("; the other one: {}", live.describe()));
    let message = format!(
        "two machines seem to share the identity of {name}: {why}: {}{other}",
        newcomer.describe()
    );
    Event::new("AGENT_CLONE_SUSPECTED", Some(id), message, now)
        .severity(EventSeverity::Warning)
        .with("remote", &newcomer.remote)
        .with("machine_id", &newcomer.machine)
        .with("boot_id", &newcomer.boot)
        .into_row()
}
