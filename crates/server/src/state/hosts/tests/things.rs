//! What a cloud consists of, each by a small number.

use super::*;

/// Security groups that there may be.
pub const GROUPS: u8 = 4;
/// Metering labels that there may be.
pub const LABELS: u8 = 3;

pub fn id(kind: u8, n: u8) -> Uuid {
    Uuid::from_bytes([kind, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

pub fn standard(revision: u64) -> Standard {
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

pub fn network(n: u8, private: bool, revision: u64) -> Network {
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

pub fn subnet(n: u8, revision: u64) -> Subnet {
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
        delegation: None,
    }
}

pub fn group(n: u8, revision: u64) -> SecurityGroup {
    let id = SecurityGroupId(id(3, n));
    SecurityGroup {
        id,
        standard: standard(revision),
        stateful: true,
        shared: false,
    }
}

/// With those of three prefixes whose bits are set.
pub fn address_group(n: u8, which: u8, revision: u64) -> AddressGroup {
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
pub fn rule(n: u8, group: u8, remote: Option<u8>, revision: u64) -> SecurityGroupRule {
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

pub fn mac(n: u8) -> Mac {
    Mac::new([0xfa, 0x16, 0x3e, 0, 0, n])
}

/// Of another port's address; from 8 on, of all that begin alike.
pub fn pair(n: &u8) -> AddressPair {
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
pub struct Spec {
    pub n: u8,
    pub network: u8,
    pub address: u8,
    /// Of which other port it may use the address.
    pub pair: Option<u8>,
    pub host: Option<u8>,
    pub groups: BTreeSet<u8>,
    pub source: bool,
    pub migrating_to: Option<u8>,
}

pub fn host(n: u8) -> HostId {
    format!("h{n}").parse().unwrap()
}

/// The same on every network.
pub fn address(n: u8, address: u8) -> IpAddr {
    [10, 0, n % 8, address].into()
}

/// Ports before this one may have NDP proxies.
pub const PROXIED: u8 = 3;

pub fn address_v6(n: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()))
}

pub fn port(spec: &Spec, revision: u64) -> Port {
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
        exposed: Vec::new(),
        delegated_prefixes: Vec::new(),
        qos_policy_id: None,
        binding: Binding {
            host_id: spec.host.map(host),
            profile: profile(spec.migrating_to),
            ..Binding::default()
        },
    }
}

pub fn profile(migrating_to: Option<u8>) -> serde_json::Map<String, serde_json::Value> {
    let to = migrating_to.map(|to| ("migrating_to".to_owned(), host(to).as_str().into()));
    to.into_iter().collect()
}

/// A router as a step describes it.
#[derive(Clone, Debug)]
pub struct RouterSpec {
    pub n: u8,
    /// Routes that lead to the interface of another router on a network.
    pub hops: BTreeSet<(u8, u8)>,
    /// On the network that is external.
    pub gateway: bool,
}

/// The one that routers have gateways on.
pub const OUTSIDE: u8 = 3;

/// A router's port on a network: its number, of all ports.
pub fn router_port(router: u8, network: u8) -> u8 {
    100 + 4 * router + network
}

pub fn interface_address(router: u8, network: u8) -> IpAddr {
    [10, 1, network, router].into()
}

pub fn router(spec: &RouterSpec, revision: u64) -> Router {
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

pub fn pool(n: u8, scope: Option<u8>, revision: u64) -> SubnetPool {
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

pub fn floating_ip(spec: &FloatingSpec, revision: u64) -> neutron::FloatingIp {
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

pub fn forwarding(n: u8, port: u8, ip: u8, revision: u64) -> neutron::PortForwarding {
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
pub fn attachment(n: u8, network: u8, revision: u64) -> Port {
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
pub struct FloatingSpec {
    pub n: u8,
    pub port: Option<u8>,
    pub address: u8,
    pub router: Option<u8>,
}
