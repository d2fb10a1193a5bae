//! The cloud in which projects attack one another: two of them with the same addresses on the same two hosts, each with
//! a router, and a stranger on the network that both reach the outside by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_model::{
    intent::{FloatingIp, GatewayHost, Intent, Joined, PortForwarding, Router, RouterInterface},
    neutron::{self, Direction, FixedIp, ForwardedProtocol, NetworkType, PortRange, RouterGateway},
};
use hextet_tests::{
    cloud::{Allow, Cloud, addr, prefix},
    told::{Whole, host_name},
};
use hextet_types::{
    Family, FloatingIpId, Mac, NetworkId, PortForwardingId, PortId, RouterId, SecurityGroupId,
    SubnetId,
};
use uuid::Uuid;

/// Of all private networks: what VXLAN over IPv6 leaves of 1,500 octets.
const MTU: u16 = 1430;
/// The segments of the projects' networks.
pub const SEGMENTS: [u32; 2] = [4001, 4002];
/// Those of their routers, between the hosts.
pub const ROUTER_SEGMENTS: [u32; 2] = [9001, 9002];
/// The gateways' addresses.
pub const GATEWAYS: [[&str; 2]; 2] = [
    ["198.51.100.1", "2001:db8:e::1"],
    ["198.51.100.2", "2001:db8:e::2"],
];
/// The floating IP of the victim.
pub const VICTIM_OUTSIDE: &str = "198.51.100.21";
/// The floating IP whose port leads to the mate.
pub const FORWARDED: &str = "198.51.100.22";
/// The port that is forwarded, to the one that is open.
pub const FORWARDED_PORT: u16 = 8000;
/// The floating IP of the attacker.
pub const ATTACKER_OUTSIDE: &str = "198.51.100.31";
/// What is reached from outside of each project.
pub const PUBLISHED: [&str; 2] = ["2001:db8:a0::/64", "2001:db8:b0::/64"];

/// What ports may join.
pub fn group(family: Family) -> IpAddr {
    addr(match family {
        Family::V4 => "239.1.2.3",
        Family::V6 => "ff05::1:3",
    })
}

/// Who is there.
#[derive(Clone, Copy)]
pub struct Cast {
    /// Alpha's, on the first host, with a floating IP: UDP 7, TCP 80 and pings are open to all.
    pub victim: PortId,
    /// Alpha's, on the same network and host, reached by a forwarded port.
    pub mate: PortId,
    /// Alpha's, on the same network and the other host.
    pub far: PortId,
    /// Beta's, on the first host; may send and get anything.
    pub attacker: PortId,
    /// Beta's, with the victim's addresses, on the same host.
    pub twin: PortId,
    /// Beta's, on the other host.
    pub accomplice: PortId,
    /// A third project's, on the external network and the first host; may send and get anything.
    pub stranger: PortId,
    /// The projects' networks.
    pub networks: [NetworkId; 2],
    /// The projects' routers.
    pub routers: [RouterId; 2],
}

/// What the world is made of.
pub struct Setting {
    /// The cloud, as the server knows it.
    pub whole: Whole,
    /// Who is there.
    pub cast: Cast,
    /// Connections that a port may have.
    pub max_connections: Option<u32>,
    /// Makes what is added.
    more: Cloud,
}

impl Setting {
    /// The usual, over an underlay of that family.
    pub fn new(underlay: Family) -> Setting {
        let mut maker = Maker {
            cloud: Cloud::new(),
            bound: BTreeMap::new(),
            project: BTreeMap::new(),
            last: 0,
        };
        let (cast, routers) = maker.all();
        let more = maker.cloud.clone();
        let mut whole = Whole {
            cloud: maker.cloud.intent,
            bound: maker.bound,
            project: maker.project,
            hosts: 2,
            underlay,
        };
        whole.cloud.routers = routers.into_iter().map(|r| (r.router.id, r)).collect();
        outside(&mut whole.cloud, &cast);
        Setting {
            whole,
            cast,
            max_connections: None,
            more,
        }
    }

    /// A port, to be changed.
    pub fn port(&mut self, port: PortId) -> &mut neutron::Port {
        self.whole.cloud.ports.get_mut(&port).expect("a port")
    }

    /// A router, to be changed.
    pub fn router(&mut self, project: usize) -> &mut Router {
        let id = self.cast.routers[project];
        self.whole.cloud.routers.get_mut(&id).expect("a router")
    }

    /// A group with these rules, which lets everything out.
    pub fn group(&mut self, rules: &[Allow]) -> SecurityGroupId {
        let all = [&Allow::both(Direction::Egress)[..], rules].concat();
        let made = self.more.group(true, &all);
        let described = self.more.intent.groups.remove(&made).expect("it was made");
        self.whole.cloud.groups.insert(made, described);
        made
    }

    /// Takes away what keeps the projects apart: beta's ports are on alpha's network, but those whose addresses others have
    /// there.
    pub fn merge(&mut self) {
        let [alpha, beta] = self.cast.networks;
        let cloud = &mut self.whole.cloud;
        let twin = self.cast.twin;
        cloud.ports.remove(&twin);
        cloud.routers.remove(&self.cast.routers[1]);
        cloud.floating_ips.retain(|_, ip| ip.network_id != beta);
        let subnets = cloud.subnets.values().filter(|s| s.network_id == alpha);
        let subnets: Vec<_> = subnets.map(|s| (s.id, s.cidr)).collect();
        let moved = cloud.ports.values_mut().filter(|p| p.network_id == beta);
        for port in moved {
            port.network_id = alpha;
            port.fixed_ips.retain_mut(|fixed| {
                let holds = subnets.iter().find(|(_, c)| c.contains(fixed.ip_address));
                holds.map(|(id, _)| fixed.subnet_id = *id).is_some()
            });
        }
        cloud.audiences.retain(|(network, _), _| *network != beta);
        cloud.networks.remove(&beta);
        cloud.subnets.retain(|_, s| s.network_id != beta);
    }

    /// A port joins a group of each family.
    pub fn join(&mut self, id: PortId) {
        let cloud = &mut self.whole.cloud;
        let port = &cloud.ports[&id];
        for family in Family::BOTH {
            let addr = port.addresses(family).next().expect("it has one");
            let mac = port.mac_address;
            let audience = cloud.audiences.entry((port.network_id, group(family)));
            audience.or_default().insert(id, Joined { mac, addr });
        }
    }

    /// Takes away the one port that is in its host's own namespace.
    pub fn without_stranger(&mut self) {
        self.whole.cloud.ports.remove(&self.cast.stranger);
        self.whole.bound.remove(&self.cast.stranger);
    }

    /// Gives a port no port security.
    pub fn open(&mut self, port: PortId) {
        let port = self.port(port);
        port.port_security_enabled = false;
        port.security_groups.clear();
    }
}

struct Maker {
    cloud: Cloud,
    bound: BTreeMap<PortId, usize>,
    project: BTreeMap<NetworkId, usize>,
    last: u8,
}

impl Maker {
    fn all(&mut self) -> (Cast, Vec<Router>) {
        let external = self.external();
        let open = [Direction::Egress, Direction::Ingress].map(Allow::both);
        let open = self.cloud.group(true, &open.concat());
        let web = self.cloud.group(true, &crate::world::web_rules());
        let alpha = self.network(0);
        let beta = self.network(1);
        let routers = [
            self.router(external, alpha, 0),
            self.router(external, beta, 1),
        ];
        let cast = Cast {
            victim: self.port(alpha, 0, 11, web),
            mate: self.port(alpha, 0, 12, web),
            far: self.port(alpha, 1, 13, web),
            attacker: self.port(beta, 0, 66, open),
            twin: self.port(beta, 0, 11, open),
            accomplice: self.port(beta, 1, 67, open),
            stranger: self.port(external, 0, 200, open),
            networks: [alpha, beta],
            routers: routers.each_ref().map(|r| r.router.id),
        };
        (cast, routers.into())
    }

    fn external(&mut self) -> NetworkId {
        let id = self.cloud.network(1500);
        self.cloud.intent.networks.get_mut(&id).unwrap().external = true;
        self.cloud.subnet(id, "198.51.100.0/24");
        self.cloud.subnet(id, "2001:db8:e::/64");
        id
    }

    /// The same addresses for both projects, but for what is public.
    fn network(&mut self, project: usize) -> NetworkId {
        let made = self.cloud.network(MTU);
        let mut network = self.cloud.intent.networks.remove(&made).unwrap();
        let segment = SEGMENTS[project];
        let id = NetworkId(Uuid::from_u128(made.0.as_u128() | u128::from(segment)));
        network.id = id;
        network.network_type = NetworkType::Vxlan;
        network.segmentation_id = Some(segment);
        self.cloud.intent.networks.insert(id, network);
        self.project.insert(id, project);
        for cidr in ["10.0.0.0/24", "fd00::/64", PUBLISHED[project]] {
            self.cloud.subnet(id, cidr);
        }
        id
    }

    fn subnets(&self, network: NetworkId) -> Vec<(SubnetId, hextet_types::Prefix)> {
        let subnets = self.cloud.intent.subnets.values();
        let here = subnets.filter(|s| s.network_id == network);
        here.map(|s| (s.id, s.cidr)).collect()
    }

    fn port(&mut self, network: NetworkId, host: usize, n: u8, group: SecurityGroupId) -> PortId {
        let subnets = self.subnets(network).into_iter();
        let texts: Vec<String> = subnets.map(|(_, cidr)| nth(cidr, n).to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let id = self.cloud.port(network, &texts, &[group]);
        self.bound.insert(id, host);
        id
    }

    /// On the network, and to the outside by the first host.
    fn router(&mut self, external: NetworkId, network: NetworkId, n: usize) -> Router {
        let low = u64::try_from(n).unwrap() + 1;
        let id = RouterId(Uuid::from_u64_pair(0xa << 44, low));
        let port_id = self.other_id(0xb);
        let gateway = GATEWAYS[n].map(|text| self.fixed(external, addr(text)));
        let gateway = self.interface(external, gateway.into());
        let subnets = self.subnets(network).into_iter();
        let fixed = subnets.map(|(subnet_id, cidr)| FixedIp {
            subnet_id,
            ip_address: nth(cidr, 1),
        });
        let inside = self.interface(network, fixed.collect());
        Router {
            router: neutron::Router {
                id,
                standard: self.cloud.intent.networks[&external].standard.clone(),
                admin_state_up: true,
                gateways: vec![RouterGateway {
                    network_id: external,
                    port_id,
                    qos_policy_id: None,
                }],
                enable_snat: true,
                routes: Vec::new(),
                enable_ndp_proxy: false,
                enable_default_route_ecmp: false,
                enable_default_route_bfd: false,
                availability_zone_hints: Vec::new(),
            },
            interfaces: [(self.other_id(0xc), inside)].into(),
            gateways: [(port_id, gateway)].into(),
            gateway_host: Some(GatewayHost {
                host: host_name(0),
                segment: ROUTER_SEGMENTS[n],
                generation: 1,
            }),
            published: BTreeSet::from([prefix(PUBLISHED[n])]),
            meters: BTreeMap::new(),
        }
    }

    fn other_id(&mut self, kind: u64) -> PortId {
        self.last += 1;
        PortId(Uuid::from_u64_pair(kind << 44 | u64::from(self.last), 0))
    }

    fn fixed(&self, network: NetworkId, ip_address: IpAddr) -> FixedIp {
        let subnets = self.subnets(network);
        let holds = subnets.iter().find(|(_, c)| c.contains(ip_address));
        FixedIp {
            subnet_id: holds.unwrap().0,
            ip_address,
        }
    }

    fn interface(&mut self, network_id: NetworkId, fixed_ips: Vec<FixedIp>) -> RouterInterface {
        self.last += 1;
        RouterInterface {
            network_id,
            mac_address: Mac::new([0xfa, 0x16, 0x3e, 3, 0, self.last]),
            fixed_ips,
            admin_state_up: true,
        }
    }
}

/// Floating IPs, and a forwarded port.
fn outside(cloud: &mut Intent, cast: &Cast) {
    let v4 = |cloud: &Intent, port: PortId| match cloud.ports[&port].addresses(Family::V4).next() {
        Some(IpAddr::V4(v4)) => v4,
        other => panic!("{other:?}"),
    };
    let floating = [
        (0, VICTIM_OUTSIDE, cast.victim),
        (1, ATTACKER_OUTSIDE, cast.attacker),
    ];
    for (n, outside, port) in floating {
        let id = FloatingIpId(Uuid::from_u128(0xd0 + n as u128));
        let ip = FloatingIp {
            id,
            router_id: cast.routers[n],
            floating_ip_address: public(outside),
            network_id: cast.networks[n],
            fixed_ip_address: v4(cloud, port),
            qos_policy_id: None,
        };
        cloud.floating_ips.insert(id, ip);
    }
    let range = |port| PortRange::new(port, port).unwrap();
    let id = PortForwardingId(Uuid::from_u128(0xe0));
    let forwarding = PortForwarding {
        id,
        router_id: cast.routers[0],
        floating_ip_address: public(FORWARDED),
        protocol: ForwardedProtocol::Udp,
        external_port_range: range(FORWARDED_PORT),
        network_id: cast.networks[0],
        internal_ip_address: v4(cloud, cast.mate),
        internal_port_range: range(crate::world::OPEN),
    };
    cloud.port_forwardings.insert(id, forwarding);
}

fn public(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn nth(prefix: hextet_types::Prefix, n: u8) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(n)).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(n)).into()),
    }
}
