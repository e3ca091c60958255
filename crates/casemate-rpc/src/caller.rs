//! Calls and their answers over one connection: many at once, each found again by its number.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::frame::Channel;

/// Events that a watcher may lag behind; one that lags more loses its watch and begins anew.
const WATCH_LAG_MAX: usize = 8192;
/// The same in bytes, as they came: an event may be as long as a frame.
const WATCH_LAG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A call, from whoever asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestFrame<C> {
    pub(crate) id: u64,
    pub(crate) call: C,
}

/// The other way. A dialled connection travels with its reply as one descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplyFrame<R, X, E> {
    Reply { id: u64, result: Result<R, X> },
    Event(E),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connection is gone; the call may have been carried out.
    Gone,
    /// Nothing was sent.
    TooLong,
}

type Answer<R, X> = (Result<R, X>, Option<OwnedFd>);

/// The asking end. Dropping it ends the connection.
pub(crate) struct Caller<R, X, E> {
    shared: Arc<Shared<R, X, E>>,
    reader: tokio::task::AbortHandle,
}

struct Shared<R, X, E> {
    channel: Channel,
    next_id: AtomicU64,
    state: Mutex<State<R, X, E>>,
    gone: CancellationToken,
}

struct State<R, X, E> {
    pending: HashMap<u64, oneshot::Sender<Answer<R, X>>>,
    watcher: Option<Watcher<E>>,
    closed: bool,
}

/// Where events go.
struct Watcher<E> {
    events: mpsc::Sender<E>,
    /// Of those that wait, and of some that were taken.
    lengths: VecDeque<usize>,
    bytes: usize,
}

impl<E> Watcher<E> {
    /// Whether it is not too far behind.
    fn tell(&mut self, event: E, length: usize) -> bool {
        let waiting = self.events.max_capacity() - self.events.capacity();
        while self.lengths.len() > waiting {
            self.bytes -= self.lengths.pop_front().unwrap_or(0);
        }
        self.lengths.push_back(length);
        self.bytes += length;
        self.bytes <= WATCH_LAG_BYTES_MAX && self.events.try_send(event).is_ok()
    }
}

impl<R, X, E> Caller<R, X, E>
where
    R: DeserializeOwned + Send + 'static,
    X: DeserializeOwned + Send + 'static,
    E: DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(channel: Channel) -> Self {
        let shared = Arc::new(Shared {
            channel,
            next_id: AtomicU64::new(1),
            state: Mutex::new(State {
                pending: HashMap::new(),
                watcher: None,
                closed: false,
            }),
            gone: CancellationToken::new(),
        });
        let reader = tokio::spawn(read_replies(Arc::clone(&shared))).abort_handle();
        Self { shared, reader }
    }

    /// One call, with the descriptor that came beside its answer.
    ///
    /// # Cancel safety
    /// The answer of one that was sent is dropped when it comes.
    pub(crate) async fn call<C: Serialize>(&self, call: C) -> Result<Answer<R, X>, NoAnswer> {
        self.call_with(call, None).await
    }

    /// The same with a descriptor beside the call; over a stream, which carries none, it is
    /// [`NoAnswer::TooLong`].
    pub(crate) async fn call_with<C: Serialize>(
        &self,
        call: C,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Answer<R, X>, NoAnswer> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closed {
                return Err(NoAnswer::Gone);
            }
            state.pending.insert(id, sender);
        }
        let _pending = Pending {
            shared: &self.shared,
            id,
        };
        let frame = RequestFrame { id, call };
        if let Err(error) = self.shared.channel.send(&frame, fd).await {
            return Err(match error.kind() {
                io::ErrorKind::InvalidInput => NoAnswer::TooLong,
                _ => NoAnswer::Gone,
            });
        }
        receiver.await.map_err(|_| NoAnswer::Gone)
    }

    /// Where events go from now on; a former watcher's channel ends.
    pub(crate) fn watch(&self) -> mpsc::Receiver<E> {
        let (events, receiver) = mpsc::channel(WATCH_LAG_MAX);
        self.shared.lock().watcher = Some(Watcher {
            events,
            lengths: VecDeque::new(),
            bytes: 0,
        });
        receiver
    }
}

impl<R, X, E> Caller<R, X, E> {
    /// Waits until the connection is gone.
    pub(crate) async fn closed(&self) {
        self.shared.gone.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Asks nothing more, and lets the other end know: it serves out the calls under way.
    pub(crate) async fn leave(&self) {
        if let Err(error) = self.shared.channel.end_sending().await {
            // It went before us.
            debug!(%error, "leave the other end");
        }
    }
}

impl<R, X, E> Drop for Caller<R, X, E> {
    fn drop(&mut self) {
        self.reader.abort();
        self.shared.close();
    }
}

impl<R, X, E> Shared<R, X, E> {
    fn lock(&self) -> MutexGuard<'_, State<R, X, E>> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pending.clear();
        state.watcher = None;
        self.gone.cancel();
    }
}

/// Forgets a call whose caller gave up, so that its answer is dropped when it comes.
struct Pending<'a, R, X, E> {
    shared: &'a Shared<R, X, E>,
    id: u64,
}

impl<R, X, E> Drop for Pending<'_, R, X, E> {
    fn drop(&mut self) {
        self.shared.lock().pending.remove(&self.id);
    }
}

async fn read_replies<R, X, E>(shared: Arc<Shared<R, X, E>>)
where
    R: DeserializeOwned,
    X: DeserializeOwned,
    E: DeserializeOwned,
{
    let mut buffer = Vec::new();
    loop {
        match shared.channel.recv_long(&mut buffer).await {
            Ok(Some((ReplyFrame::Reply { id, result }, fd, _))) => {
                let waiting = shared.lock().pending.remove(&id);
                if let Some(waiting) = waiting {
                    // A caller that left meanwhile drops the answer, and a descriptor with it.
                    let _ = waiting.send((result, fd));
                }
            }
            Ok(Some((ReplyFrame::Event(event), _, length))) => {
                let mut state = shared.lock();
                let watcher = state.watcher.as_mut();
                if watcher.is_some_and(|watcher| !watcher.tell(event, length)) {
                    state.watcher = None;
                }
            }
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "a connection of the platform's own broke");
                break;
            }
        }
    }
    shared.close();
}
