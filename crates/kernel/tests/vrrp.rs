//! VRRP in real kernels: advertisements come to those who share addresses with their sender, as they were sent, here and on
//! another host, and to nobody else.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hextet_kernel::{netns::Handle, packet::PacketSocket};
use hextet_model::{
    intent::{Change, RemotePort},
    neutron::{AddressPair, Port},
    state::Netns,
};
use hextet_types::{Family, Mac, Prefix};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    private::Guest,
    tenant::{
        ANYWHERE, Compute, Machine, Station, UNDERLAY, addrs, group, host, network, two_hosts,
    },
};

const SHARED: [&str; 2] = ["10.0.1.100/32", "fd00:1::100/128"];
const V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Index of `eth0` in a workload's namespace, by name.
const LINK: &str = "eth0";

fn station(n: u16, group: u16) -> Station {
    Station {
        network: 1,
        n,
        group,
    }
}

/// A port that shares addresses.
fn sharing(station: Station) -> Port {
    let Change::PutPort(port) = station.port() else {
        panic!("a port")
    };
    let pair = |prefix: &str| AddressPair {
        ip_address: prefix.parse().expect("a prefix"),
        mac_address: port.mac_address,
    };
    Port {
        allowed_address_pairs: SHARED.map(pair).to_vec(),
        ..*port
    }
}

fn plug(host: &mut Compute, port: Port, station: Station) {
    host.guests.push(station.plug());
    host.apply([Change::PutPort(Box::new(port))]);
}

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

fn socket(family: Family) -> Socket {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(112))).expect("a socket");
    let index = nix::net::if_::if_nametoindex(LINK).expect("a link");
    match family {
        Family::V4 => {
            let own = socket2::InterfaceIndexOrAddress::Index(index);
            socket.join_multicast_v4_n(&V4, &own).expect("joined");
            socket.set_multicast_ttl_v4(255).expect("a hop limit");
            socket
                .bind_device(Some(LINK.as_bytes()))
                .expect("by that link");
        }
        Family::V6 => {
            socket.join_multicast_v6(&V6, index).expect("joined");
            socket.set_multicast_if_v6(index).expect("by that link");
            socket.set_multicast_hops_v6(255).expect("a hop limit");
        }
    }
    socket
}

/// A listener of one workload.
struct Listener(Socket, Family);

impl Listener {
    fn of(guest: &Guest, family: Family) -> Self {
        let socket = inside(guest, || socket(family));
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a limit");
        Listener(socket, family)
    }

    /// Whether that advertisement comes within the time, hop limit and all.
    fn hears(&mut self, word: u8, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut octets = [0; 256];
        while Instant::now() < end {
            let Ok(len) = self.0.read(&mut octets) else {
                continue;
            };
            let payload = match self.1 {
                Family::V4 => {
                    assert_eq!(octets[8], 255, "the hop limit is untouched");
                    &octets[20..len]
                }
                Family::V6 => &octets[..len],
            };
            if payload.get(1) == Some(&word) {
                return true;
            }
        }
        false
    }
}

fn speak(guest: &Guest, family: Family, word: u8) {
    let to: IpAddr = match family {
        Family::V4 => V4.into(),
        Family::V6 => V6.into(),
    };
    inside(guest, || {
        let advert = [0x31, word, 100, 0, 0, 100, 0, 0];
        let to = SocketAddr::new(to, 0);
        socket(family).send_to(&advert, &to.into()).expect("sent");
    });
}

const SOON: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_millis(300);

#[test]
fn adverts_come_to_those_who_share_and_to_nobody_else() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([
            group(0, &ANYWHERE),
            group(1, &["10.99.0.0/16", "fd99::/64"]),
        ]);
        for (n, group) in [(10, 0), (11, 0), (12, 1)] {
            plug(host, sharing(station(n, group)), station(n, group));
        }
        host.plug(&[station(13, 0)]);
        for (family, word) in Family::BOTH.into_iter().zip([1, 2]) {
            let mut all: Vec<Listener> = host.guests[1..]
                .iter()
                .map(|guest| Listener::of(guest, family))
                .collect();
            speak(&host.guests[0], family, word);
            let [sharing, refusing, stranger] = &mut all[..] else {
                panic!("three")
            };
            assert!(sharing.hears(word, SOON), "{family}");
            assert!(!refusing.hears(word, NEVER), "{family}: its groups refuse");
            assert!(!stranger.hears(word, NEVER), "{family}: it shares nothing");
        }
        // Under an address that is not its own nobody hears it.
        let mut other = Listener::of(&host.guests[1], Family::V4);
        let [own, _] = addrs(1, 10);
        host.guests[0].run(&format!("ip addr del {own}/24 dev eth0"));
        host.guests[0].run("ip addr add 10.0.1.99/24 dev eth0");
        speak(&host.guests[0], Family::V4, 9);
        assert!(!other.hears(9, NEVER), "a forged source");
    });
}

/// A virtual router's Ethernet address (RFC 5798 §7.3), and one that no pair names.
const VIRTUAL: Mac = Mac::new([0, 0, 0x5e, 0, 2, 1]);
const OTHER: Mac = Mac::new([0, 0, 0x5e, 0, 2, 2]);

/// As keepalived speaks with `use_vmac`: under that Ethernet address, from the link-local one that follows from another.
fn speak_as(guest: &Guest, mac: Mac, own: Mac, word: u8) {
    let advert = [0x31, word, 100, 0, 0, 100, 0, 0];
    let head = [0x60, 0, 0, 0, 0, 8, 112, 255];
    let from = own.link_local();
    let group = [0x33, 0x33, 0, 0, 0, 0x12];
    let kind = [0x86, 0xdd];
    let mut frame = [&group[..], &mac.octets(), &kind, &head].concat();
    frame.extend([from.octets(), V6.octets()].concat());
    frame.extend(advert);
    inside(guest, || {
        let index = nix::net::if_::if_nametoindex(LINK).expect("a link");
        let socket = PacketSocket::of_sender(index, mac).expect("a socket");
        socket.send(index, &frame).expect("sent");
    });
}

#[test]
fn under_a_virtual_router_s_ethernet_address_its_link_local_one_is_heard() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        for n in [10, 11] {
            let at = station(n, 0);
            let mut port = sharing(at);
            port.allowed_address_pairs.push(AddressPair {
                ip_address: Prefix::host(IpAddr::V6(at.mac().link_local())),
                mac_address: VIRTUAL,
            });
            plug(host, port, at);
        }
        let own = station(10, 0).mac();
        let mut other = Listener::of(&host.guests[1], Family::V6);
        speak_as(&host.guests[0], VIRTUAL, own, 5);
        assert!(other.hears(5, SOON));
        speak_as(&host.guests[0], OTHER, own, 6);
        assert!(!other.hears(6, NEVER), "no pair names it");
        speak_as(&host.guests[0], own, OTHER, 7);
        assert!(!other.hears(7, NEVER), "a source of somebody else");
    });
}

/// Two hosts, each with a workload that shares addresses with the other's. Nothing runs on them but kernels.
fn two_sharing() -> [Machine; 2] {
    let stations = [station(10, 0), station(11, 0)];
    let machines = two_hosts(UNDERLAY, [&stations[..1], &stations[1..]]);
    for (machine, own) in machines.iter().zip([0_usize, 1]) {
        machine.run(move |compute| {
            let (here, there) = (stations[own], stations[1 - own]);
            let told = RemotePort::of(&sharing(there), &host(2 - own as u8)).expect("it shares");
            compute.apply([Change::PutRemotePort(Box::new(told))]);
            plug(compute, sharing(here), here);
        });
    }
    machines
}

#[test]
fn adverts_come_to_another_host() {
    let machines = two_sharing();
    for (family, word) in Family::BOTH.into_iter().zip([3, 4]) {
        let mut listener = machines[1].run(move |compute| Listener::of(&compute.guests[0], family));
        machines[0].run(move |compute| speak(&compute.guests[0], family, word));
        assert!(listener.hears(word, SOON), "{family}");
    }
}

/// What each workload has taken, of both families.
fn masters(machines: &[Machine; 2]) -> [[bool; 2]; 2] {
    machines
        .each_ref()
        .map(|machine| machine.run(|compute| held(&compute.guests[0])))
}

/// Waits until the workloads have taken just that.
fn wait_for(machines: &[Machine; 2], wanted: [[bool; 2]; 2]) {
    let end = Instant::now() + Duration::from_secs(20);
    while masters(machines) != wanted {
        let is = masters(machines);
        assert!(Instant::now() < end, "{is:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn of_two_with_keepalived_one_is_master_and_the_other_follows() {
    const BOTH: [bool; 2] = [true; 2];
    const NONE: [bool; 2] = [false; 2];
    let machines = two_sharing();
    let [first, second] = [(0, 150), (1, 100)].map(|(n, priority): (usize, u8)| {
        machines[n].run(move |compute| Keepalived::start(&compute.guests[0], priority))
    });
    wait_for(&machines, [BOTH, NONE]);
    // No agent is there to help: who hears no adverts takes the addresses within 1 s.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert_eq!(masters(&machines), [BOTH, NONE], "a second master");
    }
    machines[0].run(|compute| drop(compute.guests[0].run("ip link set eth0 down")));
    let end = Instant::now() + Duration::from_secs(20);
    while machines[1].run(|compute| held(&compute.guests[0])) != BOTH {
        assert!(Instant::now() < end, "nobody follows");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((first, second));
}

/// Waits until duplicate address detection is over: from a tentative address no advert can be sent (RFC 4862 §5.4), and two
/// whose adverts fail are both masters.
fn wait_for_addresses(guest: &Guest) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = guest.run("ip -6 -o addr show dev eth0");
        if shown.contains("scope link") && !shown.contains("tentative") {
            return;
        }
        assert!(Instant::now() < end, "still tentative: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A workload's keepalived; it ends with this.
struct Keepalived {
    process: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Keepalived {
    fn start(guest: &Guest, priority: u8) -> Self {
        wait_for_addresses(guest);
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let instances = Family::BOTH.map(|family| {
            let shared = SHARED[usize::from(family == Family::V6)];
            format!(
                "vrrp_instance i{n} {{\n state BACKUP\n interface eth0\n virtual_router_id {n}\n \
                 priority {priority}\n advert_int 0.2\n virtual_ipaddress {{\n  {shared}\n }}\n}}\n",
                n = if family == Family::V4 { 4 } else { 6 },
            )
        });
        let text = format!(
            "global_defs {{\n vrrp_version 3\n}}\n{}",
            instances.concat()
        );
        std::fs::write(file("conf"), text).expect("written");
        let log = std::fs::File::create(file("log")).expect("a log");
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &guest.0, "keepalived", "--dont-fork"]);
        command.args(["--log-console", "--vrrp"]);
        for (option, name) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            command.arg(option).arg(file(name));
        }
        command.arg("--use-file").arg(file("conf")).stdout(log);
        Keepalived {
            process: command.spawn().expect("keepalived is installed"),
            _directory: directory,
        }
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).expect("an id");
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(id),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.process.wait();
    }
}

/// Which of the shared addresses it has taken.
fn held(guest: &Guest) -> [bool; 2] {
    let shown = guest.run("ip -o addr show dev eth0");
    SHARED.map(|shared| shown.contains(&format!(" {shared} ")))
}
