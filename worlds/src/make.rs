//! A cloud out of a seed: few of each thing, so that they meet, repeat and contradict one another.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_model::{
    intent::Intent,
    neutron::{AddressPair, Direction, Port, Protocol},
    plan::{Aggregate, HostConfig},
    state::Scope,
};
use hextet_tests::{
    cloud::{Allow, Cloud, addr, prefix},
    site::HostSetting,
};
use hextet_types::{Family, Mac, NetworkId, PortId, SecurityGroupId, SubnetId};
use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// The subnets: public of both families on one network, public IPv6 and private IPv4 on the other.
pub const CIDRS: [&str; 4] = [
    "2001:db8:1::/64",
    "198.51.100.0/24",
    "2001:db8:2::/64",
    "10.64.0.0/16",
];
/// What no port's connections reach.
const MANY_CONNECTIONS: u32 = 60_000;
/// Services that rules are about: first and last port.
const RANGES: [(u16, u16); 7] = [
    (7, 7),
    (22, 22),
    (80, 90),
    (1000, 1999),
    (53, 53),
    (443, 444),
    (1, 65_535),
];

/// A cloud before anything of it stands.
pub struct Setting {
    /// One for each host.
    pub hosts: Vec<HostSetting>,
    /// The whole cloud, as no host sees it.
    pub cloud: Intent,
}

/// The cloud with that seed.
pub fn setting(seed: u64) -> Setting {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut maker = Maker {
        cloud: Cloud::new(),
        rng: &mut rng,
        next: 10,
    };
    let hosts = *[1, 2, 2, 3].choose(maker.rng).unwrap();
    let (networks, private) = maker.networks();
    let groups = Policy {
        cloud: &mut maker.cloud,
        rng: maker.rng,
        remotes,
    }
    .groups();
    let bound: Vec<BTreeSet<PortId>> = (0..hosts)
        .map(|_| maker.ports(&networks, &groups))
        .collect();
    let cloud = maker.cloud.with_members();
    let settings = bound.iter().enumerate().map(|(n, ports)| {
        let mut config = HostConfig::new(format!("compute-{n}").parse().unwrap());
        config.blackhole_inside = hosts == 1 && rng.random_bool(0.6);
        if hosts == 1 && rng.random_bool(0.3) {
            config.aggregates.push(Aggregate {
                prefix: prefix(CIDRS[1]),
                scope: Scope::Global,
            });
        }
        let sources = sources(&mut rng, n);
        HostSetting {
            config,
            intent: part(&cloud, ports, private, sources),
            endpoint: None,
        }
    });
    Setting {
        hosts: settings.collect(),
        cloud,
    }
}

/// What a host with these ports sees of the cloud.
fn part(
    cloud: &Intent,
    ports: &BTreeSet<PortId>,
    private: SubnetId,
    sources: BTreeSet<IpAddr>,
) -> Intent {
    let mut part = cloud.clone();
    part.ports.retain(|id, _| ports.contains(id));
    let used: BTreeSet<SecurityGroupId> = part
        .ports
        .values()
        .flat_map(|p| p.security_groups.iter().copied())
        .collect();
    part.groups.retain(|id, _| used.contains(id));
    let rules = part.groups.values().flat_map(|g| g.rules.values());
    let remote: BTreeSet<_> = rules.filter_map(|rule| rule.remote_group_id).collect();
    part.members.retain(|(id, _), _| remote.contains(id));
    part.nat44_sources.clear();
    if !sources.is_empty() {
        part.nat44_sources.insert(private, sources);
    }
    part
}

/// Sources of NAT44 on a host: none, one, a run, or several runs.
fn sources(rng: &mut StdRng, host: usize) -> BTreeSet<IpAddr> {
    let last: &[u8] = [&[][..], &[0], &[0, 1, 2, 3], &[0, 2, 3, 5]]
        .choose(rng)
        .unwrap();
    let base = 64 + 16 * u8::try_from(host).unwrap();
    last.iter()
        .map(|n| IpAddr::from([203, 0, 113, base + n]))
        .collect()
}

/// Makes groups.
pub struct Policy<'a> {
    /// Where they are put.
    pub cloud: &'a mut Cloud,
    /// What decides.
    pub rng: &'a mut StdRng,
    /// Prefixes that rules name.
    pub remotes: fn(Family) -> [&'static str; 5],
}

impl Policy<'_> {
    /// The first lets everything out.
    pub fn groups(&mut self) -> Vec<SecurityGroupId> {
        let mut groups = vec![self.cloud.group(true, &Allow::both(Direction::Egress))];
        for _ in 0..5 {
            let stateful = self.rng.random_bool(0.75);
            let count = self.rng.random_range(0..7);
            let rules: Vec<Allow> = (0..count).map(|_| self.rule(&groups)).collect();
            groups.push(self.cloud.group(stateful, &rules));
        }
        for group in self.cloud.intent.groups.values_mut() {
            for rule in group.rules.values_mut() {
                if rule.protocol.is_some_and(is_icmp) && self.rng.random_bool(0.4) {
                    rule.port_range_max = None;
                }
            }
        }
        groups
    }

    fn rule(&mut self, groups: &[SecurityGroupId]) -> Allow {
        let direction = match self.rng.random_bool(0.75) {
            true => Direction::Ingress,
            false => Direction::Egress,
        };
        let family = *Family::BOTH.choose(self.rng).unwrap();
        let rule = Allow::all(direction, family);
        let icmp = match family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        let (first, last) = *RANGES.choose(self.rng).unwrap();
        let rule = match self.rng.random_range(0..10) {
            0 | 1 => rule,
            2 => rule.protocol(Protocol::UDP),
            3..6 => rule.protocol(Protocol::UDP).ports(first, last),
            6 | 7 => rule.protocol(Protocol::TCP).ports(first, last),
            8 => rule.protocol(icmp).ports(echo(family).into(), 0),
            _ => rule.protocol(Protocol(*[47, 253, icmp.0].choose(self.rng).unwrap())),
        };
        match self.rng.random_range(0..10) {
            0..5 => rule,
            5..8 => {
                let remotes = (self.remotes)(family);
                rule.remote(remotes.choose(self.rng).unwrap())
            }
            _ => rule.remote_group(*groups.choose(self.rng).unwrap()),
        }
    }
}

struct Maker<'a> {
    cloud: Cloud,
    rng: &'a mut StdRng,
    next: u8,
}

impl Maker<'_> {
    fn networks(&mut self) -> ([NetworkId; 2], SubnetId) {
        let networks = [(); 2].map(|()| self.cloud.network(1500));
        let subnets = [0, 1, 2, 3].map(|n| self.cloud.subnet(networks[n / 2], CIDRS[n]));
        self.cloud
            .translate(subnets[3], subnets[1], &[], MANY_CONNECTIONS);
        (networks, subnets[3])
    }

    fn ports(&mut self, networks: &[NetworkId], groups: &[SecurityGroupId]) -> BTreeSet<PortId> {
        let count = self.rng.random_range(3..6);
        (0..count).map(|_| self.port(networks, groups)).collect()
    }

    fn port(&mut self, networks: &[NetworkId], groups: &[SecurityGroupId]) -> PortId {
        let n = self.next;
        self.next += 1;
        let on = usize::from(self.rng.random_bool(0.5));
        let [v6, v4] = [
            [format!("2001:db8:1::{n:x}"), format!("198.51.100.{n}")],
            [format!("2001:db8:2::{n:x}"), format!("10.64.0.{n}")],
        ][on]
            .clone();
        let more = [format!("198.51.100.{}", n + 100), format!("10.64.7.{n}")][on].clone();
        let addresses: Vec<&str> = match self.rng.random_range(0..8) {
            0 => vec![&v6],
            1 => vec![&v4],
            2 => vec![&v6, &v4, &more],
            _ => vec![&v6, &v4],
        };
        let mut its: Vec<SecurityGroupId> = groups[1..]
            .choose_multiple(self.rng, 2)
            .copied()
            .filter(|_| self.rng.random_bool(0.7))
            .collect();
        if self.rng.random_bool(0.7) {
            its.push(groups[0]);
        }
        its.sort_unstable();
        let id = self.cloud.port(networks[on], &addresses, &its);
        let (checked, up) = (self.rng.random_bool(0.85), self.rng.random_bool(0.92));
        let pairs = self.pairs();
        let port = self.cloud.port_mut(id);
        port.port_security_enabled = checked;
        port.admin_state_up = up;
        add_pairs(port, &pairs);
        id
    }

    fn pairs(&mut self) -> Vec<(&'static str, bool)> {
        let pairs = [
            "10.9.0.0/16",
            "10.9.1.0/24",
            "2001:db8:9::/48",
            "198.51.100.250/32",
            "2001:db8:1::fa/128",
        ];
        let chosen = pairs.choose_multiple(self.rng, 2).copied();
        let chosen: Vec<_> = chosen.collect();
        let own = |pair| (pair, self.rng.random_bool(0.7));
        let pairs: Vec<_> = chosen.into_iter().map(own).collect();
        match self.rng.random_bool(0.4) {
            true => pairs,
            false => Vec::new(),
        }
    }
}

/// Pairs have the port's own MAC or another.
fn add_pairs(port: &mut Port, pairs: &[(&str, bool)]) {
    for (text, own) in pairs {
        let mac_address = match own {
            true => port.mac_address,
            false => OTHER_MAC,
        };
        port.allowed_address_pairs.push(AddressPair {
            ip_address: prefix(text),
            mac_address,
        });
    }
}

/// The Ethernet address of some address pairs, and of no port.
pub const OTHER_MAC: Mac = Mac::new([0, 0, 0x5e, 0, 1, 9]);

/// Type of an echo request.
pub fn echo(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 128,
    }
}

/// Whether it is ICMP of either family.
pub fn is_icmp(protocol: Protocol) -> bool {
    protocol == Protocol::ICMP || protocol == Protocol::ICMPV6
}

fn remotes(family: Family) -> [&'static str; 5] {
    match family {
        Family::V4 => [
            "0.0.0.0/0",
            "198.51.100.0/24",
            "10.64.0.0/28",
            "192.0.2.7/32",
            "198.51.100.12/31",
        ],
        Family::V6 => [
            "::/0",
            "2001:db8:1::/64",
            "2001:db8:2::/124",
            "2001:db8:7777::7/128",
            "2001:db8:1::c/127",
        ],
    }
}

/// Somebody outside, of that family.
pub fn strangers(family: Family) -> [IpAddr; 3] {
    match family {
        Family::V4 => ["192.0.2.7", "192.0.2.8", "100.100.3.4"].map(addr),
        Family::V6 => ["2001:db8:7777::7", "2001:db8:7777::8", "2001:db8:8888::1"].map(addr),
    }
}
