//! Network namespaces: made and entered, one thread at a time.
//!
//! A thread that left its namespace must not go back to work for others: callers use a thread of
//! their own that ends. The module knows neither links nor addresses.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves the calling thread into a fresh network namespace, owned by the thread's user namespace,
/// and answers a descriptor that keeps the namespace alive.
pub fn netns_create() -> io::Result<OwnedFd> {
    // SAFETY: CLONE_NEWNET changes which network namespace this thread's later sockets belong to;
    // it shares or unshares no memory, descriptor table or file system state.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    netns_current()
}

/// A descriptor of the calling thread's network namespace.
pub fn netns_current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread into a namespace; anything but a network namespace is refused.
pub fn netns_enter(netns: impl AsFd) -> io::Result<()> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}
