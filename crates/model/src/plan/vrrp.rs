//! Who gets whose VRRP (RFC 5798, RFC 9568): those of a private network that share an address pair of one address with the
//! sender. A port without port security shares with all who have any such pair, and with its like.
//!
//! The sender's groups have to let protocol 112 out, and a receiver's let it in from the sender. Link-local sources are
//! members of no group, so for IPv6 a sender is a member if any of its own addresses is. Between hosts a copy goes to
//! each host that has one who shares, and the receivers there are that host's business.
//!
//! A sender speaks from its own addresses; under the Ethernet address of a virtual router from those that pairs give it
//! there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, IfName, Mac, NetworkId, PortId, Prefix, SecurityGroupId};

use super::{index::Name, place::Place, tunnel, unit::View};
use crate::{
    intent::{Group, RemotePort},
    neutron::{AddressPair, Direction, Port, Protocol, SecurityGroupRule},
    state::{Fdb, Netns, Object, Receiver},
};

const VRRP: Protocol = Protocol(112);

/// Somebody with whom addresses may be shared.
struct Sharer<'a> {
    id: PortId,
    mac: Mac,
    pairs: &'a [AddressPair],
    checked: bool,
    addresses: BTreeSet<IpAddr>,
}

impl<'a> Sharer<'a> {
    fn local(port: &'a Port) -> Self {
        Sharer {
            id: port.id,
            mac: port.mac_address,
            pairs: &port.allowed_address_pairs,
            checked: port.port_security_enabled,
            addresses: port.fixed_ips.iter().map(|f| f.ip_address).collect(),
        }
    }

    fn remote(port: &'a RemotePort) -> Self {
        Sharer {
            id: port.id,
            mac: port.mac_address,
            pairs: &port.allowed_address_pairs,
            checked: port.port_security_enabled,
            addresses: port.addresses.clone(),
        }
    }

    fn shared(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let single = self.pairs.iter().filter(|pair| pair.ip_address.is_host());
        single.map(|pair| pair.ip_address.addr())
    }

    fn shares(&self, other: &Sharer<'_>) -> bool {
        match (self.checked, other.checked) {
            (true, true) => self.shared().any(|addr| other.shared().any(|a| a == addr)),
            _ => self.id != other.id,
        }
    }

    /// Whether it may speak from any source under that Ethernet address. One of a virtual router it has together with its own
    /// link-local address, which follows from another (keepalived's `use_vmac`); no entry says so of each.
    fn speaks_freely(&self, mac: Mac, family: Family) -> bool {
        let mut pairs = self.pairs.iter();
        let own = IpAddr::V6(self.mac.link_local());
        let is_so = |pair: &AddressPair| {
            pair.mac_address == mac && pair.ip_address.is_host() && pair.ip_address.addr() == own
        };
        !self.checked || (family == Family::V6 && pairs.any(is_so))
    }

    /// The Ethernet addresses that it may send from.
    fn macs(&self) -> BTreeSet<Mac> {
        let pairs = self.pairs.iter().map(|pair| pair.mac_address);
        let all = pairs.filter(|_| self.checked).chain([self.mac]);
        all.filter(|mac| !tunnel::is_ours(*mac)).collect()
    }
}

/// Whether somebody may share addresses: a pair of one address, or no port security.
pub fn may_share(port_security_enabled: bool, pairs: &[AddressPair]) -> bool {
    !port_security_enabled || pairs.iter().any(|pair| pair.ip_address.is_host())
}

/// All that a network's namespace holds for it.
pub fn receivers(view: View<'_>) -> Vec<Object> {
    let Place::Network(id) = view.place else {
        return Vec::new();
    };
    let local = view.index.ports(&Name::Sharer);
    let local = local.filter_map(|port| view.plugged(port));
    let local: Vec<&Port> = local.filter(|port| view.is_up(port)).collect();
    if local.is_empty() {
        return Vec::new();
    }
    let remote = remote(view, id);
    let mut objects = Vec::new();
    let mut hosts = BTreeSet::new();
    for port in &local {
        let sender = Sharer::local(port);
        for family in Family::BOTH {
            if !admits(view, port, Direction::Egress, family, &BTreeSet::new()) {
                continue;
            }
            let mut to = here(view, &local, &sender, family);
            for host in there(&remote, &sender) {
                hosts.insert(host);
                to.extend(tunnel::device().map(|link| (link, Some(host.0))));
            }
            objects.extend(slots(&port.if_name(), &sender, family, to));
        }
    }
    objects.extend(
        hosts
            .into_iter()
            .filter_map(|(number, dst)| entry(number, dst)),
    );
    objects.extend(arrivals(view, &local, &remote));
    objects
}

/// Those on other hosts that are known, each with that host's number and endpoint.
fn remote(view: View<'_>, id: NetworkId) -> Vec<(Sharer<'_>, (u32, IpAddr))> {
    if !view.intent.hosts.contains_key(&view.config.host) {
        return Vec::new();
    }
    let ports = view.intent.remote_ports.values();
    let ports = ports.filter(|p| {
        p.network_id == id && may_share(p.port_security_enabled, &p.allowed_address_pairs)
    });
    let known = ports.filter_map(|port| {
        let host = view.intent.hosts.get(&port.host)?;
        Some((Sharer::remote(port), (host.number, host.address)))
    });
    known.collect()
}

/// Receivers on this host.
fn here(
    view: View<'_>,
    local: &[&Port],
    sender: &Sharer<'_>,
    family: Family,
) -> Vec<(IfName, Option<u32>)> {
    let all = local.iter().filter(|port| port.id != sender.id);
    let sharing = all.filter(|port| sender.shares(&Sharer::local(port)));
    let admitting =
        sharing.filter(|port| admits(view, port, Direction::Ingress, family, &sender.addresses));
    admitting.map(|port| (port.if_name(), None)).collect()
}

fn there(remote: &[(Sharer<'_>, (u32, IpAddr))], sender: &Sharer<'_>) -> BTreeSet<(u32, IpAddr)> {
    let sharing = remote.iter().filter(|(other, _)| sender.shares(other));
    sharing.map(|(_, host)| *host).collect()
}

/// What other hosts send here.
fn arrivals(
    view: View<'_>,
    local: &[&Port],
    remote: &[(Sharer<'_>, (u32, IpAddr))],
) -> Vec<Object> {
    let Some(device) = tunnel::device() else {
        return Vec::new();
    };
    let mut objects = Vec::new();
    for (sender, _) in remote {
        for family in Family::BOTH {
            let to = here(view, local, sender, family);
            objects.extend(slots(&device, sender, family, to));
        }
    }
    objects
}

fn slots(
    link: &IfName,
    sender: &Sharer<'_>,
    family: Family,
    to: Vec<(IfName, Option<u32>)>,
) -> Vec<Object> {
    let mut objects = Vec::new();
    for from in sender.macs() {
        for (slot, (to, host)) in (0..Receiver::MOST).zip(&to) {
            objects.push(Object::Receiver(Receiver {
                netns: Netns::Main,
                link: link.clone(),
                from,
                family,
                slot,
                to: to.clone(),
                host: *host,
                any_source: sender.speaks_freely(from, family),
            }));
        }
    }
    objects
}

/// How another host is known for copies.
fn entry(number: u32, dst: IpAddr) -> Option<Object> {
    let [_, a, b, c] = number.to_be_bytes();
    let entry = Fdb {
        netns: Netns::Main,
        link: tunnel::device()?,
        mac: Mac::new([0x0a, 0x68, 0x78, a, b, c]),
        dst,
    };
    Some(Object::Fdb(entry))
}

/// Whether a port's groups let it through; of egress for any other end, since that is a group of addresses.
fn admits(
    view: View<'_>,
    port: &Port,
    direction: Direction,
    family: Family,
    from: &BTreeSet<IpAddr>,
) -> bool {
    let groups = port.security_groups.iter();
    let groups = groups.filter_map(|id| view.intent.groups.get(id));
    let mut rules = groups.flat_map(|group| group.rules.values().map(move |rule| (group, rule)));
    let allows = |(group, rule): (&Group, &SecurityGroupRule)| {
        rule.direction == direction
            && rule.ethertype == family
            && rule.protocol.is_none_or(|protocol| protocol == VRRP)
            && is_from(view, (group, rule), direction, from)
    };
    !port.port_security_enabled || rules.any(allows)
}

fn is_from(
    view: View<'_>,
    (of, rule): (&Group, &SecurityGroupRule),
    direction: Direction,
    from: &BTreeSet<IpAddr>,
) -> bool {
    let group: IpAddr = match rule.ethertype {
        Family::V4 => [224, 0, 0, 18].into(),
        Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0x12].into(),
    };
    let within = |prefixes: &BTreeSet<Prefix>, addr| prefixes.iter().any(|p| p.contains(addr));
    match (direction, of.remote_prefixes(rule), rule.remote_group_id) {
        (_, None, None) => true,
        (Direction::Egress, Some(prefixes), _) => within(&prefixes, group),
        (Direction::Egress, None, Some(_)) => false,
        (Direction::Ingress, Some(prefixes), _) => from.iter().any(|a| within(&prefixes, *a)),
        (Direction::Ingress, None, Some(id)) => is_member(view, id, from),
    }
}

fn is_member(view: View<'_>, group: SecurityGroupId, from: &BTreeSet<IpAddr>) -> bool {
    let members = view.intent.members.get(&(group, view.place.domain()));
    members.is_some_and(|members| !members.is_disjoint(from))
}

/// Each object once, by its key: two parts of a namespace may ask for the same.
pub fn once(objects: &mut Vec<Object>) {
    let all: BTreeMap<_, _> = std::mem::take(objects)
        .into_iter()
        .map(|object| (object.key(), object))
        .collect();
    objects.extend(all.into_values());
}
