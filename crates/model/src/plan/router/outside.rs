//! A router's way outside: a pair of links between its namespace and the main one, on each host that is told of a
//! gateway; what comes and goes by it; and what the main namespace does about it.
//!
//! The main namespace leads to a router what is published and lives here, and, in a packet from a router, takes only such
//! sources: whatever becomes of the router's own rules, nothing else gets out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Family, IfName, NetworkId, Prefix, QosPolicyId, RouterId};

use super::{
    ROUTER_MAC,
    claim::{Claim, is_published, own_addresses},
    connected, is_usable, namespace,
    translation::{self, Translation},
};
use crate::{
    intent::{FloatingIp, PortForwarding, Router, RouterInterface, TunnelEndpoint},
    plan::{
        HostConfig,
        address::{self, DEFAULT_METRIC, OUTSIDE_METRIC, PORT_METRIC},
        names,
        nft::{self, ACCEPT, DROP, because, rule},
        physical,
        place::Place,
        tunnel,
        unit::{Output, View},
        why,
    },
    state::{
        Address, Announcement, CtState, Field, Hook, KeyType, Neighbour, Netns, NextHop, Object,
        RouteKind, Rule, RuleAction, Scope, Statement, Sysctl, Value, Veth, marks,
    },
};

/// The link group of routers' links in the main namespace: "hr".
const GROUP: u32 = 0x6872;
/// What a router's link is called in its own namespace.
const LINK: &str = "outside";
/// Where a network's MTU is not known.
const DEFAULT_MTU: u16 = 1500;
/// The source of what the host itself reports to routers over IPv4: that of nodes without an address (RFC 7600 §4.8), which
/// no namespace on the way has for its own.
const REPORTS_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));
/// Addresses that clients share.
pub const MAX_SHARED: usize = 16;
/// Judges what routers send, before connection tracking sees it.
const FROM_ROUTERS: &str = "from-routers";
/// Judges what they send to the host itself.
const ROUTERS_TO_HOST: &str = "routers-to-host";
/// For what leaves by the router's link on this host, though by default it goes by another.
const MARKED_TABLE: u32 = 1 << 24;
/// The rule that leads there.
const RULE_PRIORITY: u32 = 1000;

/// A router that stands here and has a gateway on a network that is known.
#[derive(Clone, Copy)]
pub struct Exit<'a> {
    view: View<'a>,
    /// The router.
    pub router: &'a Router,
    mtu: u16,
}

/// Which way IPv4 leaves that has no way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Here.
    Here,
    /// By the gateway host.
    There(TunnelEndpoint),
    /// It does not.
    Nowhere,
}

/// The router's end of its pair.
pub fn link() -> Option<IfName> {
    LINK.parse().ok()
}

/// The gateways that are up, in their order.
fn gateways(router: &Router) -> impl Iterator<Item = &RouterInterface> {
    let Router {
        router, gateways, ..
    } = router;
    let in_order = router.gateways.iter();
    let in_order = in_order.filter_map(|g| gateways.get(&g.port_id));
    in_order.filter(|gateway| gateway.admin_state_up)
}

fn addresses(router: &Router) -> impl Iterator<Item = IpAddr> {
    let fixed = gateways(router).flat_map(|gateway| &gateway.fixed_ips);
    fixed.map(|f| f.ip_address).filter(|addr| is_usable(*addr))
}

/// What all that has no address of its own outside leaves by, if at all: the first gateway's address, or the first of
/// each gateway where they share.
pub fn shared_addresses(router: &Router) -> Vec<Ipv4Addr> {
    let Router { router: is, .. } = router;
    let first = |gateway: &RouterInterface| {
        let mut fixed = gateway.fixed_ips.iter().map(|f| f.ip_address);
        fixed.find_map(|addr| match addr {
            IpAddr::V4(v4) if is_usable(addr) => Some(v4),
            _ => None,
        })
    };
    let most = match (is.enable_snat, is.enable_default_route_ecmp) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => MAX_SHARED,
    };
    gateways(router).filter_map(first).take(most).collect()
}

impl<'a> Exit<'a> {
    /// Of that router.
    pub fn of(view: View<'a>, id: RouterId) -> Option<Exit<'a>> {
        let router = view.intent.routers.get(&id)?;
        let networks = router.gateways.values().map(|g| g.network_id);
        let known = networks.filter_map(|id| view.intent.networks.get(&id));
        let mtu = known.map(|network| network.mtu).min()?;
        view.routers
            .has_namespace(id)
            .then_some(Exit { view, router, mtu })
    }

    /// As long as nothing is down.
    pub fn serving(view: View<'a>, id: RouterId) -> Option<Exit<'a>> {
        Exit::of(view, id).filter(Exit::is_up)
    }

    /// Whether anything passes.
    pub fn is_up(&self) -> bool {
        self.router.router.admin_state_up && gateways(self.router).next().is_some()
    }

    /// The addresses of the gateways that are up.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        addresses(self.router)
    }

    /// What it is computed from.
    pub fn view(&self) -> View<'a> {
        self.view
    }

    /// The host's configuration.
    pub fn config(&self) -> &'a HostConfig {
        self.view.config
    }

    /// Whether this is its gateway host.
    pub fn is_gateway_host(&self) -> bool {
        let host = self.router.gateway_host.as_ref();
        host.is_some_and(|g| g.host == self.view.config.host)
    }

    /// The way of IPv4.
    pub fn way(&self) -> Way {
        let hosts = &self.view.intent.hosts;
        if self.is_gateway_host() {
            return Way::Here;
        }
        let gateway = self.router.gateway_host.as_ref();
        let there = gateway.and_then(|g| hosts.get(&g.host));
        match there.filter(|_| hosts.contains_key(&self.view.config.host)) {
            Some(endpoint) => Way::There(*endpoint),
            None => Way::Nowhere,
        }
    }

    /// An IPv4 address of its own inside, by which it answers for those outside.
    pub fn inner_address(&self) -> Option<Ipv4Addr> {
        let up = self.router.interfaces.values().filter(|i| i.admin_state_up);
        let mut fixed = up.flat_map(|i| i.fixed_ips.iter().map(|f| (i.network_id, f.ip_address)));
        fixed.find_map(|(network, addr)| match addr {
            IpAddr::V4(v4) if is_usable(addr) && self.leads_to(network, addr) => Some(v4),
            _ => None,
        })
    }

    /// Where an address inside is routed to, if it is on that network.
    pub fn leads_to(&self, network: NetworkId, addr: IpAddr) -> bool {
        self.network_of(addr) == Some(network)
    }

    /// Where an address inside is routed to.
    pub fn network_of(&self, addr: IpAddr) -> Option<NetworkId> {
        let connected = connected(self.view, self.router);
        let around = connected.iter().filter(|(p, _)| p.contains(addr));
        let longest = around.max_by_key(|(prefix, _)| prefix.len());
        longest.map(|(_, to)| *to)
    }

    /// The router's end of its pair with a network.
    pub fn link_to(network: NetworkId) -> Option<IfName> {
        match Place::Network(network).netns() {
            Netns::Named(name) => name.parse().ok(),
            Netns::Main => None,
        }
    }

    /// Whether a floating IP is its, for an address that it leads to.
    pub fn translates(&self, ip: &FloatingIp) -> bool {
        let fixed = IpAddr::V4(ip.fixed_ip_address);
        ip.router_id == self.router.router.id
            && is_usable(fixed)
            && is_usable(IpAddr::V4(ip.floating_ip_address))
            && self.leads_to(ip.network_id, fixed)
    }

    /// Whether it forwards these ports, on this host.
    pub fn forwards(&self, f: &PortForwarding) -> bool {
        let inside = IpAddr::V4(f.internal_ip_address);
        self.is_gateway_host()
            && f.router_id == self.router.router.id
            && is_usable(inside)
            && is_usable(IpAddr::V4(f.floating_ip_address))
            && self.leads_to(f.network_id, inside)
    }

    /// The end in the main namespace: it has the name of where it leads.
    fn far_link(&self) -> Option<IfName> {
        namespace(self.router.router.id).parse().ok()
    }

    fn way_in(&self) -> Option<NextHop> {
        Some(NextHop {
            via: Some(IpAddr::V6(ROUTER_MAC.link_local())),
            link: self.far_link()?,
        })
    }

    fn way_out(&self) -> Option<NextHop> {
        Some(NextHop {
            via: Some(IpAddr::V6(self.view.config.gateway_mac.link_local())),
            link: link()?,
        })
    }
}

/// What the main namespace needs as long as a router has a gateway: rules, before fragments are put together, so that nobody
/// speaks in somebody else's datagram or connection; and others, since the host's own services are not for workloads, by
/// whichever way they come.
pub fn guard(view: View<'_>) -> Vec<Object> {
    if view.place != Place::Main || !view.routers.claims().any_gateway() {
        return Vec::new();
    }
    let set = |family| {
        nft::set(
            names::outside(family),
            [KeyType::IfName, KeyType::Addr(family)],
        )
    };
    let from_routers = nft::compare(Field::IifGroup, Value::U32(GROUP));
    let mut rules = Vec::new();
    rules.extend(Family::BOTH.map(|family| {
        let key = vec![Field::IifName.into(), Field::Saddr(family).into()];
        rule([nft::found(key, names::outside(family), false), ACCEPT])
    }));
    rules.push(because([Statement::Counter, DROP], why::NOT_PUBLIC));
    let to_host = vec![
        rule([
            nft::state_in(&[CtState::Established, CtState::Related]),
            ACCEPT,
        ]),
        because([Statement::Counter, DROP], why::HOST),
    ];
    let mut objects = Family::BOTH.map(set).to_vec();
    objects.extend([
        nft::base_chain(
            "routers",
            Hook::Prerouting,
            nft::EACH_FRAGMENT,
            vec![rule([from_routers.clone(), nft::goto(FROM_ROUTERS)])],
        ),
        nft::base_chain(
            "input-routers",
            Hook::Input,
            nft::FILTER,
            vec![rule([from_routers, nft::goto(ROUTERS_TO_HOST)])],
        ),
        nft::chain(ROUTERS_TO_HOST, to_host),
        nft::chain(FROM_ROUTERS, rules),
    ]);
    objects.extend("lo".parse().ok().map(|link| {
        Object::Address(Address {
            netns: Netns::Main,
            link,
            addr: REPORTS_FROM,
            prefix_len: Family::V4.bits(),
        })
    }));
    objects
}

/// An address that routers may answer for: the way to the first that does, and those that may send from it.
pub fn public(view: View<'_>, addr: IpAddr) -> Output {
    let mut output = Output::default();
    let taken = view.port_with(addr).is_some() || view.is_nat_source(addr);
    if view.place != Place::Main || taken {
        return output;
    }
    let mut senders = BTreeSet::new();
    let mut way = None;
    for claim in view.routers.claims().of(addr) {
        for (exit, leads) in exits(view, addr, claim) {
            senders.extend(exit.far_link());
            way = way.or_else(|| exit.way_in().filter(|_| leads));
        }
    }
    let set = names::outside(Family::of(addr));
    output.objects.extend(senders.into_iter().map(|link| {
        let key = [Value::IfName(link), Value::Addr(addr)];
        nft::element(set.clone(), key)
    }));
    let Some(way) = way else { return output };
    let prefix = Prefix::host(addr);
    let prefsrc = addr.is_ipv4().then_some(REPORTS_FROM);
    let kind = RouteKind::Unicast(vec![way]);
    output
        .objects
        .push(address::route(prefix, OUTSIDE_METRIC, kind, prefsrc));
    match physical::link_around(view, addr) {
        Some(link) => output.objects.extend(physical::answers(link, addr)),
        None if view.config.aggregated(prefix) => {}
        None => {
            let scope = Scope::Global;
            output.announce.push((prefix, Announcement { scope }));
        }
    }
    output
}

/// The routers that may send from an address by that claim, each with whether it is the way to it.
fn exits(view: View<'_>, addr: IpAddr, claim: Claim) -> Vec<(Exit<'_>, bool)> {
    let one = |id, leads: &dyn Fn(&Exit<'_>) -> Option<bool>| {
        let exit = Exit::serving(view, id);
        let found = exit.and_then(|exit| Some((exit, leads(&exit)?)));
        found.into_iter().collect()
    };
    match claim {
        Claim::Router(id) => one(id, &|exit| {
            if exit.addresses().any(|own| own == addr) {
                return Some(exit.is_gateway_host());
            }
            let up = exit.router.interfaces.values().filter(|i| i.admin_state_up);
            let mut fixed = up.flat_map(|i| &i.fixed_ips);
            let own = fixed.any(|f| f.ip_address == addr);
            (own && own_addresses(exit.router).contains(&addr)).then_some(false)
        }),
        Claim::Floating(id) => match view.intent.floating_ips.get(&id) {
            Some(ip) => one(ip.router_id, &|exit| {
                let fixed = IpAddr::V4(ip.fixed_ip_address);
                let lives = view.routers.claims().lives(ip.network_id, fixed);
                (lives && exit.translates(ip)).then_some(true)
            }),
            None => Vec::new(),
        },
        Claim::Forwarding(id) => match view.intent.port_forwardings.get(&id) {
            Some(f) => one(f.router_id, &|exit| exit.forwards(f).then_some(true)),
            None => Vec::new(),
        },
        Claim::Port(network) => {
            let routers = view.routers.on(network);
            let exits = routers.filter_map(|id| Exit::serving(view, id));
            let published = exits
                .filter(|exit| is_published(exit.router, addr) && exit.leads_to(network, addr));
            published.map(|exit| (exit, true)).collect()
        }
    }
}

/// What a router has, in its own place, to reach the outside.
pub fn outside(view: View<'_>) -> Output {
    let mut output = Output::default();
    let Place::Router(id) = view.place else {
        return output;
    };
    let Some(exit) = Exit::of(view, id) else {
        return output;
    };
    output.joints.extend(pair(&exit));
    output.objects.extend(link().map(|link| {
        Object::Neighbour(Neighbour {
            netns: Netns::Main,
            link,
            addr: IpAddr::V6(view.config.gateway_mac.link_local()),
            mac: view.config.gateway_mac,
        })
    }));
    if exit.is_up() {
        output.objects.extend(answering(&exit));
        let addresses = sources(&exit);
        let own = addresses.into_iter().filter_map(|addr| {
            Some(Object::Address(Address {
                netns: Netns::Main,
                link: link()?,
                addr,
                prefix_len: Family::of(addr).bits(),
            }))
        });
        output.objects.extend(own);
        output.objects.extend(ways(&exit));
        output.objects.extend(tunnel(&exit));
        output
            .objects
            .extend(translation::objects(&Translation::of(&exit)));
    }
    output
}

/// What is published of a router's own addresses inside.
fn published_inside(exit: &Exit<'_>) -> impl Iterator<Item = IpAddr> {
    let up = exit.router.interfaces.values().filter(|i| i.admin_state_up);
    let inside = up.flat_map(|i| i.fixed_ips.iter().map(|f| (i.network_id, f.ip_address)));
    let published = inside.filter(|(network, addr)| {
        is_usable(*addr) && is_published(exit.router, *addr) && exit.leads_to(*network, *addr)
    });
    published.map(|(_, addr)| addr)
}

/// Addresses on the link outside, which are sources of what the router itself reports: none of IPv4, since with the last
/// of those Linux takes all routes off the link, and since a gateway's would take answers that are for what it stands
/// for; see [`translation`].
fn sources(exit: &Exit<'_>) -> BTreeSet<IpAddr> {
    let all = exit.addresses().chain(published_inside(exit));
    all.filter(IpAddr::is_ipv6).collect()
}

/// Where nothing is translated the gateway host has the gateways' addresses of IPv4 for itself.
fn answering(exit: &Exit<'_>) -> Vec<Object> {
    if !exit.is_gateway_host() || Translation::of(exit).tracks() {
        return Vec::new();
    }
    let v4: BTreeSet<IpAddr> = exit.addresses().filter(IpAddr::is_ipv4).collect();
    let address = |addr| {
        Some(Object::Address(Address {
            netns: Netns::Main,
            link: "lo".parse().ok()?,
            addr,
            prefix_len: Family::V4.bits(),
        }))
    };
    v4.into_iter().filter_map(address).collect()
}

/// The source of what the router reports over IPv4; where there is none, that is for connections that it
/// translates alone, and their translation gives it one.
fn reports_from(exit: &Exit<'_>) -> Option<IpAddr> {
    published_inside(exit).find(IpAddr::is_ipv4)
}

fn pair(exit: &Exit<'_>) -> Vec<Object> {
    let (Some(link), Some(far_link)) = (link(), exit.far_link()) else {
        return Vec::new();
    };
    let veth = Veth {
        netns: exit.view.place.netns(),
        name: link,
        mac: ROUTER_MAC,
        mtu: exit.mtu,
        peer_netns: Netns::Main,
        peer: far_link.clone(),
        peer_mac: exit.view.config.gateway_mac,
        peer_group: GROUP,
    };
    let neighbour = Neighbour {
        netns: Netns::Main,
        link: far_link,
        addr: IpAddr::V6(ROUTER_MAC.link_local()),
        mac: ROUTER_MAC,
    };
    vec![Object::Veth(veth), Object::Neighbour(neighbour)]
}

/// The default routes. What has a way of its own leaves here; where IPv4 by default does not, by a mark.
fn ways(exit: &Exit<'_>) -> Vec<Object> {
    let Some(out) = exit.way_out() else {
        return Vec::new();
    };
    let default = |family, hop, source| {
        let kind = RouteKind::Unicast(vec![hop]);
        address::route(Prefix::default_route(family), DEFAULT_METRIC, kind, source)
    };
    let mut objects = vec![default(Family::V6, out.clone(), None)];
    let v4 = match exit.way() {
        Way::Here => Some((out.clone(), reports_from(exit))),
        Way::There(endpoint) => tunnel::way_to(&endpoint).map(|hop| (hop, None)),
        Way::Nowhere => None,
    };
    objects.extend(v4.map(|(hop, source)| default(Family::V4, hop, source)));
    if Translation::of(exit).marks() {
        objects.extend(marked(exit, out));
    }
    objects
}

/// What is marked leaves here, unless it goes inside. What the router itself reports about a marked packet is marked, too.
fn marked(exit: &Exit<'_>, out: NextHop) -> Vec<Object> {
    let mark = (marks::LEAVES_HERE, marks::LEAVES_HERE);
    let connected = connected(exit.view, exit.router);
    let extra = exit.router.router.routes.iter().map(|r| r.destination);
    let inside: BTreeSet<Prefix> = connected
        .into_keys()
        .chain(extra.filter(|prefix| !prefix.is_default()))
        .filter(|prefix| prefix.family() == Family::V4)
        .collect();
    let route =
        |prefix, kind, source| address::route_in(MARKED_TABLE, prefix, PORT_METRIC, kind, source);
    let mut objects = vec![
        Object::Sysctl(Sysctl {
            netns: Netns::Main,
            path: "net/ipv4/fwmark_reflect".to_owned(),
            value: "1".to_owned(),
        }),
        Object::Rule(Rule {
            netns: Netns::Main,
            family: Family::V4,
            priority: RULE_PRIORITY,
            fwmark: Some(mark),
            iif: None,
            action: RuleAction::Table(MARKED_TABLE),
        }),
        route(
            Prefix::default_route(Family::V4),
            RouteKind::Unicast(vec![out]),
            reports_from(exit),
        ),
    ];
    objects.extend(
        inside
            .into_iter()
            .map(|prefix| route(prefix, RouteKind::Throw, None)),
    );
    objects
}

/// Between the gateway host and the others: a VXLAN segment of the router's own.
fn tunnel(exit: &Exit<'_>) -> Vec<Object> {
    let view = exit.view;
    let Some(gateway) = &exit.router.gateway_host else {
        return Vec::new();
    };
    let inside = super::networks(exit.router).into_iter();
    let inside = inside.filter_map(|id| super::private(view.intent, id));
    let mtu = inside.map(|network| network.mtu).max();
    let own = tunnel::own_device(view, gateway.segment, mtu.unwrap_or(DEFAULT_MTU));
    let mut objects: Vec<Object> = own.into_iter().collect();
    if let Way::There(endpoint) = exit.way() {
        objects.extend(tunnel::known(&endpoint));
    }
    objects
}

/// Floating IPs of a router here, and the addresses that they stand for; of several for one, the first.
pub fn floating(exit: &Exit<'_>) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let view = exit.view;
    let mut all = BTreeMap::new();
    for claim in view.routers.claims().by(exit.router.router.id) {
        let Claim::Floating(id) = claim else { continue };
        let ip = view.intent.floating_ips.get(&id);
        if let Some(ip) = ip.filter(|ip| exit.translates(ip)) {
            all.entry(ip.floating_ip_address)
                .or_insert(ip.fixed_ip_address);
        }
    }
    all
}

/// The QoS policy of a floating IP of a router here.
pub fn policy_of(exit: &Exit<'_>, outside: Ipv4Addr) -> Option<QosPolicyId> {
    let claims = exit.view.routers.claims().by(exit.router.router.id);
    let mut ips = claims.filter_map(|claim| match claim {
        Claim::Floating(id) => exit.view.intent.floating_ips.get(&id),
        _ => None,
    });
    let found = ips.find(|ip| ip.floating_ip_address == outside && exit.translates(ip));
    found.and_then(|ip| ip.qos_policy_id)
}

/// Port forwardings of a router on its gateway host.
pub fn forwardings<'a>(exit: &Exit<'a>) -> Vec<&'a PortForwarding> {
    let view = exit.view;
    let claims = view.routers.claims().by(exit.router.router.id);
    let all = claims.filter_map(|claim| match claim {
        Claim::Forwarding(id) => view.intent.port_forwardings.get(&id),
        _ => None,
    });
    all.filter(|f| exit.forwards(f)).collect()
}

/// The IPv4 subnets that it is on.
pub fn inside_v4(exit: &Exit<'_>) -> BTreeSet<Prefix> {
    let connected = connected(exit.view, exit.router).into_keys();
    connected.filter(|p| p.family() == Family::V4).collect()
}
