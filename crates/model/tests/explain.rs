//! Explanations name what decides, and a host whose rules are gone passes nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use hextet_model::{
    explain::{
        Endpoint, ExplainError, Explanation, Machine, Outcome, Packet, Payload, Query, Reason,
        Step, explain, port_of_link,
    },
    intent::Change,
    neutron::{Direction, Port, Protocol, SecurityGroupRule},
    plan::Planner,
    state::{CtState, HostState, Key, Netns, Object},
};
use hextet_types::{Family, IfName};
use world::{
    config, fixed, group, group_id, ip, mac, nat44, network, port, port_id, prefix, rule, subnet,
};

const HTTPS: Payload = Payload::Ports {
    protocol: 6,
    source: 50_000,
    destination: 443,
};
const SSH: Payload = Payload::Ports {
    protocol: 6,
    source: 50_000,
    destination: 22,
};

fn server() -> Port {
    port(
        1,
        vec![fixed(0, "2001:db8:1::a"), fixed(1, "10.1.0.10")],
        &[0],
    )
}

fn client() -> Port {
    port(
        2,
        vec![fixed(0, "2001:db8:1::b"), fixed(1, "10.1.0.11")],
        &[1],
    )
}

/// A server that takes HTTPS, and a client that may send anything.
fn planner() -> Planner {
    let https = SecurityGroupRule {
        protocol: Some(Protocol::TCP),
        port_range_min: Some(443),
        port_range_max: Some(443),
        ..rule(0, Direction::Ingress, Family::V6)
    };
    let out = Family::BOTH.map(|family| rule(0, Direction::Egress, family));
    let mut private = subnet(1);
    private.nat44 = Some(nat44(10));
    let mut config = config();
    config.blackhole_inside = true;
    let mut planner = Planner::new(config);
    planner.apply_all([
        Change::PutNetwork(Box::new(network(0))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(private)),
        Change::SetNat44Sources(
            world::subnet_id(1),
            [ip("192.0.2.8"), ip("192.0.2.9")].into(),
        ),
        Change::PutGroup(Box::new(group(0, [https]))),
        Change::PutGroup(Box::new(group(1, out))),
        Change::PutPort(Box::new(server())),
        Change::PutPort(Box::new(client())),
    ]);
    planner
}

fn query(from: Endpoint, to: &str, payload: Payload) -> Query {
    Query {
        from,
        source: None,
        mac: None,
        to: ip(to),
        via: None,
        payload,
        connection: CtState::New,
    }
}

fn ask(query: &Query) -> Explanation {
    explain(&planner(), query).unwrap()
}

fn from_client(to: &str, payload: Payload) -> Explanation {
    ask(&query(Endpoint::Port(port_id(2)), to, payload))
}

fn dropped(explanation: &Explanation) -> &Reason {
    match &explanation.verdict {
        Outcome::Dropped(reason) => reason,
        other => panic!("not dropped but {other}"),
    }
}

#[test]
fn it_names_the_rules_that_allow() {
    let answer = from_client("2001:db8:1::a", HTTPS);
    let link = server().if_name();
    assert_eq!(answer.verdict, Outcome::Delivered { link });
    let named: Vec<_> = answer
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Rule(step) => Some((step.group?, step.group_rules.len())),
            _ => None,
        })
        .collect();
    assert_eq!(named, [(group_id(1), 1), (group_id(0), 1)]);
    insta::assert_snapshot!(answer);
}

#[test]
fn it_names_the_reason_of_a_drop() {
    assert_eq!(
        dropped(&from_client("2001:db8:1::a", SSH)),
        &Reason::IngressNotAllowed
    );
    assert_eq!(
        dropped(&from_client("2001:db8:1::99", HTTPS)),
        &Reason::Blackhole
    );
    assert_eq!(
        dropped(&from_client("169.254.0.1", SSH)),
        &Reason::HostService
    );
    let answer = ask(&query(Endpoint::Port(port_id(1)), "2001:db8:1::b", HTTPS));
    assert_eq!(dropped(&answer), &Reason::EgressNotAllowed);
    let spoofed = Query {
        source: Some(ip("2001:db8:1::a")),
        ..query(Endpoint::Port(port_id(2)), "2001:db8:ff::1", HTTPS)
    };
    assert_eq!(dropped(&ask(&spoofed)), &Reason::Spoofed);
    let another_mac = Query {
        mac: Some(mac(1)),
        ..query(Endpoint::Port(port_id(2)), "2001:db8:ff::1", HTTPS)
    };
    assert_eq!(dropped(&ask(&another_mac)), &Reason::Spoofed);
}

#[test]
fn private_addresses_leave_translated_and_only_there() {
    let range = |outcome: &Outcome| match outcome {
        Outcome::Leaves { translated, .. } => translated.map(|r| (r.first, r.last)),
        other => panic!("{other}"),
    };
    let abroad = from_client("203.0.113.7", HTTPS);
    assert_eq!(
        range(&abroad.verdict),
        Some((ip("192.0.2.8"), ip("192.0.2.9")))
    );
    assert_eq!(
        abroad.verdict.to_string(),
        "leaves by up0 as 192.0.2.8-192.0.2.9"
    );
    assert_eq!(range(&from_client("2001:db8:ff::1", HTTPS).verdict), None);
}

#[test]
fn an_address_of_a_local_port_is_that_port() {
    let by_address = ask(&query(
        Endpoint::Address(ip("2001:db8:1::b")),
        "2001:db8:1::a",
        HTTPS,
    ));
    assert_eq!(by_address, from_client("2001:db8:1::a", HTTPS));
    let abroad = ask(&query(
        Endpoint::Address(ip("2001:db8:ff::1")),
        "2001:db8:1::a",
        HTTPS,
    ));
    assert_eq!(abroad.steps[0], Step::Arrives("up0".parse().ok()));
    assert!(matches!(abroad.verdict, Outcome::Delivered { .. }));
}

#[test]
fn the_host_itself_is_judged_like_anybody() {
    let ping = Payload::Icmp {
        icmp_type: 128,
        code: 0,
    };
    let answer = ask(&query(Endpoint::Host, "2001:db8:1::a", ping));
    assert!(
        matches!(answer.verdict, Outcome::Delivered { .. }),
        "link-local ICMP: {answer}"
    );
    let answer = ask(&query(Endpoint::Host, "2001:db8:1::a", SSH));
    assert_eq!(dropped(&answer), &Reason::IngressNotAllowed);
}

/// Groups 2 and 3, of which the first alone takes HTTPS.
#[test]
fn lists_of_groups_with_one_number_are_told_apart() {
    let https = rule(0, Direction::Ingress, Family::V6);
    let mut planner = planner();
    let other = |n, group| port(n, vec![fixed(0, &format!("2001:db8:1::{n}"))], &[group]);
    let changes = [(5, 2), (6, 3), (7, 3)].map(|(n, g)| Change::PutPort(Box::new(other(n, g))));
    planner.apply_all([
        Change::PutGroup(Box::new(group(2, [https]))),
        Change::PutGroup(Box::new(group(3, []))),
    ]);
    planner.apply_all(changes);
    let group_of = |planner: &Planner, n: u8, g: u8| {
        let key = Key::Link(Netns::Main, other(n, g).if_name());
        match planner.state().objects.get(&key) {
            Some(Object::Link(link)) => link.group,
            _ => 0,
        }
    };
    assert_eq!(group_of(&planner, 5, 2), group_of(&planner, 6, 3));
    assert_ne!(group_of(&planner, 5, 2), group_of(&planner, 1, 0));
    let arrives = |planner: &Planner, n: u8| {
        let to = format!("2001:db8:1::{n}");
        let query = query(Endpoint::Port(port_id(2)), &to, HTTPS);
        let answer = explain(planner, &query).unwrap();
        matches!(answer.verdict, Outcome::Delivered { .. })
    };
    assert_eq!(
        [5, 6, 7].map(|n| arrives(&planner, n)),
        [true, false, false]
    );
    planner.apply(Change::PutPort(Box::new(other(7, 2))));
    assert_eq!([5, 6, 7].map(|n| arrives(&planner, n)), [true, false, true]);
    planner.apply(Change::RemovePort(port_id(6)));
    assert_eq!([5, 7].map(|n| arrives(&planner, n)), [true, true]);
    let shared = |key: &Key| matches!(key, Key::Chain(_, name) if name.0.starts_with("shared-"));
    assert!(!planner.state().objects.keys().any(shared));
}

#[test]
fn established_flows_pass_both_ways() {
    let answer = Query {
        connection: CtState::Established,
        ..query(Endpoint::Port(port_id(1)), "2001:db8:1::b", SSH)
    };
    assert!(matches!(ask(&answer).verdict, Outcome::Delivered { .. }));
}

#[test]
fn questions_that_make_no_packet_are_refused() {
    let planner = planner();
    let unknown = query(Endpoint::Port(port_id(5)), "10.1.0.10", HTTPS);
    let error = explain(&planner, &unknown).unwrap_err();
    assert_eq!(error, ExplainError::NoSuchPort(port_id(5)));
    let mixed = query(Endpoint::Address(ip("2001:db8:ff::1")), "10.1.0.10", HTTPS);
    assert!(matches!(
        explain(&planner, &mixed),
        Err(ExplainError::Families { .. })
    ));
    let mut planner = planner;
    planner.apply(Change::PutPort(Box::new(port(
        3,
        vec![fixed(1, "10.1.0.12")],
        &[],
    ))));
    let no_v6 = query(Endpoint::Port(port_id(3)), "2001:db8:ff::1", HTTPS);
    assert!(matches!(
        explain(&planner, &no_v6),
        Err(ExplainError::NoSource { .. })
    ));
}

#[test]
fn a_link_leads_to_its_port() {
    let planner = planner();
    assert_eq!(
        port_of_link(planner.intent(), &server().if_name()),
        Some(port_id(1))
    );
    for other in ["tap00000009-00", "eth0", "tap0", "tapé"] {
        let link: Option<IfName> = other.parse().ok();
        assert_eq!(
            link.and_then(|l| port_of_link(planner.intent(), &l)),
            None,
            "{other}"
        );
    }
}

/// What is left when somebody runs `nft flush ruleset`.
fn without_our_table(state: &HostState) -> HostState {
    let mut state = state.clone();
    let in_table = |key: &Key| matches!(key, Key::Set(..) | Key::Chain(..) | Key::Element(..));
    state.objects.retain(|key, _| !in_table(key));
    state
}

#[test]
fn without_our_table_nothing_passes_a_port() {
    let planner = planner();
    let flushed = without_our_table(planner.state());
    let machine = Machine::new(&flushed, planner.config());
    let packet = |link: IfName, source: &str, destination: &str| Packet {
        link: Some(link),
        mac: Some(mac(2)),
        source: ip(source),
        destination: ip(destination),
        payload: HTTPS,
        connection: CtState::New,
        flow: None,
        quoted: None,
    };
    let from = client().if_name();
    for (source, to) in [
        ("2001:db8:1::b", "2001:db8:1::a"),
        ("2001:db8:1::b", "2001:db8:ff::1"),
        ("10.1.0.11", "203.0.113.7"),
    ] {
        let outcome = machine.send(&packet(from.clone(), source, to), None);
        assert_eq!(
            outcome,
            Outcome::Dropped(Reason::Unchecked),
            "{source} to {to}"
        );
    }
    let uplink: IfName = "up0".parse().unwrap();
    for (source, to) in [
        ("2001:db8:ff::1", "2001:db8:1::a"),
        ("203.0.113.7", "10.1.0.10"),
    ] {
        let outcome = machine.send(&packet(uplink.clone(), source, to), None);
        assert_eq!(
            outcome,
            Outcome::Dropped(Reason::NotAdmitted),
            "{source} to {to}"
        );
    }
}

#[test]
fn without_its_program_nothing_passes_a_port() {
    let planner = planner();
    let mut state = planner.state().clone();
    state
        .objects
        .retain(|key, _| !matches!(key, Key::EdgeProgram(..)));
    let machine = Machine::new(&state, planner.config());
    for (source, to) in [
        ("2001:db8:1::b", "2001:db8:1::a"),
        ("10.1.0.11", "203.0.113.7"),
        ("2001:db8:1::b", "fe80::1"),
    ] {
        let packet = Packet {
            link: Some(client().if_name()),
            mac: Some(mac(2)),
            source: ip(source),
            destination: ip(to),
            payload: HTTPS,
            connection: CtState::New,
            flow: None,
            quoted: None,
        };
        let outcome = machine.send(&packet, None);
        assert_eq!(outcome, Outcome::Dropped(Reason::NoProgram), "to {to}");
    }
}

#[test]
fn only_the_policy_keeps_a_port_from_the_host_without_our_table() {
    let planner = planner();
    let mut state = without_our_table(planner.state());
    let packet = Packet {
        link: Some(client().if_name()),
        mac: Some(mac(2)),
        source: ip("10.1.0.11"),
        destination: ip("169.254.0.1"),
        payload: SSH,
        connection: CtState::New,
        flow: None,
        quoted: None,
    };
    let outcome = |state: &HostState| Machine::new(state, planner.config()).send(&packet, None);
    assert_eq!(outcome(&state), Outcome::Dropped(Reason::NotAdmitted));
    state
        .objects
        .retain(|key, _| !matches!(key, Key::XfrmPolicy(..)));
    assert_eq!(outcome(&state), Outcome::Host);
}

#[test]
fn a_rule_opens_no_more_than_it_says() {
    let mut planner = planner();
    let one_host = SecurityGroupRule {
        remote_ip_prefix: Some(prefix("2001:db8:ff::1/128")),
        ..rule(0, Direction::Ingress, Family::V6)
    };
    planner.apply(Change::PutGroup(Box::new(group(0, [one_host]))));
    let outcome = |planner: &Planner, from: &str, to: &str| {
        let query = query(Endpoint::Address(ip(from)), to, SSH);
        explain(planner, &query).unwrap().verdict
    };
    let not_allowed = Outcome::Dropped(Reason::IngressNotAllowed);
    assert!(matches!(
        outcome(&planner, "2001:db8:ff::1", "2001:db8:1::a"),
        Outcome::Delivered { .. }
    ));
    assert_eq!(
        outcome(&planner, "2001:db8:ff::2", "2001:db8:1::a"),
        not_allowed
    );
    assert_eq!(outcome(&planner, "10.1.0.77", "10.1.0.10"), not_allowed);
}

#[test]
fn private_addresses_are_not_reached_from_outside() {
    let mut planner = planner();
    let anybody = rule(0, Direction::Ingress, Family::V4);
    planner.apply(Change::PutGroup(Box::new(group(0, [anybody]))));
    let outcome = |from: &str| {
        let query = query(Endpoint::Address(ip(from)), "10.1.0.10", SSH);
        explain(&planner, &query).unwrap().verdict
    };
    assert_eq!(outcome("203.0.113.7"), Outcome::Dropped(Reason::Private));
    assert!(matches!(outcome("10.1.0.77"), Outcome::Delivered { .. }));
}
