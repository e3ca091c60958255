//! A netlink socket: requests in, acknowledgements or dumps out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with, sockopt,
};

use super::message::{HEADER_LEN, Message, flag};

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// A dump that was changed while it was read; the caller asks again.
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
/// The kernel answers at once; a wait this long means that an answer was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump that was interrupted by a change is begun again.
const DUMP_TRIES: usize = 10;

/// A socket of one netlink family in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Links, addresses, routes.
    pub(crate) fn route() -> io::Result<Self> {
        // The family of protocol number 0 has no name in the library.
        Self::open(None)
    }

    /// Packet filter.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            fd,
            seq: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Sends the messages in one packet and waits until the last is acknowledged. The first error
    /// that the kernel reports for any of them is the answer; for most families the others took
    /// effect nevertheless, for a transaction none did.
    ///
    /// Only the last message asks for an acknowledgement: errors come without being asked for.
    pub(crate) fn request(&mut self, mut messages: Vec<Message>) -> io::Result<()> {
        let Some(last) = messages.pop() else {
            return Ok(());
        };
        self.transact(messages, last, Vec::new())
    }

    /// As [`Self::request`], with messages after the one that is acknowledged: the end of a
    /// packet filter transaction is not acknowledged by every kernel.
    pub(crate) fn transact(
        &mut self,
        before: Vec<Message>,
        acked: Message,
        after: Vec<Message>,
    ) -> io::Result<()> {
        let first = self.seq.wrapping_add(1);
        let mut packet = Vec::new();
        for message in before {
            packet.extend(message.numbered(self.seq_next()));
        }
        let last = self.seq_next();
        packet.extend(acknowledged(acked.numbered(last)));
        for message in after {
            packet.extend(message.numbered(self.seq_next()));
        }
        send(&self.fd, &packet, SendFlags::empty())?;

        let mut outcome = Ok(());
        loop {
            let len = self.receive()?;
            for part in parts(&self.buffer[..len]) {
                // Answers to a request that was given up earlier.
                if part.seq.wrapping_sub(first) >= self.seq.wrapping_sub(first).wrapping_add(1) {
                    continue;
                }
                if part.kind == KIND_ERROR
                    && let Some(error) = part.error()
                    && outcome.is_ok()
                {
                    outcome = Err(error);
                }
                // An error of the first message may end a transaction before the last is seen.
                if part.seq == last || (part.seq == first && outcome.is_err()) {
                    return outcome;
                }
            }
        }
    }

    /// Asks for a list and gives each entry's bytes (family header and attributes) to `each`.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        each: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            if let Some(found) = self.dump_once(message.clone(), &each)? {
                return Ok(found);
            }
        }
        Err(Errno::INTR.into())
    }

    /// Asks for one thing and gives its bytes to `read`.
    pub(crate) fn get<T>(
        &mut self,
        message: Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let seq = self.seq_next();
        send(&self.fd, &message.numbered(seq), SendFlags::empty())?;
        loop {
            let len = self.receive()?;
            if let Some(part) = parts(&self.buffer[..len]).find(|part| part.seq == seq) {
                return match part.error().filter(|_| part.kind == KIND_ERROR) {
                    Some(error) => Err(error),
                    None => Ok(read(part.body)),
                };
            }
        }
    }

    fn dump_once<T>(
        &mut self,
        message: Message,
        each: &impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let seq = self.seq_next();
        send(&self.fd, &message.numbered(seq), SendFlags::empty())?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let len = self.receive()?;
            for part in parts(&self.buffer[..len]).filter(|part| part.seq == seq) {
                whole &= part.flags & FLAG_DUMP_INTERRUPTED == 0;
                match part.kind {
                    KIND_DONE => return Ok(whole.then_some(found)),
                    KIND_ERROR => match part.error() {
                        Some(error) => return Err(error),
                        None => return Ok(whole.then_some(found)),
                    },
                    _ => found.extend(each(part.body)),
                }
            }
        }
    }

    fn seq_next(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, len)) if len > self.buffer.len() => return Err(Errno::MSGSIZE.into()),
                Ok((_, len)) => return Ok(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn acknowledged(mut bytes: Vec<u8>) -> Vec<u8> {
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | flag::ACK;
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

struct Part<'a> {
    kind: u16,
    flags: u16,
    seq: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// The error that an answer carries; an acknowledgement carries none.
    fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER_LEN)?;
        let len = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
        let part = Part {
            kind: u16::from_ne_bytes(header[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(header[6..8].try_into().ok()?),
            seq: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            body: bytes.get(HEADER_LEN..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    })
}
