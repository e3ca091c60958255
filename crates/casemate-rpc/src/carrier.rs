//! What nodes keep on its way to a bucket, and from it to a node (decision 0003).
//!
//! Between a node, which is root, and a bucket, which is another machine, stands a process without
//! rights: it asks the node to pack or unpack over a socket, and the bucket for the rest. Control
//! asks it, on the node's machine or on its own.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use casemate_types::Portable;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::caller::{self, Caller, NoAnswer, RequestFrame};
use crate::far::{CONNECT_MAX, Connect, Purpose};
use crate::frame::Channel;
use crate::protocol::Speaks;
use crate::wire::Wire;

/// What a node keeps is to go to the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRequest {
    pub what: Portable,
    /// Whose it is: nothing is shared with others.
    pub scope: String,
    /// An artifact of the scope that it is much like.
    pub like: Option<String>,
}

/// It is in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// By which it is found and checked.
    pub artifact: String,
    /// Its length, and how much of it was not there yet.
    pub bytes: u64,
    pub bytes_sent: u64,
}

/// What is in the bucket is to come to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    pub what: Portable,
    pub scope: String,
    pub artifact: String,
}

/// Why it is not where it was to go; nothing of it is left there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarrierError {
    /// The node has it no more, or the bucket.
    #[error("there is no {what} to carry: {why}")]
    NotThere { what: Portable, why: String },
    #[error("the request is wrong: {why}")]
    Invalid { why: String },
    /// The node's disk is full, or the bucket.
    #[error("no room for {what}: {why}")]
    Full { what: Portable, why: String },
    /// What the bucket gives is not what was put there.
    #[error("{what} is corrupt: {why}")]
    Corrupt { what: Portable, why: String },
    /// A moment later it may be possible.
    #[error("could not carry {what}: {why}")]
    Unavailable { what: Portable, why: String },
    /// No answer will come; it may have been done.
    #[error("the carrier of the node cannot be reached")]
    Unreachable,
}

/// Carries between one node and the bucket.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// # Cancel safety
    /// Dropping it gives it up; pieces that are in the bucket already are found again by the next one.
    async fn store(&self, request: StoreRequest) -> Result<Stored, CarrierError>;

    /// The bytes that it takes at the node. What is there already is left as it is; several that want
    /// the same wait for one.
    ///
    /// # Cancel safety
    /// As above: nothing is left at the node.
    async fn fetch(&self, request: FetchRequest) -> Result<u64, CarrierError>;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Hello(Speaks),
    Store(Box<StoreRequest>),
    Fetch(Box<FetchRequest>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Hello(Speaks),
    Stored(Stored),
    Fetched { bytes: u64 },
}

/// There are none; the wire has room for them.
#[derive(Debug, Serialize, Deserialize)]
enum NoEvent {}

type ReplyFrame = caller::ReplyFrame<Reply, CarrierError, NoEvent>;

/// The carrier of a node on another machine. What is carried may take minutes, so each call has a
/// connection of its own, and giving it up ends it there.
pub struct FarCarrier {
    connect: Box<dyn Connect>,
}

impl FarCarrier {
    pub fn new(connect: impl Connect) -> Self {
        Self {
            connect: Box::new(connect),
        }
    }

    async fn call(&self, call: Call) -> Result<Reply, CarrierError> {
        let connecting = async {
            let stream = self.connect.connect(Purpose::Carry).await?;
            let caller: Caller<Reply, CarrierError, NoEvent> = Caller::new(Channel::stream(stream));
            let hello = caller.call(Call::Hello(Speaks::OURS)).await;
            match hello {
                Ok((Ok(Reply::Hello(theirs)), _)) if theirs.understands_us() => Ok(caller),
                _ => Err(io::Error::other("it does not speak as we do")),
            }
        };
        let connected = timeout(CONNECT_MAX, connecting).await;
        let Ok(Ok(caller)) = connected else {
            return Err(CarrierError::Unreachable);
        };
        match caller.call(call).await {
            Ok((result, _)) => result,
            Err(NoAnswer::Gone) => Err(CarrierError::Unreachable),
            Err(NoAnswer::TooLong) => Err(CarrierError::Invalid {
                why: "the request is larger than 1 MiB".into(),
            }),
        }
    }
}

fn unexpected(reply: &Reply) -> CarrierError {
    CarrierError::Invalid {
        why: format!("unexpected reply {reply:?}"),
    }
}

#[async_trait]
impl Carrier for FarCarrier {
    async fn store(&self, request: StoreRequest) -> Result<Stored, CarrierError> {
        match self.call(Call::Store(Box::new(request))).await? {
            Reply::Stored(stored) => Ok(stored),
            other => Err(unexpected(&other)),
        }
    }

    async fn fetch(&self, request: FetchRequest) -> Result<u64, CarrierError> {
        match self.call(Call::Fetch(Box::new(request))).await? {
            Reply::Fetched { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }
}

/// Calls of one connection that are carried out at once; beyond it the next one is not read.
const CALLS_MAX: usize = 16;

/// Serves one API server until it leaves; what it has not heard the end of by then is given up.
pub async fn serve(stream: Box<dyn Wire>, carrier: Arc<dyn Carrier>) -> io::Result<()> {
    let channel = Arc::new(Channel::stream(stream));
    let mut buffer = Vec::new();
    // Ends with this future.
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        if calls.len() >= CALLS_MAX {
            calls.join_next().await;
        }
        let received = channel.recv::<RequestFrame<Call>>(&mut buffer).await?;
        let Some((RequestFrame { id, call }, _)) = received else {
            return Ok(());
        };
        let (channel, carrier) = (Arc::clone(&channel), Arc::clone(&carrier));
        calls.spawn(async move {
            let result = match call {
                Call::Hello(_) => Ok(Reply::Hello(Speaks::OURS)),
                Call::Store(request) => carrier.store(*request).await.map(Reply::Stored),
                Call::Fetch(request) => {
                    let fetched = carrier.fetch(*request).await;
                    fetched.map(|bytes| Reply::Fetched { bytes })
                }
            };
            let frame = ReplyFrame::Reply { id, result };
            if let Err(error) = channel.send(&frame, None).await
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                warn!(%error, "could not answer an API server");
            }
        });
    }
}
