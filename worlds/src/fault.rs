//! Planted faults: what a planner might get wrong, done to its plan before the kernel gets it. A generator
//! that does not notice each of them within a few worlds does not look closely enough.
//!
//! Names of chains and sets are the planner's; a fault whose place is gone fits in no world, and that
//! fails the suite like one that nobody notices.

use std::net::IpAddr;

use hextet_model::state::{
    Chain, Element, Field, HostState, Key, KeyPart, NatRange, NftRule, Object, RouteKind, Source,
    Statement, Value, Verdict,
};
use hextet_types::{Family, IfName};
use rand::{rngs::StdRng, seq::IndexedRandom as _};

use crate::{make::OTHER_MAC, run::World};

/// Packets to show that a plan without the fault is right again.
const MENDED: usize = 40;

/// A fault, and what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What is wrong, in words.
    pub name: &'static str,
    /// Does it to a host's plan; false if there is nothing to do it to.
    pub plant: fn(&mut HostState, &mut StdRng) -> bool,
}

macro_rules! faults {
    ($($plant:ident: $name:literal,)*) => {
        /// All of them.
        pub const FAULTS: &[Fault] = &[$(Fault { name: $name, plant: $plant },)*];
    };
}

faults! {
    source_missing: "a port may not use one of its sources",
    wide_source_missing: "a port may not use one of its prefixes",
    source_of_another: "ports may use the address of another",
    source_of_another_mac: "a port's source goes with another MAC",
    unchecked_port: "a port's sources are not checked",
    spoofers_pass: "what fails the source check passes",
    profile_of_another: "a port is judged by the groups of another",
    ends_swapped: "a remote prefix or group is looked for at the wrong end",
    group_left_out: "a profile leaves out a group",
    port_off_by_one: "a rule is about the port beside",
    port_mask_widened: "a rule's port mask is a bit too short",
    element_missing: "a rule is not there",
    icmp_type_wrong: "a rule is about another ICMP type",
    remote_prefix_wrong: "a rule is about another remote prefix",
    family_swapped: "a rule is about the other family",
    members_missing: "the members of a remote group are not there",
    members_added: "a remote group has members too many",
    guard_bypassed: "an accept stands before the guard",
    discovery_forwarded: "neighbour discovery may be forwarded",
    dhcp_forwarded: "anybody may be a DHCP server",
    invalid_passes: "what belongs to no connection passes",
    answers_judged: "answers are judged like first packets",
    related_judged: "errors about connections are judged like first packets",
    errors_of_others: "errors about connections pass, whoever sends them",
    stateless_forgotten: "a stateless port is taken for a stateful one",
    private_reached: "private addresses are reached from outside",
    private_leaks: "private addresses leave for outside untranslated",
    translated_inside: "what stays inside is translated",
    nat_range_wrong: "translation uses an address that is not the host's",
    route_to_another: "an address leads to another port",
    neighbour_wrong: "a port's packets go to another MAC",
    black_hole_missing: "a black hole is not there",
    link_state_swapped: "a port that is down is up, or the other way round",
    host_open: "the host's services are open to workloads",
    unknown_ports_pass: "what comes from a port that no plan knows passes",
}

/// The names of the faults that none of the worlds notices, of the first seed and those after it.
pub fn survivors(first: u64, worlds: u64, packets: usize) -> Vec<&'static str> {
    let mut left = FAULTS.to_vec();
    for seed in first..first + worlds {
        if left.is_empty() {
            break;
        }
        left = hextet_tests::hypervisor::in_own_namespace(|| not_noticed(seed, packets, &left));
    }
    left.iter().map(|fault| fault.name).collect()
}

fn not_noticed(seed: u64, packets: usize, faults: &[Fault]) -> Vec<Fault> {
    let mut world = World::new(seed);
    let is_noticed = |fault: &&Fault| {
        let mut states: Vec<HostState> = world.sites.iter().map(|s| s.state.clone()).collect();
        let mut rng = world.fork();
        let planted = states
            .iter_mut()
            .filter_map(|state| (fault.plant)(state, &mut rng).then_some(()))
            .count();
        if planted == 0 {
            return false;
        }
        world.impose(Some(&states));
        let noticed = world.batch(packets).is_err();
        world.impose(None);
        let mended = world.batch(MENDED);
        assert!(
            mended.is_ok(),
            "after {:?} was mended: {mended:?}",
            fault.name
        );
        noticed
    };
    let mut is_noticed = is_noticed;
    let left = faults.iter().filter(|fault| !is_noticed(fault));
    left.copied().collect()
}

/// Some element of a set that is named so.
fn element(
    state: &HostState,
    rng: &mut StdRng,
    is_it: impl Fn(&Element) -> bool,
) -> Option<Element> {
    let elements = state.objects.values().filter_map(|object| match object {
        Object::Element(_, element) if is_it(element) => Some(element),
        _ => None,
    });
    let elements: Vec<&Element> = elements.collect();
    elements.choose(rng).map(|element| (*element).clone())
}

fn remove(state: &mut HostState, element: Option<&Element>) -> bool {
    let Some(gone) = element else { return false };
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Element(_, element) => element.set != gone.set || element.key != gone.key,
        _ => true,
    });
    before != state.objects.len()
}

fn add(state: &mut HostState, element: Element) -> bool {
    let netns = hextet_model::state::Netns::Main;
    state.insert(Object::Element(netns, element)).is_none()
}

/// Puts another in place of an element.
fn change(
    state: &mut HostState,
    old: Option<Element>,
    change: impl Fn(&mut Element) -> bool,
) -> bool {
    let Some(old) = old else { return false };
    let mut new = old.clone();
    if !change(&mut new) || !remove(state, Some(&old)) {
        return false;
    }
    add(state, new);
    true
}

fn named(prefix: &'static str) -> impl Fn(&Element) -> bool {
    move |element| element.set.0.starts_with(prefix)
}

/// The set of a rule of a group: its name tells group and shape.
fn of_rule(element: &Element) -> bool {
    let prefixes = ["e4-", "e6-", "i4-", "i6-"];
    prefixes
        .iter()
        .any(|prefix| element.set.0.starts_with(prefix))
}

fn each_chain(state: &mut HostState, mut change: impl FnMut(&mut Chain) -> bool) -> bool {
    let mut changed = false;
    for object in state.objects.values_mut() {
        if let Object::Chain(_, chain) = object {
            changed |= change(chain);
        }
    }
    changed
}

fn chain_named(state: &mut HostState, name: &str, mut to: impl FnMut(&mut Chain) -> bool) -> bool {
    each_chain(state, |chain| chain.name.0 == name && to(chain))
}

/// Takes rules out of all chains.
fn without(state: &mut HostState, is_it: impl Fn(&Chain, &NftRule) -> bool) -> bool {
    each_chain(state, |chain| {
        let before = chain.clone();
        chain.rules.retain(|rule| !is_it(&before, rule));
        before.rules.len() != chain.rules.len()
    })
}

fn rule(verdict: Verdict) -> NftRule {
    NftRule {
        statements: vec![Statement::Verdict(verdict)],
        comment: None,
    }
}

fn drops(rule: &NftRule) -> bool {
    rule.statements.contains(&Statement::Verdict(Verdict::Drop))
}

fn sources(state: &HostState, family: Option<Family>) -> Vec<Source> {
    let sources = state.objects.values().filter_map(|object| match object {
        Object::Source(source) => Some(source.clone()),
        _ => None,
    });
    let of_family = |s: &Source| family.is_none_or(|family| Family::of(s.addr) == family);
    sources.filter(of_family).collect()
}

fn source_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let sources = sources(state, None);
    let Some(gone) = sources.choose(rng) else {
        return false;
    };
    let key = Object::Source(gone.clone()).key();
    state.objects.remove(&key).is_some()
}

fn wide_source_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let source = element(state, rng, named("sources"));
    remove(state, source.as_ref())
}

fn source_of_another(state: &mut HostState, rng: &mut StdRng) -> bool {
    let sources = sources(state, Some(Family::V4));
    let Some(of) = sources.choose(rng) else {
        return false;
    };
    let before = state.objects.len();
    for source in &sources {
        let addr = of.addr;
        state.insert(Object::Source(Source {
            addr,
            ..source.clone()
        }));
    }
    before != state.objects.len()
}

fn source_of_another_mac(state: &mut HostState, rng: &mut StdRng) -> bool {
    let sources = sources(state, None);
    let others: Vec<&Source> = sources.iter().filter(|s| s.mac != OTHER_MAC).collect();
    let Some(source) = others.choose(rng) else {
        return false;
    };
    let key = Object::Source((*source).clone()).key();
    state.objects.remove(&key);
    let mac = OTHER_MAC;
    state.insert(Object::Source(Source {
        mac,
        ..(*source).clone()
    }));
    true
}

fn unchecked_port(state: &mut HostState, rng: &mut StdRng) -> bool {
    let Some(port) = element(state, rng, |e| e.set.0 == "ports") else {
        return false;
    };
    let set = "unchecked".into();
    add(state, Element { set, ..port })
}

fn spoofers_pass(state: &mut HostState, _: &mut StdRng) -> bool {
    chain_named(state, "from-port", |chain| {
        let before = chain.rules.len();
        chain.rules.retain(|rule| !drops(rule));
        chain.rules.push(rule(Verdict::Goto("checked".into())));
        before != chain.rules.len() - 1
    })
}

fn profile_of_another(state: &mut HostState, rng: &mut StdRng) -> bool {
    let links = state
        .objects
        .iter()
        .filter_map(|(key, object)| match object {
            Object::Link(link) => Some((key.clone(), link.group)),
            _ => None,
        });
    let links: Vec<(Key, u32)> = links.collect();
    let [Some((of, is)), Some((_, other))] = [(); 2].map(|()| links.choose(rng)) else {
        return false;
    };
    match state.objects.get_mut(of) {
        Some(Object::Link(link)) => link.group = *other,
        _ => return false,
    }
    is != other
}

fn ends_swapped(state: &mut HostState, _: &mut StdRng) -> bool {
    each_lookup_of_groups(state, |part| match part.field {
        Field::Saddr(family) => {
            part.field = Field::Daddr(family);
            true
        }
        _ => false,
    })
}

fn group_left_out(state: &mut HostState, _: &mut StdRng) -> bool {
    let mut done = false;
    each_chain(state, |chain| {
        let several = chain.rules.len() > 2 && chain.name.0.starts_with("pe-");
        if done || !several {
            return false;
        }
        chain.rules.remove(0);
        done = true;
        true
    })
}

fn port_off_by_one(state: &mut HostState, rng: &mut StdRng) -> bool {
    let with_port = |e: &Element| of_rule(e) && e.key.iter().any(|v| matches!(v, Value::Port(_)));
    let found = element(state, rng, with_port);
    change(state, found, |element| {
        for value in &mut element.key {
            if let Value::Port(port) = value {
                *port = port.wrapping_add(1);
            }
        }
        true
    })
}

fn port_mask_widened(state: &mut HostState, _: &mut StdRng) -> bool {
    let widen = |part: &mut KeyPart| {
        let mask = part.mask.take().unwrap_or_else(|| vec![0xff, 0xff]);
        let mask = u16::from_be_bytes([mask[0], mask[1]]) << 1;
        part.mask = Some(mask.to_be_bytes().to_vec());
    };
    each_lookup_of_groups(state, |part| {
        let is_it = part.field == Field::Dport;
        if is_it {
            widen(part);
        }
        is_it
    })
}

/// Changes what the rules of groups look at.
fn each_lookup_of_groups(
    state: &mut HostState,
    mut change: impl FnMut(&mut KeyPart) -> bool,
) -> bool {
    each_chain(state, |chain| {
        if !chain.name.0.starts_with("gi-") {
            return false;
        }
        let statements = chain.rules.iter_mut().flat_map(|rule| &mut rule.statements);
        let mut changed = false;
        for statement in statements {
            if let Statement::Lookup(lookup) = statement {
                for part in &mut lookup.key {
                    changed |= change(part);
                }
            }
        }
        changed
    })
}

fn element_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, of_rule);
    remove(state, found.as_ref())
}

fn icmp_type_wrong(state: &mut HostState, rng: &mut StdRng) -> bool {
    let of_icmp = |e: &Element| {
        let by_type = ["type", "code"].iter().any(|shape| e.set.0.contains(shape));
        of_rule(e) && by_type
    };
    let found = element(state, rng, of_icmp);
    change(state, found, |element| {
        let Some(Value::U8(icmp_type)) = element.key.first_mut() else {
            return false;
        };
        *icmp_type += 1;
        true
    })
}

fn remote_prefix_wrong(state: &mut HostState, rng: &mut StdRng) -> bool {
    let with_prefix = |e: &Element| of_rule(e) && e.key.iter().any(|v| matches!(v, Value::Addr(_)));
    let found = element(state, rng, with_prefix);
    change(state, found, |element| {
        for value in &mut element.key {
            if let Value::Addr(addr) = value {
                *addr = beside(*addr);
            }
        }
        true
    })
}

/// An address in another network.
fn beside(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::V4((u32::from(addr) ^ 1 << 31).into()),
        IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) ^ 1 << 127).into()),
    }
}

fn family_swapped(state: &mut HostState, _: &mut StdRng) -> bool {
    each_chain(state, |chain| {
        let of_group = chain.name.0.starts_with("ge-");
        let swap = |statement: &mut Statement| match statement {
            Statement::Compare(part, _, Value::Family(family)) if part.field == Field::NfProto => {
                *family = match family {
                    Family::V4 => Family::V6,
                    Family::V6 => Family::V4,
                };
                true
            }
            _ => false,
        };
        let first = chain.rules.first_mut().filter(|_| of_group);
        // A rule for any service has no lookup that is of a family itself.
        let first = first.filter(|rule| rule.statements.len() == 2);
        first.is_some_and(|rule| rule.statements.iter_mut().any(swap))
    })
}

fn member(element: &Element) -> bool {
    element.set.0.starts_with("r4-") || element.set.0.starts_with("r6-")
}

fn members_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let Some(one) = element(state, rng, member) else {
        return false;
    };
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Element(_, element) => element.set != one.set,
        _ => true,
    });
    before != state.objects.len()
}

fn members_added(state: &mut HostState, rng: &mut StdRng) -> bool {
    let Some(of) = element(state, rng, |e| e.set.0.starts_with("r6-")) else {
        return false;
    };
    let before = state.objects.len();
    for source in sources(state, Some(Family::V6)) {
        let key = vec![Value::Addr(source.addr)];
        add(state, Element { key, ..of.clone() });
    }
    before != state.objects.len()
}

fn guard_bypassed(state: &mut HostState, _: &mut StdRng) -> bool {
    chain_named(state, "guard", |chain| {
        chain.rules.insert(0, rule(Verdict::Return));
        true
    })
}

fn discovery_forwarded(state: &mut HostState, _: &mut StdRng) -> bool {
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Element(_, element) => element.set.0 != "nd-types",
        _ => true,
    });
    before != state.objects.len()
}

fn dhcp_forwarded(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, named("dhcp-clients"));
    remove(state, found.as_ref())
}

fn invalid_passes(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "invalid" && drops(rule)
    })
}

fn looks_at(rule: &NftRule, wanted: hextet_model::state::CtState) -> bool {
    let mut statements = rule.statements.iter();
    statements.any(|s| matches!(s, Statement::CtStateIn(states) if states.contains(&wanted)))
}

fn answers_judged(state: &mut HostState, _: &mut StdRng) -> bool {
    use hextet_model::state::CtState::Established;
    without(state, |_, rule| looks_at(rule, Established))
}

fn related_judged(state: &mut HostState, _: &mut StdRng) -> bool {
    use hextet_model::state::CtState::Related;
    without(state, |_, rule| looks_at(rule, Related))
}

fn errors_of_others(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| chain.name.0 == "errors" && drops(rule))
}

fn stateless_forgotten(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, |e| e.set.0 == "stateless");
    remove(state, found.as_ref())
}

fn private_reached(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "private" && drops(rule)
    })
}

fn private_leaks(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, _| chain.name.0 == "postrouting")
}

fn translated_inside(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        let accepts = rule
            .statements
            .contains(&Statement::Verdict(Verdict::Accept));
        chain.name.0 == "postrouting" && accepts
    })
}

fn nat_range_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
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

fn route_to_another(state: &mut HostState, rng: &mut StdRng) -> bool {
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

fn neighbour_wrong(state: &mut HostState, _: &mut StdRng) -> bool {
    let mut changed = false;
    for object in state.objects.values_mut() {
        if let Object::Neighbour(neighbour) = object {
            neighbour.mac = OTHER_MAC;
            changed = true;
        }
    }
    changed
}

fn black_hole_missing(state: &mut HostState, _: &mut StdRng) -> bool {
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Route(route) => route.kind != RouteKind::Blackhole,
        _ => true,
    });
    before != state.objects.len()
}

fn link_state_swapped(state: &mut HostState, rng: &mut StdRng) -> bool {
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

fn host_open(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "to-host" && drops(rule)
    })
}

fn unknown_ports_pass(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |_, rule| {
        let mut statements = rule.statements.iter();
        statements.any(|s| matches!(s, Statement::NamePrefix(..)))
    })
}
