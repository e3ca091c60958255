//! What the node says: messages of one packet each, JSON, over a socket pair. And the table of what
//! it has said.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::scm;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::EgressError;

/// The largest message; a policy is an address and a few name servers.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// A change of what one slot may do; it replaces what was said of the slot before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressUpdate {
    pub ip: Ipv4Addr,
    /// `None`: nobody uses the slot.
    pub policy: Option<SlotPolicy>,
}

/// What one slot may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotPolicy {
    pub dns: Dns,
    /// Name servers of its own; none means the host's. Those at private and local addresses are
    /// not asked: this process could reach what the slot may not.
    #[serde(default)]
    pub upstreams: Vec<IpAddr>,
}

/// Whether names are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dns {
    Allowed,
    /// All questions are refused: names would carry data out of a sandbox without internet.
    Refused,
}

/// Says a change to the egress process at the other end. It holds for every question that the slot
/// asks after the call has returned.
pub fn send(control: impl AsFd, update: &EgressUpdate) -> io::Result<()> {
    scm::send(control, &serde_json::to_vec(update)?, &[])
}

/// The receiving end, and what holds by now.
#[derive(Debug)]
pub(crate) struct Control {
    socket: AsyncFd<OwnedFd>,
    slots: RefCell<HashMap<Ipv4Addr, SlotPolicy>>,
}

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, EgressError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|e| EgressError::Control(e.into()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe because of types that change their descriptor; an \
                      OwnedFd does not"
        )]
        let socket = AsyncFd::new(socket).map_err(EgressError::Control)?;
        Ok(Self {
            socket,
            slots: RefCell::default(),
        })
    }

    /// What a slot may do, after all that was said up to now.
    pub(crate) fn policy(&self, slot: Ipv4Addr) -> Option<SlotPolicy> {
        // A broken socket shows again in `closed`, which ends the process.
        let _ = self.drain();
        self.slots.borrow().get(&slot).cloned()
    }

    /// Takes in messages until the node's end is closed.
    pub(crate) async fn closed(&self) -> Result<(), EgressError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(EgressError::Control)?;
            match self.drain() {
                Ok(Drained::Closed) => return Ok(()),
                Ok(Drained::Empty) => ready.clear_ready(),
                Err(error) => return Err(EgressError::Control(error)),
            }
        }
    }

    fn drain(&self) -> io::Result<Drained> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        loop {
            let len = match scm::recv(self.socket.get_ref(), &mut buffer) {
                Ok((0, _)) => return Ok(Drained::Closed),
                Ok((len, _)) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Drained::Empty);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(
                        "the node sent a message longer than {MESSAGE_BYTES_MAX} bytes"
                    );
                    continue;
                }
                Err(error) => return Err(error),
            };
            let update: EgressUpdate = match serde_json::from_slice(&buffer[..len]) {
                Ok(update) => update,
                Err(error) => {
                    tracing::error!(%error, "the node sent a message that cannot be read");
                    continue;
                }
            };
            let mut slots = self.slots.borrow_mut();
            match update.policy {
                Some(policy) => slots.insert(update.ip, policy),
                None => slots.remove(&update.ip),
            };
        }
    }
}

enum Drained {
    Empty,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_read_as_they_are_written() {
        let text = r#"{"ip":"100.64.0.2","policy":{"dns":"allowed","upstreams":["9.9.9.9"]}}"#;
        let update: EgressUpdate = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&update).unwrap(), text);
        let gone: EgressUpdate =
            serde_json::from_str(r#"{"ip":"100.64.0.2","policy":null}"#).unwrap();
        assert_eq!(gone.policy, None);
    }
}
