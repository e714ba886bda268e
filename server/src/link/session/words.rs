//! The words of a session: what happens to it, what it wants done, and why it ends. Decides nothing.

use std::sync::Arc;

use muster_proto::v1::{self, AckedSpool, AgentConfig, ConnectRequest, ConnectResponse, Lane};

use crate::{
    agents::{Hello, Report, liveness},
    clones::Refusal,
    disk::Level,
    ingest::{Done, Held, SpoolId},
    link::draining::Telling,
    policies::PolicySet,
};

#[derive(Debug)]
pub enum Event {
    Frame(Box<ConnectRequest>),
    /// The register has taken the session; what it needs for `Welcome`.
    Admitted(Box<Admitted>),
    /// Records were committed.
    Committed {
        lane: Lane,
        spool: SpoolId,
        bytes: u64,
        done: Done,
    },
    /// There was no room for records on the disk; see [`Received`] for `resends`.
    NotTaken {
        lane: Lane,
        bytes: u64,
        resends: u32,
    },
    /// How full the disk is, when it may have changed.
    Room(Level),
    /// Records could not be stored: without an acknowledgement the link has to begin anew.
    StoreFailed,
    /// The set the agent shall have, when it may have changed.
    Policies(Arc<PolicySet>),
    /// What the inventory says of the agent, when it may have changed.
    Inventory(AgentConfig),
    /// The version of the trust bundle there is, when it may have changed.
    TrustBundle(i64),
    Tick,
    /// A frame came that is no frame, or is too large for one; nothing can come after it.
    Unreadable(String),
    /// The stream has ended.
    Ended,
    /// The agent is not on file any longer.
    Unknown,
    /// Another machine is this agent.
    Refused(Box<Refusal>),
    /// Somebody wants to know whether the agent is still there.
    Probe,
    Replaced,
    /// Somebody has ended the link, and says why.
    Cut(Close),
    /// It is the link's turn to leave.
    Drain(Telling),
    /// It was, and it is still here.
    Overstayed {
        stops: bool,
    },
    ShuttingDown,
}

#[derive(Debug)]
pub struct Admitted {
    pub session_id: String,
    pub acked: Vec<AckedSpool>,
    pub facts_digest: String,
    pub policy_status_digest: String,
    pub config: AgentConfig,
    /// None: it is told of none now.
    pub policies: Option<Arc<PolicySet>>,
    /// Of the agent's other spools; 0: there are none.
    pub highest_generation: i64,
    /// Version of the trust bundle there is.
    pub trust_bundle: i64,
}

#[derive(Debug)]
pub enum Effect {
    Send(ConnectResponse),
    /// Register the agent and answer with `Event::Admitted`.
    Admit(Box<Admission>),
    Ingest(Box<Received>),
    /// An acknowledgement of this lane has to wait, since the agent is beyond its limits: for the first time in a while.
    Throttled(Lane),
    Facts(v1::Facts),
    PolicyStatus(v1::PolicyStatus),
    Report(Report),
    /// The agent has been heard of.
    Seen,
    PolicySyncSent,
    /// Send the trust bundle as it is now.
    SendTrustBundle,
    /// The agent has taken over this version.
    TrustBundleHeld(i64),
    /// The agent has answered a probe.
    Answered,
    /// The agent was told to leave.
    Leaving,
    Close(Close),
}

/// A frame of records that the window has room for.
#[derive(Debug)]
pub struct Received {
    pub lane: Lane,
    pub spool: SpoolId,
    pub first_seq: u64,
    pub records: Vec<v1::Record>,
    pub bytes: u64,
    /// They waited with the agent before they came.
    pub has_waited: bool,
    /// How often the lane was sent again before. Records of one number are stored in their order or not at all.
    pub resends: u32,
    pub held: Held,
}

#[derive(Debug)]
pub struct Admission {
    pub hello: Hello,
    /// The spools it has unacknowledged records in, and their lanes.
    pub spools: Vec<(SpoolId, Lane)>,
    pub fingerprint: Option<v1::Fingerprint>,
}

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    Clone(Box<Refusal>),
    Goodbye,
    /// It has gone elsewhere, as it was told to.
    Left,
    /// It comes again at once, by its own word: by a better way, or as another process.
    Restarting,
    Ended,
    /// Nothing was heard for four heartbeats, though the connection is there.
    Silent,
    /// Nothing could be sent for as long.
    Timeout,
    Replaced,
    /// The trust in the agent, or in its certificate, has ended.
    Revoked,
    /// The certificate has expired, and the agent has not renewed it.
    Expired,
    /// Links are sent away, and this one does not know how to be told, or has not gone.
    Draining,
    ShuttingDown,
    StoreFailed,
    /// There is no room for what the agent has sent.
    Overloaded,
    Version {
        wanted: u32,
    },
    Protocol(String),
}

impl Close {
    /// The reason of the agent's status.
    pub fn status_reason(&self) -> &'static str {
        match self {
            Self::Goodbye => liveness::GOODBYE,
            Self::Left | Self::Draining | Self::ShuttingDown => liveness::DRAINED,
            Self::Restarting => liveness::RESTARTING,
            Self::Silent => liveness::SILENT,
            Self::Timeout => liveness::TIMEOUT,
            Self::Expired => liveness::EXPIRED,
            Self::Revoked => liveness::REVOKED,
            Self::Clone(_) | Self::Version { .. } | Self::Protocol(_) => liveness::REFUSED,
            Self::StoreFailed | Self::Overloaded => liveness::NOT_STORED,
            Self::Replaced => liveness::SUPERSEDED,
            Self::Ended => liveness::EOF,
        }
    }
}
