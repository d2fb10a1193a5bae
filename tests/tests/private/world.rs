//! Networks, ports and hosts, as a server would describe them, with the guests on them.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_model::neutron::Direction;
use hextet_model::{
    intent::{Intent, TunnelEndpoint},
    neutron::{Ipv6Mode, NetworkType},
};
use hextet_tests::cloud::{Allow, Cloud};
use hextet_types::{Family, HostId, NetworkId, PortId, SecurityGroupId};
use uuid::Uuid;

use super::{
    agent::{Agent, Home},
    host::{Host, run},
};

/// Of all private networks here: what VXLAN over IPv6 leaves of 1,500 octets.
pub const MTU: u16 = 1430;

/// The cloud as the server knows it, and where its ports are.
pub struct World {
    pub cloud: Cloud,
    family: Family,
    /// By port: its host, counted from 0, and its addresses.
    places: BTreeMap<PortId, usize>,
    pub hosts: Vec<Host>,
    pub homes: Vec<Home>,
    pub agents: Vec<Agent>,
    revision: u64,
    last: u8,
}

/// A guest: a namespace of that name on a host.
pub struct Guest {
    pub host: usize,
    pub name: String,
    pub port: PortId,
    pub addrs: Vec<IpAddr>,
}

impl World {
    /// So many hosts on an underlay of that family, each with an agent that has been told nothing.
    pub fn new(hosts: usize, family: Family) -> World {
        let homes: Vec<Home> = (0..hosts).map(|n| Home::new(&name(n))).collect();
        let hosts: Vec<Host> = (0..hosts).map(|_| Host::new()).collect();
        if let [first, second] = &hosts[..] {
            let (first, second) = (first.pid(), second.pid());
            run(&format!(
                "ip link add up0 netns {first} type veth peer name up0 netns {second}"
            ));
        }
        for (n, host) in hosts.iter().enumerate() {
            if hosts.len() == 2 {
                let len = if family == Family::V4 { 24 } else { 64 };
                let nodad = if family == Family::V4 { "" } else { "nodad" };
                let addr = endpoint(n, family);
                host.run(&format!("ip addr add {addr}/{len} dev up0 {nodad}"));
                host.run("ip link set up0 up");
            }
        }
        let agents = homes
            .iter()
            .zip(&hosts)
            .map(|(home, host)| home.start(host));
        World {
            cloud: Cloud::new(),
            family,
            places: BTreeMap::new(),
            agents: agents.collect(),
            hosts,
            homes,
            revision: 0,
            last: 0,
        }
    }

    /// A private network with a subnet of each family, in which ports are 10.0.0.n and fd00::n: the same for all.
    pub fn network(&mut self) -> NetworkId {
        self.last += 1;
        let made = self.cloud.network(MTU);
        let mut network = self.cloud.intent.networks.remove(&made).unwrap();
        let id = NetworkId(Uuid::from_u128(made.0.as_u128() | u128::from(self.last)));
        network.id = id;
        network.network_type = NetworkType::Vxlan;
        network.segmentation_id = Some(4000 + u32::from(self.last));
        self.cloud.intent.networks.insert(id, network);
        self.cloud.subnet(id, "10.0.0.0/24");
        let v6 = self.cloud.subnet(id, "fd00::/64");
        let subnet = self.cloud.intent.subnets.get_mut(&v6).unwrap();
        subnet.ipv6_ra_mode = Some(Ipv6Mode::Dhcpv6Stateful);
        subnet.ipv6_address_mode = Some(Ipv6Mode::Dhcpv6Stateful);
        id
    }

    /// A group that allows everything.
    pub fn open_group(&mut self) -> SecurityGroupId {
        let both = [Direction::Egress, Direction::Ingress].map(Allow::both);
        self.cloud.group(true, &both.concat())
    }

    /// A port with 10.0.0.n and fd00::n, and a guest that has these addresses already.
    pub fn guest(
        &mut self,
        host: usize,
        network: NetworkId,
        n: u8,
        group: SecurityGroupId,
    ) -> Guest {
        let guest = self.bare_guest(host, network, n, group);
        let [v4, v6] = [&guest.addrs[0], &guest.addrs[1]];
        let run = |line: String| self.run_in(&guest, &line);
        run(format!("ip addr add {v4}/24 dev eth0"));
        run(format!("ip addr add {v6}/64 dev eth0 nodad"));
        guest
    }

    /// The same with a guest that has to ask.
    pub fn bare_guest(
        &mut self,
        host: usize,
        network: NetworkId,
        n: u8,
        group: SecurityGroupId,
    ) -> Guest {
        let texts = [format!("10.0.0.{n}"), format!("fd00::{n:x}")];
        let port = self
            .cloud
            .port(network, &texts.each_ref().map(String::as_str), &[group]);
        self.places.insert(port, host);
        let guest = Guest {
            host,
            name: format!("g-{}", self.places.len()),
            port,
            addrs: texts.iter().map(|text| text.parse().unwrap()).collect(),
        };
        self.plug(&guest);
        guest
    }

    /// Makes the guest's link.
    pub fn plug(&self, guest: &Guest) {
        let port = &self.cloud.intent.ports[&guest.port];
        let (link, mac, name) = (port.if_name(), port.mac_address, &guest.name);
        let host = &self.hosts[guest.host];
        host.run(&format!("ip netns add {name}"));
        host.run(&format!(
            "ip link add {link} type veth peer name eth0 address {mac} mtu {MTU} netns {name}"
        ));
        self.run_in(guest, "ip link set lo up");
        self.run_in(guest, "ip link set eth0 up");
    }

    /// Runs a command line in a guest.
    pub fn run_in(&self, guest: &Guest, line: &str) -> String {
        let line = format!("ip netns exec {} {line}", guest.name);
        self.hosts[guest.host].run(&line)
    }

    /// Whether a guest gets answers from an address.
    pub fn pings(&self, guest: &Guest, to: IpAddr, options: &str) -> bool {
        self.hosts[guest.host].tries(&format!(
            "ip netns exec {} ping -n -c 3 -i 0.05 -W 2 {options} {to}",
            guest.name
        ))
    }

    /// What one host is told.
    pub fn intent_of(&self, host: usize) -> Intent {
        let mut intent = self.cloud.clone().with_members();
        let here = |id: &PortId| self.places.get(id) == Some(&host);
        let all = std::mem::take(&mut intent.ports);
        for (id, port) in all {
            if here(&id) {
                intent.ports.insert(id, port);
            } else {
                let at = name(self.places[&id]).parse::<HostId>().unwrap();
                let remotes = intent.remotes.entry(port.network_id).or_default();
                let addrs = port.fixed_ips.iter().map(|fixed| fixed.ip_address);
                remotes.extend(addrs.map(|addr| (addr, at.clone())));
            }
        }
        for n in 0..self.hosts.len() {
            let endpoint = TunnelEndpoint {
                number: u32::try_from(n).unwrap() + 1,
                address: endpoint(n, self.family),
            };
            intent.hosts.insert(name(n).parse().unwrap(), endpoint);
        }
        intent
    }

    /// Tells all agents, and waits until all of it stands.
    pub fn tell(&mut self) {
        self.revision += 1;
        for host in 0..self.hosts.len() {
            let intent = self.intent_of(host);
            self.agents[host].tell(self.revision, &intent);
        }
        self.agents.iter().for_each(Agent::settles);
    }

    /// Kills a host's agent and starts another.
    pub fn restart(&mut self, host: usize) {
        let agent = self.agents.remove(host);
        agent.kill();
        let again = self.homes[host].start(&self.hosts[host]);
        self.agents.insert(host, again);
    }
}

/// A host's name.
pub fn name(n: usize) -> String {
    format!("host-{n}")
}

/// A host's address on the underlay.
pub fn endpoint(n: usize, family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => format!("192.0.2.{}", n + 1),
        Family::V6 => format!("2001:db8::{:x}", n + 1),
    };
    text.parse().unwrap()
}
