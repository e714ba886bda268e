//! `spool-kills [KILLS]`: kills a process, again and again and at any moment, that does nothing but record, and looks what of
//! it is on disk. Prints JSON, and ends with 1 if a record is missing or there twice.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{ExitCode, Stdio},
};

use muster_agent::link::queue::{Directory, Lanes, Limits};
use muster_proto::v1::{AgentEvent, Lane, Record, record::Body};
use muster_tests::process;
use serde_json::json;

const KILLS: u64 = 1_000;
const LANE: Lane = Lane::Results;
/// Of the numbers of one process.
const SPAN: i64 = 1_000_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => prove(KILLS),
        [write, dir, generation] if write == "write" => record(Path::new(dir), generation),
        [kills] if kills.parse::<u64>().is_ok() => prove(kills.parse().unwrap_or(KILLS)),
        _ => {
            eprintln!("usage: spool-kills [KILLS]");
            ExitCode::from(2)
        }
    }
}

fn open(dir: &Path, generation: u64) -> Lanes {
    let limits = Limits {
        bytes: 64 << 20,
        ..Limits::default()
    };
    Directory::new(dir.join("queue"))
        .open("agent", &format!("{generation}-kill"), |_| limits)
        .expect("the queue opens")
}

/// Records until it is killed, and tells of each record when it is done with it.
fn record(dir: &Path, generation: &str) -> ExitCode {
    let generation: u64 = generation.parse().expect("a generation");
    let mut lanes = open(dir, generation);
    let mut out = std::io::stdout().lock();
    for number in generation as i64 * SPAN.. {
        let event = AgentEvent {
            message: "x".repeat(number as usize * 7919 % 3000),
            ..Default::default()
        };
        let record = Record {
            time_unix_micros: number,
            body: Some(Body::Event(event)),
        };
        lanes.push(LANE, &record, number);
        if writeln!(out, "{number}").is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn prove(kills: u64) -> ExitCode {
    let dir = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("the program has a path");
    let (mut records, mut lost, mut doubled, mut torn_off) = (0, 0, 0, 0);
    for kill in 0..kills {
        // Of two generations, this process has the second.
        let generation = 2 * kill + 1;
        let mut command = process::clean_command(&program, dir.path());
        command.arg("write").arg(dir.path()).arg(generation.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let out = child.stdout.take().expect("it has an output");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        // Somewhere between its start and some hundred records; it goes on while this is read.
        let heard = lines.by_ref().take((kill * 7919 % 700) as usize).last();
        child.kill().expect("it is killed");
        child.wait().expect("it ended");
        // The end of the last line may be missing.
        let told = lines.chain(heard).filter_map(|line| line.parse::<i64>().ok()).max();

        let found = take(dir.path(), generation + 1);
        let first = generation as i64 * SPAN;
        records += found.len();
        // It may have been killed between a record and its news.
        let expected = told.map_or(0, |told| told - first + 1) as usize;
        lost += expected.saturating_sub(found.len());
        torn_off += found.len().saturating_sub(expected);
        let in_order = found.iter().copied().eq((first..).take(found.len()));
        doubled += usize::from(!in_order);
    }
    println!(
        "{:#}",
        json!({ "kills": kills, "records": records, "lost": lost, "processes_out_of_order": doubled, "untold": torn_off })
    );
    ExitCode::from(u8::from(lost > 0 || doubled > 0))
}

/// All that waits, and then nothing does.
fn take(dir: &Path, generation: u64) -> Vec<i64> {
    let mut lanes = open(dir, generation);
    let lane = lanes.lane_mut(LANE);
    let spools: Vec<_> = lane.spools().map(|spool| spool.id().clone()).collect();
    let mut found = Vec::new();
    for spool in spools {
        let mut seq = 0;
        while let Some(batch) = lane.take_batch(&spool, seq, 64 * 1024) {
            seq = batch.last_seq;
            found.extend(batch.records.iter().map(|record| record.time_unix_micros));
        }
        lane.ack(&spool, seq).expect("it was sent");
    }
    found
}
