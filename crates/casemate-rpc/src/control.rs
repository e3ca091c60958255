//! What API servers do for the cluster's other processes: nodes and edges join and renew their
//! certificates, and edges have sandboxes woken (decision 5). The rest goes the other way.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use casemate_types::{SandboxId, steady};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::warn;

use crate::caller::{self, Caller, NoAnswer, RequestFrame};
use crate::frame::Channel;
use crate::protocol::Speaks;
use crate::wire::Wire;

/// A member's place in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    Api,
    Edge,
    Node,
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Edge => "edge",
            Self::Node => "node",
        })
    }
}

/// Who a connection comes from, by the certificate that it showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub role: MemberRole,
    /// Unique among its role; a node's is the node's id.
    pub name: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// A machine that wants to belong to the cluster, with a join token's right to it.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token_id: String,
    /// Over TLS whose authority the token names.
    pub token_secret: String,
    pub member: Member,
    /// What is to be certified: a point of P-256, not compressed, in hexadecimal. Its other half stays
    /// where it was made.
    pub public_key: String,
    /// Of a node.
    pub node: Option<NodePlace>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token_id", &self.token_id)
            .field("member", &self.member)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Where a node is reached, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlace {
    /// `host:port` of its gate.
    pub address: String,
    /// What placement may ask for.
    pub labels: BTreeMap<String, String>,
    /// Its isolation kind.
    pub isolation: String,
}

/// A member that has a certificate wants the next one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    pub public_key: String,
    /// Of a node: as it is now.
    pub node: Option<NodePlace>,
}

/// A certificate for a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Authorities to trust, PEM.
    pub authorities: String,
    /// For how long it holds from now on.
    pub lasts_seconds: u64,
    /// The cluster's steady time, microseconds: a machine that has booted begins to count from it.
    pub now_us: i64,
}

/// A node as edges need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    pub node: String,
    pub address: String,
}

/// A request has come to an edge for a sandbox that is paused.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Knock {
    /// It is for the agent's port.
    pub for_agent: bool,
    pub access_token: Option<Vec<u8>>,
    pub traffic_token: Option<Vec<u8>>,
}

/// Why the cluster's API server did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlError {
    /// The token is unknown, spent, run out, or for another role; or the caller has no certificate.
    #[error("not admitted: {why}")]
    NotAdmitted { why: String },
    #[error("the request is wrong: {why}")]
    Invalid { why: String },
    /// There is no such sandbox, or traffic does not wake it.
    #[error("the sandbox was not woken")]
    NotWoken,
    #[error("the request may not wake the sandbox")]
    WakeDenied,
    /// The text is for the client.
    #[error("{text}")]
    TeamLimit { text: String },
    #[error("the sandbox did not settle in time")]
    Transitioning,
    /// A moment later it may be done.
    #[error("not possible now: {why}")]
    Unavailable { why: String },
    /// No answer will come; it may have been done.
    #[error("the API server cannot be reached")]
    Unreachable,
}

/// An API server, as nodes and edges see it.
#[async_trait]
pub trait ControlPort: Send + Sync {
    async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError>;

    async fn renew(&self, caller: &Member, request: RenewRequest)
    -> Result<Admitted, ControlError>;

    /// Nodes of the cluster that may have sandboxes.
    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError>;

    /// The sandbox runs on return.
    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), ControlError>;

    /// The node that a sandbox's row names; `None`: it has no row, or has ended.
    async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError>;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Hello(Speaks),
    Join(Box<JoinRequest>),
    Renew(Box<RenewRequest>),
    Nodes,
    Wake {
        sandbox: SandboxId,
        knock: Knock,
    },
    Time,
    /// For who said in its greeting that it answers this.
    Home {
        sandbox: SandboxId,
    },
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock")
            .field("for_agent", &self.for_agent)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Hello(Speaks),
    Admitted(Box<Admitted>),
    Nodes(Vec<NodeAddress>),
    /// Steady time, microseconds.
    Time(i64),
    Home(Option<String>),
    Done,
}

/// There are none; the wire has room for them.
#[derive(Debug, Serialize, Deserialize)]
enum Event {}

type ReplyFrame = caller::ReplyFrame<Reply, ControlError, Event>;

/// The asking end.
pub struct ControlClient {
    caller: Caller<Reply, ControlError, Event>,
    /// The other end would hang up at a question that it does not know.
    tells_homes: bool,
}

impl ControlClient {
    pub async fn connect(stream: Box<dyn Wire>) -> io::Result<Self> {
        let mut client = Self {
            caller: Caller::new(Channel::stream(stream)),
            tells_homes: false,
        };
        match client.call(Call::Hello(Speaks::OURS)).await {
            Ok(Reply::Hello(theirs)) if theirs.understands_us() => {
                client.tells_homes = theirs.tells_homes;
                Ok(client)
            }
            Ok(Reply::Hello(theirs)) => Err(io::Error::other(format!(
                "the API server speaks {theirs}, and we {}",
                Speaks::OURS
            ))),
            Ok(_) => Err(io::Error::other("the API server answers something else")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    pub async fn closed(&self) {
        self.caller.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.caller.is_closed()
    }

    pub async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        match self.call(Call::Join(Box::new(request))).await? {
            Reply::Admitted(admitted) => Ok(*admitted),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn renew(&self, request: RenewRequest) -> Result<Admitted, ControlError> {
        match self.call(Call::Renew(Box::new(request))).await? {
            Reply::Admitted(admitted) => Ok(*admitted),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        match self.call(Call::Nodes).await? {
            Reply::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), ControlError> {
        let sandbox = sandbox.clone();
        match self.call(Call::Wake { sandbox, knock }).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`ControlPort::home`].
    pub async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError> {
        if !self.tells_homes {
            return Err(ControlError::Unavailable {
                why: "the API server is of a version that does not tell it".into(),
            });
        }
        let sandbox = sandbox.clone();
        match self.call(Call::Home { sandbox }).await? {
            Reply::Home(node) => Ok(node),
            other => Err(unexpected(&other)),
        }
    }

    /// The cluster's steady time, microseconds. A server of a version before this question hangs up.
    pub async fn time_us(&self) -> Result<i64, ControlError> {
        match self.call(Call::Time).await? {
            Reply::Time(now) => Ok(now),
            other => Err(unexpected(&other)),
        }
    }

    async fn call(&self, call: Call) -> Result<Reply, ControlError> {
        match self.caller.call(call).await {
            Ok((result, _)) => result,
            Err(NoAnswer::Gone) => Err(ControlError::Unreachable),
            Err(NoAnswer::TooLong) => Err(ControlError::Invalid {
                why: "the request is larger than 1 MiB".into(),
            }),
        }
    }
}

fn unexpected(reply: &Reply) -> ControlError {
    ControlError::Unavailable {
        why: format!("unexpected reply {reply:?}"),
    }
}

/// Calls of one peer that are carried out at once; beyond it the next one is not read.
const CALLS_MAX: usize = 1024;
/// Of one that nobody vouched for: it can join, and do nothing else.
const CALLS_MAX_OF_STRANGERS: usize = 1;

/// Serves one peer until it leaves; `None` for one that showed no certificate. What it asked for
/// and has not been done when it leaves is done all the same.
pub async fn serve(
    stream: Box<dyn Wire>,
    peer: Option<Member>,
    control: Arc<dyn ControlPort>,
) -> io::Result<()> {
    let channel = Arc::new(Channel::stream(stream));
    let mut buffer = Vec::new();
    let mut calls = JoinSet::new();
    let at_once = match peer {
        Some(_) => CALLS_MAX,
        None => CALLS_MAX_OF_STRANGERS,
    };
    let end = loop {
        while calls.try_join_next().is_some() {}
        if calls.len() >= at_once {
            calls.join_next().await;
        }
        match channel.recv::<RequestFrame<Call>>(&mut buffer).await {
            Ok(Some((RequestFrame { id, call }, _))) => {
                let (channel, control) = (Arc::clone(&channel), Arc::clone(&control));
                let peer = peer.clone();
                calls.spawn(async move {
                    let result = carry_out(call, peer.as_ref(), &*control).await;
                    let frame = ReplyFrame::Reply { id, result };
                    if let Err(error) = channel.send(&frame, None).await
                        && error.kind() != io::ErrorKind::BrokenPipe
                    {
                        warn!(%error, "could not answer a member of the cluster");
                    }
                });
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    while calls.join_next().await.is_some() {}
    end
}

async fn carry_out(
    call: Call,
    peer: Option<&Member>,
    control: &dyn ControlPort,
) -> Result<Reply, ControlError> {
    let known = || {
        peer.ok_or_else(|| ControlError::NotAdmitted {
            why: "this needs a certificate of the cluster".into(),
        })
    };
    let leads_into_sandboxes = || match known()?.role {
        MemberRole::Edge | MemberRole::Api => Ok(()),
        MemberRole::Node => Err(ControlError::NotAdmitted {
            why: "this is not for nodes".into(),
        }),
    };
    Ok(match call {
        Call::Hello(_) => Reply::Hello(Speaks::OURS),
        Call::Join(request) => Reply::Admitted(Box::new(control.join(*request).await?)),
        Call::Renew(request) => Reply::Admitted(Box::new(control.renew(known()?, *request).await?)),
        Call::Nodes => {
            leads_into_sandboxes()?;
            Reply::Nodes(control.nodes().await?)
        }
        Call::Time => {
            known()?;
            Reply::Time(steady::now().as_microsecond())
        }
        Call::Wake { sandbox, knock } => {
            leads_into_sandboxes()?;
            control.wake(&sandbox, knock).await?;
            Reply::Done
        }
        Call::Home { sandbox } => {
            leads_into_sandboxes()?;
            Reply::Home(control.home(&sandbox).await?)
        }
    })
}
