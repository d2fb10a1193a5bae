//! What 10,000 ports cost, in CPU time of user and system together. Not part of a quick run:
//! `cargo test --release -p hextet-kernel --test scale -- --ignored --nocapture`.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hextet_kernel::{Op, Scope, diff};
use hextet_model::state::{
    Address, Chain, ChainHook, CmpOp, EdgeProgram, Element, Field, Hook, Key, KeyType, Link,
    Lookup, Neighbour, Netns, NextHop, NftRule, Object, Policy, Route, RouteKey, RouteKind, Set,
    Source, Statement, Value, Verdict,
};
use hextet_types::{Family, IfName, Mac, Prefix};
use nix::sys::resource::{UsageWho, getrusage};
use support::{GATEWAY, Host, NamedNetns, isolated, name, run, states};

const PORTS: u32 = 10_000;
const MAIN: Netns = Netns::Main;

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("our own usage");
    let time = |t: nix::sys::time::TimeVal| {
        Duration::new(t.tv_sec().unsigned_abs(), t.tv_usec() as u32 * 1000)
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let before = cpu();
    let result = work();
    println!(
        "{what:48} {:10.3} ms CPU",
        (cpu() - before).as_secs_f64() * 1000.0
    );
    result
}

fn set(name: &str, key: Vec<KeyType>, verdicts: bool) -> Object {
    Object::Set(
        MAIN,
        Set {
            name: name.into(),
            key,
            verdicts,
            data: Vec::new(),
            dynamic: None,
        },
    )
}

fn element(set: &str, key: Vec<Value>, verdict: Option<Verdict>) -> Object {
    let set = set.into();
    Object::Element(
        MAIN,
        Element {
            set,
            key,
            verdict,
            data: Vec::new(),
        },
    )
}

fn chain(name: &str, hook: Option<Hook>, rules: Vec<Vec<Statement>>) -> Object {
    let hook = hook.map(|hook| ChainHook {
        hook,
        priority: 0,
        policy: Policy::Accept,
        nat: false,
    });
    let rules = rules
        .into_iter()
        .map(|statements| NftRule {
            statements,
            comment: None,
        })
        .collect();
    Object::Chain(
        MAIN,
        Chain {
            name: name.into(),
            hook,
            rules,
        },
    )
}

fn table() -> Vec<Object> {
    let lookup = |key: Vec<Field>, set: &str| {
        let key = key.into_iter().map(Into::into).collect();
        Statement::Lookup(Lookup {
            key,
            set: set.into(),
            negate: false,
        })
    };
    let accept = || Statement::Verdict(Verdict::Accept);
    let mut objects = vec![
        set("ports", vec![KeyType::IfName], false),
        set("egress", vec![KeyType::DevGroup], true),
        set("ingress", vec![KeyType::DevGroup], true),
        chain(
            "prerouting",
            Some(Hook::Prerouting),
            vec![vec![
                lookup(vec![Field::IifName], "ports"),
                Statement::Verdict(Verdict::Drop),
            ]],
        ),
        chain(
            "forward",
            Some(Hook::Forward),
            vec![
                vec![Statement::VerdictMap(
                    vec![Field::IifGroup.into()],
                    "egress".into(),
                )],
                vec![Statement::VerdictMap(
                    vec![Field::OifGroup.into()],
                    "ingress".into(),
                )],
            ],
        ),
    ];
    let family = Family::V6;
    let key = vec![KeyType::IfName, KeyType::EtherAddr, KeyType::Addr(family)];
    objects.push(set("link-locals", key, false));
    for profile in 0..20 {
        for direction in ["pe", "pi"] {
            let group = format!("g-{direction}-{profile}");
            let rules = (0..10).map(|n| {
                let port = Value::Port(n * 7 + 1);
                vec![
                    Statement::Compare(Field::Dport.into(), CmpOp::Eq, port),
                    accept(),
                ]
            });
            objects.push(chain(&group, None, rules.collect()));
            let jump = Statement::Verdict(Verdict::Jump(group.as_str().into()));
            let to = format!("{direction}-{profile}");
            let drop = vec![Statement::Counter, Statement::Verdict(Verdict::Drop)];
            objects.push(chain(&to, None, vec![vec![jump], drop]));
            let map = match direction {
                "pe" => "egress",
                _ => "ingress",
            };
            let verdict = Some(Verdict::Goto(to.as_str().into()));
            let key = vec![Value::U32(profile + 1)];
            objects.push(element(map, key, verdict));
        }
    }
    objects
}

fn tap(n: u32) -> IfName {
    name(&format!("tap{n:08x}-00"))
}

/// Where the host's ICMP errors come from. Without it the kernel searches all links for one, for each route.
fn source() -> Address {
    let addr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 1));
    Address {
        netns: MAIN,
        link: name("lo"),
        addr,
        prefix_len: 32,
    }
}

fn port(n: u32) -> Vec<Object> {
    let link = tap(n);
    let [_, a, b, c] = n.to_be_bytes();
    let mac = Mac::new([2, 0, 0, a, b, c]);
    let v4 = IpAddr::V4(Ipv4Addr::new(10, a, b, c));
    let v6 = IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)));
    let local = IpAddr::V6(mac.link_local());
    let up = Link {
        netns: MAIN,
        name: link.clone(),
        mac: GATEWAY,
        mtu: 1500,
        group: n % 20 + 1,
        up: true,
    };
    let mut objects = vec![
        Object::Link(up),
        Object::EdgeProgram(EdgeProgram {
            netns: MAIN,
            link: link.clone(),
        }),
    ];
    let of_port = |set: &str, rest: Vec<Value>| {
        let mut key = vec![Value::IfName(tap(n))];
        key.extend(rest);
        element(set, key, None)
    };
    objects.push(of_port("ports", vec![]));
    for addr in [v4, v6, local] {
        objects.push(match addr == local {
            true => of_port("link-locals", vec![Value::Mac(mac), Value::Addr(addr)]),
            false => Object::Source(Source {
                netns: MAIN,
                link: link.clone(),
                mac,
                addr,
            }),
        });
        let link = link.clone();
        objects.push(Object::Neighbour(Neighbour {
            netns: MAIN,
            link,
            addr,
            mac,
        }));
    }
    objects.extend([v4, v6].map(|addr| route(addr, &link)));
    objects
}

fn route(addr: IpAddr, link: &IfName) -> Object {
    let prefsrc = addr.is_ipv4().then(|| source().addr);
    let prefix = Prefix::host(addr);
    let key = RouteKey {
        netns: MAIN,
        table: 254,
        prefix,
        source: None,
        metric: 0,
    };
    let hops = vec![NextHop {
        via: None,
        link: link.clone(),
    }];
    Object::Route(Route {
        key,
        kind: RouteKind::Unicast(hops),
        prefsrc,
    })
}

fn make_links(peers: &NamedNetns, carrier: bool) {
    // As on a real host: room for so many neighbours, no address of one's own, no RA.
    run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1 net.ipv6.conf.default.accept_ra=0");
    let batch = tempfile::NamedTempFile::new().expect("a file");
    let lines: String = (0..=PORTS)
        .map(|n| {
            format!(
                "link add {} type veth peer name p{n} netns {}\n",
                tap(n),
                peers.0
            )
        })
        .collect();
    std::fs::write(batch.path(), lines).expect("written");
    run(&format!("ip -batch {}", batch.path().display()));
    if carrier {
        let lines: String = (0..=PORTS).map(|n| format!("link set p{n} up\n")).collect();
        std::fs::write(batch.path(), lines).expect("written");
        peers.run(&format!("ip -batch {}", batch.path().display()));
    }
}

fn apply(host: &mut Host, keys: &BTreeSet<Key>, desired: &BTreeMap<Key, Object>) -> usize {
    let report = host.kernel.reconcile_keys(keys, desired);
    assert!(report.is_complete(), "{:?}", report.failed.first());
    report.applied
}

/// As [`hextet_kernel::Kernel::reconcile`] does it, with a line for each kind of object.
fn cold_start(host: &mut Host, desired: &BTreeMap<Key, Object>) {
    let scope = Scope::of(desired);
    let actual = timed("  dump", || host.kernel.dump(&scope).expect("a dump"));
    let ops = timed("  diff", || diff(desired, &actual));
    by_kind(host, ops);
}

fn by_kind(host: &mut Host, mut ops: Vec<Op>) {
    let kind = |op: &Op| match op.key() {
        Key::Limiter(..) | Key::Set(..) | Key::Chain(..) | Key::Element(..) => "nft".to_owned(),
        _ => op
            .to_string()
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" "),
    };
    while !ops.is_empty() {
        let first = kind(&ops[0]);
        let end = ops
            .iter()
            .position(|op| kind(op) != first)
            .unwrap_or(ops.len());
        let rest = ops.split_off(end);
        let report = timed(&format!("  {} {first}", ops.len()), || {
            host.kernel.apply(ops)
        });
        assert!(report.is_complete(), "{:?}", report.failed.first());
        ops = rest;
    }
}

#[test]
#[ignore = "takes half a minute"]
fn ten_thousand_ports_that_nobody_uses_yet() {
    ten_thousand_ports(false);
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_ports_with_a_carrier() {
    ten_thousand_ports(true);
}

fn ten_thousand_ports(carrier: bool) {
    let peers = NamedNetns::create();
    isolated(|| {
        make_links(&peers, carrier);
        let mut objects = table();
        objects.push(Object::Address(source()));
        objects.extend((0..PORTS).flat_map(port));
        let mut desired = states(objects);
        println!("{} objects", desired.len());
        let mut host = Host::open();
        timed("cold start into an empty kernel", || {
            cold_start(&mut host, &desired)
        });

        let mut restarted = timed("open", Host::open);
        let report = timed("restart", || {
            restarted
                .kernel
                .reconcile(&Scope::of(&desired))
                .expect("a dump")
        });
        assert_eq!((report.applied, report.is_complete()), (0, true));

        let one_more = states(port(PORTS));
        let keys = one_more.keys().cloned().collect();
        desired.extend(one_more);
        let done = timed("one port more", || apply(&mut restarted, &keys, &desired));
        assert_eq!(done, keys.len());
        for key in &keys {
            desired.remove(key);
        }
        timed("one port less", || apply(&mut restarted, &keys, &desired));
        timed("one port more, piece by piece", || {
            by_kind(&mut restarted, diff(&states(port(PORTS)), &BTreeMap::new()));
        });

        let elements: Vec<Object> = (0..10_000u32)
            .map(|n| {
                let key = vec![Value::IfName(name(&format!("x{n}")))];
                element("ports", key, None)
            })
            .collect();
        let mut keys = BTreeSet::new();
        for element in &elements {
            keys.insert(element.key());
            desired.insert(element.key(), element.clone());
        }
        timed("10,000 elements more, in one transaction", || {
            apply(&mut restarted, &keys, &desired)
        });
        let one = elements[0].key();
        let gone = desired.remove(&one).expect("there");
        let key = BTreeSet::from([one.clone()]);
        apply(&mut restarted, &key, &desired);
        desired.insert(one, gone);
        timed("one element more", || apply(&mut restarted, &key, &desired));
        timed("nothing to do, by keys", || {
            apply(&mut restarted, &key, &desired)
        });
    });
}
