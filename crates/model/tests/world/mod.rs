//! Small random clouds: few of each thing, so that they meet, repeat and contradict one another.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod metering;
pub mod qos;
pub mod routers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_autoconf::upstream::{OnLink, Upstream};
use hextet_model::{
    intent::{
        Change, FloatingIp, GatewayHost, Group, Joined, PortForwarding, Router, RoutingDomain,
        TunnelEndpoint,
    },
    neutron::{
        AddressPair, Binding, DelegatedPrefix, Delegation, Direction, FixedIp, ForwardedProtocol,
        HostRoute, Ipv6Mode, Nat44, Network, NetworkType, Port, PortRange, Protocol, SecurityGroup,
        SecurityGroupRule, Standard, Status, Subnet,
    },
    plan::{Aggregate, HostConfig},
    state::Scope,
};
use hextet_types::{
    AddressGroupId, Family, FloatingIpId, HostId, Mac, NetworkId, PortForwardingId, PortId, Prefix,
    ProjectId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
use jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*, sample::select};
use uuid::Uuid;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn mac(n: u8) -> Mac {
    Mac::new([0xfa, 0x16, 0x3e, 0, 0, n])
}

pub fn network_id(n: u8) -> NetworkId {
    NetworkId(Uuid::from_u128(0x1000 + u128::from(n)))
}

pub fn subnet_id(n: u8) -> SubnetId {
    SubnetId(Uuid::from_u128(0x2000 + u128::from(n)))
}

/// Lists of the third alone and of the fourth alone have the same number.
pub fn group_id(n: u8) -> SecurityGroupId {
    SecurityGroupId(Uuid::from_u128(match n {
        2 => 7_436,
        3 => 9_406,
        _ => 0x3000 + u128::from(n),
    }))
}

/// Ports 0 and 1 would have the same interface.
pub fn port_id(n: u8) -> PortId {
    PortId(Uuid::from_u128(
        (u128::from(n.max(1)) << 96) + u128::from(n),
    ))
}

pub fn standard() -> Standard {
    Standard {
        project_id: ProjectId("p".to_owned()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

pub fn network(n: u8) -> Network {
    Network {
        id: network_id(n),
        standard: standard(),
        admin_state_up: true,
        status: Status::Active,
        shared: true,
        external: false,
        is_default: false,
        mtu: 1500,
        port_security_enabled: true,
        network_type: NetworkType::Routed,
        physical_network: None,
        segmentation_id: None,
        dns_domain: String::new(),
        availability_zone_hints: Vec::new(),
        single_homed: false,
        qos_policy_id: None,
    }
}

/// The prefixes that subnets of tests have.
pub const CIDRS: [&str; 4] = [
    "2001:db8:1::/64",
    "10.1.0.0/24",
    "192.0.2.0/28",
    "2001:db8:2::/64",
];

pub fn subnet(n: u8) -> Subnet {
    let cidr = prefix(CIDRS[usize::from(n)]);
    Subnet {
        id: subnet_id(n),
        standard: standard(),
        network_id: network_id(n / 2),
        cidr,
        gateway_ip: None,
        allocation_pools: Vec::new(),
        enable_dhcp: true,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: (cidr.family() == Family::V6).then_some(Ipv6Mode::Slaac),
        ipv6_address_mode: (cidr.family() == Family::V6).then_some(Ipv6Mode::Slaac),
        subnetpool_id: None,
        service_types: Vec::new(),
        nat44: None,
        delegation: None,
    }
}

pub fn nat44(max_connections_per_port: u32) -> Nat44 {
    Nat44 {
        // Of an odd number the host's own address is the source.
        pool_subnet_id: max_connections_per_port
            .is_multiple_of(2)
            .then(|| subnet_id(2)),
        addresses_per_host: 2,
        max_connections_per_port,
    }
}

pub fn fixed(subnet: u8, addr: &str) -> FixedIp {
    FixedIp {
        subnet_id: subnet_id(subnet),
        ip_address: ip(addr),
    }
}

pub fn port(n: u8, fixed_ips: Vec<FixedIp>, groups: &[u8]) -> Port {
    Port {
        id: port_id(n),
        standard: standard(),
        network_id: network_id(0),
        mac_address: mac(n),
        fixed_ips,
        device_id: String::new(),
        device_owner: "compute:nova".to_owned(),
        admin_state_up: true,
        status: Status::Down,
        security_groups: groups.iter().map(|g| group_id(*g)).collect(),
        port_security_enabled: true,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        dns_name: String::new(),
        metadata: None,
        exposed: Vec::new(),
        delegated_prefixes: Vec::new(),
        qos_policy_id: None,
        binding: Binding::default(),
    }
}

pub fn rule(n: u8, direction: Direction, ethertype: Family) -> SecurityGroupRule {
    SecurityGroupRule {
        id: SecurityGroupRuleId(Uuid::from_u128(0x4000 + u128::from(n))),
        security_group_id: group_id(0),
        project_id: ProjectId("p".to_owned()),
        description: String::new(),
        direction,
        ethertype,
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id: None,
        remote_address_group_id: None,
        as_written: None,
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

pub fn group(n: u8, rules: impl IntoIterator<Item = SecurityGroupRule>) -> Group {
    let rules = rules.into_iter().zip(0..).map(|(mut rule, i)| {
        rule.id = SecurityGroupRuleId(Uuid::from_u128(0x4000 + u128::from(n) * 256 + i));
        rule.security_group_id = group_id(n);
        (rule.id, rule)
    });
    Group {
        group: SecurityGroup {
            id: group_id(n),
            standard: standard(),
            stateful: true,
            shared: false,
        },
        rules: rules.collect(),
        addresses: [].into(),
    }
}

pub fn config() -> HostConfig {
    let mut config = HostConfig::new("compute-1".parse().unwrap());
    config.uplinks = ["up0".parse().unwrap(), "up1".parse().unwrap()].into();
    config.physical_networks = [("net0".to_owned(), "up1".parse().unwrap())].into();
    config.exempt = ["tap0".parse().unwrap()].into();
    config
}

pub fn any_config() -> impl Strategy<Value = HostConfig> {
    (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(blackhole_inside, aggregate)| {
        let mut config = config();
        config.blackhole_inside = blackhole_inside;
        if aggregate {
            config.aggregates.push(Aggregate {
                prefix: prefix("192.0.2.0/28"),
                scope: Scope::Global,
            });
        }
        config
    })
}

/// Addresses that ports have, and some that nobody has.
pub const ADDRESSES: [(u8, &str); 10] = [
    (0, "2001:db8:1::a"),
    (0, "2001:db8:1::b"),
    (1, "10.1.0.10"),
    (1, "10.1.0.11"),
    (2, "192.0.2.1"),
    (2, "192.0.2.2"),
    (3, "2001:db8:2::a"),
    (3, "2001:db8:2::b"),
    (1, "10.1.0.99"),
    (0, "2001:db8:1::99"),
];

pub const PAIRS: [&str; 6] = [
    "10.1.0.99/32",
    "10.9.0.0/16",
    "2001:db8:9::/48",
    "2001:db8:1::99/128",
    "10.1.0.10/32",
    "10.9.1.0/24",
];

pub fn some_port() -> impl Strategy<Value = Port> {
    let addresses = prop::sample::subsequence(&ADDRESSES[..8], 1..4);
    let groups = prop::sample::subsequence(vec![0u8, 1, 2, 3], 0..3);
    let pairs = vec((select(&PAIRS[..]), 0u8..4), 0..2);
    let flags = (
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.95),
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.1),
    );
    (0u8..6, addresses, groups, pairs, 0u8..2, flags).prop_map(
        |(n, addresses, groups, pairs, on, (secured, up, nat, delegated))| {
            let fixed_ips = addresses.iter().map(|(s, a)| fixed(*s, a)).collect();
            let mut port = port(n, fixed_ips, &groups);
            port.network_id = network_id(on);
            port.port_security_enabled = secured;
            port.admin_state_up = up;
            if delegated {
                port.delegated_prefixes = vec![DelegatedPrefix {
                    subnet_id: subnet_id(3),
                    prefix: prefix(&format!("2001:db8:7:{n}::/64")),
                }];
            }
            if nat {
                port.device_owner = "network:nat44".to_owned();
            }
            port.allowed_address_pairs = pairs
                .into_iter()
                .map(|(p, m)| AddressPair {
                    ip_address: prefix(p),
                    mac_address: mac(m),
                })
                .collect();
            port
        },
    )
}

pub const RANGES: [(Option<u16>, Option<u16>); 9] = [
    (None, None),
    (None, None),
    (Some(22), Some(22)),
    (Some(80), Some(90)),
    (Some(1), Some(65535)),
    (Some(8), Some(0)),
    (Some(8), None),
    (Some(128), None),
    (Some(3), Some(4)),
];

const REMOTES: [Option<&str>; 9] = [
    None,
    None,
    None,
    Some("10.1.0.0/24"),
    Some("192.0.2.1/32"),
    Some("0.0.0.0/0"),
    Some("2001:db8:1::/64"),
    Some("::/0"),
    Some("2001:db8:2::a/127"),
];

pub fn some_rule() -> impl Strategy<Value = SecurityGroupRule> {
    let direction = select(vec![Direction::Ingress, Direction::Egress]);
    let family = select(Family::BOTH.to_vec());
    let protocol = select(vec![
        None,
        None,
        Some(6),
        Some(17),
        Some(1),
        Some(58),
        Some(47),
        Some(0),
    ]);
    let remote_group = option::weighted(0.25, 0u8..4);
    let remote = (select(&REMOTES[..]), remote_group);
    // In place of both.
    let addresses = option::weighted(0.2, 0u8..3);
    let what = (protocol, select(&RANGES[..]));
    (direction, family, what, remote, addresses).prop_map(
        |(direction, family, (protocol, (min, max)), remote, addresses)| {
            let (prefix, group) = remote;
            let otherwise = addresses.is_none();
            SecurityGroupRule {
                protocol: protocol.map(Protocol),
                port_range_min: min,
                port_range_max: max,
                remote_ip_prefix: prefix.filter(|_| otherwise).map(self::prefix),
                remote_group_id: group.filter(|_| otherwise).map(group_id),
                remote_address_group_id: addresses.map(address_group_id),
                ..rule(0, direction, family)
            }
        },
    )
}

fn address_group_id(n: u8) -> AddressGroupId {
    AddressGroupId(Uuid::from_u128(0x7000 + u128::from(n)))
}

/// Two of the three that rules may name.
fn some_address_groups() -> impl Strategy<Value = BTreeMap<AddressGroupId, BTreeSet<Prefix>>> {
    let of_one = vec(select(&REMOTES[..]), 0..4);
    let prefixes = |all: Vec<Option<&str>>| all.into_iter().flatten().map(prefix).collect();
    vec(of_one, 2).prop_map(move |all| {
        let named = (0..).map(address_group_id).zip(all);
        named.map(|(id, all)| (id, prefixes(all))).collect()
    })
}

pub fn some_group() -> impl Strategy<Value = Group> {
    let stateful = prop::bool::weighted(0.7);
    (
        0u8..4,
        vec(some_rule(), 0..7),
        stateful,
        some_address_groups(),
    )
        .prop_map(|(n, rules, stateful, addresses)| {
            let mut group = group(n, rules);
            group.group.stateful = stateful;
            group.addresses = addresses;
            group
        })
}

pub fn some_subnet() -> impl Strategy<Value = Subnet> {
    let modes = vec![
        None,
        Some(Ipv6Mode::Slaac),
        Some(Ipv6Mode::Dhcpv6Stateful),
        Some(Ipv6Mode::Dhcpv6Stateless),
    ];
    (
        0u8..4,
        option::weighted(0.5, 1u32..3),
        select(modes),
        any::<bool>(),
        (option::of(select(&GATEWAYS[..])), vec(some_route(), 0..2)),
        option::weighted(0.2, any::<bool>()),
    )
        .prop_map(|(n, nat, mode, other_cidr, (gateway, routes), preferred)| {
            let mut subnet = subnet(n);
            subnet.gateway_ip = gateway.map(|(_, addr)| ip(addr));
            subnet.host_routes = routes;
            subnet.nat44 = nat.map(nat44);
            subnet.ipv6_ra_mode = mode;
            subnet.ipv6_address_mode = mode;
            let preferred = preferred.filter(|_| subnet.family() == Family::V6);
            subnet.delegation = preferred.map(|preferred| Delegation {
                prefixlen: 64,
                preferred,
            });
            if n == 2 && other_cidr {
                subnet.cidr = prefix("10.1.0.0/24");
            }
            subnet
        })
}

/// Addresses of routers, some of which two may have.
pub const GATEWAYS: [(u8, &str); 7] = [
    (0, "2001:db8:1::1"),
    (1, "10.1.0.1"),
    (1, "10.1.0.2"),
    (2, "192.0.2.3"),
    (3, "2001:db8:2::1"),
    (0, "fe80::9"),
    (1, "10.1.0.10"),
];

const BEYOND: [&str; 6] = [
    "0.0.0.0/0",
    "::/0",
    "10.1.0.0/24",
    "10.1.0.8/29",
    "10.9.0.0/16",
    "2001:db8:9::/48",
];

fn some_route() -> impl Strategy<Value = HostRoute> {
    let by = (0..ADDRESSES.len() + GATEWAYS.len()).prop_map(|n| {
        let mut all = ADDRESSES.iter().chain(&GATEWAYS);
        ip(all.nth(n).unwrap().1)
    });
    (select(&BEYOND[..]), by).prop_map(|(to, nexthop)| HostRoute {
        destination: prefix(to),
        nexthop,
    })
}

/// Addresses outside, some of which several want, and two of which ports or others have.
const OUTSIDE: [&str; 6] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "2001:db8:e::1",
    "10.1.0.10",
    "192.0.2.8",
];

const PUBLISHED: [&str; 6] = [
    "2001:db8:1::/64",
    "2001:db8:2::a/128",
    "10.1.0.0/24",
    "192.0.2.0/28",
    "192.0.2.2/32",
    "::/0",
];

/// A router's way outside: its gateways, who translates, and what is published.
type Outside = (
    Vec<(u8, Vec<&'static str>, bool)>,
    Option<(HostId, u32)>,
    Vec<&'static str>,
    bool,
);

fn some_outside() -> impl Strategy<Value = Outside> {
    let addresses = prop::sample::subsequence(&OUTSIDE[..], 0..3);
    let gateways = vec((0u8..3, addresses, prop::bool::weighted(0.9)), 0..3);
    let host = option::weighted(0.7, (some_host(), 900u32..902));
    let published = prop::sample::subsequence(&PUBLISHED[..], 0..4);
    (gateways, host, published, prop::bool::weighted(0.8))
}

fn add_outside(router: &mut Router, (gateways, host, published, snat): Outside) {
    router.router.enable_snat = snat;
    router.router.enable_default_route_ecmp = gateways.len() > 1;
    router.published = published.into_iter().map(prefix).collect();
    router.gateway_host = host.map(|(host, segment)| GatewayHost {
        host,
        segment,
        generation: 1,
    });
    for (i, (on, addresses, up)) in (0..).zip(gateways) {
        let fixed_ips = addresses.iter().map(|a| fixed(2, a)).collect();
        routers::add_gateway(router, i, network_id(on), fixed_ips, up);
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn floating_id(n: u8) -> FloatingIpId {
    FloatingIpId(Uuid::from_u128(0x6000 + u128::from(n)))
}

pub fn forwarding_id(n: u8) -> PortForwardingId {
    PortForwardingId(Uuid::from_u128(0x7000 + u128::from(n)))
}

const INSIDE: [&str; 4] = ["10.1.0.10", "10.1.0.11", "192.0.2.1", "192.0.2.2"];

fn some_floating_ip() -> impl Strategy<Value = FloatingIp> {
    (0u8..4, 0u8..4, 0usize..4, 0u8..2, select(&INSIDE[..])).prop_map(
        |(n, router, outside, on, inside)| FloatingIp {
            id: floating_id(n),
            router_id: routers::router_id(router),
            floating_ip_address: v4(
                ["198.51.100.1", "198.51.100.9", "198.51.100.8", "10.1.0.10"][outside],
            ),
            network_id: network_id(on),
            fixed_ip_address: v4(inside),
            qos_policy_id: None,
        },
    )
}

fn some_forwarding() -> impl Strategy<Value = PortForwarding> {
    let ports = [
        (80, 80, 80, 80),
        (80, 82, 8080, 8082),
        (1, 9, 22, 22),
        (80, 90, 80, 90),
    ];
    let protocol = select(vec![ForwardedProtocol::Tcp, ForwardedProtocol::Udp]);
    let outside = select(vec!["198.51.100.8", "198.51.100.7"]);
    let who = (0u8..4, 0u8..4, protocol, select(ports.to_vec()));
    (who, outside, 0u8..2, select(&INSIDE[..])).prop_map(
        |((n, router, protocol, (a, b, c, d)), outside, on, inside)| PortForwarding {
            id: forwarding_id(n),
            router_id: routers::router_id(router),
            floating_ip_address: v4(outside),
            protocol,
            external_port_range: PortRange::new(a, b).unwrap(),
            network_id: network_id(on),
            internal_ip_address: v4(inside),
            internal_port_range: PortRange::new(c, d).unwrap(),
        },
    )
}

/// Also with interfaces on networks that are not there, and several on one subnet.
fn some_router() -> impl Strategy<Value = Router> {
    let up = || prop::bool::weighted(0.9);
    let addresses = prop::sample::subsequence(&GATEWAYS[..], 0..3);
    let interfaces = vec((0u8..3, addresses, up()), 0..3);
    let routes = vec(some_route(), 0..4);
    (0u8..4, interfaces, routes, up(), some_outside()).prop_map(
        |(n, interfaces, routes, up, way)| {
            let mut router = routers::router(n);
            add_outside(&mut router, way);
            router.router.admin_state_up = up;
            router.router.routes = routes;
            for (i, (on, addresses, _)) in (0..).zip(&interfaces) {
                let fixed_ips = addresses.iter().map(|(s, a)| fixed(*s, a)).collect();
                routers::add_interface(&mut router, i, network_id(*on), fixed_ips);
            }
            for (interface, (.., up)) in router.interfaces.values_mut().zip(interfaces) {
                interface.admin_state_up = up;
            }
            router
        },
    )
}

fn some_upstream() -> impl Strategy<Value = Upstream> {
    let prefixes = prop::sample::subsequence(vec![CIDRS[0], CIDRS[3]], 0..2);
    let routers = prop::sample::subsequence(vec!["fe80::a", "fe80::b"], 0..2);
    let flags = (any::<bool>(), any::<bool>(), option::of(1_280_u32..1_282));
    (prefixes, routers, flags).prop_map(|(prefixes, routers, (autonomous, other, mtu))| Upstream {
        routers: routers.iter().map(|addr| addr.parse().unwrap()).collect(),
        other,
        mtu,
        prefixes: prefixes
            .iter()
            .map(|text| OnLink {
                prefix: prefix(text),
                on_link: true,
                autonomous,
                prefer_delegation: false,
                valid_lifetime_secs: 7_200,
                preferred_lifetime_secs: 3_600,
            })
            .collect(),
        ..Upstream::default()
    })
}

pub fn some_network() -> impl Strategy<Value = Network> {
    let kinds = vec![NetworkType::Routed, NetworkType::Flat, NetworkType::Vxlan];
    let kind = select(kinds);
    (0u8..2, prop::bool::weighted(0.95), 1280u16..1282, kind).prop_map(|(n, up, mtu, kind)| {
        Network {
            admin_state_up: up,
            mtu,
            network_type: kind,
            physical_network: Some(format!("net{n}")).filter(|_| kind == NetworkType::Flat),
            segmentation_id: Some(u32::from(mtu)),
            ..network(n)
        }
    })
}

/// This host, or one of two others.
fn some_host() -> impl Strategy<Value = HostId> {
    select(vec!["compute-1", "compute-2", "compute-3"]).prop_map(|name| name.parse().unwrap())
}

fn some_addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    prop::collection::btree_set(select(&ADDRESSES[..]).prop_map(|(_, a)| ip(a)), 0..4)
}

fn some_sources() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    let all = [
        "192.0.2.8",
        "192.0.2.9",
        "192.0.2.11",
        "192.0.2.1",
        "2001:db8:1::a",
    ];
    prop::collection::btree_set(select(all.to_vec()).prop_map(ip), 0..4)
}

fn some_domain() -> impl Strategy<Value = RoutingDomain> {
    let network = (0u8..2).prop_map(|n| RoutingDomain::Network(network_id(n)));
    prop_oneof![2 => Just(RoutingDomain::Routed), 1 => network]
}

pub fn some_change() -> impl Strategy<Value = Change> {
    let bare = some_bare_change();
    let with = (bare, 0u8..8).prop_map(|(change, n)| qos::with_policy(change, n));
    let server = (with, any::<bool>()).prop_map(|(mut change, is_server)| {
        if let Change::PutPort(port) = &mut change
            && is_server
        {
            port.device_id = Uuid::from_u128(7).to_string();
        }
        change
    });
    let metadata = any::<bool>().prop_map(Change::SetNovaMetadata);
    prop_oneof![16 => server, 1 => qos::some_change(), 1 => metadata, 2 => some_audience()]
}

/// Some have joined a group, who may or may not be here, or nobody has.
fn some_audience() -> impl Strategy<Value = Change> {
    let group = select(vec!["224.0.0.251", "ff02::fb"]).prop_map(ip);
    let ports = prop::collection::btree_map(0u8..6, some_addresses(), 0..4);
    (0u8..2, group, ports).prop_map(|(network, group, ports)| {
        let joined = |(n, addrs): (u8, BTreeSet<IpAddr>)| {
            let addr = *addrs.first()?;
            let mac = Mac::new([2, 0, 0, 0, 1, n]);
            Some((port_id(n), Joined { mac, addr }))
        };
        let joined: BTreeMap<_, _> = ports.into_iter().filter_map(joined).collect();
        match joined.is_empty() {
            true => Change::RemoveAudience(network_id(network), group),
            false => Change::PutAudience(network_id(network), group, joined),
        }
    })
}

fn some_bare_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => some_network().prop_map(|n| Change::PutNetwork(Box::new(n))),
        4 => some_subnet().prop_map(|s| Change::PutSubnet(Box::new(s))),
        8 => some_port().prop_map(|p| Change::PutPort(Box::new(p))),
        6 => some_group().prop_map(|g| Change::PutGroup(Box::new(g))),
        4 => (0u8..4, some_domain(), some_addresses())
            .prop_map(|(g, d, a)| Change::AddMembers(group_id(g), d, a)),
        2 => (0u8..4, some_sources()).prop_map(|(s, a)| Change::SetNat44Sources(subnet_id(s), a)),
        1 => (0u8..2).prop_map(|n| Change::RemoveNetwork(network_id(n))),
        1 => (0u8..4).prop_map(|n| Change::RemoveSubnet(subnet_id(n))),
        2 => (0u8..6).prop_map(|n| Change::RemovePort(port_id(n))),
        2 => (0u8..6).prop_map(|n| Change::PutStandby(port_id(n))),
        1 => (0u8..6).prop_map(|n| Change::RemoveStandby(port_id(n))),
        2 => (0u8..4).prop_map(|n| Change::RemoveGroup(group_id(n))),
        2 => (some_host(), select(vec!["2001:db8:f::1", "198.51.100.1"])).prop_map(|(host, at)| {
            let number = u32::from(host.as_str().bytes().last().unwrap());
            let endpoint = TunnelEndpoint { number, address: ip(at) };
            Change::PutHost(host, endpoint)
        }),
        1 => some_host().prop_map(Change::RemoveHost),
        3 => (0u8..2, some_addresses(), some_host()).prop_map(|(n, addrs, host)| {
            let remotes = addrs.into_iter().map(|addr| (addr, host.clone()));
            Change::PutRemotes(network_id(n), remotes.collect())
        }),
        1 => (0u8..2, some_addresses()).prop_map(|(n, a)| Change::RemoveRemotes(network_id(n), a)),
        4 => some_router().prop_map(|r| Change::PutRouter(Box::new(r))),
        1 => (0u8..4).prop_map(|n| Change::RemoveRouter(routers::router_id(n))),
        2 => (0u8..4, some_domain(), some_addresses())
            .prop_map(|(g, d, a)| Change::RemoveMembers(group_id(g), d, a)),
        3 => some_floating_ip().prop_map(|ip| Change::PutFloatingIp(Box::new(ip))),
        1 => (0u8..4).prop_map(|n| Change::RemoveFloatingIp(floating_id(n))),
        3 => some_forwarding().prop_map(|f| Change::PutPortForwarding(Box::new(f))),
        1 => (0u8..4).prop_map(|n| Change::RemovePortForwarding(forwarding_id(n))),
        3 => (0u8..2, some_upstream())
            .prop_map(|(n, said)| Change::PutUpstream(format!("net{n}"), Box::new(said))),
        1 => (0u8..2).prop_map(|n| Change::RemoveUpstream(format!("net{n}"))),
    ]
}
