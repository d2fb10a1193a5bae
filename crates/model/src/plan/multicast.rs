//! Who of a private network hears what its ports send to a group: those that have joined it, on any host.
//!
//! A copy is a packet to the listener's own address, so what rules say of it is for rules, and the way to it is that
//! of any packet; to whom there is none, nothing is sent, or the sender would hear of an address that it has never sent to. A network in which nobody has joined anything has nothing of this.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{Family, NetworkId, PortId};

use super::{index::Name, place::Place, tunnel, unit::View};
use crate::{
    intent::Joined,
    neutron::Port,
    state::{Audience, Listener, Netns, Object, Speaker},
};

/// All that a network's namespace holds for it.
pub fn multicast(view: View<'_>) -> Vec<Object> {
    let Place::Network(id) = view.place else {
        return Vec::new();
    };
    let unspecified = Family::V4.unspecified();
    let all = view.intent.audiences.range((id, unspecified)..);
    let mut all = all.take_while(|((of, _), _)| *of == id).peekable();
    let (Some(network), true) = (view.place.netns().number(), all.peek().is_some()) else {
        return Vec::new();
    };
    let audience =
        |((_, group), joined): (&(NetworkId, IpAddr), &_)| audience(view, *group, joined);
    let mut objects: Vec<Object> = all.map(audience).collect();
    for port in local(view, id) {
        let speaker = Speaker::all(&port.if_name(), network, own(port));
        objects.extend(speaker);
    }
    if !tunnel::tunnel(view).is_empty() {
        let device = tunnel::device().into_iter();
        objects.extend(device.flat_map(|link| Speaker::all(&link, network, None)));
    }
    objects
}

fn local(view: View<'_>, id: NetworkId) -> Vec<&Port> {
    let name = Name::Network(id);
    let ports = view.index.ports(&name);
    let ports = ports.filter_map(|port| view.plugged(port));
    ports.filter(|port| view.is_up(port)).collect()
}

/// What a port speaks from where its source is link-local.
fn own(port: &Port) -> Option<Ipv6Addr> {
    port.fixed_ips.iter().find_map(|f| match f.ip_address {
        IpAddr::V6(addr) => Some(addr),
        IpAddr::V4(_) => None,
    })
}

fn audience<'a>(
    view: View<'_>,
    group: IpAddr,
    joined: impl IntoIterator<Item = (&'a PortId, &'a Joined)>,
) -> Object {
    let of_family = |(_, j): &(&PortId, &Joined)| Family::of(j.addr) == Family::of(group);
    let is_reached = |addr| view.port_with(addr).is_some() || tunnel::way(view, addr).is_some();
    let known = |(_, j): &(&PortId, &Joined)| !tunnel::is_ours(j.mac) && is_reached(j.addr);
    let listener = |(port, joined): (&PortId, &Joined)| Listener {
        addr: joined.addr,
        mac: joined.mac,
        here: view.plugged(*port).is_some_and(|port| view.is_up(port)),
    };
    let joined = joined.into_iter().filter(of_family).filter(known);
    Object::Audience(Audience {
        netns: Netns::Main,
        group,
        listeners: joined.map(listener).take(Audience::MOST).collect(),
    })
}
