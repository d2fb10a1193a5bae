//! A server of Nova's on a private network: its port, its TAP, and the machine behind it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener},
    thread,
    time::Duration,
};

use hextet_lab::{
    Node,
    guest::{Guest as Machine, GuestSpec, Kernel},
};
use hextet_types::{IfName, Mac};
use serde_json::{Value, json};

use crate::cloud::{Cloud, netns, text};

/// An emulated machine, on one that is busy with other tests.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Where containers listen.
const PORT: u16 = 9;
/// What each line of a stream says.
const LINE: &[u8] = b"hextet\n";
/// So much goes over a connection.
const OCTETS: usize = 4_000_000;
/// Octets of an Ethernet header.
const ETHERNET: u32 = 14;
const DEVICE: &str = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";

/// A private network of its own, with both families.
pub struct Network {
    pub id: String,
    mtu: u16,
    open: String,
}

impl Network {
    /// Whose group lets everything in.
    pub fn make(cloud: &Cloud) -> Network {
        let admin = &cloud.admin;
        let network = json!({"name": "servers", "provider:network_type": "vxlan"});
        let network = admin.create("network", &network).unwrap();
        let id = text(&network, "id");
        let v4 = json!({"network_id": id, "cidr": "10.1.0.0/24", "ip_version": 4});
        let v6 = json!({
            "network_id": id, "cidr": "fd01::/64", "ip_version": 6,
            "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac",
        });
        for subnet in [v4, v6] {
            admin.create("subnet", &subnet).unwrap();
        }
        let group = admin.create("security_group", &json!({"name": "all"}));
        let open = text(&group.unwrap(), "id");
        for family in ["IPv4", "IPv6"] {
            let rule =
                json!({"security_group_id": open, "direction": "ingress", "ethertype": family});
            admin.create("security_group_rule", &rule).unwrap();
        }
        Network {
            id,
            mtu: u16::try_from(network["mtu"].as_u64().unwrap()).unwrap(),
            open,
        }
    }

    fn port(&self, cloud: &Cloud, host: usize, more: &Value) -> Value {
        let mut asked = json!({
            "network_id": self.id, "security_groups": [self.open], "binding:host_id": format!("h{host}"),
        });
        let more = more.as_object().cloned().unwrap_or_default();
        asked.as_object_mut().unwrap().extend(more);
        cloud.admin.create("port", &asked).unwrap()
    }

    /// A container of that number on a host.
    pub fn container(&self, cloud: &Cloud, n: usize, host: usize) -> Container {
        let port = self.port(cloud, host, &json!({}));
        let container = Container {
            port: text(&port, "id"),
            addrs: addrs(&port),
            place: cloud.lab.node(&format!("g{n}")).unwrap(),
        };
        cloud.attach(&container.port, host, &container.place);
        // It has no DHCP client; IPv6 its kernel does by itself.
        let v4 = container.addrs.iter().filter(|addr| addr.is_ipv4());
        for addr in v4.map(|addr| format!("{addr}/24")) {
            let words = ["ip", "addr", "add", &addr, "dev", "eth0"];
            container.place.run(&words).unwrap();
        }
        container
    }

    /// A server's port on a host, which has no TAP yet.
    pub fn server(&self, cloud: &Cloud, host: usize) -> Server {
        let device = json!({"device_owner": "compute:nova", "device_id": DEVICE});
        let id = text(&self.port(cloud, host, &device), "id");
        let mut port = Value::Null;
        cloud.until("the host takes ports of private networks", || {
            port = cloud.port(&id);
            port["binding:vif_type"] == "tap"
        });
        let details = &port["binding:vif_details"];
        Server {
            tap: IfName::for_port(id.parse().unwrap()),
            host_mac: text(details, "mac_address").parse().unwrap(),
            mtu: self.mtu,
            mac: text(&port, "mac_address").parse().unwrap(),
            addrs: addrs(&port),
            netns: netns(&self.id),
            port: id,
        }
    }
}

fn addrs(port: &Value) -> Vec<IpAddr> {
    let fixed = port["fixed_ips"].as_array().unwrap();
    let addrs = fixed.iter().map(|ip| text(ip, "ip_address"));
    addrs.map(|addr| addr.parse().unwrap()).collect()
}

/// A container that talks with servers.
pub struct Container {
    pub port: String,
    pub addrs: Vec<IpAddr>,
    pub place: Node,
}

/// A server's port.
pub struct Server {
    pub port: String,
    pub addrs: Vec<IpAddr>,
    pub tap: IfName,
    pub mtu: u16,
    pub host_mac: Mac,
    /// The network's namespace.
    pub netns: String,
    mac: Mac,
}

/// What has passed an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    pub octets: u64,
    pub packets: u64,
}

impl Server {
    /// The near end of the port's pair.
    pub fn near_end(&self) -> String {
        format!("hxp{}", &self.port[..11])
    }

    /// Makes the TAP as Nova does.
    pub fn plug(&self, host: &Node) {
        host.plug(&self.tap, self.host_mac, self.mtu).unwrap();
    }

    /// Starts the machine, which takes the TAP.
    pub fn boot(&self, cloud: &Cloud, host: usize, name: &str) -> Machine {
        let kernel = Kernel::find_or_fetch().unwrap();
        let spec = GuestSpec::new(name, self.tap.clone(), self.mac);
        cloud.lab.boot(&format!("h{host}"), &kernel, &spec).unwrap()
    }

    /// Whether the machine leaves it to the host to cut what it streams: waits for a TCP packet from it that
    /// is longer than the network lets packets be.
    pub fn sends_long(&self, host: &Node) -> bool {
        let longer = u32::from(self.mtu) + ETHERNET + 1;
        let filter = format!("tcp and greater {longer}");
        let tap = self.tap.as_str();
        let words = [
            "timeout", "30", "tcpdump", "-Q", "in", "-ni", tap, "-c", "1", &filter,
        ];
        host.output(&words).unwrap().status.success()
    }

    /// What has come out of the machine, and what went into it.
    pub fn passed(&self, host: &Node) -> [Passed; 2] {
        let words = ["ip", "-j", "-s", "link", "show", "dev", self.tap.as_str()];
        let shown: Value = serde_json::from_str(&host.run(&words).unwrap()).unwrap();
        ["rx", "tx"].map(|way| {
            let number = |name: &str| shown[0]["stats64"][way][name].as_u64().unwrap();
            Passed {
                octets: number("bytes"),
                packets: number("packets"),
            }
        })
    }
}

impl Container {
    /// Which of the server's addresses do not answer, also to packets that are as large as the network lets them be.
    pub fn misses(&self, server: &Server) -> Vec<String> {
        let mut missed = Vec::new();
        for addr in &server.addrs {
            let headers = if addr.is_ipv4() { 28 } else { 48 };
            for size in [56, server.mtu - headers] {
                let (size, addr) = (size.to_string(), addr.to_string());
                let words = [
                    "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", &size, &addr,
                ];
                if let Err(error) = self.place.run(&words) {
                    missed.push(format!("from {}: {error}", self.place.name()));
                }
            }
        }
        missed
    }

    /// Pings the server while that is done, and gives how many answers are missing, of how many.
    pub fn pings_while(&self, server: &Server, count: u32, work: impl FnOnce()) -> Vec<(u32, u32)> {
        thread::scope(|scope| {
            let pings = server.addrs.iter().map(|addr| {
                let (count, addr) = (count.to_string(), addr.to_string());
                scope.spawn(move || {
                    let words = [
                        "ping", "-n", "-q", "-i", "0.02", "-W", "10", "-c", &count, &addr,
                    ];
                    self.place.output(&words).unwrap()
                })
            });
            let pings: Vec<_> = pings.collect();
            work();
            let lost = pings.into_iter().map(|ping| {
                let said = String::from_utf8_lossy(&ping.join().unwrap().stdout).into_owned();
                let (_, rest) = said.split_once(" transmitted, ").unwrap_or_default();
                let received = rest.split(' ').next().unwrap_or_default();
                (count - received.parse::<u32>().unwrap_or(0), count)
            });
            lost.collect()
        })
    }

    /// Takes in what the machine sends.
    pub fn takes_from(&self, machine: &Machine, family: usize) {
        let to = self.addrs[family];
        let listener = self.listen(to);
        thread::scope(|scope| {
            let taken = scope.spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                let mut taken = Vec::new();
                connection.read_to_end(&mut taken).unwrap();
                taken
            });
            ask(machine, &format!("nc {to} {PORT} </stream"));
            assert!(
                taken.join().unwrap() == stream(),
                "from the machine to {to}"
            );
        });
    }

    /// Sends the machine what it fetches.
    pub fn gives_to(&self, machine: &Machine, family: usize) {
        let from = self.addrs[family];
        let listener = self.listen(from);
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                connection.write_all(&stream()).unwrap();
            });
            ask(
                machine,
                &format!("nc {from} {PORT} </dev/null >/taken && cmp /taken /stream"),
            );
        });
    }

    fn listen(&self, addr: IpAddr) -> TcpListener {
        let bind = || TcpListener::bind((addr, PORT)).unwrap();
        self.place.enter(bind).unwrap()
    }
}

/// Has the machine make what is sent to and fro.
pub fn prepare_stream(machine: &Machine) {
    ask(machine, &format!("yes hextet | head -c {OCTETS} >/stream"));
}

#[track_caller]
fn ask(machine: &Machine, command: &str) {
    let (status, said) = machine.run(command, LIMIT).unwrap();
    assert_eq!(status, 0, "{command}: {said}");
}

fn stream() -> Vec<u8> {
    LINE.iter().copied().cycle().take(OCTETS).collect()
}
