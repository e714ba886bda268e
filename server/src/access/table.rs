//! The table of methods.

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
    /// An operator with the role admin.
    Admin,
    Anyone,
}

#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub path: &'static str,
    pub listener: Listener,
    pub who: Who,
}

impl Method {
    /// Others are routes of plain HTTP.
    pub fn is_grpc(&self) -> bool {
        self.path.contains('.')
    }
}

const fn agents(path: &'static str, who: Who) -> Method {
    Method {
        path,
        listener: Listener::Agents,
        who,
    }
}

const fn api(path: &'static str, who: Who) -> Method {
    Method {
        path,
        listener: Listener::Api,
        who,
    }
}

/// Every method of both listeners. REST routes that are not gRPC stand here by their path.
pub const METHODS: &[Method] = &[
    agents("/muster.v1.EnrollmentService/Enroll", Who::Newcomer),
    agents("/muster.v1.EnrollmentService/Renew", Who::Renewer),
    agents("/muster.v1.EnrollmentService/Fork", Who::Renewer),
    agents("/muster.v1.EnrollmentService/GetTrustBundle", Who::NewcomerOrAgent),
    agents("/muster.v1.LinkService/Connect", Who::Agent),
    api("/muster.v1.AgentService/ListAgents", Who::Admin),
    api("/muster.v1.AgentService/GetAgent", Who::Admin),
    api("/muster.v1.AgentService/WatchAgents", Who::Admin),
    api("/muster.v1.AgentService/UpdateAgentLabels", Who::Admin),
    api("/muster.v1.AgentService/PreregisterAgent", Who::Admin),
    api("/muster.v1.AgentService/RevokeAgent", Who::Admin),
    api("/muster.v1.AgentService/DeleteAgent", Who::Admin),
    api("/muster.v1.AgentService/ReadmitAgent", Who::Admin),
    api("/muster.v1.AgentService/ForkAgent", Who::Admin),
    api("/muster.v1.CaService/GetCaStatus", Who::Admin),
    api("/muster.v1.CaService/PrepareCa", Who::Admin),
    api("/muster.v1.CaService/ActivateCa", Who::Admin),
    api("/muster.v1.CaService/RetireCa", Who::Admin),
    api("/muster.v1.CertificateService/ListCertificates", Who::Admin),
    api("/muster.v1.CertificateService/RevokeCertificate", Who::Admin),
    api("/muster.v1.ControllerService/GetController", Who::Admin),
    api("/muster.v1.ControllerService/DrainController", Who::Admin),
    api("/muster.v1.EventService/ListEvents", Who::Admin),
    api("/muster.v1.HistoryService/ListResults", Who::Admin),
    api("/muster.v1.HistoryService/ListHistoryUsage", Who::Admin),
    api("/muster.v1.MetricService/QueryMetrics", Who::Admin),
    api("/muster.v1.PolicyService/ApplyPolicies", Who::Admin),
    api("/muster.v1.PolicyService/GetPolicy", Who::Admin),
    api("/muster.v1.PolicyService/ListPolicies", Who::Admin),
    api("/muster.v1.PolicyService/DeletePolicy", Who::Admin),
    api("/muster.v1.StateService/ListStates", Who::Admin),
    api("/muster.v1.StateService/WatchStates", Who::Admin),
    api("/muster.v1.TokenService/CreateToken", Who::Admin),
    api("/muster.v1.TokenService/ListTokens", Who::Admin),
    api("/muster.v1.TokenService/GetToken", Who::Admin),
    api("/muster.v1.TokenService/RevokeToken", Who::Admin),
    api("/muster.v1.UserService/CreateUser", Who::Admin),
    api("/muster.v1.UserService/ListUsers", Who::Admin),
    api("/muster.v1.UserService/GetUser", Who::Admin),
    api("/muster.v1.UserService/RenewUser", Who::Admin),
    api("/muster.v1.UserService/RevokeUser", Who::Admin),
    api("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Who::Admin),
    api(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Who::Admin,
    ),
    api("/grpc.health.v1.Health/Check", Who::Anyone),
    // A watch holds its connection for as long as it likes.
    api("/grpc.health.v1.Health/Watch", Who::Admin),
    api("/grpc.health.v1.Health/List", Who::Anyone),
    // What a CA no longer stands for is for everybody to know.
    api("/crl", Who::Anyone),
    api("/healthz", Who::Anyone),
    api("/metrics", Who::Admin),
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
    fn a_method_is_served_on_its_own_listener_only() {
        let connect = "/muster.v1.LinkService/Connect";
        assert!(find(Listener::Agents, connect).is_some());
        assert!(find(Listener::Api, connect).is_none());
        assert!(find(Listener::Api, "/muster.v1.AgentService/Nothing").is_none());
    }
}
