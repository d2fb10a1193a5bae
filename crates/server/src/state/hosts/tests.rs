use std::{collections::HashMap, net::Ipv6Addr};

use bytes::Bytes;
use hextet_model::{
    intent::{GatewayHost, Intent, MeterRule, RemotePort, RouterInterface, TunnelEndpoint},
    neutron::{
        self, AddressGroup, AddressPair, Binding, Direction, FixedIp, ForwardedProtocol, HostRoute,
        MeteringLabel, MeteringRule, NdpProxy, NetworkType, PortRange, Router, RouterGateway,
        SecurityGroup, SecurityGroupRule, Standard, Status, SubnetPool,
    },
};
use hextet_store::{Event, KeyValue};
use hextet_types::{
    AddressGroupId, AddressScopeId, Family, Mac, MeteringLabelId, MeteringRuleId, NdpProxyId,
    Prefix, ProjectId, SecurityGroupRuleId, SubnetPoolId,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::Serialize;
use uuid::Uuid;

use super::{members::member_addresses, *};
use crate::{
    keys,
    state::{HostRecord, bindings::BindingRecord, holders::HolderRecord, layer3::GatewayRecord},
};

/// Security groups that there may be.
const GROUPS: u8 = 4;
/// Metering labels that there may be.
const LABELS: u8 = 3;

fn id(kind: u8, n: u8) -> Uuid {
    Uuid::from_bytes([kind, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

fn standard(revision: u64) -> Standard {
    Standard {
        project_id: ProjectId("p".into()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: revision,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn network(n: u8, private: bool, revision: u64) -> Network {
    Network {
        id: NetworkId(id(1, n)),
        standard: standard(revision),
        admin_state_up: true,
        status: Status::Active,
        shared: true,
        external: false,
        is_default: false,
        mtu: 1500,
        port_security_enabled: true,
        network_type: if private {
            NetworkType::Vxlan
        } else {
            NetworkType::Routed
        },
        physical_network: None,
        segmentation_id: private.then_some(n.into()),
        dns_domain: String::new(),
        availability_zone_hints: Vec::new(),
        single_homed: false,
        qos_policy_id: None,
    }
}

fn subnet(n: u8, revision: u64) -> Subnet {
    Subnet {
        id: SubnetId(id(2, n)),
        standard: standard(revision),
        network_id: NetworkId(id(1, n)),
        cidr: format!("10.{n}.0.0/16").parse().unwrap(),
        gateway_ip: None,
        allocation_pools: Vec::new(),
        enable_dhcp: true,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        subnetpool_id: (n != 2).then(|| SubnetPoolId(id(7, n % 2))),
        service_types: Vec::new(),
        nat44: None,
    }
}

fn group(n: u8, revision: u64) -> SecurityGroup {
    let id = SecurityGroupId(id(3, n));
    SecurityGroup {
        id,
        standard: standard(revision),
        stateful: true,
        shared: false,
    }
}

/// With those of three prefixes whose bits are set.
fn address_group(n: u8, which: u8, revision: u64) -> AddressGroup {
    let prefixes = ["192.0.2.0/24", "198.51.100.7/32", "2001:db8:9::/48"];
    let named = prefixes.iter().enumerate();
    let named = named.filter(|(i, _)| which & (1 << i) != 0);
    AddressGroup {
        id: AddressGroupId(id(5, n)),
        standard: standard(revision),
        addresses: named.map(|(_, p)| p.parse().unwrap()).collect(),
        shared: false,
    }
}

/// Its other end is a member of a group, or, with a number from [`GROUPS`] on, in an address group.
fn rule(n: u8, group: u8, remote: Option<u8>, revision: u64) -> SecurityGroupRule {
    SecurityGroupRule {
        id: SecurityGroupRuleId(id(4, n)),
        security_group_id: SecurityGroupId(id(3, group)),
        project_id: ProjectId("p".into()),
        description: String::new(),
        direction: Direction::Ingress,
        ethertype: Family::V4,
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id: remote
            .filter(|r| *r < GROUPS)
            .map(|r| SecurityGroupId(id(3, r))),
        remote_address_group_id: remote
            .and_then(|r| r.checked_sub(GROUPS))
            .map(|r| AddressGroupId(id(5, r))),
        as_written: None,
        revision_number: revision,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn mac(n: u8) -> Mac {
    Mac::new([0xfa, 0x16, 0x3e, 0, 0, n])
}

/// Of another port's address; from 8 on, of all that begin alike.
fn pair(n: &u8) -> AddressPair {
    AddressPair {
        ip_address: match n {
            0..8 => Prefix::host(address(*n, 0)),
            _ => Prefix::new(address(*n, 0), 24).unwrap(),
        },
        mac_address: mac(1),
    }
}

/// A port as a step describes it.
#[derive(Clone, Debug)]
struct Spec {
    n: u8,
    network: u8,
    address: u8,
    /// Of which other port it may use the address.
    pair: Option<u8>,
    host: Option<u8>,
    groups: BTreeSet<u8>,
    source: bool,
    migrating_to: Option<u8>,
}

fn host(n: u8) -> HostId {
    format!("h{n}").parse().unwrap()
}

/// The same on every network.
fn address(n: u8, address: u8) -> IpAddr {
    [10, 0, n % 8, address].into()
}

/// Ports before this one may have NDP proxies.
const PROXIED: u8 = 3;

fn address_v6(n: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()))
}

fn port(spec: &Spec, revision: u64) -> Port {
    Port {
        id: PortId(id(5, spec.n)),
        standard: standard(revision),
        network_id: NetworkId(id(1, spec.network)),
        mac_address: mac(spec.n),
        fixed_ips: [
            Some(address(spec.n, spec.address)),
            (spec.n < PROXIED).then(|| address_v6(spec.n)),
        ]
        .into_iter()
        .flatten()
        .map(|ip_address| FixedIp {
            subnet_id: SubnetId(id(2, spec.network)),
            ip_address,
        })
        .collect(),
        device_id: if spec.source {
            SubnetId(id(2, spec.n % 3)).to_string()
        } else {
            String::new()
        },
        device_owner: if spec.source {
            NAT44_OWNER.into()
        } else {
            String::new()
        },
        admin_state_up: true,
        status: Status::Down,
        security_groups: spec
            .groups
            .iter()
            .map(|g| SecurityGroupId(id(3, *g)))
            .collect(),
        port_security_enabled: true,
        allowed_address_pairs: spec.pair.iter().map(pair).collect(),
        extra_dhcp_opts: Vec::new(),
        dns_name: String::new(),
        metadata: None,
        qos_policy_id: None,
        binding: Binding {
            host_id: spec.host.map(host),
            profile: profile(spec.migrating_to),
            ..Binding::default()
        },
    }
}

fn profile(migrating_to: Option<u8>) -> serde_json::Map<String, serde_json::Value> {
    let to = migrating_to.map(|to| ("migrating_to".to_owned(), host(to).as_str().into()));
    to.into_iter().collect()
}

/// A router as a step describes it.
#[derive(Clone, Debug)]
struct RouterSpec {
    n: u8,
    /// Routes that lead to the interface of another router on a network.
    hops: BTreeSet<(u8, u8)>,
    /// On the network that is external.
    gateway: bool,
}

/// The one that routers have gateways on.
const OUTSIDE: u8 = 3;

/// A router's port on a network: its number, of all ports.
fn router_port(router: u8, network: u8) -> u8 {
    100 + 4 * router + network
}

fn interface_address(router: u8, network: u8) -> IpAddr {
    [10, 1, network, router].into()
}

fn router(spec: &RouterSpec, revision: u64) -> Router {
    let gateway = RouterGateway {
        network_id: NetworkId(id(1, OUTSIDE)),
        port_id: PortId(id(5, router_port(spec.n, OUTSIDE))),
        qos_policy_id: None,
    };
    let route = |(router, network): &(u8, u8)| HostRoute {
        destination: "192.0.2.0/24".parse().unwrap(),
        nexthop: interface_address(*router, *network),
    };
    Router {
        id: RouterId(id(6, spec.n)),
        standard: standard(revision),
        admin_state_up: true,
        gateways: spec.gateway.then_some(gateway).into_iter().collect(),
        enable_snat: true,
        routes: spec.hops.iter().map(route).collect(),
        enable_ndp_proxy: spec.n == 1,
        enable_default_route_ecmp: false,
        enable_default_route_bfd: false,
        availability_zone_hints: Vec::new(),
    }
}

fn pool(n: u8, scope: Option<u8>, revision: u64) -> SubnetPool {
    let prefixes: Vec<Prefix> = vec!["10.0.0.0/8".parse().unwrap()];
    SubnetPool {
        id: SubnetPoolId(id(7, n)),
        standard: standard(revision),
        family: Family::V4,
        prefixes,
        default_prefixlen: 16,
        min_prefixlen: 8,
        max_prefixlen: 32,
        default_quota: None,
        address_scope_id: scope.map(|s| AddressScopeId(id(8, s))),
        shared: false,
        is_default: false,
        made_by_admin: !revision.is_multiple_of(4),
    }
}

fn floating_ip(spec: &FloatingSpec, revision: u64) -> neutron::FloatingIp {
    let fixed = |port: u8| match address(port, spec.address) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!(),
    };
    neutron::FloatingIp {
        id: FloatingIpId(id(10, spec.n)),
        standard: standard(revision),
        floating_network_id: NetworkId(id(1, OUTSIDE)),
        floating_ip_address: [203, 0, 113, spec.n].into(),
        floating_port_id: PortId(id(11, spec.n)),
        qos_policy_id: None,
        port_id: spec.port.map(|p| PortId(id(5, p))),
        fixed_ip_address: spec.port.map(fixed),
        router_id: spec.router.map(|r| RouterId(id(6, r))),
    }
}

fn forwarding(n: u8, port: u8, ip: u8, revision: u64) -> neutron::PortForwarding {
    neutron::PortForwarding {
        id: PortForwardingId(id(12, n)),
        project_id: ProjectId("p".into()),
        description: String::new(),
        floatingip_id: FloatingIpId(id(10, ip)),
        protocol: ForwardedProtocol::Tcp,
        external_port_range: PortRange::new(80, 80).unwrap(),
        internal_port_id: PortId(id(5, port)),
        internal_ip_address: [10, 0, 0, n].into(),
        internal_port_range: PortRange::new(8080, 8080).unwrap(),
        revision_number: revision,
    }
}

/// A router's port: an interface, or on the external network a gateway.
fn attachment(n: u8, network: u8, revision: u64) -> Port {
    let spec = Spec {
        n: router_port(n, network),
        network,
        address: 0,
        pair: None,
        host: None,
        groups: BTreeSet::new(),
        source: false,
        migrating_to: None,
    };
    let owner = match network {
        OUTSIDE => Router::GATEWAY_OWNER,
        _ => Router::INTERFACE_OWNER,
    };
    let mut port = port(&spec, revision);
    port.device_owner = owner.to_owned();
    port.device_id = RouterId(id(6, n)).to_string();
    port.fixed_ips[0].ip_address = interface_address(n, network);
    port
}

/// A floating IP as a step describes it.
#[derive(Clone, Debug)]
struct FloatingSpec {
    n: u8,
    port: Option<u8>,
    address: u8,
    router: Option<u8>,
}

#[derive(Clone, Debug)]
enum Step_ {
    Router(RouterSpec, bool),
    Attachment(u8, u8, bool),
    /// Where a router translates.
    Gateway(u8, Option<u8>, bool),
    /// A pool's scope.
    Pool(u8, Option<u8>, bool),
    Proxy(u8, bool),
    FloatingIp(FloatingSpec, bool),
    /// To a port, and by which floating IP.
    Forwarding(u8, u8, u8, bool),
    Network(u8, bool, bool),
    Tunnel(u8, u8, bool),
    /// Whether it is willing to translate.
    Host(u8, bool, bool),
    Subnet(u8, bool),
    Group(u8, bool),
    AddressGroup(u8, u8, bool),
    Rule(u8, u8, Option<u8>, bool),
    Port(Spec, bool),
    /// A port's binding on a host, and whether the workload was heard there.
    Binding(u8, u8, bool, bool),
    /// Which address, of which network, and who says that it has it.
    Holder((u8, u8), u8, u8, bool),
    /// A metering label.
    Label(u8, bool),
    /// A rule of one.
    MeterRule(u8, bool),
}

/// 0 to 2.
fn mostly_first() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)]
}

/// What most of the others need to be of any effect.
fn first_steps() -> Vec<Step_> {
    let networks = (0..=OUTSIDE).map(|n| Step_::Network(n, n != OUTSIDE, true));
    let subnets = (0..=OUTSIDE).map(|n| Step_::Subnet(n, true));
    let tunnels = (0..3).map(|h| Step_::Tunnel(h, 0, true));
    networks.chain(subnets).chain(tunnels).collect()
}

fn host_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        1 => (0u8..3, mostly_first(), there).prop_map(|(h, a, t)| Step_::Tunnel(h, a, t)),
        2 => (0u8..3, any::<bool>(), there).prop_map(|(h, w, t)| Step_::Host(h, w, t)),
    ]
}

fn group_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        1 => (0..GROUPS, there).prop_map(|(n, t)| Step_::Group(n, t)),
        2 => (0u8..2, 0u8..8, there).prop_map(|(n, w, t)| Step_::AddressGroup(n, w, t)),
        4 => (0u8..8, prop::option::of(0..GROUPS + 2), there)
            .prop_map(|(n, r, t)| Step_::Rule(n, n % 4, r, t)),
    ]
}

fn meter_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        (0..LABELS, there).prop_map(|(n, t)| Step_::Label(n, t)),
        (0..3 * LABELS, there).prop_map(|(n, t)| Step_::MeterRule(n, t)),
    ]
}

fn step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    let groups = prop::collection::btree_set(0u8..4, 0..3);
    let spec = (
        0u8..8,
        0u8..3,
        (mostly_first(), prop::option::weighted(0.4, 0u8..12)),
        prop::option::of(0u8..3),
        groups,
        (
            prop::bool::weighted(0.2),
            prop::option::weighted(0.3, 0u8..3),
        ),
    )
        .prop_map(
            |(n, network, (address, pair), host, groups, (source, migrating_to))| {
                // A port never changes its network: its number says which it is on.
                let network = (network + n) % 3;
                Spec {
                    n: n + 8 * network,
                    network,
                    address,
                    pair,
                    host,
                    groups,
                    source,
                    migrating_to,
                }
            },
        );
    let router = (
        0u8..3,
        prop::collection::btree_set((0u8..3, 0u8..3), 0..3),
        prop::bool::ANY,
    )
        .prop_map(|(n, hops, gateway)| RouterSpec { n, hops, gateway });
    let floating = (
        0u8..3,
        prop::option::weighted(0.8, 0u8..24),
        mostly_first(),
        prop::option::weighted(0.8, 0u8..3),
    )
        .prop_map(|(n, port, address, router)| FloatingSpec {
            n,
            port,
            address,
            router,
        });
    prop_oneof![
        3 => (0..=OUTSIDE, prop::bool::weighted(0.7), there)
            .prop_map(|(n, private, t)| Step_::Network(n, private && n != OUTSIDE, t)),
        3 => (router, there).prop_map(|(r, t)| Step_::Router(r, t)),
        4 => (0u8..3, 0..=OUTSIDE, there).prop_map(|(r, n, t)| Step_::Attachment(r, n, t)),
        2 => (0u8..3, prop::option::weighted(0.8, 0u8..3), there)
            .prop_map(|(r, h, t)| Step_::Gateway(r, h, t)),
        1 => (0u8..2, prop::option::weighted(0.8, 0u8..2), there)
            .prop_map(|(p, s, t)| Step_::Pool(p, s, t)),
        1 => (0..PROXIED, there).prop_map(|(r, t)| Step_::Proxy(r, t)),
        3 => (floating, there).prop_map(|(s, t)| Step_::FloatingIp(s, t)),
        2 => (0u8..3, 0u8..24, 0u8..3, there)
            .prop_map(|(n, p, f, t)| Step_::Forwarding(n, p, f, t)),
        3 => host_step(),
        2 => (0..=OUTSIDE, there).prop_map(|(n, t)| Step_::Subnet(n, t)),
        7 => group_step(),
        3 => meter_step(),
        9 => (spec, there).prop_map(|(s, t)| Step_::Port(s, t)),
        4 => (0u8..24, 0u8..3, prop::bool::ANY, there)
            .prop_map(|(p, h, o, t)| Step_::Binding(p, h, o, t)),
        5 => ((0u8..8, prop_oneof![Just(0), Just(9)]), 0u8..3, 0u8..8, there)
            .prop_map(|(a, n, p, t)| Step_::Holder(a, n, p + 8 * n, t)),
    ]
}

fn put(key: Bytes, thing: &impl Serialize, revision: u64) -> Event {
    Event::Put(KeyValue {
        key,
        value: serde_json::to_vec(thing).unwrap().into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: None,
    })
}

fn put_or_delete(key: Bytes, event: Event, there: bool) -> Event {
    if there { event } else { Event::Delete { key } }
}

fn event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::Network(n, private, there) => {
            let key = keys::network(NetworkId(id(1, *n)));
            let network = network(*n, *private, revision);
            put_or_delete(key.clone(), put(key, &network, revision), *there)
        }
        Step_::Tunnel(n, address, there) => {
            let key = keys::tunnel(&host(*n));
            let address = [
                Some("2001:db8::1".parse().unwrap()),
                Some("192.0.2.1".parse().unwrap()),
                None,
            ][usize::from(*address)];
            let record = TunnelRecord {
                number: 1 + u32::from(*n),
                address,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Subnet(n, there) => {
            let key = keys::subnet(NetworkId(id(1, *n)), SubnetId(id(2, *n)));
            put_or_delete(
                key.clone(),
                put(key, &subnet(*n, revision), revision),
                *there,
            )
        }
        Step_::Group(n, there) => {
            let key = keys::group(SecurityGroupId(id(3, *n)));
            put_or_delete(
                key.clone(),
                put(key, &group(*n, revision), revision),
                *there,
            )
        }
        Step_::Rule(n, g, remote, there) => {
            let key = keys::rule(SecurityGroupId(id(3, *g)), SecurityGroupRuleId(id(4, *n)));
            let event = put(key.clone(), &rule(*n, *g, *remote, revision), revision);
            put_or_delete(key, event, *there)
        }
        Step_::Port(spec, there) => {
            let key = keys::port(NetworkId(id(1, spec.network)), mac(spec.n));
            put_or_delete(
                key.clone(),
                put(key, &port(spec, revision), revision),
                *there,
            )
        }
        Step_::Binding(port, at, taken_over, there) => {
            let key = keys::binding(PortId(id(5, *port)), &host(*at));
            let record = BindingRecord {
                vnic_type: neutron::VnicType::Normal,
                profile: profile(None),
                status: Status::Down,
                taken_over: *taken_over,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Holder((n, last), network, port, there) => {
            let key = keys::holder(NetworkId(id(1, *network)), address(*n, *last));
            let record = HolderRecord {
                port_id: PortId(id(5, *port)),
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        _ => router_event(step, revision),
    }
}

/// Of routers, and of what is told of them.
fn router_event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::Router(spec, there) => {
            let key = keys::router(RouterId(id(6, spec.n)));
            let event = put(key.clone(), &router(spec, revision), revision);
            put_or_delete(key, event, *there)
        }
        Step_::Gateway(n, at, there) => {
            let key = keys::gateway(RouterId(id(6, *n)));
            let record = GatewayRecord {
                host: at.map(host),
                segment: 100 + u32::from(*n),
                generation: revision,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Host(n, willing, there) => {
            let record = HostRecord {
                id: id(13, *n),
                host: host(*n),
                created_at: Timestamp::UNIX_EPOCH,
                description: String::new(),
                admin_state_up: true,
                gateway_mac: None,
                gateway: *willing,
            };
            let key = keys::host(&host(*n));
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Pool(n, scope, there) => {
            let key = keys::subnet_pool(SubnetPoolId(id(7, *n)));
            let pool = pool(*n, *scope, revision);
            put_or_delete(key.clone(), put(key, &pool, revision), *there)
        }
        Step_::Proxy(n, there) => {
            let proxy = NdpProxy {
                id: NdpProxyId(id(9, *n)),
                standard: standard(revision),
                router_id: RouterId(id(6, *n)),
                port_id: PortId(id(5, *n)),
                ip_address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, (*n).into()),
            };
            let key = keys::ndp_proxy(proxy.id);
            put_or_delete(key.clone(), put(key, &proxy, revision), *there)
        }
        Step_::FloatingIp(spec, there) => {
            let ip = floating_ip(spec, revision);
            let key = keys::floating_ip(ip.id);
            put_or_delete(key.clone(), put(key, &ip, revision), *there)
        }
        Step_::Forwarding(n, port, ip, there) => {
            // What it belongs to never changes; only whether that is there.
            let forwarding = forwarding(*n, *port, *ip, revision);
            let key = keys::port_forwarding(FloatingIpId(id(10, *n)), forwarding.id);
            put_or_delete(key.clone(), put(key, &forwarding, revision), *there)
        }
        Step_::Attachment(n, network, there) => {
            let port = attachment(*n, *network, revision);
            let key = State::port_key(&port);
            put_or_delete(key.clone(), put(key, &port, revision), *there)
        }
        other => other_event(other, revision),
    }
}

/// Of what others name.
fn other_event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::AddressGroup(n, which, there) => {
            let key = keys::address_group(AddressGroupId(id(5, *n)));
            let group = address_group(*n, *which, revision);
            put_or_delete(key.clone(), put(key, &group, revision), *there)
        }
        Step_::Label(n, there) => {
            // The routers' project's own, everybody's, and somebody else's.
            let label = MeteringLabel {
                id: MeteringLabelId(id(14, *n)),
                project_id: ProjectId(if *n == 0 { "p" } else { "q" }.into()),
                name: String::new(),
                description: String::new(),
                shared: *n == 1,
            };
            let key = keys::metering_label(label.id);
            put_or_delete(key.clone(), put(key, &label, revision), *there)
        }
        Step_::MeterRule(n, there) => {
            let rule = MeteringRule {
                id: MeteringRuleId(id(15, *n)),
                metering_label_id: MeteringLabelId(id(14, *n % LABELS)),
                project_id: ProjectId("p".into()),
                direction: Direction::Egress,
                excluded: *n >= 2 * LABELS,
                remote_ip_prefix: None,
                source_ip_prefix: Some(Prefix::host([10, 0, 0, *n].into())),
                destination_ip_prefix: None,
            };
            let key = keys::metering_rule(rule.metering_label_id, rule.id);
            put_or_delete(key.clone(), put(key, &rule, revision), *there)
        }
        other => panic!("{other:?} makes nothing"),
    }
}

fn whole(state: &State, host: &HostId) -> Intent {
    let mut intent = Intent::default();
    state
        .snapshot(host)
        .iter()
        .for_each(|step| intent.apply(step.to_change()));
    intent
}

/// Whether the network is there, and private.
fn is_private(state: &State, id: NetworkId) -> bool {
    let network = state.networks.get(&id);
    network.is_some_and(|n| n.network_type == NetworkType::Vxlan)
}

/// The ports that a host takes, as they are told there, and whether their addresses are there.
fn taken(state: &State, host: &HostId) -> Vec<(Port, bool)> {
    let takes = |at: &HostId, port: &Port| {
        state.tunnels.endpoint(at).is_some() || !is_private(state, port.network_id)
    };
    let workloads = state.ports.values().filter(|p| {
        ![NAT44_OWNER, Router::INTERFACE_OWNER].contains(&p.device_owner.as_str()) && takes(host, p)
    });
    let mut all = Vec::new();
    for port in workloads {
        let is_bound = |at: &HostId| port.binding.host_id.as_ref() == Some(at);
        let prepared = |at: &HostId| {
            let row = state.bindings.row(port.id, at);
            row.map(|r| r.value.clone()).filter(|_| !is_bound(at))
        };
        let migrating = (0..3).map(self::host).find(|to| {
            let wanted = port.binding.profile.get("migrating_to");
            let there = prepared(to).is_some_and(|b| b.taken_over && takes(to, port));
            wanted.is_some_and(|w| w == to.as_str()) && there
        });
        let home = match migrating {
            Some(to) => to == *host,
            None => is_bound(host),
        };
        if is_bound(host) {
            all.push((port.as_ref().clone(), home));
        } else if let Some(binding) = prepared(host) {
            let mut there = port.as_ref().clone();
            there.binding.host_id = Some(host.clone());
            there.binding.profile = binding.profile.clone();
            all.push((there, home));
        }
    }
    all
}

/// What a host must be told, written down from the state's tables alone, without any of its counts.
fn from_tables(state: &State, host: &HostId) -> Intent {
    let mut intent = Intent::default();
    let ports = taken(state, host);
    let (routers, networks) = reach_from_tables(state, host);
    for subnet in state.subnets.values() {
        let network = state.networks.get(&subnet.network_id);
        let told = networks.contains(&subnet.network_id);
        if network.is_some() && (told || !is_private(state, subnet.network_id)) {
            intent.subnets.insert(subnet.id, subnet.as_ref().clone());
        }
    }
    let sources = state
        .ports
        .values()
        .filter(|p| p.device_owner == NAT44_OWNER && p.binding.host_id.as_ref() == Some(host));
    for source in sources {
        let sources = intent
            .nat44_sources
            .entry(source.device_id.parse().unwrap())
            .or_default();
        sources.extend(source.fixed_ips.iter().map(|f| f.ip_address));
    }
    remotes_from_tables(state, host, &networks, &mut intent);
    floating_from_tables(state, host, &mut intent);
    let networks = networks.iter().filter_map(|id| state.networks.get(id));
    intent.networks = networks.map(|n| (n.id, n.as_ref().clone())).collect();
    let routers = routers
        .iter()
        .filter_map(|id| router_from_tables(state, *id));
    intent.routers = routers.map(|r| (r.router.id, r)).collect();
    for gateway in intent
        .routers
        .values()
        .filter_map(|r| r.gateway_host.as_ref())
    {
        let endpoint = state.tunnels.endpoint(&gateway.host).unwrap();
        intent.hosts.insert(gateway.host.clone(), endpoint);
    }
    // With three hosts each watches all others.
    let is_able = |h: &HostId| state.hosts.get(h).is_some() && state.tunnels.endpoint(h).is_some();
    let others = (0..3).map(self::host).filter(|h| h != host && is_able(h));
    let others = others.filter(|h| is_able(host) && state.hosts.get(h).is_some_and(|r| r.gateway));
    let watched = others.filter_map(|h| Some((state.tunnels.endpoint(&h)?.address, h)));
    intent.watched = watched.map(|(addr, h)| (h, addr)).collect();
    holders_from_tables(state, &ports, &mut intent);
    for (port, home) in ports {
        groups_from_tables(state, &port, &mut intent);
        if !home {
            intent.standbys.insert(port.id);
        }
        intent.ports.insert(port.id, port);
    }
    intent
}

fn groups_from_tables(state: &State, port: &Port, intent: &mut Intent) {
    for id in &port.security_groups {
        let rules: BTreeMap<_, _> = state
            .rules
            .values()
            .filter(|r| r.security_group_id == *id)
            .map(|r| (r.id, r.as_ref().clone()))
            .collect();
        for remote in rules.values().filter_map(|r| r.remote_group_id) {
            let domain = state.domain_of(port.network_id);
            let mut reached = (BTreeSet::new(), BTreeSet::from([port.network_id]));
            close(state, &mut reached);
            let members = state.ports.values().filter(|p| {
                let there = match domain {
                    RoutingDomain::Routed => state.domain_of(p.network_id) == domain,
                    RoutingDomain::Network(_) => {
                        reached.1.contains(&p.network_id) && is_private(state, p.network_id)
                    }
                };
                p.security_groups.contains(&remote) && there
            });
            let members: BTreeSet<_> = members.flat_map(|p| member_addresses(p)).collect();
            if !members.is_empty() {
                intent.members.insert((remote, domain), members);
            }
        }
        if let Some(group) = state.groups.get(id) {
            let group = group.as_ref().clone();
            let named = rules.values().filter_map(|r| r.remote_address_group_id);
            let named = named.filter_map(|id| state.address_groups.get(&id));
            let addresses = named.map(|g| (g.id, g.addresses.iter().copied().collect()));
            let told = Group {
                group,
                addresses: addresses.collect(),
                rules,
            };
            intent.groups.insert(*id, told);
        }
    }
}

/// A router as it has to be told.
fn router_from_tables(state: &State, id: RouterId) -> Option<ToldRouter> {
    let router = state.layer3.routers.get(&id)?;
    let of = |owner: &str, private: bool| {
        let ports = state.ports.values().filter(|p| {
            p.device_owner == owner
                && p.device_id == id.to_string()
                && state.networks.get(&p.network_id).is_some()
                && is_private(state, p.network_id) == private
        });
        let interface = |p: &Arc<Port>| RouterInterface {
            network_id: p.network_id,
            mac_address: p.mac_address,
            fixed_ips: p.fixed_ips.clone(),
            admin_state_up: p.admin_state_up,
        };
        let interfaces = ports.map(|p| (p.id, interface(p)));
        interfaces.collect::<BTreeMap<PortId, RouterInterface>>()
    };
    let mut gateways = of(Router::GATEWAY_OWNER, false);
    gateways.retain(|id, _| router.gateways.iter().any(|g| g.port_id == *id));
    let mut told = ToldRouter {
        router: router.as_ref().clone(),
        interfaces: of(Router::INTERFACE_OWNER, true),
        gateways,
        gateway_host: None,
        published: BTreeSet::new(),
        meters: meters_from_tables(state, &router.standard.project_id),
    };
    if !told.gateways.is_empty() {
        outside_from_tables(state, &mut told);
    }
    Some(told)
}

/// What is counted at a project's routers.
fn meters_from_tables(
    state: &State,
    project: &ProjectId,
) -> BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> {
    let mut meters: BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> = BTreeMap::new();
    for rule in state.metering.rules.values() {
        let label = state.metering.labels.get(&rule.metering_label_id);
        if label.is_some_and(|label| label.shared || label.project_id == *project) {
            let told = MeterRule {
                direction: rule.direction,
                excluded: rule.excluded,
                source: rule.source_ip_prefix,
                destination: None,
            };
            meters
                .entry(rule.metering_label_id)
                .or_default()
                .insert(told);
        }
    }
    meters
}

/// Adds what only routers have that lead outside.
fn outside_from_tables(state: &State, told: &mut ToldRouter) {
    let record = state.layer3.gateways.get(&told.router.id);
    let at = record.and_then(|r| Some((r, r.host.clone()?)));
    let at = at.filter(|(_, host)| state.tunnels.endpoint(host).is_some());
    told.gateway_host = at.map(|(record, host)| GatewayHost {
        host,
        segment: record.segment,
        generation: record.generation,
    });
    let scope = |s: &Subnet| state.pools.get(&s.subnetpool_id?)?.address_scope_id;
    let open = |s: &Subnet| {
        let pool = s.subnetpool_id.and_then(|id| state.pools.get(&id));
        pool.is_some_and(|p| p.made_by_admin)
    };
    for outside in state
        .subnets
        .values()
        .filter(|s| s.network_id == NetworkId(id(1, OUTSIDE)))
    {
        let interfaces = told.interfaces.values().flat_map(|i| &i.fixed_ips);
        for inside in interfaces.filter_map(|f| state.subnets.get(&f.subnet_id)) {
            let single = told.router.enable_ndp_proxy && inside.cidr.family() == Family::V6;
            let same = scope(inside).is_some() && scope(inside) == scope(outside);
            if !single && same && open(inside) {
                told.published.insert(inside.cidr);
            }
        }
        for proxy in state.layer3.proxies.values() {
            let port = state.ports.get(&proxy.port_id);
            let mut addresses = port.iter().flat_map(|p| &p.fixed_ips);
            let at = addresses.find(|f| f.ip_address == IpAddr::V6(proxy.ip_address));
            let inside = at.and_then(|f| state.subnets.get(&f.subnet_id));
            let enabled = proxy.router_id == told.router.id && told.router.enable_ndp_proxy;
            if let Some(inside) =
                inside.filter(|s| enabled && open(s) && scope(s) == scope(outside))
                && scope(inside).is_some()
            {
                told.published.insert(Prefix::host(proxy.ip_address.into()));
            }
        }
    }
}

type Reached = (BTreeSet<RouterId>, BTreeSet<NetworkId>);

/// Adds routers that routes of those lead to, and all their networks.
fn close(state: &State, (routers, networks): &mut Reached) {
    let all = state.layer3.routers.ids();
    let all: Vec<_> = all
        .filter_map(|id| router_from_tables(state, *id))
        .collect();
    let is_on = |r: &ToldRouter, n: NetworkId| r.interfaces.values().any(|i| i.network_id == n);
    let first = all.iter().filter(|r| networks.iter().any(|n| is_on(r, *n)));
    routers.extend(first.map(|r| r.router.id));
    loop {
        let told = all.iter().filter(|r| routers.contains(&r.router.id));
        let hops: BTreeSet<_> = told
            .flat_map(|r| {
                let on = r.interfaces.values().map(|i| i.network_id);
                on.flat_map(|n| r.router.routes.iter().map(move |h| (n, h.nexthop)))
            })
            .collect();
        let is_hop = |i: &RouterInterface| {
            let mut addresses = i.fixed_ips.iter();
            addresses.any(|f| hops.contains(&(i.network_id, f.ip_address)))
        };
        let more = all.iter().filter(|r| r.interfaces.values().any(is_hop));
        let before = routers.len();
        routers.extend(more.map(|r| r.router.id));
        if routers.len() == before {
            break;
        }
    }
    for router in all.iter().filter(|r| routers.contains(&r.router.id)) {
        let ports = router.interfaces.values().chain(router.gateways.values());
        networks.extend(ports.map(|i| i.network_id));
    }
}

/// Routers and networks that the host must be told of.
fn reach_from_tables(state: &State, host: &HostId) -> Reached {
    let own = taken(state, host).into_iter().map(|(p, _)| p.network_id);
    let mut reached = (BTreeSet::new(), own.collect());
    close(state, &mut reached);
    // From a gateway one gets to its router alone, not to others on that one's networks.
    for id in state.layer3.routers.ids() {
        let gateway = router_from_tables(state, *id).and_then(|r| r.gateway_host);
        if gateway.is_some_and(|g| g.host == *host) {
            let mut from_here = (BTreeSet::from([*id]), BTreeSet::new());
            close(state, &mut from_here);
            reached.0.extend(from_here.0);
            reached.1.extend(from_here.1);
        }
    }
    reached
}

/// Who counts as having addresses of a network that several may use, and where.
fn held(state: &State, network: NetworkId) -> BTreeMap<IpAddr, (PortId, HostId)> {
    let hosts = || (0..3).map(self::host);
    let at_home = |at: &HostId| -> Vec<Port> {
        let theirs = taken(state, at).into_iter();
        let theirs = theirs.filter(|(port, home)| *home && port.network_id == network);
        theirs.map(|(port, _)| port).collect()
    };
    let has = |port: &Port, addr: IpAddr| port.fixed_ips.iter().any(|f| f.ip_address == addr);
    let mut all = BTreeMap::new();
    let known = state.networks.get(&network).is_some();
    for (addr, row) in state.holders.of(network).filter(|_| known) {
        let of_subnet = |port: &Port| {
            let mut fixed = port.fixed_ips.iter().filter(|f| f.ip_address == *addr);
            fixed.any(|f| state.subnets.get(&f.subnet_id).is_some())
        };
        let mut serving = state.ports.values().filter(|p| {
            p.network_id == network && p.device_owner.starts_with("network:") && of_subnet(p)
        });
        let owned = hosts().any(|at| at_home(&at).iter().any(of_subnet));
        if owned || serving.next().is_some() {
            continue;
        }
        for at in hosts() {
            for port in at_home(&at) {
                let mut pairs = port.allowed_address_pairs.iter();
                let may = pairs.any(|pair| pair.ip_address.contains(*addr)) && !has(&port, *addr);
                if port.id == row.value.port_id && may {
                    all.insert(*addr, (port.id, at.clone()));
                }
            }
        }
    }
    all
}

/// To whom it matters: who has a port that may use such an address.
fn holders_from_tables(state: &State, ports: &[(Port, bool)], intent: &mut Intent) {
    let networks: BTreeSet<_> = ports.iter().map(|(port, _)| port.network_id).collect();
    for network in networks {
        let held = held(state, network);
        for (port, _) in ports.iter().filter(|(port, _)| port.network_id == network) {
            let may = |addr: &IpAddr| {
                let mut pairs = port.allowed_address_pairs.iter();
                pairs.any(|pair| pair.ip_address.contains(*addr))
            };
            for (addr, (holder, _)) in held.iter().filter(|(addr, _)| may(addr)) {
                intent.holders.insert((network, *addr), *holder);
            }
        }
    }
}

/// By whom each address of a network is had first: as its own, and of those by the port that comes first.
fn places(state: &State, network: NetworkId) -> BTreeMap<IpAddr, (bool, PortId, HostId)> {
    let mut all: BTreeMap<IpAddr, (bool, PortId, HostId)> = BTreeMap::new();
    if !is_private(state, network) {
        return all;
    }
    for at in (0..3).map(self::host) {
        let theirs = taken(state, &at).into_iter();
        for (port, _) in theirs.filter(|(p, home)| *home && p.network_id == network) {
            for addr in member_addresses(&port) {
                let own = port.fixed_ips.iter().any(|f| f.ip_address == addr);
                let claim = (!own, port.id, at.clone());
                let had = all.entry(addr).or_insert_with(|| claim.clone());
                *had = claim.min(had.clone());
            }
        }
    }
    for (addr, (port, at)) in held(state, network) {
        let own = all.get(&addr).is_some_and(|(paired, ..)| !paired);
        if !own {
            all.insert(addr, (true, port, at));
        }
    }
    all
}

fn floating_from_tables(state: &State, host: &HostId, intent: &mut Intent) {
    for ip in state.layer3.floating_ips.values() {
        let port = ip.port_id.and_then(|id| state.ports.get(&id));
        let fixed = ip.fixed_ip_address;
        let (Some(port), Some(fixed), Some(router)) = (port, fixed, ip.router_id) else {
            continue;
        };
        let place = places(state, port.network_id).remove(&fixed.into());
        if place.is_some_and(|(_, _, at)| at == *host) {
            let told = FloatingIp {
                id: ip.id,
                router_id: router,
                floating_ip_address: ip.floating_ip_address,
                network_id: port.network_id,
                fixed_ip_address: fixed,
                qos_policy_id: None,
            };
            intent.floating_ips.insert(ip.id, told);
        }
    }
    for forwarding in state.layer3.forwardings.values() {
        let ip = state.layer3.floating_ips.get(&forwarding.floatingip_id);
        let router = ip.and_then(|ip| router_from_tables(state, ip.router_id?));
        let port = state.ports.get(&forwarding.internal_port_id);
        let (Some(ip), Some(router), Some(port)) = (ip, router, port) else {
            continue;
        };
        if router.gateway_host.is_some_and(|g| g.host == *host) {
            let told = PortForwarding {
                id: forwarding.id,
                router_id: router.router.id,
                floating_ip_address: ip.floating_ip_address,
                protocol: forwarding.protocol,
                external_port_range: forwarding.external_port_range,
                network_id: port.network_id,
                internal_ip_address: forwarding.internal_ip_address,
                internal_port_range: forwarding.internal_port_range,
            };
            intent.port_forwardings.insert(forwarding.id, told);
        }
    }
}

fn remotes_from_tables(
    state: &State,
    host: &HostId,
    networks: &BTreeSet<NetworkId>,
    intent: &mut Intent,
) {
    let own = state.tunnels.endpoint(host);
    intent.hosts.extend(own.map(|own| (host.clone(), own)));
    for network in networks
        .iter()
        .filter(|id| is_private(state, **id))
        .copied()
    {
        let all = places(state, network);
        for (addr, (_, _, at)) in all.into_iter().filter(|(_, (_, _, at))| at != host) {
            let endpoint: TunnelEndpoint = state.tunnels.endpoint(&at).unwrap();
            intent.hosts.insert(at.clone(), endpoint);
            intent.remotes.entry(network).or_default().insert(addr, at);
        }
        for at in (0..3).map(self::host).filter(|at| at != host) {
            let theirs = taken(state, &at).into_iter();
            let there = theirs.filter(|(p, home)| *home && p.network_id == network);
            let told = there.filter_map(|(port, _)| RemotePort::of(&port, &at));
            intent.remote_ports.extend(told.map(|p| (p.id, p)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_told_by_steps_is_what_would_be_told_at_once(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut state = State::default();
        let mut told: HashMap<HostId, Intent> = HashMap::new();
        for n in 0..3 {
            state.views.listen(host(n));
            told.insert(host(n), Intent::default());
        }
        for (at, step) in first_steps().iter().chain(&steps).enumerate() {
            state.apply(&event(step, at as u64 + 1)).unwrap();
            for (host, steps) in state.views.take() {
                let intent = told.get_mut(&host).unwrap();
                steps.iter().for_each(|step| intent.apply(step.to_change()));
            }
            for (host, intent) in &told {
                prop_assert_eq!(intent, &whole(&state, host), "{:?}", step);
                prop_assert_eq!(intent, &from_tables(&state, host), "{:?}", step);
            }
        }
    }
}

/// So a host never takes such a rule for one that any address passes.
#[test]
fn a_rule_is_told_with_the_address_group_that_it_names() {
    let mut state = State::default();
    let spec = Spec {
        n: 0,
        network: 0,
        address: 1,
        pair: None,
        host: Some(0),
        groups: BTreeSet::from([0]),
        source: false,
        migrating_to: None,
    };
    let steps = [
        Step_::Network(0, false, true),
        Step_::Group(0, true),
        Step_::AddressGroup(0, 0b101, true),
        Step_::Rule(0, 0, Some(GROUPS), true),
        Step_::Port(spec, true),
    ];
    for (at, step) in steps.iter().enumerate() {
        state.apply(&event(step, at as u64 + 1)).unwrap();
    }
    state.views.listen(host(0));
    let told = |steps: Vec<Step>| {
        steps.into_iter().find_map(|step| match step {
            Step::PutGroup(group) => Some(group.addresses.clone()),
            _ => None,
        })
    };
    let named = |prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        Some(BTreeMap::from([(AddressGroupId(id(5, 0)), prefixes)]))
    };
    let both = named(&["192.0.2.0/24", "2001:db8:9::/48"]);
    assert_eq!(told(state.snapshot(&host(0))), both);
    state
        .apply(&event(&Step_::AddressGroup(0, 0b100, true), 9))
        .unwrap();
    let steps = state.views.take().into_iter().flat_map(|(_, steps)| steps);
    assert_eq!(told(steps.collect()), named(&["2001:db8:9::/48"]));
}

/// One port more on a host costs steps for that host, and for those that need its address.
#[test]
fn a_change_is_told_to_the_hosts_that_it_concerns() {
    let mut state = State::default();
    let mut revision = 0;
    let mut apply = |state: &mut State, step: Step_| {
        revision += 1;
        state.apply(&event(&step, revision)).unwrap();
        state.views.take()
    };
    let spec = |n, host, group| Spec {
        n,
        network: 0,
        address: 1,
        pair: None,
        host: Some(host),
        groups: BTreeSet::from([group]),
        source: false,
        migrating_to: None,
    };
    (0..3).for_each(|n| state.views.listen(host(n)));
    apply(&mut state, Step_::Network(0, false, true));
    apply(&mut state, Step_::Group(0, true));
    apply(&mut state, Step_::Group(1, true));
    apply(&mut state, Step_::Rule(0, 0, Some(1), true));
    apply(&mut state, Step_::Port(spec(0, 0, 0), true));
    let told = apply(&mut state, Step_::Port(spec(1, 1, 1), true));
    let hosts: Vec<_> = told
        .iter()
        .map(|(h, steps)| (h.as_str(), steps.len()))
        .collect();
    assert_eq!(
        hosts,
        [("h0", 1), ("h1", 3)],
        "a member for h0; network, group and port for h1"
    );
    let told = apply(
        &mut state,
        Step_::Port(
            Spec {
                address: 2,
                ..spec(2, 2, 3)
            },
            true,
        ),
    );
    assert_eq!(told.len(), 1, "nobody needs that one's address: {told:?}");
}

/// A cloud of three hosts with tunnels, and a private network with a port on each; all the hosts listen.
fn private_cloud() -> (
    State,
    impl FnMut(&mut State, Step_) -> BTreeMap<HostId, Vec<Change>>,
) {
    let mut revision = 0;
    let mut apply = move |state: &mut State, step: Step_| {
        revision += 1;
        state.apply(&event(&step, revision)).unwrap();
        let told = state.views.take().into_iter();
        let changes = |steps: Vec<Step>| steps.iter().map(Step::to_change).collect();
        told.map(|(host, steps)| (host, changes(steps))).collect()
    };
    let mut state = State::default();
    (0..3).for_each(|n| state.views.listen(host(n)));
    apply(&mut state, Step_::Network(1, true, true));
    apply(&mut state, Step_::Subnet(1, true));
    for n in 0..3 {
        apply(&mut state, Step_::Tunnel(n, 0, true));
        apply(&mut state, Step_::Port(on_private(n, n), true));
    }
    (state, apply)
}

/// A router whose interfaces lead to other networks tells a host of these, step by step in an order in which
/// nothing is missing: a network before the router, and gone after it.
#[test]
fn a_host_is_told_of_all_that_a_router_leads_to() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    apply(&mut state, Step_::Subnet(0, true));
    let far = Spec {
        n: 6,
        network: 0,
        groups: BTreeSet::from([1]),
        ..on_private(6, 2)
    };
    apply(&mut state, Step_::Port(far, true));
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    assert!(apply(&mut state, Step_::Router(spec, true)).is_empty());
    let told = apply(&mut state, Step_::Attachment(0, 1, true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(
        counts,
        [("h0", 1), ("h1", 1), ("h2", 1)],
        "the router alone"
    );
    let told = apply(&mut state, Step_::Attachment(0, 0, true));
    let (there, network) = (&told[&host(0)], NetworkId(id(1, 0)));
    assert!(
        matches!(&there[0], Change::PutNetwork(n) if n.id == network),
        "{there:?}"
    );
    let remotes = Change::PutRemotes(network, [(address(6, 0), host(2))].into());
    assert!(there.contains(&remotes), "{there:?}");
    assert!(matches!(there.last(), Some(Change::PutRouter(r)) if r.interfaces.len() == 2));
    let told = apply(&mut state, Step_::Attachment(0, 0, false));
    let there = &told[&host(0)];
    assert!(matches!(&there[0], Change::PutRouter(r) if r.interfaces.len() == 1));
    assert_eq!(there.last(), Some(&Change::RemoveNetwork(network)));
}

/// What is a member behind the router is one here, too; with the router it goes.
#[test]
fn members_count_as_far_as_routers_lead() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    apply(&mut state, Step_::Group(0, true));
    apply(&mut state, Step_::Rule(0, 0, Some(1), true));
    let asking = Spec {
        groups: BTreeSet::from([0]),
        ..on_private(0, 0)
    };
    apply(&mut state, Step_::Port(asking, true));
    let member = Spec {
        n: 6,
        network: 0,
        address: 2,
        groups: BTreeSet::from([1]),
        ..on_private(6, 2)
    };
    apply(&mut state, Step_::Port(member, true));
    let members = |state: &State| {
        let intent = whole(state, &host(0));
        let at = (
            SecurityGroupId(id(3, 1)),
            RoutingDomain::Network(NetworkId(id(1, 1))),
        );
        intent.members.get(&at).cloned()
    };
    assert_eq!(members(&state), None);
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    apply(&mut state, Step_::Attachment(0, 0, true));
    apply(&mut state, Step_::Attachment(0, 1, true));
    assert_eq!(members(&state), Some([address(6, 2)].into()));
    let told = apply(&mut state, Step_::Attachment(0, 1, false));
    assert!(
        matches!(told[&host(0)].last(), Some(Change::RemoveMembers(..))),
        "{told:?}"
    );
    assert_eq!(members(&state), None);
}

fn on_private(n: u8, host: u8) -> Spec {
    Spec {
        n: n + 8,
        network: 1,
        address: 0,
        pair: None,
        host: Some(host),
        groups: BTreeSet::new(),
        source: false,
        migrating_to: None,
    }
}

#[test]
fn an_address_that_moves_is_nobody_s_at_no_time() {
    let (mut state, mut apply) = private_cloud();
    let told = apply(&mut state, Step_::Port(on_private(0, 1), true));
    let network = NetworkId(id(1, 1));
    let moved = address(0, 0);
    let elsewhere = Change::PutRemotes(network, [(moved, host(1))].into());
    // The third host is told in one step; it knows both of them.
    assert_eq!(told[&host(2)][0], elsewhere);
    assert_eq!(told[&host(2)][1..], [Change::RemoveHost(host(0))]);
    // Whose it was: it is elsewhere first, then it is not here any more.
    let at = |host: &HostId, wanted: &dyn Fn(&Change) -> bool| {
        told[host].iter().position(wanted).unwrap()
    };
    let port = PortId(id(5, 8));
    let away = at(&host(0), &|c| *c == elsewhere);
    assert!(away < at(&host(0), &|c| *c == Change::RemovePort(port)));
    // Whose it is: it is here first, then it is not elsewhere any more.
    let here = at(
        &host(1),
        &|c| matches!(c, Change::PutPort(p) if p.id == port),
    );
    let gone = Change::RemoveRemotes(network, [moved].into());
    assert!(here < at(&host(1), &|c| *c == gone));
}

/// Prepared on another host, heard there, activated, and no longer on the former one: in each step the addresses
/// are in one place, and who sends to them is told of it in one step.
#[test]
fn a_port_that_migrates_is_in_one_place_at_each_step() {
    let (mut state, mut apply) = private_cloud();
    let (network, port, moved) = (NetworkId(id(1, 1)), PortId(id(5, 8)), address(0, 0));
    let to_h1 = Change::PutRemotes(network, [(moved, host(1))].into());
    let to_h0 = Change::PutRemotes(network, [(moved, host(0))].into());

    let told = apply(&mut state, Step_::Binding(8, 1, false, true));
    assert_eq!(told.keys().collect::<Vec<_>>(), [&host(1)], "{told:?}");
    assert_eq!(told[&host(1)][0], Change::PutStandby(port));
    assert!(matches!(&told[&host(1)][1], Change::PutPort(p) if p.binding.host_id == Some(host(1))));
    assert_eq!(told[&host(1)].len(), 2);

    let migrating = Spec {
        migrating_to: Some(1),
        ..on_private(0, 0)
    };
    let told = apply(&mut state, Step_::Port(migrating, true));
    assert!(!told.contains_key(&host(2)), "{told:?}");

    let told = apply(&mut state, Step_::Binding(8, 1, true, true));
    assert_eq!(told[&host(2)], [to_h1.clone(), Change::RemoveHost(host(0))]);
    assert!(told[&host(0)].contains(&Change::PutStandby(port)) && told[&host(0)].contains(&to_h1));
    assert!(told[&host(1)].contains(&Change::RemoveStandby(port)));
    // Back, and there again.
    let told = apply(&mut state, Step_::Binding(8, 1, false, true));
    assert!(told[&host(2)].contains(&to_h0), "{told:?}");
    assert!(told[&host(0)].contains(&Change::RemoveStandby(port)));
    apply(&mut state, Step_::Binding(8, 1, true, true));

    // Activated: nobody else learns anything.
    let told = apply(&mut state, Step_::Binding(8, 0, false, true));
    assert!(told.is_empty(), "{told:?}");
    let told = apply(&mut state, Step_::Port(on_private(0, 1), true));
    assert!(!told.contains_key(&host(2)), "{told:?}");
    let told = apply(&mut state, Step_::Binding(8, 1, true, false));
    assert!(told.is_empty(), "{told:?}");
    let told = apply(&mut state, Step_::Binding(8, 0, false, false));
    let gone = [Change::RemovePort(port), Change::RemoveStandby(port)];
    assert_eq!(told[&host(0)][..2], gone, "{told:?}");
    assert!(whole(&state, &host(1)).standbys.is_empty());
}

/// Two ports that share an address, which an unbound one keeps for them, and a floating IP that stands for it.
#[test]
fn an_address_of_several_is_where_it_was_last_heard() {
    let (mut state, mut apply) = private_cloud();
    let (network, shared) = (NetworkId(id(1, 1)), address(7, 0));
    let keeper = Spec {
        host: None,
        ..on_private(7, 0)
    };
    apply(&mut state, Step_::Port(keeper, true));
    let sharing = |n: u8| Spec {
        pair: Some(7),
        ..on_private(n, n)
    };
    for n in 0..2 {
        apply(&mut state, Step_::Port(sharing(n), true));
    }
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    let floating = FloatingSpec {
        n: 0,
        port: Some(15),
        address: 0,
        router: Some(0),
    };
    apply(&mut state, Step_::FloatingIp(floating, true));
    let place = |state: &State| {
        whole(state, &host(2)).remotes[&network]
            .get(&shared)
            .cloned()
    };
    let outside = |state: &State| -> Vec<u8> {
        let told = |n: &u8| !whole(state, &host(*n)).floating_ips.is_empty();
        (0..3).filter(told).collect()
    };
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));

    let told = apply(&mut state, Step_::Holder((7, 0), 1, 9, true));
    let holder = Change::PutHolder(network, shared, PortId(id(5, 9)));
    assert!(told[&host(0)].contains(&holder) && told[&host(1)].contains(&holder));
    let elsewhere = Change::PutRemotes(network, [(shared, host(1))].into());
    assert_eq!(told[&host(2)], [elsewhere], "in one step, and nothing else");
    assert_eq!((place(&state), outside(&state)), (Some(host(1)), vec![1]));
    // Who has it moves, and with it the address.
    let told = apply(
        &mut state,
        Step_::Port(
            Spec {
                pair: Some(7),
                ..on_private(1, 2)
            },
            true,
        ),
    );
    assert!(told[&host(0)].contains(&Change::PutRemotes(network, [(shared, host(2))].into())));
    assert_eq!(outside(&state), [2]);
    // Who may not use it any more does not have it; and it is not anybody's whose own it is.
    apply(&mut state, Step_::Port(on_private(1, 2), true));
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));
    apply(&mut state, Step_::Port(sharing(1), true));
    assert_eq!(place(&state), Some(host(1)));
    apply(&mut state, Step_::Port(on_private(7, 0), true));
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));
    assert!(whole(&state, &host(0)).holders.is_empty());
}

#[test]
fn a_port_more_costs_each_host_of_its_network_one_step() {
    let (mut state, mut apply) = private_cloud();
    let told = apply(&mut state, Step_::Port(on_private(5, 1), true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(counts, [("h0", 1), ("h1", 1), ("h2", 1)], "{told:?}");
    apply(&mut state, Step_::Network(0, true, true));
    let elsewhere = Spec {
        n: 6,
        network: 0,
        ..on_private(6, 2)
    };
    let told = apply(&mut state, Step_::Port(elsewhere, true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(
        counts,
        [("h2", 2)],
        "a network that others have nothing of: {told:?}"
    );
}

/// Of a network behind a router, too: to hosts that have no port of it.
#[test]
fn a_port_more_behind_a_router_costs_each_host_one_step() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    apply(&mut state, Step_::Attachment(0, 0, true));
    apply(&mut state, Step_::Attachment(0, 1, true));
    let far = |n| Spec {
        n,
        network: 0,
        ..on_private(n, 2)
    };
    for n in [6, 7] {
        let told = apply(&mut state, Step_::Port(far(n), true));
        let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
        assert_eq!(counts, [("h0", 1), ("h1", 1), ("h2", 1)], "{told:?}");
    }
}

#[test]
fn a_host_s_other_endpoint_is_told_to_those_that_send_to_it() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Port(on_private(1, 1), false));
    let key = keys::tunnel(&host(0));
    let record = TunnelRecord {
        number: 1,
        address: Some("2001:db8::99".parse().unwrap()),
    };
    state.apply(&put(key, &record, 99)).unwrap();
    let told: Vec<_> = state.views.take();
    let hosts: Vec<_> = told.iter().map(|(h, s)| (h.as_str(), s.len())).collect();
    assert_eq!(hosts, [("h0", 1), ("h2", 1)]);
    // And without one, its ports are nowhere.
    let told = apply(&mut state, Step_::Tunnel(0, 2, true));
    let gone = Change::RemoveRemotes(NetworkId(id(1, 1)), [address(0, 0)].into());
    assert_eq!(told[&host(2)], [gone, Change::RemoveHost(host(0))]);
    assert!(whole(&state, &host(0)).ports.is_empty());
    assert!(!state.is_taken(state.ports.get(&PortId(id(5, 8))).unwrap()));
}
