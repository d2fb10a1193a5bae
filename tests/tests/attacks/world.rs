//! Where the attacks take place: a host with five ports on two networks like those of a public cloud, of
//! which one is the attacker's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_model::{
    neutron::{Direction, Protocol},
    plan::HostConfig,
};
use hextet_tests::{
    cloud::{Allow, Cloud},
    defence::Defence,
    hypervisor::{Hypervisor, internet, run, set_sysctl, wait_for_address},
    packet::{Ends, Ether, Ip, MARKER, Payload, ether_ip, is_marked, udp},
    wire::Frame,
};
use hextet_types::{Family, IfName, Mac, PortId, SecurityGroupId, SubnetId};

/// The port of the victim that its groups leave open to all.
pub const OPEN: u16 = 7;
/// A port of the victim that they leave closed.
pub const CLOSED: u16 = 5000;
/// The TCP port that they leave open.
pub const OPEN_TCP: u16 = 80;
/// The address to which NAT44 translates.
pub const NAT_SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
/// Connections that a private port may have open.
pub const NAT_LIMIT: u16 = 20;

/// Who is there.
#[derive(Clone, Copy)]
pub struct Cast {
    /// Public addresses; may send anything, is sent nothing but answers.
    pub attacker: PortId,
    /// Public addresses; UDP 7, TCP 80 and pings are open.
    pub victim: PortId,
    /// As the victim.
    pub bystander: PortId,
    /// Public IPv6, private IPv4.
    pub private: PortId,
    /// As the private one.
    pub mate: PortId,
    /// The victims' group.
    pub web: SecurityGroupId,
    /// The private IPv4 subnet.
    pub private_v4: SubnetId,
    /// The attacker's Ethernet address.
    pub attacker_mac: Mac,
}

/// What the world is made of.
pub struct Setting {
    /// The cloud.
    pub cloud: Cloud,
    /// The host.
    pub config: HostConfig,
    /// The ports.
    pub cast: Cast,
    /// Settings that the host had before hextet came.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// Commands of ip(8) for the host before hextet comes.
    pub links: Vec<&'static str>,
    /// Commands of ip(8) once all stands; `PORT` is the attacker's link.
    pub late: Vec<&'static str>,
    /// Whether the attacker's port is one that this host has been told of.
    pub bound: bool,
}

impl Setting {
    /// The usual.
    pub fn new() -> Setting {
        let mut cloud = Cloud::new();
        let dual = cloud.network(1500);
        cloud.subnet(dual, "2001:db8:1::/64");
        let pool = cloud.subnet(dual, "198.51.100.0/24");
        let ipv6 = cloud.network(1500);
        cloud.subnet(ipv6, "2001:db8:2::/64");
        let private_v4 = cloud.subnet(ipv6, "10.64.0.0/16");
        let source = NAT_SOURCE.to_string();
        cloud.translate(private_v4, pool, &[source.as_str()], NAT_LIMIT.into());
        let open = cloud.group(true, &Allow::both(Direction::Egress));
        let web = cloud.group(true, &web_rules());
        let port = |cloud: &mut Cloud, n, group| {
            let addresses = [format!("2001:db8:1::{n:x}"), format!("198.51.100.{n}")];
            cloud.port(dual, &addresses.each_ref().map(String::as_str), &[group])
        };
        let attacker = port(&mut cloud, 10, open);
        let victim = port(&mut cloud, 11, web);
        let bystander = port(&mut cloud, 12, web);
        let private = cloud.port(ipv6, &["2001:db8:2::a", "10.64.0.10"], &[open]);
        let mate = cloud.port(ipv6, &["2001:db8:2::b", "10.64.0.11"], &[open]);
        let attacker_mac = cloud.port_mut(attacker).mac_address;
        Setting {
            cloud,
            config: HostConfig::new("compute-1".parse().unwrap()),
            cast: Cast {
                attacker,
                victim,
                bystander,
                private,
                mate,
                web,
                private_v4,
                attacker_mac,
            },
            sysctls: Vec::new(),
            links: Vec::new(),
            late: Vec::new(),
            bound: true,
        }
    }
}

/// What the victims' group allows.
pub fn web_rules() -> Vec<Allow> {
    let mut rules = Allow::both(Direction::Egress).to_vec();
    for family in Family::BOTH {
        let ingress = Allow::all(Direction::Ingress, family);
        let (icmp, echo) = match family {
            Family::V4 => (Protocol::ICMP, 8),
            Family::V6 => (Protocol::ICMPV6, 128),
        };
        rules.push(ingress.protocol(Protocol::UDP).ports(OPEN, OPEN));
        rules.push(ingress.protocol(Protocol::TCP).ports(OPEN_TCP, OPEN_TCP));
        rules.push(ingress.protocol(icmp).ports(echo, 0));
    }
    rules
}

/// The host with its ports, and what an attacker knows of it.
pub struct World {
    /// The host.
    pub host: Hypervisor,
    /// Who is there.
    pub cast: Cast,
    /// The Ethernet address of the host's end of the attacker's port.
    gateway: Mac,
}

impl World {
    /// Plugs all ports and lets the host settle, without those defences.
    pub fn new(setting: Setting, left_out: &[Defence]) -> World {
        let Setting {
            cloud,
            config,
            cast,
            sysctls,
            links,
            late,
            bound,
        } = setting;
        let mut intent = cloud.with_members();
        if !bound {
            intent.ports.remove(&cast.attacker);
        }
        let mut host = Hypervisor::new(config, &intent, left_out);
        for (path, value) in sysctls {
            set_sysctl(path, value);
        }
        run("ip", &["-batch", "-"], &(links.join("\n") + "\n"));
        let Cast {
            attacker,
            victim,
            bystander,
            private,
            mate,
            ..
        } = cast;
        for port in [attacker, victim, bystander, private, mate] {
            host.plug(port);
        }
        host.settle();
        let late = late
            .join("\n")
            .replace("PORT", IfName::for_port(attacker).as_str());
        run("ip", &["-batch", "-"], &(late.clone() + "\n"));
        if late.contains("fe80::1") {
            wait_for_address("fe80::1");
        }
        let gateway = host.host_end(attacker);
        World {
            host,
            cast,
            gateway,
        }
    }

    /// The attacker's own address.
    pub fn me(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)),
            Family::V6 => IpAddr::V6("2001:db8:1::a".parse().unwrap()),
        }
    }

    /// The victim's address.
    pub fn victim(&self, family: Family) -> IpAddr {
        self.host.address(self.cast.victim, family)
    }

    /// The bystander's address.
    pub fn bystander(&self, family: Family) -> IpAddr {
        self.host.address(self.cast.bystander, family)
    }

    /// The attacker's Ethernet address.
    pub fn my_mac(&self) -> Mac {
        self.cast.attacker_mac
    }

    /// The attacker's link-local address.
    pub fn my_link_local(&self) -> Ipv6Addr {
        self.my_mac().link_local()
    }

    /// From the attacker to the victim.
    pub fn to_victim(&self, family: Family) -> Ends {
        Ends::new(self.me(family), self.victim(family))
    }

    /// From the attacker to the Internet.
    pub fn to_internet(&self, family: Family) -> Ends {
        Ends::new(self.me(family), internet(family))
    }

    /// A frame from the attacker to its gateway.
    pub fn frame(&self, packet: &[u8]) -> Frame {
        ether_ip(
            Ether {
                src: self.my_mac(),
                dst: self.gateway,
            },
            packet,
        )
    }

    /// A packet with nothing odd about it, in a frame from the attacker.
    pub fn plain(&self, ends: Ends, payload: &Payload) -> Frame {
        self.frame(&Ip::default().packet(ends, payload))
    }

    /// The same packet to the gateway, to the victim itself, and to all: on a layer 2 that was one, some of
    /// them would get through.
    pub fn by_all_ways(&self, packet: &[u8]) -> Vec<Frame> {
        let ways = [
            self.gateway,
            self.host.mac(self.cast.victim),
            Mac::BROADCAST,
        ];
        ways.map(|dst| {
            ether_ip(
                Ether {
                    src: self.my_mac(),
                    dst,
                },
                packet,
            )
        })
        .to_vec()
    }

    /// Sends from the attacker's port.
    pub fn send(&mut self, frame: &[u8]) {
        self.host.send(self.cast.attacker, frame);
    }

    /// Sends a packet from another port than the attacker's, as its owner would.
    pub fn send_as(&mut self, port: PortId, packet: &[u8]) {
        let frame = ether_ip(self.host.to_gateway(port), packet);
        self.host.send(port, &frame);
    }

    /// Whether the victim gets such a frame.
    pub fn victim_has(&mut self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.host.port(self.cast.victim).has(is_it)
    }

    /// Whether the victim gets anything of the attacker's.
    pub fn victim_is_hit(&mut self) -> bool {
        self.victim_has(is_marked)
    }

    /// Whether anything of the attacker's leaves by the uplink.
    pub fn uplink_is_hit(&mut self) -> bool {
        self.host.uplink.has(is_marked)
    }

    /// Whether the attacker gets such a frame.
    pub fn attacker_has(&mut self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.host.port(self.cast.attacker).has(is_it)
    }

    /// Whether what no defence is meant to stop gets through: a datagram to the port that the victim leaves
    /// open, and one to the Internet.
    pub fn works(&mut self, family: Family) -> bool {
        let [to_victim, out] = [self.to_victim(family), self.to_internet(family)]
            .map(|ends| self.plain(ends, &marked_datagram(ends)));
        self.send(&to_victim);
        self.send(&out);
        self.victim_is_hit() && self.uplink_is_hit()
    }

    /// Neighbours of the host by the attacker's port that nobody entered by hand.
    pub fn learned_neighbours(&self) -> Vec<String> {
        let name = IfName::for_port(self.cast.attacker);
        let table = run("ip", &["neigh", "show", "dev", name.as_str()], "");
        let learned = table.lines().filter(|line| !line.contains("PERMANENT"));
        learned.map(str::to_owned).collect()
    }
}

/// What every port sees as its gateway's.
pub const GATEWAY_MAC: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 1]);

/// A datagram with the marker to the port that the victim leaves open.
pub fn marked_datagram(ends: Ends) -> Payload {
    udp(ends, 4000, OPEN, MARKER)
}
