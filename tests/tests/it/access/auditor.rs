//! An auditor's case: somebody with a scope who tries to leave it, and an insider who edits the log of that in the database.

use std::collections::BTreeSet;

use muster_proto::{
    ids::AgentId,
    v1::{
        self, agent_service_client::AgentServiceClient, create_grant_request::Subject,
        grant_service_client::GrantServiceClient, policy::Spec, policy_service_client::PolicyServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use muster_tests::{Controller, operators::Operator, tools};
use serde_json::Value;

const DORA: &str = "user/dora";

fn preregistration(id: &str, env: &str) -> v1::PreregisterAgentRequest {
    v1::PreregisterAgentRequest {
        id: id.to_owned(),
        labels: [("env".to_owned(), env.to_owned())].into(),
        ..v1::PreregisterAgentRequest::default()
    }
}

fn token(env: &str, agent: &str) -> v1::CreateTokenRequest {
    v1::CreateTokenRequest {
        labels: [("env".to_owned(), env.to_owned())].into(),
        agent_id: agent.to_owned(),
        ..v1::CreateTokenRequest::default()
    }
}

fn policy(scope: &str) -> v1::ApplyPoliciesRequest {
    let run = v1::Run {
        memory: Some(v1::MemoryRun::default()),
        ..v1::Run::default()
    };
    let check = v1::Check {
        selector: "*".to_owned(),
        run: Some(run),
        ..v1::Check::default()
    };
    let metadata = v1::PolicyMetadata {
        name: "mine".to_owned(),
        scope: scope.to_owned(),
        ..v1::PolicyMetadata::default()
    };
    v1::ApplyPoliciesRequest {
        policies: vec![v1::Policy {
            metadata: Some(metadata),
            spec: Some(Spec::Check(check)),
            ..v1::Policy::default()
        }],
    }
}

/// Ten ways out of the scope env=dev; how many were shut.
async fn try_to_leave(dora: &Operator, dev: &str, prod: &str) -> usize {
    let mut agents = AgentServiceClient::new(dora.service());
    let mut tokens = TokenServiceClient::new(dora.service());
    let mut policies = PolicyServiceClient::new(dora.service());
    let mut grants = GrantServiceClient::new(dora.service());
    let label = |agent: &str, env: &str| v1::UpdateAgentLabelsRequest {
        agent: agent.to_owned(),
        set: [("env".to_owned(), env.to_owned())].into(),
        ..v1::UpdateAgentLabelsRequest::default()
    };
    let revoke = v1::RevokeAgentRequest {
        agent: prod.to_owned(),
        ..v1::RevokeAgentRequest::default()
    };
    let delete = v1::DeleteAgentRequest {
        agent: prod.to_owned(),
        revision: 0,
    };
    let grant = v1::CreateGrantRequest {
        subject: Some(Subject::User("dora".to_owned())),
        role: "operator".to_owned(),
        scope: String::new(),
    };
    let tried = [
        agents.update_agent_labels(label(prod, "dev")).await.is_err(),
        agents.update_agent_labels(label(dev, "prod")).await.is_err(),
        agents.revoke_agent(revoke).await.is_err(),
        agents.delete_agent(delete).await.is_err(),
        agents.preregister_agent(preregistration(prod, "dev")).await.is_err(),
        agents
            .preregister_agent(preregistration(&AgentId::random().to_string(), "prod"))
            .await
            .is_err(),
        tokens.create_token(token("prod", "")).await.is_err(),
        tokens.create_token(token("dev", prod)).await.is_err(),
        policies.apply_policies(policy("env=prod")).await.is_err(),
        grants.create_grant(grant).await.is_err(),
    ];
    tried.iter().filter(|is_shut| **is_shut).count()
}

fn entries(controller: &Controller, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["audit", "list"];
    all.extend(arguments);
    controller.ctl().items(&all).expect("entries")
}

#[test]
fn ten_ways_out_of_a_scope_are_shut_and_on_file_and_what_an_insider_does_to_the_file_is_named() {
    let mut controller = Controller::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let [dev, prod] = [AgentId::random().to_string(), AgentId::random().to_string()];
    runtime.block_on(async {
        let admin = Operator::admin(&controller).await;
        let mut agents = AgentServiceClient::new(admin.service());
        for (id, env) in [(&dev, "dev"), (&prod, "prod")] {
            agents
                .preregister_agent(preregistration(id, env))
                .await
                .expect("an agent");
        }
        let dora = admin.create_user("dora", "operator", "env=dev").await.expect("a user");
        let dora = Operator::with(&controller, &dora).await;
        assert_eq!(try_to_leave(&dora, &dev, &prod).await, 10);
    });

    // Each is there with who, from where, what and why not; what was let in as far as the call has a beginning too.
    let of_dora = entries(&controller, &["--caller", DORA]);
    let ended: Vec<&Value> = of_dora
        .iter()
        .filter(|entry| entry["outcome"] != "AUDIT_OUTCOME_BEGUN")
        .collect();
    assert_eq!(ended.len(), 10, "{of_dora:#?}");
    for entry in &ended {
        assert_eq!(entry["caller"], DORA);
        assert_eq!(entry["source"], "127.0.0.1");
        assert_ne!(entry["reason"].as_str().unwrap_or_default(), "", "{entry}");
        assert_ne!(entry["outcome"], "AUDIT_OUTCOME_DONE", "{entry}");
    }
    let methods: BTreeSet<&str> = ended.iter().filter_map(|entry| entry["method"].as_str()).collect();
    assert_eq!(methods.len(), 7, "{methods:?}");
    let ctl = controller.ctl();
    let head = controller
        .path("head.json")
        .into_os_string()
        .into_string()
        .expect("text");
    ctl.ok(&["audit", "head", "--file", &head]);
    ctl.ok(&["audit", "verify", "--head", &head]);
    // A controller that stops has signed the last entry.
    controller.stop();
    controller.run();
    ctl.ok(&["audit", "verify", "--head", &head]);

    // What she did is to have been somebody else, not to have been, and to have gone well.
    let seqs: Vec<i64> = ended
        .iter()
        .filter_map(|entry| entry["seq"].as_str()?.parse().ok())
        .collect();
    let [renamed, removed, emptied, ..] = seqs[..] else {
        panic!("{seqs:?}")
    };
    let tampered = controller.tamper(&format!("UPDATE audit SET caller = 'user/eve' WHERE seq = {renamed}"));
    if !tampered {
        return tools::skipped("an audit log that was edited", "sqlite3 is not installed");
    }
    assert!(controller.tamper(&format!("DELETE FROM audit WHERE seq = {removed}")));
    let other = format!("UPDATE audit SET entry = (SELECT entry FROM audit WHERE seq = 1) WHERE seq = {emptied}");
    assert!(controller.tamper(&other));
    let found = ctl.run(&["audit", "verify", "--head", &head]).expect_code(9).stdout;
    for finding in [
        format!("entry {renamed} is found under what it does not say"),
        format!("entry {removed} is missing"),
        format!("entry {emptied} was changed"),
    ] {
        assert!(found.contains(&finding), "{finding}: {found}");
    }
    // The end of the log, with the heads that speak of it.
    let last = seqs[seqs.len() - 1].min(emptied) - 1;
    for table in ["audit", "audit_heads"] {
        assert!(controller.tamper(&format!("DELETE FROM {table} WHERE seq > {last}")));
    }
    let found = ctl.run(&["audit", "verify", "--head", &head]).expect_code(9).stdout;
    assert!(
        found.contains(&format!("the log ends with entry {last}, and entry ")),
        "{found}"
    );
    // Nor is it believed by the controller when it starts again.
    controller.kill();
    controller.run();
    let told = controller.ctl().events("AUDIT_LOG_ALTERED").expect("events");
    assert_eq!(told.len(), 1, "{told:?}");
}
