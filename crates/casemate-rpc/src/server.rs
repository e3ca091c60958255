//! The node's end: serves a [`NodePort`] on a socket until its peer leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::frame::{Channel, buffer};
use crate::protocol::{self, Call, Reply, ReplyFrame, RequestFrame};
use crate::{NodeError, NodePort};

/// Serves one peer. Calls run concurrently; those begun when the peer leaves run to their end
/// before this returns, so that nothing half made is left.
pub async fn serve(socket: OwnedFd, node: Arc<dyn NodePort>) -> io::Result<()> {
    let channel = Arc::new(Channel::new(socket)?);
    let mut buffer = buffer();
    let mut calls = JoinSet::new();
    let mut watch: Option<AbortHandle> = None;
    let end = loop {
        while calls.try_join_next().is_some() {}
        match channel.recv::<RequestFrame>(&mut buffer).await {
            Ok(Some((
                RequestFrame {
                    id,
                    call: Call::Watch,
                },
                _,
            ))) => {
                if let Some(former) = watch.take() {
                    former.abort();
                }
                let task = forward_events(id, Arc::clone(&channel), Arc::clone(&node));
                watch = Some(calls.spawn(task));
            }
            Ok(Some((RequestFrame { id, call }, _))) => {
                calls.spawn(answer(id, call, Arc::clone(&channel), Arc::clone(&node)));
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

async fn answer(id: u64, call: Call, channel: Arc<Channel>, node: Arc<dyn NodePort>) {
    let (result, fd) = match carry_out(call, &*node).await {
        Ok((reply, fd)) => (Ok(reply), fd),
        Err(error) => (Err(error), None),
    };
    reply(&channel, id, result, fd).await;
}

async fn reply(channel: &Channel, id: u64, result: Result<Reply, NodeError>, fd: Option<OwnedFd>) {
    let frame = ReplyFrame::Reply { id, result };
    if let Err(error) = channel.send(&frame, fd.as_ref().map(AsFd::as_fd)).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn!(%error, "could not answer control");
    }
}

async fn carry_out(call: Call, node: &dyn NodePort) -> Result<(Reply, Option<OwnedFd>), NodeError> {
    let reply = match call {
        Call::Hello { .. } => Reply::Hello {
            version: protocol::VERSION,
        },
        Call::Create(request) => Reply::Created(node.create(*request).await?),
        Call::Kill { sandbox, reason } => {
            node.kill(&sandbox, reason).await?;
            Reply::Done
        }
        Call::Pause { sandbox, kept } => Reply::Paused(node.pause(&sandbox, kept).await?),
        Call::Resume(request) => Reply::Resumed(node.resume(*request).await?),
        Call::Snapshot { sandbox, snapshot } => {
            Reply::Snapshot(node.snapshot(&sandbox, &snapshot).await?)
        }
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
            let stream = node.dial(&sandbox, port).await?;
            return Ok((Reply::Dialled, Some(stream.into())));
        }
        Call::Info => Reply::Info(Box::new(node.info().await?)),
        Call::Watch => {
            return Err(NodeError::Internal {
                why: "a watch is not a call".into(),
            });
        }
    };
    Ok((reply, None))
}

async fn forward_events(id: u64, channel: Arc<Channel>, node: Arc<dyn NodePort>) {
    let mut events = match node.watch().await {
        Ok(events) => events,
        Err(error) => return reply(&channel, id, Err(error), None).await,
    };
    reply(&channel, id, Ok(Reply::Done), None).await;
    while let Some(event) = events.recv().await {
        if channel.send(&ReplyFrame::Event(event), None).await.is_err() {
            return;
        }
    }
}
