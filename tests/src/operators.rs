//! Operators of every kind: users with roles and scopes, API keys, and what each of them is answered.

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, CreateUserRequest, api_key_service_client::ApiKeyServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{Controller, attacks::dialer, dial};

/// Somebody who calls the API, on one connection.
#[derive(Clone, Debug)]
pub struct Operator {
    channel: Channel,
    bearer: Bearer,
}

/// Shows an API key with every call, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

pub type Service = InterceptedService<Channel, Bearer>;

impl Operator {
    /// The admin that every controller of the harness has.
    pub async fn admin(controller: &Controller) -> Self {
        Self::with(controller, &dial::operator(&controller.path("tester.yaml"))).await
    }

    /// # Panics
    /// When the controller does not take the certificate.
    pub async fn with(controller: &Controller, identity: &IdentityFile) -> Self {
        let channel = dial::channel(controller, controller.api_port, Some(identity)).await;
        Self {
            channel: channel.expect("a connection"),
            bearer: Bearer::default(),
        }
    }

    /// # Panics
    /// When the controller cannot be reached.
    pub async fn with_key(controller: &Controller, secret: &str) -> Self {
        let channel = dial::channel(controller, controller.api_port, None).await;
        let bearer = format!("Bearer {secret}").parse().expect("a header");
        Self {
            channel: channel.expect("a connection"),
            bearer: Bearer(Some(bearer)),
        }
    }

    /// For a client of one of the services.
    pub fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    /// A new user, by this one. `scope`: empty for everything.
    pub async fn create_user(&self, name: &str, role: &str, scope: &str) -> Result<IdentityFile, Status> {
        let key = KeyPair::generate().expect("a key");
        let request = CreateUserRequest {
            name: name.to_owned(),
            csr: csr::create(&key).expect("a request"),
            role: role.to_owned(),
            scope: scope.to_owned(),
            ..CreateUserRequest::default()
        };
        let created = UserServiceClient::new(self.service()).create_user(request).await?;
        let chain = created.into_inner().certificates.into_iter().map(Into::into).collect();
        Ok(IdentityFile::new(key, chain).expect("an identity"))
    }

    /// A new key, by this operator: what is shown of it, and its secret.
    pub async fn create_key(&self, role: &str, scope: &str, sources: &[&str]) -> Result<(ApiKey, String), Status> {
        let request = CreateApiKeyRequest {
            role: role.to_owned(),
            scope: scope.to_owned(),
            sources: sources.iter().map(|&source| source.to_owned()).collect(),
            ..CreateApiKeyRequest::default()
        };
        let created = ApiKeyServiceClient::new(self.service()).create_api_key(request).await?;
        let CreateApiKeyResponse { api_key, secret } = created.into_inner();
        Ok((api_key.expect("a key"), secret))
    }
}

/// What became of a call: `OK`, or `PERMISSION_DENIED OUT_OF_SCOPE`.
pub fn outcome<T>(answer: &Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(status) => dialer::text(status),
    }
}
