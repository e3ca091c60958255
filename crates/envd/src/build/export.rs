//! `GET /build/root`: the files of the root as one layer of an OCI image, a plain tar.
//!
//! ```text
//!   one thread: check all names; walk, tar ──pieces──► event loop ──► answer
//! ```
//! What lies on other mounts is the platform's and is left out, and so is what each machine has of its
//! own: processes, devices, sockets, temporary files. Nothing else runs in a sandbox that is packed.
//! Names come in their order, and what the machine itself wrote has no time, so that the same files give
//! the same archive.

mod check;
mod file;
mod folder;
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
use crate::tar::Time;

/// Folders of the root whose contents are of one machine only.
const LEFT_EMPTY: [&[u8]; 5] = [b"dev", b"proc", b"run", b"sys", b"tmp"];

/// Of what each start of a machine writes anew.
const NO_TIME: Time = Time {
    seconds: 0,
    nanos: 0,
};

/// Whether only the folder itself is packed.
fn is_left_empty(path: &[u8]) -> bool {
    LEFT_EMPTY.contains(&path)
}

/// What can be no layer is refused. The answer breaks off where a file cannot be read: nobody must take
/// a part for the whole.
pub async fn export(call: Plain) -> Answer {
    let turn = call.guest.build_turn.take().await;
    let (sender, mut pieces) = mpsc::channel(BUILD_PIECES);
    let (begin, begun) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let spawned = thread::Builder::new()
        .stack_size(BLOCKING_STACK_BYTES)
        .spawn(move || {
            let root = Path::new("/");
            let checked = caught(|| check::check(root));
            let goes_on = checked.is_ok();
            // Nobody may wait any more, here and below.
            if begin.send(checked).is_err() || !goes_on {
                return;
            }
            let packed = caught(|| walk::pack(Output::new(sender), root));
            drop(turn);
            let _ = tell.send(packed);
        });
    if let Err(error) = spawned {
        return Refusal::from(BuildError::Thread(error)).into();
    }
    if let Err(error) = begun.await.unwrap_or(Err(BuildError::Panicked)) {
        return Refusal::from(error).into();
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

fn caught(work: impl FnOnce() -> Result<(), BuildError>) -> Result<(), BuildError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(BuildError::Panicked))
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
