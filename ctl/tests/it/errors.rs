//! Everything that can stand between a user and an answer: each with what, why, do and its exit code.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use muster_proto::error::{ErrorReason, Problem};
use musterctl::exit::Exit;
use serde_json::Value;
use tonic::{Code, Status};

use crate::fake::{Fake, Pki, Run, Script, run};

async fn failing(status: impl Into<Status>) -> Fake {
    Fake::start(Script {
        failures: [status.into()].into(),
        ..Default::default()
    })
    .await
}

fn problem(code: Code, reason: ErrorReason, message: &str) -> Problem {
    Problem::new(code, reason, message)
}

#[tokio::test]
async fn an_agent_that_is_not_there_exits_with_5() {
    let fake = failing(problem(
        Code::NotFound,
        ErrorReason::NotFound,
        "no agent is called db-99",
    ))
    .await;
    let run = fake
        .run(&["agent", "get", "db-99"])
        .await
        .expect(Exit::NotFound)
        .explained();
    let address = fake.address;
    assert_eq!(
        run.err,
        format!(
            "musterctl: {address} says NOT_FOUND\n  what  get agent db-99\n  why   no agent is called db-99\n  \
             do    see what there is: musterctl agent list\n"
        )
    );
}

#[tokio::test]
async fn a_caller_who_may_not_exits_with_4() {
    for (code, reason) in [
        (Code::PermissionDenied, ErrorReason::MethodNotAllowed),
        (Code::Unauthenticated, ErrorReason::CertificateRequired),
        (Code::Unauthenticated, ErrorReason::CertificateExpired),
        (Code::Unauthenticated, ErrorReason::CertificateUnknown),
    ] {
        let fake = failing(problem(code, reason, "not you")).await;
        fake.run(&["agent", "list"]).await.expect(Exit::Denied).explained();
    }
}

#[tokio::test]
async fn a_name_that_means_several_agents_exits_with_8_and_lists_them() {
    let problem = problem(
        Code::FailedPrecondition,
        ErrorReason::AmbiguousName,
        "2 agents are called db",
    )
    .with_metadata(
        "ids",
        "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21,0b9d0a6e-55c1-4a52-8f7e-0a51d0b7b0aa",
    );
    let run = failing(problem)
        .await
        .run(&["agent", "label", "db", "a=b"])
        .await
        .expect(Exit::Conflict)
        .explained();
    assert!(
        run.err
            .contains("\n          musterctl agent label 0b9d0a6e-55c1-4a52-8f7e-0a51d0b7b0aa\n"),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn a_selector_with_a_mistake_exits_with_2_and_points_at_it() {
    let problem = problem(
        Code::InvalidArgument,
        ErrorReason::InvalidSelector,
        "expected a value after `=`",
    )
    .with_metadata("position", "4");
    let run = failing(problem)
        .await
        .run(&["agent", "list", "-l", "env="])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("\n    env=\n        ^\n"), "{}", run.err);
}

#[tokio::test]
async fn a_defect_of_the_controller_exits_with_1() {
    let fake = failing(
        problem(Code::Internal, ErrorReason::Internal, "internal error").with_metadata("request_id", "01JD5R8Q"),
    );
    let run = fake
        .await
        .run(&["state", "list"])
        .await
        .expect(Exit::Failure)
        .explained();
    assert!(run.err.contains("(request 01JD5R8Q)"), "{}", run.err);
}

#[tokio::test]
async fn a_controller_that_does_not_answer_in_time_exits_with_6() {
    let fake = Fake::start(Script {
        silent: true,
        ..Default::default()
    })
    .await;
    let run = fake
        .run(&["agent", "list", "--timeout", "300ms"])
        .await
        .expect(Exit::DeadlinePassed)
        .explained();
    assert!(run.err.contains("within 300ms"), "{}", run.err);
}

#[tokio::test]
async fn a_controller_that_is_away_exits_with_3() {
    let fake = Fake::start(Script::default()).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = fs::read_to_string(fake.context())
        .unwrap()
        .replace(&fake.address.to_string(), &nobody.to_string());
    fs::write(fake.context(), text).unwrap();
    let run = fake.run(&["agent", "list"]).await.expect(Exit::Unreachable).explained();
    assert!(
        run.err.contains(&format!("cannot reach the controller at {nobody}")),
        "{}",
        run.err
    );
    assert!(run.err.contains("connection refused"), "{}", run.err);
}

#[tokio::test]
async fn a_controller_of_another_ca_exits_with_3_and_is_sent_nothing() {
    let fake = Fake::start(Script::default()).await;
    fake.write_context(&fake.context(), &Pki::new());
    let run = fake.run(&["agent", "list"]).await.expect(Exit::Unreachable).explained();
    assert!(
        run.err.contains("does not come from a CA that is trusted here"),
        "{}",
        run.err
    );
    fake.was_left_alone();
}

#[tokio::test]
async fn a_user_of_another_ca_is_told_that_the_certificate_was_refused() {
    let fake = Fake::start(Script::default()).await;
    fake.write_context_of_stranger(&fake.context(), &Pki::new());
    let run = fake.run(&["agent", "list"]).await.expect(Exit::Unreachable).explained();
    assert!(
        run.err.contains("refused the certificate that it was shown"),
        "{}",
        run.err
    );
    fake.was_left_alone();
}

#[tokio::test]
async fn something_else_than_a_controller_exits_with_3() {
    let fake = Fake::start(Script::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = fs::read_to_string(fake.context())
        .unwrap()
        .replace(&fake.address.to_string(), &address);
    fs::write(fake.context(), text).unwrap();
    let greet = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail.example.com ESMTP\r\n").await;
        std::future::pending::<()>().await;
    };
    let run = tokio::select! { run = fake.run(&["agent", "list"]) => run, () = greet => unreachable!() };
    let run = run.expect(Exit::Unreachable).explained();
    assert!(run.err.contains("does not speak TLS"), "{}", run.err);
}

#[tokio::test]
async fn a_context_file_that_others_can_read_is_not_used() {
    let fake = Fake::start(Script::default()).await;
    fs::set_permissions(fake.context(), Permissions::from_mode(0o644)).unwrap();
    let run = fake.run(&["agent", "list"]).await.expect(Exit::Failure).explained();
    assert!(run.err.contains("chmod 600 "), "{}", run.err);
    fake.was_left_alone();
}

#[tokio::test]
async fn a_server_that_is_no_address_is_explained() {
    let fake = Fake::start(Script::default()).await;
    let text = fs::read_to_string(fake.context())
        .unwrap()
        .replace(&fake.address.to_string(), "https://controller");
    fs::write(fake.context(), text).unwrap();
    let run = fake.run(&["agent", "list"]).await.expect(Exit::Unreachable).explained();
    assert!(run.err.contains("is not of the form host:port"), "{}", run.err);
}

fn object(run: &Run) -> Value {
    assert_eq!((run.err.lines().count(), run.out.as_str()), (1, ""), "{run:?}");
    serde_json::from_str(&run.err).unwrap()
}

#[tokio::test]
async fn in_json_an_error_is_one_object_on_stderr() {
    let fake = failing(problem(
        Code::NotFound,
        ErrorReason::NotFound,
        "no agent is called db-99",
    ))
    .await;
    let run = fake
        .run(&["agent", "get", "db-99", "-o", "json"])
        .await
        .expect(Exit::NotFound);
    let error = object(&run);
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&Value::from("NOT_FOUND"), &Value::from("NOT_FOUND"))
    );
    assert_eq!(
        (&error["exitCode"], &error["what"]),
        (&Value::from(5), &Value::from("get agent db-99"))
    );
    assert_eq!(error["do"][0], "see what there is: musterctl agent list");
}

#[tokio::test]
async fn a_command_line_that_cannot_be_read_exits_with_2() {
    for arguments in [
        &["agnet", "list"][..],
        &["agent"],
        &[],
        &["agent", "list", "--limit", "none"],
        &["agent", "list", "-o", "xml"],
    ] {
        let run = run(arguments, "").await.expect(Exit::Usage);
        assert_eq!(run.out, "");
        assert!(run.err.contains("Usage:") || run.err.contains("--help"), "{run:?}");
    }
    let run = run(&["agnet", "list", "-o", "json"], "").await.expect(Exit::Usage);
    assert_eq!(object(&run)["exitCode"], 2);
    assert!(
        object(&run)["why"].as_str().unwrap().contains("agent"),
        "it says what was meant: {run:?}"
    );
}

#[tokio::test]
async fn the_ways_of_other_tools_are_answered_with_those_of_this_one() {
    for (arguments, hint) in [
        (&["get", "nothing"][..], Some("musterctl agent list")),
        (&["apply", "policies/"], Some("musterctl apply -f policies/")),
        (&["agent", "show"], None),
        (&["apply", "--force"], None),
    ] {
        let run = run(arguments, "").await.expect(Exit::Usage);
        match hint {
            Some(hint) => assert!(run.err.ends_with(&format!("{hint}\n")), "{run:?}"),
            None => assert!(run.err.ends_with("try '--help'.\n"), "{run:?}"),
        }
    }
    for format in ["json", "jsonl"] {
        let run = run(&["get", "nothing", "-o", format], "").await.expect(Exit::Usage);
        assert_eq!(run.err.lines().count(), 1, "{run:?}");
    }
    let run = run(&["get", "nothing", "-o", "json"], "").await.expect(Exit::Usage);
    assert!(
        object(&run)["do"][0]
            .as_str()
            .unwrap()
            .ends_with("musterctl agent list"),
        "{run:?}"
    );
}

#[tokio::test]
async fn help_version_and_completion_need_no_controller() {
    for arguments in [
        &["--help"][..],
        &["agent", "list", "-h"],
        &["help", "apply"],
        &["--version"],
    ] {
        let run = run(arguments, "").await.expect(Exit::Success);
        assert!(!run.out.is_empty() && run.err.is_empty(), "{run:?}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run(&["version"], "").await.out, format!("musterctl {version}\n"));
    assert_eq!(run(&["version", "-o", "name"], "").await.out, format!("{version}\n"));
    for (shell, sign) in [
        ("bash", "complete -F _musterctl"),
        ("zsh", "#compdef musterctl"),
        ("fish", "complete -c musterctl"),
    ] {
        let run = run(&["completion", shell], "").await.expect(Exit::Success);
        assert!(run.out.contains(sign) && run.out.contains("__complete"), "{shell}");
    }
}

#[tokio::test]
async fn what_is_completed_is_silent_when_there_is_no_controller() {
    let config = ["--config", "/nowhere/at/all.yaml"];
    let complete = async |words: &[&str]| {
        let arguments = [&config[..], &["__complete", "--"], words].concat();
        let run = run(&arguments, "").await.expect(Exit::Success);
        assert_eq!(run.err, "", "{words:?}");
        run.out
    };
    assert_eq!(complete(&["agent", "get", ""]).await, "");
    assert_eq!(complete(&["context", "use", ""]).await, "");
    assert!(complete(&["ag"]).await.starts_with("agent\t"));
    assert!(complete(&["get", "agents", "--sel"]).await.starts_with("--selector\t"));
    assert_eq!(complete(&["apply", "-f", ""]).await, ":files\n");
}
