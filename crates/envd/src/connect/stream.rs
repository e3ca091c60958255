//! Streams. The status is 200 whatever happens; failures are told by the last message.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use envd_wire::{Codec, WireMessage};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use hyper::body::Incoming as HttpIncoming;

use super::content::{self, Compression};
use super::error::{RpcError, end_of_stream};
use super::unary::decode;
use super::{Call, Context, deadline, envelope};
use crate::answer::Answer;
use crate::body::{Body, Slot, discard, next_piece};

const ACCEPTED: &str = "application/connect+json, application/connect+proto";
const COMPRESSION: &str = "connect-content-encoding";

/// Whether a request has a content type of streams.
pub fn is_stream(headers: &HeaderMap) -> bool {
    content::stream_codec(headers).is_some()
}

/// Where a method puts the messages of its answer.
pub struct Sink<M> {
    slot: Slot,
    codec: Codec,
    message: PhantomData<M>,
}

impl<M: WireMessage> Sink<M> {
    /// Sends one message and waits until it is on its way.
    pub async fn send(&self, message: &M) -> Result<(), RpcError> {
        self.slot.send(envelope::frame(self.codec, message)?).await;
        Ok(())
    }
}

/// The messages of a client.
pub struct Incoming<M> {
    body: HttpIncoming,
    buffer: BytesMut,
    codec: Codec,
    compression: Compression,
    message: PhantomData<M>,
}

impl<M: WireMessage> Incoming<M> {
    /// The next message; `None` when the client has said all.
    pub async fn next(&mut self) -> Result<Option<M>, RpcError> {
        loop {
            if let Some(payload) = envelope::take(&mut self.buffer, self.compression)? {
                return decode(self.codec, &payload).map(Some);
            }
            match next_piece(&mut self.body).await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(error)) => return Err(RpcError::invalid(format!("read: {error}"))),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(RpcError::invalid("stream ends within a message")),
            }
        }
    }
}

/// Answers by a stream: `method` gets the one message of the client.
pub fn server_stream<Req, Res, F, Fut>(call: Call, method: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Req, Sink<Res>) -> Fut + 'static,
    Fut: Future<Output = Result<(), RpcError>> + 'static,
{
    respond(
        call,
        async move |mut incoming: Incoming<Req>, context, sink| {
            let request = incoming
                .next()
                .await?
                .ok_or_else(|| RpcError::invalid("request without a message"))?;
            // What comes after the message is read and dropped: else a hang-up would not be noticed.
            beside(discard(&mut incoming.body), method(context, request, sink)).await
        },
    )
}

/// Answers the stream of a client by one message.
pub fn client_stream<Req, Res, F, Fut>(call: Call, method: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Incoming<Req>) -> Fut + 'static,
    Fut: Future<Output = Result<Res, RpcError>> + 'static,
{
    respond(call, async move |incoming, context, sink| {
        let response = method(context, incoming).await?;
        sink.send(&response).await
    })
}

/// The frame of both: headers at once, then messages, then the end.
fn respond<Req, Res, F>(call: Call, run: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: AsyncFnOnce(Incoming<Req>, Context, Sink<Res>) -> Result<(), RpcError> + 'static,
{
    let Some(codec) = content::stream_codec(&call.headers) else {
        return content::unsupported(ACCEPTED);
    };
    let Call {
        headers,
        body,
        mut context,
    } = call;
    let answer = Body::produce(move |slot| async move {
        let result = async {
            let limit = deadline::read(&headers)?;
            let compression = content::compression(&headers, COMPRESSION)?;
            drop(headers);
            context.deadline = limit;
            let incoming = Incoming {
                body,
                buffer: BytesMut::new(),
                codec,
                compression,
                message: PhantomData,
            };
            let sink = Sink {
                slot: slot.clone(),
                codec,
                message: PhantomData,
            };
            deadline::within(limit, run(incoming, context, sink)).await
        }
        .await;
        slot.send(envelope::end_frame(&end_of_stream(
            result.as_ref().copied(),
        )))
        .await;
        Ok(())
    });
    let mut answer = Response::new(answer);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, content::stream_type(codec));
    answer
}

/// A stream that fails before its method is reached.
pub fn failed(headers: &HeaderMap, error: &RpcError) -> Answer {
    let codec = content::stream_codec(headers).unwrap_or(Codec::Json);
    let end = envelope::end_frame(&end_of_stream(Err(error)));
    let mut answer = Response::new(Body::Full(end));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, content::stream_type(codec));
    answer
}

/// Runs `main` to its end, and `other` along with it.
async fn beside<T>(other: impl Future, main: impl Future<Output = T>) -> T {
    let (mut other, mut main) = (pin!(other), pin!(main));
    poll_fn(|context| {
        let done = main.as_mut().poll(context);
        if done.is_pending() && other.as_mut().poll(context).is_ready() {
            // Never: `discard` does not end.
            return Poll::Pending;
        }
        done
    })
    .await
}
