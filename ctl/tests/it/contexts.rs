//! The context file as commands change it, protected contexts, and calls shown as commands of others.

use std::{fs, os::unix::fs::PermissionsExt as _};

use muster_proto::v1;
use musterctl::exit::Exit;

use crate::fake::{Fake, Pki, Script};

async fn fake() -> Fake {
    Fake::start(Script {
        agents: vec![v1::Agent {
            id: "id-of-a".to_owned(),
            name: "a".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    })
    .await
}

const LABEL: [&str; 4] = ["agent", "label", "a", "it=s"];

#[tokio::test]
async fn contexts_are_listed_chosen_renamed_and_deleted() {
    let fake = fake().await;
    let run = fake.run(&["context", "list", "-o", "json"]).await.expect(Exit::Success);
    let test = &run.json()["items"][0];
    assert_eq!((&test["name"], &test["isCurrent"]), (&"test".into(), &true.into()));
    assert!(test["identity"].as_str().unwrap().contains("admin"), "{test}");
    assert!(
        test["expireTime"].is_string() && !run.out.contains("PRIVATE"),
        "{run:?}"
    );

    let run = fake
        .run(&["context", "rename", "test", "prod"])
        .await
        .expect(Exit::Success);
    assert!(run.out.contains("prod"), "{run:?}");
    fake.run(&["agent", "list"]).await.expect(Exit::Success);
    fake.run(&["--context", "prod", "agent", "list"])
        .await
        .expect(Exit::Success);
    let mode = fs::metadata(fake.context()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    for arguments in [
        &["context", "use", "pord"][..],
        &["context", "get", "pord"],
        &["context", "delete", "pord"],
        &["context", "protect", "pord"],
    ] {
        let run = fake.run(arguments).await.expect(Exit::NotFound).explained();
        assert!(run.err.contains("did you mean prod?"), "{run:?}");
    }
    fake.run(&["context", "rename", "prod", "prod"])
        .await
        .expect(Exit::Conflict)
        .explained();
    let run = fake.run(&["delete", "context", "prod"]).await.expect(Exit::Success);
    assert_eq!(run.out, "context prod deleted\n");
    let run = fake.run(&["context", "list", "-o", "name"]).await.expect(Exit::Success);
    assert_eq!(run.out, "");
}

#[tokio::test]
async fn a_change_in_a_protected_context_wants_its_name() {
    let fake = fake().await;
    fake.run(&LABEL).await.expect(Exit::Success);
    fake.run(&["context", "protect", "test"]).await.expect(Exit::Success);
    let changes = || fake.asked().iter().filter(|asked| asked.contains("Update")).count();
    let before = changes();

    fake.run(&["agent", "list"]).await.expect(Exit::Success);
    let run = fake.run(&LABEL).await.expect(Exit::Usage).explained();
    assert!(run.err.contains("--confirm test"), "{run:?}");
    let run = fake.run(&[&LABEL[..], &["--confirm", "prod"]].concat()).await;
    run.expect(Exit::Usage).explained();
    assert_eq!(changes(), before, "nothing went out");
    let run = fake
        .run(&[&LABEL[..], &["-o", "json"]].concat())
        .await
        .expect(Exit::Usage);
    assert_eq!(run.err.lines().count(), 1, "{run:?}");

    fake.run(&[&LABEL[..], &["--confirm", "test"]].concat())
        .await
        .expect(Exit::Success);
    assert_eq!(changes(), before + 1);
    // Nor is the protection itself taken away by accident.
    fake.run(&["context", "unprotect", "test"])
        .await
        .expect(Exit::Usage)
        .explained();
    fake.run(&["context", "delete", "test"])
        .await
        .expect(Exit::Usage)
        .explained();
    let unprotect = ["context", "unprotect", "test", "--confirm", "test"];
    fake.run(&unprotect).await.expect(Exit::Success);
    fake.run(&LABEL).await.expect(Exit::Success);
}

#[tokio::test]
async fn pem_files_are_written_for_their_owner_alone() {
    let fake = fake().await;
    let run = fake
        .run(&["context", "export-pem", "-o", "json"])
        .await
        .expect(Exit::Success);
    let folder = fake.folder().join("pem");
    let names = ["test.ca.pem", "test.cert.pem", "test.key.pem"];
    let paths: Vec<String> = names
        .iter()
        .map(|name| folder.join(name).display().to_string())
        .collect();
    assert_eq!(run.json()["files"], serde_json::json!(paths));
    for path in &paths {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o7777,
            0o600,
            "{path}"
        );
    }
}

#[tokio::test]
async fn calls_are_shown_as_commands_that_name_keys_by_their_files() {
    let fake = fake().await;
    let run = fake
        .run(&["--show-rpc", "agent", "list", "-l", "env in (a,b)", "-o", "json"])
        .await;
    let run = run.expect(Exit::Success);
    assert!(run.json()["items"].is_array());
    let shown = |text: &str| run.err.contains(text);
    assert!(shown("# muster.v1.AgentService/ListAgents\n"), "{run:?}");
    assert!(shown("context export-pem "), "the files are not there yet: {run:?}");
    assert!(
        shown("curl --silent --show-error --fail-with-body --insecure --pinnedpubkey sha256//"),
        "{run:?}"
    );
    assert!(shown("/v1/agents?selector=env%20in%20%28a%2Cb%29"), "{run:?}");
    assert!(
        shown(r#"-d '{"selector":"env in (a,b)"}'"#) && shown("test.key.pem"),
        "{run:?}"
    );
    assert!(!shown("PRIVATE KEY"), "{run:?}");

    fake.run(&["context", "export-pem"]).await.expect(Exit::Success);
    let run = fake
        .run(&[&["--show-rpc"], &LABEL[..]].concat())
        .await
        .expect(Exit::Success);
    assert!(!run.err.contains("export-pem"), "{run:?}");
    assert!(
        run.err.contains("--request PATCH") && run.err.contains(r#"'{"set":{"it":"s"}}'"#),
        "{run:?}"
    );
    // With another certificate they are to be written again.
    fake.write_context(&fake.context(), &Pki::new());
    let run = fake.run(&["context", "list"]).await.expect(Exit::Success);
    assert!(run.out.contains("test"), "{run:?}");
}
