//! A port's interface: the link, the program at its edge, its neighbours and its profile.
//!
//! The interface has no address. The program at its edge answers for the gateway, `fe80::1`, also to
//! pings, and the responder sends with that source; an address would cost the kernel what the number of
//! ports costs, for each port.

use std::net::IpAddr;

use hextet_types::PortId;

use super::{
    delegation, names, nft,
    place::{self, Place},
    profile, qos, responder, source,
    unit::{Output, View},
};
use crate::{
    neutron::Port,
    state::{EdgeProgram, Link, Neighbour, Netns, Object, Patch, Veth},
};

/// What the interface has until its network is known.
const DEFAULT_MTU: u16 = 1500;

/// A port. One that is administratively down (or whose network is) keeps its interface, down, and
/// passes nothing.
pub fn port(view: View<'_>, id: PortId) -> Output {
    let Some(port) = view.plugged(id) else {
        return Output::default();
    };
    let up = view.is_up(port);
    let name = port.if_name();
    let Output {
        mut objects,
        joints,
        ..
    } = link(view, port, up);
    objects.push(nft::name_element(names::PORTS, &name));
    if view.index.is_stateless(id) {
        objects.push(nft::name_element(names::STATELESS, &name));
    }
    let mut output = Output {
        objects,
        joints,
        ..Output::default()
    };
    if up {
        output.objects.extend(qos::of_port(view, port));
        output.objects.extend(source::of_port(port));
        output.objects.extend(neighbours(port));
        output.responders.extend(responder::of_port(view, port));
        delegation::of_port(view, port, &mut output);
    }
    dedup(&mut output.objects);
    output
}

/// Its link, with the program at its edge. Where the port lives elsewhere, its link stays in the main namespace,
/// and a pair leads from there to an interface of the same name.
fn link(view: View<'_>, port: &Port, up: bool) -> Output {
    let name = port.if_name();
    let network = view.intent.networks.get(&port.network_id);
    let link = Link {
        netns: Netns::Main,
        name: name.clone(),
        mac: view.config.gateway_mac,
        mtu: network.map_or(DEFAULT_MTU, |n| n.mtu),
        group: match view.place {
            Place::Main => profile::group_of(port, up),
            Place::Network(_) | Place::Router(_) => 0,
        },
        up,
    };
    let edge = EdgeProgram {
        netns: Netns::Main,
        link: name,
    };
    let mut output = Output::from(vec![Object::EdgeProgram(edge)]);
    match view.place {
        Place::Main => output.objects.push(Object::Link(link)),
        Place::Network(_) | Place::Router(_) => {
            output.joints.extend(pair(view, port, &link, up));
            output.joints.push(Object::Link(link));
        }
    }
    output
}

fn pair(view: View<'_>, port: &Port, link: &Link, up: bool) -> Vec<Object> {
    let Some(outer) = place::outer_end(port.id) else {
        return Vec::new();
    };
    let netns = view.place.netns();
    let veth = Veth {
        netns: Netns::Main,
        name: outer.clone(),
        mac: port.mac_address,
        mtu: link.mtu,
        peer_netns: netns.clone(),
        peer: link.name.clone(),
        peer_mac: link.mac,
        peer_group: profile::group_of(port, up),
    };
    let patch = Patch {
        netns,
        tap: link.name.clone(),
        outer,
    };
    vec![Object::Veth(veth), Object::Patch(patch)]
}

fn neighbours(port: &Port) -> impl Iterator<Item = Object> + '_ {
    let link_local = IpAddr::V6(port.mac_address.link_local());
    let addrs = port.fixed_ips.iter().map(|f| f.ip_address);
    let own = addrs
        .chain([link_local])
        .map(|addr| (addr, port.mac_address));
    let pairs = port.allowed_address_pairs.iter();
    let pairs = pairs.filter(|pair| port.port_security_enabled && pair.ip_address.is_host());
    let pairs = pairs.map(|pair| (pair.ip_address.addr(), pair.mac_address));
    own.chain(pairs).map(|(addr, mac)| {
        Object::Neighbour(Neighbour {
            netns: Netns::Main,
            link: port.if_name(),
            addr,
            mac,
        })
    })
}

/// An address pair may repeat one of the port's own addresses.
fn dedup(objects: &mut Vec<Object>) {
    let mut seen = std::collections::BTreeSet::new();
    objects.retain(|object| seen.insert(object.key()));
}
