//! One message in, one out.

use std::future::Future;

use envd_wire::{Codec, WireMessage};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};

use super::content::{self, Compression};
use super::error::RpcError;
use super::gzip::{too_long, unpack};
use super::{Call, Context, deadline};
use crate::answer::{Answer, JSON};
use crate::body::{Body, BodyError, RequestBody, whole};
use crate::limits::RPC_MESSAGE_BYTES;

/// Answers a unary call by `method`.
pub async fn unary<Req, Res, F, Fut>(call: Call, method: F) -> Answer
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Req) -> Fut,
    Fut: Future<Output = Result<Res, RpcError>>,
{
    let Some(codec) = content::unary_codec(&call.headers) else {
        return content::unsupported("application/json, application/proto");
    };
    let Call {
        headers,
        mut body,
        context,
    } = call;
    match run(&headers, &mut body, context, codec, method).await {
        Ok(body) => {
            let mut answer = Response::new(Body::text(body));
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, content::unary_type(codec));
            answer
        }
        Err(error) => {
            body.read_off().await;
            failed(&error)
        }
    }
}

/// A failed unary call.
pub fn failed(error: &RpcError) -> Answer {
    let mut answer = Response::new(Body::text(error.to_json()));
    *answer.status_mut() = error.code.status();
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

async fn run<Req, Res, F, Fut>(
    headers: &HeaderMap,
    body: &mut RequestBody,
    mut context: Context,
    codec: Codec,
    method: F,
) -> Result<Vec<u8>, RpcError>
where
    Req: WireMessage,
    Res: WireMessage,
    F: FnOnce(Context, Req) -> Fut,
    Fut: Future<Output = Result<Res, RpcError>>,
{
    let limit = deadline::read(headers)?;
    let compression = content::compression(headers, "content-encoding")?;
    context.deadline = limit;
    deadline::within(limit, async {
        let body = whole(body, RPC_MESSAGE_BYTES)
            .await
            .map_err(|error| match error {
                BodyError::TooLong(_) => too_long(),
                BodyError::Broken(error) => RpcError::invalid(format!("read message: {error}")),
            })?;
        let request = match compression {
            Compression::Identity => decode(codec, &body)?,
            Compression::Gzip => decode(codec, &unpack(&body)?)?,
        };
        let response = method(context, request).await?;
        let mut out = Vec::new();
        codec
            .encode(&response, &mut out)
            .map_err(|error| RpcError::internal(error.to_string()))?;
        Ok(out)
    })
    .await
}

pub(super) fn decode<M: WireMessage>(codec: Codec, bytes: &[u8]) -> Result<M, RpcError> {
    codec
        .decode(bytes)
        .map_err(|error| RpcError::invalid(format!("unmarshal message: {error}")))
}
