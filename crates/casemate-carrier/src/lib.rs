//! Between a node and a bucket: what a node keeps goes there as an artifact, and comes from there.
//!
//! ```text
//! store:  node ── pack ──▶ socket ──▶ put, which ends when the node has said that this is all
//! fetch:  artifact, each byte checked ──▶ socket ──▶ node unpacks
//! ```
//!
//! Owns how both are joined, who waits for whom, and how many at once. Must not know rows, templates or
//! when anything should be carried. It runs as a process without rights; it reads no packed tree.

mod flights;
mod whole;

use std::sync::Arc;

use async_trait::async_trait;
use casemate_artifacts::{
    ArtifactError, ArtifactRef, Artifacts, Kind, NotARef, NotAScope, PutRequest, Scope,
};
use casemate_rpc::carrier::{Carrier, CarrierError, FetchRequest, StoreRequest, Stored};
use casemate_rpc::{NodeError, NodePort};
use casemate_types::{Portable, chain};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tracing::info;

use flights::Flights;
use whole::Whole;

/// Carried at once, each way: a disk and a line are shared by all that sandboxes do.
const AT_ONCE: usize = 4;
/// What leaves a node at most: an artifact's limit.
const BYTES_MAX: u64 = casemate_artifacts::ARTIFACT_BYTES_MAX;

/// The carrier of a node on this machine.
pub struct NearCarrier {
    node: Arc<dyn NodePort>,
    artifacts: Artifacts,
    leaving: Semaphore,
    coming: Semaphore,
    flights: Flights,
}

impl NearCarrier {
    /// `node` must carry: see [`NodePort::pack`].
    pub fn new(node: Arc<dyn NodePort>, artifacts: Artifacts) -> Self {
        Self {
            node,
            artifacts,
            leaving: Semaphore::new(AT_ONCE),
            coming: Semaphore::new(AT_ONCE),
            flights: Flights::default(),
        }
    }

    async fn put(&self, request: &StoreRequest) -> Result<Stored, CarrierError> {
        let what = &request.what;
        let scope = scope(&request.scope)?;
        let like = request.like.as_deref().map(reference).transpose()?;
        let (ours, theirs) = pair(what)?;
        let (done, packed) = oneshot::channel();
        let packing = async {
            let packed = self.node.pack(what, theirs).await;
            // The put reads to the end of the stream, and then waits for this.
            let _ = done.send(packed.is_ok());
            packed
        };
        let name = what.to_string();
        let put = PutRequest {
            scope: &scope,
            kind: kind(what),
            name: &name,
            bytes_max: BYTES_MAX,
            like,
        };
        let putting = self.artifacts.put(put, Whole::new(ours, packed));
        // A put that fails drops its end of the socket, which ends the packing.
        let (packed, put) = tokio::join!(packing, putting);
        match (packed, put) {
            // Of a broken pipe the bucket is the cause.
            (Ok(()) | Err(NodeError::CarryFailed { .. }), Err(error)) if !is_source(&error) => {
                Err(of_bucket(what, &error))
            }
            (Err(error), _) => Err(of_node(what, error)),
            (Ok(()), Err(error)) => Err(of_bucket(what, &error)),
            (Ok(()), Ok(put)) => Ok(Stored {
                artifact: put.artifact.to_string(),
                bytes: put.artifact.bytes,
                bytes_sent: put.bytes_sent,
            }),
        }
    }

    async fn get(&self, request: &FetchRequest) -> Result<u64, CarrierError> {
        let what = &request.what;
        let (scope, artifact) = (scope(&request.scope)?, reference(&request.artifact)?);
        let opened = self.artifacts.open_artifact(&scope, &artifact).await;
        let artifact = opened.map_err(|error| of_bucket(what, &error))?;
        let (mut ours, theirs) = pair(what)?;
        let (mut reader, bytes) = (artifact.reader(), artifact.bytes());
        let copying = async move {
            let copied = tokio::io::copy(&mut reader, &mut ours).await;
            // Dropped here: the node sees the end, whole or not.
            copied.map(drop)
        };
        let (unpacked, copied) = tokio::join!(self.node.unpack(what, bytes, theirs), copying);
        match (unpacked, copied) {
            // What was there already is not read.
            (Ok(bytes), _) => Ok(bytes),
            (Err(NodeError::CarryFailed { .. }), Err(error)) => {
                match ArtifactError::from_io(error) {
                    Ok(error) => Err(of_bucket(what, &error)),
                    Err(error) => Err(unavailable(what, chain(&error))),
                }
            }
            // All of it went to the node, and it was no tree.
            (Err(NodeError::CarryFailed { why, .. }), Ok(())) => Err(CarrierError::Corrupt {
                what: what.clone(),
                why,
            }),
            (Err(error), _) => Err(of_node(what, error)),
        }
    }
}

#[async_trait]
impl Carrier for NearCarrier {
    async fn store(&self, request: StoreRequest) -> Result<Stored, CarrierError> {
        let _turn = self
            .leaving
            .acquire()
            .await
            .map_err(|_| ending(&request.what))?;
        let stored = self.put(&request).await?;
        info!(
            bytes = stored.bytes,
            bytes_sent = stored.bytes_sent,
            "stored {}",
            request.what
        );
        Ok(stored)
    }

    async fn fetch(&self, request: FetchRequest) -> Result<u64, CarrierError> {
        let flight = self.flights.of(&request.what);
        // Who waited finds it there: the node reads nothing then.
        let _one = flight.lock().await;
        let _turn = self
            .coming
            .acquire()
            .await
            .map_err(|_| ending(&request.what))?;
        let bytes = self.get(&request).await?;
        info!(bytes, "fetched {}", request.what);
        Ok(bytes)
    }
}

fn kind(what: &Portable) -> Kind {
    match what {
        Portable::Snapshot(_) => Kind::Files,
        Portable::Layer(_) => Kind::Layer,
    }
}

fn scope(text: &str) -> Result<Scope, CarrierError> {
    text.parse()
        .map_err(|why: NotAScope| CarrierError::Invalid {
            why: why.to_string(),
        })
}

fn reference(text: &str) -> Result<ArtifactRef, CarrierError> {
    text.parse().map_err(|why: NotARef| CarrierError::Invalid {
        why: why.to_string(),
    })
}

/// Our end, and the node's.
fn pair(what: &Portable) -> Result<(UnixStream, std::os::unix::net::UnixStream), CarrierError> {
    let paired = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.into_std()?)));
    paired.map_err(|error| unavailable(what, format!("make a pair of sockets: {error}")))
}

fn unavailable(what: &Portable, why: String) -> CarrierError {
    CarrierError::Unavailable {
        what: what.clone(),
        why,
    }
}

fn ending(what: &Portable) -> CarrierError {
    unavailable(what, "the process is ending".into())
}

fn is_source(error: &ArtifactError) -> bool {
    matches!(error, ArtifactError::Source(_))
}

fn of_bucket(what: &Portable, error: &ArtifactError) -> CarrierError {
    let (what, why) = (what.clone(), chain(error));
    match error {
        ArtifactError::NotFound { .. } => CarrierError::NotThere { what, why },
        ArtifactError::Full { .. } | ArtifactError::TooLarge { .. } => {
            CarrierError::Full { what, why }
        }
        ArtifactError::Corrupt { .. } => CarrierError::Corrupt { what, why },
        ArtifactError::Denied { .. }
        | ArtifactError::Unavailable { .. }
        | ArtifactError::Range { .. }
        | ArtifactError::Source(_)
        | ArtifactError::Outlived
        | ArtifactError::Layout { .. }
        | ArtifactError::Ended => CarrierError::Unavailable { what, why },
    }
}

fn of_node(what: &Portable, error: NodeError) -> CarrierError {
    let (what, why) = (what.clone(), chain(&error));
    match error {
        NodeError::NotHere(_) | NodeError::NoSnapshot(_) => CarrierError::NotThere { what, why },
        NodeError::DiskFull { .. } => CarrierError::Full { what, why },
        NodeError::Unreachable => CarrierError::Unreachable,
        _ => CarrierError::Unavailable { what, why },
    }
}
