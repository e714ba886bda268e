//! Making a token: what of it goes where.

use muster_proto::v1;
use musterctl::exit::Exit;

use crate::fake::{Fake, Script};

const SECRET: &str = "mst_k3v9_0123456789abcdef";

async fn fake() -> Fake {
    let token = v1::CreateTokenResponse {
        token: Some(v1::Token {
            id: "k3v9".to_owned(),
            uses: 10,
            ..Default::default()
        }),
        secret: SECRET.to_owned(),
        ca_pins: vec!["sha256:aa".to_owned(), "sha256:bb".to_owned()],
        endpoints: vec!["c1:8443".to_owned(), "c2:8443".to_owned()],
    };
    Fake::start(Script {
        token,
        ..Default::default()
    })
    .await
}

#[tokio::test]
async fn the_name_of_a_token_is_the_token_alone() {
    let run = fake()
        .await
        .run(&["token", "create", "-o", "name"])
        .await
        .expect(Exit::Success);
    assert_eq!((run.out, run.err.as_str()), (format!("{SECRET}\n"), ""));
}

#[tokio::test]
async fn json_is_the_response_as_it_came() {
    let run = fake()
        .await
        .run(&["token", "create", "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.json()["secret"], SECRET);
    assert_eq!(run.json()["caPins"][1], "sha256:bb");
    assert_eq!(run.json()["token"]["id"], "k3v9");
}

#[tokio::test]
async fn the_block_shows_the_join_command_and_stderr_never_the_secret() {
    let run = fake().await.run(&["token", "create"]).await.expect(Exit::Success);
    assert_eq!(run.out.matches(SECRET).count(), 1);
    let command = "muster-agent enroll --server c1:8443 --server c2:8443 --token-file /etc/muster/join-token \
                   --ca-pin sha256:aa --ca-pin sha256:bb";
    assert!(run.out.contains(command), "{}", run.out);
    assert!(!run.err.contains("mst_"), "{}", run.err);
}

#[tokio::test]
async fn what_the_token_grants_reaches_the_controller() {
    let fake = fake().await;
    let arguments = [
        "--ttl",
        "1h",
        "--uses",
        "10",
        "--label",
        "env=prod",
        "--label",
        "role=db",
        "--description",
        "rack 7",
    ];
    fake.run(&[&["token", "create"], &arguments[..]].concat())
        .await
        .expect(Exit::Success);
    let asked = fake.asked().remove(0);
    for part in [
        "seconds: 3600",
        "uses: 10",
        r#"{"env": "prod", "role": "db"}"#,
        r#"description: "rack 7""#,
    ] {
        assert!(asked.contains(part), "{asked}");
    }
}

#[tokio::test]
async fn what_is_not_said_the_controller_or_a_template_chooses() {
    let fake = fake().await;
    let create = ["token", "create", "--template", "web"];
    fake.run(&create).await.expect(Exit::Success);
    let nothing = "ttl: None, uses: 0, labels: {}, description: \"\", agent_id: \"\", source: None, allow_reenroll: None, \
                   ephemeral: None, on_clone: None";
    let asked = fake.asked();
    assert!(
        asked[0].contains(nothing) && asked[0].contains("template: \"web\""),
        "{asked:?}"
    );
    // That it shall be nothing is said, too.
    let said = [
        "--source",
        "",
        "--no-reenroll",
        "--ephemeral",
        "never",
        "--on-clone",
        "configured",
    ];
    fake.run(&[&create[..], &said].concat()).await.expect(Exit::Success);
    let asked = fake.asked().remove(1);
    for part in [
        "source: Some(\"\")",
        "allow_reenroll: Some(false)",
        "ephemeral: Some(Duration { seconds: 0, nanos: 0 })",
        "on_clone: Some(Unspecified)",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
}
