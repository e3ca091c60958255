//! Descriptors under the async runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor of ours for readiness.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that may lie about their \
                                   descriptor; an OwnedFd does not"
    )]
    AsyncFd::with_interest(fd, interest)
}
