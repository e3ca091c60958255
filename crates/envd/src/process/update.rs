//! `Update`: the size of a terminal.

use envd_wire::process::{UpdateRequest, UpdateResponse};
use rustix::termios::{Winsize, tcsetwinsize};

use super::live::Input;
use super::{launch, selector};
use crate::connect::{Context, RpcError};
use crate::paths::os_text;

pub async fn update(context: Context, request: UpdateRequest) -> Result<UpdateResponse, RpcError> {
    let process = selector::live(&context.guest.processes, request.process.as_option())?;
    let Some(pty) = request.pty.as_option() else {
        return Ok(UpdateResponse::default());
    };
    let size = launch::window(pty);
    match &*process.input.borrow() {
        Input::Terminal(master) => resize(master.get_ref(), size)?,
        Input::Pipe(_) | Input::Closed => {
            return Err(RpcError::internal(
                "error resizing tty: tty not assigned to process",
            ));
        }
    }
    Ok(UpdateResponse::default())
}

fn resize(master: &std::os::fd::OwnedFd, size: Winsize) -> Result<(), RpcError> {
    tcsetwinsize(master, size).map_err(|error| {
        RpcError::internal(format!("error resizing tty: {}", os_text(&error.into())))
    })
}
