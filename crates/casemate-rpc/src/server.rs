//! The node's end: serves a [`NodePort`] on a connection until its peer leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;

use casemate_linux::scm;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use crate::caller::{self, RequestFrame};
use crate::frame::Channel;
use crate::protocol::{Call, NodeEvent, Peer, Reply, Speaks};
use crate::wire::{Dialled, Wire};
use crate::{NodeError, NodePort};

/// Calls of one edge that are carried out at once; beyond it the next one is not read. So what it asks
/// and does not hear of takes no more of the node than this.
const CALLS_MAX_OF_EDGES: usize = 1024;
/// Of control, whose calls may last: a create waits for room.
const CALLS_MAX: usize = 16 * 1024;

type ReplyFrame = caller::ReplyFrame<Reply, NodeError, NodeEvent>;

/// Serves the process at the other end of a socket pair, which may be asked everything and may have
/// others served. Calls run concurrently; those begun when the peer leaves run to their end before
/// this returns, so that nothing half made is left.
pub async fn serve(socket: OwnedFd, node: Arc<dyn NodePort>) -> io::Result<()> {
    serve_channel(Channel::pair(socket)?, Peer::Control, node).await
}

/// The same for a peer on another machine, whose connection ends in this process.
pub async fn serve_stream(
    stream: Box<dyn Wire>,
    peer: Peer,
    node: Arc<dyn NodePort>,
) -> io::Result<()> {
    serve_channel(Channel::stream(stream), peer, node).await
}

/// Boxed because the calls that are served may ask for further connections.
fn serve_channel(
    channel: Channel,
    peer: Peer,
    node: Arc<dyn NodePort>,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    Box::pin(serve_calls(channel, peer, node))
}

async fn serve_calls(channel: Channel, peer: Peer, node: Arc<dyn NodePort>) -> io::Result<()> {
    let channel = Arc::new(channel);
    let mut buffer = Vec::new();
    let mut calls = JoinSet::new();
    let mut watch: Option<AbortHandle> = None;
    let at_once = match peer {
        Peer::Control => CALLS_MAX,
        Peer::Edge => CALLS_MAX_OF_EDGES,
    };
    let end = loop {
        while calls.try_join_next().is_some() {}
        if calls.len() >= at_once {
            calls.join_next().await;
        }
        match channel.recv::<RequestFrame<Call>>(&mut buffer).await {
            Ok(Some((RequestFrame { id, call }, _))) if !may(peer, &call) => {
                let refused = Err(NodeError::Denied);
                calls.spawn(reply(Arc::clone(&channel), id, refused, None));
            }
            Ok(Some((
                RequestFrame {
                    id,
                    call: call @ (Call::Watch | Call::Observe),
                },
                _,
            ))) => {
                let is_watch = matches!(call, Call::Watch);
                if let Some(former) = watch.take() {
                    former.abort();
                }
                let task = forward_events(id, is_watch, Arc::clone(&channel), Arc::clone(&node));
                watch = Some(calls.spawn(task));
            }
            Ok(Some((RequestFrame { id, call }, fd))) => {
                calls.spawn(answer(
                    id,
                    call,
                    fd,
                    Arc::clone(&channel),
                    Arc::clone(&node),
                ));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Some(watch) = watch {
        watch.abort();
    }
    while calls.join_next().await.is_some() {}
    end
}

/// What is carried out for whom.
fn may(peer: Peer, call: &Call) -> bool {
    match peer {
        Peer::Control => true,
        Peer::Edge => matches!(
            call,
            Call::Hello(_) | Call::Dial { .. } | Call::Locate { .. } | Call::Info
        ),
    }
}

async fn answer(
    id: u64,
    call: Call,
    beside: Option<OwnedFd>,
    channel: Arc<Channel>,
    node: Arc<dyn NodePort>,
) {
    let (result, fd) = match carry_out(call, beside, &node).await {
        Ok((reply, fd)) => (Ok(reply), fd),
        Err(error) => (Err(error), None),
    };
    reply(channel, id, result, fd).await;
}

async fn reply(
    channel: Arc<Channel>,
    id: u64,
    result: Result<Reply, NodeError>,
    fd: Option<OwnedFd>,
) {
    let frame = ReplyFrame::Reply { id, result };
    if let Err(error) = channel.send(&frame, fd.as_ref().map(AsFd::as_fd)).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn!(%error, "could not answer control");
    }
}

/// The socket that a call must have beside it.
fn socket(beside: Option<OwnedFd>) -> Result<UnixStream, NodeError> {
    let beside = beside.ok_or_else(|| NodeError::Unsupported {
        why: "the call has no socket beside it".into(),
    })?;
    Ok(beside.into())
}

async fn carry_out(
    call: Call,
    beside: Option<OwnedFd>,
    node: &Arc<dyn NodePort>,
) -> Result<(Reply, Option<OwnedFd>), NodeError> {
    let reply = match call {
        Call::Hello(_) => Reply::Hello(Speaks::OURS),
        Call::Create(request) => Reply::Created(node.create(*request).await?),
        Call::Kill { sandbox, reason } => {
            node.kill(&sandbox, reason).await?;
            Reply::Done
        }
        Call::Pause { sandbox, kept } => Reply::Paused(node.pause(&sandbox, kept).await?),
        Call::Resume(request) => Reply::Resumed(node.resume(*request).await?),
        Call::Snapshot {
            sandbox,
            snapshot,
            paused: true,
        } => Reply::Kept(node.keep_paused(&sandbox, &snapshot).await?),
        Call::Snapshot {
            sandbox,
            snapshot,
            paused: false,
        } => Reply::Snapshot(node.snapshot(&sandbox, &snapshot).await?),
        Call::RemoveSnapshot { snapshot } => {
            node.remove_snapshot(&snapshot).await?;
            Reply::Done
        }
        Call::Snapshots { after } => Reply::Snapshots(node.snapshots(after.as_ref()).await?),
        Call::Seal { snapshot, layer } => Reply::Sealed(node.seal(&snapshot, &layer).await?),
        Call::RemoveLayer { layer } => {
            node.remove_layer(&layer).await?;
            Reply::Done
        }
        Call::Layers { after } => Reply::Layers(node.layers(after.as_ref()).await?),
        Call::Claim { sandbox, claim } => Reply::Created(node.claim(&sandbox, claim).await?),
        Call::Missing { layers, files } => {
            Reply::Missing(node.missing(&layers, files.as_ref()).await?)
        }
        Call::Pack { what } => {
            node.pack(&what, socket(beside)?).await?;
            Reply::Done
        }
        Call::Unpack { what } => Reply::Unpacked(node.unpack(&what, socket(beside)?).await?),
        Call::MemoryKills { sandbox } => Reply::MemoryKills(node.memory_kills(&sandbox).await?),
        Call::SetDeadline { sandbox, ends_at } => {
            node.set_deadline(&sandbox, ends_at).await?;
            Reply::Done
        }
        Call::SetNetwork { sandbox, policy } => {
            node.set_network(&sandbox, policy).await?;
            Reply::Done
        }
        Call::Recorded { sandboxes } => {
            node.recorded(&sandboxes).await?;
            Reply::Done
        }
        Call::Dial { sandbox, port } => {
            return match node.dial(&sandbox, port).await? {
                Dialled::Near(socket) => Ok((Reply::Dialled, Some(socket.into()))),
                Dialled::Far(_) => Err(NodeError::Internal {
                    why: "a connection through another machine cannot be handed over".into(),
                }),
            };
        }
        Call::Connect { peer } => {
            let (ours, theirs) = scm::pair().map_err(|error| NodeError::Internal {
                why: format!("make a socket pair: {error}"),
            })?;
            let channel = Channel::pair(ours).map_err(|error| NodeError::Internal {
                why: format!("use a socket pair: {error}"),
            })?;
            tokio::spawn(serve_connected(channel, peer, Arc::clone(node)));
            return Ok((Reply::Connected, Some(theirs)));
        }
        Call::Locate { sandbox } => Reply::Located(node.locate(&sandbox).await?.map(Box::new)),
        Call::Info => Reply::Info(Box::new(node.info().await?)),
        Call::Watch | Call::Observe => {
            return Err(NodeError::Internal {
                why: "a watch is not a call".into(),
            });
        }
    };
    Ok((reply, None))
}

/// Lives as long as whoever holds the other end.
async fn serve_connected(channel: Channel, peer: Peer, node: Arc<dyn NodePort>) {
    if let Err(error) = serve_channel(channel, peer, node).await {
        debug!(%error, "a connection that was handed on ended");
    }
}

async fn forward_events(id: u64, is_watch: bool, channel: Arc<Channel>, node: Arc<dyn NodePort>) {
    let events = match is_watch {
        true => node.watch().await,
        false => node.observe().await,
    };
    let mut events = match events {
        Ok(events) => events,
        Err(error) => return reply(channel, id, Err(error), None).await,
    };
    reply(Arc::clone(&channel), id, Ok(Reply::Done), None).await;
    while let Some(event) = events.recv().await {
        if channel.send(&ReplyFrame::Event(event), None).await.is_err() {
            return;
        }
    }
}
