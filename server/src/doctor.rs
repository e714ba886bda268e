//! `muster-server doctor`: looks at the controller of this host, running or not, and says what is well, what is not, why, and
//! what to do. It only reads. What it does not say it has not looked at.

mod database;
mod disk;
mod files;
mod keys;
mod report;

use std::time::SystemTime;

use muster_certs::certificate::Certificate;

pub use report::{Finding, Level, Report, Use};

use crate::{
    admin::on_host,
    cli::Installation,
    clock,
    config::{Config, Database},
    lease,
    pki::Pki,
    store::{Source, inspect::Inspector},
};

/// All that can be looked at; what is in the way of one thing is a finding, and does not keep it from the others.
pub async fn run(installation: &Installation, now: SystemTime) -> Report {
    let mut report = Report::default();
    let Some(config) = configuration(installation, &mut report) else {
        return report;
    };
    let pki = keys::look(&config, now, &mut report);
    files::look(&config, &mut report);
    let is_running = running(&config, &mut report);
    let measured = disk::look(&config, is_running, &mut report);
    match Inspector::open(&config.source(), is_running).await {
        Ok(mut database) => {
            let times = database::Times {
                now: clock::from_system(now),
                issued: pki.as_ref().map_or(0, issued),
            };
            database::look(&mut database, &config, times, measured, &mut report).await;
            database.close().await;
        }
        Err(error) => report.add(
            Finding::problem("database", "the database cannot be opened", causes(&error)).hint(match config.source() {
                Source::Sqlite(_) => "run this as the user that owns the data directory; one that is gone comes from a backup: muster-server restore FILE",
                Source::Postgres(_) => "see that PostgreSQL runs and takes this user: psql with the same URL",
            }),
        ),
    }
    report
}

fn configuration(installation: &Installation, report: &mut Report) -> Option<Config> {
    let path = on_host::config_path(installation);
    if installation.data_dir.is_some() && !path.exists() {
        // As of `muster-server dev`, which keeps none.
        return match on_host::find(installation) {
            Ok((config, _)) => Some(config),
            Err(error) => {
                let finding = Finding::problem("configuration", "there is no controller here", causes(&error));
                report.add(finding.hint("name another directory with --data-dir, or a configuration with --config"));
                None
            }
        };
    }
    match Config::load(&path) {
        Ok(config) => {
            report.add(Finding::ok("configuration", format!("{} is good", path.display())));
            Some(config)
        }
        Err(error) => {
            let what = format!("{} cannot be used", path.display());
            let finding = Finding::problem("configuration", what, causes(&error));
            report.add(
                finding.hint("name another one with --config, or mend it: muster-server config check --config FILE"),
            );
            None
        }
    }
}

/// Of SQLite the lock says it; who holds that of PostgreSQL is asked there.
fn running(config: &Config, report: &mut Report) -> bool {
    if config.database != Database::Sqlite {
        return false;
    }
    match lease::is_held(&config.data_dir) {
        Ok(true) => {
            report.add(Finding::ok(
                "lease",
                "a controller is running on this data directory".to_owned(),
            ));
            true
        }
        Ok(false) => {
            report.add(Finding::ok(
                "lease",
                "no controller is running on this data directory".to_owned(),
            ));
            false
        }
        Err(error) => {
            let what = "whether a controller is running cannot be told";
            report.add(
                Finding::problem("lease", what, error.to_string())
                    .hint("run this as the user that owns the data directory"),
            );
            true
        }
    }
}

/// When the first CA began to be: no clock that is right is before it.
fn issued(pki: &Pki) -> clock::Micros {
    let authorities = pki.authorities();
    let roots = authorities
        .all()
        .iter()
        .filter_map(|authority| Certificate::parse(&authority.root).ok());
    roots.map(|root| clock::from_system(root.not_before)).min().unwrap_or(0)
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some say in their own text what caused them.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
