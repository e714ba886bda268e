//! Makes an operator: a certificate, its entry in the database, and the context file with which `musterctl` uses it. Whoever
//! can read the issuing key on the host may do this at any time, so that nobody is ever locked out.

pub mod ca_import;
pub mod on_host;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use muster_certs::{context_file, file, pem};
use zeroize::Zeroizing;

use crate::access::rights::{ADMIN, Subject};
use crate::access::scope::Scope;
use crate::clock;
use crate::grants;
use crate::net::reachable;
use crate::pki::{self, Credentials, Pki};
use crate::store::{self, Db};
use crate::users::{self, Before, By};

/// Who makes operators here, as events call it.
const BY: &str = "the controller's host";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to issue the certificate of {name}")]
    Certificate {
        name: String,
        #[source]
        source: pki::Error,
    },
    #[error("failed to put {name} on file")]
    Store {
        name: String,
        #[source]
        source: store::Error,
    },
}

/// Everything `musterctl` needs to be this operator.
pub struct AdminContext {
    pub name: String,
    trust_domain: String,
    roots: String,
    certificates: String,
    key: Zeroizing<String>,
    pub not_after: SystemTime,
    pub before: Before,
}

/// Issues a certificate for the operator `name`, an admin, and puts it on file. One of that name gets it beside those that are
/// there; one who was revoked is an operator again, with this certificate alone.
pub async fn create(store: &Db, pki: &Pki, name: &str, ttl: Duration, now: SystemTime) -> Result<AdminContext, Error> {
    let Credentials { key, issued, .. } = pki.issue_user(name, now, ttl).map_err(|source| Error::Certificate {
        name: name.to_owned(),
        source,
    })?;
    let stored = async {
        let mut tx = store.begin().await?;
        // What is there already stays as it is.
        let subject = Subject::User(name.to_owned());
        let at = clock::from_system(now);
        grants::insert(&mut tx, subject, ADMIN, Scope::ALL, &By::host(), at).await?;
        let before = users::put(&mut tx, name, &issued, BY, at).await?;
        tx.commit().await?;
        Ok(before)
    };
    let before = stored.await.map_err(|source| Error::Store {
        name: name.to_owned(),
        source,
    })?;
    Ok(AdminContext {
        name: name.to_owned(),
        trust_domain: pki.trust_domain().to_string(),
        roots: pem::encode_certificates(&pki.roots()),
        certificates: pem::encode_certificates(&pki.user_chain(issued.der)),
        key: key.to_pem(),
        not_after: issued.not_after,
        before,
    })
}

impl AdminContext {
    /// The context file. `context` is what the context is called, `server` where the API listens.
    pub fn to_yaml(&self, context: &str, server: SocketAddr) -> Zeroizing<String> {
        let entry = context_file::Entry {
            name: context,
            server: &reachable(server).to_string(),
            trust_domain: &self.trust_domain,
            server_name: None,
            roots: &self.roots,
            is_protected: false,
            credentials: context_file::Credentials::Certificate {
                certificates: &self.certificates,
                key: Some(&self.key),
            },
        };
        context_file::render(context_file::HEADER, Some(context), &[entry])
    }

    /// Writes the context file, for its owner alone.
    pub fn write(&self, path: &Path, context: &str, server: SocketAddr) -> Result<(), file::Error> {
        file::write_secret(path, self.to_yaml(context, server).as_bytes())
    }
}

impl fmt::Debug for AdminContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminContext")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
