//! What an instance must know of the host's network before it adds to it.

use ipnet::Ipv4Net;

use crate::names::Names;
use crate::netlink::Socket;
use crate::{NetError, Subnet, links};

/// What a slot's links carry when the host's way out cannot be asked, and at most.
const MTU_DEFAULT: u32 = 1500;
/// The least that IPv4 hosts must take; an uplink below it is not believed.
const MTU_MIN: u32 = 576;
/// Routes wider than this are ways out, not places: some VPNs write the default route as two halves.
const PLACE_PREFIX_MIN: u8 = 8;

/// Refuses a subnet that the host already routes elsewhere, and answers what the way out carries.
pub(crate) fn survey(host: &mut Socket, names: &Names, subnet: Subnet) -> Result<u32, NetError> {
    let links = links::links(host).map_err(NetError::netlink("list links"))?;
    let routes = links::routes(host).map_err(NetError::netlink("list routes"))?;
    let link = |index: Option<u32>| links.iter().find(|link| Some(link.index) == index);
    let name = |index| link(index).map_or("no link", |link| link.name.as_str());
    let gateway = Ipv4Net::from(subnet.gateway());
    for route in &routes {
        let overlaps = route.to.contains(&subnet.net()) || subnet.net().contains(&route.to);
        let ours = names.link_index(name(route.link)).is_some()
            || (route.to == gateway && name(route.link) == "lo");
        if overlaps && !ours && route.to.prefix_len() >= PLACE_PREFIX_MIN {
            return Err(NetError::RouteConflict {
                subnet: subnet.net(),
                route: route.to,
                link: name(route.link).to_owned(),
            });
        }
    }
    let out = routes
        .iter()
        .filter(|route| route.is_default())
        .min_by_key(|route| route.priority)
        .and_then(|route| link(route.link));
    let mtu = out.map_or(MTU_DEFAULT, |link| link.mtu);
    Ok(if mtu < MTU_MIN {
        MTU_DEFAULT
    } else {
        mtu.min(MTU_DEFAULT)
    })
}
