//! Threads for file work, which may block.
//!
//! Our own, because the runtime's panic where the kernel refuses a thread: in a sandbox at its
//! process limit. Here the caller does the work then, so files can be had at the limit, too.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use crate::limits::{BLOCKING_IDLE, BLOCKING_STACK_BYTES, BLOCKING_THREADS};

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Those of the server on this thread. None runs before there is work.
    static OWN: Arc<Workers> = Arc::new(Workers::new(BLOCKING_STACK_BYTES));
}

/// Does `work` on a thread of its own where one can be had; nothing if it panics. A caller that is
/// dropped meanwhile does not stop it.
pub async fn run<T, F>(work: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let workers = OWN.with(Arc::clone);
    workers.run(work).await
}

struct Workers {
    state: Mutex<State>,
    called: Condvar,
    stack_bytes: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    /// Of these, those that wait. One that was called stays in here until it has woken up.
    idle: usize,
}

impl Workers {
    fn new(stack_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            called: Condvar::new(),
            stack_bytes,
        }
    }

    async fn run<T, F>(self: &Arc<Self>, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, done) = oneshot::channel();
        self.give(Box::new(move || {
            // A panic drops the sender, which tells the caller.
            let _ = catch_unwind(AssertUnwindSafe(move || sender.send(work())));
        }));
        done.await.ok()
    }

    fn give(self: &Arc<Self>, work: Work) {
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.idle >= state.queue.len() {
            drop(state);
            self.called.notify_one();
            return;
        }
        if state.threads < BLOCKING_THREADS && self.spawn() {
            state.threads += 1;
            return;
        }
        if state.threads > 0 {
            // One of them will come to it.
            return;
        }
        let own = state.queue.pop_back();
        drop(state);
        if let Some(work) = own {
            work();
        }
    }

    /// Whether there is one thread more. The caller holds the lock, for which the new one waits.
    fn spawn(self: &Arc<Self>) -> bool {
        let workers = Arc::clone(self);
        thread::Builder::new()
            .stack_size(self.stack_bytes)
            .spawn(move || workers.serve())
            .is_ok()
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (locked, waited) = self
                .called
                .wait_timeout(state, BLOCKING_IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = locked;
            state.idle -= 1;
            // Work that came at the last moment is done still.
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// No work is done under the lock, so nothing is half done in a poisoned one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use super::*;

    /// More than there are addresses: the kernel refuses each thread, as at the process limit.
    const NO_STACK: usize = 1 << 47;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    fn workers(stack_bytes: usize) -> Arc<Workers> {
        Arc::new(Workers::new(stack_bytes))
    }

    #[test]
    fn work_is_done_where_no_thread_can_be_had() {
        let workers = workers(NO_STACK);
        let here = thread::current().id();
        for _ in 0..3 {
            assert_eq!(wait(workers.run(|| thread::current().id())), Some(here));
        }
        assert_eq!(wait(workers.run(|| -> u8 { panic!("on purpose") })), None);
        let state = workers.lock();
        assert_eq!((state.threads, state.queue.len()), (0, 0));
    }

    #[test]
    fn work_goes_to_other_threads_at_the_same_time() {
        let workers = workers(BLOCKING_STACK_BYTES);
        let here = thread::current().id();
        let met = Arc::new(Barrier::new(2));
        let meet = |met: &Arc<Barrier>| {
            let met = Arc::clone(met);
            move || {
                met.wait();
                thread::current().id()
            }
        };
        let (one, other) =
            wait(async { tokio::join!(workers.run(meet(&met)), workers.run(meet(&met))) });
        assert!(one.is_some() && other.is_some() && one != other);
        assert!(one != Some(here) && other != Some(here));
    }

    #[test]
    fn there_are_never_more_threads_than_allowed_and_none_when_idle() {
        let workers = workers(BLOCKING_STACK_BYTES);
        let done = Arc::new(Mutex::new(0));
        for _ in 0..10 * BLOCKING_THREADS {
            let done = Arc::clone(&done);
            workers.give(Box::new(move || {
                thread::sleep(Duration::from_millis(1));
                *done.lock().unwrap() += 1;
            }));
            assert!(workers.lock().threads <= BLOCKING_THREADS);
        }
        assert_eq!(wait(workers.run(|| -> u8 { panic!("on purpose") })), None);
        let until = Instant::now() + 20 * BLOCKING_IDLE;
        while workers.lock().threads > 0 {
            assert!(Instant::now() < until, "threads stay");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(*done.lock().unwrap(), 10 * BLOCKING_THREADS);
        assert_eq!(workers.lock().idle, 0);
        assert_eq!(wait(workers.run(|| 1)), Some(1));
    }
}
