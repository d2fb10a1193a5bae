//! The kernel's WireGuard in a virtual machine, and a process with userspace tunnels on its host; needs root.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use hextet_lab::{
    Lab, LabFile, LabGuard, Node,
    guest::{Guest, GuestNetwork, GuestSpec, Kernel},
    wait_until,
};
use hextet_tunnels::{
    Key, Listen, Mtu, Spec,
    control::{Answer, Controller, Request, Status},
};
use tempfile::TempDir;

/// Emulated on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);
const PROGRAM: &str = env!("CARGO_BIN_EXE_hextet-tunnels");
const HOST: u8 = 1;
const GUEST: u8 = 2;
const OCTETS: usize = 300_000;

/// A tunnel between the two: over IPv4, or over IPv6.
#[derive(Clone, Copy)]
struct Over {
    device: &'static str,
    number: u8,
    ends: [&'static str; 2],
    any: &'static str,
}

const BOTH: [Over; 2] = [
    Over {
        device: "hxt-wg4",
        number: 4,
        ends: ["192.0.2.1:5004", "192.0.2.2:5004"],
        any: "0.0.0.0:5004",
    },
    Over {
        device: "hxt-wg6",
        number: 6,
        ends: ["[2001:db8::1]:5006", "[2001:db8::2]:5006"],
        any: "[::]:5006",
    },
];

impl Over {
    fn key(self, side: u8) -> Key {
        Key::from([self.number * 10 + side; 32])
    }

    fn spec(self, side: u8) -> Spec {
        let other = 3 - side;
        Spec {
            name: self.device.parse().unwrap(),
            private_key: self.key(side),
            peer_key: self.key(other).public(),
            preshared_key: Some(Key::from([9; 32])),
            listen: Listen::Own(self.any.parse().unwrap()),
            uplink: None,
            endpoint: Some(self.end(other).into()),
            candidates: Vec::new(),
            keepalive_secs: 25,
            mtu: Mtu::try_from(1_420).unwrap(),
            most_mtu: None,
            segments: true,
        }
    }

    fn end(self, side: u8) -> SocketAddr {
        self.ends[usize::from(side) - 1].parse().unwrap()
    }

    /// Addresses of both families inside.
    fn inside(self, side: u8) -> [IpAddr; 2] {
        let number = self.number;
        [
            format!("10.{number}.0.{side}"),
            format!("fd0{number}::{side}"),
        ]
        .map(|address| address.parse().unwrap())
    }

    /// What gives a side these addresses.
    fn address(self, side: u8) -> [String; 2] {
        let [v4, v6] = self.inside(side);
        let device = self.device;
        [
            format!("ip address add {v4}/24 dev {device}"),
            format!("ip address add {v6}/64 dev {device}"),
        ]
    }
}

/// The host in a namespace, with its process, and the machine.
struct World {
    _lab: LabGuard,
    host: Node,
    guest: Guest,
    socket: PathBuf,
    _directory: TempDir,
}

impl World {
    fn new() -> World {
        let name = format!("wgk-{}", std::process::id());
        let file = LabFile::parse("name = \"wgk\"\n[node.host]\n", Path::new("wgk.toml"));
        let lab = Lab::up(file.unwrap().named(&name).unwrap())
            .unwrap()
            .guard();
        let guest = boot(&lab);
        let host = lab.node("host").unwrap();
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("tunnels");
        let mut serve = Command::new(PROGRAM);
        serve.arg("serve").arg(&socket);
        let process = lab.spawn(&host, "tunnels", &mut serve).unwrap();
        let up = || Controller::connect(&socket).is_ok();
        assert!(wait_until(LIMIT, up), "{}", process.log());
        guest.wait_ready(LIMIT).unwrap();
        World {
            _lab: lab,
            host,
            guest,
            socket,
            _directory: directory,
        }
    }

    fn run(&self, command: &str) -> String {
        let (status, said) = self.guest.run(command, LIMIT).unwrap();
        assert_eq!(status, 0, "{command}: {said}");
        said
    }

    /// Asks the kernel of the machine, by a program that ends then.
    fn ask_guest(&self, request: &Request) -> Answer {
        let request = serde_json::to_string(request).unwrap();
        let said = self.run(&format!("echo '{request}' | hextet-tunnels kernel"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{said}: {error}"))
    }

    fn ask_host(&self, request: &Request) -> Answer {
        let mut controller = Controller::connect(&self.socket).unwrap();
        controller.ask(request).unwrap()
    }

    fn status(&self, side: u8, over: Over) -> Option<Status> {
        let answer = match side {
            HOST => self.ask_host(&Request::List),
            _ => self.ask_guest(&Request::List),
        };
        let Answer::Tunnels(tunnels) = answer else {
            panic!("{answer:?}");
        };
        tunnels.into_iter().find(|t| t.name.as_str() == over.device)
    }

    /// A driver in the machine makes the tunnels, and goes on waiting for requests; both ends agree on keys then.
    fn connect(&self) {
        self.run("mkfifo /requests");
        self.run("(sleep 10000 >/requests &) ; hextet-tunnels kernel </requests >/answers 2>&1 & echo $! >/driver");
        for over in BOTH {
            let up = Request::Up(Box::new(over.spec(HOST)));
            assert_eq!(self.ask_host(&up), Answer::Done);
            for command in over.address(HOST) {
                let words: Vec<&str> = command.split(' ').collect();
                self.host.run(&words).unwrap();
            }
            let up = Request::Up(Box::new(over.spec(GUEST)));
            let up = serde_json::to_string(&up).unwrap();
            self.run(&format!("echo '{up}' >/requests"));
        }
        let done = "\"done\"\n\"done\"";
        let answered = || {
            let (_, said) = self.guest.run("cat /answers", LIMIT).unwrap();
            assert!(!said.contains("rror"), "{said}");
            said == done
        };
        assert!(wait_until(LIMIT, answered));
        for over in BOTH {
            for command in over.address(GUEST) {
                self.run(&command);
            }
            let agreed = || {
                let status = self.status(HOST, over);
                status.unwrap().handshake_secs.is_some()
            };
            assert!(wait_until(LIMIT, agreed), "{}", over.device);
        }
    }

    /// That many, of which none may be lost.
    fn pings(&self, to: &str, count: u32, octets: u32) {
        let (count, octets) = (count.to_string(), octets.to_string());
        let words = [
            "ping", "-n", "-q", "-c", &count, "-i", "0.02", "-W", "30", "-s", &octets, to,
        ];
        let said = self.host.run(&words).unwrap();
        assert!(said.contains(&format!(" {count} received")), "{said}");
    }

    /// Many octets from the host to the machine, and back again.
    fn transfers(&self, at: IpAddr) {
        let listen = || TcpListener::bind((at, 0)).unwrap();
        let listener = self.host.enter(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = thread::spawn(move || {
            let (mut down, _) = listener.accept().unwrap();
            down.write_all(&octets()).unwrap();
            drop(down);
            let (mut up, _) = listener.accept().unwrap();
            let mut came = Vec::new();
            up.read_to_end(&mut came).unwrap();
            came
        });
        let size = self.run(&format!("nc {at} {port} </dev/null >/came; wc -c </came"));
        assert_eq!(size, OCTETS.to_string());
        self.run(&format!("nc {at} {port} </came >/dev/null"));
        assert!(peer.join().unwrap() == octets(), "{at}");
    }
}

fn boot(lab: &Lab) -> Guest {
    let mut spec = GuestSpec::new(
        "vm",
        "tap0".parse().unwrap(),
        "02:00:00:00:00:02".parse().unwrap(),
    );
    spec.network = GuestNetwork::Fixed {
        addresses: ["2001:db8::2/64", "192.0.2.2/24"]
            .map(|address| address.parse().unwrap())
            .into(),
        gateways: Vec::new(),
    };
    spec.modules = vec!["wireguard".to_owned()];
    spec.programs = vec![PROGRAM.into()];
    spec.memory = 512;
    let guest = lab
        .boot("host", &Kernel::find_or_fetch().unwrap(), &spec)
        .unwrap();
    let host = lab.node("host").unwrap();
    let up = || host.run(&["ip", "link", "set", "tap0", "up"]).is_ok();
    assert!(wait_until(LIMIT, up), "QEMU made no tap0");
    for address in ["2001:db8::1/64", "192.0.2.1/24"] {
        let mut words = vec!["ip", "addr", "add", address, "dev", "tap0"];
        words.extend(address.contains(':').then_some("nodad"));
        host.run(&words).unwrap();
    }
    guest
}

/// Octets that are recognised wherever they are.
fn octets() -> Vec<u8> {
    (0..OCTETS)
        .map(|i| (i / 1_000 * 31 + i * 7) as u8)
        .collect()
}

#[test]
fn the_kernels_tunnels_speak_with_ours_and_need_nobody_measured() {
    let world = World::new();
    world.connect();
    for over in BOTH {
        is_as_it_was_asked_for(&world, over);
        for (address, full) in over.inside(GUEST).into_iter().zip([1_392, 1_372]) {
            let to = address.to_string();
            world.pings(&to, 5, 56);
            world.pings(&to, 3, full);
            world.pings(&to, 3, 8_000);
        }
        for address in over.inside(HOST) {
            world.transfers(address);
        }
    }
    survives_its_driver(&world, BOTH[0]);
    goes_when_it_is_told_to(&world);
}

/// What both ends say of a tunnel, and that each finds the other where its key says, by multicast, too.
fn is_as_it_was_asked_for(world: &World, over: Over) {
    let [ours, theirs] = [HOST, GUEST].map(|side| world.status(side, over).unwrap());
    assert_eq!(theirs.public_key, over.key(GUEST).public());
    assert_eq!(theirs.peer_key, ours.public_key);
    assert_eq!(theirs.endpoint, Some(over.end(HOST).into()));
    let port = over.end(GUEST).port();
    assert_eq!(theirs.listen, vec![(Ipv6Addr::UNSPECIFIED, port).into()]);
    assert!(
        theirs.handshake_secs.is_some() && theirs.octets_in > 0,
        "{theirs:?}"
    );
    assert_eq!(
        (theirs.link_local, theirs.peer_link_local),
        (ours.peer_link_local, ours.link_local)
    );
    assert_eq!(theirs.mtu, ours.mtu);
    let to = format!("{}%{}", theirs.link_local, over.device);
    world.pings(&to, 3, 56);
    let group = format!("ff02::1%{}", over.device);
    let said = world
        .host
        .run(&["ping", "-n", "-c", "5", "-i", "0.2", "-W", "30", &group]);
    let said = said.unwrap();
    assert!(said.contains(&theirs.link_local.to_string()), "{said}");
}

/// Nothing is lost while the driver is killed; who comes after it finds what it asks for, or is told that it is otherwise.
fn survives_its_driver(world: &World, over: Over) {
    let index = format!("cat /sys/class/net/{}/ifindex", over.device);
    let before = world.run(&index);
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let flow = scope.spawn(|| {
            for address in over.inside(GUEST).into_iter().cycle() {
                let last = killed.load(SeqCst);
                world.pings(&address.to_string(), 50, 1_000);
                if last {
                    break;
                }
            }
        });
        let driver = world.run("cat /proc/$(cat /driver)/comm");
        assert_eq!(driver, "hextet-tunnels");
        world.run("kill -9 $(cat /driver)");
        killed.store(true, SeqCst);
        flow.join().unwrap();
    });
    let mut spec = over.spec(GUEST);
    let up = |spec: &Spec| world.ask_guest(&Request::Up(Box::new(spec.clone())));
    assert_eq!(up(&spec), Answer::Done);
    assert_eq!(world.run(&index), before);
    spec.private_key = Key::from([77; 32]);
    assert!(matches!(up(&spec), Answer::Error(why) if why.contains("otherwise")));
    world.pings(&over.inside(GUEST)[1].to_string(), 5, 56);
}

/// Of two, the one that is told to, and nobody else's.
fn goes_when_it_is_told_to(world: &World) {
    let [one, other] = BOTH;
    world.run("ip link add foreign type wireguard");
    for name in [one.device, "foreign", "none"] {
        let down = Request::Down(name.parse().unwrap());
        assert_eq!(world.ask_guest(&down), Answer::Done);
    }
    assert!(world.status(GUEST, one).is_none());
    assert!(world.status(GUEST, other).is_some());
    world.run("ip link show foreign");
    world.pings(&other.inside(GUEST)[0].to_string(), 3, 56);
    let mtu = Request::Mtu {
        name: other.device.parse().unwrap(),
        mtu: Mtu::try_from(1_280).unwrap(),
    };
    assert_eq!(world.ask_guest(&mtu), Answer::Done);
    assert_eq!(
        world.status(GUEST, other).unwrap().mtu,
        Mtu::try_from(1_280).unwrap()
    );
    let endpoint = Request::Endpoint {
        name: other.device.parse().unwrap(),
        endpoint: BOTH[0].end(HOST).into(),
    };
    assert_eq!(world.ask_guest(&endpoint), Answer::Done);
    assert_eq!(
        world.status(GUEST, other).unwrap().endpoint,
        Some(BOTH[0].end(HOST).into()),
        "the same port has both families"
    );
}
