//! The frame around each message of a stream: one byte of flags, four of length, the message.

use bytes::{Buf, Bytes, BytesMut};
use envd_wire::{Codec, WireMessage};

use super::content::Compression;
use super::error::RpcError;
use super::gzip::{too_long, unpack};
use crate::limits::RPC_MESSAGE_BYTES;

const HEAD: usize = 5;
const COMPRESSED: u8 = 0x01;
const END: u8 = 0x02;

/// One message, framed.
pub fn frame<M: WireMessage>(codec: Codec, message: &M) -> Result<Bytes, RpcError> {
    let mut out = vec![0; HEAD];
    codec
        .encode(message, &mut out)
        .map_err(|error| RpcError::internal(error.to_string()))?;
    Ok(finish(0, out))
}

/// The last frame of a stream.
pub fn end_frame(json: &str) -> Bytes {
    let mut out = vec![0; HEAD];
    out.extend_from_slice(json.as_bytes());
    finish(END, out)
}

fn finish(flags: u8, mut out: Vec<u8>) -> Bytes {
    // Messages are far below 4 GiB; a wrong length would be seen by every client.
    let length = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX);
    out[0] = flags;
    out[1..HEAD].copy_from_slice(&length.to_be_bytes());
    out.into()
}

/// Takes the first whole message off `buffer`; `None`: more bytes are needed.
pub fn take(buffer: &mut BytesMut, compression: Compression) -> Result<Option<Bytes>, RpcError> {
    let Some(head) = buffer.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > RPC_MESSAGE_BYTES {
        return Err(too_long());
    }
    if flags & !COMPRESSED != 0 {
        return Err(RpcError::invalid(format!(
            "unexpected envelope flags {flags}"
        )));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    buffer.advance(HEAD);
    let payload = buffer.split_to(length).freeze();
    match (flags & COMPRESSED != 0, compression) {
        (false, _) => Ok(Some(payload)),
        (true, Compression::Gzip) => unpack(&payload).map(|plain| Some(plain.into())),
        (true, Compression::Identity) => Err(RpcError::invalid(
            "message is compressed, but the stream named no compression",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_or_not_at_all() {
        let mut buffer = BytesMut::from(&b"\0\0\0\0\x02{"[..]);
        assert_eq!(take(&mut buffer, Compression::Identity).unwrap(), None);
        buffer.extend_from_slice(b"}\0\0");
        let first = take(&mut buffer, Compression::Identity).unwrap().unwrap();
        assert_eq!(&first[..], b"{}");
        assert_eq!(take(&mut buffer, Compression::Identity).unwrap(), None);
    }

    #[test]
    fn hostile_heads() {
        for head in [
            &b"\0\xff\xff\xff\xff"[..],
            b"\x02\0\0\0\0",
            b"\x01\0\0\0\0",
            b"\x80\0\0\0\0",
        ] {
            assert!(
                take(&mut BytesMut::from(head), Compression::Identity).is_err(),
                "{head:?}"
            );
        }
    }

    #[test]
    fn the_end_is_marked() {
        assert_eq!(&end_frame("{}")[..], b"\x02\0\0\0\x02{}");
    }
}
