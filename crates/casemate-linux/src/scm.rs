//! Messages with descriptors between our own processes: `SOCK_SEQPACKET` socket pairs.
//!
//! A message is one packet: it arrives whole or not at all, its descriptors with it. What does not
//! fit is an error, never a shortened message. The module knows neither what messages say nor any
//! async runtime: on a non-blocking socket both directions answer `WouldBlock`, and the caller waits
//! for readiness its own way.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};

/// The most descriptors one message carries. A message with more is refused by [`send`].
pub const FDS_MAX: usize = 16;

/// The most bytes one message may have. [`pair`] makes the sockets' buffers large enough for it.
pub const BYTES_MAX: usize = 1 << 20;

/// Room asked of the kernel for what was sent and not read yet: four of the largest messages.
const SOCKET_BUFFER: usize = 4 * BYTES_MAX;

/// A connected pair of sockets, closed on exec and blocking.
///
/// As root the send buffers are raised past the host's limit; without that right they are what the
/// host allows, and a message too large for them fails with `EMSGSIZE`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for end in [&a, &b] {
        if sockopt::set_socket_send_buffer_size_force(end, SOCKET_BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER)?;
        }
    }
    Ok((a, b))
}

/// Sends one message. The descriptors are duplicated into the message; the caller keeps its own.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > BYTES_MAX || fds.len() > FDS_MAX {
        // An empty packet cannot be told from the end of the stream by who receives it.
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
        debug_assert!(pushed, "the buffer has room for FDS_MAX descriptors");
    }
    loop {
        let sent = sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message into `buffer` and says how long it is. Length 0: the other end is closed.
///
/// The descriptors are closed on exec. A message longer than the buffer, or one with more than
/// [`FDS_MAX`] descriptors, is consumed and answered with `InvalidData`; what was received of its
/// descriptors is closed.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(message) => break message,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message longer than its receiver allows",
        ));
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let text = vec![7_u8; BYTES_MAX];
        send(&a, &text, &[read.as_fd()]).unwrap();
        let mut buffer = vec![0; BYTES_MAX];
        let (length, mut fds) = recv(&b, &mut buffer).unwrap();
        assert_eq!(buffer[..length], text);
        std::fs::File::from(write).write_all(b"x").unwrap();
        drop(read);
        let mut said = String::new();
        std::fs::File::from(fds.remove(0))
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(said, "x");
        assert!(fds.is_empty());
    }

    #[test]
    fn received_descriptors_are_closed_on_exec() {
        let (a, b) = pair().unwrap();
        send(&a, b"m", &[a.as_fd()]).unwrap();
        let (_, fds) = recv(&b, &mut [0; 8]).unwrap();
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_message_too_long_for_its_receiver_is_an_error_and_the_next_one_is_read() {
        let (a, b) = pair().unwrap();
        send(&a, b"0123456789", &[]).unwrap();
        send(&a, b"next", &[]).unwrap();
        let mut buffer = [0; 5];
        assert_eq!(
            recv(&b, &mut buffer).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(recv(&b, &mut buffer).unwrap().0, 4);
    }

    #[test]
    fn empty_messages_are_refused_and_a_closed_end_reads_as_none() {
        let (a, b) = pair().unwrap();
        assert_eq!(
            send(&a, b"", &[]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        drop(a);
        assert_eq!(recv(&b, &mut [0; 8]).unwrap().0, 0);
        assert_eq!(
            send(&b, b"x", &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_non_blocking_socket_says_would_block() {
        let (a, _b) = pair().unwrap();
        rustix::io::ioctl_fionbio(&a, true).unwrap();
        assert_eq!(
            recv(&a, &mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
