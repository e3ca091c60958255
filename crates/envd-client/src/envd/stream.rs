//! The messages of a server stream, one by one.

use std::marker::PhantomData;

use bytes::BytesMut;
use envd_wire::{Codec, WireMessage};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::envelope::{self, Envelope};
use crate::error::{EnvdError, HttpError};

/// What a server stream still has to say. Dropping it closes the connection, and with that the
/// subscription; a process that it was started with runs on.
pub struct MessageStream<M> {
    method: &'static str,
    codec: Codec,
    state: State,
    message: PhantomData<fn() -> M>,
}

enum State {
    Open { body: Incoming, buffer: BytesMut },
    Ended,
}

impl<M: WireMessage> MessageStream<M> {
    pub(super) fn new(method: &'static str, codec: Codec, body: Incoming) -> Self {
        let state = State::Open {
            body,
            buffer: BytesMut::new(),
        };
        Self {
            method,
            codec,
            state,
            message: PhantomData,
        }
    }

    /// The next message; `None` after the end. A stream that breaks off without saying that it ends
    /// is an error. After an error the stream has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: what has arrived stays in the stream until it is handed out.
    pub async fn next(&mut self) -> Result<Option<M>, EnvdError> {
        let result = self.advance().await;
        if !matches!(result, Ok(Some(_))) {
            self.state = State::Ended;
        }
        result
    }

    async fn advance(&mut self) -> Result<Option<M>, EnvdError> {
        let State::Open { body, buffer } = &mut self.state else {
            return Ok(None);
        };
        let method = self.method;
        loop {
            let opened = envelope::open(buffer);
            match opened.map_err(|fault| EnvdError::Stream { method, fault })? {
                Some(Envelope::Message(payload)) => {
                    let message = self.codec.decode(&payload);
                    return message
                        .map(Some)
                        .map_err(|source| EnvdError::Unreadable { method, source });
                }
                Some(Envelope::End(payload)) => {
                    EnvdError::end_of_stream(method, &payload)?;
                    read_out(body).await;
                    return Ok(None);
                }
                None => {}
            }
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(source)) => {
                    let target = method.to_owned();
                    return Err(HttpError::Read {
                        target,
                        source: source.into(),
                    }
                    .into());
                }
                None => {
                    return Err(EnvdError::Stream {
                        method,
                        fault: "it ended without its end",
                    });
                }
            }
        }
    }
}

/// Reads the end of the body, which is on its way already, so that the connection can be used
/// again. Anything else that comes means a server that does not end: the connection is closed.
async fn read_out(body: &mut Incoming) {
    let end = tokio::time::timeout(std::time::Duration::from_millis(100), body.frame());
    // Nothing hangs on it: a connection that is not reused costs the next call a connect.
    let _ = end.await;
}

impl<M> std::fmt::Debug for MessageStream<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageStream")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}
