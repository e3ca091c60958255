//! The envelope around every message of a stream: one byte of flags, four of length, the message.
//!
//! Knows bytes only; what a message says is [`super::stream`]'s.

use bytes::{Buf, Bytes, BytesMut};

/// The most bytes one message of a stream may have. Beyond it the stream is broken off: the length
/// was written by a sandbox, and nothing that the agent sends comes near it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

const HEAD_BYTES: usize = 5;
const COMPRESSED: u8 = 0x01;
const END_OF_STREAM: u8 = 0x02;

/// One thing read from a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    Message(Bytes),
    End(Bytes),
}

/// Puts one message into its envelope. `write` appends the message itself.
pub(crate) fn seal<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Bytes, E> {
    let mut out = vec![0; HEAD_BYTES];
    write(&mut out)?;
    let length =
        u32::try_from(out.len() - HEAD_BYTES).expect("our own messages are far below 4 GiB");
    out[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(out.into())
}

/// Takes the next whole envelope out of what has arrived; `None` when more has to come.
pub(crate) fn open(buffer: &mut BytesMut) -> Result<Option<Envelope>, &'static str> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *head;
    if flags & COMPRESSED != 0 {
        return Err("a compressed message that nobody asked for");
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| "a message too long")?;
    if length > MESSAGE_BYTES_MAX {
        return Err("a message too long");
    }
    if buffer.len() < HEAD_BYTES + length {
        // No reservation by a length that is only promised: the buffer grows with what arrives.
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    let payload = buffer.split_to(length).freeze();
    Ok(Some(if flags & END_OF_STREAM != 0 {
        Envelope::End(payload)
    } else {
        Envelope::Message(payload)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(text: &[u8]) -> Bytes {
        seal::<()>(|out| {
            out.extend_from_slice(text);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn what_is_sealed_opens_again_whatever_the_pieces() {
        let wire = [sealed(b"one"), sealed(b""), sealed(&[7; 3000])].concat();
        for piece in [1, 2, 5, 6, 1000, wire.len()] {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for part in wire.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(envelope) = open(&mut buffer).unwrap() {
                    seen.push(envelope);
                }
            }
            let message = |text: &[u8]| Envelope::Message(Bytes::copy_from_slice(text));
            assert_eq!(seen, [message(b"one"), message(b""), message(&[7; 3000])]);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn the_end_is_told_apart() {
        let mut buffer = BytesMut::from(&b"\x02\0\0\0\x02{}"[..]);
        assert_eq!(
            open(&mut buffer),
            Ok(Some(Envelope::End(Bytes::from_static(b"{}"))))
        );
    }

    #[test]
    fn lengths_and_flags_of_a_hostile_sandbox_are_refused() {
        let mut huge = BytesMut::from(&b"\0\xff\xff\xff\xff"[..]);
        assert!(open(&mut huge).is_err());
        let mut compressed = BytesMut::from(&b"\x01\0\0\0\x01x"[..]);
        assert!(open(&mut compressed).is_err());
    }
}
