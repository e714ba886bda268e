//! Two machines that show the identity of one agent: which of them is it? Pure: what is known of the agent's machines, the
//! session that is live and a newcomer go in, a decision comes out. Knows no links, no clock and no store; that a live
//! session answers is found out elsewhere and told here.

#[cfg(test)]
mod tests;

use muster_proto::v1;
use serde::{Deserialize, Serialize};

use crate::{
    agents::OnClone,
    clock::{MINUTE, Micros},
};

/// This many displacements within `WINDOW` are no accident.
const MANY: usize = 3;
/// How long displacements and suspicions count.
pub const WINDOW: Micros = 10 * MINUTE;
/// How long a refusal stands as a conflict: more than the longest wait of a refused agent.
const CONFLICT: Micros = 10 * MINUTE;
/// One event for each agent and this time.
const QUIET: Micros = MINUTE;
/// Boots and displaced ones that are remembered of an agent.
const BOOTS: usize = 8;
/// Longest id or name that is kept of a fingerprint.
const MAX_TEXT: usize = 64;

/// A process on a machine that shows an agent's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    pub machine: String,
    pub product: String,
    pub boot: String,
    /// New at each start of the agent.
    pub process: String,
    /// What the machine calls itself.
    pub host: String,
    /// Of the certificate that was shown.
    pub serial: String,
    pub remote: String,
    /// It says that it was refused before.
    pub was_refused: bool,
}

/// The session that is live, and what a probe of it has said.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    pub party: &'a Party,
    pub probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Not made yet.
    Open,
    Answered,
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody is in the way, or it is the same process that comes again.
    Admit,
    /// The live session is dead without knowing it: the newcomer takes its place.
    Displace,
    /// Ask the live session first.
    Probe,
    Refuse,
}

/// What makes an agent look like two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// A machine or a process came back that another had taken over from.
    CameBack,
    Displacements,
}

/// What is known of the machines of one agent; persisted as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machines {
    /// That of the last session.
    pub machine: String,
    /// Boots it was seen in, the last one at the end.
    pub boots: Vec<String>,
    /// Those that others took over from, the last one at the end.
    displaced: Vec<Displaced>,
    /// When one of them came back; 0: never.
    came_back_at: Micros,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Displaced {
    machine: String,
    boot: String,
    process: String,
    at: Micros,
}

impl Party {
    /// From what an agent says of itself. Only printable characters are kept, and few of them.
    pub fn new(fingerprint: Option<v1::Fingerprint>, serial: &str, remote: &str) -> Self {
        let fingerprint = fingerprint.unwrap_or_default();
        Self {
            machine: printable(&fingerprint.machine_id),
            product: printable(&fingerprint.product_uuid),
            boot: printable(&fingerprint.boot_id),
            process: printable(&fingerprint.process_nonce),
            host: printable(&fingerprint.host_name),
            serial: serial.to_owned(),
            remote: remote.to_owned(),
            was_refused: fingerprint.was_refused,
        }
    }

    /// As people tell machines apart.
    pub fn describe(&self) -> String {
        let or = |text: &str, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text.to_owned()
            }
        };
        format!(
            "{} at {} (machine id {}, boot id {})",
            or(&self.host, "a machine without a name"),
            self.remote,
            or(&self.machine, "unknown"),
            or(&self.boot, "unknown"),
        )
    }

    pub fn is_same_process(&self, other: &Self) -> bool {
        !self.process.is_empty() && self.process == other.process
    }

    fn is_same_boot(&self, other: &Self) -> bool {
        self.machine == other.machine && self.boot == other.boot
    }
}

impl Machines {
    /// What a newcomer gets; `decided` takes it down. `is_gone`: nothing was heard of the agent for a while.
    pub fn decide(&self, live: Option<Live<'_>>, is_gone: bool, newcomer: &Party, now: Micros) -> Decision {
        let Some(live) = live else {
            // The agent may be about to connect again, and copies ask all the time.
            if newcomer.was_refused && !is_gone {
                return Decision::Refuse;
            }
            // Even when there may be two: one of them has to be let in, and this one is here.
            return Decision::Admit;
        };
        let is_same_process = live.party.is_same_process(newcomer);
        if is_same_process && live.party.serial != newcomer.serial {
            // It connects again with its renewed certificate.
            return Decision::Admit;
        }
        match live.probe {
            Probe::Open => Decision::Probe,
            Probe::Answered => Decision::Refuse,
            Probe::Silent if is_same_process => Decision::Admit,
            // Its turn comes when the silent session has timed out.
            Probe::Silent if self.is_suspected(now) || self.comes_back(Some(live.party), newcomer) => Decision::Refuse,
            Probe::Silent => Decision::Displace,
        }
    }

    /// Takes down what a decision means; tells when the agent looks like two.
    pub fn decided(
        &mut self,
        decision: Decision,
        live: Option<&Party>,
        newcomer: &Party,
        now: Micros,
    ) -> Option<Suspicion> {
        let mut suspicion = None;
        if decision != Decision::Probe && self.comes_back(live, newcomer) {
            self.came_back_at = now;
            suspicion = Some(Suspicion::CameBack);
        }
        if let (Decision::Displace, Some(live)) = (decision, live) {
            self.displaced.push(Displaced {
                machine: live.machine.clone(),
                boot: live.boot.clone(),
                process: live.process.clone(),
                at: now,
            });
            let surplus = self.displaced.len().saturating_sub(BOOTS);
            self.displaced.drain(..surplus);
            if self.displacements(now) >= MANY {
                suspicion = Some(Suspicion::Displacements);
            }
        }
        if matches!(decision, Decision::Admit | Decision::Displace) {
            // Who is let in is the agent from now on.
            for displaced in &mut self.displaced {
                if displaced.process == newcomer.process {
                    displaced.process.clear();
                }
                if displaced.is_boot_of(newcomer) {
                    displaced.boot.clear();
                }
            }
            newcomer.machine.clone_into(&mut self.machine);
            self.boots.retain(|boot| *boot != newcomer.boot);
            self.boots.push(newcomer.boot.clone());
            let surplus = self.boots.len().saturating_sub(BOOTS);
            self.boots.drain(..surplus);
        }
        suspicion
    }

    /// Whether two machines have been in each other's place of late.
    pub fn is_suspected(&self, now: Micros) -> bool {
        self.displacements(now) >= MANY || (self.came_back_at != 0 && is_within(self.came_back_at, WINDOW, now))
    }

    fn displacements(&self, now: Micros) -> usize {
        self.displaced
            .iter()
            .filter(|displaced| is_within(displaced.at, WINDOW, now))
            .count()
    }

    /// Whether somebody had taken over from the newcomer. A process ends before its successor starts, so one that is back
    /// ran all the time. A boot comes back only when its machine went on.
    fn comes_back(&self, live: Option<&Party>, newcomer: &Party) -> bool {
        if live.is_some_and(|live| live.is_same_process(newcomer)) {
            return false;
        }
        let is_other_boot = live.is_none_or(|live| !live.is_same_boot(newcomer));
        self.displaced.iter().any(|displaced| {
            let is_process = !newcomer.process.is_empty() && displaced.process == newcomer.process;
            is_process || (is_other_boot && self.last_boot() != newcomer.boot && displaced.is_boot_of(newcomer))
        })
    }

    fn last_boot(&self) -> &str {
        self.boots.last().map_or("", String::as_str)
    }

    /// As it stands in the database.
    pub fn to_json(&self) -> String {
        // Strings and numbers alone, which always have a form.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Displaced {
    fn is_boot_of(&self, party: &Party) -> bool {
        !self.boot.is_empty() && self.machine == party.machine && self.boot == party.boot
    }
}

/// The refusals of one agent's copies, in memory alone: a copy that is still there is refused again.
#[derive(Clone, Debug, Default)]
pub struct Conflict {
    /// 0: never.
    first_at: Micros,
    last_at: Micros,
    /// Since `first_at`.
    refused: u64,
    /// Refusals that no event has told yet.
    untold: u64,
    told_at: Micros,
    /// The machine that was refused last.
    newcomer: Party,
    suspected_at: Micros,
    forks_since: Micros,
    forks: u32,
}

impl Conflict {
    /// Counts a refusal. Some: it is time for an event, which speaks of this many.
    pub fn refused(&mut self, newcomer: &Party, now: Micros) -> Option<u64> {
        if !self.is_open(now) {
            self.first_at = now;
            self.refused = 0;
        }
        self.last_at = now;
        self.refused += 1;
        self.untold += 1;
        newcomer.clone_into(&mut self.newcomer);
        if self.told_at != 0 && is_within(self.told_at, QUIET, now) {
            return None;
        }
        self.told_at = now;
        Some(std::mem::take(&mut self.untold))
    }

    /// Whether it is time for an event.
    pub fn suspected(&mut self, now: Micros) -> bool {
        if self.suspected_at != 0 && is_within(self.suspected_at, QUIET, now) {
            return false;
        }
        self.suspected_at = now;
        true
    }

    /// Whether a copy was refused a short while ago.
    pub fn is_open(&self, now: Micros) -> bool {
        self.last_at != 0 && is_within(self.last_at, CONFLICT, now)
    }

    /// False when this agent's copies have forked too often within the hour.
    pub fn count_fork(&mut self, limit: u32, now: Micros) -> bool {
        if !is_within(self.forks_since, 60 * MINUTE, now) {
            self.forks_since = now;
            self.forks = 0;
        }
        if self.forks >= limit {
            return false;
        }
        self.forks += 1;
        true
    }

    /// For operators, while it lasts.
    pub fn warning(&self, machines: &Machines, now: Micros) -> Option<String> {
        if self.is_open(now) {
            let times = if self.refused == 1 { "time" } else { "times" };
            return Some(format!(
                "another machine shows the identity of this agent and was refused {} {times}, the last time {}; \
                 `muster-agent seal` on the copy, or `musterctl agent fork` here, makes it an agent of its own",
                self.refused,
                self.newcomer.describe(),
            ));
        }
        machines.is_suspected(now).then(|| {
            "two machines seem to share the identity of this agent: one takes the place of the other again and again"
                .to_owned()
        })
    }
}

/// Why a newcomer was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub agent: String,
    pub name: String,
    pub on_clone: OnClone,
    /// The machine that is connected.
    pub live: Party,
    pub newcomer: Party,
}

impl Refusal {
    pub fn message(&self) -> String {
        if self.live.remote.is_empty() {
            return format!(
                "agent {} ({}) was connected from another machine a moment ago; refused: {}",
                self.name,
                self.agent,
                self.newcomer.describe(),
            );
        }
        format!(
            "agent {} ({}) is connected from another machine: {}; refused: {}",
            self.name,
            self.agent,
            self.live.describe(),
            self.newcomer.describe(),
        )
    }
}

/// What happens to a copy: an operator's window before the token's word before the configuration.
pub fn on_clone(fork_until: Micros, of_token: Option<OnClone>, configured: OnClone, now: Micros) -> OnClone {
    if fork_until > now {
        return OnClone::Fork;
    }
    of_token.unwrap_or(configured)
}

/// Whether `at` is not longer ago than `period`; also when the clock was set back a little.
fn is_within(at: Micros, period: Micros, now: Micros) -> bool {
    now.saturating_sub(at).saturating_abs() < period
}

fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(MAX_TEXT).collect()
}
