//! Projects that know nothing of each other, out of a seed: private networks with the same addresses on the same
//! hosts, routers between them and to the outside, and whatever a project may have of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_model::{
    intent::{FloatingIp, GatewayHost, Intent, PortForwarding, Router, RouterInterface},
    neutron::{
        self, AddressPair, FixedIp, ForwardedProtocol, HostRoute, NetworkType, PortRange,
        RouterGateway,
    },
};
use hextet_tests::{
    cloud::{Cloud, addr, prefix},
    site::HostSetting,
    told::{Whole, host_name},
};
use hextet_types::{
    Family, FloatingIpId, Mac, NetworkId, PortForwardingId, PortId, Prefix, RouterId,
    SecurityGroupId, SubnetId,
};
use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use uuid::Uuid;

use crate::make::{OTHER_MAC, Policy};

/// Of all private networks: what VXLAN over IPv6 leaves of 1,500 octets.
const MTU: u16 = 1430;
/// The external network's subnets; ports are on it, too.
pub const OUTSIDE: [&str; 2] = ["198.51.100.0/24", "2001:db8:e::/64"];
/// What the first extra routes of a project lead to; each project has the same.
pub const BEYOND: [&str; 2] = ["192.168.0.0/16", "fd99::/32"];
/// What goes by way of two routers.
pub const FAR_BEYOND: [&str; 2] = ["172.16.0.0/16", "fd98::/32"];
/// What subnets tell their ports to send by way of a port.
pub const TOLD: [&str; 2] = ["172.31.0.0/16", "fd97::/32"];
/// What several ports of a network may use.
pub const SHARED: [&str; 2] = ["10.0.0.200", "fd00::200"];
/// Prefixes of pairs.
pub const WIDE: [&str; 2] = ["192.168.0.0/16", "fd99::/32"];

/// A cloud before anything of it stands.
pub struct Setting {
    /// One for each host.
    pub hosts: Vec<HostSetting>,
    /// The whole of it.
    pub whole: Whole,
}

/// The cloud with that seed.
pub fn setting(seed: u64) -> Setting {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x74_656e_616e_7400);
    let hosts = *[1, 2, 2, 3].choose(&mut rng).unwrap();
    let underlay = *[Family::V4, Family::V6, Family::V6]
        .choose(&mut rng)
        .unwrap();
    let mut maker = Maker {
        whole: Whole {
            cloud: Intent::default(),
            bound: BTreeMap::new(),
            project: BTreeMap::new(),
            hosts,
            underlay,
        },
        cloud: Cloud::new(),
        rng,
        next: 0,
        outside: 0,
    };
    maker.all();
    let whole = maker.finish();
    Setting {
        hosts: whole.settings(),
        whole,
    }
}

struct Maker {
    whole: Whole,
    cloud: Cloud,
    rng: StdRng,
    next: u16,
    /// Addresses of the external network that are taken.
    outside: u8,
}

/// A network with its subnets, of either family.
#[derive(Clone)]
struct Inner {
    id: NetworkId,
    subnets: Vec<(SubnetId, Prefix)>,
    ports: Vec<PortId>,
}

fn nth(prefix: Prefix, n: u16) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(n)).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(n)).into()),
    }
}

fn remotes(family: Family) -> [&'static str; 5] {
    match family {
        Family::V4 => [
            "0.0.0.0/0",
            "10.0.0.0/24",
            "10.0.0.0/8",
            "192.0.2.7/32",
            "10.0.1.0/28",
        ],
        Family::V6 => [
            "::/0",
            "fd00::/64",
            "2001:db8::/32",
            "2001:db8:7777::7/128",
            "fd00:0:0:1::/124",
        ],
    }
}

impl Maker {
    fn all(&mut self) {
        let outside = self.external();
        for project in 0..self.rng.random_range(2..4) {
            self.project(project, outside);
        }
    }

    fn finish(self) -> Whole {
        let mut whole = self.whole;
        let made = self.cloud.intent;
        whole.cloud.networks.extend(made.networks);
        whole.cloud.subnets.extend(made.subnets);
        whole.cloud.ports.extend(made.ports);
        whole.cloud.groups.extend(made.groups);
        whole
    }

    fn number(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    fn id(&mut self, kind: u64) -> Uuid {
        let n = u64::from(self.number());
        Uuid::from_u64_pair((kind << 12 | n) << 32, n)
    }

    /// A network that is external, with a port or two of its own.
    fn external(&mut self) -> NetworkId {
        let id = self.cloud.network(1500);
        self.cloud.intent.networks.get_mut(&id).unwrap().external = true;
        let subnets = OUTSIDE.map(|cidr| (self.cloud.subnet(id, cidr), prefix(cidr)));
        let groups = self.groups();
        let network = Inner {
            id,
            subnets: subnets.into(),
            ports: Vec::new(),
        };
        for n in 0..2 {
            self.port(&network, 200 + n, &groups);
        }
        id
    }

    fn groups(&mut self) -> Vec<SecurityGroupId> {
        Policy {
            cloud: &mut self.cloud,
            rng: &mut self.rng,
            remotes,
        }
        .groups()
    }

    fn project(&mut self, project: usize, outside: NetworkId) {
        let groups = self.groups();
        let count = self.rng.random_range(2..4);
        let mut networks: Vec<Inner> = (0..count).map(|n| self.network(project, n)).collect();
        for network in &mut networks {
            let many = self.rng.random_range(1..4);
            for n in 0..many {
                network.ports.push(self.port(network, 10 + n, &groups));
            }
        }
        self.share(&networks[0]);
        let mut first = self.router(outside, 0.8);
        self.forward(&first, &networks[1]);
        self.interface(&mut first, &networks[0], 1);
        self.interface(&mut first, &networks[1], 1);
        self.beyond(&mut first, &networks[0]);
        if let Some(last) = networks.get(2) {
            let mut second = self.router(outside, 0.4);
            self.interface(&mut second, &networks[0], 2);
            self.interface(&mut second, last, 1);
            self.by_two(&mut first, &mut second, [&networks[0], last]);
            self.publish(&mut second, [&networks[0], last]);
            self.serve(&second, last);
            self.put(second);
        }
        self.publish(&mut first, [&networks[0], &networks[1]]);
        self.serve(&first, &networks[0]);
        self.serve(&first, &networks[1]);
        self.put(first);
    }

    fn put(&mut self, router: Router) {
        self.whole.cloud.routers.insert(router.router.id, router);
    }

    /// The second and the third have the same addresses; and so have those of all projects.
    fn network(&mut self, project: usize, n: usize) -> Inner {
        let made = self.cloud.network(MTU);
        let mut network = self.cloud.intent.networks.remove(&made).unwrap();
        let number = self.number();
        let id = NetworkId(Uuid::from_u128(made.0.as_u128() | u128::from(number)));
        network.id = id;
        network.network_type = NetworkType::Vxlan;
        network.segmentation_id = Some(4000 + u32::from(number));
        self.cloud.intent.networks.insert(id, network);
        self.whole.project.insert(id, project);
        let place = n.min(1);
        let scoped = n == 1 && self.rng.random_bool(0.3);
        let mut cidrs = vec![match scoped {
            true => format!("198.18.{project}.0/24"),
            false => format!("10.0.{place}.0/24"),
        }];
        let [manual, pool] = [
            format!("fd00:0:0:{place}::/64"),
            format!("2001:db8:a{project}:{n}::/64"),
        ];
        match self.rng.random_range(0..4) {
            0 => cidrs.push(manual),
            1 | 2 => cidrs.push(pool),
            _ => cidrs.extend([manual, pool]),
        }
        let subnets = cidrs.iter().map(|cidr| {
            let cidr = prefix(cidr);
            (self.cloud.subnet(id, &cidr.to_string()), cidr)
        });
        Inner {
            id,
            subnets: subnets.collect(),
            ports: Vec::new(),
        }
    }

    fn port(&mut self, network: &Inner, n: u16, groups: &[SecurityGroupId]) -> PortId {
        let addresses = network
            .subnets
            .iter()
            .map(|(_, cidr)| nth(*cidr, n).to_string());
        let mut addresses: Vec<String> = addresses.collect();
        if self.rng.random_bool(0.15) {
            let last = addresses.len() - 1;
            addresses.remove(self.rng.random_range(0..=last));
        }
        let mut its: Vec<SecurityGroupId> = groups[1..]
            .choose_multiple(&mut self.rng, 3)
            .copied()
            .filter(|_| self.rng.random_bool(0.8))
            .collect();
        if self.rng.random_bool(0.8) {
            its.push(groups[0]);
        }
        its.sort_unstable();
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let id = self.cloud.port(network.id, &texts, &its);
        let number = self.number().to_be_bytes();
        let (checked, up) = (self.rng.random_bool(0.8), self.rng.random_bool(0.93));
        let host = self.rng.random_range(0..self.whole.hosts);
        let pairs: Vec<_> = WIDE.iter().filter(|_| self.rng.random_bool(0.15)).collect();
        let port = self.cloud.port_mut(id);
        port.mac_address = Mac::new([0xfa, 0x16, 0x3e, 1, number[0], number[1]]);
        port.port_security_enabled = checked;
        port.admin_state_up = up;
        for pair in pairs {
            port.allowed_address_pairs.push(AddressPair {
                ip_address: prefix(pair),
                mac_address: port.mac_address,
            });
        }
        self.whole.bound.insert(id, host);
        id
    }

    /// An address that two ports may use, and which of them has it.
    fn share(&mut self, network: &Inner) {
        let sharing: Vec<PortId> = network.ports.iter().take(2).copied().collect();
        let has = |cidr: &Prefix, text| cidr.contains(addr(text));
        for text in SHARED {
            let inside = network.subnets.iter().any(|(_, cidr)| has(cidr, text));
            if !inside || self.rng.random_bool(0.3) {
                continue;
            }
            for id in &sharing {
                let own = self.rng.random_bool(0.8);
                let port = self.cloud.port_mut(*id);
                let mac_address = match own {
                    true => port.mac_address,
                    false => OTHER_MAC,
                };
                port.allowed_address_pairs.push(AddressPair {
                    ip_address: Prefix::host(addr(text)),
                    mac_address,
                });
            }
            if let Some(holder) = sharing.choose(&mut self.rng).filter(|_| sharing.len() > 1) {
                let holders = &mut self.whole.cloud.holders;
                holders.insert((network.id, addr(text)), *holder);
            }
        }
    }

    fn outside_address(&mut self) -> Ipv4Addr {
        self.outside += 1;
        Ipv4Addr::new(198, 51, 100, self.outside)
    }

    /// A router, with a gateway as often as that.
    fn router(&mut self, outside: NetworkId, often: f64) -> Router {
        let id = RouterId(self.id(0xa));
        let mut router = Router {
            router: neutron::Router {
                id,
                standard: self.cloud.intent.networks[&outside].standard.clone(),
                admin_state_up: self.rng.random_bool(0.94),
                gateways: Vec::new(),
                enable_snat: self.rng.random_bool(0.8),
                routes: Vec::new(),
                enable_ndp_proxy: self.rng.random_bool(0.3),
                enable_default_route_ecmp: self.rng.random_bool(0.5),
                enable_default_route_bfd: false,
                availability_zone_hints: Vec::new(),
            },
            interfaces: BTreeMap::new(),
            gateways: BTreeMap::new(),
            gateway_host: None,
            published: BTreeSet::new(),
            meters: BTreeMap::new(),
        };
        if !self.rng.random_bool(often) {
            return router;
        }
        for _ in 0..*[1, 1, 2].choose(&mut self.rng).unwrap() {
            self.gateway(&mut router, outside);
        }
        if self.rng.random_bool(0.95) {
            let host = self.rng.random_range(0..self.whole.hosts);
            router.gateway_host = Some(GatewayHost {
                host: host_name(host),
                segment: 9000 + u32::from(self.number()),
                generation: 1,
            });
        }
        router
    }

    fn gateway(&mut self, router: &mut Router, outside: NetworkId) {
        let v4 = IpAddr::V4(self.outside_address());
        let v6 = addr(&format!("2001:db8:e::{:x}", self.outside));
        let subnet = |addr| {
            let mut subnets = self.cloud.intent.subnets.values();
            let found = subnets.find(|s| s.network_id == outside && s.cidr.contains(addr));
            FixedIp {
                subnet_id: found.unwrap().id,
                ip_address: addr,
            }
        };
        let fixed_ips = vec![subnet(v4), subnet(v6)];
        let port_id = PortId(self.id(0xb));
        router.router.gateways.push(RouterGateway {
            network_id: outside,
            port_id,
            qos_policy_id: None,
        });
        let gateway = RouterInterface {
            network_id: outside,
            mac_address: Mac::new([0xfa, 0x16, 0x3e, 2, 0, self.outside]),
            fixed_ips,
            admin_state_up: self.rng.random_bool(0.97),
        };
        router.gateways.insert(port_id, gateway);
    }

    /// The router's addresses are those of that number.
    fn interface(&mut self, router: &mut Router, network: &Inner, n: u16) {
        let fixed_ips = network.subnets.iter().map(|(subnet_id, cidr)| FixedIp {
            subnet_id: *subnet_id,
            ip_address: nth(*cidr, n),
        });
        let [high, low] = self.next.to_be_bytes();
        let interface = RouterInterface {
            network_id: network.id,
            mac_address: Mac::new([0xfa, 0x16, 0x3e, 3, high, low]),
            fixed_ips: fixed_ips.collect(),
            admin_state_up: self.rng.random_bool(0.96),
        };
        let id = PortId(self.id(0xc));
        router.interfaces.insert(id, interface);
    }

    fn own_addresses(&self, port: PortId) -> Vec<IpAddr> {
        let port = &self.cloud.intent.ports[&port];
        port.fixed_ips.iter().map(|f| f.ip_address).collect()
    }

    /// Extra routes of the router, and routes that the subnets tell, by way of a port of the network.
    fn beyond(&mut self, router: &mut Router, network: &Inner) {
        let appliance = *network.ports.choose(&mut self.rng).unwrap();
        for nexthop in self.own_addresses(appliance) {
            let family = usize::from(nexthop.is_ipv6());
            let route = |text| HostRoute {
                destination: prefix(text),
                nexthop,
            };
            if self.rng.random_bool(0.5) && !has_route(router, BEYOND[family]) {
                router.router.routes.push(route(BEYOND[family]));
            }
            let first = network
                .subnets
                .iter()
                .find(|(_, cidr)| cidr.contains(nexthop));
            if let Some((id, _)) = first.filter(|_| self.rng.random_bool(0.3)) {
                let subnet = self.cloud.intent.subnets.get_mut(id).unwrap();
                subnet.host_routes.push(route(TOLD[family]));
            }
        }
    }

    /// What goes by way of the second router, to a port behind it.
    fn by_two(&mut self, first: &mut Router, second: &mut Router, [shared, last]: [&Inner; 2]) {
        let here = |i: &&RouterInterface| i.network_id == shared.id;
        let between = second.interfaces.values().find(here).unwrap();
        let between: Vec<IpAddr> = between.fixed_ips.iter().map(|f| f.ip_address).collect();
        let appliance = *last.ports.choose(&mut self.rng).unwrap();
        for end in self.own_addresses(appliance) {
            let family = usize::from(end.is_ipv6());
            let by = between.iter().find(|a| a.is_ipv6() == end.is_ipv6());
            let destination = prefix(FAR_BEYOND[family]);
            let (Some(by), false) = (by, has_route(first, FAR_BEYOND[family])) else {
                continue;
            };
            let route = |nexthop| HostRoute {
                destination,
                nexthop,
            };
            first.router.routes.push(route(*by));
            second.router.routes.push(route(end));
        }
    }

    /// What of its networks is reached from outside untranslated.
    fn publish(&mut self, router: &mut Router, networks: [&Inner; 2]) {
        if router.gateways.is_empty() {
            return;
        }
        let public = |cidr: &&(SubnetId, Prefix)| {
            let text = cidr.1.to_string();
            text.starts_with("2001:db8:a") || text.starts_with("198.18.")
        };
        for network in networks {
            for (_, cidr) in network.subnets.iter().filter(public) {
                let ports = network.ports.iter().flat_map(|id| self.own_addresses(*id));
                let single: Vec<IpAddr> = ports.filter(|a| cidr.contains(*a)).collect();
                match router.router.enable_ndp_proxy && cidr.family() == Family::V6 {
                    true => router
                        .published
                        .extend(single.into_iter().take(1).map(Prefix::host)),
                    false => drop(router.published.insert(*cidr)),
                }
            }
        }
    }

    /// Floating IPs for some of its addresses; for none to which ports are forwarded, which the API refuses.
    fn serve(&mut self, router: &Router, network: &Inner) {
        if router.gateways.is_empty() {
            return;
        }
        let shared = addr(SHARED[0]);
        let mut inside: Vec<IpAddr> = network
            .ports
            .iter()
            .flat_map(|id| self.own_addresses(*id))
            .collect();
        inside.extend(network.subnets[0].1.contains(shared).then_some(shared));
        let v4 = inside.into_iter().filter_map(|addr| match addr {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        let forwardings = &self.whole.cloud.port_forwardings;
        let forwarded = |addr: &Ipv4Addr| {
            let mut all = forwardings.values();
            all.any(|f| f.network_id == network.id && f.internal_ip_address == *addr)
        };
        let v4: Vec<Ipv4Addr> = v4.filter(|addr| !forwarded(addr)).collect();
        for fixed_ip_address in v4 {
            if !self.rng.random_bool(0.4) {
                continue;
            }
            let ip = FloatingIp {
                id: FloatingIpId(self.id(0xd)),
                router_id: router.router.id,
                floating_ip_address: self.outside_address(),
                network_id: network.id,
                fixed_ip_address,
                qos_policy_id: None,
            };
            self.whole.cloud.floating_ips.insert(ip.id, ip);
        }
    }

    /// Forwarded ports of one floating IP.
    fn forward(&mut self, router: &Router, network: &Inner) {
        if router.gateways.is_empty() || self.rng.random_bool(0.3) {
            return;
        }
        let own = network.ports.iter().flat_map(|id| self.own_addresses(*id));
        let v4: Vec<Ipv4Addr> = own
            .filter_map(|addr| match addr {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
            .collect();
        let floating_ip_address = self.outside_address();
        let to = v4.choose_multiple(&mut self.rng, 2).copied();
        let v4: Vec<Ipv4Addr> = to.collect();
        let ranges = [
            ((8000, 8003), (80, 83)),
            ((9000, 9012), (9000, 9012)),
            ((7000, 7007), (22, 22)),
            ((2222, 2222), (22, 22)),
        ];
        for (outside, inside) in ranges {
            let Some(to) = v4.choose(&mut self.rng) else {
                return;
            };
            let range = |(first, last)| PortRange::new(first, last).unwrap();
            let forwarding = PortForwarding {
                id: PortForwardingId(self.id(0xe)),
                router_id: router.router.id,
                floating_ip_address,
                protocol: *[ForwardedProtocol::Tcp, ForwardedProtocol::Udp]
                    .choose(&mut self.rng)
                    .unwrap(),
                external_port_range: range(outside),
                network_id: network.id,
                internal_ip_address: *to,
                internal_port_range: range(inside),
            };
            let all = &mut self.whole.cloud.port_forwardings;
            all.insert(forwarding.id, forwarding);
        }
    }
}

fn has_route(router: &Router, text: &str) -> bool {
    let destination = prefix(text);
    let mut routes = router.router.routes.iter();
    routes.any(|route| route.destination == destination)
}
