//! `Start`: a new process, and its first reader.

use envd_wire::process::{StartRequest, StartResponse};

use super::environment::Whose;
use super::follow::follow;
use super::launch::launch;
use crate::connect::{Context, RpcError, Sink};

/// The process is nobody's: when the caller hangs up it goes on, up to its time limit.
pub async fn start(
    context: Context,
    request: StartRequest,
    sink: Sink<StartResponse>,
) -> Result<(), RpcError> {
    let user = context.user()?;
    let (process, queue) = launch(
        &context.guest,
        &user,
        Whose::Client,
        request,
        context.deadline,
    )?;
    follow(&process, queue, context.keepalive, async |event| {
        sink.send(&StartResponse {
            event: event.into(),
        })
        .await
    })
    .await
}
