//! Hosts with private networks and routers, planned and real: each host is a thread with namespaces of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::mpsc,
    thread,
};

use hextet_model::{
    intent::{Change, FloatingIp, GatewayHost, MeterRule, PortForwarding, TunnelEndpoint},
    neutron::{ForwardedProtocol, RouterGateway},
    plan::{HostConfig, Planner},
    state::Key,
};
use hextet_types::{
    FloatingIpId, HostId, IfName, Mac, MeteringLabelId, NetworkId, PortId, RouterId,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Host,
    private::{Guest, Port},
    run,
};

pub fn read<T: DeserializeOwned>(mut value: Value) -> T {
    let common = json!({
        "project_id": "p", "revision_number": 0, "admin_state_up": true, "status": "DOWN",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    });
    let fields = value.as_object_mut().expect("an object");
    for (key, value) in common.as_object().expect("an object") {
        fields.entry(key).or_insert(value.clone());
    }
    serde_json::from_value(value).expect("a resource")
}

/// What tells one thing of a kind from another. Namespaces are named by the end, links by the beginning.
pub fn id(kind: u16, n: u16) -> String {
    format!("{kind:04x}{n:04x}-0000-4000-8000-0000{kind:04x}{n:04x}")
}

pub fn subnet_id(network: u16, v6: bool) -> String {
    id(2, 2 * network + u16::from(v6))
}

pub fn addrs(network: u16, station: u16) -> [IpAddr; 2] {
    let texts = [
        format!("10.0.{network}.{station}"),
        format!("fd00:{network}::{station}"),
    ];
    texts.map(|text| text.parse().expect("an address"))
}

pub fn fixed_ips(network: u16, station: u16) -> Value {
    let one = |addr: IpAddr| json!({ "subnet_id": subnet_id(network, addr.is_ipv6()), "ip_address": addr });
    addrs(network, station).map(one).into()
}

/// A network with a subnet of each family, whose gateways are station 1.
pub fn network(n: u16, mtu: u16) -> Vec<Change> {
    let network = json!({
        "id": id(1, n), "shared": false, "router:external": false, "mtu": mtu,
        "port_security_enabled": true, "provider:network_type": "vxlan",
        "provider:segmentation_id": 700 + n,
    });
    let mut changes = vec![Change::PutNetwork(Box::new(read(network)))];
    for gateway in addrs(n, 1) {
        let cidr = match gateway {
            IpAddr::V4(_) => format!("10.0.{n}.0/24"),
            IpAddr::V6(_) => format!("fd00:{n}::/64"),
        };
        let subnet = json!({
            "id": subnet_id(n, gateway.is_ipv6()), "network_id": id(1, n), "cidr": cidr,
            "gateway_ip": gateway, "allocation_pools": [], "enable_dhcp": true,
        });
        changes.push(Change::PutSubnet(Box::new(read(subnet))));
    }
    changes
}

/// A group whose members may send anything, and are sent what comes from these prefixes.
pub fn group(n: u16, from: &[&str]) -> Change {
    let mut rules = serde_json::Map::new();
    let sides = [("egress", "0.0.0.0/0"), ("egress", "::/0")].into_iter();
    let sides = sides.chain(from.iter().map(|prefix| ("ingress", *prefix)));
    for ((direction, prefix), i) in sides.zip(0..) {
        let family = if prefix.contains(':') { "IPv6" } else { "IPv4" };
        let rule = json!({
            "id": id(4, 16 * n + i), "security_group_id": id(3, n), "project_id": "p", "description": "",
            "direction": direction, "ethertype": family, "remote_ip_prefix": prefix, "revision_number": 0,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        rules.insert(id(4, 16 * n + i), rule);
    }
    let group = read::<Value>(json!({ "id": id(3, n), "stateful": true, "shared": false }));
    let whole = json!({ "group": group, "rules": rules });
    Change::PutGroup(Box::new(serde_json::from_value(whole).expect("a group")))
}

/// A workload: station of a network, in a group.
#[derive(Clone, Copy)]
pub struct Station {
    pub network: u16,
    pub n: u16,
    pub group: u16,
}

impl Station {
    pub fn mac(self) -> Mac {
        Mac::new([2, 0, 0, 0, self.network as u8, self.n as u8])
    }

    pub fn id(self) -> PortId {
        let id = id(0x1000 + self.network, self.n);
        id.parse().expect("an id")
    }

    pub fn port(self) -> Change {
        let port = json!({
            "id": self.id(), "network_id": id(1, self.network), "mac_address": self.mac(),
            "fixed_ips": fixed_ips(self.network, self.n), "security_groups": [id(3, self.group)],
            "port_security_enabled": true, "device_owner": "compute:nova",
        });
        Change::PutPort(Box::new(read(port)))
    }

    /// The workload itself, with the network's gateways as its own.
    pub fn plug(self) -> Guest {
        let guest = Guest::plug(&Port {
            tap: IfName::for_port(self.id()).to_string(),
            mac: self.mac(),
            addrs: addrs(self.network, self.n).into(),
        });
        guest.run(&format!(
            "ip route add default via {}",
            addrs(self.network, 1)[0]
        ));
        guest.run("ip -6 route add default via fe80::1 dev eth0");
        guest
    }
}

/// A router with the gateways of networks, and extra routes.
pub fn router(n: u16, networks: &[u16], routes: &[(&str, IpAddr)]) -> Change {
    let routes = routes.iter();
    let routes: Vec<_> = routes
        .map(|(to, by)| json!({ "destination": to, "nexthop": by }))
        .collect();
    let itself = read::<Value>(json!({ "id": id(5, n), "enable_snat": true, "routes": routes }));
    let interfaces = networks.iter().map(|network| {
        let interface = json!({
            "network_id": id(1, *network), "mac_address": Mac::new([2, 1, 0, 0, n as u8, *network as u8]),
            "fixed_ips": fixed_ips(*network, 1), "admin_state_up": true,
        });
        (id(0x2000 + n, *network), interface)
    });
    let interfaces: serde_json::Map<_, _> = interfaces.collect();
    let whole = json!({ "router": itself, "interfaces": interfaces });
    Change::PutRouter(Box::new(serde_json::from_value(whole).expect("a router")))
}

pub fn network_id(n: u16) -> NetworkId {
    id(1, n).parse().expect("an id")
}

pub fn router_id(n: u16) -> RouterId {
    id(5, n).parse().expect("an id")
}

/// A host: a planner, a kernel, and workloads.
pub struct Compute {
    pub planner: Planner,
    pub kernel: Host,
    pub guests: Vec<Guest>,
}

impl Compute {
    pub fn open(name: &str) -> Self {
        let name = name.parse().expect("a name");
        Compute {
            planner: Planner::new(HostConfig::new(name)),
            kernel: Host::open(),
            guests: Vec::new(),
        }
    }

    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<Key> {
        let changed = self.planner.apply_all(changes);
        self.kernel.reconcile(&self.planner.state().objects);
        for cut in changed.cut {
            let table = self.kernel.kernel.connections(&cut.netns).expect("a table");
            if let Some(mut table) = table {
                table
                    .cut_translated(cut.end, cut.ports)
                    .expect("connections are cut");
            }
        }
        changed.objects
    }

    pub fn plug(&mut self, stations: &[Station]) {
        self.guests.extend(stations.iter().map(|s| s.plug()));
        self.apply(stations.iter().map(|s| s.port()));
    }
}

pub type Work = Box<dyn FnOnce(&mut Compute) + Send>;

/// A host with namespaces of its own, also those that have names, on a thread.
pub struct Machine {
    thread: i32,
    work: Option<mpsc::Sender<Work>>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Machine {
    pub fn start(name: &'static str) -> Self {
        let (work, to_do) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::channel();
        let worker = thread::spawn(move || {
            let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
            unshare(apart).expect("tests of the kernel run as root");
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).expect("mounts of one's own");
            std::fs::create_dir_all("/run/netns").expect("a directory");
            mount(
                Some("none"),
                "/run/netns",
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )
            .expect("names of one's own");
            run("ip link set lo up");
            let mut compute = Compute::open(name);
            tell.send(gettid().as_raw()).expect("somebody listens");
            for work in to_do {
                work(&mut compute);
            }
        });
        let thread = told.recv().expect("the host starts");
        Machine {
            thread,
            work: Some(work),
            worker: Some(worker),
        }
    }

    /// By which its namespace is known to `ip`.
    pub fn thread(&self) -> i32 {
        self.thread
    }

    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Compute) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        let work: Work = Box::new(move |compute| {
            let _ = tell.send(work(compute));
        });
        let worker = self.work.as_ref().expect("it runs");
        worker.send(work).expect("it runs");
        told.recv().expect("the host's thread has panicked")
    }

    /// Joins two by a link, and gives each its address there.
    pub fn join(&self, other: &Machine, addrs: [&'static str; 2]) {
        let (peer, [own, others]) = (other.thread, addrs);
        self.run(move |_| {
            run(&format!(
                "ip link add up0 type veth peer name up0 netns {peer}"
            ));
            run(&format!(
                "ip link set up0 up && ip addr add {own} dev up0 nodad"
            ));
        });
        other.run(move |_| {
            run(&format!(
                "ip link set up0 up && ip addr add {others} dev up0 nodad"
            ));
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

pub const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

pub const A: Station = Station {
    network: 1,
    n: 10,
    group: 0,
};
pub const B: Station = Station {
    network: 2,
    n: 11,
    group: 0,
};

pub fn one_host() -> Machine {
    let machine = Machine::start("h1");
    machine.run(|host| {
        host.apply(network(1, 1430));
        host.apply(network(2, 1430));
        host.apply([group(0, &ANYWHERE)]);
        host.plug(&[A, B]);
    });
    machine
}

/// A router's way outside, with what differs between tests.
#[derive(Clone, Default)]
pub struct Outside {
    pub n: u16,
    pub networks: Vec<u16>,
    /// The addresses of each gateway, on network 9.
    pub gateways: Vec<Vec<String>>,
    /// The gateway host.
    pub host: Option<String>,
    pub published: Vec<String>,
    pub no_snat: bool,
    /// What is metered, by labels.
    pub meters: BTreeMap<MeteringLabelId, BTreeSet<MeterRule>>,
    /// Whether several gateways share the work.
    pub ecmp: bool,
}

/// A network that routers have gateways on.
pub fn external(n: u16, mtu: u16) -> Vec<Change> {
    let network = json!({
        "id": id(1, n), "shared": true, "router:external": true, "mtu": mtu,
        "port_security_enabled": true, "provider:network_type": "routed",
    });
    vec![Change::PutNetwork(Box::new(read(network)))]
}

/// A router with the gateways of networks, and a way outside.
pub fn outside(way: &Outside) -> Change {
    let Change::PutRouter(mut router) = router(way.n, &way.networks, &[]) else {
        panic!("a router")
    };
    router.router.enable_snat = !way.no_snat;
    router.router.enable_default_route_ecmp = way.ecmp;
    router.published = way
        .published
        .iter()
        .map(|prefix| prefix.parse().expect("a prefix"))
        .collect();
    router.meters = way.meters.clone();
    router.gateway_host = way.host.as_ref().map(|host| GatewayHost {
        host: host.parse().expect("a name"),
        segment: 900 + u32::from(way.n),
        generation: 1,
    });
    for (gateway, i) in way.gateways.iter().zip(0..) {
        let port = id(0x3000 + way.n, i).parse().expect("an id");
        let fixed: Vec<_> = gateway
            .iter()
            .map(|addr| json!({ "subnet_id": id(2, 90), "ip_address": addr }))
            .collect();
        let interface = json!({
            "network_id": id(1, 9), "mac_address": Mac::new([2, 2, 0, 0, way.n as u8, i as u8]),
            "fixed_ips": fixed, "admin_state_up": true,
        });
        let interface = serde_json::from_value(interface).expect("an interface");
        router.gateways.insert(port, interface);
        router.router.gateways.push(RouterGateway {
            network_id: network_id(9),
            port_id: port,
            qos_policy_id: None,
        });
    }
    Change::PutRouter(router)
}

/// A floating IP of a router, for the IPv4 address of a station.
pub fn floating_ip(n: u16, router: u16, addr: &str, station: Station) -> Change {
    let [IpAddr::V4(inside), _] = addrs(station.network, station.n) else {
        panic!("IPv4 comes first")
    };
    Change::PutFloatingIp(Box::new(FloatingIp {
        id: floating_id(n),
        router_id: router_id(router),
        floating_ip_address: addr.parse().expect("an address"),
        network_id: network_id(station.network),
        fixed_ip_address: inside,
        qos_policy_id: None,
    }))
}

pub fn floating_id(n: u16) -> FloatingIpId {
    id(6, n).parse().expect("an id")
}

/// TCP ports of an address outside that lead to a station's.
pub fn forwarding(
    n: u16,
    router: u16,
    (addr, ports): (&str, &str),
    (station, inside_ports): (Station, &str),
) -> Change {
    let [IpAddr::V4(inside), _] = addrs(station.network, station.n) else {
        panic!("IPv4 comes first")
    };
    Change::PutPortForwarding(Box::new(PortForwarding {
        id: id(7, n).parse().expect("an id"),
        router_id: router_id(router),
        floating_ip_address: addr.parse().expect("an address"),
        protocol: ForwardedProtocol::Tcp,
        external_port_range: ports.parse().expect("ports"),
        network_id: network_id(station.network),
        internal_ip_address: inside,
        internal_port_range: inside_ports.parse().expect("ports"),
    }))
}

pub fn host(n: u8) -> HostId {
    format!("h{n}").parse().expect("a name")
}

/// Where two hosts' tunnels may end.
pub const UNDERLAY: [&str; 2] = ["2001:db8::1/64", "2001:db8::2/64"];

/// Two hosts on one private network, and what each is told of the other's workloads; their own are not there yet.
pub fn two_hosts(at: [&'static str; 2], stations: [&[Station]; 2]) -> [Machine; 2] {
    let machines = [Machine::start("h1"), Machine::start("h2")];
    machines[0].join(&machines[1], at);
    for (machine, own) in machines.iter().zip([0_usize, 1]) {
        let others = stations[1 - own].to_vec();
        machine.run(move |compute| {
            compute.apply(network(1, 1300));
            compute.apply([group(0, &ANYWHERE)]);
            for (n, at) in [1_u8, 2].into_iter().zip(at) {
                let address = at.split_once('/').expect("a prefix").0;
                let endpoint = TunnelEndpoint {
                    number: n.into(),
                    address: address.parse().expect("an address"),
                };
                compute.apply([Change::PutHost(host(n), endpoint)]);
            }
            let name = host(2 - own as u8);
            let remotes = others.iter().flat_map(|s| addrs(1, s.n));
            let remotes = remotes.map(|addr| (addr, name.clone()));
            compute.apply([Change::PutRemotes(network_id(1), remotes.collect())]);
        });
    }
    machines
}
