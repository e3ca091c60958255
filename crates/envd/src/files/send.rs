//! Sending a file piece by piece, each read on a thread that may block.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::range::Part;
use crate::body::{Body, Slot};
use crate::limits::FILE_CHUNK_BYTES;
use crate::route::blocking;

/// Part of a file, or all of it.
pub fn part(file: File, part: Part) -> Body {
    let file = Arc::new(file);
    Body::produce(move |slot| async move { copy(&file, part, &slot).await })
}

/// Several parts, each with a head of its own.
pub fn parts(file: File, parts: Vec<(String, Part)>, tail: String) -> Body {
    let file = Arc::new(file);
    Body::produce(move |slot| async move {
        for (head, part) in parts {
            slot.send(head.into()).await;
            copy(&file, part, &slot).await?;
        }
        slot.send(tail.into()).await;
        Ok(())
    })
}

/// The whole file, compressed on the way.
pub fn gzip(file: File) -> Body {
    let file = Arc::new(file);
    Body::produce(move |slot| async move {
        let mut offset = 0;
        // Fast: what is saved on the wire must not cost more time than it takes.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let mut buffer = BytesMut::new();
        loop {
            let (file, mut own, mut plain) = (Arc::clone(&file), encoder, buffer);
            let (own, plain, packed, read) = run(move || {
                read_at(&file, offset, FILE_CHUNK_BYTES, &mut plain)?;
                own.write_all(&plain)?;
                let packed = std::mem::take(own.get_mut());
                let read = plain.len();
                plain.clear();
                Ok((own, plain, packed, read))
            })
            .await?;
            (encoder, buffer) = (own, plain);
            slot.send(packed.into()).await;
            offset += read as u64;
            if read == 0 {
                break;
            }
        }
        slot.send(encoder.finish()?.into()).await;
        Ok(())
    })
}

async fn copy(file: &Arc<File>, part: Part, slot: &Slot) -> io::Result<()> {
    let mut sent = 0;
    // Taken again once a piece is written: with a new one for each, a quarter of the time goes into
    // mapping and clearing its pages.
    let mut buffer = BytesMut::new();
    while sent < part.length {
        let file = Arc::clone(file);
        let wanted = usize::try_from(part.length - sent).unwrap_or(usize::MAX);
        let offset = part.start + sent;
        buffer = run(move || {
            read_at(&file, offset, wanted.min(FILE_CHUNK_BYTES), &mut buffer)?;
            Ok(buffer)
        })
        .await?;
        let piece = buffer.split().freeze();
        if piece.is_empty() {
            // Shorter than announced: the client must notice.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sent += piece.len() as u64;
        slot.send(piece).await;
    }
    Ok(())
}

/// Fills the empty `buffer` with up to `length` bytes; with none at the end of the file.
fn read_at(file: &File, offset: u64, length: usize, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.resize(length, 0);
    loop {
        match file.read_at(buffer, offset) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    blocking(work).await.map_err(io::Error::other)?
}
