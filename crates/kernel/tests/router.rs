//! Planned routers in real kernels: packets between private networks, on one host and between two.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hextet_kernel::{Scope, netns::Handle};
use hextet_model::{
    intent::{Change, Intent, TunnelEndpoint},
    plan::{HostConfig, Planner},
    state::{Key, Netns},
};
use hextet_types::{HostId, IfName, Mac, NetworkId, PortId, RouterId};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{
    Host,
    private::{Guest, Port},
    run, try_run,
};

fn read<T: DeserializeOwned>(mut value: Value) -> T {
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
fn id(kind: u16, n: u16) -> String {
    format!("{kind:04x}{n:04x}-0000-4000-8000-0000{kind:04x}{n:04x}")
}

fn subnet_id(network: u16, v6: bool) -> String {
    id(2, 2 * network + u16::from(v6))
}

fn addrs(network: u16, station: u16) -> [IpAddr; 2] {
    let texts = [
        format!("10.0.{network}.{station}"),
        format!("fd00:{network}::{station}"),
    ];
    texts.map(|text| text.parse().expect("an address"))
}

fn fixed_ips(network: u16, station: u16) -> Value {
    let one = |addr: IpAddr| json!({ "subnet_id": subnet_id(network, addr.is_ipv6()), "ip_address": addr });
    addrs(network, station).map(one).into()
}

/// A network with a subnet of each family, whose gateways are station 1.
fn network(n: u16, mtu: u16) -> Vec<Change> {
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
fn group(n: u16, from: &[&str]) -> Change {
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
struct Station {
    network: u16,
    n: u16,
    group: u16,
}

impl Station {
    fn mac(self) -> Mac {
        Mac::new([2, 0, 0, 0, self.network as u8, self.n as u8])
    }

    fn id(self) -> PortId {
        let id = id(0x1000 + self.network, self.n);
        id.parse().expect("an id")
    }

    fn port(self) -> Change {
        let port = json!({
            "id": self.id(), "network_id": id(1, self.network), "mac_address": self.mac(),
            "fixed_ips": fixed_ips(self.network, self.n), "security_groups": [id(3, self.group)],
            "port_security_enabled": true, "device_owner": "compute:nova",
        });
        Change::PutPort(Box::new(read(port)))
    }

    /// The workload itself, with the network's gateways as its own.
    fn plug(self) -> Guest {
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
fn router(n: u16, networks: &[u16], routes: &[(&str, IpAddr)]) -> Change {
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

fn network_id(n: u16) -> NetworkId {
    id(1, n).parse().expect("an id")
}

fn router_id(n: u16) -> RouterId {
    id(5, n).parse().expect("an id")
}

/// A host: a planner, a kernel, and workloads.
struct Compute {
    planner: Planner,
    kernel: Host,
    guests: Vec<Guest>,
}

impl Compute {
    fn open(name: &str) -> Self {
        let name = name.parse().expect("a name");
        Compute {
            planner: Planner::new(HostConfig::new(name)),
            kernel: Host::open(),
            guests: Vec::new(),
        }
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<Key> {
        let changed = self.planner.apply_all(changes);
        self.kernel.reconcile(&self.planner.state().objects);
        changed.objects
    }

    fn plug(&mut self, stations: &[Station]) {
        self.guests.extend(stations.iter().map(|s| s.plug()));
        self.apply(stations.iter().map(|s| s.port()));
    }
}

type Work = Box<dyn FnOnce(&mut Compute) + Send>;

/// A host with namespaces of its own, also those that have names, on a thread.
struct Machine {
    thread: i32,
    work: Option<mpsc::Sender<Work>>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Machine {
    fn start(name: &'static str) -> Self {
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

    fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Compute) -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let work: Work = Box::new(move |compute| {
            let _ = tell.send(work(compute));
        });
        let worker = self.work.as_ref().expect("it runs");
        worker.send(work).expect("it runs");
        told.recv().expect("the host's thread has panicked")
    }

    /// Joins two by a link, and gives each its address there.
    fn join(&self, other: &Machine, addrs: [&'static str; 2]) {
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

const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

const A: Station = Station {
    network: 1,
    n: 10,
    group: 0,
};
const B: Station = Station {
    network: 2,
    n: 11,
    group: 0,
};

fn one_host() -> Machine {
    let machine = Machine::start("h1");
    machine.run(|host| {
        host.apply(network(1, 1430));
        host.apply(network(2, 1430));
        host.apply([group(0, &ANYWHERE)]);
        host.plug(&[A, B]);
    });
    machine
}

/// The hop limit with which an answer arrives.
fn ttl_of(guest: &Guest, addr: IpAddr) -> Option<u32> {
    let command = format!("ip netns exec {} ping -n -c 1 -W 2 {addr}", guest.0);
    let text = try_run(&command).ok()?;
    let rest = text.split_once("ttl=")?.1;
    rest.split_once(' ')?.0.parse().ok()
}

#[test]
fn a_router_on_one_host_forwards_and_answers() {
    one_host().run(|host| {
        for addr in addrs(2, 11) {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} without a router"
            );
        }
        host.apply([router(1, &[1, 2], &[])]);
        let [a, b] = &host.guests[..] else {
            panic!("two")
        };
        for (there, back) in addrs(2, 11).into_iter().zip(addrs(1, 10)) {
            assert!(a.reaches(&there, 1300), "{there}");
            assert!(b.reaches(&back, 1300), "{back}");
            // Three namespaces forward, and each is a hop.
            assert_eq!(ttl_of(a, there), Some(61), "{there}");
        }
        // Past the first of them, the router reports by its own address.
        for (there, gateway) in addrs(2, 11).into_iter().zip(addrs(1, 1)) {
            let ping = format!("ip netns exec {} ping -n -c 1 -W 2 -t 2 {there}", a.0);
            let text = run(&format!("{ping} || true"));
            assert!(text.contains(&format!("From {gateway} ")), "{text}");
        }
        for addr in addrs(1, 1).into_iter().chain(addrs(2, 1)) {
            assert!(a.reaches(&addr, 56), "the router's {addr}");
        }
        for addr in addrs(2, 99) {
            assert_eq!(ttl_of(a, addr), None, "an address of nobody");
        }
    });
}

#[test]
fn a_router_that_is_down_or_gone_forwards_nothing() {
    one_host().run(|host| {
        let change = router(1, &[1, 2], &[]);
        host.apply([change.clone()]);
        let Change::PutRouter(mut down) = change.clone() else {
            panic!("a router")
        };
        down.router.admin_state_up = false;
        host.apply([Change::PutRouter(down)]);
        for addr in [addrs(2, 11), addrs(1, 1)].concat() {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} by a router that is down"
            );
        }
        host.apply([change]);
        for addr in addrs(2, 11) {
            assert!(host.guests[0].reaches(&addr, 56), "{addr}");
        }
        host.apply([Change::RemoveRouter(router_id(1))]);
        for addr in addrs(2, 11) {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} without a router"
            );
        }
        assert!(!run("ip netns list").contains("hr-"));
    });
}

#[test]
fn attaching_a_router_interrupts_nobody() {
    one_host().run(|host| {
        let neighbour = Station {
            network: 1,
            n: 12,
            group: 0,
        };
        host.plug(&[neighbour]);
        let guest = host.guests[0].0.clone();
        let pinging: Vec<_> = addrs(1, 12)
            .into_iter()
            .map(|addr| {
                Command::new("ip")
                    .args([
                        "netns", "exec", &guest, "ping", "-n", "-q", "-i", "0.002", "-c", "400",
                    ])
                    .arg(addr.to_string())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("ping starts")
            })
            .collect();
        for networks in [&[1, 2][..], &[2], &[1], &[1, 2]] {
            host.apply([router(1, networks, &[])]);
        }
        host.apply([Change::RemoveRouter(router_id(1))]);
        for ping in pinging {
            let output = ping.wait_with_output().expect("ping ends");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(" 0% packet loss"), "{text}");
        }
    });
}

#[test]
fn groups_judge_what_comes_by_a_router() {
    one_host().run(|host| {
        let closed = Station {
            network: 2,
            n: 12,
            group: 1,
        };
        let to_a = Station {
            network: 2,
            n: 13,
            group: 2,
        };
        host.apply([group(1, &[]), group(2, &["10.0.1.10/32", "fd00:1::10/128"])]);
        host.plug(&[closed, to_a]);
        host.apply([router(1, &[1, 2], &[])]);
        for (closed, open) in addrs(2, 12).into_iter().zip(addrs(2, 13)) {
            assert!(!host.guests[0].reaches(&closed, 56), "{closed}");
            assert!(host.guests[0].reaches(&open, 56), "{open}");
            assert!(!host.guests[1].reaches(&open, 56), "{open} from elsewhere");
        }
        // What it opens itself is answered.
        for addr in addrs(1, 10) {
            assert!(host.guests[2].reaches(&addr, 56), "{addr}");
        }
    });
}

#[test]
fn a_smaller_network_behind_a_router_is_told_of() {
    one_host().run(|host| {
        host.apply(network(3, 1280));
        let small = Station {
            network: 3,
            n: 14,
            group: 0,
        };
        host.plug(&[small]);
        host.apply([router(1, &[1, 2, 3], &[])]);
        for addr in addrs(3, 14) {
            // The first one is answered by the router with what fits.
            let ping = format!("ping -n -M do -c 1 -W 2 -s 1370 {addr}");
            let _ = try_run(&format!("ip netns exec {} {ping}", host.guests[0].0));
            let route = host.guests[0].run(&format!("ip route get {addr}"));
            assert!(route.contains("mtu 1280"), "{addr}: {route}");
        }
    });
}

#[test]
fn a_router_sends_to_a_guest_what_its_extra_routes_say() {
    one_host().run(|host| {
        let Change::PutPort(mut appliance) = (Station {
            network: 2,
            n: 20,
            group: 0,
        })
        .port() else {
            panic!("a port")
        };
        appliance.port_security_enabled = false;
        let guest = (Station {
            network: 2,
            n: 20,
            group: 0,
        })
        .plug();
        let beyond = ["192.0.2.1/32", "2001:db8:9::1/128"];
        for addr in beyond {
            guest.run(&format!("ip addr add {addr} dev lo"));
        }
        host.guests.push(guest);
        let by = addrs(2, 20);
        // Also some by several next hops, on one network and on two.
        let mut routes = vec![("192.0.2.0/24", by[0]), ("2001:db8:9::/48", by[1])];
        for (network, station) in [(2, 20), (2, 11), (1, 10)] {
            let [v4, v6] = addrs(network, station);
            routes.extend([("198.51.100.0/24", v4), ("2001:db8:a::/48", v6)]);
        }
        host.apply([Change::PutPort(appliance), router(1, &[1, 2], &routes)]);
        for addr in beyond {
            let addr = addr
                .split_once('/')
                .expect("a prefix")
                .0
                .parse()
                .expect("an address");
            assert!(
                host.guests[0].reaches(&addr, 56),
                "{addr} from another network"
            );
            assert!(host.guests[1].reaches(&addr, 56), "{addr} from its own");
        }
        // Others are still reached, and the address of nobody is not.
        assert!(host.guests[0].reaches(&addrs(2, 11)[0], 56));
        assert!(!host.guests[0].reaches(&"192.0.2.2".parse().expect("an address"), 56));
        // Somebody takes a rule away, and a table's routes.
        let Some(hx) = host
            .planner
            .state()
            .objects
            .keys()
            .find_map(|key| match key {
                Key::Rule(netns, ..) => Some(netns.to_string()),
                _ => None,
            })
        else {
            panic!("a rule")
        };
        run(&format!("ip netns exec {hx} ip rule del pref 1000"));
        let dump = host.kernel.todo(&host.planner.state().objects);
        assert_eq!(dump.len(), 1, "{dump:?}");
        let objects = host.planner.state().objects.clone();
        host.kernel.reconcile(&objects);
        host.apply([router(1, &[1, 2], &[])]);
        assert!(!run(&format!("ip netns exec {hx} ip rule")).contains("1000:"));
    });
}

#[test]
fn routers_on_one_network_send_by_each_other() {
    one_host().run(|host| {
        host.apply(network(3, 1430));
        let far = Station {
            network: 3,
            n: 12,
            group: 0,
        };
        host.plug(&[far]);
        let by = |station| addrs(2, station);
        let first = [("10.0.3.0/24", by(2)[0]), ("fd00:3::/64", by(2)[1])];
        let second = [("10.0.1.0/24", by(1)[0]), ("fd00:1::/64", by(1)[1])];
        let Change::PutRouter(mut other) = router(2, &[2, 3], &second) else {
            panic!("a router")
        };
        let interfaces = other.interfaces.values_mut();
        for interface in interfaces.filter(|i| i.network_id == network_id(2)) {
            for (fixed, addr) in interface.fixed_ips.iter_mut().zip(by(2)) {
                fixed.ip_address = addr;
            }
        }
        host.apply([router(1, &[1, 2], &first), Change::PutRouter(other)]);
        let [a, b, c] = &host.guests[..] else {
            panic!("three")
        };
        for (there, back) in addrs(3, 12).into_iter().zip(addrs(1, 10)) {
            assert_eq!(ttl_of(a, there), Some(59), "{there}: five namespaces");
            assert!(c.reaches(&back, 1300), "{back}");
            // Its gateway is the first router, which sends it back to the second.
            assert!(b.reaches(&there, 56), "{there}");
        }
        for addr in addrs(2, 11) {
            assert!(a.reaches(&addr, 56) && c.reaches(&addr, 56), "{addr}");
        }
    });
}

/// What both hosts know, and what each has.
fn clouds(addrs_of_hosts: [&'static str; 2]) -> [Machine; 2] {
    let machines = [Machine::start("h1"), Machine::start("h2")];
    let [first, second] = &machines;
    first.join(second, addrs_of_hosts);
    let at = move |n: usize| -> Change {
        let address = addrs_of_hosts[n].split_once('/').expect("a prefix").0;
        let name: HostId = ["h1", "h2"][n].parse().expect("a name");
        let endpoint = TunnelEndpoint {
            number: n as u32 + 1,
            address: address.parse().expect("an address"),
        };
        Change::PutHost(name, endpoint)
    };
    for (machine, (own, other, at_other)) in machines.iter().zip([(A, B, "h2"), (B, A, "h1")]) {
        machine.run(move |host| {
            host.apply(network(1, 1400).into_iter().chain(network(2, 1400)));
            host.apply([group(0, &ANYWHERE), at(0), at(1)]);
            let name: HostId = at_other.parse().expect("a name");
            let remotes = addrs(other.network, other.n).map(|addr| (addr, name.clone()));
            host.apply([Change::PutRemotes(
                network_id(other.network),
                remotes.into(),
            )]);
            host.plug(&[own]);
            host.apply([router(1, &[1, 2], &[])]);
        });
    }
    machines
}

/// So much goes over a connection.
const OCTETS: usize = 4 << 20;

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

/// Whether all of a long stream arrives, of which each host's part of the target network sees one direction.
fn stream(from: &Machine, to: &Machine, addr: IpAddr) {
    let received = to.run(move |host| {
        let listen = || TcpListener::bind((addr, 7)).expect("a listener");
        let listener = inside(&host.guests[0], listen);
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut octets = Vec::new();
            connection.read_to_end(&mut octets).expect("a stream");
            octets.len()
        })
    });
    from.run(move |host| {
        let connect = || TcpStream::connect((addr, 7)).expect("connected");
        let mut sender = inside(&host.guests[0], connect);
        sender.write_all(&vec![0x68; OCTETS]).expect("sent");
    });
    assert_eq!(received.join().expect("received"), OCTETS, "to {addr}");
}

fn between_hosts(addrs_of_hosts: [&'static str; 2]) {
    let [first, second] = clouds(addrs_of_hosts);
    first.run(|host| {
        for addr in addrs(2, 11) {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
            // One hop more: the other host's part of the network.
            assert_eq!(ttl_of(&host.guests[0], addr), Some(60), "{addr}");
        }
    });
    second.run(|host| {
        for addr in addrs(1, 10) {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
        }
    });
    for addr in addrs(2, 11) {
        stream(&first, &second, addr);
    }
}

#[test]
fn routed_between_hosts_over_ipv4() {
    between_hosts(["192.0.2.1/24", "192.0.2.2/24"]);
}

#[test]
fn routed_between_hosts_over_ipv6() {
    between_hosts(["2001:db8::1/64", "2001:db8::2/64"]);
}

#[test]
fn what_a_host_was_told_is_there_again_after_a_restart() {
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let intent: Intent = host.planner.intent().clone();
        let mut again = Compute::open("h1");
        again.planner.replace(&intent);
        let todo = again.kernel.todo(&again.planner.state().objects);
        assert_eq!(todo, Vec::<String>::new());
    });
}

#[test]
fn a_router_that_somebody_takes_away_is_made_again() {
    one_host().run(|host| {
        let routes = [("192.0.2.0/24", addrs(2, 11)[0])];
        host.apply([router(1, &[1, 2], &routes)]);
        let reaches = |host: &Compute| {
            let mut all = addrs(2, 11).into_iter().chain(addrs(2, 1));
            all.all(|addr| host.guests[0].reaches(&addr, 56))
        };
        assert!(reaches(host));
        let names = run("ip netns list");
        let hr = names.lines().find(|line| line.starts_with("hr-"));
        let hr = hr.and_then(|line| line.split(' ').next()).expect("one");
        run(&format!("ip netns del {hr}"));
        // We hold it until we look, and then its end, and that of its links, takes its time.
        let objects = host.planner.state().objects.clone();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let report = host.kernel.kernel.reconcile(&Scope::of(&objects));
            report.expect("a dump");
            if host.kernel.todo(&objects).is_empty() && reaches(host) {
                break;
            }
            assert!(Instant::now() < deadline, "it is not made again");
        }
    });
}

/// Packets a second through a router, and within a network; `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_router_costs() {
    one_host().run(|host| {
        let neighbour = Station {
            network: 1,
            n: 12,
            group: 0,
        };
        host.plug(&[neighbour]);
        host.apply([router(1, &[1, 2], &[])]);
        for (what, to) in [("within", addrs(1, 12)), ("routed", addrs(2, 11))] {
            for addr in to {
                let begin = Instant::now();
                host.guests[0].run(&format!("ping -n -q -f -c 20000 {addr}"));
                let each = begin.elapsed() / 20_000;
                println!("{what} {addr}: {} ns there and back", each.as_nanos());
                assert!(each > Duration::ZERO);
            }
        }
    });
}
