//! `SendSignal`: to the one process, not to its group.

use envd_wire::EnumValue;
use envd_wire::process::{SendSignalRequest, SendSignalResponse, Signal as Wanted};
use rustix::io::Errno;
use rustix::process::Signal;

use super::selector;
use crate::connect::{Code, Context, RpcError};
use crate::paths::os_text;

pub async fn send_signal(
    context: Context,
    request: SendSignalRequest,
) -> Result<SendSignalResponse, RpcError> {
    let process = selector::live(&context.guest.processes, request.process.as_option())?;
    let signal = match request.signal {
        EnumValue::Known(Wanted::SIGNAL_SIGKILL) => Signal::KILL,
        EnumValue::Known(Wanted::SIGNAL_SIGTERM) => Signal::TERM,
        EnumValue::Known(Wanted::SIGNAL_UNSPECIFIED) => return Err(invalid("SIGNAL_UNSPECIFIED")),
        EnumValue::Unknown(number) => return Err(invalid(&number.to_string())),
    };
    process.signal(signal).map_err(|error| {
        RpcError::internal(match error {
            Errno::SRCH => "error sending signal: os: process already finished".to_owned(),
            error => format!("error sending signal: {}", os_text(&error.into())),
        })
    })?;
    // Children may hold its output open for ever; who killed it does not want to wait for them.
    process.stop_waiting_for_output();
    Ok(SendSignalResponse::default())
}

fn invalid(name: &str) -> RpcError {
    RpcError::new(Code::Unimplemented, format!("invalid signal: {name}"))
}
