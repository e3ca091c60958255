//! Descriptors that the event loop looks after.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Types that keep one descriptor open as long as they live, and never another one.
pub trait Steady: AsRawFd {}

impl Steady for OwnedFd {}
impl Steady for Inotify {}

/// Registers `inner`; an error gives it back.
///
/// tokio deprecates its safe constructors, because any type might lie about its descriptor. Those
/// that are [`Steady`] do not.
#[expect(
    deprecated,
    reason = "see above: sound for these types, and we keep to safe code"
)]
pub fn register<T: Steady>(inner: T, interest: Interest) -> Result<AsyncFd<T>, (T, io::Error)> {
    AsyncFd::try_with_interest(inner, interest).map_err(|error| error.into_parts())
}
