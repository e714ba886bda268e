//! Watches: what is printed, and what happens when the connection or the revision is lost.

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{self, WatchAgentsResponse, WatchEventType},
};
use musterctl::{app, exit::Exit};
use tokio::sync::oneshot;
use tonic::{Code, Status};

use crate::{
    fake::{Fake, Run, Script, words},
    terminal::{Screen, terminal},
};

type Event = Result<WatchAgentsResponse, Status>;

fn event(kind: WatchEventType, name: &str, revision: i64) -> Event {
    let agent = v1::Agent {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        status: v1::AgentStatus::Online.into(),
        revision,
        ..Default::default()
    };
    Ok(WatchAgentsResponse {
        r#type: kind.into(),
        agent: Some(agent),
        revision,
    })
}

fn put(name: &str, revision: i64) -> Event {
    event(WatchEventType::Put, name, revision)
}

fn synced(revision: i64) -> Event {
    Ok(WatchAgentsResponse {
        r#type: WatchEventType::Synced.into(),
        agent: None,
        revision,
    })
}

async fn fake(watches: Vec<Vec<Event>>) -> Fake {
    Fake::start(Script {
        watches: watches.into(),
        ..Default::default()
    })
    .await
}

/// Watches until `wanted` holds of stdout, then interrupts.
async fn watch(fake: &Fake, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Run {
    let (out, err) = (Screen::new(), Screen::new());
    let config = fake.context().display().to_string();
    let arguments = words(&[&["--config", config.as_str(), "agent", "watch"], arguments].concat());
    let (interrupt, interrupted) = oneshot::channel::<()>();
    let run = app::run(arguments, terminal(&out, &err, std::io::empty()), async {
        drop(interrupted.await)
    });
    let seen = async {
        out.until(wanted).await;
        interrupt.send(()).unwrap();
    };
    let (exit, ()) = tokio::join!(run, seen);
    Run {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

fn revisions(fake: &Fake) -> Vec<String> {
    let revision = |asked: String| asked.split("revision: ").nth(1).unwrap().replace([' ', '}'], "");
    fake.asked().into_iter().map(revision).collect()
}

#[tokio::test]
async fn rows_are_appended_as_agents_change_until_ctrl_c() {
    let fake = fake(vec![vec![
        put("a", 1),
        put("b", 2),
        synced(5),
        put("c", 6),
        event(WatchEventType::Delete, "a", 7),
    ]])
    .await;
    let run = watch(&fake, &["-l", "env=prod"], |out| out.contains("gone"))
        .await
        .expect(Exit::Interrupted);
    let rows: Vec<_> = run
        .out
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rows, ["NAME STATUS", "a online", "b online", "c online", "a gone"]);
    assert!(fake.asked()[0].contains("env=prod"));
    assert_eq!(run.err, "");
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let fake = fake(vec![vec![
        put("a", 1),
        synced(5),
        event(WatchEventType::Delete, "a", 7),
    ]])
    .await;
    let run = watch(&fake, &["-o", "json"], |out| out.lines().count() == 3)
        .await
        .expect(Exit::Interrupted);
    let events: Vec<serde_json::Value> = run
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(
        kinds,
        [
            "WATCH_EVENT_TYPE_PUT",
            "WATCH_EVENT_TYPE_SYNCED",
            "WATCH_EVENT_TYPE_DELETE"
        ]
    );
    assert_eq!(
        (&events[0]["agent"]["name"], &events[2]["revision"]),
        (&"a".into(), &"7".into())
    );
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_from_its_last_revision() {
    let fake = fake(vec![
        vec![
            put("a", 1),
            synced(5),
            put("b", 9),
            Err(Status::unavailable("the controller is shutting down")),
        ],
        vec![put("c", 12)],
    ])
    .await;
    let run = watch(&fake, &[], |out| out.contains("\nc "))
        .await
        .expect(Exit::Interrupted);
    assert_eq!(revisions(&fake), ["0", "9"]);
    assert_eq!(
        run.out.matches("\na ").count(),
        1,
        "nothing is shown twice: {}",
        run.out
    );
    assert_eq!(
        run.err,
        "watch interrupted: the controller is shutting down; trying again\nconnected again\n"
    );
}

#[tokio::test]
async fn a_watch_whose_revision_is_gone_lists_again_and_shows_the_difference() {
    let gone = Problem::new(Code::OutOfRange, ErrorReason::RevisionGone, "that was long ago");
    let fake = fake(vec![
        vec![put("a", 1), put("b", 2), synced(5), Err(gone.into())],
        vec![put("a", 1), put("b", 40), synced(41), put("d", 42)],
    ])
    .await;
    let run = watch(&fake, &["-o", "name"], |out| out.contains("d\n"))
        .await
        .expect(Exit::Interrupted);
    assert_eq!(revisions(&fake), ["0", "0"]);
    assert_eq!(run.out, "a\nb\nb\nd\n", "a has not changed");
}

#[tokio::test]
async fn a_watch_that_is_refused_at_first_is_not_tried_again() {
    let denied = Problem::new(Code::PermissionDenied, ErrorReason::MethodNotAllowed, "not you");
    for (status, exit) in [
        (denied.into(), Exit::Denied),
        (Status::unavailable("starting"), Exit::Unreachable),
    ] {
        let fake = Fake::start(Script {
            failures: [status].into(),
            ..Default::default()
        })
        .await;
        fake.run(&["agent", "watch"]).await.expect(exit).explained();
        assert_eq!(fake.asked().len(), 1);
    }
}

#[tokio::test]
async fn ctrl_c_ends_a_command_that_waits_for_an_answer() {
    let fake = Fake::start(Script {
        silent: true,
        ..Default::default()
    })
    .await;
    let (out, err) = (Screen::new(), Screen::new());
    let config = fake.context().display().to_string();
    let arguments = words(&["--config", &config, "agent", "list"]);
    let exit = app::run(
        arguments,
        terminal(&out, &err, std::io::empty()),
        std::future::ready(()),
    )
    .await;
    assert_eq!((exit, out.text().as_str()), (Exit::Interrupted, ""));
}
