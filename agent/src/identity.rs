//! Who this agent is and whom it trusts: its key and certificate, the trust bundle that came with them, and how it gets
//! both by enrolling. Knows nothing of what the agent does with its identity.

use std::{fs, io, path::PathBuf, sync::Arc, time::SystemTime};

use muster_certs::{Identity as Peer, identity_file, rustls::ClientConfig, tls};
use muster_proto::ids::AgentId;

pub use self::{
    attempts::{Until, enroll_until},
    enroll::{Enrollment, enroll},
    error::Error,
    holder::Holder,
    joined::Joined,
    renewer::Renewer,
    trust::Trust,
};
use crate::state_dir::StateDir;

mod attempts;
pub mod enroll;
mod error;
pub mod fork;
mod holder;
pub mod id_file;
mod joined;
mod next;
mod renewal;
mod renewer;
mod trust;

/// An enrolled agent's identity, as it lies in the state directory.
#[derive(Debug)]
pub struct Identity {
    id: AgentId,
    file: Arc<identity_file::IdentityFile>,
    trust: Trust,
}

impl Identity {
    /// None when this agent has not enrolled.
    pub fn load(state: &StateDir) -> Result<Option<Identity>, Error> {
        let path = state.identity();
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let file = identity_file::IdentityFile::load(&path).map_err(Error::Identity)?;
        let trust = Trust::load(&state.trust())?;
        Identity::new(file, trust, path).map(Some)
    }

    /// `path` is where the identity lies or will lie, for messages.
    fn new(file: identity_file::IdentityFile, trust: Trust, path: PathBuf) -> Result<Identity, Error> {
        match file.identity() {
            Peer::Agent { trust_domain, id } if trust_domain == trust.trust_domain() => Ok(Identity {
                id: AgentId::from(*id),
                file: Arc::new(file),
                trust,
            }),
            other => Err(Error::NotAnAgent {
                path,
                identity: other.to_string(),
            }),
        }
    }

    pub fn id(&self) -> AgentId {
        self.id
    }

    pub fn file(&self) -> &identity_file::IdentityFile {
        &self.file
    }

    /// The same agent with another key and certificate.
    fn with_file(&self, file: Arc<identity_file::IdentityFile>) -> Identity {
        Identity {
            id: self.id,
            file,
            trust: self.trust.clone(),
        }
    }

    /// The same agent that trusts others.
    fn with_trust(&self, trust: Trust) -> Identity {
        Identity {
            id: self.id,
            file: self.file.clone(),
            trust,
        }
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub fn serial(&self) -> &str {
        self.file.serial()
    }

    pub fn expires(&self) -> SystemTime {
        self.file.not_after()
    }

    /// How this agent connects.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, tls::Error> {
        tls::link(self.trust.roots(), self.trust.trust_domain(), &self.file)
    }
}
