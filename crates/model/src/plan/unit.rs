//! The units that a host's state is made of.
//!
//! A unit is a pure function from the intent (with its index) and the configuration to objects. No two
//! units make an object with the same key, so the state is simply the union of all units, and a change
//! is dealt with by computing again the units that it touches.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_types::{Family, HostId, NetworkId, PortId, Prefix, SecurityGroupId, SubnetId};

use super::{
    HostConfig, address, base, expose, group,
    index::{Index, Name, Referrer, units_of_name},
    multicast, nat, physical, place,
    place::{Interfaces, Place},
    port,
    profile::{self, Profile},
    qos,
    router::{self, Routers},
    source, tunnel, underlay,
};
use crate::{
    intent::Intent,
    neutron::{ForwardedProtocol, Port, Subnet},
    state::{Announcement, Object, Responder},
};

/// A part of the state that is computed by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// What stands on every host.
    Host,
    /// What judges packets of ports; stands where there are any, as the following three.
    Judges,
    /// The chain that checks sources; depends on the lengths of wide address pairs.
    SourceCheck,
    /// What happens to packets of known connections; depends on whether there are stateless ports.
    Established,
    /// What is translated at all; depends on the translated subnets and on lengths of inside prefixes.
    Translation,
    /// The set of sources in prefixes of one length.
    WideSet(Family, u8),
    /// A port's interface.
    Port(PortId),
    /// Reachability of an address.
    Address(IpAddr),
    /// The chains of a list of groups.
    Profile(Profile),
    /// What limits packets of ports with QoS policies; depends on whether there are any, and on their marks.
    Limits,
    /// Where the number of a list of groups leads.
    Number(u32),
    /// A group's chains and sets.
    Group(SecurityGroupId),
    /// The sets of a remote group's members.
    MemberSets(SecurityGroupId),
    /// One member.
    Member(SecurityGroupId, IpAddr),
    /// A prefix of the cloud.
    Inside(Prefix),
    /// The set of inside prefixes of one length.
    InsideSet(u8),
    /// A translated subnet.
    Nat44(SubnetId),
    /// The VXLAN device of a private network, from whom tunnel packets are taken, and the chains that these pass like all
    /// others; depends on whether there are ports.
    Tunnel,
    /// Another host that has ports of it.
    Peer(HostId),
    /// An address of a port there.
    Remote(IpAddr),
    /// The ways to a private network's routers, and by way of its ports.
    Routers,
    /// Who of a private network hears what is sent to groups.
    Multicast,
    /// A router, in its place.
    Router,
    /// The router's way outside, in its place.
    Outside,
    /// An address that routers may answer for, in the main namespace.
    Public(IpAddr),
    /// What a network that the host is on by a link of its own needs there.
    Physical(NetworkId),
    /// What leads from ports of the host's own addresses to workloads; depends on whether any does.
    Exposing,
    /// Where one of them leads.
    Exposed(ForwardedProtocol, u16),
}

/// The ports of a place.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// Where.
    pub place: Place,
    /// The intent, of all places.
    pub intent: &'a Intent,
    /// The place's index of it.
    pub index: &'a Index,
    /// Whose the interfaces are.
    pub interfaces: &'a Interfaces,
}

impl<'a> Ports<'a> {
    /// The port, if its interface is its own.
    fn plugged(self, id: PortId) -> Option<&'a Port> {
        let port = self.intent.ports.get(&id)?;
        let owner = self.interfaces.owner(&port.if_name());
        let home = Place::of(self.intent.networks.get(&port.network_id));
        (owner == Some(id) && home == self.place).then_some(port)
    }

    /// Whether it and its network are administratively up.
    fn is_up(self, port: &Port) -> bool {
        let network = self.intent.networks.get(&port.network_id);
        port.admin_state_up && network.is_some_and(|n| n.admin_state_up)
    }

    /// The port that an address leads to: of those that have it and pass packets, the first. Else, of those that may
    /// use it besides, that which was the last to say that it has it; as long as none has, the first on a private
    /// network, if the address is on no other host. To a standby none does.
    pub fn with(self, addr: IpAddr) -> Option<&'a Port> {
        let passes = |id| self.plugged(id).filter(|port| self.passes(port));
        let mut own = self.index.ports(&Name::Address(addr));
        own.find_map(passes).or_else(|| self.using(addr))
    }

    fn passes(self, port: &Port) -> bool {
        self.is_up(port) && !self.intent.standbys.contains(&port.id)
    }

    fn using(self, addr: IpAddr) -> Option<&'a Port> {
        let passes = |id| self.plugged(id).filter(|port| self.passes(port));
        let mut paired = self.index.ports(&Name::Paired(addr)).filter_map(passes);
        let holder = |network| self.intent.holders.get(&(network, addr)).copied();
        match self.place {
            Place::Network(id) => {
                let remotes = self.intent.remotes.get(&id);
                let elsewhere = remotes.is_some_and(|all| all.contains_key(&addr));
                let holding = holder(id).and_then(passes).filter(|p| p.may_use(addr));
                let here = holding.or_else(|| paired.next());
                here.filter(|_| !elsewhere)
            }
            Place::Main => paired.find(|port| holder(port.network_id) == Some(port.id)),
            Place::Router(_) => None,
        }
    }
}

/// What units are computed from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The host's own configuration.
    pub config: &'a HostConfig,
    /// Where on the host.
    pub place: Place,
    /// The intent, of all places.
    pub intent: &'a Intent,
    /// The place's index of it.
    pub index: &'a Index,
    /// Whose the interfaces are.
    pub interfaces: &'a Interfaces,
    /// Where the routers are.
    pub routers: &'a Routers,
}

/// What a unit makes.
#[derive(Debug, Default)]
pub struct Output {
    /// Kernel objects, as if the place were the main namespace.
    pub objects: Vec<Object>,
    /// What joins the place with the main namespace; each says where it is.
    pub joints: Vec<Object>,
    /// Announced prefixes.
    pub announce: Vec<(Prefix, Announcement)>,
    /// Responders.
    pub responders: Vec<(PortId, Responder)>,
}

impl From<Vec<Object>> for Output {
    fn from(objects: Vec<Object>) -> Self {
        Output {
            objects,
            ..Output::default()
        }
    }
}

impl Unit {
    /// What stands in such a place, whatever the intent is.
    pub const fn always(place: Place) -> &'static [Unit] {
        match place {
            Place::Router(_) => &[Unit::Router, Unit::Outside],
            Place::Main | Place::Network(_) => &[
                Unit::Host,
                Unit::Limits,
                Unit::Tunnel,
                Unit::Routers,
                Unit::Multicast,
            ],
        }
    }

    /// What it makes of that, where it has to be; nothing where it does not stand.
    pub fn compute(&self, view: View<'_>) -> Output {
        let mut output = self.plan(view);
        place::put_into(&mut output.objects, view.place);
        output.objects.append(&mut output.joints);
        output
    }

    fn plan(&self, view: View<'_>) -> Output {
        match self {
            Unit::Host => base::host(view),
            Unit::Judges | Unit::SourceCheck | Unit::Established | Unit::Translation
                if !view.has_ports() =>
            {
                Output::default()
            }
            Unit::Judges => base::judges(view.config).into(),
            Unit::SourceCheck => source::check(view).into(),
            Unit::Established => base::established(view).into(),
            Unit::Limits => qos::limits(view).into(),
            Unit::Translation => nat::translation(view).into(),
            Unit::WideSet(family, len) => source::wide_set(view, *family, *len).into(),
            Unit::Port(id) => port::port(view, *id),
            Unit::Address(addr) => {
                let mut output = address::address(view, *addr);
                output.objects.extend(underlay::local(view, *addr));
                output
            }
            Unit::Profile(profile) => profile::chains(view, profile).into(),
            Unit::Number(number) => profile::number(view, *number).into(),
            Unit::Group(id) => group::group(view, *id).into(),
            Unit::MemberSets(id) => group::member_sets(view, *id).into(),
            Unit::Member(id, addr) => group::member(view, *id, *addr).into(),
            Unit::Inside(prefix) => address::inside(view, *prefix).into(),
            Unit::InsideSet(len) => nat::inside_set(view, *len).into(),
            Unit::Nat44(id) => nat::subnet(view, *id).into(),
            Unit::Tunnel => {
                let mut objects = tunnel::tunnel(view);
                objects.extend(underlay::underlay(view));
                objects.extend(base::gates(view));
                objects.into()
            }
            Unit::Peer(host) => tunnel::peer(view, host).into(),
            Unit::Remote(addr) => tunnel::remote(view, *addr).into(),
            Unit::Routers => {
                let mut output = router::network::network(view);
                output.objects.extend(router::outside::guard(view));
                output
            }
            Unit::Multicast => multicast::multicast(view).into(),
            Unit::Router => router::router(view),
            Unit::Outside => router::outside::outside(view),
            Unit::Public(addr) => router::outside::public(view, *addr),
            Unit::Physical(id) => physical::network(view, *id).into(),
            Unit::Exposing => expose::chain(view).into(),
            Unit::Exposed(protocol, port) => expose::port(view, *protocol, *port).into(),
        }
    }
}

impl<'a> View<'a> {
    /// Every unit that stands.
    pub fn all_units(self) -> Vec<Unit> {
        let mut units = Unit::always(self.place).to_vec();
        units.extend(self.index.names().flat_map(units_of_name));
        let referrers = self
            .index
            .names()
            .flat_map(|name| self.index.referrers(name));
        units.extend(referrers.filter_map(|who| match who {
            Referrer::Port(id) => Some(Unit::Port(id)),
            Referrer::Subnet(id) | Referrer::Sources(id) => Some(Unit::Nat44(id)),
            Referrer::Remote(addr) => Some(Unit::Remote(addr)),
            Referrer::Group(_) | Referrer::RemotePort(_) => None,
        }));
        for name in self.index.names() {
            if let Name::Members(id) = name {
                let members = self.intent.members.get(&(*id, self.place.domain()));
                let members = members.into_iter().flatten();
                units.extend(members.map(|addr| Unit::Member(*id, *addr)));
            }
        }
        let held = self.intent.holders.keys();
        let held = held.filter(|(network, _)| self.is_home_of(*network));
        units.extend(held.map(|(_, addr)| Unit::Address(*addr)));
        if self.place == Place::Main {
            let public = self.routers.claims().addresses();
            units.extend(public.map(Unit::Public));
        }
        units.sort_unstable();
        units.dedup();
        units
    }

    /// The place's subnets.
    pub fn subnets(self) -> impl Iterator<Item = &'a Subnet> {
        let named = self.index.names().filter_map(|name| match name {
            Name::Inside(_) => Some(self.index.referrers(name)),
            _ => None,
        });
        let ids: BTreeSet<SubnetId> = named
            .flatten()
            .filter_map(|who| match who {
                Referrer::Subnet(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.into_iter().filter_map(move |id| self.subnet(id))
    }

    /// Whether any port is in the place.
    pub fn has_ports(self) -> bool {
        self.index.is_named(&Name::Workload)
    }

    /// The port, if its interface is its own.
    pub fn plugged(self, id: PortId) -> Option<&'a Port> {
        self.ports().plugged(id)
    }

    fn ports(self) -> Ports<'a> {
        Ports {
            place: self.place,
            intent: self.intent,
            index: self.index,
            interfaces: self.interfaces,
        }
    }

    /// A subnet of the place.
    pub fn subnet(self, id: SubnetId) -> Option<&'a Subnet> {
        let subnet = self.intent.subnets.get(&id)?;
        self.is_home_of(subnet.network_id).then_some(subnet)
    }

    /// Whether a network's ports live in this place.
    fn is_home_of(self, network: NetworkId) -> bool {
        Place::of(self.intent.networks.get(&network)) == self.place
    }

    /// Whether it and its network are administratively up.
    pub fn is_up(self, port: &Port) -> bool {
        self.ports().is_up(port)
    }

    /// The port that an address leads to: of those that have it and pass packets, the first.
    pub fn port_with(self, addr: IpAddr) -> Option<&'a Port> {
        self.ports().with(addr)
    }

    /// Whether the address is one of this host's NAT44 sources.
    pub fn is_nat_source(self, addr: IpAddr) -> bool {
        let mut holders = self.index.referrers(&Name::Address(addr));
        holders.any(|who| matches!(who, Referrer::Sources(_)))
    }
}
