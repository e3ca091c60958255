//! Bytes for a process: in one call, or in a stream that is kept open.

use bytes::Bytes;
use envd_wire::MessageField;
use envd_wire::process::stream_input_request::{DataEvent, Event, StartEvent};
use envd_wire::process::{ProcessInput, StreamInputRequest, StreamInputResponse, process_input};

use super::Process;
use crate::envd::Envd;
use crate::envd::connect::MessageSender;
use crate::error::EnvdError;

/// Bytes for one of the two kinds of standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Stdin(Bytes),
    Terminal(Bytes),
}

impl From<Input> for ProcessInput {
    fn from(input: Input) -> Self {
        let input = match input {
            Input::Stdin(bytes) => process_input::Input::Stdin(bytes),
            Input::Terminal(bytes) => process_input::Input::Pty(bytes),
        };
        Self { input: Some(input) }
    }
}

/// Writes to one process through one call. Dropping it ends the call, not the process's input.
#[derive(Debug)]
pub struct InputSender {
    messages: MessageSender<StreamInputRequest>,
}

impl InputSender {
    /// Waits until there is room. `Ok(false)`: the call has ended, and it knows why.
    pub async fn send(&self, input: Input) -> Result<bool, EnvdError> {
        let data = DataEvent {
            input: MessageField::some(input.into()),
        };
        self.messages
            .send(&StreamInputRequest {
                event: Some(data.into()),
            })
            .await
    }
}

impl Envd {
    /// Opens a stream of input. The second value is the call itself: drive it beside the sender; it
    /// ends after the sender is dropped, or at once when the process is not there.
    pub async fn process_stream_input(
        &self,
        process: Process,
    ) -> Result<
        (
            InputSender,
            impl Future<Output = Result<(), EnvdError>> + use<>,
        ),
        EnvdError,
    > {
        let (messages, call) = self.client_stream::<StreamInputRequest, StreamInputResponse>(
            "/process.Process/StreamInput",
        )?;
        let start = StartEvent {
            process: MessageField::some(process.into()),
        };
        // There is room for the first message before the call runs.
        messages
            .send(&StreamInputRequest {
                event: Some(Event::from(start)),
            })
            .await?;
        Ok((InputSender { messages }, async move {
            call.await.map(|StreamInputResponse {}| ())
        }))
    }
}
