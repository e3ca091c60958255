//! A reader's view of a process: start, output, keepalives in silence, end.

use std::rc::Rc;
use std::time::Duration;

use envd_wire::process::ProcessEvent;
use envd_wire::process::process_event::data_event::Output;
use envd_wire::process::process_event::{DataEvent, EndEvent, Event, KeepAlive, StartEvent};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::live::{Chunk, Process, Source};
use crate::connect::RpcError;

/// One message with an event in it.
pub fn event(event: Event) -> ProcessEvent {
    ProcessEvent { event: Some(event) }
}

pub fn started(pid: u32) -> ProcessEvent {
    event(Event::Start(Box::new(StartEvent { pid })))
}

pub fn ended(end: EndEvent) -> ProcessEvent {
    event(Event::End(Box::new(end)))
}

/// Tells `send` everything from the start of `process` to its end. The queue was opened before the
/// process could write, or just now for one that runs already.
pub async fn follow(
    process: &Rc<Process>,
    mut queue: mpsc::Receiver<Chunk>,
    keepalive: Duration,
    send: impl AsyncFn(ProcessEvent) -> Result<(), RpcError>,
) -> Result<(), RpcError> {
    send(started(process.pid)).await?;
    loop {
        match timeout(keepalive, queue.recv()).await {
            Ok(Some(chunk)) => send(data(chunk)).await?,
            Ok(None) => break,
            Err(_) => send(event(Event::Keepalive(Box::<KeepAlive>::default()))).await?,
        }
    }
    let end = process
        .ended()
        .ok_or_else(|| RpcError::internal("output ended before the process did"))?;
    send(ended(end)).await
}

fn data(chunk: Chunk) -> ProcessEvent {
    let output = match chunk.source {
        Source::Stdout => Output::Stdout(chunk.bytes),
        Source::Stderr => Output::Stderr(chunk.bytes),
        Source::Terminal => Output::Pty(chunk.bytes),
    };
    event(Event::Data(Box::new(DataEvent {
        output: Some(output),
    })))
}
