//! How many clients may shake hands at once, and who goes for whom.
//!
//! A handshake costs memory and a signature before anybody showed a key.

use std::net::IpAddr;

use casemate_types::peer;
use casemate_types::places::{self, Places};
use tokio_util::sync::CancellationToken;

/// All handshakes of a listener.
#[derive(Clone)]
pub(crate) struct Handshakes(Places<CancellationToken>);

/// One handshake's place, given back on drop.
pub(crate) struct Place {
    _place: places::Place<CancellationToken>,
    /// Its place is needed.
    pub(crate) cut: CancellationToken,
}

impl Handshakes {
    pub(crate) fn new(max: usize) -> Self {
        Self(Places::new(max))
    }

    /// A place; where none is free the oldest one ends, of the same address if that has half.
    pub(crate) fn begin(&self, ip: IpAddr) -> Place {
        let cut = CancellationToken::new();
        let (place, goes) = self.0.begin(peer::counted_as(ip), cut.clone());
        if let Some(goes) = goes {
            goes.cancel();
        }
        Place { _place: place, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(handshakes: &Handshakes, peer: &str, count: usize) -> Vec<Place> {
        let peer = peer.parse().unwrap();
        (0..count).map(|_| handshakes.begin(peer)).collect()
    }

    fn cut(places: &[Place]) -> Vec<bool> {
        places.iter().map(|p| p.cut.is_cancelled()).collect()
    }

    #[test]
    fn at_the_bound_the_oldest_goes() {
        let all = Handshakes::new(4);
        let local = places(&all, "127.0.0.1", 5);
        assert_eq!(cut(&local), [true, false, false, false, false]);
        drop(local);
        assert_eq!(cut(&places(&all, "127.0.0.1", 4)), [false; 4]);
    }

    #[test]
    fn one_address_has_half_and_pushes_out_none_but_its_own() {
        let all = Handshakes::new(4);
        let other = places(&all, "192.0.2.1", 1);
        let flood = places(&all, "2001:db8::1", 1);
        let more = places(&all, "2001:db8::2", 9);
        assert_eq!(cut(&other), [false]);
        assert_eq!(cut(&flood), [true]);
        assert_eq!(cut(&more).iter().filter(|cut| !**cut).count(), 2);
    }
}
