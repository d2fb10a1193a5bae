//! Faults of private networks, routers and their ways outside.

use std::net::IpAddr;

use hextet_model::state::{
    Chain, Element, HostState, Key, NatRange, Netns, NftRule, Object, RouteKind, RuleAction,
    Statement, Value, Verdict, marks,
};
use hextet_types::Mac;
use rand::{rngs::StdRng, seq::IndexedRandom as _};

use super::{Fault, drops, rule};
use crate::make::OTHER_MAC;

macro_rules! faults {
    ($($plant:ident: $name:literal,)*) => {
        /// All of them.
        pub const FAULTS: &[Fault] = &[$(Fault { name: $name, plant: $plant },)*];
    };
}

faults! {
    segment_wrong: "a network's packets travel with another's number",
    host_wrong: "a tunnel leads to another host",
    host_mac_wrong: "a host is known by another's Ethernet address",
    own_endpoint_wrong: "tunnel packets come from another address",
    remote_route_missing: "an address on another host has no route",
    remote_route_on_host: "an address on another host leads to a port here",
    local_sources_missing: "what comes by tunnels may have a source that lives here",
    endpoints_open: "tunnel packets are taken from anybody",
    endpoint_missing: "a host that is known may send no tunnel packets",
    router_route_to_another: "a router's route leads into another network",
    router_route_missing: "a router has no route to one of its networks",
    other_router_by_default: "the default route leads nowhere",
    throws_missing: "what stays inside leaves where it is marked",
    extra_routes_missing: "what comes from a router takes none of its extra routes",
    extra_route_for_all: "an extra route leads to nobody",
    leaving_mark_missing: "what leaves by its own host leaves by the gateway's",
    snat_wrong: "a router translates to an address of another",
    floating_of_another: "a floating IP leads to another port",
    floating_out_wrong: "a floating IP's port leaves as somebody else",
    floating_missing: "a floating IP leads nowhere",
    forward_to_another: "a forwarded port leads to another",
    forward_missing: "a port is not forwarded",
    published_missing: "a published prefix is not known to its router",
    published_all: "everybody inside is published",
    outside_missing: "the host takes nothing of a router's with a public source",
    way_in_missing: "what is published is not led to its router",
    answers_forgotten: "answers from outside are judged like first packets",
    wide_pair_missing: "a port may not use one of its prefixes",
    pair_too_wide: "a port with a pair may use any address",
    source_of_neighbour: "ports may use an address of their neighbour",
    route_to_neighbour: "an address leads to the neighbour",
    neighbour_wrong: "a port's packets go to another MAC",
    groups_of_another: "a port is judged by the groups of another",
    patch_missing: "a workload is not joined with its port",
    spoofers_pass: "what fails the source check passes",
    invalid_passes: "what belongs to no connection passes",
    endpoints_closed: "no tunnel packets are taken",
    next_hops_unknown: "next hops that workloads choose are not known",
    next_hops_swapped: "a next hop that a workload chooses leads to nobody",
}

fn of_network(netns: &Netns) -> bool {
    matches!(netns, Netns::Named(name) if name.starts_with("hx-"))
}

fn of_router(netns: &Netns) -> bool {
    matches!(netns, Netns::Named(name) if name.starts_with("hr-"))
}

/// Changes one of those that may be changed so.
fn one(state: &mut HostState, rng: &mut StdRng, change: impl Fn(&mut Object) -> bool) -> bool {
    let able = |object: &&Object| change(&mut (*object).clone());
    let able: Vec<Object> = state.objects.values().filter(able).cloned().collect();
    let Some(old) = able.choose(rng) else {
        return false;
    };
    let mut new = old.clone();
    change(&mut new);
    state.objects.remove(&old.key());
    state.insert(new);
    true
}

/// Changes all that may be changed so.
fn all(state: &mut HostState, change: impl Fn(&mut Object) -> bool) -> bool {
    let mut changed = false;
    for object in std::mem::take(&mut state.objects).into_values() {
        let mut object = object;
        changed |= change(&mut object);
        state.insert(object);
    }
    changed
}

fn without(state: &mut HostState, is_it: impl Fn(&Object) -> bool) -> bool {
    let before = state.objects.len();
    state.objects.retain(|_, object| !is_it(object));
    before != state.objects.len()
}

fn without_one(state: &mut HostState, rng: &mut StdRng, is_it: impl Fn(&Object) -> bool) -> bool {
    let fitting = state.objects.iter().filter(|(_, object)| is_it(object));
    let keys: Vec<Key> = fitting.map(|(key, _)| key.clone()).collect();
    keys.choose(rng)
        .is_some_and(|key| state.objects.remove(key).is_some())
}

fn beside(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 0x40).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ 0x40).into()),
    }
}

fn in_set(object: &Object, prefix: &str) -> bool {
    matches!(object, Object::Element(_, element) if element.set.0.starts_with(prefix))
}

fn chains(
    state: &mut HostState,
    name: &'static str,
    change: impl Fn(&Netns, &mut Chain) -> bool,
) -> bool {
    all(state, |object| match object {
        Object::Chain(netns, chain) if chain.name.0 == name => change(netns, chain),
        _ => false,
    })
}

/// The chains that judge tunnel packets: what one lets through, the other may not.
fn of_tunnels(state: &mut HostState, change: impl Fn(&mut Chain) -> bool) -> bool {
    all(state, |object| match object {
        Object::Chain(_, chain) if ["plain-tunnels", "tunnels"].contains(&&*chain.name.0) => {
            change(chain)
        }
        _ => false,
    })
}

fn without_rules(chain: &mut Chain, is_it: impl Fn(&NftRule) -> bool) -> bool {
    let before = chain.rules.len();
    chain.rules.retain(|rule| !is_it(rule));
    before != chain.rules.len()
}

fn segment_wrong(state: &mut HostState, rng: &mut StdRng) -> bool {
    one(state, rng, |object| match object {
        Object::Vxlan(device) => {
            device.vni ^= 0x40_0000;
            true
        }
        _ => false,
    })
}

fn host_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Fdb(entry) => {
            entry.dst = beside(entry.dst);
            true
        }
        _ => false,
    })
}

fn host_mac_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    let tunnels =
        |object: &Object| matches!(object, Object::Neighbour(n) if n.link.as_str() == "vxlan");
    let other = Mac::new([0x06, 0x68, 0x78, 0, 0x55, 0x55]);
    all(state, |object| {
        let is = tunnels(object);
        match object {
            Object::Neighbour(neighbour) if is => neighbour.mac = other,
            _ => return false,
        }
        true
    })
}

fn own_endpoint_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Vxlan(device) => {
            device.local = match device.local {
                IpAddr::V4(_) => hextet_tests::cloud::addr(hextet_tests::hypervisor::SERVICE_V4),
                IpAddr::V6(_) => hextet_tests::cloud::addr(hextet_tests::hypervisor::SERVICE_V6),
            };
            true
        }
        _ => false,
    })
}

fn is_route_by(object: &Object, is_it: fn(&Netns) -> bool, link: &str) -> bool {
    match object {
        Object::Route(route) if is_it(&route.key.netns) => match &route.kind {
            RouteKind::Unicast(hops) => hops.iter().any(|hop| hop.link.as_str().starts_with(link)),
            RouteKind::Blackhole | RouteKind::Throw => false,
        },
        _ => false,
    }
}

fn remote_route_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| is_route_by(object, of_network, "vxlan"))
}

/// A host route to a port of the same namespace, for each namespace that has one.
fn ports_hops(state: &HostState) -> Vec<(Netns, RouteKind)> {
    let routes = state
        .objects
        .values()
        .filter(|o| is_route_by(o, of_network, "tap"));
    let hops = routes.filter_map(|object| match object {
        Object::Route(route) => Some((route.key.netns.clone(), route.kind.clone())),
        _ => None,
    });
    hops.collect()
}

fn leads_to_port(state: &mut HostState, rng: &mut StdRng, from: &'static str) -> bool {
    let hops = ports_hops(state);
    one(state, rng, |object| {
        let is = is_route_by(object, of_network, from);
        let Object::Route(route) = object else {
            return false;
        };
        let mut others = hops
            .iter()
            .filter(|(netns, kind)| *netns == route.key.netns && *kind != route.kind);
        match others.next().filter(|_| is && route.key.prefix.is_host()) {
            Some((_, kind)) => route.kind = kind.clone(),
            None => return false,
        }
        true
    })
}

fn remote_route_on_host(state: &mut HostState, rng: &mut StdRng) -> bool {
    leads_to_port(state, rng, "vxlan")
}

fn route_to_neighbour(state: &mut HostState, rng: &mut StdRng) -> bool {
    leads_to_port(state, rng, "tap")
}

fn local_sources_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| in_set(object, "locals"))
}

fn endpoints_open(state: &mut HostState, _: &mut StdRng) -> bool {
    of_tunnels(state, |chain| without_rules(chain, drops))
}

fn endpoint_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    without_one(state, rng, |object| in_set(object, "endpoints"))
}

fn router_route_to_another(state: &mut HostState, _: &mut StdRng) -> bool {
    let hops: Vec<(Netns, RouteKind)> = state
        .objects
        .values()
        .filter(|o| is_route_by(o, of_router, "hx-"))
        .filter_map(|object| match object {
            Object::Route(route) => Some((route.key.netns.clone(), route.kind.clone())),
            _ => None,
        })
        .collect();
    all(state, |object| {
        let is = is_route_by(object, of_router, "hx-");
        let Object::Route(route) = object else {
            return false;
        };
        let mut others = hops
            .iter()
            .filter(|(netns, kind)| *netns == route.key.netns && *kind != route.kind);
        match others.next().filter(|_| is) {
            Some((_, kind)) => route.kind = kind.clone(),
            None => return false,
        }
        true
    })
}

fn router_route_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    without_one(state, rng, |object| is_route_by(object, of_router, "hx-"))
}

fn other_router_by_default(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Route(route) if of_network(&route.key.netns) && route.key.prefix.is_default() => {
            let was = std::mem::replace(&mut route.kind, RouteKind::Blackhole);
            was != RouteKind::Blackhole && route.key.table == 254
        }
        _ => false,
    })
}

fn throws_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(
        state,
        |object| matches!(object, Object::Route(route) if route.kind == RouteKind::Throw),
    )
}

fn extra_routes_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(
        state,
        |object| matches!(object, Object::Rule(rule) if of_network(&rule.netns) && rule.iif.is_some()),
    )
}

fn extra_route_for_all(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Route(route) if of_network(&route.key.netns) && route.key.table != 254 => {
            let unicast = matches!(route.kind, RouteKind::Unicast(_));
            if unicast && !route.key.prefix.is_default() {
                route.kind = RouteKind::Blackhole;
            }
            unicast && !route.key.prefix.is_default()
        }
        _ => false,
    })
}

fn leaving_mark_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| {
        let mark = Some((marks::LEAVES_HERE, marks::LEAVES_HERE));
        matches!(object, Object::Rule(rule) if of_router(&rule.netns) && rule.fwmark == mark)
    })
}

fn snat_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    let statement = |statement: &mut Statement| match statement {
        Statement::Snat(range) => {
            let addr = beside(range.first);
            *range = NatRange {
                first: addr,
                last: addr,
            };
            true
        }
        _ => false,
    };
    chains(state, "leaving", |_, chain| {
        let statements = chain.rules.iter_mut().flat_map(|rule| &mut rule.statements);
        statements.fold(false, |changed, s| statement(s) | changed)
    })
}

fn map_data(object: &mut Object, map: &str, change: impl Fn(&mut [Value]) -> bool) -> bool {
    match object {
        Object::Element(_, element) if element.set.0.starts_with(map) => change(&mut element.data),
        _ => false,
    }
}

fn another_address(data: &mut [Value]) -> bool {
    match data.first_mut() {
        Some(Value::Addr(addr)) => {
            *addr = match *addr {
                IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 1).into()),
                v6 => v6,
            };
            true
        }
        _ => false,
    }
}

fn is_of(object: &Object, map: &str) -> bool {
    matches!(object, Object::Element(_, element) if element.set.0 == map)
}

fn floating_of_another(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| {
        is_of(object, "floating") && map_data(object, "floating", another_address)
    })
}

fn floating_out_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| {
        is_of(object, "floating-out") && map_data(object, "floating-out", another_address)
    })
}

fn floating_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| is_of(object, "floating"))
}

fn forward_to_another(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| map_data(object, "forward", another_address))
}

fn forward_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(
        state,
        |object| matches!(object, Object::Element(_, e) if e.set.0.starts_with("forward") && !e.data.is_empty()),
    )
}

fn published_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    without_one(state, rng, |object| in_set(object, "published"))
}

/// The router and the host beside it agree on that.
fn published_all(state: &mut HostState, _: &mut StdRng) -> bool {
    let open = |_: &Netns, chain: &mut Chain| {
        chain.rules.insert(0, rule(Verdict::Accept));
        true
    };
    let leave = chains(state, "leave", open);
    chains(state, "from-routers", open) && leave
}

fn outside_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(
        state,
        |object| matches!(object, Object::Element(Netns::Main, e) if e.set.0.starts_with("outside")),
    )
}

fn way_in_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    without_one(state, rng, |object| {
        is_route_by(object, |netns| *netns == Netns::Main, "hr-")
    })
}

fn answers_forgotten(state: &mut HostState, _: &mut StdRng) -> bool {
    chains(state, "enter", |_, chain| {
        without_rules(chain, |rule| {
            rule.statements
                .iter()
                .any(|s| matches!(s, Statement::CtStateIn(_)))
        })
    })
}

fn wide_pair_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| in_set(object, "sources"))
}

fn pair_too_wide(state: &mut HostState, _: &mut StdRng) -> bool {
    let pairs = state.objects.values().filter_map(|object| match object {
        Object::Element(netns, element) if element.set.0.starts_with("sources") => {
            Some((netns.clone(), element.key.first()?.clone()))
        }
        _ => None,
    });
    let pairs: Vec<(Netns, Value)> = pairs.collect();
    let mut changed = false;
    for (netns, port) in pairs {
        let element = Element {
            set: "unchecked".into(),
            key: vec![port],
            verdict: None,
            data: Vec::new(),
        };
        changed |= state.insert(Object::Element(netns, element)).is_none();
    }
    changed
}

fn source_of_neighbour(state: &mut HostState, _: &mut StdRng) -> bool {
    let sources: Vec<_> = state
        .objects
        .values()
        .filter_map(|object| match object {
            Object::Source(source) if of_network(&source.netns) => Some(source.clone()),
            _ => None,
        })
        .collect();
    let before = state.objects.len();
    for source in &sources {
        let own = sources.iter().filter(|own| own.netns == source.netns);
        for port in own {
            let mut theirs = port.clone();
            theirs.addr = source.addr;
            state.insert(Object::Source(theirs));
        }
    }
    before != state.objects.len()
}

fn neighbour_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Neighbour(neighbour) if neighbour.link.as_str().starts_with("tap") => {
            neighbour.mac = OTHER_MAC;
            of_network(&neighbour.netns)
        }
        _ => false,
    })
}

fn groups_of_another(state: &mut HostState, rng: &mut StdRng) -> bool {
    let groups = state.objects.values().filter_map(|object| match object {
        Object::Veth(veth) if veth.name.as_str().starts_with("hxp") => Some(veth.peer_group),
        _ => None,
    });
    let groups: Vec<u32> = groups.collect();
    let Some(other) = groups.choose(rng).copied() else {
        return false;
    };
    all(state, |object| match object {
        Object::Veth(veth) if veth.name.as_str().starts_with("hxp") => {
            let was = std::mem::replace(&mut veth.peer_group, other);
            was != other
        }
        _ => false,
    })
}

fn patch_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    without_one(state, rng, |object| matches!(object, Object::Patch(_)))
}

fn spoofers_pass(state: &mut HostState, _: &mut StdRng) -> bool {
    chains(state, "from-port", |netns, chain| {
        let before = chain.rules.len();
        chain.rules.retain(|rule| !drops(rule));
        chain.rules.push(rule(Verdict::Goto("checked".into())));
        of_network(netns) && before != chain.rules.len() - 1
    })
}

fn invalid_passes(state: &mut HostState, _: &mut StdRng) -> bool {
    chains(state, "invalid", |netns, chain| {
        of_network(netns) && without_rules(chain, drops)
    })
}

fn endpoints_closed(state: &mut HostState, _: &mut StdRng) -> bool {
    of_tunnels(state, |chain| without_rules(chain, |rule| !drops(rule)))
}

fn next_hops_unknown(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |object| matches!(object, Object::Hop(_)))
}

fn next_hops_swapped(state: &mut HostState, _: &mut StdRng) -> bool {
    all(state, |object| match object {
        Object::Rule(rule) if of_network(&rule.netns) && rule.fwmark.is_some() => {
            rule.action = RuleAction::Blackhole;
            true
        }
        _ => false,
    })
}
