//! Which agents a command is to change: names, a selector, a file, or all of them; never all by default. All are looked up
//! before the first is changed, so that a name that was mistyped changes nothing.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use muster_proto::v1;

use crate::{
    app::Session,
    client::Client,
    count,
    exit::Exit,
    problem::{Problem, status::Asked},
    resources::of_agents,
};

/// Names of far more agents than there are.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Names or UUIDs of agents
    #[arg(value_name = "AGENT", required_unless_present_any = ["selector", "nodes_from", "all"])]
    pub agents: Vec<String>,
    #[command(flatten)]
    pub chosen: ChosenArgs,
}

/// The other ways than by name.
#[derive(Debug, Clone, Default, Args)]
pub struct ChosenArgs {
    /// All agents with these labels: env=prod,role!=db,zone in (eu,us),gpu,!spot
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub selector: Option<String>,
    /// Those that a file names, a name or UUID a line, # begins a comment; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "selector")]
    pub nodes_from: Option<PathBuf>,
    /// All agents there are
    #[arg(long, conflicts_with_all = ["selector", "nodes_from"])]
    pub all: bool,
}

impl ChosenArgs {
    pub fn is_given(&self) -> bool {
        self.selector.is_some() || self.nodes_from.is_some() || self.all
    }
}

/// One agent that is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// For the call: its UUID, or what was typed.
    pub agent: String,
    /// For people.
    pub name: String,
}

#[derive(Debug)]
pub struct Targets {
    pub items: Vec<Target>,
    /// One that was named on the command line: the answer is the agent, and no list.
    pub is_one: bool,
}

impl Targets {
    /// `names` are those of the command line.
    pub async fn of(
        names: &[String],
        chosen: &ChosenArgs,
        client: &Client,
        asked: &Asked,
        session: &mut Session,
    ) -> Result<Targets, Problem> {
        let usage = |headline: &str, why: &str| {
            Problem::new(Exit::Usage, headline)
                .what(asked.what())
                .why(why)
                .step("name agents, or choose them with -l SELECTOR, --nodes-from FILE or --all")
        };
        if chosen.selector.is_some() || chosen.all {
            if !names.is_empty() {
                return Err(usage(
                    "agents are chosen in two ways",
                    "there are names beside -l or --all; nothing was changed",
                ));
            }
            let selector = chosen.selector.as_deref().unwrap_or_default();
            let found = of_agents::find(client, asked, selector, None).await?;
            if found.is_empty() {
                return Err(Problem::new(Exit::NotFound, "no agent matches")
                    .what(asked.what())
                    .why(match selector {
                        "" => "there are no agents".to_owned(),
                        selector => format!("no agent has the labels {selector}; nothing was changed"),
                    })
                    .step("see which do: musterctl agent list -l SELECTOR"));
            }
            let items = found.into_iter().map(Target::from).collect();
            return Ok(Targets { items, is_one: false });
        }
        let mut names = names.to_vec();
        if let Some(path) = &chosen.nodes_from {
            let text = read(path, session.printer.terminal.input.as_mut())
                .map_err(|error| usage(&format!("{} cannot be read", path.display()), &error.to_string()))?;
            names.extend(lines(&text));
            if names.is_empty() {
                return Err(usage(
                    &format!("{} names no agent", path.display()),
                    "nothing was changed",
                ));
            }
        } else if let [name] = names.as_slice() {
            let target = Target {
                agent: name.clone(),
                name: name.clone(),
            };
            let items = vec![target];
            return Ok(Targets { items, is_one: true });
        }
        let mut known = BTreeSet::new();
        let mut items = Vec::new();
        for name in names {
            let agent = of_agents::look_up(client, &name).await?;
            if known.insert(agent.id.clone()) {
                items.push(Target::from(agent));
            }
        }
        Ok(Targets { items, is_one: false })
    }

    /// Does it for each. Those that went well come back; that some did not is the error that stands beside them.
    pub async fn each(
        &self,
        asked: &Asked,
        change: impl AsyncFn(&Target) -> Result<v1::Agent, Problem>,
    ) -> (Vec<v1::Agent>, Option<Problem>) {
        let mut done = Vec::new();
        let mut failed: Vec<(&Target, Problem)> = Vec::new();
        for target in &self.items {
            match change(target).await {
                Ok(agent) => done.push(agent),
                // It would be the same with all others.
                Err(problem) if self.is_one || is_of_all(problem.exit) && done.is_empty() => {
                    return (done, Some(problem));
                }
                Err(problem) => {
                    let ends = is_of_all(problem.exit);
                    failed.push((target, problem));
                    if ends {
                        break;
                    }
                }
            }
        }
        let left = self.items.len() - done.len();
        let Some((_, first)) = failed.first() else {
            return (done, None);
        };
        let is_same = done.is_empty() && failed.iter().all(|(_, problem)| problem.exit == first.exit);
        let exit = if is_same { first.exit } else { Exit::SomeFailed };
        let agents = count::of(self.items.len() as i64, "agent", "agents");
        let why: Vec<String> = failed
            .iter()
            .map(|(target, problem)| format!("{}: {}", target.name, problem.why))
            .collect();
        let mut problem = Problem::new(
            exit,
            format!("it was not done for {} of {agents}", count::grouped(left as i64)),
        )
        .what(asked.what())
        .why(why.join("\n"))
        .step("put right what is named above, then run the same command again: it may be repeated");
        problem.code = first.code;
        problem.reason = first.reason.clone();
        problem.metadata = failed
            .iter()
            .map(|(target, problem)| (target.name.clone(), problem.why.clone()))
            .collect();
        (done, Some(problem))
    }
}

impl From<v1::Agent> for Target {
    fn from(agent: v1::Agent) -> Target {
        Target {
            agent: agent.id,
            name: agent.name,
        }
    }
}

/// Whether a failure is of the connection or the caller, and not of one agent.
fn is_of_all(exit: Exit) -> bool {
    matches!(
        exit,
        Exit::Unreachable | Exit::Denied | Exit::DeadlinePassed | Exit::Usage
    )
}

fn read(path: &Path, input: &mut dyn Read) -> std::io::Result<String> {
    let mut text = String::new();
    let mut file;
    let source: &mut dyn Read = if path == Path::new("-") {
        input
    } else {
        file = File::open(path)?;
        &mut file
    };
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is longer than 16 MiB"));
    }
    Ok(text)
}

fn lines(text: &str) -> impl Iterator<Item = String> + '_ {
    let bare = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(bare).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_agents_has_a_name_a_line_and_comments() {
        let text = "# web\nweb-01\n\n  web-02  # the new one\r\n7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21\n#\n";
        let names: Vec<String> = lines(text).collect();
        assert_eq!(names, ["web-01", "web-02", "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21"]);
    }

    fn targets(names: &[&str]) -> Targets {
        let target = |name: &&str| Target {
            agent: format!("id-of-{name}"),
            name: (*name).to_owned(),
        };
        Targets {
            items: names.iter().map(target).collect(),
            is_one: false,
        }
    }

    async fn failing(names: &[&str], exits: &[(&str, Exit)]) -> (usize, Option<Exit>) {
        let (done, problem) = targets(names)
            .each(&Asked::new("revoke agents"), async |target: &Target| {
                match exits.iter().find(|(name, _)| *name == target.name) {
                    Some((_, exit)) => Err(Problem::new(*exit, "no").why("because")),
                    None => Ok(v1::Agent::default()),
                }
            })
            .await;
        (done.len(), problem.map(|problem| problem.exit))
    }

    #[tokio::test]
    async fn what_fails_for_one_is_done_for_the_others_and_told() {
        let names = ["a", "b", "c"];
        assert_eq!(failing(&names, &[]).await, (3, None));
        assert_eq!(
            failing(&names, &[("b", Exit::NotFound)]).await,
            (2, Some(Exit::SomeFailed))
        );
        let all = ["a", "b", "c"].map(|name| (name, Exit::NotFound));
        assert_eq!(failing(&names, &all).await, (0, Some(Exit::NotFound)));
        assert_eq!(
            failing(&names, &[("a", Exit::Denied)]).await,
            (0, Some(Exit::Denied)),
            "who may not do it is not asked for again and again"
        );
        assert_eq!(
            failing(&names, &[("b", Exit::Unreachable)]).await,
            (1, Some(Exit::SomeFailed))
        );
    }
}
