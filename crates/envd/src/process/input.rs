//! Input of a process: by single calls and by a stream of the client.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use envd_wire::process::process_input::Input as Given;
use envd_wire::process::stream_input_request::Event;
use envd_wire::process::{
    CloseStdinRequest, CloseStdinResponse, ProcessInput, SendInputRequest, SendInputResponse,
    StreamInputRequest, StreamInputResponse,
};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::live::{Input, Process};
use super::selector;
use crate::connect::{Code, Context, Messages, RpcError};
use crate::paths::os_text;

pub async fn send_input(
    context: Context,
    request: SendInputRequest,
) -> Result<SendInputResponse, RpcError> {
    let process = selector::live(&context.guest.processes, request.process.as_option())?;
    write(&process, request.input.as_option()).await?;
    Ok(SendInputResponse::default())
}

/// Writes as messages come, so that a terminal on the other side feels like one.
pub async fn stream_input(
    context: Context,
    mut messages: Messages<StreamInputRequest>,
) -> Result<StreamInputResponse, RpcError> {
    let mut target: Option<Rc<Process>> = None;
    while let Some(message) = messages.next().await? {
        match message.event {
            Some(Event::Start(start)) => {
                let table = &context.guest.processes;
                target = Some(selector::live(table, start.process.as_option())?);
            }
            Some(Event::Data(data)) => {
                let process = target.as_ref().ok_or_else(|| {
                    RpcError::new(
                        Code::FailedPrecondition,
                        "input data before the start event",
                    )
                })?;
                write(process, data.input.as_option()).await?;
            }
            Some(Event::Keepalive(_)) => {}
            None => {
                return Err(RpcError::new(
                    Code::Unimplemented,
                    "invalid event type <nil>",
                ));
            }
        }
    }
    Ok(StreamInputResponse::default())
}

pub async fn close_stdin(
    context: Context,
    request: CloseStdinRequest,
) -> Result<CloseStdinResponse, RpcError> {
    let process = selector::live(&context.guest.processes, request.process.as_option())?;
    if matches!(&*process.input.borrow(), Input::Terminal(_)) {
        return Err(RpcError::new(
            Code::Unknown,
            "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead",
        ));
    }
    process.close_input();
    Ok(CloseStdinResponse::default())
}

async fn write(process: &Process, input: Option<&ProcessInput>) -> Result<(), RpcError> {
    match input.and_then(|input| input.input.as_ref()) {
        Some(Given::Stdin(bytes)) => write_stdin(process, bytes).await,
        Some(Given::Pty(bytes)) => write_terminal(process, bytes).await,
        None => Err(RpcError::new(
            Code::Unimplemented,
            "invalid input type <nil>",
        )),
    }
}

async fn write_stdin(process: &Process, bytes: &[u8]) -> Result<(), RpcError> {
    let _turn = process.write_turn.lock().await;
    let input = process.input.borrow().clone();
    match input {
        Input::Pipe(pipe) => write_all(process, &pipe, bytes).await.map_err(|error| {
            let (pid, error) = (process.pid, os_text(&error.into()));
            RpcError::internal(format!(
                "error writing to stdin: error writing to stdin of process '{pid}': {error}"
            ))
        }),
        Input::Terminal(_) => Err(RpcError::internal(
            "error writing to stdin: tty assigned to process — input should be written to the pty, \
             not the stdin",
        )),
        Input::Closed => Err(RpcError::internal(
            "error writing to stdin: stdin not enabled or closed",
        )),
    }
}

async fn write_terminal(process: &Process, bytes: &[u8]) -> Result<(), RpcError> {
    let _turn = process.write_turn.lock().await;
    let input = process.input.borrow().clone();
    match input {
        Input::Terminal(master) => write_all(process, &master, bytes).await.map_err(|error| {
            let (pid, error) = (process.pid, os_text(&error.into()));
            RpcError::internal(format!(
                "error writing to tty: error writing to tty of process '{pid}': {error}"
            ))
        }),
        Input::Pipe(_) | Input::Closed => Err(RpcError::internal(
            "error writing to tty: tty not assigned to process — input should be written to the \
             stdin, not the tty",
        )),
    }
}

/// Waits while the pipe is full, but not beyond the closing of the input.
async fn write_all(
    process: &Process,
    file: &AsyncFd<OwnedFd>,
    mut bytes: &[u8],
) -> Result<(), Errno> {
    let closed = process.input_closed.notified();
    tokio::pin!(closed);
    closed.as_mut().enable();
    while !bytes.is_empty() {
        let mut ready = tokio::select! {
            ready = file.ready(Interest::WRITABLE) => ready.map_err(|_| Errno::BADF)?,
            () = &mut closed => return Err(Errno::PIPE),
        };
        match rustix::io::write(file.get_ref(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
