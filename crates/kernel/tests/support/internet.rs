//! Hosts with routers, joined with a network of others that knows only what they announce.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use hextet_kernel::netns::Handle;
use hextet_model::{
    intent::{Change, TunnelEndpoint},
    state::Netns,
};
use hextet_types::HostId;

use super::{
    private::Guest,
    run,
    tenant::{
        A, ANYWHERE, B, Machine, Outside, Station, addrs, external, group, network, network_id,
        one_host, outside,
    },
    try_run,
};

/// What is beyond all hosts.
pub const FAR: [&str; 2] = ["192.0.2.200", "2001:db8:ffff::200"];

pub fn far() -> [IpAddr; 2] {
    FAR.map(|text| text.parse().expect("an address"))
}

/// A network of others, to which hosts are joined: it knows the ways to what they announce, and to nothing else.
pub struct Internet(pub Machine);

impl Internet {
    pub fn start() -> Self {
        let net = Machine::start("internet");
        net.run(|_| {
            run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            for addr in FAR {
                run(&format!("ip addr add {addr} dev lo"));
            }
            // Whatever has no public source; what has, is for the tests to see.
            run("nft add table inet t");
            run("nft add chain inet t in '{ type filter hook prerouting priority -400; }'");
            run("nft add counter inet t private");
            run("nft add rule inet t in ip saddr 10.0.0.0/8 counter name private");
            run("nft add rule inet t in ip6 saddr fd00:2::/64 counter name private");
        });
        Internet(net)
    }

    /// The n-th host's link, and the host's default route.
    pub fn join(&self, host: &Machine, n: u8) {
        let link = format!("up{n}");
        let (far, near) = (self.0.thread(), link.clone());
        host.run(move |_| {
            run(&format!(
                "ip link add up0 type veth peer name {near} netns {far}"
            ));
            run(&format!(
                "ip link set up0 up && ip addr add 203.0.113.{n}/32 dev lo && \
                 ip addr add 2001:db8:f::{n}/128 dev lo"
            ));
            run("ip addr add fe80::a/64 dev up0 nodad");
        });
        self.0.run(move |_| {
            run(&format!("ip link set {link} up"));
            run(&format!("ip addr add fe80::b/64 dev {link} nodad"));
            run(&format!(
                "ip route add 203.0.113.{n} via inet6 fe80::a dev {link}"
            ));
            run(&format!(
                "ip route add 2001:db8:f::{n} via fe80::a dev {link}"
            ));
        });
        host.run(move |_| {
            run(&format!(
                "ip route add default src 203.0.113.{n} via inet6 fe80::b dev up0"
            ));
            run(&format!(
                "ip route add default via fe80::b dev up0 src 2001:db8:f::{n}"
            ));
        });
    }

    /// Takes over what a host announces now.
    pub fn learn(&self, host: &Machine, n: u8) {
        let prefixes: Vec<_> =
            host.run(|host| host.planner.state().announce.keys().copied().collect());
        self.0.run(move |_| {
            for command in ["ip", "ip -6"] {
                run(&format!("{command} route flush dev up{n} proto 99"));
            }
            for prefix in prefixes {
                let via = if prefix.addr().is_ipv4() {
                    "inet6 "
                } else {
                    ""
                };
                run(&format!(
                    "ip route add {prefix} via {via}fe80::a dev up{n} proto 99"
                ));
            }
        });
    }

    pub fn reaches(&self, addr: IpAddr) -> bool {
        self.0.run(move |_| {
            let from = FAR[usize::from(addr.is_ipv6())];
            try_run(&format!("ping -n -c 3 -i 0.05 -W 2 -I {from} {addr}")).is_ok()
        })
    }

    /// How many packets have come with a source that nobody may see.
    pub fn private_packets(&self) -> u64 {
        self.0.run(|_| {
            let text = run("nft list counter inet t private");
            let rest = text.split_once("packets ").expect("a counter").1;
            let number = rest.split_once(' ').expect("a number").0;
            number.parse().expect("a number")
        })
    }
}

/// What becomes of a ping, in the ping's words.
pub fn answer(guest: &Guest, to: IpAddr) -> String {
    run(&format!(
        "ip netns exec {} ping -n -c 2 -i 0.2 -W 1 {to} || true",
        guest.0
    ))
}

/// A host with A on network 1 and B on network 2, joined with the rest.
pub fn one() -> (Machine, Internet) {
    let machine = one_host();
    machine.run(|host| {
        host.apply(external(9, 1500));
    });
    let net = Internet::start();
    net.join(&machine, 1);
    (machine, net)
}

pub const GATEWAY: [&str; 2] = ["198.51.100.1", "2001:db8:e::1"];

pub fn edge(n: u16, networks: &[u16]) -> Outside {
    Outside {
        n,
        networks: networks.to_vec(),
        gateways: vec![GATEWAY.map(str::to_owned).to_vec()],
        ..Outside::default()
    }
}

/// A TCP connection from a guest, and as whose it is seen at the other end.
pub fn seen_as(guest: &str, server: &TcpListener, to: SocketAddr) -> Option<SocketAddr> {
    let netns = Handle::open(&Netns::Named(guest.to_owned())).expect("a guest");
    let stream = netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)));
    let stream = stream.expect("a namespace").ok()?;
    let (_, peer) = server.accept().expect("a connection");
    drop(stream);
    Some(peer)
}

impl Internet {
    /// Listens on all addresses of a family.
    pub fn listen(&self, port: u16) -> TcpListener {
        self.0
            .run(move |_| TcpListener::bind(("::", port)).expect("a listener"))
    }
}

/// An address of IPv4, also where a socket of IPv6 has it.
pub fn mapped(addr: SocketAddr) -> IpAddr {
    addr.ip().to_canonical()
}

pub fn name_of(host: &Machine, guest: usize) -> String {
    host.run(move |host| host.guests[guest].0.clone())
}

/// As whom a guest is seen by a server outside.
pub fn connect(host: &Machine, guest: usize, server: &TcpListener) -> Option<IpAddr> {
    let name = name_of(host, guest);
    let port = server.local_addr().expect("an address").port();
    let to = SocketAddr::new(far()[0], port);
    let server = server.try_clone().expect("a listener");
    let seen = host.run(move |_| seen_as(&name, &server, to));
    seen.map(mapped)
}

/// Two hosts of which the first is the gateway host; A is on the first, B and C, of one network, on the second.
pub fn two(way: &Outside) -> ([Machine; 2], Internet) {
    let net = Internet::start();
    let machines = [Machine::start("h1"), Machine::start("h2")];
    let stations = [vec![A], vec![B, C]];
    for ((machine, own), n) in machines.iter().zip(stations.clone()).zip(1u8..) {
        net.join(machine, n);
        let others = stations[usize::from(n == 1)].clone();
        let way = way.clone();
        machine.run(move |host| {
            host.apply([1, 2].into_iter().flat_map(|n: u32| endpoint(n)));
            host.apply(network(1, 1430));
            host.apply(network(2, 1430));
            host.apply(external(9, 1500));
            host.apply([group(0, &ANYWHERE)]);
            let there = if n == 1 { "h2" } else { "h1" };
            host.apply(others.into_iter().map(|s| {
                let addrs = addrs(s.network, s.n).into_iter();
                let there: HostId = there.parse().expect("a name");
                let all = addrs.map(|addr| (addr, there.clone())).collect();
                Change::PutRemotes(network_id(s.network), all)
            }));
            host.plug(&own);
            host.apply([outside(&way)]);
        });
        net.learn(machine, n);
    }
    (machines, net)
}

pub fn endpoint(n: u32) -> Option<Change> {
    let address = format!("2001:db8:f::{n}").parse().ok()?;
    let host = format!("h{n}").parse().ok()?;
    let number = n;
    Some(Change::PutHost(host, TunnelEndpoint { number, address }))
}

pub const C: Station = Station {
    network: 2,
    n: 12,
    group: 0,
};
pub const FLOATING: [&str; 2] = ["198.51.100.7", "198.51.100.8"];

pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
