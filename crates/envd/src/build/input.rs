//! The body of a request as a thread reads it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::error::BuildError;
use crate::limits::{BUILD_BYTES, BUILD_IDLE};

/// What the event loop hands over. A queue that closes without [`Piece::End`] is a body that broke
/// off.
pub enum Piece {
    Data(Bytes),
    End,
    /// Nothing came for too long.
    Stalled,
}

/// Told by the event loop when nobody waits for the outcome any more.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// An error once the caller has gone; asked at each entry.
    pub fn check(&self) -> Result<(), BuildError> {
        if self.0.load(Ordering::Relaxed) {
            Err(BuildError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Stops when it is dropped.
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

pub struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        (self.0).0.store(true, Ordering::Relaxed);
    }
}

pub struct Input {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    pub stop: Stop,
}

impl Input {
    pub fn new(pieces: mpsc::Receiver<Piece>, stop: Stop) -> Self {
        Self {
            pieces,
            current: Bytes::new(),
            ended: false,
            stop,
        }
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            let wrong = |kind, text: String| Err(io::Error::new(kind, text));
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Stalled) => {
                    let text = format!("no data for {} seconds", BUILD_IDLE.as_secs());
                    return wrong(io::ErrorKind::TimedOut, text);
                }
                None => {
                    let text = "the request body broke off".to_owned();
                    return wrong(io::ErrorKind::ConnectionAborted, text);
                }
            }
        }
        let count = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Reads at most [`BUILD_BYTES`] and then fails.
pub struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: BUILD_BYTES,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                let text = format!("more than {} GiB", BUILD_BYTES >> 30);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
        }
        Ok(count)
    }
}
