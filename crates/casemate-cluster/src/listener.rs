//! A listener of a member: handshakes beside each other, and bounds on what strangers may take.
//!
//! Who connects is nobody before the handshake is over. So there is a number of handshakes at once, a
//! part of it for each address, and a time for each; whoever is beyond that is closed at once, and
//! members, which try again, come through all the same.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::peers::{Accepted, Peers};

/// Handshakes at once, and those of one address.
const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_OF_ONE_MAX: usize = 64;
/// Connections that came through and wait for being served.
const ACCEPTED_MAX: usize = 64;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whose listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Only members come through.
    Node,
    /// Also who wants to become one.
    Control,
}

/// What comes through a listener; dropping it closes that.
pub struct Arrivals {
    receiver: mpsc::Receiver<Accepted>,
    _task: JoinSet<()>,
}

impl Arrivals {
    /// Takes connections from now on. Needs a tokio runtime.
    pub fn of(listener: TcpListener, peers: Arc<Peers>, at: At) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (sender, receiver) = mpsc::channel(ACCEPTED_MAX);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, peers, at, sender));
        Ok(Self {
            receiver,
            _task: task,
        })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// None is lost.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.receiver.recv().await
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    peers: Arc<Peers>,
    at: At,
    accepted: mpsc::Sender<Accepted>,
) {
    let (handshakes, mut tasks) = (Handshakes::default(), JoinSet::new());
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(came) => came,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                warn!(%error, "connections of members cannot be accepted at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = handshakes.begin(peer.ip()) else {
            debug!("too many handshakes: {peer} is not let in");
            continue;
        };
        let (peers, accepted) = (Arc::clone(&peers), accepted.clone());
        tasks.spawn(async move {
            match shake(stream, &peers, at).await {
                Ok(one) => {
                    // The place is held until somebody takes the connection.
                    let _ = accepted.send(one).await;
                }
                Err(error) => debug!(%error, "the handshake with {peer} failed"),
            }
            drop(place);
        });
    }
}

async fn shake(stream: TcpStream, peers: &Peers, at: At) -> io::Result<Accepted> {
    match at {
        At::Node => peers.accept_at_node(stream).await,
        At::Control => peers.accept_at_control(stream).await,
    }
}

/// Handshakes under way, by address.
#[derive(Clone, Default)]
struct Handshakes(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct Place {
    all: Handshakes,
    address: IpAddr,
}

impl Handshakes {
    /// `None`: there are too many.
    fn begin(&self, address: IpAddr) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= HANDSHAKES_MAX {
            return None;
        }
        let of_one = all.entry(address).or_default();
        if *of_one >= HANDSHAKES_OF_ONE_MAX {
            return None;
        }
        *of_one += 1;
        Some(Place {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_one) = all.get_mut(&self.address) {
            *of_one -= 1;
            if *of_one == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_gives_them_back() {
        let all = Handshakes::default();
        let (flood, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = (0..HANDSHAKES_OF_ONE_MAX)
            .map(|_| all.begin(flood).expect("there are places"))
            .collect();
        assert!(all.begin(flood).is_none());
        assert!(all.begin(other).is_some());
        held.pop();
        assert!(all.begin(flood).is_some());
        drop(held);
        assert!(all.0.lock().unwrap().is_empty());
    }

    #[test]
    fn there_is_a_number_for_all_together() {
        let all = Handshakes::default();
        let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n % 200).unwrap()]);
        let held: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|n| all.begin(address(n)).expect("there are places"))
            .collect();
        assert!(all.begin(address(3)).is_none());
        drop(held);
        assert!(all.begin(address(3)).is_some());
    }
}
