//! One live process: its handles, its readers, and how it ended.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use envd_wire::process::ProcessConfig;
use envd_wire::process::process_event::EndEvent;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

use crate::limits::{CHUNKS_PER_READER, READERS_PER_PROCESS};
use crate::log::Written;

/// Where a piece of output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
    Terminal,
}

/// What one read gave.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub source: Source,
    pub bytes: Bytes,
}

/// How input reaches the process.
#[derive(Clone)]
pub enum Input {
    Pipe(Rc<AsyncFd<OwnedFd>>),
    Terminal(Rc<AsyncFd<OwnedFd>>),
    /// Never there, or closed.
    Closed,
}

pub struct Process {
    pub pid: u32,
    pub tag: Option<String>,
    /// As requested.
    pub config: ProcessConfig,
    pub pidfd: AsyncFd<OwnedFd>,
    pub input: RefCell<Input>,
    /// Writers take turns, so that each message arrives in one piece.
    pub write_turn: tokio::sync::Mutex<()>,
    /// Tells a waiting writer that the input was closed.
    pub input_closed: Notify,
    /// Tells the supervisor not to wait for the end of output.
    pub hurry: Notify,
    /// Counted for the log.
    pub written: Cell<Written>,
    hurried: Cell<bool>,
    readers: RefCell<Vec<mpsc::Sender<Chunk>>>,
    end: RefCell<Option<EndEvent>>,
}

impl Process {
    pub fn new(
        pid: u32,
        tag: Option<String>,
        config: ProcessConfig,
        pidfd: AsyncFd<OwnedFd>,
        input: Input,
    ) -> Self {
        Self {
            pid,
            tag,
            config,
            pidfd,
            input: RefCell::new(input),
            write_turn: tokio::sync::Mutex::new(()),
            input_closed: Notify::new(),
            hurry: Notify::new(),
            written: Cell::default(),
            hurried: Cell::new(false),
            readers: RefCell::new(Vec::new()),
            end: RefCell::new(None),
        }
    }

    /// A queue of all output from now on. It closes when the process has ended; `None`: there are
    /// too many already.
    pub fn subscribe(&self) -> Option<mpsc::Receiver<Chunk>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_PER_READER);
        let mut readers = self.readers.borrow_mut();
        readers.retain(|reader| !reader.is_closed());
        if readers.len() >= READERS_PER_PROCESS {
            return None;
        }
        // After the end nobody would ever close the queue.
        if self.end.borrow().is_none() {
            readers.push(sender);
        }
        Some(receiver)
    }

    pub fn has_readers(&self) -> bool {
        self.readers
            .borrow()
            .iter()
            .any(|reader| !reader.is_closed())
    }

    /// Gives a chunk to every reader, waiting for each that is alive: how many took it. Who left is
    /// no hindrance.
    pub async fn publish(&self, chunk: Chunk) -> u32 {
        let readers = self.readers.borrow().clone();
        let (mut took, mut left) = (0, false);
        for reader in readers {
            match reader.send(chunk.clone()).await {
                Ok(()) => took += 1,
                Err(_) => left = true,
            }
        }
        if left {
            self.readers
                .borrow_mut()
                .retain(|reader| !reader.is_closed());
        }
        took
    }

    /// Gives a chunk to those readers who have room: for the rest of output after a kill.
    pub fn publish_now(&self, chunk: &Chunk) {
        for reader in self.readers.borrow().iter() {
            let _ = reader.try_send(chunk.clone());
        }
    }

    /// Records the end and closes all queues; what they hold is still read.
    pub fn finish(&self, end: EndEvent) {
        *self.end.borrow_mut() = Some(end);
        self.readers.borrow_mut().clear();
        self.close_input();
    }

    /// The end, for a reader whose queue closed.
    pub fn ended(&self) -> Option<EndEvent> {
        self.end.borrow().clone()
    }

    /// Closes a pipe; the process sees the end of its input.
    pub fn close_input(&self) {
        *self.input.borrow_mut() = Input::Closed;
        self.input_closed.notify_waiters();
    }

    /// Signals the one process, by handle: a reused pid is never hit.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(self.pidfd.get_ref(), signal)
    }

    /// From now on the end of the process itself is enough.
    pub fn stop_waiting_for_output(&self) {
        self.hurried.set(true);
        self.hurry.notify_one();
    }

    pub fn is_hurried(&self) -> bool {
        self.hurried.get()
    }
}

#[cfg(test)]
mod tests;
