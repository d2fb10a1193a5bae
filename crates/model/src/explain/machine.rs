//! A host's namespace with a given state, as the way of one packet through it.
//!
//! A port of a private network has its link in the main namespace, and everything else in the network's.

mod route;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::{Family, IfName, Prefix};

use super::{
    packet::{Flight, Packet, Payload},
    step::{Outcome, Reason, Step},
    table::Table,
    track::{Passage, Tracked},
};
use crate::{
    plan::{HostConfig, base::GATEWAY_V6, nft::DSTNAT, outer_end_of, outside_link, rules::icmp_of},
    state::{
        CtState, Fdb, Hook, HostState, Key, Link, Neighbour, Netns, NextHop, Object, PktType,
        RouteKey, RouteKind, Veth, Vxlan, marks,
    },
};

const MAIN_TABLE: u32 = 254;
/// Sorts before all names of links.
const LOWEST_NAME: &str = "!";
const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A host's namespace with a state. Making one costs what the number of its objects costs, unless its ways are
/// known; a packet does not.
pub struct Machine<'a> {
    state: &'a HostState,
    netns: &'a Netns,
    config: &'a HostConfig,
    table: Table<'a>,
    ways: Cow<'a, Ways>,
    chosen: u32,
}

/// The routes and addresses of a namespace, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Lengths of the prefixes that there are routes for, longest first.
    lengths: Vec<(Family, u8)>,
    locals: BTreeSet<IpAddr>,
}

impl Ways {
    /// Those of a namespace. Costs what the number of its objects costs.
    pub fn of(state: &HostState, netns: &Netns) -> Ways {
        let mut lengths = BTreeSet::new();
        let mut locals = BTreeSet::new();
        let first = Key::Route(RouteKey {
            netns: netns.clone(),
            table: 0,
            prefix: Prefix::host(UNSPECIFIED),
            source: None,
            metric: 0,
        });
        for key in state.objects.range(first..).map(|(key, _)| key) {
            match key {
                Key::Route(route) if route.netns == *netns => {
                    if route.table == MAIN_TABLE {
                        lengths.insert((route.prefix.family(), route.prefix.len()));
                    }
                }
                _ => break,
            }
        }
        let names = LOWEST_NAME.parse().into_iter();
        let first = names.map(|name| Key::Address(netns.clone(), name, UNSPECIFIED, 0));
        for key in first.flat_map(|first| state.objects.range(first..).map(|(key, _)| key)) {
            match key {
                Key::Address(of, _, addr, _) if of == netns => drop(locals.insert(*addr)),
                _ => break,
            }
        }
        if *netns == Netns::Main {
            locals.extend(endpoints(state));
        }
        Ways {
            lengths: lengths.into_iter().rev().collect(),
            locals,
        }
    }

    /// Whether they may be others once an object of that key comes or goes.
    pub fn depend_on(key: &Key) -> bool {
        matches!(key, Key::Route(_) | Key::Address(..) | Key::Vxlan(..))
    }
}

/// Where the host sends tunnel packets from, and gets them: its own addresses, though somebody else's to set up.
fn endpoints(state: &HostState) -> impl Iterator<Item = IpAddr> + '_ {
    let first = LOWEST_NAME.parse().into_iter();
    let first = first.map(|name| Key::Vxlan(Netns::Main, name));
    let devices = first.flat_map(|first| state.objects.range(first..));
    devices.map_while(|(_, object)| match object {
        Object::Vxlan(device) => Some(device.local),
        _ => None,
    })
}

/// Where routing sends a packet.
enum Way {
    Local,
    Link(IfName),
    Uplink(Option<IfName>),
    /// By this VXLAN device to this host.
    Tunnel(IfName, IpAddr),
}

impl<'a> Machine<'a> {
    /// The main namespace of a host with that state.
    pub fn new(state: &'a HostState, config: &'a HostConfig) -> Self {
        Machine::within(&Netns::Main, state, config)
    }

    /// A namespace of a host with that state. The configuration is as it holds there.
    pub fn within(netns: &'a Netns, state: &'a HostState, config: &'a HostConfig) -> Self {
        let ways = Cow::Owned(Ways::of(state, netns));
        Machine::of(netns, state, config, ways)
    }

    /// A namespace of a host with that state, whose ways these are.
    pub fn with(
        netns: &'a Netns,
        state: &'a HostState,
        config: &'a HostConfig,
        ways: &'a Ways,
    ) -> Self {
        Machine::of(netns, state, config, Cow::Borrowed(ways))
    }

    fn of(
        netns: &'a Netns,
        state: &'a HostState,
        config: &'a HostConfig,
        ways: Cow<'a, Ways>,
    ) -> Self {
        Machine {
            state,
            netns,
            config,
            table: Table::new(state, netns),
            ways,
            chosen: 0,
        }
    }

    /// The same for packets that ports' programs give this mark besides.
    #[must_use]
    pub(super) fn choosing(self, chosen: u32) -> Self {
        Machine { chosen, ..self }
    }

    /// What becomes of the packet; the steps are added where they are wanted.
    pub fn send(&self, packet: &Packet, mut steps: Option<&mut Vec<Step>>) -> Outcome {
        if let Some(steps) = steps.as_deref_mut() {
            steps.push(Step::Arrives(packet.link.clone()));
            if let Netns::Named(name) = self.netns {
                steps.push(Step::Enters(name.clone()));
            }
        }
        self.pass(packet, &Tracked::as_said(packet), steps).outcome
    }

    /// The same without a word on how it comes in.
    pub(super) fn pass(
        &self,
        packet: &Packet,
        tracked: &Tracked,
        steps: Option<&mut Vec<Step>>,
    ) -> Passage {
        let mut flight = Flight::tracked(packet, tracked.clone());
        let outcome = match self.travel(&mut flight, steps) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Dropped(reason),
        };
        let (untracked, neighbour) = (flight.untracked, flight.neighbour);
        Passage {
            outcome,
            packet: flight.into_packet(),
            untracked,
            neighbour,
        }
    }

    /// What the host itself sends.
    pub fn send_from_host(&self, packet: &Packet, steps: Option<&mut Vec<Step>>) -> Outcome {
        let mut flight = Flight::new(packet);
        match self.leave(&mut flight, steps) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Dropped(reason),
        }
    }

    fn travel(
        &self,
        flight: &mut Flight<'_>,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<Outcome, Reason> {
        if self.enter(flight)? {
            return Ok(Outcome::Host);
        }
        // Raw rules see it as it came, all others as its connection has it.
        let [raw, rest]: [fn(i32) -> bool; 2] = [|p| p < DSTNAT, |p| p >= DSTNAT];
        let hook = Hook::Prerouting;
        self.table
            .pass_some((hook, raw), flight, steps.as_deref_mut())?;
        flight.undo_destination();
        self.table
            .pass_some((hook, rest), flight, steps.as_deref_mut())?;
        let way = self.route(flight, steps.as_deref_mut())?;
        if matches!(way, Way::Local) {
            self.table.pass(Hook::Input, flight, steps)?;
            return match self.discarded(flight) {
                true => Err(Reason::NotAdmitted),
                false => Ok(Outcome::Host),
            };
        }
        if flight.pkt_type != PktType::Host {
            return Err(Reason::Unchecked);
        }
        self.goes(flight, &way);
        self.table
            .pass(Hook::Forward, flight, steps.as_deref_mut())?;
        self.table
            .pass(Hook::Postrouting, flight, steps.as_deref_mut())?;
        flight.undo_source();
        self.exit(flight, way, steps)
    }

    fn leave(
        &self,
        flight: &mut Flight<'_>,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<Outcome, Reason> {
        let way = self.route(flight, steps.as_deref_mut())?;
        if matches!(way, Way::Local) {
            return Ok(Outcome::Host);
        }
        self.goes(flight, &way);
        self.table
            .pass(Hook::Output, flight, steps.as_deref_mut())?;
        self.table
            .pass(Hook::Postrouting, flight, steps.as_deref_mut())?;
        self.exit(flight, way, steps)
    }

    /// A port's link has to be up. Its program answers pings of the gateway (then true), and marks what
    /// it lets in.
    fn enter(&self, flight: &mut Flight<'_>) -> Result<bool, Reason> {
        let Some(link) = &flight.packet.link else {
            return Ok(false);
        };
        self.link_is_up(link)?;
        flight.groups[0] = self.group(link);
        flight.mark = self.chosen;
        if self.has_program(link) {
            if pings_gateway(&flight.packet) {
                return Ok(true);
            }
            if let Some(reason) = stays_at_the_edge(&flight.packet) {
                return Err(reason);
            }
            flight.mark = self.marks(link, &flight.packet) | self.chosen;
            flight.pkt_type = PktType::Multicast;
        }
        Ok(false)
    }

    /// What the port's program says of a packet.
    fn marks(&self, link: &IfName, packet: &Packet) -> u32 {
        let may_use = |addr| {
            packet.mac.is_some_and(|mac| {
                let key = Key::Source(self.netns.clone(), link.clone(), mac, addr);
                self.state.objects.contains_key(&key)
            })
        };
        let mut marks = marks::FROM_PORT;
        if may_use(packet.source) {
            marks |= marks::SOURCE_CHECKED;
        }
        let ends = packet.quoted.or(packet.flow);
        let ends = ends.unwrap_or([packet.source, packet.destination]);
        let icmp = Family::BOTH.map(|family| icmp_of(family).0);
        let icmp = icmp.contains(&packet.protocol());
        if icmp && packet.connection == CtState::Related && ends.into_iter().any(may_use) {
            marks |= marks::OWN_REPORT;
        }
        marks
    }

    fn exit(
        &self,
        flight: &Flight<'_>,
        way: Way,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Outcome, Reason> {
        match way {
            Way::Link(link) => {
                self.link_is_up(&link)?;
                if self.has_program(&link) && flight.mark & marks::ADMITTED == 0 {
                    return Err(Reason::NotAdmitted);
                }
                Ok(Outcome::Delivered { link })
            }
            Way::Uplink(link) => Ok(Outcome::Leaves {
                link,
                translated: flight.translated,
            }),
            Way::Tunnel(link, via) => {
                let (vni, to) = self.tunnel(&link, via).ok_or(Reason::NoRoute)?;
                if let Some(steps) = steps {
                    let host = None;
                    steps.push(Step::Tunnels { vni, to, host });
                }
                Ok(Outcome::Leaves {
                    link: Some(link),
                    translated: flight.translated,
                })
            }
            Way::Local => Ok(Outcome::Host),
        }
    }

    /// The network's number on the wire, and the host that a VXLAN device sends to for that next hop.
    fn tunnel(&self, link: &IfName, via: IpAddr) -> Option<(u32, IpAddr)> {
        let object = |key| self.state.objects.get(&key);
        let netns = || self.netns.clone();
        let Object::Vxlan(Vxlan { vni, .. }) = object(Key::Vxlan(netns(), link.clone()))? else {
            return None;
        };
        let neighbour = object(Key::Neighbour(netns(), link.clone(), via))?;
        let Object::Neighbour(Neighbour { mac, .. }) = neighbour else {
            return None;
        };
        match object(Key::Fdb(netns(), link.clone(), *mac))? {
            Object::Fdb(Fdb { dst, .. }) => Some((*vni, *dst)),
            _ => None,
        }
    }

    fn is_tunnel(&self, link: &IfName) -> bool {
        let key = Key::Vxlan(self.netns.clone(), link.clone());
        *self.netns != Netns::Main && self.state.objects.contains_key(&key)
    }

    fn goes(&self, flight: &mut Flight<'_>, way: &Way) {
        flight.oif = way.link();
        flight.groups[1] = flight.oif.as_ref().and_then(|link| self.group(link));
    }

    /// A port's link is in the main namespace, wherever the port is.
    fn link(&self, name: &IfName) -> Option<&'a Link> {
        match self
            .state
            .objects
            .get(&Key::Link(Netns::Main, name.clone()))?
        {
            Object::Link(link) => Some(link),
            _ => None,
        }
    }

    /// A private port's interface is the other end of a pair.
    fn group(&self, link: &IfName) -> Option<u32> {
        if *self.netns == Netns::Main {
            return match self.link(link) {
                Some(link) => Some(link.group),
                None => pair_into_main(self.state, link).map(|veth| veth.peer_group),
            };
        }
        let key = Key::Veth(Netns::Main, outer_end_of(link)?);
        match self.state.objects.get(&key)? {
            Object::Veth(veth) => Some(veth.peer_group),
            _ => None,
        }
    }

    fn link_is_up(&self, link: &IfName) -> Result<(), Reason> {
        match self.link(link) {
            Some(link) if !link.up => Err(Reason::LinkDown),
            _ => Ok(()),
        }
    }

    /// Whether a port's program judges what passes the link. On tunnels and on the way to routers it does not.
    fn has_program(&self, link: &IfName) -> bool {
        let (netns, link) = (self.netns.clone(), link.clone());
        let leads_on = [
            Key::Vxlan(netns.clone(), link.clone()),
            Key::Veth(netns.clone(), link.clone()),
        ];
        let has = |key: &Key| self.state.objects.contains_key(key);
        has(&Key::EdgeProgram(netns, link)) && !leads_on.iter().any(has)
    }

    fn route(&self, flight: &mut Flight<'_>, steps: Option<&mut Vec<Step>>) -> Result<Way, Reason> {
        let destination = flight.packet.destination;
        if is_link_local(destination) {
            return Err(Reason::NoRoute);
        }
        if self.ways.locals.contains(&destination) || is_for_many(destination) {
            return Ok(Way::Local);
        }
        let found = self
            .route_by_rules(flight)
            .or_else(|| self.best_route(&flight.packet))
            .filter(|(_, kind)| **kind != RouteKind::Throw);
        let hop = match found {
            Some((_, RouteKind::Unicast(hops))) => hops.first(),
            _ => None,
        };
        let link = match found {
            Some(_) => hop.map(|hop: &NextHop| hop.link.clone()),
            None => self.config.all_uplinks().first().copied().cloned(),
        };
        flight.neighbour = hop.map(|hop| hop.via.unwrap_or(destination));
        if let Some(steps) = steps {
            steps.push(Step::Route {
                prefix: found.map(|(prefix, _)| prefix),
                link: link.clone(),
            });
        }
        match (found, link) {
            (Some((_, RouteKind::Blackhole)), _) => Err(Reason::Blackhole),
            (None, None) if *self.netns != Netns::Main => Err(Reason::NoRoute),
            (Some(_), Some(link)) if self.is_tunnel(&link) => match hop.and_then(|hop| hop.via) {
                Some(via) => Ok(Way::Tunnel(link, via)),
                None => Err(Reason::NoRoute),
            },
            (Some(_), Some(link)) if !self.config.all_uplinks().contains(&link) => {
                Ok(Way::Link(link))
            }
            (Some(_), None) => Err(Reason::NoRoute),
            (_, link) => Ok(Way::Uplink(link)),
        }
    }

    /// Whether an XFRM policy stops what comes to the host itself.
    fn discarded(&self, flight: &Flight<'_>) -> bool {
        let family = flight.packet.family();
        let from = Key::XfrmPolicy(self.netns.clone(), family, (0, 0));
        let to = Key::XfrmPolicy(self.netns.clone(), family, (u32::MAX, u32::MAX));
        self.state.objects.range(from..=to).any(|(key, _)| {
            matches!(key, Key::XfrmPolicy(_, _, (value, mask)) if flight.mark & mask == *value)
        })
    }
}

impl Way {
    fn link(&self) -> Option<IfName> {
        match self {
            Way::Link(link) | Way::Tunnel(link, _) => Some(link.clone()),
            Way::Uplink(link) => link.clone(),
            Way::Local => None,
        }
    }
}

/// Why the program on the port does not let it in, if so: discovery and group membership, which it answers or
/// drops, redirects, and what poses as a DHCP server.
fn stays_at_the_edge(packet: &Packet) -> Option<Reason> {
    match (packet.family(), packet.payload) {
        (
            Family::V6,
            Payload::Icmp {
                icmp_type: 130..=137 | 143,
                ..
            },
        ) => Some(Reason::Edge),
        (Family::V4, Payload::Icmp { icmp_type: 5, .. }) => Some(Reason::Redirect),
        (
            _,
            Payload::Ports {
                protocol: 17,
                destination: 68 | 546,
                ..
            },
        ) => Some(Reason::DhcpClient),
        _ => None,
    }
}

/// The pair whose far end is in the main namespace under that name: a router's, which has the name of where it leads.
pub(super) fn pair_into_main<'a>(state: &'a HostState, link: &IfName) -> Option<&'a Veth> {
    let there = Netns::Named(link.as_str().to_owned());
    match state.objects.get(&Key::Veth(there, outside_link()?))? {
        Object::Veth(veth) if veth.peer_netns == Netns::Main && veth.peer == *link => Some(veth),
        _ => None,
    }
}

fn pings_gateway(packet: &Packet) -> bool {
    let request = Payload::Icmp {
        icmp_type: 128,
        code: 0,
    };
    packet.destination == IpAddr::V6(GATEWAY_V6)
        && packet.payload == request
        && !packet.source.is_multicast()
        && !packet.source.is_unspecified()
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// Groups and broadcast: the host itself listens, and nothing is forwarded.
fn is_for_many(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_multicast() || addr.is_broadcast() || addr.is_unspecified(),
        IpAddr::V6(addr) => addr.is_multicast() || addr == Ipv6Addr::UNSPECIFIED,
    }
}
