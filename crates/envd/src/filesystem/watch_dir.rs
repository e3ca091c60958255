//! `WatchDir`: events as a stream.

use std::pin::pin;

use envd_wire::filesystem::watch_dir_response::{Event, KeepAlive, StartEvent};
use envd_wire::filesystem::{WatchDirRequest, WatchDirResponse};
use tokio::time::timeout;

use super::events::{Wanted, Watcher};
use super::resolve;
use crate::connect::{Context, RpcError, Sink};

/// Ends by the client, the deadline or an error; never by what happens to the directory.
pub async fn watch_dir(
    context: Context,
    request: WatchDirRequest,
    sink: Sink<WatchDirResponse>,
) -> Result<(), RpcError> {
    let (_, path) = resolve(&context, &request.path)?;
    let wanted = Wanted {
        path,
        recursive: request.recursive,
        include_entry: request.include_entry,
        allow_network_mounts: request.allow_network_mounts,
    };
    let mut watcher = Watcher::open(&context.guest.watchers.open, wanted).await?;
    let send = async |event| sink.send(&WatchDirResponse { event: Some(event) }).await;
    send(Event::Start(Box::<StartEvent>::default())).await?;
    loop {
        let mut next = pin!(watcher.next());
        let events = loop {
            match timeout(context.keepalive, &mut next).await {
                Ok(events) => break events?,
                Err(_) => send(Event::Keepalive(Box::<KeepAlive>::default())).await?,
            }
        };
        for event in events {
            send(Event::Filesystem(Box::new(event))).await?;
        }
    }
}
