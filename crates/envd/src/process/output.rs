//! Reading what a process writes.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::live::{Chunk, Process, Source};
use super::pace::Pace;
use crate::limits::{DRAIN_BYTES, PIPE_CHUNK_BYTES, TERMINAL_CHUNK_BYTES};

thread_local! {
    /// One buffer for all processes: a read and the copy of what it gave are never interrupted.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIPE_CHUNK_BYTES].into());
}

/// One pipe or terminal that is read.
pub struct Output {
    pub source: Source,
    pub file: Rc<AsyncFd<OwnedFd>>,
}

/// What one attempt gave.
enum Read {
    /// The bytes themselves, if anybody wants them.
    Bytes(usize, Option<Bytes>),
    Nothing,
    End,
}

impl Output {
    /// Reads to the end, giving everything to the readers of `process`, or to nobody.
    pub async fn pump(&self, process: &Process, pace: &Pace) {
        loop {
            let Ok(mut ready) = self.file.readable().await else {
                return;
            };
            match self.read(process, process.has_readers()) {
                Read::Bytes(count, Some(bytes)) => {
                    let source = self.source;
                    let readers = process.publish(Chunk { source, bytes }).await;
                    let wait = pace.count(count, readers, Instant::now());
                    if !wait.is_zero() {
                        sleep(wait).await;
                    }
                }
                Read::Bytes(_, None) => {}
                Read::Nothing => ready.clear_ready(),
                Read::End => return,
            }
        }
    }

    /// What is there now, for a process that was killed: others may hold the pipe for ever.
    pub fn drain(&self, process: &Process) {
        let mut left = DRAIN_BYTES;
        while let Read::Bytes(count, bytes) = self.read(process, true) {
            if let Some(bytes) = bytes {
                process.publish_now(&Chunk {
                    source: self.source,
                    bytes,
                });
            }
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }

    fn read(&self, process: &Process, wanted: bool) -> Read {
        let limit = match self.source {
            Source::Stdout | Source::Stderr => PIPE_CHUNK_BYTES,
            Source::Terminal => TERMINAL_CHUNK_BYTES,
        };
        SCRATCH.with_borrow_mut(|scratch| {
            match rustix::io::read(self.file.get_ref(), &mut scratch[..limit]) {
                Ok(0) => Read::End,
                Ok(count) => {
                    self.count(process, count);
                    let bytes = wanted.then(|| Bytes::copy_from_slice(&scratch[..count]));
                    Read::Bytes(count, bytes)
                }
                Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
                // A terminal without programs says EIO; anything else will not mend either.
                Err(_) => Read::End,
            }
        })
    }

    fn count(&self, process: &Process, count: usize) {
        let mut written = process.written.get();
        let counted = match self.source {
            Source::Stdout => &mut written.stdout,
            Source::Stderr => &mut written.stderr,
            Source::Terminal => &mut written.terminal,
        };
        *counted = counted.saturating_add(count as u64);
        process.written.set(written);
    }
}
