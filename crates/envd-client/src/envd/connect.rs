//! The Connect protocol's calls: one answer, a stream of answers, a stream of requests.

use std::time::Duration;

use bytes::Bytes;
use envd_wire::{Codec, WireMessage};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Builder;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::envelope::{self, MESSAGE_BYTES_MAX};
use super::stream::MessageStream;
use super::{ANSWER_BYTES_MAX, Envd};
use crate::error::{EnvdError, HttpError};
use crate::transport::{
    ANSWER_TIMEOUT, Answer, BEGIN_TIMEOUT, BodySender, Dropped, NotWanted, channel, whole, within,
};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
const KEEPALIVE: HeaderName = HeaderName::from_static("keepalive-ping-interval");

/// How often the agent is asked to say that a silent stream is alive, in seconds.
const KEEPALIVE_SECONDS: HeaderValue = HeaderValue::from_static("50");

impl Envd {
    /// One request, one answer.
    pub(super) async fn unary<Q: WireMessage, A: WireMessage>(
        &self,
        method: &'static str,
        request: &Q,
    ) -> Result<A, EnvdError> {
        let mut body = Vec::new();
        self.codec
            .encode(request, &mut body)
            .map_err(|source| EnvdError::Unwritable { method, source })?;
        let builder = self
            .rpc(method)?
            .header(CONTENT_TYPE, unary_type(self.codec));
        let request = self.finish(builder, method, Bytes::from(body))?;
        let answer = self
            .transport
            .call(request, ANSWER_BYTES_MAX, ANSWER_TIMEOUT)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(EnvdError::refused(&answer));
        }
        self.codec
            .decode(&answer.body)
            .map_err(|source| EnvdError::Unreadable { method, source })
    }

    /// One request, a stream of answers. `limit` is the deadline that the agent keeps.
    pub(super) async fn server_stream<Q: WireMessage, A: WireMessage>(
        &self,
        method: &'static str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<MessageStream<A>, EnvdError> {
        let body = envelope::seal(|out| self.codec.encode(request, out))
            .map_err(|source| EnvdError::Unwritable { method, source })?;
        let mut builder = self
            .rpc(method)?
            .header(CONTENT_TYPE, stream_type(self.codec))
            .header(KEEPALIVE, KEEPALIVE_SECONDS);
        if let Some(limit) = limit {
            // Zero means "no limit" on the wire, and what the field cannot hold is no limit either.
            let milliseconds = limit.as_millis().clamp(1, 9_999_999_999);
            builder = builder.header(TIMEOUT_MS, milliseconds.to_string());
        }
        let request = self.finish(builder, method, whole(body))?;
        let opened = async {
            let response = self.transport.send(request).await?;
            accepted(method, response).await
        };
        let body = within(BEGIN_TIMEOUT, method, opened).await?;
        Ok(MessageStream::new(method, self.codec, body))
    }

    /// A stream of requests, one answer. Answers the writer and the call itself, which has to be
    /// driven while the writer writes and ends when the writer is dropped.
    pub(super) fn client_stream<Q: WireMessage, A: WireMessage>(
        &self,
        method: &'static str,
    ) -> Result<
        (
            MessageSender<Q>,
            impl Future<Output = Result<A, EnvdError>> + use<Q, A>,
        ),
        EnvdError,
    > {
        // Every message is whole in its envelope: where they stop, the stream is over.
        let (pieces, body) = channel(Dropped::Ends);
        let builder = self
            .rpc(method)?
            .header(CONTENT_TYPE, stream_type(self.codec));
        let request = self.finish(builder, method, body)?;
        let (transport, codec) = (self.transport.clone(), self.codec);
        let call = async move {
            let response = transport.send(request).await?;
            let body = accepted(method, response).await?;
            let mut answers = MessageStream::new(method, codec, body);
            let no_answer = EnvdError::Stream {
                method,
                fault: "it ended without an answer",
            };
            let answer = answers.next().await?.ok_or(no_answer)?;
            match answers.next().await? {
                None => Ok(answer),
                Some(_) => Err(EnvdError::Stream {
                    method,
                    fault: "it answered twice",
                }),
            }
        };
        Ok((
            MessageSender {
                method,
                codec,
                pieces,
                message: std::marker::PhantomData,
            },
            call,
        ))
    }

    fn rpc(&self, method: &'static str) -> Result<Builder, HttpError> {
        let mut builder = self
            .request(Method::POST, method)?
            .header(PROTOCOL_VERSION, "1");
        if let Some(authorization) = self.authorization() {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        Ok(builder)
    }
}

/// The stream of an answer, or why there is none.
async fn accepted(
    method: &'static str,
    response: Response<Incoming>,
) -> Result<Incoming, EnvdError> {
    if response.status() == StatusCode::OK {
        return Ok(response.into_body());
    }
    let answer = Answer::read(response, method, MESSAGE_BYTES_MAX).await?;
    Err(EnvdError::refused(&answer))
}

/// Writes the requests of a client stream. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct MessageSender<Q> {
    method: &'static str,
    codec: Codec,
    pieces: BodySender,
    message: std::marker::PhantomData<fn(Q)>,
}

impl<Q: WireMessage> MessageSender<Q> {
    /// Waits until there is room. `Ok(false)`: the call has ended, and it knows why.
    pub(super) async fn send(&self, message: &Q) -> Result<bool, EnvdError> {
        let bytes = envelope::seal(|out| self.codec.encode(message, out)).map_err(|source| {
            EnvdError::Unwritable {
                method: self.method,
                source,
            }
        })?;
        match self.pieces.send(bytes).await {
            Ok(()) => Ok(true),
            Err(NotWanted) => Ok(false),
        }
    }
}

fn unary_type(codec: Codec) -> HeaderValue {
    HeaderValue::from_static(match codec {
        Codec::Json => "application/json",
        Codec::Binary => "application/proto",
    })
}

fn stream_type(codec: Codec) -> HeaderValue {
    HeaderValue::from_static(match codec {
        Codec::Json => "application/connect+json",
        Codec::Binary => "application/connect+proto",
    })
}
