//! `Connect`: one more reader of a process, or the end of one that is gone.

use envd_wire::process::process_selector::Selector;
use envd_wire::process::{ConnectRequest, ConnectResponse, ProcessEvent};

use super::follow::{ended, follow, started};
use super::selector;
use crate::connect::{Code, Context, RpcError, Sink};
use crate::limits::READERS_PER_PROCESS;

pub async fn connect(
    context: Context,
    request: ConnectRequest,
    sink: Sink<ConnectResponse>,
) -> Result<(), RpcError> {
    let send = async |event: ProcessEvent| {
        sink.send(&ConnectResponse {
            event: event.into(),
        })
        .await
    };
    let wanted = selector::read(request.process.as_option())?;
    let table = &context.guest.processes;
    if let Ok(process) = selector::find(table, &wanted) {
        // Found and subscribed in one step of one thread: an end cannot come in between.
        let queue = process.subscribe().ok_or_else(|| {
            let text = format!("process has {READERS_PER_PROCESS} open streams already");
            RpcError::new(Code::ResourceExhausted, text)
        })?;
        return follow(&process, queue, context.keepalive, send).await;
    }
    let retained = table.retained(|old| match &wanted {
        Selector::Pid(pid) => old.pid == *pid,
        Selector::Tag(tag) => old.tag.as_ref() == Some(tag),
    });
    let retained = retained.ok_or_else(|| selector::missing(&wanted))?;
    send(started(retained.pid)).await?;
    send(ended(retained.end)).await
}
