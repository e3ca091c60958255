//! Streams. The status is 200 whatever happens; failures are told by the last message.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use envd_wire::{Codec, WireMessage};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use tokio::time::Instant;

use super::content::{self, Compression};
use super::error::{RpcError, end_of_stream};
use super::unary::decode;
use super::{Call, Context, deadline, envelope};
use crate::answer::Answer;
use crate::body::{Body, RequestBody, Slot, discard, next_piece};

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
    body: RequestBody,
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
///
/// The message is read before the head of the answer leaves. Clients take an early answer as a
/// sign that nobody wants their message, and do not send it.
pub async fn server_stream<Req, Res, F, Fut>(call: Call, method: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Req, Sink<Res>) -> Fut + 'static,
    Fut: Future<Output = Result<(), RpcError>> + 'static,
{
    let Some(codec) = content::stream_codec(&call.headers) else {
        return content::unsupported(ACCEPTED);
    };
    let opened = open::<Req>(call, codec);
    let read = async {
        let (mut incoming, context, at) = opened?;
        let request = deadline::until(at, incoming.next()).await?;
        let request = request.ok_or_else(|| RpcError::invalid("request without a message"))?;
        Ok((incoming, context, at, request))
    };
    let (mut incoming, context, at, request) = match read.await {
        Ok(read) => read,
        Err(error) => return ended(codec, Err(&error)),
    };
    answer(
        codec,
        Body::produce(move |slot| async move {
            let sink = Sink {
                slot: slot.clone(),
                codec,
                message: PhantomData,
            };
            // What comes after the message is read and dropped: else a hang-up would not be noticed.
            let run = beside(discard(&mut incoming.body), method(context, request, sink));
            let result = deadline::until(at, run).await;
            slot.send(envelope::end_frame(&end_of_stream(
                result.as_ref().copied(),
            )))
            .await;
            Ok(())
        }),
    )
}

/// Answers the stream of a client by one message, or by an error as soon as there is one.
pub async fn client_stream<Req, Res, F, Fut>(call: Call, method: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Incoming<Req>) -> Fut,
    Fut: Future<Output = Result<Res, RpcError>>,
{
    let Some(codec) = content::stream_codec(&call.headers) else {
        return content::unsupported(ACCEPTED);
    };
    let run = async {
        let (incoming, context, at) = open(call, codec)?;
        let response = deadline::until(at, method(context, incoming)).await?;
        envelope::frame(codec, &response)
    };
    match run.await {
        Ok(frame) => {
            let end = envelope::end_frame(&end_of_stream(Ok(())));
            answer(codec, Body::Full([frame, end].concat().into()))
        }
        Err(error) => ended(codec, Err(&error)),
    }
}

type Opened<M> = (Incoming<M>, Context, Option<Instant>);

/// Reads the headers that matter to streams.
fn open<M: WireMessage>(call: Call, codec: Codec) -> Result<Opened<M>, RpcError> {
    let Call {
        headers,
        body,
        mut context,
    } = call;
    context.deadline = deadline::read(&headers)?;
    let at = context
        .deadline
        .and_then(|limit| Instant::now().checked_add(limit));
    let compression = content::compression(&headers, COMPRESSION)?;
    let incoming = Incoming {
        body,
        buffer: BytesMut::new(),
        codec,
        compression,
        message: PhantomData,
    };
    Ok((incoming, context, at))
}

fn answer(codec: Codec, body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, content::stream_type(codec));
    answer
}

/// A stream that has its end only.
fn ended(codec: Codec, result: Result<(), &RpcError>) -> Answer {
    answer(
        codec,
        Body::Full(envelope::end_frame(&end_of_stream(result))),
    )
}

/// A stream that fails before its method is reached.
pub fn failed(headers: &HeaderMap, error: &RpcError) -> Answer {
    ended(
        content::stream_codec(headers).unwrap_or(Codec::Json),
        Err(error),
    )
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
