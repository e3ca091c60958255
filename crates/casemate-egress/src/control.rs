//! What the node says: messages of one packet each, JSON, over a socket pair. And the table of what
//! it has said.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;

use casemate_linux::scm;
use casemate_types::network::{DomainName, DomainPattern};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::EgressError;
use crate::lookups::Lookups;

/// The largest message. A policy is an address, a few name servers and at most 256 domains
/// (`casemate_types::limits`), of 255 characters and their quotes each.
const MESSAGE_BYTES_MAX: usize = 96 * 1024;

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
    /// Names that the proxy connects to, and that are answered even where `dns` refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainPattern>,
}

impl SlotPolicy {
    /// Whether the proxy connects to this name.
    pub(crate) fn opens(&self, name: &DomainName) -> bool {
        self.domains.iter().any(|domain| domain.matches(name))
    }
}

/// Whether names are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dns {
    Allowed,
    /// Questions are refused: names would carry data out of a sandbox without internet.
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
    slots: RefCell<HashMap<Ipv4Addr, Rc<Slot>>>,
    buffer: RefCell<Vec<u8>>,
}

/// A slot in one use of it: whoever uses it next has another one.
#[derive(Debug)]
pub(crate) struct Slot {
    policy: RefCell<Rc<SlotPolicy>>,
    /// What names led to. Its own, so that no slot can tell what another one asks for; empty after
    /// each change of the policy.
    pub(crate) lookups: Lookups,
    gone: Cell<bool>,
    changed: Notify,
}

impl Slot {
    fn new(policy: SlotPolicy) -> Rc<Self> {
        Rc::new(Self {
            policy: RefCell::new(Rc::new(policy)),
            lookups: Lookups::default(),
            gone: Cell::new(false),
            changed: Notify::new(),
        })
    }

    pub(crate) fn policy(&self) -> Rc<SlotPolicy> {
        Rc::clone(&self.policy.borrow())
    }

    /// Ends once this use of the slot does, or a policy comes that `still` does not hold for.
    pub(crate) async fn forbids(&self, still: impl Fn(&SlotPolicy) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.gone.get() || !still(&self.policy()) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, policy: SlotPolicy) {
        self.policy.replace(Rc::new(policy));
        self.lookups.forget();
        self.changed.notify_waiters();
    }

    fn end(&self) {
        self.gone.set(true);
        self.changed.notify_waiters();
    }
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
            buffer: RefCell::new(vec![0; MESSAGE_BYTES_MAX]),
        })
    }

    /// A slot that the node has named, after all that was said up to now.
    pub(crate) fn slot(&self, slot: Ipv4Addr) -> Option<Rc<Slot>> {
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
        let mut buffer = self.buffer.borrow_mut();
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
            match (update.policy, slots.get(&update.ip)) {
                (Some(policy), Some(slot)) => slot.change(policy),
                (Some(policy), None) => {
                    slots.insert(update.ip, Slot::new(policy));
                }
                (None, _) => {
                    if let Some(slot) = slots.remove(&update.ip) {
                        slot.end();
                    }
                }
            }
        }
    }
}

enum Drained {
    Empty,
    Closed,
}

#[cfg(test)]
mod tests {
    use casemate_types::limits::{DNS_SERVERS_MAX, NETWORK_DOMAINS_MAX};

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

    #[test]
    fn the_largest_policy_fits() {
        let label = "a".repeat(59);
        let domain = DomainPattern::parse(&format!("*.{label}.{label}.{label}.{label}.com"));
        let update = EgressUpdate {
            ip: [100, 64, 255, 255].into(),
            policy: Some(SlotPolicy {
                dns: Dns::Refused,
                upstreams: vec![[100, 100, 100, 100].into(); DNS_SERVERS_MAX],
                domains: vec![domain.unwrap(); NETWORK_DOMAINS_MAX],
            }),
        };
        let len = serde_json::to_vec(&update).unwrap().len();
        // Each domain could have twelve characters more.
        assert!(len + 12 * NETWORK_DOMAINS_MAX < MESSAGE_BYTES_MAX, "{len}");
    }
}
