//! A connection to the controller and one way to call it. TCP and TLS are made here, with the configuration of certs, for
//! the transport of tonic knows neither our verifier nor why a handshake failed.

pub mod door;
pub mod introduction;
mod method;
pub mod show;
mod wire;

use std::{pin::pin, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use muster_certs::{
    CertificateDer, ServerName,
    rustls::ClientConfig,
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::v1::{
    access_service_client::AccessServiceClient, agent_service_client::AgentServiceClient,
    api_key_service_client::ApiKeyServiceClient, audit_service_client::AuditServiceClient,
    ca_service_client::CaServiceClient, certificate_service_client::CertificateServiceClient,
    controller_service_client::ControllerServiceClient, event_service_client::EventServiceClient,
    explain_service_client::ExplainServiceClient, grant_service_client::GrantServiceClient,
    history_service_client::HistoryServiceClient, log_service_client::LogServiceClient,
    manifest_service_client::ManifestServiceClient, metric_service_client::MetricServiceClient,
    policy_service_client::PolicyServiceClient, role_service_client::RoleServiceClient,
    state_service_client::StateServiceClient, token_service_client::TokenServiceClient,
    token_template_service_client::TokenTemplateServiceClient, user_service_client::UserServiceClient,
};
use tokio::{net::TcpStream, time::timeout};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Endpoint,
};
use zeroize::Zeroizing;

use crate::{
    context::{Context, Credentials},
    exit::Exit,
    problem::{
        Problem,
        connection::{self, ConnectError},
        status::{self, Asked},
    },
    terminal::{Aside, Nobody},
};
use door::{Door, Gate, Refused};
use show::Show;
use wire::Wire;

/// A controller that has not answered by then is away, however long calls may take.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);
/// Pages of agents with all their facts are larger than tonic's default of 4 MiB.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// What calls go through.
pub type Caller = Door;

/// Shows an API key with every call, if there is one.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

#[derive(Clone, Debug)]
pub struct Client {
    channel: Caller,
    server: Arc<str>,
    timeout: Duration,
    wire: Wire,
    gate: Arc<Gate>,
}

/// What the user said of calls in general.
#[derive(Clone, Debug)]
pub struct Manner<'a> {
    pub timeout: Duration,
    /// `--confirm`.
    pub confirm: Option<&'a str>,
    /// `--show-rpc`.
    pub shows: bool,
    pub aside: Arc<dyn Aside>,
}

impl Manner<'_> {
    /// Where no user is that could be told or asked something.
    pub fn alone(timeout: Duration) -> Manner<'static> {
        Manner {
            timeout,
            confirm: None,
            shows: false,
            aside: Arc::new(Nobody),
        }
    }
}

impl Client {
    /// Connects at once, so that a controller that is away is an error here and not in the first call.
    pub async fn connect(context: &Context, manner: Manner<'_>, asked: &Asked) -> Result<Client, Problem> {
        let timeout = manner.timeout;
        let unusable = |why: String| {
            Problem::new(Exit::Failure, format!("context {} cannot be used", context.name))
                .what(asked.what())
                .why(why)
                .step("get a new context file on the controller's host: muster-server admin create NAME")
        };
        // One of the two: the controller refuses calls that show both.
        let identity = context.identity();
        let bearer = Bearer::of(&context.credentials).map_err(|why| unusable(why.to_owned()))?;
        let config = match &context.server_name {
            Some(_) => tls::operator_by_name(&context.roots, identity),
            None => tls::operator(&context.roots, &context.trust_domain, identity),
        }
        .map_err(|error| unusable(error.to_string()))?;
        let refused = |error: &ConnectError| connection::refused(&context.server, asked, error);

        let host = host(&context.server).map_err(|error| refused(&error))?;
        let name = match &context.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| unusable(format!("`server_name`: {name:?} is neither a host name nor an address")))?,
            None => tls::server_name(&host),
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", context.server))
            .and_then(|endpoint| endpoint.user_agent(concat!("musterctl/", env!("CARGO_PKG_VERSION"))))
            .map_err(|_| refused(&ConnectError::Address(context.server.clone())))?
            // A watch is idle for hours, and must notice all the same that its peer is gone.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .http2_adaptive_window(true);

        let limit = timeout.min(LONGEST_CONNECT);
        let wire = Wire::default();
        let connector = {
            let (wire, server) = (wire.clone(), context.server.clone());
            tower::service_fn(move |_: Uri| {
                let (wire, server, host) = (wire.clone(), server.clone(), host.clone());
                let (name, config) = (name.clone(), config.clone());
                async move {
                    let stream = dial(&server, &host, name, config, limit).await?;
                    wire.meet(stream.get_ref().1.peer_certificates());
                    Ok::<_, ConnectError>(TokioIo::new(wire.observe(stream)))
                }
            })
        };
        let channel =
            endpoint
                .connect_with_connector(connector)
                .await
                .map_err(|error| match find::<ConnectError>(&error) {
                    Some(error) => refused(error),
                    None => refused(&ConnectError::Connect(std::io::Error::other(deepest(&error)))),
                })?;
        let show = manner.shows.then(|| Show::new(context, wire.server_key()));
        let gate = Arc::new(Gate::new(context, manner.confirm, show, manner.aside));
        Ok(Client {
            channel: Door::new(InterceptedService::new(channel, bearer), gate.clone()),
            server: context.server.as_str().into(),
            timeout,
            wire,
            gate,
        })
    }

    /// One call within `--timeout`. `call` is given the request, ready to send.
    pub async fn call<T, R>(
        &self,
        asked: &Asked,
        call: impl AsyncFnOnce(Request<T>) -> Result<Response<R>, Status>,
        message: T,
    ) -> Result<R, Problem> {
        let mut request = Request::new(message);
        // The controller need not work on what nobody waits for. Its limit is a little later than ours, so that it is always
        // this one that ends the call.
        request.set_timeout(self.timeout + Duration::from_secs(1));
        let mut calling = pin!(call(request));
        loop {
            match timeout(self.timeout, &mut calling).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => return Err(self.problem(asked, &status)),
                // It has not gone out yet.
                Err(_) if self.gate.is_asking() => {}
                Err(_) => return Err(connection::deadline(&self.server, asked, self.timeout)),
            }
        }
    }

    /// The request of a stream, which ends when somebody ends it.
    pub fn endless<T>(&self, message: T) -> Request<T> {
        Request::new(message)
    }

    /// The controller's own certificate, as it was shown in the handshake.
    pub fn server_certificate(&self) -> Option<CertificateDer<'static>> {
        self.wire.server_certificate()
    }

    pub fn problem(&self, asked: &Asked, status: &Status) -> Problem {
        if let Some(Refused(problem)) = find(status) {
            return problem.clone();
        }
        let alert = self.wire.alert();
        connection::lost(&self.server, asked, status, alert.as_deref())
            .unwrap_or_else(|| status::problem(&self.server, asked, status))
    }

    pub fn access(&self) -> AccessServiceClient<Caller> {
        AccessServiceClient::new(self.channel.clone())
    }

    pub fn agents(&self) -> AgentServiceClient<Caller> {
        AgentServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn api_keys(&self) -> ApiKeyServiceClient<Caller> {
        ApiKeyServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn audit(&self) -> AuditServiceClient<Caller> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn cas(&self) -> CaServiceClient<Caller> {
        CaServiceClient::new(self.channel.clone())
    }

    pub fn certificates(&self) -> CertificateServiceClient<Caller> {
        CertificateServiceClient::new(self.channel.clone())
    }

    pub fn controllers(&self) -> ControllerServiceClient<Caller> {
        ControllerServiceClient::new(self.channel.clone())
    }

    pub fn explain(&self) -> ExplainServiceClient<Caller> {
        ExplainServiceClient::new(self.channel.clone())
    }

    pub fn events(&self) -> EventServiceClient<Caller> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn grants(&self) -> GrantServiceClient<Caller> {
        GrantServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn history(&self) -> HistoryServiceClient<Caller> {
        HistoryServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn logs(&self) -> LogServiceClient<Caller> {
        LogServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn roles(&self) -> RoleServiceClient<Caller> {
        RoleServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn tokens(&self) -> TokenServiceClient<Caller> {
        TokenServiceClient::new(self.channel.clone())
    }

    pub fn token_templates(&self) -> TokenTemplateServiceClient<Caller> {
        TokenTemplateServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn users(&self) -> UserServiceClient<Caller> {
        UserServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn policies(&self) -> PolicyServiceClient<Caller> {
        PolicyServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn states(&self) -> StateServiceClient<Caller> {
        StateServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn manifests(&self) -> ManifestServiceClient<Caller> {
        ManifestServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn metrics(&self) -> MetricServiceClient<Caller> {
        MetricServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }
}

impl Bearer {
    fn of(credentials: &Credentials) -> Result<Bearer, &'static str> {
        let Credentials::ApiKey(key) = credentials else {
            return Ok(Bearer(None));
        };
        let text = Zeroizing::new(format!("Bearer {}", *key.expose()));
        let mut value: MetadataValue<Ascii> = text.parse().map_err(|_| "the API key fits into no header")?;
        // So that nothing shows it.
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The host of "host:port"; both must be there.
pub(crate) fn host(server: &str) -> Result<String, ConnectError> {
    let wrong = || ConnectError::Address(server.to_owned());
    let authority: http::uri::Authority = server.parse().map_err(|_| wrong())?;
    if authority.port_u16().is_none() || authority.host().is_empty() || server.contains('@') {
        return Err(wrong());
    }
    Ok(authority.host().to_owned())
}

pub(crate) async fn dial(
    server: &str,
    host: &str,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let connect = async {
        let addresses: Vec<_> = tokio::net::lookup_host(server)
            .await
            .map_err(|source| ConnectError::Resolve {
                host: host.to_owned(),
                source,
            })?
            .collect();
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(ConnectError::Connect)?;
        // Small requests are not to wait for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(ConnectError::Tls)
    };
    timeout(limit, connect)
        .await
        .unwrap_or(Err(ConnectError::TimedOut(limit)))
}

fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_goes_with_every_call_and_is_shown_by_nothing() {
        let key = muster_certs::token::ApiKey::generate().unwrap();
        let secret = key.expose();
        let mut bearer = Bearer::of(&Credentials::ApiKey(key)).unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        let sent = request.metadata().get("authorization").unwrap();
        assert_eq!(sent.to_str().unwrap(), format!("Bearer {}", *secret));
        let shown = format!("{bearer:?} {request:?}");
        assert!(!shown.contains(secret.rsplit('_').next().unwrap()), "{shown}");
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        assert_eq!(host("controller.example.com:9443").unwrap(), "controller.example.com");
        assert_eq!(host("[::1]:9443").unwrap(), "[::1]");
        for server in [
            "",
            "controller",
            "controller:",
            ":9443",
            "user@controller:9443",
            "https://controller:9443",
            "a b:1",
        ] {
            assert!(host(server).is_err(), "{server:?}");
        }
    }
}
