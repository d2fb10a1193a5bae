//! What has to be done so that what stands becomes what is desired. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    Chain, Key, LimiterName, Link, Netns, Object, SetName, Statement, Value,
};

use hextet_types::{Family, IfName};

use super::op::{Op, Phase, Standing};

/// All operations, in a safe order: services end, then policy changes, then services begin, then policy
/// that nothing needs any longer ends.
pub fn diff(desired: &BTreeMap<Key, Object>, actual: &BTreeMap<Key, Standing>) -> Vec<Op> {
    let mut ops: Vec<Op> = desired
        .iter()
        .filter_map(|(key, object)| compare(Some(object), actual.get(key), key))
        .collect();
    let gone = actual.keys().filter(|key| !desired.contains_key(*key));
    ops.extend(gone.cloned().map(Op::Delete));
    ordered(ops, desired)
}

/// As [`diff`], for these keys only.
pub fn diff_keys<'a>(
    keys: impl IntoIterator<Item = &'a Key>,
    desired: &BTreeMap<Key, Object>,
    actual: &BTreeMap<Key, Standing>,
) -> Vec<Op> {
    let ops = keys
        .into_iter()
        .filter_map(|key| compare(desired.get(key), actual.get(key), key))
        .collect();
    ordered(ops, desired)
}

fn compare(desired: Option<&Object>, actual: Option<&Standing>, key: &Key) -> Option<Op> {
    match (desired, actual) {
        (None, None) => None,
        (Some(object), None) => Some(Op::Create(object.clone())),
        (None, Some(_)) => Some(Op::Delete(key.clone())),
        (Some(object), Some(Standing::As(is))) if is == object => None,
        (Some(object), Some(was)) => Some(Op::Replace {
            new: object.clone(),
            was: was.clone(),
        }),
    }
}

fn ordered(mut ops: Vec<Op>, desired: &BTreeMap<Key, Object>) -> Vec<Op> {
    let remade: BTreeSet<(Netns, SetName)> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Replace {
                new: Object::Set(netns, set),
                ..
            } => Some((netns.clone(), set.name.clone())),
            _ => None,
        })
        .collect();
    if !remade.is_empty() {
        ops = with_remade_sets(ops, &remade, desired);
    }
    with_elements_of_remade_limiters(&mut ops, desired);
    with_neighbours_of_changed_links(&mut ops, desired);
    let regroups = ops.iter().any(regroups);
    let phase = |op: &Op| match op.phase() {
        Phase::Table if regroups && matches!(op, Op::Delete(_)) => Phase::TableEnds,
        phase => phase,
    };
    ops.sort_by(|a, b| (phase(a), a.netns()).cmp(&(phase(b), b.netns())));
    ops
}

/// Whether a link comes into another group: as long as it is in the old one, rules for that must stand.
fn regroups(op: &Op) -> bool {
    matches!(
        op,
        Op::Replace {
            new: Object::Link(_) | Object::Veth(_),
            ..
        }
    )
}

/// A link that gets another Ethernet address loses its neighbours, permanent ones too.
fn with_neighbours_of_changed_links(ops: &mut Vec<Op>, desired: &BTreeMap<Key, Object>) {
    let mut changed: Vec<(Netns, IfName)> = Vec::new();
    for op in ops.iter() {
        let Op::Replace { new, was } = op else {
            continue;
        };
        match new {
            Object::Link(link) if keeps_address(link, was) => {}
            Object::Link(link) => changed.push((link.netns.clone(), link.name.clone())),
            Object::Vxlan(vxlan) => changed.push((vxlan.netns.clone(), vxlan.name.clone())),
            Object::Veth(veth) => changed.extend([
                (veth.netns.clone(), veth.name.clone()),
                (veth.peer_netns.clone(), veth.peer.clone()),
            ]),
            _ => {}
        }
    }
    if changed.is_empty() {
        return;
    }
    let touched: BTreeSet<Key> = ops.iter().map(Op::key).collect();
    for (netns, link) in changed {
        let from = Key::Neighbour(netns.clone(), link.clone(), Family::V4.unspecified());
        let on_link =
            |key: &Key| matches!(key, Key::Neighbour(n, l, _) if *n == netns && *l == link);
        for (key, object) in desired.range(from..).take_while(|(key, _)| on_link(key)) {
            if !touched.contains(key) {
                let was = Standing::As(object.clone());
                ops.push(Op::Replace {
                    new: object.clone(),
                    was,
                });
            }
        }
    }
}

fn keeps_address(link: &Link, was: &Standing) -> bool {
    matches!(was, Standing::As(Object::Link(was)) if was.mac == link.mac)
}

/// A set cannot change its type: it goes and comes again, and so must its elements, and the rules that look
/// into it.
fn with_remade_sets(
    ops: Vec<Op>,
    remade: &BTreeSet<(Netns, SetName)>,
    desired: &BTreeMap<Key, Object>,
) -> Vec<Op> {
    let in_remade = |key: &Key| match key {
        Key::Element(netns, set, _) => remade.contains(&(netns.clone(), set.clone())),
        _ => false,
    };
    let mut ops: Vec<Op> = ops.into_iter().filter(|op| !in_remade(&op.key())).collect();
    let touched: BTreeSet<Key> = ops.iter().map(Op::key).collect();
    for (key, object) in desired {
        match object {
            Object::Element(..) if in_remade(key) => ops.push(Op::Create(object.clone())),
            Object::Chain(netns, chain) if !touched.contains(key) => {
                let refers = |set: &SetName| remade.contains(&(netns.clone(), set.clone()));
                if sets_of(chain).any(refers) {
                    let was = Standing::As(object.clone());
                    ops.push(Op::Replace {
                        new: object.clone(),
                        was,
                    });
                }
            }
            _ => {}
        }
    }
    ops
}

/// A limiter that somebody has changed goes and comes again; meanwhile nothing may lead to it.
fn with_elements_of_remade_limiters(ops: &mut Vec<Op>, desired: &BTreeMap<Key, Object>) {
    let remade: BTreeSet<(Netns, LimiterName)> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Replace {
                new: Object::Limiter(netns, limiter),
                ..
            } => Some((netns.clone(), limiter.name.clone())),
            _ => None,
        })
        .collect();
    if remade.is_empty() {
        return;
    }
    let touched: BTreeSet<Key> = ops.iter().map(Op::key).collect();
    for (key, object) in desired {
        let Object::Element(netns, element) = object else {
            continue;
        };
        let leads_there = match &element.data[..] {
            [Value::Limiter(name)] => remade.contains(&(netns.clone(), name.clone())),
            _ => false,
        };
        if leads_there && !touched.contains(key) {
            let was = Standing::As(object.clone());
            ops.push(Op::Replace {
                new: object.clone(),
                was,
            });
        }
    }
}

fn sets_of(chain: &Chain) -> impl Iterator<Item = &SetName> {
    let statements = chain.rules.iter().flat_map(|rule| &rule.statements);
    statements.filter_map(|statement| match statement {
        Statement::Lookup(lookup) => Some(&lookup.set),
        Statement::VerdictMap(_, set)
        | Statement::Dynamic(_, set, _)
        | Statement::LimitMap(_, set)
        | Statement::NatMap(_, _, set, _) => Some(set),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use hextet_model::state::{
        Element, Fdb, KeyType, Lookup, Namespace, Neighbour, NextHop, NftRule, Patch, Route,
        RouteKey, RouteKind, Set, Sysctl, Verdict, Veth,
    };
    use hextet_types::Mac;

    use super::*;

    fn route(prefix: &str, link: &str) -> Object {
        Object::Route(Route {
            key: RouteKey {
                netns: Netns::Main,
                table: 254,
                prefix: prefix.parse().expect("a prefix"),
                source: None,
                metric: 0,
            },
            kind: RouteKind::Unicast(vec![NextHop {
                via: None,
                link: link.parse().expect("a name"),
            }]),
            prefsrc: None,
        })
    }

    fn set(key: KeyType) -> Object {
        let set = Set {
            name: "s".into(),
            key: vec![key],
            verdicts: false,
            data: Vec::new(),
            dynamic: None,
        };
        Object::Set(Netns::Main, set)
    }

    fn element(value: Value) -> Object {
        Object::Element(
            Netns::Main,
            Element {
                set: "s".into(),
                key: vec![value],
                verdict: None,
                data: Vec::new(),
            },
        )
    }

    fn chain() -> Object {
        let lookup = Lookup {
            key: vec![hextet_model::state::Field::Dport.into()],
            set: "s".into(),
            negate: false,
        };
        let rule = NftRule {
            statements: vec![Statement::Lookup(lookup), Statement::Verdict(Verdict::Drop)],
            comment: None,
        };
        let chain = Chain {
            name: "c".into(),
            hook: None,
            rules: vec![rule],
        };
        Object::Chain(Netns::Main, chain)
    }

    fn states(objects: Vec<Object>) -> BTreeMap<Key, Object> {
        objects
            .into_iter()
            .map(|object| (object.key(), object))
            .collect()
    }

    fn standing(objects: Vec<Object>) -> BTreeMap<Key, Standing> {
        objects
            .into_iter()
            .map(|object| (object.key(), object.into()))
            .collect()
    }

    fn lines(ops: &[Op]) -> Vec<String> {
        ops.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_of_a_links_old_group_stand_until_it_has_left() {
        let link = |group, mtu| {
            Object::Link(Link {
                netns: Netns::Main,
                name: "tap1".parse().expect("a name"),
                mac: Mac::new([2, 0, 0, 0, 0, 1]),
                mtu,
                group,
                up: true,
            })
        };
        let neighbour = Object::Neighbour(Neighbour {
            netns: Netns::Main,
            link: "tap1".parse().expect("a name"),
            addr: "192.0.2.9".parse().expect("an address"),
            mac: Mac::new([2, 0, 0, 0, 0, 2]),
        });
        let kind = KeyType::DevGroup;
        let desired = vec![set(kind), element(Value::U32(8)), link(8, 1500), neighbour];
        let mut before = desired.clone();
        before[1] = element(Value::U32(7));
        before[2] = link(7, 1500);
        let (desired, before) = (states(desired), standing(before));
        assert_eq!(
            lines(&diff(&desired, &before)),
            [
                "+ nft element s 0x8",
                "~ link tap1 address 02:00:00:00:00:01 mtu 1500 group 8 up (was: link tap1 \
                 address 02:00:00:00:00:01 mtu 1500 group 7 up)",
                "- nft element s 0x7",
            ]
        );
    }

    #[test]
    fn services_end_first_and_begin_last() {
        let sysctl = |value: &str| {
            Object::Sysctl(Sysctl {
                netns: Netns::Main,
                path: "net/a".to_owned(),
                value: value.to_owned(),
            })
        };
        let desired = states(vec![
            sysctl("1"),
            set(KeyType::InetService),
            route("2001:db8::5/128", "tap2"),
            route("192.0.2.9/32", "tap1"),
        ]);
        let actual = standing(vec![
            sysctl("0"),
            route("192.0.2.9/32", "tap1"),
            route("::/0", "tap1"),
        ]);
        assert_eq!(
            lines(&diff(&desired, &actual)),
            [
                "- route ::/0",
                "~ sysctl net/a = 1 (was: sysctl net/a = 0)",
                "+ nft set s type inet_service",
                "+ route 2001:db8::5/128 dev tap2 proto hextet",
            ]
        );
        let same = standing(desired.values().cloned().collect());
        assert_eq!(diff(&desired, &same), []);
    }

    #[test]
    fn a_set_of_another_type_is_made_anew_with_all_that_hangs_on_it() {
        let desired = states(vec![
            set(KeyType::InetService),
            element(Value::Port(22)),
            chain(),
        ]);
        let mut actual = standing(vec![set(KeyType::Mark), element(Value::U32(22)), chain()]);
        actual.insert(
            element(Value::Port(22)).key(),
            element(Value::Port(22)).into(),
        );
        let expected = [
            "~ nft set s type inet_service (was: nft set s type mark)",
            "+ nft element s 22",
            "~ nft chain c with 1 rules (with what it refers to)",
        ];
        let ops = diff(&desired, &actual);
        assert_eq!(lines(&ops).iter().collect::<BTreeSet<_>>().len(), 3);
        for line in expected {
            assert!(
                lines(&ops).iter().any(|l| l == line),
                "{line} in {:?}",
                lines(&ops)
            );
        }
    }

    /// A network with a port, smallest.
    fn network() -> Vec<Object> {
        let netns = || Netns::Named("hx-1".to_owned());
        let (mac, name) = (Mac::new([2; 6]), |name: &str| name.parse().expect("a name"));
        vec![
            Object::Patch(Patch {
                netns: netns(),
                tap: name("tap1"),
                outer: name("o1"),
            }),
            Object::Fdb(Fdb {
                netns: netns(),
                link: name("vxlan"),
                mac,
                dst: "192.0.2.2".parse().expect("an address"),
            }),
            Object::Set(
                netns(),
                Set {
                    name: "s".into(),
                    key: vec![KeyType::Mark],
                    verdicts: false,
                    data: Vec::new(),
                    dynamic: None,
                },
            ),
            Object::Neighbour(Neighbour {
                netns: netns(),
                link: name("p1"),
                addr: "192.0.2.9".parse().expect("an address"),
                mac,
            }),
            Object::Veth(Veth {
                netns: netns(),
                name: name("p1"),
                mac,
                mtu: 1400,
                peer_netns: Netns::Main,
                peer: name("o1"),
                peer_mac: mac,
                peer_group: 0,
            }),
            Object::Namespace(Namespace {
                name: "hx-1".to_owned(),
            }),
        ]
    }

    #[test]
    fn a_network_is_made_from_the_bottom_and_taken_away_from_the_top() {
        let desired = states(network());
        let made = [
            "+ network namespace hx-1",
            "+ veth pair p1 address 02:02:02:02:02:02 mtu 1400 peer o1 address 02:02:02:02:02:02 in main in hx-1",
            "+ nft set s type mark in hx-1",
            "+ neighbour 192.0.2.9 dev p1 lladdr 02:02:02:02:02:02 permanent in hx-1",
            "+ FDB entry 02:02:02:02:02:02 dev vxlan dst 192.0.2.2 in hx-1",
            "+ patch tap1 to o1 in hx-1",
        ];
        assert_eq!(lines(&diff(&desired, &BTreeMap::new())), made);
        let ended = [
            "- patch tap1",
            "- FDB entry 02:02:02:02:02:02 dev vxlan in hx-1",
            "- neighbour 192.0.2.9 dev p1 in hx-1",
            "- veth pair p1 in hx-1",
            "- network namespace hx-1",
            "- nft set s in hx-1",
        ];
        assert_eq!(lines(&diff(&BTreeMap::new(), &standing(network()))), ended);
    }

    #[test]
    fn neighbours_on_a_pair_with_another_address_are_said_again() {
        let mut desired = states(network());
        for object in desired.values_mut() {
            if let Object::Veth(veth) = object {
                veth.mac = Mac::new([4; 6]);
            }
        }
        let ops = lines(&diff(&desired, &standing(network())));
        assert_eq!(ops.len(), 2, "{ops:?}");
        assert!(
            ops[1].starts_with("~ neighbour 192.0.2.9 dev p1"),
            "{ops:?}"
        );
    }

    #[test]
    fn only_the_keys_asked_for_are_compared() {
        let desired = states(vec![
            route("192.0.2.1/32", "tap1"),
            route("192.0.2.2/32", "tap2"),
        ]);
        let keys = [route("192.0.2.2/32", "tap2").key()];
        let ops = diff_keys(&keys, &desired, &BTreeMap::new());
        assert_eq!(lines(&ops), ["+ route 192.0.2.2/32 dev tap2 proto hextet"]);
    }
}
