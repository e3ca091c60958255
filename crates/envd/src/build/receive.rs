//! From a request to the thread that works on its body, and back to the answer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Done;
use super::error::BuildError;
use super::input::{Input, Piece, Stop};
use crate::answer::{self, Answer, Refusal};
use crate::body::{RequestBody, next_piece};
use crate::limits::{BLOCKING_STACK_BYTES, BUILD_IDLE, BUILD_PIECES};
use crate::route::Plain;

/// Lets one build route work at a time, to the end of its clearing up.
pub struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turn {
    /// Waits for it; it is over when what is given is dropped.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// Does `work` on a thread with the body of `call`, and answers with what came of it.
///
/// # Cancel safety
/// Dropped when the caller hangs up; the thread then sees its body break off and is told to stop.
pub async fn receive<F>(mut call: Plain, work: F) -> Answer
where
    F: FnOnce(Input) -> Result<Done, BuildError> + Send + 'static,
{
    let turn = Rc::clone(&call.guest);
    let done = run(&turn.build_turn, call.request.body_mut(), work).await;
    let done = done.map_err(Refusal::from);
    match done.map(|done| serde_json::to_string(&done)) {
        Ok(body) => answer::json(body.unwrap_or_default()),
        Err(refusal) => {
            call.request.body_mut().read_off().await;
            refusal.into()
        }
    }
}

async fn run<F>(turn: &Turn, body: &mut RequestBody, work: F) -> Result<Done, BuildError>
where
    F: FnOnce(Input) -> Result<Done, BuildError> + Send + 'static,
{
    let turn = turn.take().await;
    let (sender, pieces) = mpsc::channel(BUILD_PIECES);
    let (tell, told) = oneshot::channel();
    let stop = Stop::default();
    let _stop = stop.on_drop();
    thread::Builder::new()
        .stack_size(BLOCKING_STACK_BYTES)
        .spawn(move || {
            let worked = catch_unwind(AssertUnwindSafe(|| work(Input::new(pieces, stop))));
            drop(turn);
            // Nobody may wait any more.
            let _ = tell.send(worked.unwrap_or(Err(BuildError::Panicked)));
        })
        .map_err(|error: io::Error| BuildError::Thread(error))?;
    feed(body, sender).await;
    told.await.unwrap_or(Err(BuildError::Panicked))
}

/// Hands over the body, as long as somebody takes it.
async fn feed(body: &mut RequestBody, sender: mpsc::Sender<Piece>) {
    loop {
        let piece = tokio::select! {
            piece = timeout(BUILD_IDLE, next_piece(body)) => match piece {
                Ok(Some(Ok(bytes))) => Piece::Data(bytes),
                Ok(None) => Piece::End,
                // The thread sees the queue close.
                Ok(Some(Err(_))) => return,
                Err(_) => Piece::Stalled,
            },
            () = sender.closed() => return,
        };
        let goes_on = matches!(piece, Piece::Data(_));
        if sender.send(piece).await.is_err() || !goes_on {
            return;
        }
    }
}
