//! Builds what a host is told: networks, subnets, ports, groups and rules, with as few words as a test
//! needs. Ids are small numbers, so that two runs are told the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{
    intent::{Group, Intent, RoutingDomain},
    neutron::{
        AddressPair, Binding, Direction, FixedIp, Nat44, Network, NetworkType, Port, Protocol,
        SecurityGroup, SecurityGroupRule, Standard, Status, Subnet,
    },
};
use hextet_types::{
    Family, Mac, NetworkId, PortId, Prefix, ProjectId, SecurityGroupId, SecurityGroupRuleId,
    SubnetId,
};
use jiff::Timestamp;
use uuid::Uuid;

/// An intent in the making.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// What has been said so far.
    pub intent: Intent,
    last_id: u64,
}

/// A text that must be an address.
pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A text that must be a prefix.
pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

impl Cloud {
    /// Nothing yet.
    pub fn new() -> Cloud {
        Cloud::default()
    }

    /// Numbers begin at the front of the id: ports' interfaces are named after it.
    fn id(&mut self) -> Uuid {
        self.last_id += 1;
        Uuid::from_u64_pair(self.last_id << 32, 0)
    }

    /// A network of that MTU.
    pub fn network(&mut self, mtu: u16) -> NetworkId {
        let id = NetworkId(self.id());
        let network = Network {
            id,
            standard: standard(),
            admin_state_up: true,
            status: Status::Active,
            shared: true,
            external: false,
            is_default: false,
            mtu,
            port_security_enabled: true,
            network_type: NetworkType::Routed,
            physical_network: None,
            segmentation_id: None,
            dns_domain: String::new(),
            availability_zone_hints: Vec::new(),
            single_homed: false,
            qos_policy_id: None,
        };
        self.intent.networks.insert(id, network);
        id
    }

    /// A subnet; its gateway is the prefix's first address but one.
    pub fn subnet(&mut self, network: NetworkId, cidr: &str) -> SubnetId {
        let id = SubnetId(self.id());
        let cidr = prefix(cidr);
        let subnet = Subnet {
            id,
            standard: standard(),
            network_id: network,
            cidr,
            gateway_ip: Some(nth(cidr, 1)),
            allocation_pools: Vec::new(),
            enable_dhcp: true,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
            subnetpool_id: None,
            service_types: Vec::new(),
            nat44: None,
            delegation: None,
        };
        self.intent.subnets.insert(id, subnet);
        id
    }

    /// Translates a subnet on this host, to these sources out of that pool.
    pub fn translate(&mut self, subnet: SubnetId, pool: SubnetId, sources: &[&str], limit: u32) {
        let nat44 = Nat44 {
            pool_subnet_id: Some(pool),
            addresses_per_host: u8::try_from(sources.len()).expect("a few"),
            max_connections_per_port: limit,
        };
        self.intent
            .subnets
            .get_mut(&subnet)
            .expect("a subnet")
            .nat44 = Some(nat44);
        let sources = sources.iter().map(|source| addr(source)).collect();
        self.intent.nat44_sources.insert(subnet, sources);
    }

    /// A port with these addresses, each out of the first subnet that holds it, and these groups.
    pub fn port(
        &mut self,
        network: NetworkId,
        addresses: &[&str],
        groups: &[SecurityGroupId],
    ) -> PortId {
        let id = PortId(self.id());
        let [.., n] = self.last_id.to_be_bytes();
        let fixed_ip = |text: &&str| {
            let ip_address = addr(text);
            let mut subnets = self.intent.subnets.values();
            let subnet = subnets
                .find(|s| s.network_id == network && s.cidr.contains(ip_address))
                .unwrap_or_else(|| panic!("{text} lies in no subnet of {network}"));
            FixedIp {
                subnet_id: subnet.id,
                ip_address,
            }
        };
        let port = Port {
            id,
            standard: standard(),
            network_id: network,
            mac_address: Mac::new([0xfa, 0x16, 0x3e, 0, 0, n]),
            fixed_ips: addresses.iter().map(fixed_ip).collect(),
            device_id: String::new(),
            device_owner: "compute:nova".to_owned(),
            admin_state_up: true,
            status: Status::Active,
            security_groups: groups.to_vec(),
            port_security_enabled: true,
            allowed_address_pairs: Vec::new(),
            extra_dhcp_opts: Vec::new(),
            exposed: Vec::new(),
            delegated_prefixes: Vec::new(),
            dns_name: String::new(),
            metadata: None,
            qos_policy_id: None,
            binding: Binding::default(),
        };
        self.intent.ports.insert(id, port);
        id
    }

    /// One more source for a port, with its own MAC.
    pub fn pair(&mut self, port: PortId, prefix_text: &str) {
        let port = self.port_mut(port);
        let ip_address = prefix(prefix_text);
        let pair = AddressPair {
            ip_address,
            mac_address: port.mac_address,
        };
        port.allowed_address_pairs.push(pair);
    }

    /// A port, to be changed.
    pub fn port_mut(&mut self, port: PortId) -> &mut Port {
        self.intent.ports.get_mut(&port).expect("a port")
    }

    /// A group with these rules.
    pub fn group(&mut self, stateful: bool, rules: &[Allow]) -> SecurityGroupId {
        let id = SecurityGroupId(self.id());
        let group = SecurityGroup {
            id,
            standard: standard(),
            stateful,
            shared: false,
        };
        let mut described = Group {
            group,
            rules: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        for allow in rules {
            let rule = allow.rule(SecurityGroupRuleId(self.id()), id);
            described.rules.insert(rule.id, rule);
        }
        self.intent.groups.insert(id, described);
        id
    }

    /// The members of every group that a rule names as remote, from the ports there are.
    #[must_use]
    pub fn with_members(mut self) -> Intent {
        let rules = self.intent.groups.values().flat_map(|g| g.rules.values());
        let remote: BTreeSet<_> = rules.filter_map(|rule| rule.remote_group_id).collect();
        for group in remote {
            let ports = self.intent.ports.values();
            for port in ports.filter(|p| p.security_groups.contains(&group)) {
                let domain = RoutingDomain::of(self.intent.networks.get(&port.network_id));
                let members = self.intent.members.entry((group, domain)).or_default();
                members.extend(port.fixed_ips.iter().map(|f| f.ip_address));
            }
        }
        self.intent
    }
}

/// What a rule allows.
#[derive(Clone, Copy, Debug)]
pub struct Allow {
    direction: Direction,
    family: Family,
    protocol: Option<Protocol>,
    ports: Option<(u16, u16)>,
    prefix: Option<Prefix>,
    group: Option<SecurityGroupId>,
}

impl Allow {
    /// Everything of that family, in that direction.
    pub fn all(direction: Direction, family: Family) -> Allow {
        Allow {
            direction,
            family,
            protocol: None,
            ports: None,
            prefix: None,
            group: None,
        }
    }

    /// Everything of both families, in that direction.
    pub fn both(direction: Direction) -> [Allow; 2] {
        Family::BOTH.map(|family| Allow::all(direction, family))
    }

    /// Of that protocol only.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Allow {
        Allow {
            protocol: Some(protocol),
            ..self
        }
    }

    /// For these destination ports, or that ICMP type and code.
    #[must_use]
    pub fn ports(self, first: u16, last: u16) -> Allow {
        Allow {
            ports: Some((first, last)),
            ..self
        }
    }

    /// With the other end in that prefix.
    #[must_use]
    pub fn remote(self, text: &str) -> Allow {
        Allow {
            prefix: Some(prefix(text)),
            ..self
        }
    }

    /// With the other end in that group.
    #[must_use]
    pub fn remote_group(self, group: SecurityGroupId) -> Allow {
        Allow {
            group: Some(group),
            ..self
        }
    }

    fn rule(self, id: SecurityGroupRuleId, group: SecurityGroupId) -> SecurityGroupRule {
        SecurityGroupRule {
            id,
            security_group_id: group,
            project_id: ProjectId("tests".to_owned()),
            description: String::new(),
            direction: self.direction,
            ethertype: self.family,
            protocol: self.protocol,
            port_range_min: self.ports.map(|(first, _)| first),
            port_range_max: self.ports.map(|(_, last)| last),
            remote_ip_prefix: self.prefix,
            remote_group_id: self.group,
            remote_address_group_id: None,
            as_written: None,
            revision_number: 0,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }
}

fn standard() -> Standard {
    Standard {
        project_id: ProjectId("tests".to_owned()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn nth(prefix: Prefix, n: u8) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(n)).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(n)).into()),
    }
}
