//! The table of methods: who may call each, what for, what of it is kept in the audit log, and how it looks over REST. A method
//! that does not stand here does not exist.

use super::permission::{self, Permission};

/// Where a method is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Agents,
    Api,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever shows no certificate: a machine that is not an agent yet.
    Newcomer,
    /// An agent whose certificate is valid.
    Agent,
    /// As `Newcomer` or as `Agent`.
    NewcomerOrAgent,
    /// An agent that shows a certificate of ours, in whatever standing; the method decides.
    Renewer,
    /// An operator to whom a role with this permission is granted.
    Operator(&'static Permission),
    /// Every operator, whatever is granted to it.
    AnyOperator,
    Anyone,
}

/// What of a call is kept. Refusals of callers that are known always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// It changes nothing.
    Refusals,
    /// Begun before the effect and completed after it.
    Change,
    /// Calls of agents; what matters of them are events.
    Never,
}

/// How often one caller may call; the numbers are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    Read,
    Change,
    /// Holds a stream open.
    Watch,
    /// Has limits of its own.
    None,
}

/// Over REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// As its `google.api.http` says.
    Annotated,
    /// The path is the route.
    Plain,
    No(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub path: &'static str,
    pub listener: Listener,
    pub who: Who,
    pub audit: Audit,
    pub rate: Rate,
    pub rest: Rest,
}

impl Method {
    /// Others are routes of plain HTTP.
    pub fn is_grpc(&self) -> bool {
        self.rest != Rest::Plain
    }

    /// What an operator needs.
    pub fn permission(&self) -> Option<&'static Permission> {
        match self.who {
            Who::Operator(permission) => Some(permission),
            _ => None,
        }
    }
}

const LINK: Rest = Rest::No("agents speak gRPC");
const GRPC: Rest = Rest::No("a service of gRPC about gRPC");

const fn agents(path: &'static str, who: Who) -> Method {
    Method {
        path,
        listener: Listener::Agents,
        who,
        audit: Audit::Never,
        rate: Rate::None,
        rest: LINK,
    }
}

const fn api(path: &'static str, who: Who, audit: Audit, rate: Rate, rest: Rest) -> Method {
    Method {
        path,
        listener: Listener::Api,
        who,
        audit,
        rate,
        rest,
    }
}

const fn read(path: &'static str, permission: &'static Permission) -> Method {
    api(
        path,
        Who::Operator(permission),
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    )
}

const fn change(path: &'static str, permission: &'static Permission) -> Method {
    api(
        path,
        Who::Operator(permission),
        Audit::Change,
        Rate::Change,
        Rest::Annotated,
    )
}

const fn watch(path: &'static str, permission: &'static Permission) -> Method {
    api(
        path,
        Who::Operator(permission),
        Audit::Refusals,
        Rate::Watch,
        Rest::Annotated,
    )
}

/// Every method of both listeners. REST routes that are not gRPC stand here by their path.
pub const METHODS: &[Method] = &[
    agents("/muster.v1.EnrollmentService/Enroll", Who::Newcomer),
    agents("/muster.v1.EnrollmentService/Renew", Who::Renewer),
    agents("/muster.v1.EnrollmentService/Fork", Who::Renewer),
    agents("/muster.v1.EnrollmentService/GetTrustBundle", Who::NewcomerOrAgent),
    agents("/muster.v1.LinkService/Connect", Who::Agent),
    api(
        "/muster.v1.AccessService/GetCaller",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    ),
    read("/muster.v1.AgentService/ListAgents", permission::AGENTS_READ),
    read("/muster.v1.AgentService/GetAgent", permission::AGENTS_READ),
    watch("/muster.v1.AgentService/WatchAgents", permission::AGENTS_READ),
    change("/muster.v1.AgentService/UpdateAgentLabels", permission::AGENTS_LABEL),
    change("/muster.v1.AgentService/PreregisterAgent", permission::AGENTS_ENROLL),
    change("/muster.v1.AgentService/RevokeAgent", permission::AGENTS_REVOKE),
    change("/muster.v1.AgentService/DeleteAgent", permission::AGENTS_DELETE),
    change("/muster.v1.AgentService/ReadmitAgent", permission::AGENTS_ENROLL),
    change("/muster.v1.AgentService/ForkAgent", permission::AGENTS_ENROLL),
    change("/muster.v1.ApiKeyService/CreateApiKey", permission::APIKEYS_WRITE),
    read("/muster.v1.ApiKeyService/ListApiKeys", permission::APIKEYS_READ),
    read("/muster.v1.ApiKeyService/GetApiKey", permission::APIKEYS_READ),
    change("/muster.v1.ApiKeyService/RevokeApiKey", permission::APIKEYS_WRITE),
    read("/muster.v1.AuditService/ListAuditEntries", permission::AUDIT_READ),
    watch("/muster.v1.AuditService/ExportAudit", permission::AUDIT_VERIFY),
    read("/muster.v1.AuditService/GetAuditHead", permission::AUDIT_VERIFY),
    read("/muster.v1.CaService/GetCaStatus", permission::CA_READ),
    change("/muster.v1.CaService/PrepareCa", permission::CA_WRITE),
    change("/muster.v1.CaService/ActivateCa", permission::CA_WRITE),
    change("/muster.v1.CaService/RetireCa", permission::CA_WRITE),
    read(
        "/muster.v1.CertificateService/ListCertificates",
        permission::AGENTS_READ,
    ),
    change(
        "/muster.v1.CertificateService/RevokeCertificate",
        permission::AGENTS_REVOKE,
    ),
    read(
        "/muster.v1.ControllerService/GetController",
        permission::CONTROLLER_READ,
    ),
    change(
        "/muster.v1.ControllerService/DrainController",
        permission::CONTROLLER_DRAIN,
    ),
    read("/muster.v1.EventService/ListEvents", permission::EVENTS_READ),
    read("/muster.v1.ExplainService/ExplainCheck", permission::POLICIES_READ),
    // Everybody for themselves; for others the call itself wants more.
    api(
        "/muster.v1.ExplainService/ExplainAccess",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    ),
    change("/muster.v1.GrantService/CreateGrant", permission::GRANTS_WRITE),
    read("/muster.v1.GrantService/ListGrants", permission::GRANTS_READ),
    read("/muster.v1.GrantService/GetGrant", permission::GRANTS_READ),
    change("/muster.v1.GrantService/DeleteGrant", permission::GRANTS_WRITE),
    read("/muster.v1.HistoryService/ListResults", permission::RESULTS_READ),
    read("/muster.v1.HistoryService/ListHistoryUsage", permission::RESULTS_READ),
    read("/muster.v1.LogService/ListLogs", permission::LOGS_READ),
    // Which permissions it takes, the kinds decide that are named.
    api(
        "/muster.v1.ManifestService/PlanManifests",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    ),
    api(
        "/muster.v1.ManifestService/ApplyManifests",
        Who::AnyOperator,
        Audit::Change,
        Rate::Change,
        Rest::Annotated,
    ),
    api(
        "/muster.v1.ManifestService/ListManifestVersions",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    ),
    read("/muster.v1.MetricService/QueryMetrics", permission::METRICS_READ),
    change("/muster.v1.PolicyService/ApplyPolicies", permission::POLICIES_WRITE),
    read("/muster.v1.PolicyService/GetPolicy", permission::POLICIES_READ),
    read("/muster.v1.PolicyService/ListPolicies", permission::POLICIES_READ),
    change("/muster.v1.PolicyService/DeletePolicy", permission::POLICIES_WRITE),
    change("/muster.v1.PolicyService/FreezePolicies", permission::POLICIES_FREEZE),
    change("/muster.v1.PolicyService/UnfreezePolicies", permission::POLICIES_FREEZE),
    change("/muster.v1.RoleService/CreateRole", permission::ROLES_WRITE),
    read("/muster.v1.RoleService/ListRoles", permission::ROLES_READ),
    read("/muster.v1.RoleService/GetRole", permission::ROLES_READ),
    change("/muster.v1.RoleService/UpdateRole", permission::ROLES_WRITE),
    change("/muster.v1.RoleService/DeleteRole", permission::ROLES_WRITE),
    api(
        "/muster.v1.RoleService/ListPermissions",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Annotated,
    ),
    read("/muster.v1.StateService/ListStates", permission::STATES_READ),
    watch("/muster.v1.StateService/WatchStates", permission::STATES_READ),
    change("/muster.v1.TokenService/CreateToken", permission::TOKENS_WRITE),
    read("/muster.v1.TokenService/ListTokens", permission::TOKENS_READ),
    read("/muster.v1.TokenService/GetToken", permission::TOKENS_READ),
    change("/muster.v1.TokenService/RevokeToken", permission::TOKENS_WRITE),
    read(
        "/muster.v1.TokenTemplateService/ListTokenTemplates",
        permission::TOKENS_READ,
    ),
    read(
        "/muster.v1.TokenTemplateService/GetTokenTemplate",
        permission::TOKENS_READ,
    ),
    change(
        "/muster.v1.TokenTemplateService/DeleteTokenTemplate",
        permission::TOKENS_WRITE,
    ),
    change("/muster.v1.UserService/CreateUser", permission::USERS_WRITE),
    read("/muster.v1.UserService/ListUsers", permission::USERS_READ),
    read("/muster.v1.UserService/GetUser", permission::USERS_READ),
    // Everybody for themselves; for others the call itself wants more.
    api(
        "/muster.v1.UserService/RenewUser",
        Who::AnyOperator,
        Audit::Change,
        Rate::Change,
        Rest::Annotated,
    ),
    change("/muster.v1.UserService/RevokeUser", permission::USERS_WRITE),
    api(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Watch,
        GRPC,
    ),
    api(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Watch,
        GRPC,
    ),
    api(
        "/grpc.health.v1.Health/Check",
        Who::Anyone,
        Audit::Refusals,
        Rate::None,
        GRPC,
    ),
    // A watch holds its connection for as long as it likes.
    api(
        "/grpc.health.v1.Health/Watch",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Watch,
        GRPC,
    ),
    api(
        "/grpc.health.v1.Health/List",
        Who::Anyone,
        Audit::Refusals,
        Rate::None,
        GRPC,
    ),
    // What a CA no longer stands for is for everybody to know.
    api("/crl", Who::Anyone, Audit::Refusals, Rate::None, Rest::Plain),
    api("/healthz", Who::Anyone, Audit::Refusals, Rate::None, Rest::Plain),
    api(
        "/metrics",
        Who::Operator(permission::CONTROLLER_READ),
        Audit::Refusals,
        Rate::Read,
        Rest::Plain,
    ),
    api(
        "/openapi.json",
        Who::AnyOperator,
        Audit::Refusals,
        Rate::Read,
        Rest::Plain,
    ),
    api("/docs", Who::AnyOperator, Audit::Refusals, Rate::Read, Rest::Plain),
];

/// The row of a path, if the listener serves it.
pub fn find(listener: Listener, path: &str) -> Option<&'static Method> {
    METHODS
        .iter()
        .find(|method| method.path == path && method.listener == listener)
}

#[cfg(test)]
mod tests {
    use muster_proto::json::descriptor_pool;

    use super::*;

    #[test]
    fn every_method_of_the_contract_has_exactly_one_row() {
        for service in descriptor_pool()
            .services()
            .filter(|service| service.package_name() == "muster.v1")
        {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let rows = METHODS.iter().filter(|row| row.path == path).count();
                assert_eq!(rows, 1, "{path}");
            }
        }
    }

    #[test]
    fn every_method_has_a_route_or_a_reason_and_every_route_a_method() {
        let http = descriptor_pool()
            .get_extension_by_name("google.api.http")
            .expect("the annotation");
        for row in METHODS.iter().filter(|row| row.path.starts_with("/muster.v1.")) {
            let name = row.path[1..].replace('/', ".");
            let (service, method) = name.rsplit_once('.').expect("a method");
            let service = descriptor_pool().get_service_by_name(service).expect("a service");
            let method = service.methods().find(|it| it.name() == method).expect("a method");
            let is_annotated = method.options().has_extension(&http);
            assert_eq!(is_annotated, row.rest == Rest::Annotated, "{}", row.path);
        }
    }

    #[test]
    fn every_permission_opens_something() {
        for permission in permission::ALL {
            let opened = METHODS
                .iter()
                .filter(|row| row.permission() == Some(*permission))
                .count();
            assert!(opened > 0, "{}", permission.name);
        }
    }

    #[test]
    fn a_method_is_served_on_its_own_listener_only() {
        let connect = "/muster.v1.LinkService/Connect";
        assert!(find(Listener::Agents, connect).is_some());
        assert!(find(Listener::Api, connect).is_none());
        assert!(find(Listener::Api, "/muster.v1.AgentService/Nothing").is_none());
    }
}
