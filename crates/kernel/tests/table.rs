//! The nftables encoder, with nft(8) as the judge: what it reads from our text it also finds in what we
//! wrote ourselves.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::collections::BTreeMap;

use hextet_kernel::Scope;
use hextet_model::state::{
    Chain, ChainHook, CmpOp, CtDirection, CtState, DynOp, Element, Field, Hook, Key, KeyPart,
    KeyType, Limit, LimitUnit, Limiter, LimiterRate, Lookup, MANGLE, NatEnd, NatRange, Netns,
    NftRule, Object, PktType, Policy, Set, Statement, Value, Verdict, table_text,
};
use hextet_types::{Family, Mac};
use support::{Host, isolated, name, run, states, try_run};

const MAIN: Netns = Netns::Main;

fn set(name: &str, key: Vec<KeyType>) -> Object {
    Object::Set(
        MAIN,
        Set {
            name: name.into(),
            key,
            verdicts: false,
            data: Vec::new(),
            dynamic: None,
        },
    )
}

fn map(name: &str, key: Vec<KeyType>) -> Object {
    Object::Set(
        MAIN,
        Set {
            name: name.into(),
            key,
            verdicts: true,
            data: Vec::new(),
            dynamic: None,
        },
    )
}

fn data_map(name: &str, key: Vec<KeyType>, data: Vec<KeyType>) -> Object {
    Object::Set(
        MAIN,
        Set {
            name: name.into(),
            key,
            verdicts: false,
            data,
            dynamic: None,
        },
    )
}

fn data_element(set: &str, key: Vec<Value>, data: Vec<Value>) -> Object {
    Object::Element(
        MAIN,
        Element {
            set: set.into(),
            key,
            verdict: None,
            data,
        },
    )
}

fn limiter(name: &str, rate: LimiterRate) -> Object {
    let name = name.into();
    Object::Limiter(MAIN, Limiter { name, rate })
}

fn leads(set: &str, key: Value, limiter: &str) -> Object {
    data_element(set, vec![key], vec![Value::Limiter(limiter.into())])
}

/// In a chain of type `route`.
fn by_code_point() -> Vec<NftRule> {
    let marked = |family, mask: &[u8], value| {
        let (value_of_mark, mask_of_mark) = (0x0200_0000, 0x0200_0000);
        rule(vec![
            compare(Field::NfProto, Value::Family(family)),
            Statement::Compare(masked(Field::Dscp(family), mask), CmpOp::Eq, value),
            Statement::SetMark {
                value: value_of_mark,
                mask: mask_of_mark,
            },
        ])
    };
    vec![
        marked(Family::V4, &[0xfc], Value::U8(10 << 2)),
        marked(Family::V6, &[0x0f, 0xc0], Value::Port(10 << 6)),
    ]
}

/// Limits by maps, and code points.
fn limited() -> Vec<Object> {
    let octets = LimiterRate::Octets(1_250_000, 65_536);
    let packets = LimiterRate::Packets(1_000, 800);
    let v4 = KeyType::Addr(Family::V4);
    let over = |field: Field, map: &str| {
        let limit = Statement::LimitMap(vec![field.into()], map.into());
        rule(vec![limit, Statement::Counter, end(Verdict::Drop)])
    };
    let limits = vec![
        over(Field::IifName, "limit-octets"),
        over(Field::Daddr(Family::V4), "limit-packets"),
        rule(vec![Statement::SetDscp(Family::V4, 46)]),
        rule(vec![Statement::SetDscp(Family::V6, 10)]),
        rule(vec![Statement::Count("meter-1".into())]),
    ];
    vec![
        limiter("l1", octets),
        limiter("l2", packets),
        Object::Counter(MAIN, "meter-1".into()),
        Object::Counter(MAIN, "meter-2".into()),
        data_map(
            "limit-octets",
            vec![KeyType::IfName],
            vec![KeyType::Limiter],
        ),
        data_map("limit-packets", vec![v4], vec![KeyType::Limiter]),
        leads("limit-octets", port(1), "l1"),
        leads("limit-packets", addr("10.0.0.1"), "l2"),
        chain("limits", hook(Hook::Forward, 10), limits),
        chain("many", hook(Hook::Output, MANGLE), by_code_point()),
    ]
}

/// Translation by maps, and what is refused with an answer.
fn mapped() -> Vec<Object> {
    let (daddr, saddr) = (Field::Daddr(Family::V4), Field::Saddr(Family::V4));
    let nat = |hook, priority| {
        Some(ChainHook {
            hook,
            priority,
            policy: Policy::Accept,
            nat: true,
        })
    };
    let by = |end, key, map: &str, port| Statement::NatMap(end, key, map.into(), port);
    let arriving = vec![
        rule(vec![
            compare(Field::IifName, Value::IfName(name("outside"))),
            by(NatEnd::Destination, vec![daddr.into()], "floating", false),
        ]),
        rule(vec![
            compare(Field::L4Proto, Value::U8(6)),
            by(
                NatEnd::Destination,
                vec![daddr.into(), Field::Dport.into()],
                "to-port",
                true,
            ),
        ]),
        rule(vec![
            compare(Field::L4Proto, Value::U8(17)),
            by(
                NatEnd::Destination,
                vec![daddr.into(), masked(Field::Dport, &[0xff, 0xf0])],
                "kept",
                false,
            ),
        ]),
    ];
    let leaving = rule(vec![by(
        NatEnd::Source,
        vec![saddr.into()],
        "floating-out",
        false,
    )]);
    let refused = vec![
        rule(vec![
            compare(Field::CtStatus, Value::U32(0x20)),
            end(Verdict::Accept),
        ]),
        rule(vec![Statement::Counter, Statement::Reject]),
    ];
    let mut objects = maps();
    objects.extend([
        chain("arriving", nat(Hook::Prerouting, -100), arriving),
        chain("leaving", nat(Hook::Postrouting, 99), vec![leaving]),
        chain("refused", None, refused),
    ]);
    objects
}

fn maps() -> Vec<Object> {
    let v4 = || KeyType::Addr(Family::V4);
    let service = || vec![v4(), KeyType::InetService];
    vec![
        data_map("floating", vec![v4()], vec![v4()]),
        data_map("floating-out", vec![v4()], vec![v4()]),
        data_map("to-port", service(), service()),
        data_map("kept", service(), vec![v4()]),
        data_element("floating", vec![addr("192.0.2.1")], vec![addr("10.0.0.1")]),
        data_element("floating", vec![addr("192.0.2.2")], vec![addr("10.0.0.2")]),
        data_element(
            "floating-out",
            vec![addr("10.0.0.1")],
            vec![addr("192.0.2.1")],
        ),
        data_element(
            "to-port",
            vec![addr("192.0.2.3"), Value::Port(80)],
            vec![addr("10.0.0.3"), Value::Port(8080)],
        ),
        data_element(
            "kept",
            vec![addr("192.0.2.3"), Value::Port(0x50)],
            vec![addr("10.0.0.3")],
        ),
    ]
}

fn dynamic(name: &str, key: Vec<KeyType>, size: u32) -> Object {
    Object::Set(
        MAIN,
        Set {
            name: name.into(),
            key,
            verdicts: false,
            data: Vec::new(),
            dynamic: Some(size),
        },
    )
}

fn element(set: &str, key: Vec<Value>, verdict: Option<Verdict>) -> Object {
    Object::Element(
        MAIN,
        Element {
            set: set.into(),
            key,
            verdict,
            data: Vec::new(),
        },
    )
}

fn chain(name: &str, hook: Option<ChainHook>, rules: Vec<NftRule>) -> Object {
    Object::Chain(
        MAIN,
        Chain {
            name: name.into(),
            hook,
            rules,
        },
    )
}

fn hook(hook: Hook, priority: i32) -> Option<ChainHook> {
    Some(ChainHook {
        hook,
        priority,
        policy: Policy::Accept,
        nat: false,
    })
}

fn rule(statements: Vec<Statement>) -> NftRule {
    NftRule {
        statements,
        comment: None,
    }
}

fn compare(field: Field, value: Value) -> Statement {
    Statement::Compare(field.into(), CmpOp::Eq, value)
}

fn masked(field: Field, mask: &[u8]) -> KeyPart {
    KeyPart {
        field,
        mask: Some(mask.to_vec()),
    }
}

fn lookup(key: Vec<KeyPart>, set: &str) -> Statement {
    Statement::Lookup(Lookup {
        key,
        set: set.into(),
        negate: false,
    })
}

fn end(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

fn port(n: u8) -> Value {
    Value::IfName(name(&format!("tap{n}")))
}

fn addr(text: &str) -> Value {
    Value::Addr(text.parse().expect("an address"))
}

fn sets() -> Vec<Object> {
    let (v4, v6) = (KeyType::Addr(Family::V4), KeyType::Addr(Family::V6));
    let mac = Value::Mac(Mac::new([2, 0, 0, 0, 0, 9]));
    let mut objects = vec![
        set("ports", vec![KeyType::IfName]),
        set("sources4", vec![KeyType::IfName, KeyType::EtherAddr, v4]),
        set("sources6", vec![KeyType::IfName, KeyType::EtherAddr, v6]),
        set(
            "services",
            vec![KeyType::InetProto, KeyType::InetService, v4],
        ),
        set(
            "pings",
            vec![KeyType::IcmpType(Family::V6), KeyType::IcmpCode(Family::V6)],
        ),
        set("marks", vec![KeyType::Mark]),
        set("r6-members", vec![v6]),
        set("families", vec![KeyType::NfProto, KeyType::InetService]),
        map("egress", vec![KeyType::IfName]),
        map("by-family", vec![KeyType::NfProto, KeyType::IfName]),
        map("by-group", vec![KeyType::DevGroup]),
        dynamic("connections", vec![v4], 65_536),
        dynamic("rates", vec![KeyType::IfName, v6], 1000),
        dynamic("by-chance", vec![KeyType::IfName, KeyType::Mark], 1000),
        element(
            "sources4",
            vec![port(1), mac.clone(), addr("192.0.2.1")],
            None,
        ),
        element("sources6", vec![port(1), mac, addr("2001:db8::1")], None),
        element(
            "services",
            vec![Value::U8(6), Value::Port(0x1f90), addr("192.0.2.0")],
            None,
        ),
        element("pings", vec![Value::U8(128), Value::U8(0)], None),
        element("marks", vec![Value::U32(0x10_0000)], None),
        element("by-group", vec![Value::U32(1 << 31)], Some(Verdict::Drop)),
        element("r6-members", vec![addr("2001:db8::2")], None),
        element(
            "families",
            vec![Value::Family(Family::V6), Value::Port(53)],
            None,
        ),
        element(
            "by-family",
            vec![Value::Family(Family::V4), port(2)],
            Some(Verdict::Jump("group".into())),
        ),
    ];
    for n in 1..=3 {
        objects.push(element("ports", vec![port(n)], None));
        let profile = Some(Verdict::Goto("pe-0a1b".into()));
        objects.push(element("egress", vec![port(n)], profile));
    }
    objects
}

fn prerouting() -> Object {
    let mut rules = source_rules();
    rules.extend(odd_rules());
    chain("prerouting", hook(Hook::Prerouting, -300), rules)
}

fn source_rules() -> Vec<NftRule> {
    let (v4, v6) = (Family::V4, Family::V6);
    vec![
        rule(vec![
            Statement::Lookup(Lookup {
                key: vec![Field::IifName.into()],
                set: "ports".into(),
                negate: true,
            }),
            Statement::NamePrefix(Field::IifName, "tap".to_owned()),
            end(Verdict::Drop),
        ]),
        rule(vec![
            lookup(
                vec![
                    Field::IifName.into(),
                    Field::EtherSaddr.into(),
                    Field::Saddr(v4).into(),
                ],
                "sources4",
            ),
            Statement::SetMark {
                value: 0x20_0000,
                mask: 0x20_0000,
            },
            Statement::SetPktType(PktType::Host),
            end(Verdict::Accept),
        ]),
        rule(vec![
            lookup(
                vec![
                    Field::IifName.into(),
                    Field::EtherSaddr.into(),
                    Field::Saddr(v6).into(),
                ],
                "sources6",
            ),
            Statement::SetMark {
                value: 7,
                mask: u32::MAX,
            },
            end(Verdict::Return),
        ]),
    ]
}

fn odd_rules() -> Vec<NftRule> {
    let limit = Limit {
        rate: 10,
        unit: LimitUnit::Minute,
        burst: 20,
    };
    vec![
        rule(vec![
            Statement::Compare(Field::IifName.into(), CmpOp::Ne, port(1)),
            Statement::Compare(Field::PktType.into(), CmpOp::Ne, Value::U8(0)),
            Statement::Limit(limit, true),
            Statement::Counter,
            end(Verdict::Drop),
        ]),
        rule(vec![
            compare(Field::L4Proto, Value::U8(17)),
            compare(Field::Dport, Value::Port(53)),
            Statement::Compare(
                masked(Field::Ip4Fragment, &[0x3f, 0xff]),
                CmpOp::Eq,
                Value::Port(0),
            ),
            Statement::Notrack,
        ]),
        rule(vec![
            compare(Field::L4Proto, Value::U8(17)),
            compare(Field::Ip6NextHeader, Value::U8(17)),
            Statement::Notrack,
        ]),
        NftRule {
            statements: vec![
                compare(Field::Ip6Fragment, Value::U8(1)),
                Statement::Counter,
                end(Verdict::Drop),
            ],
            comment: Some("fragments: none; \"here\"".replace('"', "'")),
        },
        rule(vec![
            Statement::Compare(
                masked(Field::Mark, &[0, 0xf0, 0, 0]),
                CmpOp::Eq,
                Value::U32(0x10_0000),
            ),
            lookup(vec![Field::Mark.into()], "marks"),
            Statement::VerdictMap(
                vec![Field::NfProto.into(), Field::IifName.into()],
                "by-family".into(),
            ),
        ]),
        rule(vec![Statement::VerdictMap(
            vec![Field::IifGroup.into()],
            "by-group".into(),
        )]),
        rule(vec![
            compare(Field::FibDaddrType, Value::U32(2)),
            compare(Field::EtherSaddr, Value::Mac(Mac::new([2, 0, 0, 0, 0, 1]))),
            end(Verdict::Drop),
        ]),
    ]
}

fn connection_rules() -> Vec<NftRule> {
    let (v4, v6) = (Family::V4, Family::V6);
    vec![
        rule(vec![
            Statement::Compare(
                masked(Field::IcmpType(v6), &[0x80]),
                CmpOp::Eq,
                Value::U8(0),
            ),
            Statement::SetSaddr("fe80::1".parse().expect("an address")),
        ]),
        rule(vec![
            lookup(
                vec![
                    Field::IifName.into(),
                    Field::EtherSaddr.into(),
                    masked(Field::CtSaddr(CtDirection::Original, v4), &[255, 255, 0, 0]),
                ],
                "sources4",
            ),
            end(Verdict::Accept),
        ]),
        rule(vec![
            lookup(
                vec![
                    Field::IifName.into(),
                    Field::EtherSaddr.into(),
                    Field::CtSaddr(CtDirection::Reply, v6).into(),
                ],
                "sources6",
            ),
            end(Verdict::Accept),
        ]),
    ]
}

fn forward() -> Object {
    let (v4, v6) = (Family::V4, Family::V6);
    let limit = Limit {
        rate: 100,
        unit: LimitUnit::Second,
        burst: 5,
    };
    let mut rules = vec![
        rule(vec![
            Statement::CtStateIn(vec![CtState::Established, CtState::Related]),
            Statement::SetMark {
                value: 0x40_0000,
                mask: 0x40_0000,
            },
            end(Verdict::Accept),
        ]),
        rule(vec![
            Statement::CtStateIn(vec![CtState::Invalid, CtState::Untracked, CtState::New]),
            Statement::Compare(
                masked(Field::CtStatus, &[0, 0, 0, 0x20]),
                CmpOp::Ne,
                Value::U32(0),
            ),
            end(Verdict::Drop),
        ]),
        rule(vec![Statement::VerdictMap(
            vec![Field::IifName.into()],
            "egress".into(),
        )]),
        rule(vec![
            Statement::Dynamic(
                vec![Field::Saddr(v4).into()],
                "connections".into(),
                DynOp::CtCountOver(100),
            ),
            end(Verdict::Drop),
        ]),
        rule(vec![
            Statement::Dynamic(
                vec![Field::IifName.into(), Field::Random(64).into()],
                "by-chance".into(),
                DynOp::CtCountOver(256),
            ),
            end(Verdict::Drop),
        ]),
        rule(vec![
            Statement::Dynamic(
                vec![Field::OifName.into(), Field::Daddr(v6).into()],
                "rates".into(),
                DynOp::LimitOver(limit),
            ),
            end(Verdict::Drop),
        ]),
        // In one rule, nft would compare both in one go.
        rule(vec![
            compare(Field::IcmpType(v4), Value::U8(5)),
            Statement::Limit(limit, false),
            end(Verdict::Drop),
        ]),
        rule(vec![
            compare(Field::IcmpCode(v4), Value::U8(1)),
            end(Verdict::Drop),
        ]),
        rule(vec![end(Verdict::Jump("group".into()))]),
    ];
    rules.extend(connection_rules());
    chain("forward", hook(Hook::Forward, 0), rules)
}

fn group() -> Vec<NftRule> {
    let (v4, v6) = (Family::V4, Family::V6);
    vec![
        rule(vec![
            compare(Field::NfProto, Value::Family(v4)),
            lookup(
                vec![
                    Field::L4Proto.into(),
                    masked(Field::Dport, &[0xff, 0xf0]),
                    masked(Field::Saddr(v4), &[255, 255, 255, 0]),
                ],
                "services",
            ),
            end(Verdict::Accept),
        ]),
        rule(vec![
            lookup(
                vec![Field::IcmpType(v6).into(), Field::IcmpCode(v6).into()],
                "pings",
            ),
            lookup(vec![Field::Saddr(v6).into()], "r6-members"),
            end(Verdict::Accept),
        ]),
        rule(vec![
            lookup(vec![Field::NfProto.into(), Field::Dport.into()], "families"),
            end(Verdict::Return),
        ]),
    ]
}

fn others() -> Vec<Object> {
    let v4 = Family::V4;
    let nat = ChainHook {
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
        nat: true,
    };
    let range = |first: &str, last: &str| {
        let parse = |text: &str| text.parse().expect("an address");
        Statement::Snat(NatRange {
            first: parse(first),
            last: parse(last),
        })
    };
    let masquerade = vec![
        rule(vec![
            Statement::Compare(
                masked(Field::Saddr(v4), &[255, 0, 0, 0]),
                CmpOp::Eq,
                addr("10.0.0.0"),
            ),
            range("192.0.2.1", "192.0.2.4"),
        ]),
        rule(vec![
            compare(Field::Sport, Value::Port(1)),
            range("2001:db8::1", "2001:db8::1"),
        ]),
    ];
    let drop = Some(ChainHook {
        policy: Policy::Drop,
        ..nat
    })
    .map(|h| ChainHook { nat: false, ..h });
    vec![
        chain("group", None, group()),
        chain(
            "pe-0a1b",
            None,
            vec![rule(vec![Statement::Counter, end(Verdict::Drop)])],
        ),
        chain("postrouting", Some(nat), masquerade),
        chain(
            "late",
            drop.map(|h| ChainHook { priority: 150, ..h }),
            vec![],
        ),
        chain("input", hook(Hook::Input, 0), vec![]),
        chain("output", hook(Hook::Output, -10), vec![]),
    ]
}

fn everything() -> BTreeMap<Key, Object> {
    let mut objects = sets();
    objects.extend([prerouting(), forward()]);
    objects.extend(others());
    objects.extend(mapped());
    objects.extend(limited());
    states(objects)
}

/// The table as nft lists it, without handles and in no order but that of rules.
fn listing() -> Vec<String> {
    let text = run("nft -j list table inet hextet");
    let json: serde_json::Value = serde_json::from_str(&text).expect("nft writes JSON");
    let mut objects: Vec<String> = Vec::new();
    let mut position = BTreeMap::new();
    for object in json["nftables"].as_array().expect("a list") {
        let mut object = object.clone();
        for (kind, body) in object.as_object_mut().expect("an object") {
            let Some(body) = body.as_object_mut() else {
                continue;
            };
            body.remove("handle");
            if kind == "rule" {
                let at: &mut u32 = position.entry(body["chain"].to_string()).or_default();
                *at += 1;
                body.insert("position".to_owned(), (*at).into());
            }
            if let Some(elements) = body.get_mut("elem").and_then(|e| e.as_array_mut()) {
                elements.sort_by_key(ToString::to_string);
            }
        }
        objects.push(object.to_string());
    }
    objects.sort();
    objects
}

#[test]
fn nft_accepts_our_text_and_lists_the_same_as_of_our_encoder() {
    let desired = everything();
    let text = table_text(desired.values(), &MAIN);
    let by_nft = isolated(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("written");
        try_run(&format!(
            "nft -c -f {0} && nft -f {0}",
            file.path().display()
        ))
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
        listing()
    });
    let by_us = isolated(|| {
        let mut host = Host::open();
        host.reconcile(&desired);
        listing()
    });
    for (ours, theirs) in by_us.iter().zip(&by_nft) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(by_us.len(), by_nft.len());
}

#[test]
fn what_nft_loaded_from_our_text_needs_no_change() {
    isolated(|| {
        let desired = everything();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), table_text(desired.values(), &MAIN)).expect("written");
        run(&format!("nft -f {}", file.path().display()));
        assert_eq!(Host::open().todo(&desired), Vec::<String>::new());
    });
}

#[test]
fn tampering_is_found_and_mended() {
    isolated(|| {
        let desired = everything();
        let mut host = Host::open();
        host.reconcile(&desired);
        let before = listing();
        for tamper in [
            "nft insert rule inet hextet forward accept",
            "nft add rule inet hextet pe-0a1b quota 5 bytes accept",
            "nft flush chain inet hextet forward",
            "nft add element inet hextet ports '{ \"evil0\" }'",
            "nft add element inet hextet ports '{ \"no/name\" }'",
            "nft delete element inet hextet ports '{ \"tap1\" }'",
            "nft 'delete element inet hextet egress { \"tap1\" }; \
             add element inet hextet egress { \"tap1\" : accept }'",
            "nft add chain inet hextet late '{ policy accept; }'",
            "nft add set inet hextet more '{ type mark; }'",
            "nft add chain inet hextet more '{ type filter hook input priority 7; }'",
            "nft add table inet hextet '{ flags dormant; }'",
            "nft 'flush chain inet hextet input; delete chain inet hextet input; \
             add chain inet hextet input { type filter hook input priority 5; }'",
            "nft 'delete element inet hextet limit-octets { \"tap1\" }; delete limit inet hextet l1'",
            "nft 'delete element inet hextet limit-octets { \"tap1\" }; delete limit inet hextet l1; \
             add limit inet hextet l1 { rate over 7 mbytes/second; }; \
             add element inet hextet limit-octets { \"tap1\" : \"l1\" }'",
            "nft add limit inet hextet more '{ rate 5/second; }'",
            "nft delete table inet hextet",
            "nft flush ruleset",
        ] {
            run(tamper);
            assert_ne!(
                host.todo(&desired),
                Vec::<String>::new(),
                "{tamper} is not seen"
            );
            assert!(host.reconcile(&desired) > 0, "{tamper}");
            assert_eq!(listing(), before, "{tamper}");
        }
    });
}

#[test]
fn a_limiter_stands_while_others_change() {
    isolated(|| {
        let mut desired = everything();
        let mut host = Host::open();
        host.reconcile(&desired);
        let handle = || run("nft -a list limit inet hextet l1 | grep 'limit l1'");
        let before = handle();
        let old = limiter("l2", LimiterRate::Packets(1_000, 800));
        desired.remove(&old.key());
        let new = limiter("l3", LimiterRate::Packets(2_000, 1_600));
        let to_new = leads("limit-packets", addr("10.0.0.1"), "l3");
        desired.extend(states([new, to_new]));
        assert_eq!(host.reconcile(&desired), 3);
        assert_eq!(handle(), before);
    });
}

#[test]
fn a_counter_goes_on_while_others_change_and_is_read_before_it_goes() {
    isolated(|| {
        let mut desired = everything();
        let mut host = Host::open();
        let (kept, last) = std::sync::mpsc::channel();
        let keeper = hextet_kernel::Keeper::new(move |counted| kept.send(counted).expect("a test"));
        host.kernel.keep_counts(keeper);
        host.reconcile(&desired);
        let read = |host: &mut Host| {
            let counted = host.kernel.counted(&MAIN).expect("counters");
            let one = counted.into_iter().find(|c| c.name.0 == "meter-1");
            one.expect("a counter")
        };
        run("ip link set lo up; sysctl -q -w net.ipv4.ip_forward=1");
        let before = read(&mut host);
        assert_eq!((before.packets, before.octets), (0, 0));
        let gone = Object::Counter(MAIN, "meter-2".into());
        desired.remove(&gone.key());
        let new = Object::Counter(MAIN, "meter-3".into());
        desired.insert(new.key(), new);
        let mut limits = desired.get(&chain("limits", None, vec![]).key()).cloned();
        let Some(Object::Chain(_, chain)) = &mut limits else {
            panic!("no such chain")
        };
        chain
            .rules
            .insert(0, rule(vec![Statement::Count("meter-3".into())]));
        desired.extend(limits.map(|limits| (limits.key(), limits)));
        assert_eq!(host.reconcile(&desired), 3);
        let lost = last.try_iter().flatten().collect::<Vec<_>>();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].name.0, "meter-2");
        assert_eq!(read(&mut host).identity, before.identity, "it is the same");
        // Whoever takes our table away takes what was counted with it: what comes then is another counter.
        run("nft delete table inet hextet");
        host.reconcile(&desired);
        let anew = read(&mut host);
        assert_ne!(anew.identity, before.identity);
        assert_eq!(
            anew.identity[0], before.identity[0],
            "of the same namespace"
        );
        assert_eq!(last.try_iter().flatten().count(), 0);
        host.reconcile(&BTreeMap::new());
        assert_eq!(last.try_iter().flatten().count(), 2);
    });
}

#[test]
fn counters_and_dynamic_elements_are_nobody_s_business() {
    isolated(|| {
        let desired = everything();
        let mut host = Host::open();
        host.reconcile(&desired);
        run("nft add element inet hextet connections '{ 10.0.0.1 ct count over 3 }'");
        run("nft replace rule inet hextet pe-0a1b handle \
             $(nft -a list chain inet hextet pe-0a1b | sed -n 's/.*drop # handle //p') \
             counter packets 5 bytes 7 drop");
        assert_eq!(host.todo(&desired), Vec::<String>::new());
    });
}

#[test]
fn foreign_tables_are_left_alone_and_ours_goes_when_it_is_empty() {
    isolated(|| {
        run(
            "nft 'add table inet other; add chain inet other c; add table ip hextet; \
             add chain ip hextet c'",
        );
        let before = run("nft list ruleset");
        let mut host = Host::open();
        host.reconcile(&everything());
        assert_ne!(run("nft list ruleset"), before);
        host.reconcile(&BTreeMap::new());
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn a_set_that_rules_look_into_changes_its_type() {
    isolated(|| {
        let mut desired = everything();
        let mut host = Host::open();
        host.reconcile(&desired);
        let v6 = KeyType::Addr(Family::V6);
        let with_ports = set("r6-members", vec![v6, KeyType::InetService]);
        desired.remove(&element("r6-members", vec![addr("2001:db8::2")], None).key());
        desired.insert(with_ports.key(), with_ports);
        let both = element(
            "r6-members",
            vec![addr("2001:db8::2"), Value::Port(9)],
            None,
        );
        desired.insert(both.key(), both);
        let Some(Object::Chain(_, group)) = desired.get_mut(&chain("group", None, vec![]).key())
        else {
            panic!("no such chain")
        };
        group.rules[1].statements[1] = lookup(
            vec![Field::Saddr(Family::V6).into(), Field::Dport.into()],
            "r6-members",
        );
        assert!(host.reconcile(&desired) >= 3);
    });
}

#[test]
fn one_refused_change_stops_the_whole_transaction() {
    isolated(|| {
        let mut host = Host::open();
        host.reconcile(&everything());
        let before = listing();
        let mut desired = everything();
        let bad = chain(
            "bad",
            None,
            vec![rule(vec![end(Verdict::Goto("nowhere".into()))])],
        );
        let good = element("ports", vec![port(9)], None);
        desired.insert(bad.key(), bad);
        desired.insert(good.key(), good.clone());
        let report = host.kernel.reconcile(&Scope::of(&desired)).expect("a dump");
        assert_eq!(report.applied, 0);
        let failed: Vec<String> = report.failed.iter().map(|(_, e)| e.to_string()).collect();
        assert_eq!(failed.len(), 2);
        assert!(
            failed
                .iter()
                .any(|e| e.starts_with("+ nft chain bad with 1 rules: No such file"))
        );
        assert!(
            failed
                .iter()
                .any(|e| e.starts_with("+ nft element ports \"tap9\": not applied"))
        );
        assert_eq!(listing(), before);
    });
}

#[test]
fn many_elements_are_one_transaction() {
    isolated(|| {
        let mut desired = everything();
        for n in 0..20_000u32 {
            let member = element("marks", vec![Value::U32(n)], None);
            desired.insert(member.key(), member);
        }
        let mut host = Host::open();
        assert!(host.reconcile(&desired) > 20_000);
    });
}
