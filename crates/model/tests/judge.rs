//! What a plan's rules do to a packet is what the API promises about it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "world/judge.rs"]
mod fate;
mod world;

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use fate::{Fate, Judge};
use hextet_model::{
    explain::{Machine, Outcome, Packet, Payload, Reason, port_of_link},
    intent::{Change, Intent, RoutingDomain},
    neutron::{Direction, NetworkType, SecurityGroupRule},
    plan::{HostConfig, Planner},
    state::CtState,
};
use hextet_types::{Family, IfName};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use world::{ADDRESSES, any_config, ip, mac, port_id, some_change};

/// A packet, before it is known what the cloud looks like.
#[derive(Clone, Debug)]
struct Draft {
    from: u8,
    source: Source,
    mac: Option<u8>,
    destination: IpAddr,
    payload: Payload,
    connection: CtState,
    flow: Option<[IpAddr; 2]>,
}

#[derive(Clone, Debug)]
enum Source {
    Own(prop::sample::Index),
    Any(IpAddr),
}

fn some_payload() -> impl Strategy<Value = Payload> {
    let ports = [0, 21, 22, 79, 80, 85, 90, 91, 65535];
    let with_ports =
        (select(vec![6u8, 17, 132]), select(ports.to_vec())).prop_map(|(protocol, destination)| {
            Payload::Ports {
                protocol,
                source: 40000,
                destination,
            }
        });
    let types = vec![
        (8, 0),
        (128, 0),
        (3, 4),
        (3, 1),
        (5, 0),
        (137, 0),
        (0, 0),
        (1, 0),
    ];
    let icmp = select(types).prop_map(|(icmp_type, code)| Payload::Icmp { icmp_type, code });
    prop_oneof![
        5 => with_ports,
        3 => icmp,
        1 => select(vec![47u8, 0, 1, 58, 50]).prop_map(Payload::Protocol),
    ]
}

fn some_draft() -> impl Strategy<Value = Draft> {
    let mut others = vec![
        "169.254.0.9",
        "fe80::f816:3eff:fe00:2",
        "fe80::5",
        "10.9.1.7",
        "10.8.0.1",
        "203.0.113.7",
        "2001:db8:ff::7",
        "2001:db8:9::7",
        "0.0.0.0",
        "192.0.2.8",
    ];
    others.extend(ADDRESSES.map(|(_, a)| a));
    let mut to = others.clone();
    to.retain(|a| !a.starts_with("169.254") && !a.starts_with("fe80") && !a.starts_with("0."));
    to.extend(ADDRESSES.map(|(_, a)| a));
    to.extend(["fe80::1", "169.254.0.1", "ff02::1:2", "255.255.255.255"]);
    let source = prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(Source::Own),
        2 => select(others).prop_map(|a| Source::Any(ip(a))),
    ];
    let connection = prop_oneof![
        6 => Just(CtState::New),
        2 => Just(CtState::Established),
        1 => Just(CtState::Related),
        1 => Just(CtState::Invalid),
    ];
    let mac = prop::option::weighted(0.05, 0u8..6);
    let end = || select(ADDRESSES.map(|(_, a)| ip(a)).to_vec());
    let flow = prop::option::of((end(), end()).prop_map(|(a, b)| [a, b]));
    let from = select(vec![1u8, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6, 6, 6, 7]);
    let what = (some_payload(), connection, flow);
    (from, source, mac, select(to), what).prop_map(
        |(from, source, mac, destination, (payload, connection, flow))| Draft {
            from,
            source,
            mac,
            destination: ip(destination),
            payload,
            connection,
            flow,
        },
    )
}

/// Six ports, the uplink, and an interface that looks like a port.
fn packet(intent: &Intent, draft: &Draft) -> Option<Packet> {
    let port = intent.ports.get(&port_id(draft.from));
    let link: IfName = match draft.from {
        6 => "up0".parse().unwrap(),
        7 => "tapffffffff-ff".parse().unwrap(),
        n => IfName::for_port(port_id(n)),
    };
    let source = match (&draft.source, port) {
        (Source::Own(index), Some(port)) => index.get(&port.fixed_ips).ip_address,
        (Source::Own(index), None) => ip(index.get(&ADDRESSES).1),
        (Source::Any(addr), _) => *addr,
    };
    let own = port.map(|p| p.mac_address);
    let from_fabric = draft.from == 6;
    let leaves_again = from_fabric && !ADDRESSES.iter().any(|(_, a)| ip(a) == draft.destination);
    let makes_sense = source.is_ipv4() == draft.destination.is_ipv4() && !leaves_again;
    (makes_sense && (port.is_some() || draft.from > 5)).then(|| Packet {
        link: Some(link),
        mac: draft.mac.map(mac).or(own).or(Some(mac(9))),
        source,
        destination: draft.destination,
        payload: draft.payload,
        connection: draft.connection,
        flow: draft.flow,
        quoted: None,
    })
}

fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::LinkDown => "down",
        Reason::Edge => "edge",
        Reason::Spoofed | Reason::ForAgent => "spoofed",
        Reason::UnknownPort => "unknown port",
        Reason::Redirect => "redirect",
        Reason::Discovery => "discovery",
        Reason::LinkLocal => "link-local",
        Reason::Invalid => "invalid",
        Reason::ForeignError => "foreign error",
        Reason::HostService => "host",
        Reason::EgressNotAllowed => "egress",
        Reason::IngressNotAllowed => "ingress",
        Reason::Private => "private",
        Reason::DhcpClient => "dhcp client",
        Reason::NoNatSource => "no source",
        Reason::Blackhole => "black hole",
        Reason::NoRoute => "no route",
        _ => "?",
    }
}

fn planned(intent: &Intent, machine: &Machine<'_>, packet: &Packet) -> Fate {
    match machine.send(packet, None) {
        Outcome::Delivered { link } => match port_of_link(intent, &link) {
            Some(port) => Fate::Delivered(port),
            None => Fate::Dropped("nobody behind that link"),
        },
        Outcome::Leaves { translated, .. } => Fate::Leaves {
            translated: translated.is_some(),
        },
        Outcome::Host | Outcome::Router(_) => Fate::Host,
        Outcome::Dropped(reason) => Fate::Dropped(word(&reason)),
    }
}

fn label(fate: Fate) -> &'static str {
    match fate {
        Fate::Delivered(_) => "delivered",
        Fate::Leaves { translated: true } => "leaves translated",
        Fate::Leaves { translated: false } => "leaves",
        Fate::Host => "host itself",
        Fate::Dropped(why) => why,
    }
}

/// A cloud in which most things are as they should be, so that packets get far.
fn well_set_up() -> Vec<Change> {
    let networks = (0..2).map(|n| Change::PutNetwork(Box::new(world::network(n))));
    let subnets = (0..4).map(|n| {
        let mut subnet = world::subnet(n);
        subnet.nat44 = (n == 1).then(|| world::nat44(100));
        Change::PutSubnet(Box::new(subnet))
    });
    let sources = Change::SetNat44Sources(world::subnet_id(1), [ip("192.0.2.9")].into());
    let members = (0..4).map(|g| {
        let all = ADDRESSES[..6].iter().map(|(_, a)| ip(a)).collect();
        Change::AddMembers(world::group_id(g), RoutingDomain::Routed, all)
    });
    let groups = (0..4).map(|n| {
        let any = Family::BOTH.map(|family| world::rule(0, Direction::Egress, family));
        let from_members = Family::BOTH.map(|family| SecurityGroupRule {
            remote_group_id: Some(world::group_id(n)),
            ..world::rule(0, Direction::Ingress, family)
        });
        Change::PutGroup(Box::new(world::group(
            n,
            any.into_iter().chain(from_members),
        )))
    });
    let ports = (1..6).map(|n| {
        let addresses = ADDRESSES[..8].iter().skip(usize::from(n) - 1).step_by(4);
        let fixed_ips = addresses
            .map(|(subnet, addr)| world::fixed(*subnet, addr))
            .collect();
        Change::PutPort(Box::new(world::port(n, fixed_ips, &[n % 4])))
    });
    let all = networks.chain(subnets).chain(members).chain([sources]);
    all.chain(groups).chain(ports).collect()
}

fn check(
    config: &HostConfig,
    changes: Vec<Change>,
    drafts: &[Draft],
    seen: &RefCell<BTreeMap<&'static str, u32>>,
) -> Result<(), TestCaseError> {
    let mut planner = Planner::new(config.clone());
    planner.apply_all(well_set_up());
    planner.apply_all(changes);
    let intent = planner.intent();
    let machine = Machine::new(planner.state(), config);
    let judge = Judge { intent, config };
    for packet in drafts.iter().filter_map(|draft| packet(intent, draft)) {
        let promised = judge.fate(&packet);
        prop_assert_eq!(promised, planned(intent, &machine, &packet), "{:?}", packet);
        *seen.borrow_mut().entry(label(promised)).or_default() += 1;
    }
    Ok(())
}

#[test]
fn plans_do_what_the_api_promises() {
    let config = Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let seen = RefCell::new(BTreeMap::new());
    let cloud = (
        any_config(),
        vec(some_change(), 5..60),
        vec(some_draft(), 60),
    );
    let run = runner.run(&cloud, |(config, changes, drafts)| {
        let routed = changes.into_iter().map(|change| match change {
            Change::PutNetwork(mut network) => {
                network.network_type = NetworkType::Routed;
                Change::PutNetwork(network)
            }
            // Addresses that are elsewhere for now, or that several share, are not this judge's, nor is what lies beyond routers.
            Change::PutStandby(id) => Change::RemoveStandby(id),
            Change::PutHolder(id, addr, _) => Change::RemoveHolder(id, addr),
            Change::PutRouter(mut router) => {
                router.gateways.clear();
                Change::PutRouter(router)
            }
            other => other,
        });
        check(&config, routed.collect(), &drafts, &seen)
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    let total: u32 = seen.values().sum();
    let delivered = seen.get("delivered").copied().unwrap_or_default();
    assert!(delivered * 15 >= total, "too few packets arrive: {seen:?}");
    let expected = [
        "delivered",
        "leaves",
        "leaves translated",
        "host itself",
        "down",
        "edge",
        "spoofed",
        "unknown port",
        "redirect",
        "discovery",
        "invalid",
        "foreign error",
        "host",
        "egress",
        "ingress",
        "no source",
        "black hole",
        "link-local",
        "no route",
        "private",
    ];
    for what in expected {
        assert!(
            seen.get(what).is_some_and(|n| *n >= 25),
            "too few are '{what}': {seen:?}"
        );
    }
}
