//! Ways out of a scope, and ways to more than one has: one case for every resource, each refused, and nothing of it done.

mod token_templates;

use std::collections::BTreeMap;

use muster_proto::v1::{
    agent_service_client::AgentServiceClient, api_key_service_client::ApiKeyServiceClient,
    ca_service_client::CaServiceClient, certificate_service_client::CertificateServiceClient,
    controller_service_client::ControllerServiceClient, grant_service_client::GrantServiceClient,
    policy_service_client::PolicyServiceClient, role_service_client::RoleServiceClient,
    token_service_client::TokenServiceClient, user_service_client::UserServiceClient,
};
use muster_proto::{
    ids::AgentId,
    v1::{self, create_grant_request::Subject, policy::Spec},
};
use muster_tests::{
    Controller,
    agent::Setup,
    attacks::dialer,
    operators::{Operator, outcome},
    peer::Peer,
};
use tokio::runtime::Runtime;

const OUT: &str = "PERMISSION_DENIED OUT_OF_SCOPE";
const GONE: &str = "NOT_FOUND NOT_FOUND";
const MISSING: &str = "PERMISSION_DENIED PERMISSION_MISSING";
const ESCALATION: &str = "PERMISSION_DENIED ESCALATION";

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn check(name: &str, selector: &str, scope: &str) -> v1::Policy {
    let run = v1::Run {
        memory: Some(v1::MemoryRun::default()),
        ..v1::Run::default()
    };
    v1::Policy {
        kind: "Check".to_owned(),
        metadata: Some(v1::PolicyMetadata {
            name: name.to_owned(),
            scope: scope.to_owned(),
            ..v1::PolicyMetadata::default()
        }),
        spec: Some(Spec::Check(v1::Check {
            selector: selector.to_owned(),
            run: Some(run),
            ..v1::Check::default()
        })),
        ..v1::Policy::default()
    }
}

/// Everybody who plays a part.
struct Stage {
    controller: Controller,
    admin: Operator,
    /// Operator of env=dev.
    dora: Operator,
    /// `dev` and `prod`, the second with team=web as well.
    dev: String,
    prod: String,
}

impl Stage {
    async fn set() -> Self {
        let controller = Controller::start();
        let admin = Operator::admin(&controller).await;
        let dora = admin.create_user("dora", "operator", "env=dev").await.expect("a user");
        admin.create_user("will", "operator", "team=web").await.expect("a user");
        let stage = Self {
            dora: Operator::with(&controller, &dora).await,
            dev: preregistered(&admin, &[("env", "dev")]).await,
            prod: preregistered(&admin, &[("env", "prod"), ("team", "web")]).await,
            admin,
            controller,
        };
        let policies = vec![check("everywhere", "*", "")];
        let mut of_admin = PolicyServiceClient::new(stage.admin.service());
        of_admin
            .apply_policies(v1::ApplyPoliciesRequest { policies })
            .await
            .expect("applied");
        stage
    }

    async fn apply(&self, by: &Operator, policy: v1::Policy) -> String {
        let request = v1::ApplyPoliciesRequest { policies: vec![policy] };
        outcome(&PolicyServiceClient::new(by.service()).apply_policies(request).await)
    }

    async fn label(&self, agent: &str, set: &[(&str, &str)], remove: &[&str]) -> String {
        let request = v1::UpdateAgentLabelsRequest {
            agent: agent.to_owned(),
            set: labels(set),
            remove: remove.iter().map(|&key| key.to_owned()).collect(),
            revision: 0,
        };
        outcome(
            &AgentServiceClient::new(self.dora.service())
                .update_agent_labels(request)
                .await,
        )
    }

    async fn token(&self, request: v1::CreateTokenRequest) -> Result<String, String> {
        let made = TokenServiceClient::new(self.dora.service()).create_token(request).await;
        let text = outcome(&made);
        made.map(|made| made.into_inner().secret).map_err(|_| text)
    }
}

async fn preregistered(by: &Operator, of: &[(&str, &str)]) -> String {
    let id = AgentId::random().to_string();
    preregister(by, &id, of, false).await.expect("pre-registered");
    id
}

async fn preregister(by: &Operator, id: &str, of: &[(&str, &str)], adopt: bool) -> Result<(), String> {
    let request = v1::PreregisterAgentRequest {
        id: id.to_owned(),
        labels: labels(of),
        adopt,
        ..v1::PreregisterAgentRequest::default()
    };
    let made = AgentServiceClient::new(by.service()).preregister_agent(request).await;
    made.as_ref().map(|_| ()).map_err(|_| outcome(&made))
}

fn on_stage(act: impl AsyncFnOnce(&Stage)) {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async { act(&Stage::set().await).await });
}

#[test]
fn agents_out_of_scope_are_not_there_and_none_is_led_out_or_in() {
    on_stage(async |stage| {
        let mut agents = AgentServiceClient::new(stage.dora.service());
        let listed = agents
            .list_agents(v1::ListAgentsRequest::default())
            .await
            .expect("a list")
            .into_inner();
        let ids: Vec<&str> = listed.items.iter().map(|agent| agent.id.as_str()).collect();
        assert_eq!((ids, listed.total_size), (vec![stage.dev.as_str()], 1));
        let prod = || stage.prod.clone();
        let get = v1::GetAgentRequest {
            agent: prod(),
            read_mask: None,
        };
        assert_eq!(outcome(&agents.get_agent(get).await), GONE);
        let revoke = v1::RevokeAgentRequest {
            agent: prod(),
            reason: String::new(),
        };
        assert_eq!(outcome(&agents.revoke_agent(revoke).await), GONE);
        assert_eq!(
            outcome(
                &agents
                    .delete_agent(v1::DeleteAgentRequest {
                        agent: prod(),
                        revision: 0,
                    })
                    .await
            ),
            GONE
        );
        let readmit = v1::ReadmitAgentRequest {
            agent: prod(),
            window: None,
        };
        assert_eq!(outcome(&agents.readmit_agent(readmit).await), GONE);
        let fork = v1::ForkAgentRequest {
            agent: prod(),
            window: None,
        };
        assert_eq!(outcome(&agents.fork_agent(fork).await), GONE);

        assert_eq!(
            stage.label(&stage.prod, &[("env", "dev")], &[]).await,
            GONE,
            "fetched into the scope"
        );
        assert_eq!(
            stage.label(&stage.dev, &[("env", "prod")], &[]).await,
            OUT,
            "led out of it"
        );
        // The label comes from the pre-registration, so it can be taken away.
        assert_eq!(stage.label(&stage.dev, &[], &["env"]).await, OUT);
        assert_eq!(
            stage.label(&stage.dev, &[("team", "web")], &[]).await,
            OUT,
            "into somebody else's"
        );
        assert_eq!(stage.label(&stage.dev, &[("rack", "7")], &[]).await, "OK");

        let new = AgentId::random().to_string();
        assert_eq!(
            preregister(&stage.dora, &new, &[("env", "prod")], false).await,
            Err(OUT.into())
        );
        assert_eq!(preregister(&stage.dora, &new, &[], false).await, Err(OUT.into()));
        assert_eq!(
            preregister(&stage.dora, &new, &[("env", "dev"), ("team", "web")], false).await,
            Err(OUT.into())
        );
        let taken = Err("ALREADY_EXISTS ALREADY_EXISTS".to_owned());
        assert_eq!(
            preregister(&stage.dora, &stage.prod, &[("env", "dev")], true).await,
            taken,
            "adopted"
        );
        assert_eq!(preregister(&stage.dora, &new, &[("env", "dev")], false).await, Ok(()));
    });
}

#[test]
fn tokens_make_agents_of_the_scope_alone() {
    on_stage(async |stage| {
        let with = |of: &[(&str, &str)]| v1::CreateTokenRequest {
            labels: labels(of),
            ..v1::CreateTokenRequest::default()
        };
        assert_eq!(stage.token(with(&[])).await, Err(OUT.into()));
        assert_eq!(stage.token(with(&[("env", "prod")])).await, Err(OUT.into()));
        assert_eq!(
            stage.token(with(&[("env", "dev"), ("team", "web")])).await,
            Err(OUT.into())
        );
        let elsewhere = v1::CreateTokenRequest {
            scope: "env=prod".to_owned(),
            ..with(&[("env", "prod")])
        };
        assert_eq!(stage.token(elsewhere).await, Err(OUT.into()));
        let bound = v1::CreateTokenRequest {
            agent_id: stage.prod.clone(),
            ..with(&[("env", "dev")])
        };
        assert_eq!(stage.token(bound).await, Err(GONE.into()));
        // A token of the own scope for a machine that says it is one of another.
        let reenroll = v1::CreateTokenRequest {
            allow_reenroll: Some(true),
            ..with(&[("env", "dev")])
        };
        let secret = stage.token(reenroll).await.expect("a token");
        let status = std::thread::scope(|scope| {
            let enroll = || Peer::new("intruder").enroll_as(&stage.controller, &secret, &stage.prod);
            scope
                .spawn(enroll)
                .join()
                .expect("a thread")
                .expect_err("it is refused")
        });
        assert_eq!(dialer::text(&status), OUT);

        // Tokens of others are not there.
        let mut of_admin = TokenServiceClient::new(stage.admin.service());
        let made = of_admin
            .create_token(with(&[("env", "dev")]))
            .await
            .expect("a token")
            .into_inner();
        let id = made.token.expect("a token").id;
        let mut tokens = TokenServiceClient::new(stage.dora.service());
        assert_eq!(
            outcome(&tokens.get_token(v1::GetTokenRequest { id: id.clone() }).await),
            GONE
        );
        assert_eq!(
            outcome(&tokens.revoke_token(v1::RevokeTokenRequest { id, revision: 0 }).await),
            GONE
        );
        let listed = tokens
            .list_tokens(v1::ListTokensRequest {
                show_ended: true,
                ..Default::default()
            })
            .await;
        let scopes: Vec<String> = listed
            .expect("a list")
            .into_inner()
            .items
            .into_iter()
            .map(|token| token.scope)
            .collect();
        assert_eq!(scopes, ["env=dev"]);
    });
}

#[test]
fn policies_reach_the_scope_of_who_made_them_whatever_they_select() {
    on_stage(async |stage| {
        assert_eq!(stage.apply(&stage.dora, check("mine", "*", "")).await, "OK");
        let mut of_admin = PolicyServiceClient::new(stage.admin.service());
        let get = |name: &str| v1::GetPolicyRequest {
            kind: "Check".to_owned(),
            name: name.to_owned(),
            read_mask: None,
        };
        let mine = of_admin
            .get_policy(get("mine"))
            .await
            .expect("the policy")
            .into_inner()
            .policy
            .expect("a policy");
        assert_eq!(mine.metadata.expect("metadata").scope, "env=dev");
        assert_eq!(mine.counts.expect("counts").assigned, 1, "of two agents");
        assert_eq!(
            stage.apply(&stage.dora, check("mine", "env=prod", "")).await,
            "OK",
            "and selects nobody"
        );
        let mine = of_admin
            .get_policy(get("mine"))
            .await
            .expect("the policy")
            .into_inner()
            .policy
            .expect("a policy");
        assert_eq!(mine.counts.expect("counts").assigned, 0);

        assert_eq!(stage.apply(&stage.dora, check("other", "*", "env=prod")).await, OUT);
        assert_eq!(stage.apply(&stage.dora, check("mine", "*", "env=prod")).await, OUT);
        assert_eq!(
            stage.apply(&stage.dora, check("everywhere", "env=dev", "")).await,
            "ALREADY_EXISTS ALREADY_EXISTS"
        );
        let mut policies = PolicyServiceClient::new(stage.dora.service());
        assert_eq!(outcome(&policies.get_policy(get("everywhere")).await), GONE);
        let delete = v1::DeletePolicyRequest {
            kind: "Check".to_owned(),
            name: "everywhere".to_owned(),
            revision: 0,
        };
        assert_eq!(outcome(&policies.delete_policy(delete).await), GONE);
        let listed = policies
            .list_policies(v1::ListPoliciesRequest::default())
            .await
            .expect("a list")
            .into_inner();
        assert_eq!((listed.items.len(), listed.total_size), (1, 1));
        // Of an agent's own word nothing is in a scope.
        let claim = stage.controller.token(&["--label", "env=prod"]);
        Setup::new("claimant", claim)
            .label("env", "dev")
            .enroll()
            .expect_code(0);
        let mut agents = AgentServiceClient::new(stage.dora.service());
        let get = v1::GetAgentRequest {
            agent: "claimant".to_owned(),
            read_mask: None,
        };
        assert_eq!(outcome(&agents.get_agent(get).await), GONE);
    });
}

#[test]
fn certificates_are_there_for_their_scope() {
    on_stage(async |stage| {
        for (name, env) in [("web-dev", "env=dev"), ("web-prod", "env=prod")] {
            Setup::new(name, stage.controller.token(&["--label", env]))
                .enroll()
                .expect_code(0);
        }
        let mut of_admin = CertificateServiceClient::new(stage.admin.service());
        let mut certificates = CertificateServiceClient::new(stage.dora.service());
        let all = of_admin.list_certificates(v1::ListCertificatesRequest::default()).await;
        let all = all.expect("a list").into_inner().items;
        let seen = certificates
            .list_certificates(v1::ListCertificatesRequest::default())
            .await;
        let seen: Vec<String> = seen
            .expect("a list")
            .into_inner()
            .items
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!((all.len(), seen), (2, vec!["web-dev".to_owned()]));
        let of_prod = all
            .into_iter()
            .find(|it| it.name == "web-prod")
            .expect("a certificate")
            .serial;
        let revoke = v1::RevokeCertificateRequest {
            serial: of_prod,
            reason: String::new(),
        };
        assert_eq!(outcome(&certificates.revoke_certificate(revoke).await), GONE);
        let of_agent = v1::ListCertificatesRequest {
            agent: "web-prod".to_owned(),
            ..Default::default()
        };
        assert_eq!(outcome(&certificates.list_certificates(of_agent).await), GONE);
    });
}

#[test]
fn what_is_about_the_whole_is_closed_to_who_has_a_scope() {
    on_stage(async |stage| {
        let by = &stage.dora;
        let mut users = UserServiceClient::new(by.service());
        let mut controllers = ControllerServiceClient::new(by.service());
        let mut cas = CaServiceClient::new(by.service());
        let drain = controllers.drain_controller(v1::DrainControllerRequest::default());
        let refused = [
            outcome(&users.list_users(v1::ListUsersRequest::default()).await),
            outcome(&drain.await),
            outcome(&cas.retire_ca(v1::RetireCaRequest::default()).await),
            outcome(
                &GrantServiceClient::new(by.service())
                    .create_grant(grant("dora", "admin", ""))
                    .await,
            ),
            outcome(
                &RoleServiceClient::new(by.service())
                    .create_role(role("mine", &["*"]))
                    .await,
            ),
            by.create_user("mallory", "operator", "env=dev")
                .await
                .map(drop)
                .map_err(|it| dialer::text(&it))
                .unwrap_err(),
            by.create_key("operator", "env=dev", &[])
                .await
                .map(drop)
                .map_err(|it| dialer::text(&it))
                .unwrap_err(),
        ];
        assert!(refused.iter().all(|refused| refused == MISSING), "{refused:?}");
    });
}

fn grant(user: &str, role: &str, scope: &str) -> v1::CreateGrantRequest {
    v1::CreateGrantRequest {
        subject: Some(Subject::User(user.to_owned())),
        role: role.to_owned(),
        scope: scope.to_owned(),
    }
}

fn role(name: &str, permissions: &[&str]) -> v1::CreateRoleRequest {
    v1::CreateRoleRequest {
        name: name.to_owned(),
        permissions: permissions.iter().map(|&it| it.to_owned()).collect(),
        ..v1::CreateRoleRequest::default()
    }
}

#[test]
fn nobody_gives_to_anybody_what_it_does_not_have_for_everything() {
    on_stage(async |stage| {
        let mut roles = RoleServiceClient::new(stage.admin.service());
        let manages = ["users.*", "roles.*", "grants.*", "apikeys.*", "agents.read"];
        roles.create_role(role("manager", &manages)).await.expect("a role");
        let max = stage.admin.create_user("max", "manager", "").await.expect("a user");
        // Everything, but for a part of the fleet only.
        let mut grants = GrantServiceClient::new(stage.admin.service());
        grants
            .create_grant(grant("max", "admin", "env=dev"))
            .await
            .expect("a grant");
        let max = Operator::with(&stage.controller, &max).await;

        let mut roles = RoleServiceClient::new(max.service());
        let mut grants = GrantServiceClient::new(max.service());
        let update = v1::UpdateRoleRequest {
            name: "manager".to_owned(),
            permissions: vec!["*".to_owned()],
            ..v1::UpdateRoleRequest::default()
        };
        let text = |made: Result<(), tonic::Status>| made.map_err(|status| dialer::text(&status)).unwrap_err();
        let renew = v1::RenewUserRequest {
            name: "tester".to_owned(),
            csr: muster_certs::csr::create(&muster_certs::key::KeyPair::generate().expect("a key")).expect("a request"),
            ttl: None,
        };
        let refused = [
            outcome(&roles.create_role(role("mine", &["*"])).await),
            outcome(&roles.create_role(role("mine", &["agents.*"])).await),
            outcome(&roles.update_role(update).await),
            outcome(&grants.create_grant(grant("max", "admin", "")).await),
            outcome(&grants.create_grant(grant("max", "operator", "env=prod")).await),
            // What it has for env=dev it may do there, and not hand on.
            outcome(&grants.create_grant(grant("dora", "operator", "env=dev")).await),
            text(max.create_user("mallory", "admin", "").await.map(drop)),
            text(max.create_key("admin", "", &[]).await.map(drop)),
            text(max.create_key("operator", "env=dev", &[]).await.map(drop)),
            outcome(&UserServiceClient::new(max.service()).renew_user(renew).await),
        ];
        for (index, refused) in refused.iter().enumerate() {
            assert_eq!(refused, ESCALATION, "case {index}");
        }
        // What it has, it gives.
        assert_eq!(
            outcome(&roles.create_role(role("looker", &["agents.read"])).await),
            "OK"
        );
        assert_eq!(outcome(&grants.create_grant(grant("dora", "looker", "")).await), "OK");
        assert!(max.create_key("looker", "env=prod", &[]).await.is_ok());
        // Roles that are built in stay, and those in use.
        let delete = |name: &str| v1::DeleteRoleRequest {
            name: name.to_owned(),
            revision: 0,
        };
        assert_eq!(
            outcome(&roles.delete_role(delete("admin")).await),
            "FAILED_PRECONDITION BUILT_IN"
        );
        assert_eq!(
            outcome(&roles.delete_role(delete("looker")).await),
            "FAILED_PRECONDITION IN_USE"
        );
    });
}

#[test]
fn the_last_admin_stays_and_a_right_that_is_taken_is_gone_at_once() {
    on_stage(async |stage| {
        let mut users = UserServiceClient::new(stage.admin.service());
        let mut grants = GrantServiceClient::new(stage.admin.service());
        // The one that every installation begins with.
        let first = v1::RevokeUserRequest {
            name: "admin".to_owned(),
            reason: String::new(),
        };
        assert_eq!(outcome(&users.revoke_user(first).await), "OK");
        let last = "FAILED_PRECONDITION LAST_ADMIN";
        let revoke = v1::RevokeUserRequest {
            name: "tester".to_owned(),
            reason: String::new(),
        };
        assert_eq!(outcome(&users.revoke_user(revoke).await), last);
        let delete = |id: &str| v1::DeleteGrantRequest {
            id: id.to_owned(),
            revision: 0,
        };
        assert_eq!(outcome(&grants.delete_grant(delete("admin-tester")).await), last);
        // A key with everything is no way back in.
        stage.admin.create_key("admin", "", &[]).await.expect("a key");
        assert_eq!(outcome(&grants.delete_grant(delete("admin-tester")).await), last);

        let of_dora = v1::ListGrantsRequest {
            user: "dora".to_owned(),
            ..Default::default()
        };
        let found = grants.list_grants(of_dora).await.expect("a list").into_inner().items;
        let mut agents = AgentServiceClient::new(stage.dora.service());
        let mut watch = agents
            .watch_agents(v1::WatchAgentsRequest::default())
            .await
            .expect("a watch")
            .into_inner();
        assert_eq!(outcome(&grants.delete_grant(delete(&found[0].id)).await), "OK");
        assert_eq!(
            outcome(&agents.list_agents(v1::ListAgentsRequest::default()).await),
            MISSING
        );
        let end = loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the watch ended without a word"),
                Err(status) => break dialer::text(&status),
            }
        };
        assert_eq!(end, "UNAVAILABLE RIGHTS_CHANGED");
        let mut keys = ApiKeyServiceClient::new(stage.admin.service());
        let (key, secret) = stage.admin.create_key("viewer", "env=dev", &[]).await.expect("a key");
        let by_key = Operator::with_key(&stage.controller, &secret).await;
        let mut agents = AgentServiceClient::new(by_key.service());
        assert_eq!(
            outcome(&agents.list_agents(v1::ListAgentsRequest::default()).await),
            "OK"
        );
        keys.revoke_api_key(v1::RevokeApiKeyRequest { id: key.id })
            .await
            .expect("revoked");
        let refused = outcome(&agents.list_agents(v1::ListAgentsRequest::default()).await);
        assert_eq!(refused, "UNAUTHENTICATED API_KEY_INVALID");
    });
}
