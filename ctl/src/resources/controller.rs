//! `musterctl controller`: the controller itself, and leaving it.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::{duration, json, v1};
use serde_json::Value;

use crate::{
    age,
    app::Session,
    count,
    output::{
        Row,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the controller that the context leads to
    ///
    /// Where it listens, how many agents hold a link, whether they are being sent away, and what its database is. A standby
    /// does not answer until it is active.
    #[command(after_help = "Examples:\n  musterctl controller get\n  musterctl controller get -o json | jq .links")]
    Get,
    /// Send the agents away, before maintenance
    ///
    /// They are told one after the other over the time given, and no new links are taken until --cancel or the controller's
    /// next start. Agents go to another controller that they know; those that know none keep trying this one. None is offline
    /// by that before the usual time is over, and nothing that they record is lost. Doing it again sets another time.
    #[command(
        after_help = "Examples:\n  musterctl controller drain\n  musterctl controller drain --within 10m --to b.example.com:8443\n  \
                            musterctl controller drain --cancel"
    )]
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The time over which agents are told: 0s to 24h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_within, conflicts_with = "cancel")]
    within: Duration,
    /// Where agents shall go, before anywhere else that they know; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', conflicts_with = "cancel")]
    to: Vec<String>,
    /// Take links again
    #[arg(long)]
    cancel: bool,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Get => {
            let asked = Asked::new("show the controller");
            let client = session.connect(&asked).await?;
            let call = async |request| client.controllers().get_controller(request).await;
            let response = client.call(&asked, call, v1::GetControllerRequest {}).await?;
            show(response.controller, session)
        }
        Command::Drain(args) => drain(args, session).await,
    }
}

async fn drain(args: DrainArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(match args.cancel {
        true => "cancel the drain of the controller",
        false => "drain the controller",
    });
    let client = session.connect(&asked).await?;
    let request = v1::DrainControllerRequest {
        within: (!args.cancel).then(|| duration::to_proto(args.within)),
        endpoints: args.to,
        cancel: args.cancel,
    };
    let call = async |request| client.controllers().drain_controller(request).await;
    let response = client.call(&asked, call, request).await?;
    let is_draining = response
        .controller
        .as_ref()
        .is_some_and(|controller| controller.drain.is_some());
    show(response.controller, session)?;
    session.printer.note(match is_draining {
        true => {
            "agents are being sent away; `musterctl controller get` shows how many are left, --cancel takes links again"
        }
        false => "links are taken",
    })?;
    Ok(())
}

fn show(controller: Option<v1::Controller>, session: &mut Session) -> Result<(), Problem> {
    let controller = controller.unwrap_or_default();
    session
        .printer
        .item(&controller, |page, now| describe(page, &controller, now))?;
    Ok(())
}

fn describe(page: &mut Page, controller: &v1::Controller, now: Timestamp) {
    let (word, tone) = status(controller);
    let since = age::since(now, controller.active_since.as_ref())
        .map(|age| format!(", active for {age}"))
        .unwrap_or_default();
    page.field("Name", &controller.name)
        .toned("Status", word.to_owned() + &since, tone)
        .field("Version", &controller.version)
        .field(
            "Started",
            age::dated(now, controller.start_time.as_ref()).unwrap_or_default(),
        )
        .field("Links", links(controller))
        .field("Database", database(controller))
        .field("Lease", &controller.lease);
    for listener in &controller.listeners {
        page.field(&format!("Listens ({})", listener.name), &listener.address);
    }
    page.field("Agents use", controller.endpoints.join(", "));
    if controller.epoch > 0 {
        page.field("Restored", count::of(controller.epoch, "time", "times"));
    }
    let Some(drain) = &controller.drain else { return };
    page.section("Drain")
        .field("By", &drain.by)
        .field("Began", age::dated(now, drain.start_time.as_ref()).unwrap_or_default());
    let last = match age::until(now, drain.end_time.as_ref()) {
        Some(left) => format!("in {left}"),
        None => "told".to_owned(),
    };
    page.field("Last agent", last).field("To", drain.endpoints.join(", "));
}

fn status(controller: &v1::Controller) -> (&'static str, Tone) {
    match controller.status() {
        v1::ControllerStatus::Unspecified => ("unknown", Tone::Doubtful),
        v1::ControllerStatus::Active => ("takes links", Tone::Good),
        v1::ControllerStatus::Draining => ("draining", Tone::Warning),
        v1::ControllerStatus::Stopping => ("stopping", Tone::Warning),
    }
}

/// "3,004, of which 12 are leaving".
fn links(controller: &v1::Controller) -> String {
    let all = count::grouped(i64::from(controller.links));
    match controller.links_leaving {
        0 => all,
        leaving => format!("{all}, of which {} leaving", count::grouped(i64::from(leaving))),
    }
}

fn database(controller: &v1::Controller) -> &'static str {
    match controller.database() {
        v1::DatabaseKind::Unspecified => "",
        v1::DatabaseKind::Sqlite => "SQLite",
        v1::DatabaseKind::Postgres => "PostgreSQL",
    }
}

impl Row for v1::Controller {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("LINKS"),
        Column::new("VERSION"),
        Column::new("DATABASE"),
        Column::new("ACTIVE FOR"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = status(self);
        vec![
            Cell::new(&self.name),
            Cell::toned(word, tone),
            Cell::new(links(self)),
            Cell::new(&self.version),
            Cell::new(database(self)),
            age::since(now, self.active_since.as_ref()).into(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// 0s is at once.
fn parse_within(text: &str) -> Result<Duration, String> {
    let within = duration::parse(text).map_err(|error| error.to_string())?;
    if within > Duration::from_secs(24 * 60 * 60) {
        return Err("it must be at most 24h".to_owned());
    }
    Ok(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_controller_that_drains_says_so_first() {
        let controller = v1::Controller {
            name: "controller1".to_owned(),
            version: "0.1.0".to_owned(),
            status: v1::ControllerStatus::Draining.into(),
            active_since: at(1_794_000_000),
            start_time: at(1_793_000_000),
            listeners: vec![v1::ControllerListener {
                name: "agents".to_owned(),
                address: "0.0.0.0:8443".to_owned(),
            }],
            endpoints: vec!["a.example.com:8443".to_owned(), "b.example.com:8443".to_owned()],
            links: 3_004,
            links_leaving: 12,
            database: v1::DatabaseKind::Postgres.into(),
            lease: "database".to_owned(),
            epoch: 1,
            drain: Some(v1::ControllerDrain {
                start_time: at(1_795_000_000 - 20),
                end_time: at(1_795_000_000 + 40),
                endpoints: vec!["b.example.com:8443".to_owned()],
                by: "alice".to_owned(),
            }),
        };
        let mut page = Page::default();
        describe(&mut page, &controller, Timestamp::from_second(1_795_000_000).unwrap());
        insta::assert_snapshot!(page.render(Some(100), false));
    }

    #[test]
    fn a_drain_takes_a_day_at_most() {
        assert_eq!(parse_within("0s"), Ok(Duration::ZERO));
        assert!(parse_within("24h").is_ok() && parse_within("25h").is_err() && parse_within("soon").is_err());
    }
}
