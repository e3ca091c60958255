//! Sending a file piece by piece, each read on a thread that may block.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
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
        loop {
            let (file, mut own) = (Arc::clone(&file), encoder);
            let (own, packed, read) = run(move || {
                let read = read_at(&file, offset, FILE_CHUNK_BYTES)?;
                own.write_all(&read)?;
                let packed = std::mem::take(own.get_mut());
                Ok((own, packed, read.len()))
            })
            .await?;
            encoder = own;
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
    while sent < part.length {
        let file = Arc::clone(file);
        let wanted = usize::try_from(part.length - sent).unwrap_or(usize::MAX);
        let offset = part.start + sent;
        let piece = run(move || read_at(&file, offset, wanted.min(FILE_CHUNK_BYTES))).await?;
        if piece.is_empty() {
            // Shorter than announced: the client must notice.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sent += piece.len() as u64;
        slot.send(piece).await;
    }
    Ok(())
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; length];
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece.into());
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
