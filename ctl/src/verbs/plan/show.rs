//! How a plan looks, and what was done of it.

use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    app::Session,
    count,
    output::{Format, document, style::Tone, text},
    problem::Problem,
};

/// Those that are none are left out.
pub fn changes(plan: &v1::Plan) -> impl Iterator<Item = &v1::PlannedChange> {
    plan.changes
        .iter()
        .filter(|change| change.action() != v1::PlannedAction::Unchanged)
}

pub fn plan(plan: &v1::Plan, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => {
            let colour = printer.terminal.out.colour;
            let is_wide = printer.format == Format::Wide;
            let mut page: String = changes(plan).map(|change| block(change, is_wide, colour)).collect();
            page.push_str(&format!("{}\n", tally(plan)));
            printer.terminal.out.write(&page)?;
        }
        _ => documents(plan, session)?,
    }
    Ok(())
}

/// What was done, a line for each manifest.
pub fn report(plan: &v1::Plan, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => {
            let colour = printer.terminal.out.colour;
            let lines: String = plan
                .changes
                .iter()
                .map(|change| {
                    let (_, _, done, tone) = words(change.action());
                    format!("{} {}\n", reference(change), tone.paint(done, colour))
                })
                .collect();
            printer.terminal.out.write(&lines)?;
        }
        _ => documents(plan, session)?,
    }
    Ok(())
}

fn documents(plan: &v1::Plan, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    if printer.format == Format::Name {
        return Ok(printer.names(changes(plan).map(reference))?);
    }
    let items: Vec<Value> = plan.changes.iter().map(json::to_json).collect();
    let mut list = document::list(items, plan.revision);
    list["agentsTouched"] = plan.agents_touched.into();
    list["agentsTotal"] = plan.agents_total.into();
    list["digest"] = plan.digest.clone().into();
    Ok(printer.document(&list)?)
}

/// "1 to create, 2 to update, 5 unchanged; touches 15 of 40 agents."
pub fn tally(plan: &v1::Plan) -> String {
    let of = |action| plan.changes.iter().filter(|change| change.action() == action).count() as i32;
    let parts = count::parts(&[
        (of(v1::PlannedAction::Create), "to create"),
        (of(v1::PlannedAction::Update), "to update"),
        (of(v1::PlannedAction::Delete), "to delete"),
        (of(v1::PlannedAction::Unchanged), "unchanged"),
    ]);
    let parts = parts.unwrap_or_else(|| "nothing to do".to_owned());
    let total = count::of(i64::from(plan.agents_total), "agent", "agents");
    match plan.agents_touched {
        0 => format!("{parts}; touches no agent."),
        touched => format!("{parts}; touches {} of {total}.", count::grouped(i64::from(touched))),
    }
}

fn reference(change: &v1::PlannedChange) -> String {
    format!("{}/{}", change.kind, change.name)
}

/// A change with what differs and whom it touches.
fn block(change: &v1::PlannedChange, is_wide: bool, colour: bool) -> String {
    let (sign, _, _, tone) = words(change.action());
    let mut page = format!("{}\n", tone.paint(&format!("{sign} {}", reference(change)), colour));
    let is_update = change.action() == v1::PlannedAction::Update;
    if is_update || is_wide {
        let width = change
            .fields
            .iter()
            .map(|field| text::width(&field.path))
            .max()
            .unwrap_or(0);
        for field in &change.fields {
            let pad = " ".repeat(width - text::width(&field.path));
            let value = match (field.before.as_str(), field.after.as_str()) {
                ("", after) => after.to_owned(),
                (before, "") => format!("{before} -> (gone)"),
                (before, after) => format!("{before} -> {after}"),
            };
            page.push_str(&format!(
                "    {}{pad}  {}\n",
                text::line(&field.path),
                text::line(&value)
            ));
        }
    }
    let effects = [
        (change.starts, "starts on", v1::PlannedEffect::Start),
        (change.updates, "changes on", v1::PlannedEffect::Update),
        (change.stops, "stops on", v1::PlannedEffect::Stop),
    ];
    for (number, verb, effect) in effects.into_iter().filter(|(number, ..)| *number > 0) {
        let names: Vec<&str> = change
            .agents
            .iter()
            .filter(|agent| agent.effect() == effect)
            .map(|agent| agent.name.as_str())
            .collect();
        page.push_str(&format!(
            "    {verb} {}{}\n",
            count::of(i64::from(number), "agent", "agents"),
            listed(&names, number)
        ));
    }
    if change.unsupported > 0 {
        let lacking: Vec<String> = change
            .agents
            .iter()
            .filter(|agent| !agent.missing_features.is_empty())
            .map(|agent| format!("{} lacks {}", agent.name, agent.missing_features.join(", ")))
            .collect();
        let lacking: Vec<&str> = lacking.iter().map(String::as_str).collect();
        let line = format!(
            "not supported by {}{}",
            count::of(i64::from(change.unsupported), "agent", "agents"),
            listed(&lacking, change.unsupported)
        );
        page.push_str(&format!("    {}\n", Tone::Warning.paint(&line, colour)));
    }
    let is_check = change.kind == muster_proto::manifest::CHECK;
    if is_check && change.action() == v1::PlannedAction::Create && change.starts == 0 {
        page.push_str(&format!(
            "    {}\n",
            Tone::Warning.paint("matches no agent now", colour)
        ));
    }
    page
}

/// ": web-01, web-02 and 10 more".
fn listed(names: &[&str], number: i32) -> String {
    let names: Vec<String> = names.iter().map(|name| text::line(name)).collect();
    match i64::from(number) - names.len() as i64 {
        _ if names.is_empty() => String::new(),
        0 => format!(": {}", names.join(", ")),
        more => format!(": {} and {} more", names.join(", "), count::grouped(more)),
    }
}

/// The sign, what will be, what was done, and how it looks.
fn words(action: v1::PlannedAction) -> (&'static str, &'static str, &'static str, Tone) {
    match action {
        v1::PlannedAction::Create => ("+", "create", "created", Tone::Good),
        v1::PlannedAction::Update => ("~", "update", "updated", Tone::Warning),
        v1::PlannedAction::Delete => ("-", "delete", "deleted", Tone::Bad),
        v1::PlannedAction::Unchanged | v1::PlannedAction::Unspecified => (" ", "keep", "unchanged", Tone::Faint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(action: v1::PlannedAction, starts: i32, agents: &[&str]) -> v1::PlannedChange {
        v1::PlannedChange {
            kind: "Check".into(),
            name: "disk".into(),
            action: action as i32,
            fields: vec![v1::FieldChange {
                path: "spec.timeout".into(),
                before: "\"10s\"".into(),
                after: "\"20s\"".into(),
            }],
            starts,
            agents: agents
                .iter()
                .map(|name| v1::PlannedAgent {
                    name: (*name).into(),
                    effect: v1::PlannedEffect::Start as i32,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_change_says_what_differs_and_whom_it_touches() {
        let update = change(v1::PlannedAction::Update, 3, &["db-01", "web-01"]);
        assert_eq!(
            block(&update, false, false),
            "~ Check/disk\n    spec.timeout  \"10s\" -> \"20s\"\n    starts on 3 agents: db-01, web-01 and 1 more\n"
        );
        let create = change(v1::PlannedAction::Create, 0, &[]);
        assert_eq!(block(&create, false, false), "+ Check/disk\n    matches no agent now\n");
    }

    #[test]
    fn the_tally_counts_what_is_done_and_the_agents() {
        let plan = v1::Plan {
            changes: vec![
                change(v1::PlannedAction::Create, 1, &[]),
                change(v1::PlannedAction::Unchanged, 0, &[]),
                change(v1::PlannedAction::Unchanged, 0, &[]),
            ],
            agents_touched: 1,
            agents_total: 1_200,
            ..Default::default()
        };
        assert_eq!(tally(&plan), "1 to create, 2 unchanged; touches 1 of 1,200 agents.");
        assert_eq!(tally(&v1::Plan::default()), "nothing to do; touches no agent.");
    }
}
