//! What a request says of its content: codec, kind of call, compression.

use envd_wire::Codec;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::error::{Code, RpcError};
use crate::answer::{Answer, empty};

/// Whether a body or the marked messages of a stream are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Identity,
    Gzip,
}

/// The codec of a unary call; `None`: not a content type of unary calls.
pub fn unary_codec(headers: &HeaderMap) -> Option<Codec> {
    match media_type(headers)?.as_str() {
        "application/json" => Some(Codec::Json),
        "application/proto" => Some(Codec::Binary),
        _ => None,
    }
}

/// The same for streams.
pub fn stream_codec(headers: &HeaderMap) -> Option<Codec> {
    match media_type(headers)?.as_str() {
        "application/connect+json" => Some(Codec::Json),
        "application/connect+proto" => Some(Codec::Binary),
        _ => None,
    }
}

pub fn unary_type(codec: Codec) -> HeaderValue {
    HeaderValue::from_static(match codec {
        Codec::Json => "application/json",
        Codec::Binary => "application/proto",
    })
}

/// Exactly this: a parameter behind it makes the Python SDK fail.
pub fn stream_type(codec: Codec) -> HeaderValue {
    HeaderValue::from_static(match codec {
        Codec::Json => "application/connect+json",
        Codec::Binary => "application/connect+proto",
    })
}

/// 415, with the types that the method takes.
pub fn unsupported(accepted: &'static str) -> Answer {
    let mut answer = empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    answer.headers_mut().insert(
        HeaderName::from_static("accept-post"),
        HeaderValue::from_static(accepted),
    );
    answer
}

/// `name` is the header that carries it: another one for unary calls than for streams.
pub fn compression(headers: &HeaderMap, name: &str) -> Result<Compression, RpcError> {
    match headers.get(name).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(Compression::Identity),
        Some(b"gzip") => Ok(Compression::Gzip),
        Some(other) => Err(RpcError::new(
            Code::Unimplemented,
            format!(
                "unknown compression \"{}\": supported encodings are gzip, identity",
                String::from_utf8_lossy(other)
            ),
        )),
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}
