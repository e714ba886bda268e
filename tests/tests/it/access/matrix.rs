//! Every method × every caller × every transport, against a table of its own. What gets through the door is a message that cannot
//! be read, so that nothing is done.

use std::collections::{BTreeMap, BTreeSet};

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{api_key_service_client::ApiKeyServiceClient, user_service_client::UserServiceClient};
use muster_proto::{json::descriptor_pool, v1::RevokeApiKeyRequest, v1::RevokeUserRequest};
use muster_tests::{
    Controller,
    attacks::{
        dialer::{Call, Dialer},
        forge::Credentials,
    },
    operators::Operator,
};

/// What opens each method of the API; `any`: every operator, whatever is granted to it.
const NEEDS: &[(&str, &str)] = &[
    ("AccessService/GetCaller", "any"),
    ("AgentService/ListAgents", "agents.read"),
    ("AgentService/GetAgent", "agents.read"),
    ("AgentService/WatchAgents", "agents.read"),
    ("AgentService/UpdateAgentLabels", "agents.label"),
    ("AgentService/PreregisterAgent", "agents.enroll"),
    ("AgentService/RevokeAgent", "agents.revoke"),
    ("AgentService/DeleteAgent", "agents.delete"),
    ("AgentService/ReadmitAgent", "agents.enroll"),
    ("AgentService/ForkAgent", "agents.enroll"),
    ("ApiKeyService/CreateApiKey", "apikeys.write"),
    ("ApiKeyService/ListApiKeys", "apikeys.read"),
    ("ApiKeyService/GetApiKey", "apikeys.read"),
    ("ApiKeyService/RevokeApiKey", "apikeys.write"),
    ("AuditService/ListAuditEntries", "audit.read"),
    ("AuditService/ExportAudit", "audit.verify"),
    ("AuditService/GetAuditHead", "audit.verify"),
    ("CaService/GetCaStatus", "ca.read"),
    ("CaService/PrepareCa", "ca.write"),
    ("CaService/ActivateCa", "ca.write"),
    ("CaService/RetireCa", "ca.write"),
    ("CertificateService/ListCertificates", "agents.read"),
    ("CertificateService/RevokeCertificate", "agents.revoke"),
    ("ControllerService/GetController", "controller.read"),
    ("ControllerService/DrainController", "controller.drain"),
    ("EventService/ListEvents", "events.read"),
    ("ExplainService/ExplainCheck", "policies.read"),
    ("ExplainService/ExplainAccess", "any"),
    ("GrantService/CreateGrant", "grants.write"),
    ("GrantService/ListGrants", "grants.read"),
    ("GrantService/GetGrant", "grants.read"),
    ("GrantService/DeleteGrant", "grants.write"),
    ("HistoryService/ListResults", "results.read"),
    ("HistoryService/ListHistoryUsage", "results.read"),
    ("LogService/ListLogs", "logs.read"),
    // The kinds that are named take more, which `manifests` tests.
    ("ManifestService/PlanManifests", "any"),
    ("ManifestService/ApplyManifests", "any"),
    ("ManifestService/ListManifestVersions", "any"),
    ("MetricService/QueryMetrics", "metrics.read"),
    ("PolicyService/FreezePolicies", "policies.freeze"),
    ("PolicyService/UnfreezePolicies", "policies.freeze"),
    ("PolicyService/ApplyPolicies", "policies.write"),
    ("PolicyService/GetPolicy", "policies.read"),
    ("PolicyService/ListPolicies", "policies.read"),
    ("PolicyService/DeletePolicy", "policies.write"),
    ("RoleService/CreateRole", "roles.write"),
    ("RoleService/ListRoles", "roles.read"),
    ("RoleService/GetRole", "roles.read"),
    ("RoleService/UpdateRole", "roles.write"),
    ("RoleService/DeleteRole", "roles.write"),
    ("RoleService/ListPermissions", "any"),
    ("StateService/ListStates", "states.read"),
    ("StateService/WatchStates", "states.read"),
    ("TokenService/CreateToken", "tokens.write"),
    ("TokenService/ListTokens", "tokens.read"),
    ("TokenService/GetToken", "tokens.read"),
    ("TokenService/RevokeToken", "tokens.write"),
    ("TokenTemplateService/ListTokenTemplates", "tokens.read"),
    ("TokenTemplateService/GetTokenTemplate", "tokens.read"),
    ("TokenTemplateService/DeleteTokenTemplate", "tokens.write"),
    ("UserService/CreateUser", "users.write"),
    ("UserService/ListUsers", "users.read"),
    ("UserService/GetUser", "users.read"),
    ("UserService/RenewUser", "any"),
    ("UserService/RevokeUser", "users.write"),
];
/// Given by a role with a scope.
const OPERATOR_SCOPED: &[&str] = &[
    "agents.delete",
    "agents.enroll",
    "agents.label",
    "agents.read",
    "agents.revoke",
    "events.read",
    "logs.read",
    "metrics.read",
    "policies.read",
    "policies.write",
    "results.read",
    "states.read",
    "tokens.read",
    "tokens.write",
];
/// Given by the same role for everything, in addition.
const OPERATOR_WHOLE: &[&str] = &["ca.read", "controller.read", "policies.freeze"];
const VIEWER: &[&str] = &[
    "agents.read",
    "ca.read",
    "controller.read",
    "events.read",
    "logs.read",
    "metrics.read",
    "policies.read",
    "results.read",
    "states.read",
];
/// Two bytes that begin no message.
const UNREADABLE: &[u8] = &[0xff, 0xff];

/// Somebody who calls, and what becomes of it.
struct Caller {
    name: &'static str,
    credentials: Option<Credentials>,
    bearer: Option<String>,
    kind: Kind,
}

enum Kind {
    /// Refused for what it is, with this.
    Refused(&'static str),
    /// Let in to what these open.
    Holds(BTreeSet<&'static str>),
    Admin,
}

impl Caller {
    fn expected(&self, needs: &str, through: &'static str) -> &'static str {
        match &self.kind {
            Kind::Refused(how) => how,
            Kind::Admin => through,
            Kind::Holds(permissions) if needs == "any" || permissions.contains(needs) => through,
            Kind::Holds(_) => "PERMISSION_DENIED PERMISSION_MISSING",
        }
    }
}

#[test]
fn every_method_is_open_to_exactly_those_who_may_call_it_on_both_transports() {
    let controller = Controller::start_with(
        "limits: { reads_per_second: 100000, changes_per_second: 100000, watches_per_second: 100000 }",
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let callers = callers(&controller).await;
        let routes = routes();
        let known: BTreeSet<&str> = NEEDS.iter().map(|(method, _)| *method).collect();
        let mut counts: BTreeMap<(&str, &str), [usize; 2]> = BTreeMap::new();
        let mut wrong: Vec<String> = Vec::new();
        for method in routes.keys() {
            assert!(
                known.contains(method.as_str()),
                "{method} is not in the table of this test"
            );
        }
        for (method, needs) in NEEDS {
            let grpc = Call::grpc(&format!("/muster.v1.{method}"), UNREADABLE);
            let of_method = routes.get(*method).unwrap_or_else(|| panic!("there is no {method}"));
            assert!(!of_method.is_empty(), "{method} has no route");
            let rest = of_method
                .iter()
                .map(|route| ("rest", route.call(), "INVALID_ARGUMENT INVALID_FIELD"));
            let calls: Vec<_> = [("grpc", grpc, "INVALID_ARGUMENT PROTOCOL_VIOLATION")]
                .into_iter()
                .chain(rest)
                .collect();
            for (index, caller) in callers.iter().enumerate() {
                for (transport, call, through) in &calls {
                    let mut call = call.clone();
                    if let Some(bearer) = &caller.bearer {
                        call = call.header("authorization", format!("Bearer {bearer}"));
                    }
                    let dialer = dialer(&controller).from(13, index as u8 + 1);
                    let got = dialer
                        .call(controller.api_port, caller.credentials.as_ref(), call.clone())
                        .await;
                    let expected = caller.expected(needs, through);
                    let count = counts.entry((caller.name, *transport)).or_default();
                    count[usize::from(expected == *through)] += 1;
                    if got != expected {
                        wrong.push(format!(
                            "{} {transport} {} {}: {got}, not {expected}",
                            caller.name, call.method, call.path
                        ));
                    }
                }
            }
        }
        println!(
            "{:<24} {:>9} {:>9} {:>9} {:>9}",
            "caller", "grpc let", "refused", "rest let", "refused"
        );
        for caller in &callers {
            let [grpc, rest] = ["grpc", "rest"].map(|transport| counts[&(caller.name, transport)]);
            println!(
                "{:<24} {:>9} {:>9} {:>9} {:>9}",
                caller.name, grpc[1], grpc[0], rest[1], rest[0]
            );
        }
        let total: usize = counts.values().flatten().sum();
        println!(
            "{} methods, {} callers, 2 transports: {total} cases, {} wrong",
            NEEDS.len(),
            callers.len(),
            wrong.len()
        );
        assert_eq!(wrong, Vec::<String>::new());
        // The other listener and what is not there at all.
        for path in ["/muster.v1.LinkService/Connect", "/muster.v1.AgentService/Nothing"] {
            let admin = callers.last().expect("the admin");
            let call = Call::grpc(path, UNREADABLE);
            let got = dialer(&controller)
                .call(controller.api_port, admin.credentials.as_ref(), call)
                .await;
            assert_eq!(got, "UNIMPLEMENTED METHOD_NOT_ALLOWED", "{path}");
        }
    });
}

fn dialer(controller: &Controller) -> Dialer {
    Dialer {
        agents_port: controller.agents_port,
        api_port: controller.api_port,
        source: [127, 0, 0, 1].into(),
    }
}

async fn callers(controller: &Controller) -> Vec<Caller> {
    let admin = Operator::admin(controller).await;
    let setup = controller.agent("web-01");
    setup.enroll().expect_code(0);
    let agent = IdentityFile::load(&setup.path("state/identity.pem")).expect("an identity");
    let user =
        async |name: &'static str, role: &str, scope: &str| admin.create_user(name, role, scope).await.expect("a user");
    let key =
        async |role: &str, scope: &str, sources: &[&str]| admin.create_key(role, scope, sources).await.expect("a key");
    let revoked = user("gone", "admin", "").await;
    let revoke = RevokeUserRequest {
        name: "gone".to_owned(),
        reason: String::new(),
    };
    let ended = UserServiceClient::new(admin.service()).revoke_user(revoke).await;
    ended.expect("the user is revoked");
    let (revoked_key, revoked_secret) = key("admin", "", &[]).await;
    let revoke = RevokeApiKeyRequest { id: revoked_key.id };
    let ended = ApiKeyServiceClient::new(admin.service()).revoke_api_key(revoke).await;
    ended.expect("the key is revoked");
    let holds = |sets: &[&[&'static str]]| Kind::Holds(sets.iter().copied().flatten().copied().collect());
    let shows = |name, identity: &IdentityFile, kind| Caller {
        name,
        credentials: Some(Credentials::of(identity)),
        bearer: None,
        kind,
    };
    let with_key = |name, secret: String, kind| Caller {
        name,
        credentials: None,
        bearer: Some(secret),
        kind,
    };
    let no_key = "UNAUTHENTICATED API_KEY_INVALID";
    let without_secret = format!("{}0", &revoked_secret[..revoked_secret.len() - 1]);
    vec![
        Caller {
            name: "nobody",
            credentials: None,
            bearer: None,
            kind: Kind::Refused("UNAUTHENTICATED CERTIFICATE_REQUIRED"),
        },
        shows("agent", &agent, Kind::Refused("PERMISSION_DENIED METHOD_NOT_ALLOWED")),
        shows(
            "revoked admin",
            &revoked,
            Kind::Refused("UNAUTHENTICATED CERTIFICATE_REVOKED"),
        ),
        with_key("revoked key", revoked_secret, Kind::Refused(no_key)),
        with_key("wrong key", without_secret, Kind::Refused(no_key)),
        with_key(
            "key from elsewhere",
            key("admin", "", &["192.0.2.0/24"]).await.1,
            Kind::Refused(no_key),
        ),
        shows("nothing granted", &user("nothing", "", "").await, holds(&[])),
        shows("viewer", &user("viewer", "viewer", "").await, holds(&[VIEWER])),
        shows(
            "scoped operator",
            &user("scoped", "operator", "env=dev").await,
            holds(&[OPERATOR_SCOPED]),
        ),
        with_key(
            "scoped operator's key",
            key("operator", "env=dev", &[]).await.1,
            holds(&[OPERATOR_SCOPED]),
        ),
        shows(
            "operator",
            &user("operator", "operator", "").await,
            holds(&[OPERATOR_SCOPED, OPERATOR_WHOLE]),
        ),
        // Of its own, what is about the whole is left out.
        shows(
            "scoped admin",
            &user("scoped-admin", "admin", "env=dev").await,
            holds(&[OPERATOR_SCOPED, &["audit.read"]]),
        ),
        with_key("admin's key", key("admin", "", &["127.0.0.0/8"]).await.1, Kind::Admin),
        shows("admin", &user("boss", "admin", "").await, Kind::Admin),
    ]
}

struct Route {
    verb: &'static str,
    path: String,
}

impl Route {
    /// With something that the method does not know.
    fn call(&self) -> Call {
        match self.verb {
            "GET" | "DELETE" => Call::rest(self.verb, &format!("{}?no_such_field=1", self.path), None),
            _ => Call::rest(self.verb, &self.path, Some(r#"{"noSuchField": 1}"#)),
        }
    }
}

/// Of all methods of the API, as the contract says.
fn routes() -> BTreeMap<String, Vec<Route>> {
    let http = descriptor_pool()
        .get_extension_by_name("google.api.http")
        .expect("the annotation");
    let mut routes = BTreeMap::new();
    for service in descriptor_pool()
        .services()
        .filter(|service| service.package_name() == "muster.v1")
    {
        if ["EnrollmentService", "LinkService"].contains(&service.name()) {
            continue;
        }
        for method in service.methods() {
            let options = method.options();
            let rule = options.get_extension(&http);
            let rule = rule.as_message().expect("a rule");
            let more = rule.get_field_by_name("additional_bindings");
            let more: Vec<_> = more
                .iter()
                .filter_map(|it| it.as_list())
                .flatten()
                .filter_map(|it| it.as_message())
                .cloned()
                .collect();
            let of_method = [rule.clone()].into_iter().chain(more).map(|rule| {
                let (verb, template) = ["get", "put", "post", "delete", "patch"]
                    .into_iter()
                    .find_map(|verb| {
                        let path = rule.get_field_by_name(verb)?.as_str()?.to_owned();
                        (!path.is_empty()).then_some((verb, path))
                    })
                    .expect("a path");
                let verb = match verb {
                    "get" => "GET",
                    "put" => "PUT",
                    "post" => "POST",
                    "delete" => "DELETE",
                    _ => "PATCH",
                };
                Route {
                    verb,
                    path: filled(&template),
                }
            });
            routes.insert(format!("{}/{}", service.name(), method.name()), of_method.collect());
        }
    }
    routes
}

/// `/v1/agents/{agent}:revoke` → `/v1/agents/x:revoke`.
fn filled(template: &str) -> String {
    let mut parts = template.split('{');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        path.push('x');
        path.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    path
}
