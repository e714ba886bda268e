//! `musterctl agent label`: labels of operators, of one agent or of many.

use std::collections::BTreeMap;

use clap::Args;
use muster_proto::{label, v1};

use super::{
    changed, naming_all,
    targets::{ChosenArgs, Target, Targets},
};
use crate::{app::Session, exit::Exit, problem::Problem};

#[derive(Debug, Args)]
pub struct LabelArgs {
    /// Names or UUIDs of agents, then KEY=VALUE to set a label, KEY- to remove it
    #[arg(value_name = "AGENT|LABEL", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    chosen: ChosenArgs,
    /// Only if this is still the revision of the agent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), conflicts_with_all = ["selector", "nodes_from", "all"])]
    revision: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LabelChange {
    Set(String, String),
    Remove(String),
}

/// What is to be done, before anybody is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub agents: Vec<String>,
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

pub async fn run(args: LabelArgs, session: &mut Session) -> Result<(), Problem> {
    let wanted = wanted(&args.words, !args.chosen.is_given()).map_err(|why| {
        Problem::new(Exit::Usage, "the labels cannot be read")
            .what("label agents")
            .why(why)
            .step("write the agents first, and then labels: musterctl agent label db-01 role=db zone-")
    })?;
    let asked = naming_all(&wanted.agents, "label");
    if args.revision.is_some() && wanted.agents.len() > 1 {
        return Err(Problem::new(Exit::Usage, "--revision is that of one agent")
            .what(asked.what())
            .why("several agents are named")
            .step("leave --revision out, or name one agent"));
    }
    let client = session.connect(&asked).await?;
    let targets = Targets::of(&wanted.agents, &args.chosen, &client, &asked, session).await?;
    let change = async |target: &Target| {
        let request = v1::UpdateAgentLabelsRequest {
            agent: target.agent.clone(),
            set: wanted.set.clone(),
            remove: wanted.remove.clone(),
            revision: args.revision.unwrap_or(0),
        };
        let call = async |request| client.agents().update_agent_labels(request).await;
        Ok(client.call(&asked, call, request).await?.agent.unwrap_or_default())
    };
    let (agents, failed) = targets.each(&asked, change).await;
    let note = |agent: &v1::Agent| {
        let name = &agent.name;
        format!("labels of {name} are as shown; its policies follow within a second")
    };
    changed(&agents, targets.is_one, failed, note, session)
}

/// `is_named`: agents are named, so that the first word is one of them, whatever it looks like.
pub(super) fn wanted(words: &[String], is_named: bool) -> Result<Wanted, String> {
    let is_label = |word: &String| word.contains('=') || word.ends_with('-');
    let first_label = words.iter().skip(usize::from(is_named)).position(is_label);
    let number = first_label.map_or(words.len(), |at| at + usize::from(is_named));
    let (agents, labels) = words.split_at(number);
    if labels.is_empty() {
        return Err("there is no label: write KEY=VALUE to set one, KEY- to remove it".to_owned());
    }
    if !is_named && !agents.is_empty() {
        return Err(format!("{} is an agent beside -l, --nodes-from or --all", agents[0]));
    }
    let mut wanted = Wanted {
        agents: agents.to_vec(),
        set: BTreeMap::new(),
        remove: Vec::new(),
    };
    for word in labels {
        match parse_label_change(word)? {
            LabelChange::Set(key, value) => drop(wanted.set.insert(key, value)),
            LabelChange::Remove(key) => wanted.remove.push(key),
        }
    }
    Ok(wanted)
}

pub(super) fn parse_label_change(text: &str) -> Result<LabelChange, String> {
    if text.contains('=') {
        return label::parse_pair(text)
            .map(|(key, value)| LabelChange::Set(key, value))
            .map_err(|error| error.to_string());
    }
    let key = text
        .strip_suffix('-')
        .ok_or("write KEY=VALUE to set a label, KEY- to remove it")?;
    label::check_key(key).map_err(|error| error.to_string())?;
    Ok(LabelChange::Remove(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, is_named: bool) -> Result<(String, String), String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let wanted = wanted(&words, is_named)?;
        let set = wanted.set.iter().map(|(key, value)| format!("{key}={value}"));
        let remove = wanted.remove.iter().map(|key| format!("{key}-"));
        let labels: Vec<String> = set.chain(remove).collect();
        Ok((wanted.agents.join(" "), labels.join(" ")))
    }

    #[test]
    fn agents_stand_before_labels() {
        let pair = |agents: &str, labels: &str| Ok((agents.to_owned(), labels.to_owned()));
        assert_eq!(of("db-01 role=db", true), pair("db-01", "role=db"));
        assert_eq!(
            of("db-01 db-02 role=db zone-", true),
            pair("db-01 db-02", "role=db zone-")
        );
        assert_eq!(
            of("odd- zone-", true),
            pair("odd-", "zone-"),
            "the first word is an agent"
        );
        assert_eq!(of("role=db zone-", false), pair("", "role=db zone-"));
        for (line, is_named) in [
            ("db-01", true),
            ("db-01 role=db web", true),
            ("db-01 role=db", false),
            ("db-01 -", true),
        ] {
            assert!(of(line, is_named).is_err(), "{line}");
        }
    }
}
