//! Unpacking compressed messages within a bound.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::error::{Code, RpcError};
use crate::limits::RPC_MESSAGE_BYTES;

pub fn too_long() -> RpcError {
    RpcError::new(
        Code::ResourceExhausted,
        format!("message is larger than configured max {RPC_MESSAGE_BYTES}"),
    )
}

/// A small message may unpack to a thousand times its size: read only to the limit.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, RpcError> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(packed)
        .take(RPC_MESSAGE_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| RpcError::invalid(format!("decompress: {error}")))?;
    if plain.len() > RPC_MESSAGE_BYTES {
        Err(too_long())
    } else {
        Ok(plain)
    }
}
