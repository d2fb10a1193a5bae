//! The two, and what is done to them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use hextet_kernel::netns::{self, Handle};
use hextet_lab::wait_until;
use hextet_model::state::Netns;
use hextet_tunnels::{
    Key, Listen, Mtu, Spec,
    control::{Answer, Controller, Request, Status},
};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_hextet-tunnels");
pub const DEVICE: &str = "hxt-wg0";

/// A namespace with the process in it.
pub struct Side {
    pub netns: String,
    pub number: u8,
    pub socket: PathBuf,
    pub process: Child,
}

/// Two that see each other by a veth pair.
pub struct Pair {
    pub sides: [Side; 2],
    /// What wireguard-go leaves when it is killed.
    pub leavings: Option<PathBuf>,
    _directory: tempfile::TempDir,
}

pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn begin(netns: &str, socket: &Path) -> Child {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", netns, PROGRAM, "serve"])
        .arg(socket);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let said = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
    assert!(said.unwrap() > 0, "the process did not begin");
    process
}

impl Pair {
    pub fn new(name: &str) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let names = ["a", "b"].map(|side| format!("hxt-{}-{name}-{side}", std::process::id()));
        for netns in &names {
            netns::create(netns).unwrap();
            ip(&format!("-n {netns} link set lo up"));
        }
        let [a, b] = &names;
        ip(&format!(
            "link add veth0 netns {a} type veth peer name veth0 netns {b}"
        ));
        let sides = [(1, a), (2, b)].map(|(number, netns)| {
            ip(&format!(
                "-n {netns} address add 192.0.2.{number}/24 dev veth0"
            ));
            ip(&format!(
                "-n {netns} address add 2001:db8::{number}/64 dev veth0 nodad"
            ));
            ip(&format!("-n {netns} link set veth0 up"));
            let socket = directory.path().join(number.to_string());
            let process = begin(netns, &socket);
            Side {
                netns: netns.clone(),
                number,
                socket,
                process,
            }
        });
        Pair {
            sides,
            leavings: None,
            _directory: directory,
        }
    }

    /// A tunnel between the two over IPv6 or IPv4, with addresses of both families on it.
    pub fn connect(&self, over_ipv6: bool, change: impl Fn(&mut Spec)) {
        for side in &self.sides {
            let mut spec = side.spec(over_ipv6);
            change(&mut spec);
            assert_eq!(side.ask(&Request::Up(Box::new(spec))), Answer::Done);
            side.address();
        }
        for side in &self.sides {
            assert!(wait_until(PATIENCE, || side
                .status()
                .handshake_secs
                .is_some()));
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in &mut self.sides {
            let _ = side.process.kill();
            let _ = side.process.wait();
            let _ = netns::delete(&side.netns);
        }
        if let Some(path) = &self.leavings {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Side {
    /// The process ends, and another begins.
    pub fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = begin(&self.netns, &self.socket);
    }

    pub fn key(number: u8) -> Key {
        Key::from([number; 32])
    }

    pub fn spec(&self, over_ipv6: bool) -> Spec {
        let other = 3 - self.number;
        let at = |number| {
            if over_ipv6 {
                format!("[2001:db8::{number}]:5000")
            } else {
                format!("192.0.2.{number}:5000")
            }
        };
        let any = if over_ipv6 {
            "[::]:5000"
        } else {
            "0.0.0.0:5000"
        };
        Spec {
            name: DEVICE.parse().unwrap(),
            private_key: Side::key(self.number),
            peer_key: Side::key(other).public(),
            preshared_key: Some(Key::from([9; 32])),
            listen: Listen::Own(any.parse().unwrap()),
            uplink: Some("veth0".parse().unwrap()),
            endpoint: Some(at(other).parse().unwrap()),
            candidates: Vec::new(),
            keepalive_secs: 25,
            mtu: Mtu::try_from(1_420).unwrap(),
            most_mtu: None,
            segments: true,
        }
    }

    pub fn address(&self) {
        let Side { netns, number, .. } = self;
        ip(&format!(
            "-n {netns} address add fd00::{number}/64 dev {DEVICE} nodad"
        ));
        ip(&format!(
            "-n {netns} address add 10.9.0.{number}/24 dev {DEVICE}"
        ));
    }

    pub fn ask(&self, request: &Request) -> Answer {
        Controller::connect(&self.socket)
            .unwrap()
            .ask(request)
            .unwrap()
    }

    pub fn status(&self) -> Status {
        match self.ask(&Request::List) {
            Answer::Tunnels(mut tunnels) => tunnels.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = Handle::open(&Netns::Named(self.netns.clone())).unwrap();
        handle.run(work).unwrap()
    }
}

/// Octets that are recognised wherever they are.
pub fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 1_000 * 31 + i * 7) as u8).collect()
}

/// Many octets by TCP, from the first side to an address of the second.
pub fn transfer(pair: &Pair, to: &str, len: usize) {
    let [from, other] = &pair.sides;
    let listener = other.inside(|| TcpListener::bind(to)).unwrap();
    let at = listener.local_addr().unwrap();
    let reader = thread::spawn(move || {
        let mut came = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut came).unwrap();
        came
    });
    let mut stream = from
        .inside(|| TcpStream::connect_timeout(&at, PATIENCE))
        .unwrap();
    stream.write_all(&octets(len)).unwrap();
    drop(stream);
    assert!(reader.join().unwrap() == octets(len));
}
