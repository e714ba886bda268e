//! `musterctl explain`: why something is as it is, step by step, as the controller decides it.

use clap::{Args, Subcommand};
use muster_proto::{json, v1};

use crate::{
    app::Session,
    output::{style::Tone, text},
    problem::{Problem, status::Asked},
};

/// Show why something is as it is
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Why a check runs on an agent, or does not
    ///
    /// Each term of the selector with the label that it looks at and where that comes from, which version the agent has, and why it
    /// refuses it.
    #[command(
        visible_alias = "policy",
        after_help = "Examples:\n  musterctl explain check disk-root --agent web-01"
    )]
    Check(CheckArgs),
    /// Why somebody may call a method, or may not
    ///
    /// Each grant with what its role gives and whom its scope takes. For oneself, everybody may ask.
    #[command(
        after_help = "Examples:\n  musterctl explain access mira PolicyService/DeletePolicy\n  musterctl explain access mira agents.label --agent web-01\n  \
                      musterctl explain access apikey/3f9c2a7d10e4b856 states.read"
    )]
    Access(AccessArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[arg(value_name = "NAME")]
    name: String,
    /// UUID or name
    #[arg(long, value_name = "AGENT")]
    agent: String,
}

#[derive(Debug, Args)]
pub struct AccessArgs {
    /// A user, or apikey/ID
    #[arg(value_name = "USER")]
    subject: String,
    /// AgentService/ListAgents, or a permission: agents.read
    #[arg(value_name = "METHOD")]
    method: String,
    /// UUID or name [default: wherever]
    #[arg(long, value_name = "AGENT", default_value = "", hide_default_value = true)]
    agent: String,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    let trace = match command {
        Command::Check(args) => check(args, session).await?,
        Command::Access(args) => access(args, session).await?,
    };
    let printer = &mut session.printer;
    match printer.format.is_table() {
        true => {
            let colour = printer.terminal.out.colour;
            let mut page = String::new();
            draw(&trace, 0, colour, &mut page);
            printer.terminal.out.write(&page)?;
        }
        false => printer.document(&json::to_json(&trace))?,
    }
    Ok(())
}

async fn check(args: CheckArgs, session: &mut Session) -> Result<v1::Trace, Problem> {
    let asked = Asked::new(format!("explain check {} on {}", args.name, args.agent));
    let client = session.connect(&asked).await?;
    let request = v1::ExplainCheckRequest {
        name: args.name,
        agent: args.agent,
    };
    let call = async |request| client.explain().explain_check(request).await;
    Ok(client.call(&asked, call, request).await?.trace.unwrap_or_default())
}

async fn access(args: AccessArgs, session: &mut Session) -> Result<v1::Trace, Problem> {
    use v1::explain_access_request::Subject;
    let asked = Asked::new(format!("explain access of {} to {}", args.subject, args.method));
    let client = session.connect(&asked).await?;
    let subject = match args.subject.split_once('/') {
        Some(("apikey", id)) => Subject::ApiKey(id.to_owned()),
        Some(("user", name)) => Subject::User(name.to_owned()),
        _ => Subject::User(args.subject),
    };
    let request = v1::ExplainAccessRequest {
        subject: Some(subject),
        method: args.method,
        agent: args.agent,
    };
    let call = async |request| client.explain().explain_access(request).await;
    Ok(client.call(&asked, call, request).await?.trace.unwrap_or_default())
}

/// "yes Check/disk runs on web-01", and below it what that rests on.
fn draw(trace: &v1::Trace, depth: usize, colour: bool, page: &mut String) {
    let (word, tone) = match trace.result() {
        v1::TraceResult::Yes => ("yes", Tone::Good),
        v1::TraceResult::No => ("no ", Tone::Bad),
        v1::TraceResult::Note | v1::TraceResult::Unspecified => ("-  ", Tone::Faint),
    };
    let indent = "    ".repeat(depth);
    page.push_str(&format!(
        "{indent}{} {}\n",
        tone.paint(word, colour),
        text::line(&trace.text)
    ));
    for part in &trace.parts {
        draw(part, depth + 1, colour, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_below_what_rests_on_them() {
        let trace = |text: &str, result: v1::TraceResult, parts| v1::Trace {
            text: text.to_owned(),
            result: result as i32,
            parts,
        };
        let term = trace("env=prod: env is dev, by the token", v1::TraceResult::No, Vec::new());
        let note = trace("the agent is online", v1::TraceResult::Note, Vec::new());
        let root = trace("Check/disk is not for web-01", v1::TraceResult::No, vec![term, note]);
        let mut page = String::new();
        draw(&root, 0, false, &mut page);
        assert_eq!(
            page,
            "no  Check/disk is not for web-01\n    no  env=prod: env is dev, by the token\n    -   the agent is online\n"
        );
    }
}
