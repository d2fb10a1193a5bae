//! A host behind a gateway with miniupnpd, asked in each way, and somebody outside who reaches the host; needs root.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use hextet_lab::{Lab, LabFile, LabGuard, Node, Process, wait_until};
use hextet_portmap::{Gateway, Keeper, Mapping, Means, Transport, Wanted};
use tokio::{sync::watch, time::timeout};

/// On a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 6_697;
/// Short, so that it is renewed soon.
const LIFETIME_SECS: u32 = 4;

// The gateway's address outside is none of those for documentation: miniupnpd knows that nobody is reached there.
const LAB: &str = r#"
name = "portmap"
[node.host]
[node.gateway]
sysctls = { "net.ipv4.ip_forward" = "1", "net.ipv6.conf.all.forwarding" = "1" }
[node.outside]

[[link]]
a = { node = "host", dev = "eth0", addresses = ["192.168.77.2/24", "2001:db8:77::2/64"] }
b = { node = "gateway", dev = "lan", addresses = ["192.168.77.1/24", "2001:db8:77::1/64"] }
[[link]]
a = { node = "gateway", dev = "wan", addresses = ["11.22.33.1/24", "2001:db8:33::1/64"] }
b = { node = "outside", dev = "eth0", addresses = ["11.22.33.2/24", "2001:db8:33::2/64"] }
"#;

/// What comes from outside passes only where miniupnpd says so.
const RULES: &str = "
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        jump miniupnpd
    }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump postrouting_miniupnpd
        meta nfproto ipv4 oifname wan masquerade
    }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";

/// PCP's version is 2, NAT-PMP's is 0: a gateway that knows NAT-PMP alone.
const NO_PCP: &str = "
table inet older {
    chain input {
        type filter hook input priority 0;
        udp dport 5351 @th,64,8 2 drop
    }
}
";

const SILENCE: &str = "
table inet silent {
    chain input {
        type filter hook input priority 0;
        iifname lan udp dport { 1900, 5351 } drop
    }
}
";

const BOTH: &str = "enable_natpmp=yes\nenable_upnp=yes\n";
const ONLY_UPNP: &str = "enable_natpmp=no\nenable_upnp=yes\n";

struct World {
    lab: LabGuard,
    directory: PathBuf,
    speaks: &'static str,
}

impl World {
    fn new(name: &str, speaks: &'static str) -> World {
        let name = format!("portmap-{name}-{}", std::process::id());
        let file = LabFile::parse(LAB, Path::new("portmap.toml"));
        let lab = Lab::up(file.unwrap().named(&name).unwrap())
            .unwrap()
            .guard();
        let directory = std::env::temp_dir().join(format!("hxt-{name}"));
        fs::create_dir_all(&directory).unwrap();
        let world = World {
            lab,
            directory,
            speaks,
        };
        for (node, words) in [
            ("host", "ip route add default via 192.168.77.1"),
            ("host", "ip route add default via 2001:db8:77::1"),
            ("outside", "ip route add default via 2001:db8:33::1"),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            world.node(node).run(&words).unwrap();
        }
        world.rules(RULES);
        world
    }

    fn node(&self, name: &str) -> Node {
        self.lab.node(name).unwrap()
    }

    fn rules(&self, text: &str) {
        let path = self.directory.join("rules.nft");
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        self.node("gateway").run(&["nft", "-f", &path]).unwrap();
    }

    /// A gateway that begins: it knows of no port.
    fn begin(&self) -> Arc<Process> {
        let conf = self.directory.join("miniupnpd.conf");
        let text = format!(
            "ext_ifname=wan\nlistening_ip=lan\nhttp_port=5000\n{}min_lifetime=2\nmax_lifetime=86400\n\
             secure_mode=yes\nsystem_uptime=yes\nuuid=6b1ab9ea-0ee6-4a8a-9d4b-0d2a6a1c6a11\n\
             allow 1024-65535 192.168.77.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            self.speaks
        );
        fs::write(&conf, text).unwrap();
        let mut command = Command::new("miniupnpd");
        command.arg("-d").arg("-f").arg(&conf).arg("-P");
        command.arg(self.directory.join("miniupnpd.pid"));
        let gateway = self.node("gateway");
        let process = self.lab.spawn(&gateway, "miniupnpd", &mut command).unwrap();
        let port = if self.speaks == ONLY_UPNP {
            ":1900 "
        } else {
            ":5351 "
        };
        let listens = || {
            let shown = gateway.run(&["ss", "-Huln"]).unwrap();
            shown.contains(port)
        };
        assert!(wait_until(PATIENCE, listens), "{}", process.log());
        process
    }

    fn wanted(&self, client: &str, gateway: &str) -> Wanted {
        Wanted {
            gateway: Gateway {
                address: gateway.parse().unwrap(),
                scope: None,
            },
            client: client.parse().unwrap(),
            port: PORT.try_into().unwrap(),
            transport: Transport::Udp,
            lifetime_secs: LIFETIME_SECS,
        }
    }

    fn wanted_v4(&self) -> Wanted {
        self.wanted("192.168.77.2", "192.168.77.1")
    }

    /// Somebody outside is heard, and is answered from where he asked.
    fn is_reached(&self, client: IpAddr, mapping: Mapping) {
        let bind = |node: &str, at: SocketAddr| {
            let socket = self.node(node).enter(|| UdpSocket::bind(at)).unwrap();
            let socket = socket.unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let any = if client.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let (ours, other) = (
            bind("host", (client, PORT).into()),
            bind("outside", any.parse().unwrap()),
        );
        let mut closed = mapping.external;
        closed.set_port(mapping.external.port() ^ 1);
        other.send_to(b"closed", closed).unwrap();
        other.send_to(b"open", mapping.external).unwrap();
        let mut datagram = [0; 100];
        let (len, from) = ours.recv_from(&mut datagram).unwrap();
        assert_eq!(&datagram[..len], b"open");
        ours.send_to(b"answer", from).unwrap();
        let (len, from) = other.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..len], from), (&b"answer"[..], mapping.external));
    }

    /// What miniupnpd has opened.
    fn opened(&self) -> Vec<String> {
        let shown = self
            .node("gateway")
            .run(&["nft", "list", "table", "inet", "filter"]);
        let shown = shown.unwrap();
        let ours = PORT.to_string();
        let lines = shown.lines().filter(|line| line.contains(&ours));
        lines.map(str::to_owned).collect()
    }

    /// In the host, with a runtime of its own.
    fn inside<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(work())
        };
        self.node("host").enter(run).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

async fn told(
    watch: &mut watch::Receiver<Option<Mapping>>,
    is_it: impl Fn(&Option<Mapping>) -> bool,
) -> Option<Mapping> {
    let told = timeout(PATIENCE, watch.wait_for(is_it)).await;
    told.ok().and_then(|told| *told.unwrap())
}

/// Opens, is reached, is open again after the gateway has forgotten, and gives back.
fn opens(world: &World, wanted: Wanted, by: Means, external: &str) {
    let process = world.begin();
    world.inside(async || {
        let keeper = Keeper::start(wanted);
        let mut watch = keeper.watch();
        let mapping = told(&mut watch, Option::is_some).await;
        let mapping = mapping.unwrap_or_else(|| panic!("{}", process.log()));
        assert_eq!(mapping.by, by);
        assert_eq!(mapping.external.ip(), external.parse::<IpAddr>().unwrap());
        world.is_reached(wanted.client, mapping);
        assert!(process.kill());
        for chain in ["miniupnpd", "prerouting_miniupnpd"] {
            let words = ["nft", "flush", "chain", "inet", "filter", chain];
            world.node("gateway").run(&words).unwrap();
        }
        assert_eq!(world.opened(), Vec::<String>::new());
        let process = world.begin();
        let again = async {
            while world.opened().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(PATIENCE, again).await.is_err() {
            let rules = world.node("gateway").run(&["nft", "list", "ruleset"]);
            panic!("{}\n{}", rules.unwrap(), process.log());
        }
        let mapping = told(&mut watch, Option::is_some).await.unwrap();
        world.is_reached(wanted.client, mapping);
        keeper.end().await;
        assert_eq!(*watch.borrow(), None);
        assert_eq!(world.opened(), Vec::<String>::new());
    });
}

#[test]
fn pcp_is_the_first_choice() {
    let world = World::new("pcp", BOTH);
    opens(&world, world.wanted_v4(), Means::Pcp, "11.22.33.1");
}

#[test]
fn pcp_opens_a_firewall_for_ipv6() {
    let world = World::new("six", BOTH);
    let wanted = world.wanted("2001:db8:77::2", "2001:db8:77::1");
    opens(&world, wanted, Means::Pcp, "2001:db8:77::2");
}

#[test]
fn nat_pmp_where_there_is_no_pcp() {
    let world = World::new("pmp", BOTH);
    world.rules(NO_PCP);
    opens(&world, world.wanted_v4(), Means::NatPmp, "11.22.33.1");
}

#[test]
fn upnp_where_there_is_nothing_else() {
    let world = World::new("upnp", ONLY_UPNP);
    opens(&world, world.wanted_v4(), Means::Upnp, "11.22.33.1");
}

/// Nobody answers: nothing is told, until somebody does; and what was open counts no longer when its gateway is silent for its life.
#[test]
fn silence_is_borne_before_and_after() {
    let world = World::new("mute", BOTH);
    world.rules(SILENCE);
    world.begin();
    let speak = || {
        let words = ["nft", "delete", "table", "inet", "silent"];
        world.node("gateway").run(&words).unwrap()
    };
    world.inside(async || {
        let nobody = Keeper::start(world.wanted_v4());
        let quiet = nobody.watch();
        nobody.end().await;
        assert!(quiet.borrow().is_none());
        let keeper = Keeper::start(world.wanted_v4());
        let mut watch = keeper.watch();
        speak();
        let mapping = told(&mut watch, Option::is_some).await.unwrap();
        world.is_reached(world.wanted_v4().client, mapping);
        world.rules(SILENCE);
        assert_eq!(told(&mut watch, Option::is_none).await, None);
        assert!(watch.borrow().is_none());
        speak();
        assert!(told(&mut watch, Option::is_some).await.is_some());
        keeper.end().await;
        assert_eq!(world.opened(), Vec::<String>::new());
    });
}
