//! What becomes of a packet that crosses routers: each namespace on its way is named, each end's groups judge it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::net::IpAddr;

use hextet_model::{
    explain::{
        Endpoint, Explanation, Outcome, Packet, Passage, Payload, Query, Reason, Step, Tracked,
        Tracking, explain, travel,
    },
    intent::{
        Change, FloatingIp, GatewayHost, PortForwarding, Router, RoutingDomain, TunnelEndpoint,
    },
    neutron::{
        Direction, FixedIp, ForwardedProtocol, HostRoute, Network, NetworkType, Port, PortRange,
        Subnet,
    },
    plan::Planner,
    state::{CtState, NatRange, Netns},
};
use hextet_types::{Family, HostId, PortId, SecurityGroupRuleId, SubnetId};
use uuid::Uuid;
use world::{
    config, floating_id, forwarding_id, group, group_id, ip, mac, network, network_id, prefix,
    routers::{add_gateway, add_interface, router, router_id},
    rule, subnet,
};

fn subnet_id(network: u8, family: Family) -> SubnetId {
    let kind = u128::from(family == Family::V6);
    SubnetId(Uuid::from_u128(0x2200 + 2 * u128::from(network) + kind))
}

fn text(network: u8, family: Family, station: u8) -> String {
    match family {
        Family::V4 => format!("10.{network}.0.{station}"),
        Family::V6 => format!("fd00:{network}::{station:x}"),
    }
}

fn both(network: u8, station: u8) -> Vec<FixedIp> {
    let fixed = |family| FixedIp {
        subnet_id: subnet_id(network, family),
        ip_address: ip(&text(network, family, station)),
    };
    Family::BOTH.map(fixed).into()
}

fn port_id(network: u8) -> PortId {
    PortId(Uuid::from_u128(u128::from(network) << 104))
}

/// Station 10 of a network, on this host; in the group of the network's number.
fn port(n: u8) -> Port {
    Port {
        id: port_id(n),
        network_id: network_id(n),
        mac_address: mac(n),
        fixed_ips: both(n, 10),
        ..world::port(9, Vec::new(), &[n])
    }
}

fn ssh_from(n: u8, remote: u8) -> Vec<hextet_model::neutron::SecurityGroupRule> {
    let ssh = |family| {
        let mut rule = rule(n, Direction::Ingress, family);
        rule.protocol = Some("tcp".parse().unwrap());
        rule.port_range_min = Some(22);
        rule.port_range_max = Some(22);
        rule.remote_group_id = Some(group_id(remote));
        rule
    };
    Family::BOTH.map(ssh).into()
}

/// Networks 1 and 2 with a port each on this host, 3 with station 20 on another; router 1 between all of them.
/// Group 1 lets everything out; group 2 takes SSH from group 1.
fn planner(router: &Router) -> Planner {
    let there: HostId = "compute-9".parse().unwrap();
    let at = |number| TunnelEndpoint {
        number,
        address: ip(&format!("2001:db8:f::{number}")),
    };
    let mut planner = Planner::new(config());
    planner.apply(Change::PutHost(config().host, at(1)));
    planner.apply(Change::PutHost(there.clone(), at(9)));
    for n in 1..4 {
        planner.apply(Change::PutNetwork(Box::new(Network {
            network_type: NetworkType::Vxlan,
            segmentation_id: Some(700 + u32::from(n)),
            ..network(n)
        })));
        for family in Family::BOTH {
            planner.apply(Change::PutSubnet(Box::new(Subnet {
                id: subnet_id(n, family),
                network_id: network_id(n),
                cidr: prefix(&match family {
                    Family::V4 => format!("10.{n}.0.0/24"),
                    Family::V6 => format!("fd00:{n}::/64"),
                }),
                gateway_ip: Some(ip(&text(n, family, 1))),
                ..subnet(u8::from(family == Family::V4))
            })));
        }
    }
    let far = Family::BOTH.map(|family| (ip(&text(3, family, 20)), there.clone()));
    planner.apply(Change::PutRemotes(network_id(3), far.into()));
    let out = Family::BOTH.map(|family| rule(1, Direction::Egress, family));
    planner.apply(Change::PutGroup(Box::new(group(1, out))));
    planner.apply(Change::PutGroup(Box::new(group(2, ssh_from(2, 1)))));
    // As the server tells it: members on the network, and on those that its routers lead to.
    let members = Family::BOTH.map(|family| ip(&text(1, family, 10)));
    planner.apply(Change::AddMembers(
        group_id(1),
        RoutingDomain::Network(network_id(2)),
        members.into(),
    ));
    planner.apply(Change::PutRouter(Box::new(router.clone())));
    planner.apply(Change::PutPort(Box::new(port(1))));
    planner.apply(Change::PutPort(Box::new(port(2))));
    planner
}

fn between_all() -> Router {
    let mut router = router(1);
    router.router.standard.name = "edge".to_owned();
    for (i, n) in (0..).zip(1..4) {
        add_interface(&mut router, i, network_id(n), both(n, 1));
    }
    router
}

fn explained(planner: &Planner, from: u8, to: &str, destination: u16) -> Explanation {
    let query = Query {
        from: Endpoint::Port(port_id(from)),
        source: None,
        mac: None,
        to: ip(to),
        via: None,
        payload: Payload::Ports {
            protocol: 6,
            source: 49_152,
            destination,
        },
        connection: CtState::New,
    };
    explain(planner, &query).unwrap()
}

fn namespaces(explanation: &Explanation) -> Vec<String> {
    let entered = explanation.steps.iter().filter_map(|step| match step {
        Step::Enters(name) => Some(name.get(..3).unwrap_or_default().to_owned()),
        Step::Router { id, name, netns } => {
            assert_eq!((*id, name.as_str()), (router_id(1), "edge"));
            assert!(netns.starts_with("hr-"), "{netns}");
            Some("router".to_owned())
        }
        _ => None,
    });
    entered.collect()
}

/// The rules that are named in a chain of groups.
fn group_rules(explanation: &Explanation, n: u8) -> Vec<SecurityGroupRuleId> {
    let rules = explanation.steps.iter().filter_map(|step| match step {
        Step::Rule(rule) if rule.group == Some(group_id(n)) => Some(rule.group_rules.clone()),
        _ => None,
    });
    rules.flatten().collect()
}

#[test]
fn by_way_of_a_router_both_ends_groups_judge() {
    let planner = planner(&between_all());
    for family in Family::BOTH {
        let to = text(2, family, 10);
        let ssh = explained(&planner, 1, &to, 22);
        assert_eq!(namespaces(&ssh), ["hx-", "router", "hx-"], "{ssh}");
        let link = port(2).if_name();
        assert_eq!(ssh.verdict, Outcome::Delivered { link }, "{ssh}");
        assert_eq!(group_rules(&ssh, 1).len(), 1, "{ssh}");
        assert_eq!(group_rules(&ssh, 2).len(), 1, "{ssh}");
        let said = ssh.to_string();
        assert!(said.contains("enters router edge, "), "{said}");

        let closed = explained(&planner, 1, &to, 23);
        let refused = Outcome::Dropped(Reason::IngressNotAllowed);
        assert_eq!(closed.verdict, refused, "{closed}");
        // Nothing lets the other one out.
        let back = explained(&planner, 2, &text(1, family, 10), 22);
        let refused = Outcome::Dropped(Reason::EgressNotAllowed);
        assert_eq!(
            (back.verdict.clone(), namespaces(&back).len()),
            (refused, 1),
            "{back}"
        );
    }
}

#[test]
fn members_count_only_where_they_were_told() {
    let mut planner = planner(&between_all());
    let members = Family::BOTH.map(|family| ip(&text(1, family, 10)));
    planner.apply(Change::RemoveMembers(
        group_id(1),
        RoutingDomain::Network(network_id(2)),
        members.into(),
    ));
    planner.apply(Change::AddMembers(
        group_id(1),
        RoutingDomain::Routed,
        members.into(),
    ));
    for family in Family::BOTH {
        let ssh = explained(&planner, 1, &text(2, family, 10), 22);
        let refused = Outcome::Dropped(Reason::IngressNotAllowed);
        assert_eq!(ssh.verdict, refused, "{ssh}");
    }
}

#[test]
fn to_another_host_it_goes_by_the_target_network_s_tunnel() {
    let planner = planner(&between_all());
    for family in Family::BOTH {
        let far = explained(&planner, 1, &text(3, family, 20), 22);
        assert_eq!(namespaces(&far), ["hx-", "router", "hx-"], "{far}");
        let tunnels = Step::Tunnels {
            vni: 703,
            to: ip("2001:db8:f::9"),
            host: Some("compute-9".parse().unwrap()),
        };
        assert_eq!(far.steps.last(), Some(&tunnels), "{far}");
        assert!(matches!(far.verdict, Outcome::Leaves { .. }), "{far}");
    }
}

#[test]
fn the_router_itself_and_nobody() {
    let mut router = between_all();
    let planner = |router: &Router| planner(router);
    for family in Family::BOTH {
        let itself = explained(&planner(&router), 1, &text(2, family, 1), 22);
        assert_eq!(itself.verdict, Outcome::Router(router_id(1)), "{itself}");
        let nobody = explained(&planner(&router), 1, &text(2, family, 99), 22);
        let refused = Outcome::Dropped(Reason::Blackhole);
        assert_eq!(
            (nobody.verdict.clone(), namespaces(&nobody).len()),
            (refused, 3),
            "{nobody}"
        );
        let outside = ["203.0.113.7", "2001:db8:9::7"][usize::from(family == Family::V6)];
        let outside = explained(&planner(&router), 1, outside, 22);
        let refused = Outcome::Dropped(Reason::NoRoute);
        assert_eq!(
            (outside.verdict.clone(), namespaces(&outside).len()),
            (refused, 2),
            "{outside}"
        );
    }
    router.router.admin_state_up = false;
    for family in Family::BOTH {
        let down = explained(&planner(&router), 1, &text(2, family, 10), 22);
        let refused = Outcome::Dropped(Reason::Blackhole);
        assert_eq!(
            (down.verdict.clone(), namespaces(&down).len()),
            (refused, 1),
            "{down}"
        );
    }
}

#[test]
fn an_extra_route_is_named_and_followed() {
    let mut router = between_all();
    let routes = [(Family::V4, "192.168.0.0/16"), (Family::V6, "fd99::/32")];
    for (family, destination) in routes {
        router.router.routes.push(HostRoute {
            destination: prefix(destination),
            nexthop: ip(&text(2, family, 10)),
        });
    }
    let mut planner = planner(&router);
    let appliance = Port {
        port_security_enabled: false,
        security_groups: Vec::new(),
        ..port(2)
    };
    planner.apply(Change::PutPort(Box::new(appliance)));
    for (to, (family, destination)) in ["192.168.7.7", "fd99::7"].into_iter().zip(routes) {
        let extra = explained(&planner, 1, to, 22);
        let named = Step::ExtraRoute {
            destination: prefix(destination),
            nexthops: vec![ip(&text(2, family, 10))],
        };
        assert!(extra.steps.contains(&named), "{extra}");
        let link = port(2).if_name();
        assert_eq!(extra.verdict, Outcome::Delivered { link }, "{extra}");
        // What the appliance itself sends there comes back to it only by the router.
        let own = explained(&planner, 2, to, 22);
        assert_eq!(namespaces(&own), ["hx-", "router", "hx-"], "{own}");
    }
}

#[test]
fn what_goes_round_in_circles_is_said_to() {
    let mut first = between_all();
    let mut second = router(2);
    let networks = [(1, 2), (2, 2)];
    for (i, (network, station)) in (0..).zip(networks) {
        add_interface(&mut second, i, network_id(network), both(network, station));
    }
    let route = |router: &mut Router, network, station| {
        router.router.routes.push(HostRoute {
            destination: prefix("192.168.0.0/16"),
            nexthop: ip(&text(network, Family::V4, station)),
        });
    };
    route(&mut first, 2, 2);
    route(&mut second, 2, 1);
    let mut planner = planner(&first);
    planner.apply(Change::PutRouter(Box::new(second)));
    let query = explained(&planner, 1, "192.168.1.1", 22);
    assert_eq!(query.verdict, Outcome::Dropped(Reason::Loop), "{query}");
}

const SEGMENT: u32 = 9000;

fn outside(kind: Family, station: u8) -> String {
    match kind {
        Family::V4 => format!("203.0.113.{station}"),
        Family::V6 => format!("2001:db8:f00::{station:x}"),
    }
}

/// The world's router with a gateway on network 4, which is routed, translating on that host. Group 1 takes SSH from
/// everybody.
fn with_gateway(host: &HostId) -> Planner {
    let mut router = between_all();
    let fixed = |family| FixedIp {
        subnet_id: subnet_id(4, family),
        ip_address: ip(&outside(family, 5)),
    };
    add_gateway(
        &mut router,
        0,
        network_id(4),
        Family::BOTH.map(fixed).into(),
        true,
    );
    router.gateway_host = Some(GatewayHost {
        host: host.clone(),
        segment: SEGMENT,
        generation: 1,
    });
    let mut planner = planner(&router);
    planner.apply(Change::PutNetwork(Box::new(network(4))));
    let mut rules: Vec<_> = Family::BOTH
        .map(|family| rule(1, Direction::Egress, family))
        .into();
    rules.extend(ssh_from(1, 1).into_iter().map(|mut rule| {
        rule.remote_group_id = None;
        rule
    }));
    planner.apply(Change::PutGroup(Box::new(group(1, rules))));
    planner
}

fn from_outside(planner: &Planner, to: &str, destination: u16) -> Explanation {
    let source = match ip(to) {
        IpAddr::V4(_) => "192.0.2.77",
        IpAddr::V6(_) => "2001:db8:99::77",
    };
    let query = Query {
        from: Endpoint::Address(ip(source)),
        source: None,
        mac: None,
        to: ip(to),
        via: None,
        payload: Payload::Ports {
            protocol: 6,
            source: 49_152,
            destination,
        },
        connection: CtState::New,
    };
    explain(planner, &query).unwrap()
}

/// A forwarded port, of 203.0.113.51, to port 22 of station 10.
fn forwarding() -> Change {
    Change::PutPortForwarding(Box::new(PortForwarding {
        id: forwarding_id(1),
        router_id: router_id(1),
        floating_ip_address: "203.0.113.51".parse().unwrap(),
        protocol: ForwardedProtocol::Tcp,
        external_port_range: PortRange::new(8022, 8022).unwrap(),
        network_id: network_id(1),
        internal_ip_address: "10.1.0.10".parse().unwrap(),
        internal_port_range: PortRange::new(22, 22).unwrap(),
    }))
}

/// What the router's rules before connection tracking say of what station 10 of network 1 sends to that address, when it
/// comes to them first.
fn is_tracked(planner: &Planner, to: &str) -> bool {
    struct Answer(Option<bool>);
    impl Tracking for Answer {
        fn arrives(&mut self, _: &Netns, packet: &Packet) -> Tracked {
            Tracked::as_said(packet)
        }
        fn leaves(&mut self, netns: &Netns, _: &Tracked, passage: &Passage) {
            if netns.to_string().starts_with("hr-") {
                self.0.get_or_insert(!passage.untracked);
            }
        }
    }
    let packet = Packet {
        link: Some(port(1).if_name()),
        mac: Some(mac(1)),
        source: ip("10.1.0.10"),
        destination: ip(to),
        payload: Payload::Ports {
            protocol: 6,
            source: 22,
            destination: 49_152,
        },
        connection: CtState::New,
        flow: None,
        quoted: None,
    };
    let mut answer = Answer(None);
    let netns = planner.netns_of(network_id(1));
    travel(planner, netns, packet, &mut answer, &mut Vec::new());
    answer.0.unwrap()
}

#[test]
fn answers_of_a_published_address_that_ports_are_forwarded_to_are_tracked() {
    let mut planner = with_gateway(&config().host);
    let mut router = planner.intent().routers[&router_id(1)].clone();
    router.published = [prefix("10.1.0.0/24")].into();
    planner.apply(Change::PutRouter(Box::new(router)));
    // Whoever asks by a forwarded port comes from the gateway's address.
    assert!(!is_tracked(&planner, "203.0.113.5"));
    planner.apply(forwarding());
    assert!(is_tracked(&planner, "203.0.113.5"));
    // What it asks for itself comes back from outside, and is translated then.
    assert!(!is_tracked(&planner, "203.0.113.50"));
    assert!(!is_tracked(&planner, "192.0.2.77"));
}

#[test]
fn who_comes_to_a_neighbour_s_floating_ip_with_a_published_address_comes_from_that() {
    let mut planner = with_gateway(&config().host);
    let mut router = planner.intent().routers[&router_id(1)].clone();
    router.published = [prefix("10.1.0.0/24")].into();
    planner.apply(Change::PutRouter(Box::new(router)));
    planner.apply(Change::PutFloatingIp(Box::new(FloatingIp {
        id: floating_id(1),
        router_id: router_id(1),
        floating_ip_address: "203.0.113.50".parse().unwrap(),
        network_id: network_id(1),
        fixed_ip_address: "10.1.0.10".parse().unwrap(),
        qos_policy_id: None,
    })));
    let mut neighbour = port(1);
    neighbour.id = port_id(9);
    neighbour.mac_address = mac(9);
    neighbour.fixed_ips = both(1, 11);
    planner.apply(Change::PutPort(Box::new(neighbour)));
    let mut hairpin = explained(&planner, 9, "203.0.113.50", 22);
    let link = port(1).if_name();
    assert_eq!(hairpin.verdict, Outcome::Delivered { link }, "{hairpin}");
    let own = NatRange {
        first: ip("203.0.113.50"),
        last: ip("203.0.113.50"),
    };
    hairpin.steps.retain(|step| *step == Step::Translates(own));
    assert_eq!(hairpin.steps.len(), 1);
}

fn leaves_as(explanation: &Explanation) -> Option<IpAddr> {
    match &explanation.verdict {
        Outcome::Leaves { translated, .. } => translated.map(|range| range.first),
        other => panic!("{other:?}: {explanation}"),
    }
}

#[test]
fn what_has_no_public_address_is_translated_by_the_gateway_host() {
    let here = with_gateway(&config().host);
    let sent = explained(&here, 1, "192.0.2.77", 22);
    assert_eq!(leaves_as(&sent), Some(ip("203.0.113.5")), "{sent}");
    assert_eq!(namespaces(&sent), ["hx-", "router"], "{sent}");

    let there = with_gateway(&"compute-9".parse().unwrap());
    let sent = explained(&there, 1, "192.0.2.77", 22);
    assert_eq!(leaves_as(&sent), None, "{sent}");
    let tunnels = Step::Tunnels {
        vni: SEGMENT,
        to: ip("2001:db8:f::9"),
        host: Some("compute-9".parse().unwrap()),
    };
    let [.., last, gateway] = &sent.steps[..] else {
        panic!("{sent}")
    };
    assert_eq!((last, gateway), (&tunnels, &Step::GatewayHost), "{sent}");

    for planner in [&here, &there] {
        let refused = explained(planner, 1, "2001:db8:99::77", 22);
        let not_public = Outcome::Dropped(Reason::NotPublic);
        assert_eq!(refused.verdict, not_public, "{refused}");
    }
}

#[test]
fn published_prefixes_go_out_and_in_as_they_are() {
    let mut planner = with_gateway(&"compute-9".parse().unwrap());
    let mut router = planner.intent().routers[&router_id(1)].clone();
    let prefixes = ["10.1.0.0/24", "fd00:1::/64"].map(prefix);
    router.published = prefixes.into();
    planner.apply(Change::PutRouter(Box::new(router)));
    for (family, to) in [(Family::V4, "192.0.2.77"), (Family::V6, "2001:db8:99::77")] {
        let sent = explained(&planner, 1, to, 22);
        assert_eq!(leaves_as(&sent), None, "{sent}");
        assert!(!sent.steps.contains(&Step::GatewayHost), "{sent}");
        let own = text(1, family, 10);
        let got = from_outside(&planner, &own, 22);
        let link = port(1).if_name();
        assert_eq!(got.verdict, Outcome::Delivered { link }, "{got}");
        assert_eq!(namespaces(&got), ["router", "hx-"], "{got}");
        assert_eq!(group_rules(&got, 1).len(), 1, "{got}");
        let closed = from_outside(&planner, &own, 23);
        let refused = Outcome::Dropped(Reason::IngressNotAllowed);
        assert_eq!(closed.verdict, refused, "{closed}");
    }
}

#[test]
fn floating_ips_and_forwarded_ports_lead_inside() {
    let mut planner = with_gateway(&config().host);
    planner.apply(Change::PutFloatingIp(Box::new(FloatingIp {
        id: floating_id(1),
        router_id: router_id(1),
        floating_ip_address: "203.0.113.50".parse().unwrap(),
        network_id: network_id(1),
        fixed_ip_address: "10.1.0.10".parse().unwrap(),
        qos_policy_id: None,
    })));
    planner.apply(forwarding());
    let sent = explained(&planner, 1, "192.0.2.77", 22);
    assert_eq!(leaves_as(&sent), Some(ip("203.0.113.50")), "{sent}");
    for (to, at, port_inside) in [("203.0.113.50", 22, None), ("203.0.113.51", 8022, Some(22))] {
        let got = from_outside(&planner, to, at);
        let redirects = Step::Redirects {
            to: ip("10.1.0.10"),
            port: port_inside,
        };
        assert!(got.steps.contains(&redirects), "{got}");
        let link = port(1).if_name();
        assert_eq!(got.verdict, Outcome::Delivered { link }, "{got}");
    }
    let closed = from_outside(&planner, "203.0.113.51", 22);
    assert!(matches!(closed.verdict, Outcome::Dropped(_)), "{closed}");
    // From a neighbour on the same network it goes out and comes back.
    let hairpin = explained(&planner, 1, "203.0.113.51", 8022);
    let link = port(1).if_name();
    assert_eq!(hairpin.verdict, Outcome::Delivered { link }, "{hairpin}");
    assert_eq!(
        namespaces(&hairpin),
        ["hx-", "router", "router", "hx-"],
        "{hairpin}"
    );
}
