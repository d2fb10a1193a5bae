//! A server and three hosts with agents, on one underlay; one private network with guests.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod client;
pub mod frame;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hextet_kernel::packet::PacketSocket;
use hextet_lab::{Lab, LabFile, LabGuard, Node, Process, wait_until};
use hextet_types::Mac;
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

use client::{CLIENTS, Client};
use frame::Word;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hextet");
const AGENTS: &str = "[2001:db8:ffff::100]:9797";
/// Everything that is waited for comes within this time, or not at all; generous, since tests share a machine.
const LIMIT: Duration = Duration::from_secs(40);
const HOSTS: usize = 3;
const GUESTS: usize = 5;

/// All of it.
pub struct Cloud {
    /// Its namespaces.
    pub lab: LabGuard,
    /// The administrator.
    pub admin: Client,
    network: String,
    open: String,
    processes: Vec<Arc<Process>>,
}

/// Who is behind a port.
pub struct Guest {
    /// Its host, counted from 1.
    pub host: usize,
    /// Its port.
    pub port: String,
    /// Its own addresses.
    pub own: Vec<IpAddr>,
    /// Where it is.
    pub place: Node,
    mac: Mac,
}

impl Guest {
    /// Says that it has that address.
    pub fn says(&self, word: Word, addr: IpAddr) {
        self.says_as(self.mac.octets(), word, addr);
    }

    /// The same under another Ethernet address.
    pub fn says_as(&self, mac: [u8; 6], word: Word, addr: IpAddr) {
        let frame = frame::of(word, mac, addr);
        let send = || {
            let link = if_nametoindex("eth0").unwrap();
            let socket = PacketSocket::of_sender(link, self.mac).unwrap();
            socket.send(link, &frame).unwrap();
        };
        self.place.enter(send).unwrap();
    }
}

impl Cloud {
    /// With agents that have joined, and a network that nobody is on.
    pub fn up() -> Cloud {
        Cloud::up_with(|_| String::new())
    }

    /// Whose server's configuration ends with what is made of its directory.
    pub fn up_with(more: impl FnOnce(&Path) -> String) -> Cloud {
        let file = LabFile::parse(&description(), Path::new("announced.toml")).unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("said-{}-{number}", std::process::id());
        let lab = Lab::up(file.named(&name).unwrap()).unwrap().guard();
        let more = more(&lab.node_directory("controller"));
        let mut processes = vec![start_server(&lab, &more)];
        let place = lab.node("controller").unwrap();
        let clouds_yaml = lab.node_directory("controller").join("clouds.yaml");
        let mut admin = None;
        wait_until(LIMIT, || {
            admin = Client::login(&place, &clouds_yaml).ok();
            admin.is_some()
        });
        let admin = admin.unwrap_or_else(|| panic!("no server: {}", processes[0].log()));
        processes.extend((1..=HOSTS).map(|n| start_agent(&lab, n)));
        let network = json!({"name": "inner", "provider:network_type": "vxlan"});
        let network = text(&admin.create("network", &network).unwrap(), "id");
        for (cidr, version) in [("10.0.0.0/24", 4), ("fd00::/64", 6)] {
            let subnet = json!({"network_id": network, "cidr": cidr, "ip_version": version});
            admin.create("subnet", &subnet).unwrap();
        }
        let open = json!({"name": "open"});
        let open = text(&admin.create("security_group", &open).unwrap(), "id");
        Cloud {
            lab,
            admin,
            network,
            open,
            processes,
        }
    }

    /// The guest of that number on a host: 10.0.0.n and fd00::n; it may use these addresses besides.
    pub fn guest(&self, n: usize, host: usize, pairs: &[&str]) -> Guest {
        let own = [format!("10.0.0.{}", n + 10), format!("fd00::{:x}", n + 16)];
        let port = json!({
            "network_id": self.network, "security_groups": [self.open],
            "binding:host_id": format!("h{host}"), "allowed_address_pairs": paired(pairs),
            "fixed_ips": own.each_ref().map(|addr| json!({"ip_address": addr})),
        });
        let port = self.admin.create("port", &port).unwrap();
        let guest = Guest {
            host,
            port: text(&port, "id"),
            own: own.iter().map(|addr| addr.parse().unwrap()).collect(),
            mac: text(&port, "mac_address").parse().unwrap(),
            place: self.lab.node(&format!("g{n}")).unwrap(),
        };
        self.attach(&guest.port, host, &guest.place);
        guest
    }

    /// Gives the port of a host to a container.
    pub fn attach(&self, port: &str, host: usize, place: &Node) {
        let words = ["port", "attach", port, "--netns", place.netns()];
        self.until("it is plugged", || self.hextet(host, &words).is_ok());
        // Once the server knows that, too, nothing is left to be written of it.
        self.until("its rules stand", || self.status(port) == "ACTIVE");
    }

    /// What the server shows of a port.
    pub fn port(&self, id: &str) -> Value {
        let shown = self
            .admin
            .request("GET", &format!("ports/{id}"), &Value::Null);
        shown.unwrap()["port"].clone()
    }

    /// A port's status.
    pub fn status(&self, id: &str) -> String {
        text(&self.port(id), "status")
    }

    /// Kills the agent of a host (`kill -9`).
    pub fn kill_agent(&mut self, host: usize) {
        assert!(self.processes[host].kill(), "the agent had ended by itself");
    }

    /// Starts the agent of a host again.
    pub fn start_agent(&mut self, host: usize) {
        let config = self.lab.node_directory(&format!("h{host}"));
        let config = config.join("agent.toml");
        self.processes[host] = start(&self.lab, &format!("h{host}"), "agent", &config);
    }

    /// Ends the server and starts it again with this at the end of its configuration.
    pub fn reconfigure_server(&mut self, more: &str) {
        assert!(self.processes[0].kill(), "the server had ended by itself");
        let config = self.lab.node_directory("controller").join("server.toml");
        let text = fs::read_to_string(&config).unwrap() + more;
        fs::write(&config, text).unwrap();
        self.processes[0] = start(&self.lab, "controller", "server", &config);
        let answers = || self.admin.list("network").is_ok();
        self.until("the server answers again", answers);
    }

    /// Runs a program beside the server.
    pub fn beside_server(&mut self, word: &str, command: &mut Command) -> Arc<Process> {
        let controller = self.lab.node("controller").unwrap();
        let process = self.lab.spawn(&controller, word, command).unwrap();
        self.processes.push(Arc::clone(&process));
        process
    }

    /// A guest's port has these attributes from now on.
    pub fn update(&self, guest: &Guest, attributes: &Value) {
        self.admin.update("port", &guest.port, attributes).unwrap();
    }

    /// A guest may use these addresses besides its own from now on, and no others.
    pub fn pairs(&self, guest: &Guest, pairs: &[&str]) {
        let pairs = json!({"allowed_address_pairs": paired(pairs)});
        self.admin.update("port", &guest.port, &pairs).unwrap();
    }

    /// Waits until packets of the network to that address go from one host to another, or on the same to a port.
    #[track_caller]
    pub fn leads_from(&self, from: usize, addr: IpAddr, to: usize) {
        let what = format!("h{from} sends to {addr} on h{to}");
        self.until(&what, || self.way(from, addr) == Some(to));
    }

    /// Has a guest say that it has an address until that makes the way: who has said much may not be heard at once.
    pub fn heeds(&self, guest: &Guest, addr: IpAddr) {
        let what = format!("h3 heeds what is said of {addr}");
        self.until(&what, || {
            guest.says(Word::Gratuitous, addr);
            self.way(3, addr) == Some(guest.host)
        });
    }

    /// Nobody has the address, as far as a host knows.
    #[track_caller]
    pub fn leads_nowhere(&self, from: usize, addr: IpAddr) {
        assert_eq!(self.way(from, addr), None, "{addr} on h{from}");
    }

    /// To which host one sends, by its kernel's route for that address alone.
    fn way(&self, from: usize, addr: IpAddr) -> Option<usize> {
        let (family, len) = if addr.is_ipv4() {
            ("-4", 32)
        } else {
            ("-6", 128)
        };
        let netns = netns(&self.network);
        let prefix = format!("{addr}/{len}");
        let words = ["ip", "-n", &netns, "-j", family, "route", "show", &prefix];
        let shown = self.host(from).run(&words).unwrap();
        let routes: Vec<Value> = serde_json::from_str(&shown).unwrap();
        let route = routes.first()?;
        if route["dev"] != "vxlan" {
            return Some(from);
        }
        let gateway = route["gateway"].as_str().or(route["via"]["host"].as_str());
        let gateway = gateway?.to_owned();
        let others = (1..=HOSTS).filter(|to| *to != from);
        let mut known = others.filter(|to| self.is_known_as(*to, &netns, &gateway));
        known.next()
    }

    /// Whether that is how a host is known on the network.
    fn is_known_as(&self, host: usize, netns: &str, gateway: &str) -> bool {
        let words = ["ip", "-n", netns, "-j", "link", "show", "dev", "vxlan"];
        let Ok(shown) = self.host(host).run(&words) else {
            return false;
        };
        let links: Vec<Value> = serde_json::from_str(&shown).unwrap();
        let mac: Mac = text(&links[0], "address").parse().unwrap();
        mac.link_local().to_string() == gateway
    }

    /// How often what the server was told of has changed something.
    pub fn changes(&self) -> usize {
        let said = "a port's workload was heard";
        self.processes[0].log().matches(said).count()
    }

    /// Waits until the server leaves something of what is said.
    pub fn is_refused(&self) {
        let said = "changes too often";
        self.until(said, || self.processes[0].log().contains(said));
    }

    /// Waits for it.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        if !wait_until(LIMIT, condition) {
            panic!("within {LIMIT:?}: {what}\n{}", self.last_words());
        }
    }

    /// A host.
    pub fn host(&self, n: usize) -> Node {
        self.lab.node(&format!("h{n}")).unwrap()
    }

    /// Runs `hextet` on a host.
    pub fn hextet(&self, host: usize, words: &[&str]) -> Result<String, hextet_lab::Error> {
        run_hextet(&self.lab, host, words)
    }

    /// The ends of all logs.
    pub fn last_words(&self) -> String {
        let ends = self.processes.iter().map(|process| {
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            format!("{}:\n{last}\n", process.name())
        });
        ends.collect()
    }
}

/// Hosts on a bridge, each with an underlay address, and the server's.
fn description() -> String {
    let mut text = "name = \"announced\"\n[node.underlay]\nbridges.br0 = { ports = [\"c\", \
                    \"h1\", \"h2\", \"h3\"] }\n[node.controller]\n"
        .to_owned();
    for n in 1..=HOSTS {
        text += &format!("[node.h{n}]\nown_netns = true\n");
    }
    for n in 1..=GUESTS {
        text += &format!("[node.g{n}]\n");
    }
    let hosts = (1..=HOSTS).map(|n| (format!("h{n}"), format!("h{n}"), n.to_string()));
    let controller = ("controller".to_owned(), "c".to_owned(), "100".to_owned());
    for (node, port, last) in hosts.chain([controller]) {
        text += &format!(
            "[[link]]\na = {{ node = \"{node}\", dev = \"up1\", addresses = [\"2001:db8:ffff::{last}/64\"] }}\n\
             b = {{ node = \"underlay\", dev = \"{port}\" }}\n"
        );
    }
    text
}

fn start_server(lab: &Lab, more: &str) -> Arc<Process> {
    let dir = lab.node_directory("controller");
    let path = dir.join("server.toml");
    let dir = dir.display();
    let text = format!(
        "listen = \"{CLIENTS}\"\nagents = \"{AGENTS}\"\ndata_dir = \"{dir}/data\"\n\
         clouds_yaml = \"{dir}/clouds.yaml\"\nadmin_socket = \"{dir}/server.sock\"\n{more}"
    );
    fs::write(&path, text).unwrap();
    start(lab, "controller", "server", &path)
}

fn start_agent(lab: &Lab, n: usize) -> Arc<Process> {
    let (node, dir) = (format!("h{n}"), lab.node_directory(&format!("h{n}")));
    let path = dir.join("agent.toml");
    let text = format!(
        "server = \"{AGENTS}\"\nstate_dir = \"{0}/state\"\ncontrol_socket = \"{0}/agent.sock\"\n\
         tunnel_address = \"2001:db8:ffff::{n}\"\n\
         [host]\nhost = \"{node}\"\nuplinks = [\"up1\"]\nblackhole_inside = true\n",
        dir.display()
    );
    fs::write(&path, &text).unwrap();
    let config = lab.node_directory("controller").join("server.toml");
    let config = config.to_str().unwrap();
    let controller = lab.node("controller").unwrap();
    let words = [
        PROGRAM,
        "server",
        "join-token",
        "--host",
        &node,
        "--config",
        config,
    ];
    let token = controller.run(&words).unwrap();
    let config = path.to_str().unwrap();
    let words = ["agent", "join", "--token", token.trim(), "--config", config];
    run_hextet(lab, n, &words).unwrap();
    start(lab, &node, "agent", &path)
}

fn start(lab: &Lab, node: &str, word: &str, path: &Path) -> Arc<Process> {
    let mut command = Command::new(PROGRAM);
    command.arg(word).arg("--config").arg(path);
    let node = lab.node(node).unwrap();
    lab.spawn(&node, word, &mut command).unwrap()
}

fn run_hextet(lab: &Lab, n: usize, words: &[&str]) -> Result<String, hextet_lab::Error> {
    let node = format!("h{n}");
    let socket = lab.node_directory(&node).join("agent.sock");
    let socket = format!("HEXTET_AGENT={}", socket.display());
    let all = [&["env", &socket, PROGRAM], words].concat();
    lab.node(&node)?.run(&all)
}

fn paired(addrs: &[&str]) -> Value {
    addrs
        .iter()
        .map(|addr| json!({"ip_address": addr}))
        .collect()
}

/// The namespace of a network.
pub fn netns(network: &str) -> String {
    let id: String = network.chars().filter(|c| *c != '-').collect();
    format!("hx-{}", &id[id.len() - 10..])
}

/// An attribute that is text.
pub fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
