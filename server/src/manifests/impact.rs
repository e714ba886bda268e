//! What other policies mean for the fleet: which agents start a check, stop it, or run it otherwise. Pure: policies of before and
//! after, and the agents, are given. Agents of the same two sets are looked at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use muster_proto::{ids::AgentId, v1::PlannedEffect};

use crate::{
    agents::Entry,
    policies::{Compiled, Key, PolicySet},
};

/// The fact by which an agent says what it supports.
const FEATURES: &str = "fact.agent.features";

/// An agent that any policy of the plan touches.
#[derive(Clone, Debug)]
pub struct Touched {
    pub id: AgentId,
    pub name: String,
    /// Whether whoever asks sees it.
    pub is_visible: bool,
    /// As it has said; empty: it has not.
    features: Arc<str>,
}

#[derive(Debug)]
struct Group {
    effects: BTreeMap<Key, PlannedEffect>,
    /// Places in `Impact::agents`.
    agents: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Impact {
    /// By name, then id.
    pub agents: Vec<Touched>,
    /// Agents that the caller sees, touched or not.
    pub visible: usize,
    groups: Vec<Group>,
}

/// One agent of one policy.
#[derive(Debug)]
pub struct Effect<'a> {
    pub agent: &'a Touched,
    pub effect: PlannedEffect,
}

impl Impact {
    /// `keys`: those that differ. `each`: gives every agent, and whether the caller sees it.
    pub fn of(
        before: &Compiled,
        after: &Compiled,
        keys: &[Key],
        each: impl FnOnce(&mut dyn FnMut(&Entry, bool)),
    ) -> Self {
        type Sets = (Arc<PolicySet>, Arc<PolicySet>);
        let mut impact = Self::default();
        // By address; the sets are held, so that none takes the place of another.
        let mut known: HashMap<(usize, usize), (Option<usize>, Sets)> = HashMap::new();
        let mut texts: HashMap<String, Arc<str>> = HashMap::new();
        each(&mut |agent, is_visible| {
            impact.visible += usize::from(is_visible);
            let sets = (before.set_for(agent), after.set_for(agent));
            let place = (Arc::as_ptr(&sets.0).addr(), Arc::as_ptr(&sets.1).addr());
            let group = known.entry(place).or_insert_with(|| {
                let effects = effects(&sets, keys);
                let group = (!effects.is_empty()).then_some(impact.groups.len());
                if group.is_some() {
                    impact.groups.push(Group {
                        effects,
                        agents: Vec::new(),
                    });
                }
                (group, sets)
            });
            let Some(group) = group.0 else { return };
            impact.groups[group].agents.push(impact.agents.len() as u32);
            let features = agent.value(FEATURES).unwrap_or_default();
            let features = match texts.get(features) {
                Some(text) => text.clone(),
                None => {
                    let text: Arc<str> = features.into();
                    texts.insert(features.to_owned(), text.clone());
                    text
                }
            };
            impact.agents.push(Touched {
                id: agent.id,
                name: agent.name.clone(),
                is_visible,
                features,
            });
        });
        impact.sort();
        impact
    }

    fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.agents.len() as u32).collect();
        let agents = &self.agents;
        order.sort_unstable_by(|a, b| {
            let (a, b) = (&agents[*a as usize], &agents[*b as usize]);
            (&a.name, a.id).cmp(&(&b.name, b.id))
        });
        let mut rank = vec![0; order.len()];
        for (place, agent) in order.iter().enumerate() {
            rank[*agent as usize] = place as u32;
        }
        for group in &mut self.groups {
            group.agents.iter_mut().for_each(|agent| *agent = rank[*agent as usize]);
            group.agents.sort_unstable();
        }
        self.agents = order.iter().map(|agent| self.agents[*agent as usize].clone()).collect();
    }

    /// What a policy means, by the names of the agents.
    pub fn on(&self, key: &Key) -> Vec<Effect<'_>> {
        let mut found: Vec<(u32, PlannedEffect)> = Vec::new();
        for group in &self.groups {
            if let Some(effect) = group.effects.get(key) {
                found.extend(group.agents.iter().map(|agent| (*agent, *effect)));
            }
        }
        found.sort_unstable_by_key(|(agent, _)| *agent);
        let of = |(agent, effect): (u32, PlannedEffect)| Effect {
            agent: &self.agents[agent as usize],
            effect,
        };
        found.into_iter().map(of).collect()
    }

    /// All of it, as text that is the same for the same.
    pub fn fingerprint(&self) -> String {
        let mut lines: Vec<String> = self.groups.iter().map(|group| self.line(group)).collect();
        lines.sort_unstable();
        lines.concat()
    }

    fn line(&self, group: &Group) -> String {
        let mut line = String::new();
        for (key, effect) in &group.effects {
            line += &format!("{key} {} ", effect.as_str_name());
        }
        // By id: a name is nothing that a check depends on.
        let mut ids: Vec<AgentId> = group
            .agents
            .iter()
            .map(|agent| self.agents[*agent as usize].id)
            .collect();
        ids.sort_unstable();
        ids.iter().for_each(|id| line += &format!("{id} "));
        line + "\n"
    }
}

impl Touched {
    /// What it lacks of what a check needs; nothing when it has not said what it supports.
    pub fn missing(&self, needed: &[String]) -> Vec<String> {
        if self.features.is_empty() {
            return Vec::new();
        }
        let has = |feature: &&String| self.features.split(',').any(|known| known == *feature);
        needed.iter().filter(|feature| !has(feature)).cloned().collect()
    }
}

fn effects((before, after): &(Arc<PolicySet>, Arc<PolicySet>), keys: &[Key]) -> BTreeMap<Key, PlannedEffect> {
    let effect = |key: &Key| match (before.policies.get(key), after.policies.get(key)) {
        (None, None) => None,
        (None, Some(_)) => Some(PlannedEffect::Start),
        (Some(_), None) => Some(PlannedEffect::Stop),
        (Some(was), Some(is)) => (was.version != is.version).then_some(PlannedEffect::Update),
    };
    keys.iter()
        .filter_map(|key| Some((key.clone(), effect(key)?)))
        .collect()
}
