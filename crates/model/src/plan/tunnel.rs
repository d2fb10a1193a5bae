//! The way to a private network's ports on other hosts: a VXLAN device, a neighbour and an entry of it for each
//! host, a route for each address. Nothing is learned from packets.
//!
//! A host is known on the network by an Ethernet address out of its number, and by the link-local address
//! that follows from that, whichever family the outer packets are of; also for IPv4 (RFC 8950).

use std::net::IpAddr;

use hextet_types::{HostId, IfName, Mac, Prefix};

use super::{
    address::{self, REMOTE_METRIC},
    index::Name,
    place::Place,
    unit::View,
};
use crate::{
    intent::TunnelEndpoint,
    state::{EdgeProgram, Fdb, Neighbour, Netns, NextHop, Object, RouteKind, Vxlan},
};

/// The UDP port of VXLAN (RFC 7348 §5).
pub const PORT: u16 = 4789;

/// The device, the same name in each network's namespace.
pub fn device() -> Option<IfName> {
    "vxlan".parse().ok()
}

/// How a host is known on private networks.
fn mac_of(endpoint: &TunnelEndpoint) -> Mac {
    let [_, a, b, c] = endpoint.number.to_be_bytes();
    Mac::new([0x06, 0x68, 0x78, a, b, c])
}

/// Whether a host may be known by it; a port's owner may choose any.
pub fn is_ours(mac: Mac) -> bool {
    matches!(mac.octets(), [0x06 | 0x0a, 0x68, 0x78, ..])
}

fn gateway_of(endpoint: &TunnelEndpoint) -> IpAddr {
    IpAddr::V6(mac_of(endpoint).link_local())
}

/// The network's device, where the network has a segment and this host an endpoint.
pub fn tunnel(view: View<'_>) -> Vec<Object> {
    let Place::Network(id) = view.place else {
        return Vec::new();
    };
    let network = view.intent.networks.get(&id);
    let segment = network.and_then(|n| Some((n.segmentation_id?, n.mtu)));
    let device = segment.and_then(|(vni, mtu)| own_device(view, vni, mtu));
    let program = device.is_some().then(|| {
        let link = self::device()?;
        Some(Object::EdgeProgram(EdgeProgram {
            netns: Netns::Main,
            link,
        }))
    });
    device.into_iter().chain(program.flatten()).collect()
}

/// A device of that segment, where this host has an endpoint.
pub fn own_device(view: View<'_>, vni: u32, mtu: u16) -> Option<Object> {
    let own = view.intent.hosts.get(&view.config.host)?;
    Some(Object::Vxlan(Vxlan {
        netns: Netns::Main,
        name: device()?,
        vni,
        local: own.address,
        port: PORT,
        mtu,
        mac: mac_of(own),
    }))
}

/// How a host with that endpoint is known on such a device.
pub fn known(endpoint: &TunnelEndpoint) -> Vec<Object> {
    let Some(link) = device() else {
        return Vec::new();
    };
    let mac = mac_of(endpoint);
    let neighbour = Neighbour {
        netns: Netns::Main,
        link: link.clone(),
        addr: gateway_of(endpoint),
        mac,
    };
    let entry = Fdb {
        netns: Netns::Main,
        link,
        mac,
        dst: endpoint.address,
    };
    vec![Object::Neighbour(neighbour), Object::Fdb(entry)]
}

/// The way to a host with that endpoint.
pub fn way_to(endpoint: &TunnelEndpoint) -> Option<NextHop> {
    Some(NextHop {
        via: Some(gateway_of(endpoint)),
        link: device()?,
    })
}

/// Another host that has ports of the network.
pub fn peer(view: View<'_>, host: &HostId) -> Vec<Object> {
    let named = view.index.is_named(&Name::Peer(host.clone()));
    let endpoint = view.intent.hosts.get(host).filter(|_| named);
    endpoint.map_or_else(Vec::new, known)
}

/// The way to an address on another host.
pub fn way(view: View<'_>, addr: IpAddr) -> Option<NextHop> {
    let Place::Network(id) = view.place else {
        return None;
    };
    let host = view.intent.remotes.get(&id)?.get(&addr)?;
    way_to(view.intent.hosts.get(host)?)
}

/// An address on another host.
pub fn remote(view: View<'_>, addr: IpAddr) -> Vec<Object> {
    let Some(hop) = way(view, addr) else {
        return Vec::new();
    };
    let kind = RouteKind::Unicast(vec![hop]);
    vec![address::route(
        Prefix::host(addr),
        REMOTE_METRIC,
        kind,
        None,
    )]
}
