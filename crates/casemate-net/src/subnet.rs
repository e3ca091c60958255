//! Address arithmetic of an instance's subnet. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::NetError;

/// The leased subnet: network address, gateway, then one address a slot; the last is the subnet's
/// broadcast address and belongs to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(Ipv4Net);

impl Subnet {
    /// The largest subnet: the anti-spoof set has an element for each of its slots.
    pub const PREFIX_MIN: u8 = 20;
    /// The smallest that has slots worth the name.
    pub const PREFIX_MAX: u8 = 29;
    const BEFORE_SLOTS: u32 = 2;

    pub fn new(net: Ipv4Net) -> Result<Self, NetError> {
        if (Self::PREFIX_MIN..=Self::PREFIX_MAX).contains(&net.prefix_len()) {
            Ok(Self(net.trunc()))
        } else {
            Err(NetError::SubnetSize { subnet: net })
        }
    }

    pub fn net(&self) -> Ipv4Net {
        self.0
    }

    /// The host's only address towards slots; the resolver listens there.
    pub fn gateway(&self) -> Ipv4Addr {
        self.nth(1)
    }

    /// How many slots there are: indexes run from 0 to one below.
    pub fn slots(&self) -> u16 {
        let addresses = 1u32 << (32 - self.0.prefix_len());
        let slots = addresses - Self::BEFORE_SLOTS - 1;
        u16::try_from(slots).expect("a /20 has 4093 slots")
    }

    pub fn address(&self, index: u16) -> Result<Ipv4Addr, NetError> {
        if index < self.slots() {
            Ok(self.nth(Self::BEFORE_SLOTS + u32::from(index)))
        } else {
            let last = self.slots() - 1;
            Err(NetError::IndexBeyond { index, last })
        }
    }

    /// The slot that has an address.
    pub fn index(&self, address: Ipv4Addr) -> Option<u16> {
        let offset = u32::from(address).checked_sub(u32::from(self.0.network()))?;
        let index = u16::try_from(offset.checked_sub(Self::BEFORE_SLOTS)?).ok()?;
        (index < self.slots()).then_some(index)
    }

    fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn addresses_follow_the_gateway() {
        let subnet = subnet("100.64.8.0/21");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(100, 64, 8, 1));
        assert_eq!(subnet.slots(), 2045);
        assert_eq!(subnet.address(0).unwrap(), Ipv4Addr::new(100, 64, 8, 2));
        assert_eq!(
            subnet.address(2044).unwrap(),
            Ipv4Addr::new(100, 64, 15, 254)
        );
        assert!(matches!(
            subnet.address(2045),
            Err(NetError::IndexBeyond { last: 2044, .. })
        ));
    }

    #[test]
    fn every_slot_is_found_by_its_address_and_nothing_else_is() {
        let subnet = subnet("100.64.0.0/29");
        for index in 0..subnet.slots() {
            assert_eq!(subnet.index(subnet.address(index).unwrap()), Some(index));
        }
        for stranger in [
            "100.64.0.0",
            "100.64.0.1",
            "100.64.0.7",
            "100.64.0.8",
            "9.9.9.9",
        ] {
            assert_eq!(subnet.index(stranger.parse().unwrap()), None, "{stranger}");
        }
    }

    #[test]
    fn too_large_and_too_small_are_refused() {
        assert!(Subnet::new("100.64.0.0/19".parse().unwrap()).is_err());
        assert!(Subnet::new("100.64.0.0/30".parse().unwrap()).is_err());
    }
}
