//! Faults of what packets are judged by: sources, profiles, groups, and what no group can allow.

use std::net::IpAddr;

use hextet_model::state::{
    Element, Field, HostState, Key, KeyPart, NftRule, Object, Source, Statement, Value, Verdict,
};
use hextet_types::Family;
use rand::{rngs::StdRng, seq::IndexedRandom as _};

use super::{
    add, chain_named, change, drops, each_chain, element, named, of_rule, remove, rule, sources,
    without,
};
use crate::make::OTHER_MAC;

pub fn source_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let sources = sources(state, None);
    let Some(gone) = sources.choose(rng) else {
        return false;
    };
    let key = Object::Source(gone.clone()).key();
    state.objects.remove(&key).is_some()
}

pub fn wide_source_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let source = element(state, rng, named("sources"));
    remove(state, source.as_ref())
}

pub fn source_of_another(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn source_of_another_mac(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn unchecked_port(state: &mut HostState, rng: &mut StdRng) -> bool {
    let Some(port) = element(state, rng, |e| e.set.0 == "ports") else {
        return false;
    };
    let set = "unchecked".into();
    add(state, Element { set, ..port })
}

pub fn spoofers_pass(state: &mut HostState, _: &mut StdRng) -> bool {
    chain_named(state, "from-port", |chain| {
        let before = chain.rules.len();
        chain.rules.retain(|rule| !drops(rule));
        chain.rules.push(rule(Verdict::Goto("checked".into())));
        before != chain.rules.len() - 1
    })
}

pub fn profile_of_another(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn ends_swapped(state: &mut HostState, _: &mut StdRng) -> bool {
    each_lookup_of_groups(state, |part| match part.field {
        Field::Saddr(family) => {
            part.field = Field::Daddr(family);
            true
        }
        _ => false,
    })
}

pub fn group_left_out(state: &mut HostState, _: &mut StdRng) -> bool {
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

pub fn port_off_by_one(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn port_mask_widened(state: &mut HostState, _: &mut StdRng) -> bool {
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

pub fn element_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, of_rule);
    remove(state, found.as_ref())
}

pub fn icmp_type_wrong(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn remote_prefix_wrong(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn family_swapped(state: &mut HostState, _: &mut StdRng) -> bool {
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

pub fn members_missing(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn members_added(state: &mut HostState, rng: &mut StdRng) -> bool {
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

pub fn guard_bypassed(state: &mut HostState, _: &mut StdRng) -> bool {
    chain_named(state, "guard", |chain| {
        chain.rules.insert(0, rule(Verdict::Return));
        true
    })
}

pub fn discovery_forwarded(state: &mut HostState, _: &mut StdRng) -> bool {
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Element(_, element) => element.set.0 != "nd-types",
        _ => true,
    });
    before != state.objects.len()
}

pub fn dhcp_forwarded(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, named("dhcp-clients"));
    remove(state, found.as_ref())
}

pub fn invalid_passes(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| {
        chain.name.0 == "invalid" && drops(rule)
    })
}

fn looks_at(rule: &NftRule, wanted: hextet_model::state::CtState) -> bool {
    let mut statements = rule.statements.iter();
    statements.any(|s| matches!(s, Statement::CtStateIn(states) if states.contains(&wanted)))
}

pub fn answers_judged(state: &mut HostState, _: &mut StdRng) -> bool {
    use hextet_model::state::CtState::Established;
    without(state, |_, rule| looks_at(rule, Established))
}

pub fn related_judged(state: &mut HostState, _: &mut StdRng) -> bool {
    use hextet_model::state::CtState::Related;
    without(state, |_, rule| looks_at(rule, Related))
}

pub fn errors_of_others(state: &mut HostState, _: &mut StdRng) -> bool {
    without(state, |chain, rule| chain.name.0 == "errors" && drops(rule))
}

pub fn stateless_forgotten(state: &mut HostState, rng: &mut StdRng) -> bool {
    let found = element(state, rng, |e| e.set.0 == "stateless");
    remove(state, found.as_ref())
}
