//! Faults of where packets go: translation, routes, neighbours and links.

use std::net::IpAddr;

use hextet_model::state::{HostState, Key, NatRange, Object, RouteKind, Statement, Verdict};
use hextet_types::IfName;
use rand::{rngs::StdRng, seq::IndexedRandom as _};

use super::{drops, each_chain, without};
use crate::make::OTHER_MAC;

pub fn private_reached(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "private" && drops(rule)
    })
}

pub fn private_leaks(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, _| chain.name.0 == "postrouting")
}

pub fn translated_inside(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        let accepts = rule
            .statements
            .contains(&Statement::Verdict(Verdict::Accept));
        chain.name.0 == "postrouting" && accepts
    })
}

pub fn nat_range_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    let wrong = IpAddr::from([203, 0, 113, 200]);
    each_chain(state, |chain| {
        let statements = chain.rules.iter_mut().flat_map(|rule| &mut rule.statements);
        let mut changed = false;
        for statement in statements {
            if let Statement::Snat(range) = statement {
                *range = NatRange {
                    first: wrong,
                    last: wrong,
                };
                changed = true;
            }
        }
        changed
    })
}

fn links(state: &HostState) -> Vec<IfName> {
    let keys = state.objects.keys().filter_map(|key| match key {
        Key::Link(_, name) => Some(name.clone()),
        _ => None,
    });
    keys.collect()
}

pub fn route_to_another(state: &mut HostState, rng: &mut StdRng) -> bool {
    let links = links(state);
    let routes = state
        .objects
        .values_mut()
        .filter_map(|object| match object {
            Object::Route(route) => match &mut route.kind {
                RouteKind::Unicast(hops) => hops.first_mut(),
                RouteKind::Blackhole | RouteKind::Throw => None,
            },
            _ => None,
        });
    let mut hops: Vec<_> = routes.collect();
    let numbers: Vec<usize> = (0..hops.len()).collect();
    let (Some(n), Some(other)) = (numbers.choose(rng), links.choose(rng)) else {
        return false;
    };
    let changed = hops[*n].link != *other;
    hops[*n].link = other.clone();
    changed
}

pub fn neighbour_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    let mut changed = false;
    for object in state.objects.values_mut() {
        if let Object::Neighbour(neighbour) = object {
            neighbour.mac = OTHER_MAC;
            changed = true;
        }
    }
    changed
}

pub fn black_hole_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Route(route) => route.kind != RouteKind::Blackhole,
        _ => true,
    });
    before != state.objects.len()
}

pub fn link_state_swapped(state: &mut HostState, rng: &mut StdRng) -> bool {
    let links = links(state);
    let Some(name) = links.choose(rng) else {
        return false;
    };
    for object in state.objects.values_mut() {
        if let Object::Link(link) = object
            && link.name == *name
        {
            link.up = !link.up;
        }
    }
    true
}

pub fn host_open(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "to-host" && drops(rule)
    })
}

pub fn unknown_ports_pass(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |_, rule| {
        let mut statements = rule.statements.iter();
        statements.any(|s| matches!(s, Statement::NamePrefix(..)))
    })
}
