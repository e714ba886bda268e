//! The database: whether it is whole, what is in it, what retention lets it grow to, who holds it, and whether the clock is
//! behind what it has seen.

use super::{Finding, Report, causes, disk};
use crate::{
    clock::{self, MINUTE, Micros},
    config::{Config, Database},
    disk::{Space, space::size_text},
    store::{self, control_file, history_file, inspect::Inspector},
};

/// What a clock is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub now: Micros,
    /// When the first CA was made.
    pub issued: Micros,
}

pub(super) async fn look(
    database: &mut Inspector,
    config: &Config,
    times: Times,
    space: Option<Space>,
    report: &mut Report,
) {
    if let Err(error) = tables(database, report).await {
        let finding = Finding::problem("database", "what is in the database cannot be told", causes(&error));
        report.add(finding.hint("if it is not set up yet: muster-server init"));
        return;
    }
    integrity(database, report).await;
    retention(config, space, report);
    match database.newest().await {
        Ok(newest) => clock(times, newest, report),
        Err(error) => report.add(Finding::problem(
            "clock",
            "there is nothing to compare it with",
            causes(&error),
        )),
    }
    if config.database != Database::Sqlite {
        lease(database, report).await;
    }
}

async fn tables(database: &mut Inspector, report: &mut Report) -> Result<(), store::Error> {
    if let Some(bytes) = database.database_size().await? {
        report.uses("the database", bytes);
    }
    for size in database.tables().await? {
        let kind = match size.table.as_str() {
            "results" => "results of checks",
            "events" => "events",
            "metric_batches" => "metrics",
            "logs" => "logs",
            "states" => "states of checks",
            "changes" => "changes, for watchers",
            other => other,
        };
        report.uses_within(format!("{}: {kind}", size.part), size.bytes);
    }
    Ok(())
}

async fn integrity(database: &mut Inspector, report: &mut Report) {
    report.add(match database.problems().await {
        Ok(problems) if problems.is_empty() => match database {
            Inspector::Sqlite { .. } => Finding::ok("database", "control.db and history.db are whole (quick_check)"),
            Inspector::Postgres { .. } => {
                Finding::ok("database", "it answers; PostgreSQL looks after its files itself")
            }
        },
        Ok(problems) => Finding::problem("database", "the database is damaged", problems.join("; ")).hint(
            "stop the controller, keep a copy of the data directory, and restore a backup: muster-server restore FILE",
        ),
        Err(error) => Finding::problem("database", "the database cannot be read through", causes(&error))
            .hint("look for errors of the disk: dmesg, smartctl"),
    });
}

/// Whether all that may be kept would have room.
fn retention(config: &Config, space: Option<Space>, report: &mut Report) {
    let keep = &config.retention;
    let total = [keep.results, keep.events, keep.metrics, keep.logs]
        .iter()
        .fold(0u64, |sum, keep| sum.saturating_add(keep.bytes));
    let what = format!(
        "up to {} is kept: {} of results, {} of events, {} of metrics, {} of logs",
        size_text(total),
        size_text(keep.results.bytes),
        size_text(keep.events.bytes),
        size_text(keep.metrics.bytes),
        size_text(keep.logs.bytes)
    );
    let Some(space) = space.filter(|_| config.database == Database::Sqlite) else {
        report.add(Finding::ok("retention", what));
        return;
    };
    let now = disk::size(&control_file(&config.data_dir)) + disk::size(&history_file(&config.data_dir));
    let growth = total.saturating_sub(now);
    report.add(match growth > space.free {
        false => Finding::ok("retention", what),
        true => {
            let why = format!(
                "the files take {} now and may grow by {}, and {} is free",
                size_text(now),
                size_text(growth),
                size_text(space.free)
            );
            Finding::warning("retention", what, why).hint("make the disk larger, or lower retention in server.yaml")
        }
    });
}

fn clock(times: Times, newest: Micros, report: &mut Report) {
    let latest = newest.max(times.issued);
    let at = clock::to_text(times.now);
    report.add(match times.now + MINUTE < latest {
        false => Finding::ok("clock", format!("it is {at}, after all that was received")),
        true => {
            let what = match newest >= times.issued {
                true => "the newest record was received",
                false => "the CA was made",
            };
            let why = format!("{what} at {}, which is later", clock::to_text(latest));
            Finding::problem("clock", format!("the clock is wrong: it says {at}"), why)
                .hint("set it, and let something keep it right: timedatectl, chronyc tracking")
        }
    });
}

async fn lease(database: &mut Inspector, report: &mut Report) {
    report.add(match database.lease_holder().await {
        Ok(Some(holder)) => Finding::ok("lease", format!("a controller on {holder} is active on this database")),
        Ok(None) => Finding::ok("lease", "no controller is active on this database"),
        Err(error) => Finding::problem("lease", "whether a controller is active cannot be told", causes(&error))
            .hint("see that the user of the URL may read pg_locks and pg_stat_activity"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::DAY, doctor::Level};

    #[test]
    fn a_clock_behind_what_was_received_or_issued_is_a_problem() {
        let level = |now: Micros, newest: Micros, issued: Micros| {
            let mut report = Report::default();
            clock(Times { now, issued }, newest, &mut report);
            (report.findings[0].level, report.findings[0].why.clone())
        };
        assert_eq!(level(10 * DAY, 9 * DAY, DAY).0, Level::Ok);
        assert_eq!(
            level(10 * DAY, 10 * DAY + 1, DAY).0,
            Level::Ok,
            "received while it was looked at"
        );
        let (problem, why) = level(10 * DAY, 11 * DAY, DAY);
        assert!(problem == Level::Problem && why.contains("newest record"), "{why}");
        let (problem, why) = level(DAY, 0, 5 * DAY);
        assert!(problem == Level::Problem && why.contains("the CA"), "{why}");
    }

    #[test]
    fn retention_that_has_no_room_is_told_before_it_is_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new("c1", "example.muster".parse().expect("a domain"), dir.path().to_owned());
        let level = |free| {
            let mut report = Report::default();
            retention(&config, Some(Space { size: 1 << 40, free }), &mut report);
            report.findings[0].level
        };
        assert_eq!((level(11 << 30), level(10 << 30)), (Level::Ok, Level::Warning));
    }
}
