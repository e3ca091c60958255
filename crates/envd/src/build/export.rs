//! `GET /build/root`: the files of the root as one layer of an OCI image, a plain tar.
//!
//! ```text
//!   one thread: walk, tar ──pieces──► event loop ──► answer
//! ```
//! What lies on other mounts is the platform's and is left out, and so is what each machine has of its
//! own: processes, devices, sockets, temporary files. Nothing else runs in a sandbox that is packed.
//! Names come in their order, so that the same files give the same archive.

mod file;
mod walk;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::{mpsc, oneshot};

use super::error::BuildError;
use crate::answer::{Answer, Refusal};
use crate::body::Body;
use crate::limits::{BLOCKING_STACK_BYTES, BUILD_BYTES, BUILD_PIECES, FILE_CHUNK_BYTES};
use crate::route::Plain;

/// The answer breaks off where a file cannot be read: nobody must take a part for the whole.
pub async fn export(call: Plain) -> Answer {
    let turn = call.guest.build_turn.take().await;
    let (sender, mut pieces) = mpsc::channel(BUILD_PIECES);
    let (tell, told) = oneshot::channel();
    let spawned = thread::Builder::new()
        .stack_size(BLOCKING_STACK_BYTES)
        .spawn(move || {
            let output = Output::new(sender);
            let packed = catch_unwind(AssertUnwindSafe(|| walk::pack(output, Path::new("/"))));
            drop(turn);
            // Nobody may wait any more.
            let _ = tell.send(packed.unwrap_or(Err(BuildError::Panicked)));
        });
    if let Err(error) = spawned {
        return Refusal::from(BuildError::Thread(error)).into();
    }
    let body = Body::produce(|slot| async move {
        while let Some(piece) = pieces.recv().await {
            slot.send(piece).await;
        }
        let packed = told.await.unwrap_or(Err(BuildError::Panicked));
        packed.map_err(io::Error::other)
    });
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static("application/x-tar");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Pieces on their way to the event loop; an error as soon as nobody takes them.
struct Output {
    pieces: mpsc::Sender<Bytes>,
    gathered: Vec<u8>,
    /// May still come.
    left: u64,
}

impl Output {
    fn new(pieces: mpsc::Sender<Bytes>) -> Self {
        Self {
            pieces,
            gathered: Vec::new(),
            left: BUILD_BYTES,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= FILE_CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        if piece.is_empty() {
            return Ok(());
        }
        let sent = self.pieces.blocking_send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests;
