//! Who names what: the dependencies between an intent's parts, and with them what a change touches.
//!
//! Every port, group, subnet and set of sources *names* things: a port its network, addresses and groups,
//! a group the remote groups of its rules, and so on. The index holds each name with all who say it. A
//! unit that stands as long as anybody names it is touched only by the first and the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hextet_types::{Family, HostId, NetworkId, PortId, Prefix, SecurityGroupId, SubnetId};

use super::{place::Place, profile::Profile, qos::Limited, unit::Unit, vrrp};
use crate::{
    intent::{Group, Intent, RemotePort},
    neutron::{ForwardedProtocol, Port, Subnet},
};

/// Ports with this owner are the host's own NAT44 sources: no interface belongs to them.
const NAT44_OWNER: &str = "network:nat44";

/// Who names something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Referrer {
    /// A port.
    Port(PortId),
    /// A security group.
    Group(SecurityGroupId),
    /// A subnet.
    Subnet(SubnetId),
    /// A subnet's NAT44 sources on this host.
    Sources(SubnetId),
    /// An address of a private network on another host.
    Remote(IpAddr),
    /// A port of a private network on another host.
    RemotePort(PortId),
}

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// By its ports and subnets.
    Network(NetworkId),
    /// By ports; there is only one such name.
    Workload,
    /// By ports with an address or a prefix of it.
    Subnet(SubnetId),
    /// By ports that have it.
    Group(SecurityGroupId),
    /// By ports that have exactly these groups.
    Profile(Profile),
    /// By ports that have it as their own, and by NAT44 sources.
    Address(IpAddr),
    /// By ports that may use it besides: an address pair of one address.
    Paired(IpAddr),
    /// By ports with an address pair of that length, shorter than a whole address.
    WidePair(Family, u8),
    /// By groups with a rule for its members.
    Members(SecurityGroupId),
    /// By subnets of that prefix.
    Inside(Prefix),
    /// By IPv4 subnets of that length.
    InsideLen(u8),
    /// By addresses of a private network that are there.
    Peer(HostId),
    /// By ports, here or elsewhere, that may carry packets of others; there is only one such name.
    Carrier,
    /// By ports, here or elsewhere, that may share addresses; there is only one such name.
    Sharer,
    /// By subnets that are translated; there is only one such name.
    Translation,
    /// By ports that have any of the host's own; there is only one such name.
    Exposing,
    /// By ports that have that one of the host's own.
    Exposed(ForwardedProtocol, u16),
}

/// Every name, with all who say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    names: BTreeMap<Name, BTreeSet<Referrer>>,
    /// What each group says; never an empty set.
    said: BTreeMap<SecurityGroupId, BTreeSet<Name>>,
    /// The profiles that have a number; never an empty set.
    numbers: BTreeMap<u32, BTreeSet<Profile>>,
    /// Ports all of whose groups are stateless; kept by [`Index::settle`].
    stateless: BTreeSet<PortId>,
    /// Ports with QoS policies; kept by [`Index::settle`].
    limited: Limited,
}

/// Whether a workload is behind the port.
pub fn has_interface(port: &Port) -> bool {
    port.device_owner != NAT44_OWNER
}

/// What a port names.
pub fn names_of_port(port: &Port) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    if !has_interface(port) {
        return names;
    }
    names.extend([Name::Workload, Name::Network(port.network_id)]);
    for fixed in &port.fixed_ips {
        names.insert(Name::Subnet(fixed.subnet_id));
        names.insert(Name::Address(fixed.ip_address));
    }
    let delegated = port.delegated_prefixes.iter();
    names.extend(delegated.map(|d| Name::Subnet(d.subnet_id)));
    if !port.exposed.is_empty() {
        let exposed = port.exposed.iter();
        let exposed = exposed.map(|e| Name::Exposed(e.protocol, e.external_port));
        names.extend(exposed.chain([Name::Exposing]));
    }
    if port.may_carry() {
        names.insert(Name::Carrier);
    }
    if vrrp::may_share(port.port_security_enabled, &port.allowed_address_pairs) {
        names.insert(Name::Sharer);
    }
    if port.port_security_enabled {
        names.extend(port.security_groups.iter().copied().map(Name::Group));
        names.insert(Name::Profile(Profile::of(port)));
        let pairs = port.pairs().map(|p| p.ip_address);
        names.extend(pairs.map(|prefix| match prefix.is_host() {
            true => Name::Paired(prefix.addr()),
            false => Name::WidePair(prefix.family(), prefix.len()),
        }));
    }
    names
}

/// What a port on another host names.
pub fn names_of_remote_port(port: &RemotePort) -> BTreeSet<Name> {
    let carrier = port.may_carry().then_some(Name::Carrier);
    let shares = vrrp::may_share(port.port_security_enabled, &port.allowed_address_pairs);
    let sharer = shares.then_some(Name::Sharer);
    carrier.into_iter().chain(sharer).collect()
}

/// What a group names.
pub fn names_of_group(group: &Group) -> BTreeSet<Name> {
    let remotes = group.rules.values().filter_map(|rule| rule.remote_group_id);
    remotes.map(Name::Members).collect()
}

/// What a subnet names.
pub fn names_of_subnet(subnet: &Subnet) -> BTreeSet<Name> {
    let mut names = BTreeSet::from([Name::Network(subnet.network_id), Name::Inside(subnet.cidr)]);
    if subnet.family() == Family::V4 {
        names.insert(Name::InsideLen(subnet.cidr.len()));
        if subnet.nat44.is_some() {
            names.insert(Name::Translation);
        }
    }
    names
}

/// What a subnet's sources name.
pub fn names_of_sources(sources: &BTreeSet<IpAddr>) -> BTreeSet<Name> {
    let v4 = sources.iter().copied().filter(IpAddr::is_ipv4);
    v4.map(Name::Address).collect()
}

impl Index {
    /// The index of a place in a whole intent.
    pub fn of(intent: &Intent, place: Place) -> Index {
        let mut index = Index::default();
        let none = BTreeSet::new();
        let mut touched = BTreeSet::new();
        let mut add = |who, names: BTreeSet<Name>| index.rename(who, &none, &names, &mut touched);
        let is_here = |network| Place::of(intent.networks.get(network)) == place;
        let ports = || intent.ports.values().filter(|p| is_here(&p.network_id));
        for port in ports() {
            add(Referrer::Port(port.id), names_of_port(port));
        }
        for subnet in intent.subnets.values() {
            if is_here(&subnet.network_id) {
                add(Referrer::Subnet(subnet.id), names_of_subnet(subnet));
            }
        }
        if let Place::Network(id) = place {
            for (addr, host) in intent.remotes.get(&id).into_iter().flatten() {
                let names = [Name::Peer(host.clone())].into();
                add(Referrer::Remote(*addr), names);
            }
            let remote_ports = intent.remote_ports.values();
            for port in remote_ports.filter(|p| p.network_id == id) {
                add(Referrer::RemotePort(port.id), names_of_remote_port(port));
            }
        }
        if place == Place::Main {
            for (id, sources) in &intent.nat44_sources {
                add(Referrer::Sources(*id), names_of_sources(sources));
            }
        }
        index.stateless = ports()
            .filter(|p| is_stateless(intent, p))
            .map(|p| p.id)
            .collect();
        for port in ports() {
            index.limited.set(intent, port.id, Some(port));
        }
        for (id, group) in &intent.groups {
            index.say_group(*id, Some(group), &mut touched);
        }
        index
    }

    /// `who` no longer says the `old` names but the `new` ones; adds the units that this touches.
    pub fn rename(
        &mut self,
        who: Referrer,
        old: &BTreeSet<Name>,
        new: &BTreeSet<Name>,
        touched: &mut BTreeSet<Unit>,
    ) {
        for name in old.difference(new) {
            let Some(referrers) = self.names.get_mut(name) else {
                continue;
            };
            referrers.remove(&who);
            let last = referrers.is_empty();
            if last {
                self.names.remove(name);
            }
            self.touch(name, last, touched);
        }
        for name in new.difference(old) {
            let referrers = self.names.entry(name.clone()).or_default();
            let first = referrers.is_empty();
            referrers.insert(who);
            self.touch(name, first, touched);
        }
    }

    /// A name is said by one more or fewer; `edge` when that was the first or last.
    fn touch(&mut self, name: &Name, edge: bool, touched: &mut BTreeSet<Unit>) {
        if let Name::Profile(profile) = name {
            let number = profile.number();
            if edge {
                self.count(number, profile);
            }
            if edge || self.is_shared(number) {
                touched.insert(Unit::Number(number));
            }
        }
        match name {
            Name::Address(addr) | Name::Paired(addr) => drop(touched.insert(Unit::Address(*addr))),
            Name::Translation => drop(touched.insert(Unit::Translation)),
            Name::Exposed(protocol, port) => {
                touched.insert(Unit::Exposed(*protocol, *port));
            }
            Name::Carrier | Name::Sharer => drop(touched.insert(Unit::Routers)),
            _ if edge => touched.extend(units_of_name(name)),
            _ => {}
        }
    }

    /// A profile has come or gone.
    fn count(&mut self, number: u32, profile: &Profile) {
        let there = self.is_named(&Name::Profile(profile.clone()));
        let with = self.numbers.entry(number).or_default();
        match there {
            true => with.insert(profile.clone()),
            false => with.remove(profile),
        };
        if with.is_empty() {
            self.numbers.remove(&number);
        }
    }

    /// The profiles that have that number.
    pub fn profiles_with(&self, number: u32) -> impl Iterator<Item = &Profile> {
        self.numbers.get(&number).into_iter().flatten()
    }

    /// Whether several profiles have that number.
    pub fn is_shared(&self, number: u32) -> bool {
        self.profiles_with(number).nth(1).is_some()
    }

    /// Those ports among `touched` may have become stateless, or no longer be.
    pub fn settle(&mut self, intent: &Intent, place: Place, touched: &mut BTreeSet<Unit>) {
        let is_here = |port: &Port| Place::of(intent.networks.get(&port.network_id)) == place;
        let before = self.stateless.is_empty();
        let limits = self.limited.kinds();
        for unit in touched.iter() {
            if let Unit::Port(id) = unit {
                let here = intent.ports.get(id).filter(|port| is_here(port));
                self.limited.set(intent, *id, here);
                match intent.ports.get(id) {
                    Some(port) if is_here(port) && is_stateless(intent, port) => {
                        self.stateless.insert(*id)
                    }
                    _ => self.stateless.remove(id),
                };
            }
        }
        if self.stateless.is_empty() != before {
            touched.insert(Unit::Established);
        }
        if self.limited.kinds() != limits {
            touched.insert(Unit::Limits);
        }
    }

    /// Ports with QoS policies.
    pub fn limited(&self) -> &Limited {
        &self.limited
    }

    /// Whether all groups of that port are stateless.
    pub fn is_stateless(&self, port: PortId) -> bool {
        self.stateless.contains(&port)
    }

    /// Whether any port is stateless.
    pub fn any_stateless(&self) -> bool {
        !self.stateless.is_empty()
    }

    /// A group names what it does as long as ports name it here.
    pub fn say_group(
        &mut self,
        id: SecurityGroupId,
        group: Option<&Group>,
        touched: &mut BTreeSet<Unit>,
    ) {
        let group = group.filter(|_| self.is_named(&Name::Group(id)));
        let new = group.map_or_else(BTreeSet::new, names_of_group);
        let old = self.said.remove(&id).unwrap_or_default();
        self.rename(Referrer::Group(id), &old, &new, touched);
        if !new.is_empty() {
            self.said.insert(id, new);
        }
    }

    /// Whether anybody says that name.
    pub fn is_named(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// All who say that name, in order.
    pub fn referrers(&self, name: &Name) -> impl Iterator<Item = Referrer> + '_ {
        self.names.get(name).into_iter().flatten().copied()
    }

    /// The ports that say that name, in order.
    pub fn ports(&self, name: &Name) -> impl Iterator<Item = PortId> + '_ {
        self.referrers(name).filter_map(|who| match who {
            Referrer::Port(id) => Some(id),
            _ => None,
        })
    }

    /// The subnets of that network, in order.
    pub fn subnets(&self, network: NetworkId) -> impl Iterator<Item = SubnetId> + '_ {
        let first = Referrer::Subnet(SubnetId(Default::default()));
        let named = self.names.get(&Name::Network(network)).into_iter();
        let from_first = named.flat_map(move |all| all.range(first..));
        from_first.map_while(|who| match who {
            Referrer::Subnet(id) => Some(*id),
            _ => None,
        })
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }
}

/// The units that stand as long as anybody says that name.
pub fn units_of_name(name: &Name) -> Vec<Unit> {
    match name {
        Name::Subnet(_) | Name::Carrier | Name::Sharer => Vec::new(),
        Name::Network(id) => vec![Unit::Physical(*id)],
        Name::Workload => vec![
            Unit::Judges,
            Unit::SourceCheck,
            Unit::Established,
            Unit::Translation,
            Unit::Tunnel,
        ],
        Name::Group(id) => vec![Unit::Group(*id)],
        Name::Profile(profile) => vec![
            Unit::Profile(profile.clone()),
            Unit::Number(profile.number()),
        ],
        Name::Address(addr) | Name::Paired(addr) => vec![Unit::Address(*addr)],
        Name::WidePair(family, len) => vec![Unit::WideSet(*family, *len), Unit::SourceCheck],
        Name::Members(id) => vec![Unit::MemberSets(*id)],
        Name::Inside(prefix) => vec![Unit::Inside(*prefix)],
        Name::InsideLen(len) => vec![Unit::InsideSet(*len), Unit::Translation],
        Name::Peer(host) => vec![Unit::Peer(host.clone())],
        Name::Translation => vec![Unit::Translation],
        Name::Exposing => vec![Unit::Exposing, Unit::Translation],
        Name::Exposed(protocol, port) => vec![Unit::Exposed(*protocol, *port)],
    }
}

/// A port without groups is not stateless; a group that is not known yet counts as stateful.
fn is_stateless(intent: &Intent, port: &Port) -> bool {
    let stateless = |id| intent.groups.get(id).is_some_and(|g| !g.group.stateful);
    has_interface(port)
        && port.port_security_enabled
        && !port.security_groups.is_empty()
        && port.security_groups.iter().all(stateless)
}
