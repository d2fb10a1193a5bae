//! A private network on a host, as a planner would have it: a namespace with ports, each joined by a pair with a
//! workload's link in the main namespace, and a VXLAN device.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_model::state::{
    Address, Chain, ChainHook, EdgeProgram, Fdb, Field, Hook, Key, KeyPart, Namespace, Neighbour,
    Netns, NextHop, NftRule, Object, Patch, PktType, Policy, Route, RouteKey, RouteKind, Source,
    Statement, Sysctl, Value, Verdict, Veth, Vxlan, marks,
};
use hextet_types::{Mac, Prefix};

use super::{GATEWAY, Host, name, run, states, try_run, unique};

/// Names of namespaces that have to be gone when the test is over.
pub struct Names(Vec<String>);

impl Names {
    pub fn none() -> Self {
        Names(Vec::new())
    }

    pub fn unique(&mut self) -> String {
        let name = unique("hx-");
        self.0.push(name.clone());
        name
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = hextet_kernel::netns::delete(name);
        }
    }
}

/// A workload of a network.
#[derive(Clone)]
pub struct Port {
    /// Of its link, in the main namespace.
    pub tap: String,
    pub mac: Mac,
    pub addrs: Vec<IpAddr>,
}

impl Port {
    /// The port of that number: 10.0.0.n and fd00::n.
    pub fn nth(tap: &str, n: u8) -> Self {
        let texts = [format!("10.0.0.{n}"), format!("fd00::{n}")];
        Port {
            tap: tap.to_owned(),
            mac: Mac::new([2, 0, 0, 0, 0, n]),
            addrs: texts.map(|text| text.parse().expect("an address")).to_vec(),
        }
    }

    /// The near end of its pair, and the port itself.
    pub fn ends(&self) -> (String, String) {
        (format!("o{}", self.tap), format!("p{}", self.tap))
    }
}

/// Everything about one port, in a network's namespace.
pub fn port(network: &str, port: &Port) -> Vec<Object> {
    let netns = || Netns::Named(network.to_owned());
    let (outer, inner) = port.ends();
    let mut objects = vec![
        Object::Veth(Veth {
            netns: netns(),
            name: name(&inner),
            mac: GATEWAY,
            mtu: 1430,
            peer_netns: Netns::Main,
            peer: name(&outer),
            peer_mac: Mac::new([2, 0, 0, 0, 1, 0]),
            peer_group: 0,
        }),
        Object::EdgeProgram(EdgeProgram {
            netns: netns(),
            link: name(&inner),
        }),
        Object::Patch(Patch {
            netns: netns(),
            tap: name(&port.tap),
            outer: name(&outer),
        }),
    ];
    for addr in &port.addrs {
        objects.push(Object::Source(Source {
            netns: netns(),
            link: name(&inner),
            mac: port.mac,
            addr: *addr,
        }));
        objects.push(neighbour(network, &inner, *addr, port.mac));
        objects.push(route(network, *addr, None, &inner));
    }
    objects
}

/// The namespace with what all its ports need.
pub fn network(name_of: &str) -> Vec<Object> {
    let netns = || Netns::Named(name_of.to_owned());
    let setting = |path: &str| {
        Object::Sysctl(Sysctl {
            netns: netns(),
            path: path.to_owned(),
            value: "1".to_owned(),
        })
    };
    let marked = Statement::Compare(
        KeyPart {
            field: Field::Mark,
            mask: Some(marks::SOURCE_CHECKED.to_be_bytes().to_vec()),
        },
        hextet_model::state::CmpOp::Eq,
        Value::U32(marks::SOURCE_CHECKED),
    );
    let admitted = Statement::SetMark {
        value: marks::ADMITTED,
        mask: marks::ADMITTED,
    };
    vec![
        Object::Namespace(Namespace {
            name: name_of.to_owned(),
        }),
        setting("net/ipv4/ip_forward"),
        setting("net/ipv6/conf/all/forwarding"),
        chain(
            netns(),
            "prerouting",
            Hook::Prerouting,
            vec![marked, Statement::SetPktType(PktType::Host)],
        ),
        chain(netns(), "forward", Hook::Forward, vec![admitted]),
        Object::Address(Address {
            netns: netns(),
            link: name("lo"),
            addr: "169.254.0.1".parse().expect("an address"),
            prefix_len: 32,
        }),
    ]
}

fn chain(netns: Netns, name: &str, hook: Hook, mut statements: Vec<Statement>) -> Object {
    statements.push(Statement::Verdict(Verdict::Accept));
    let chain = Chain {
        name: name.into(),
        hook: Some(ChainHook {
            hook,
            priority: if hook == Hook::Prerouting { -300 } else { 0 },
            policy: Policy::Accept,
            nat: false,
        }),
        rules: vec![NftRule {
            statements,
            comment: None,
        }],
    };
    Object::Chain(netns, chain)
}

/// The network's way to other hosts.
pub fn vxlan(network: &str, vni: u32, local: &str) -> Object {
    Object::Vxlan(Vxlan {
        netns: Netns::Named(network.to_owned()),
        name: name("vxlan"),
        vni,
        local: local.parse().expect("an address"),
        port: 4789,
        mtu: 1430,
        mac: mac_of(local),
    })
}

/// Of a host's VXLAN devices.
pub fn mac_of(local: &str) -> Mac {
    let last = local.chars().last().and_then(|c| c.to_digit(16));
    Mac::new([2, 0xfe, 0, 0, 0, last.expect("a digit") as u8])
}

/// What leads to another host, and to a port there.
pub fn remote(network: &str, host: &str, ports: &[Port]) -> Vec<Object> {
    let mac = mac_of(host);
    let last = mac.octets()[5];
    let via: IpAddr = format!("fe80::{last:x}").parse().expect("an address");
    let mut objects = vec![
        Object::Fdb(Fdb {
            netns: Netns::Named(network.to_owned()),
            link: name("vxlan"),
            mac,
            dst: host.parse().expect("an address"),
        }),
        neighbour(network, "vxlan", via, mac),
    ];
    for addr in ports.iter().flat_map(|port| &port.addrs) {
        objects.push(route(network, *addr, Some(via), "vxlan"));
    }
    objects
}

fn neighbour(network: &str, link: &str, addr: IpAddr, mac: Mac) -> Object {
    Object::Neighbour(Neighbour {
        netns: Netns::Named(network.to_owned()),
        link: name(link),
        addr,
        mac,
    })
}

fn route(network: &str, to: IpAddr, via: Option<IpAddr>, link: &str) -> Object {
    Object::Route(Route {
        key: RouteKey {
            netns: Netns::Named(network.to_owned()),
            table: 254,
            prefix: Prefix::host(to),
            source: None,
            metric: 0,
        },
        kind: RouteKind::Unicast(vec![NextHop {
            via,
            link: name(link),
        }]),
        prefsrc: None,
    })
}

/// A host with networks.
pub struct Cloud {
    pub host: Host,
    pub desired: BTreeMap<Key, Object>,
}

impl Cloud {
    /// Of the thread's namespace.
    pub fn open() -> Self {
        Cloud {
            host: Host::open(),
            desired: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.desired.extend(states(objects));
    }

    pub fn reconcile(&mut self) -> usize {
        self.host.reconcile(&self.desired)
    }

    pub fn todo(&mut self) -> Vec<String> {
        self.host.todo(&self.desired)
    }
}

/// A container as a workload: its end of a veth is `eth0` in a namespace of its own.
pub struct Guest(pub String);

impl Guest {
    /// Makes one with the port's addresses; the host's end has the port's name and is up.
    pub fn plug(port: &Port) -> Self {
        let guest = Guest(unique("hxguest"));
        hextet_kernel::netns::create(&guest.0).expect("a namespace");
        run(&format!(
            "ip link add {} address {GATEWAY} mtu 1430 type veth peer name eth0 address {} mtu 1430 netns {}",
            port.tap, port.mac, guest.0
        ));
        run(&format!("ip link set {} up", port.tap));
        guest.run("ip link set lo up");
        guest.run("ip link set eth0 up");
        for addr in &port.addrs {
            let (len, more) = if addr.is_ipv4() {
                (24, "")
            } else {
                (64, " nodad")
            };
            guest.run(&format!("ip addr add {addr}/{len} dev eth0{more}"));
        }
        guest
    }

    pub fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }

    /// Whether an address answers.
    pub fn reaches(&self, addr: &IpAddr, size: u16) -> bool {
        let ping = format!(
            "ip netns exec {} ping -n -c 3 -i 0.05 -W 2 -s {size} {addr}",
            self.0
        );
        try_run(&ping).is_ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = hextet_kernel::netns::delete(&self.0);
    }
}
