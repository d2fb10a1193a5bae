//! Nodes of a mesh by the commands that people type, in network namespaces: they find each other by the registry, carry both families over either,
//! lose nothing when their programs are killed, and keep to rules and revocations.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use hextet_lab::{Lab, LabFile, LabGuard, Node, Process, wait_until};
use hextet_types::{Family, Prefix};
use serde_json::Value;

const NODES: [&str; 3] = ["a", "b", "c"];
const LIMIT: Duration = Duration::from_secs(60);

/// A registry and three nodes on one network outside.
struct Mesh {
    lab: LabGuard,
    members: Vec<Member>,
}

struct Member {
    name: &'static str,
    place: Node,
    directory: PathBuf,
    program: Option<Arc<Process>>,
    number: String,
    /// Its addresses in the mesh, of both families.
    homes: Vec<IpAddr>,
}

fn outside(family: Family, host: u8) -> String {
    match family {
        Family::V4 => format!("203.0.113.{host}"),
        Family::V6 => format!("2001:db8:ffff::{host:x}"),
    }
}

fn description(family: Family) -> String {
    let len = match family {
        Family::V4 => 24,
        Family::V6 => 64,
    };
    let mut text = "name = \"node\"\n[node.net]\n".to_owned();
    text.push_str("bridges.br = { ports = [\"r\", \"a\", \"b\", \"c\"] }\n");
    for (name, host) in [("r", 1), ("a", 11), ("b", 12), ("c", 13)] {
        let address = outside(family, host);
        write!(
            text,
            "[node.{name}]\n[[link]]\na = {{ node = \"net\", dev = \"{name}\" }}\n\
             b = {{ node = \"{name}\", dev = \"up\", addresses = [\"{address}/{len}\"] }}\n"
        )
        .unwrap();
    }
    text
}

impl Mesh {
    fn up(family: Family, more: &str) -> Mesh {
        let version = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let name = format!("node{version}{more}-{}", std::process::id());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("node.toml");
        let file = LabFile::parse(&description(family), &path).unwrap();
        let lab = Lab::up(file.named(&name).unwrap()).unwrap().guard();
        let mut mesh = Mesh {
            lab,
            members: Vec::new(),
        };
        mesh.start_registry(family);
        for name in NODES {
            mesh.join(name);
        }
        for name in NODES {
            mesh.start(name);
        }
        mesh
    }

    fn start_registry(&self, family: Family) {
        let directory = self.lab.node_directory("r");
        let at = match family {
            Family::V4 => format!("{}:8443", outside(family, 1)),
            Family::V6 => format!("[{}]:8443", outside(family, 1)),
        };
        let text = format!(
            "url = \"https://{at}\"\nlisten = \"{at}\"\nstore = \"{0}/store\"\nsocket = \"{0}/registry.sock\"\nipv4 = \"10.64.0.0/16\"\n",
            directory.display()
        );
        let config = directory.join("registry.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hextet"));
        command.args(["registry", "--config"]).arg(config);
        let place = self.lab.node("r").unwrap();
        self.lab.spawn(&place, "registry", &mut command).unwrap();
        let answers = || self.try_ask(&["door"]).is_ok();
        assert!(wait_until(LIMIT, answers), "the registry does not start");
    }

    fn try_ask(&self, words: &[&str]) -> Result<String, hextet_lab::Error> {
        let socket = self.lab.node_directory("r").join("registry.sock");
        let socket = socket.to_str().unwrap();
        let program = [env!("CARGO_BIN_EXE_hextet"), "mesh"];
        let words = [&program[..], words, &["--registry", socket]].concat();
        self.lab.node("r").unwrap().run(&words)
    }

    /// As an administrator.
    fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).unwrap().trim().to_owned()
    }

    fn join(&mut self, name: &'static str) {
        let (place, directory) = (self.lab.node(name).unwrap(), self.lab.node_directory(name));
        let invitation = self.ask(&["token", "--group", &format!("of-{name}")]);
        let mesh = directory.join("mesh");
        let words = [
            env!("CARGO_BIN_EXE_hextet"),
            "mesh",
            "join",
            &invitation,
            "--directory",
            mesh.to_str().unwrap(),
        ];
        let said = place.run(&words).unwrap();
        // Node NUMBER of network NUMBER: PREFIX, PREFIX.
        let words: Vec<&str> = said.split_whitespace().collect();
        let prefixes = words[5..].iter().map(|p| p.trim_end_matches(['.', ',']));
        let homes = prefixes.map(|prefix| first(prefix.parse().unwrap()));
        let text = format!(
            "directory = \"{0}/mesh\"\nsocket = \"{0}/mesh.sock\"\ntunnels = \"{0}/tunnels.sock\"\n",
            directory.display()
        );
        fs::write(directory.join("mesh.toml"), text).unwrap();
        self.members.push(Member {
            name,
            place,
            number: words[1].to_owned(),
            homes: homes.collect(),
            directory,
            program: None,
        });
    }

    fn start(&mut self, name: &str) {
        let member = self.members.iter_mut().find(|m| m.name == name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hextet"));
        command
            .args(["mesh", "run", "--config"])
            .arg(member.directory.join("mesh.toml"));
        let process = self.lab.spawn(&member.place, "node", &mut command);
        member.program = Some(process.unwrap());
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|m| m.name == name).unwrap()
    }

    /// What of this does not reach each other.
    fn missed(&self, names: &[&str]) -> Vec<String> {
        let mut missed = Vec::new();
        for from in names {
            for to in names.iter().filter(|to| *to != from) {
                for home in &self.member(to).homes {
                    if !self.member(from).place.ping(&home.to_string()).unwrap() {
                        missed.push(format!("{from} to {home}"));
                    }
                }
            }
        }
        missed
    }

    #[track_caller]
    fn all_reach_all(&self, names: &[&str]) {
        let mut missed = Vec::new();
        let reached = wait_until(LIMIT, || {
            missed = self.missed(names);
            missed.is_empty()
        });
        assert!(reached, "{missed:?}\n{}", self.last_words());
    }

    fn last_words(&self) -> String {
        let programs = self.members.iter().filter_map(|m| m.program.as_ref());
        let words = programs.map(|p| format!("{}:\n{}\n", p.name(), p.log()));
        words.collect()
    }
}

impl Member {
    fn status(&self) -> Option<Value> {
        let socket = self.directory.join("mesh.sock");
        let words = [
            env!("CARGO_BIN_EXE_hextet"),
            "mesh",
            "status",
            "--json",
            "--socket",
            socket.to_str().unwrap(),
        ];
        serde_json::from_str(&self.place.run(&words).ok()?).ok()
    }

    /// Nodes to which it has tunnels that carry.
    fn tunnels(&self) -> Vec<String> {
        let status = self.status().unwrap_or_default();
        let tunnels = status["tunnels"].as_array().into_iter().flatten();
        let up = tunnels.filter(|tunnel| tunnel["up"] == true);
        up.map(|tunnel| tunnel["node"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The number of the process that holds its tunnels.
    fn holder(&self) -> Option<String> {
        let socket = self.directory.join("tunnels.sock");
        let ours = format!("mesh\0tunnels\0{}\0", socket.display());
        let mut entries = fs::read_dir("/proc").unwrap().flatten();
        let found = entries.find(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).ends_with(&ours)
        });
        found.map(|entry| entry.file_name().to_string_lossy().into_owned())
    }
}

fn first(prefix: Prefix) -> IpAddr {
    match prefix.addr() {
        addr if prefix.is_host() => addr,
        IpAddr::V4(addr) => IpAddr::V4((u32::from(addr) | 1).into()),
        IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) | 1).into()),
    }
}

fn programs_are_killed(family: Family) {
    let mut mesh = Mesh::up(family, "");
    mesh.all_reach_all(&NODES);
    let (a, b) = (mesh.member("a"), mesh.member("b"));
    let often = Duration::from_millis(20);
    let streams: Vec<_> = (b.homes.iter().enumerate())
        .map(|(nth, home)| {
            let name = format!("stream{nth}");
            let home = home.to_string();
            mesh.lab.ping_stream(&a.place, &name, &home, often).unwrap()
        })
        .collect();
    let holders = [a.holder().unwrap(), b.holder().unwrap()];
    for name in ["a", "b"] {
        let program = mesh.member(name).program.as_ref().unwrap();
        assert!(program.kill(), "{}", program.log());
    }
    thread::sleep(Duration::from_secs(6));
    for name in ["a", "b"] {
        mesh.start(name);
    }
    let settled = |name| {
        let status = mesh.member(name).status();
        status.is_some_and(|status| status["resuming"] == false)
    };
    let both = wait_until(LIMIT, || settled("a") && settled("b"));
    assert!(both, "{}", mesh.last_words());
    mesh.all_reach_all(&NODES);
    for stream in streams {
        let report = stream.finish().unwrap();
        let whole = report.sent > 200 && report.lost() == 0;
        assert!(whole, "{report:?}\n{}", mesh.last_words());
    }
    let holders_now = ["a", "b"].map(|name| mesh.member(name).holder().unwrap());
    assert_eq!(holders_now, holders);
}

#[test]
fn programs_are_killed_over_ipv4_and_nothing_is_lost() {
    programs_are_killed(Family::V4);
}

#[test]
fn programs_are_killed_over_ipv6_and_nothing_is_lost() {
    programs_are_killed(Family::V6);
}

#[test]
fn without_registry_and_tunnels_a_node_finds_the_others_again() {
    let mut mesh = Mesh::up(Family::V4, "again");
    mesh.all_reach_all(&NODES);
    let remembers = || {
        let text = fs::read_to_string(mesh.member("a").directory.join("mesh/nodes.json"));
        text.is_ok_and(|text| text.contains(&mesh.member("b").number))
    };
    assert!(wait_until(LIMIT, remembers));
    let registry = mesh.lab.process("r/registry").unwrap();
    assert!(registry.kill());
    let holder = mesh.member("a").holder().unwrap();
    let killed = Command::new("kill").args(["-9", &holder]).status();
    assert!(killed.unwrap().success());
    let replaced = || {
        let now = mesh.member("a").holder();
        now.is_some_and(|now| now != holder)
    };
    assert!(wait_until(LIMIT, replaced), "{}", mesh.last_words());
    mesh.all_reach_all(&NODES);
    // Both at once, and everything from the disk.
    assert!(mesh.member("a").program.as_ref().unwrap().kill());
    let holder = mesh.member("a").holder().unwrap();
    let killed = Command::new("kill").args(["-9", &holder]).status();
    assert!(killed.unwrap().success());
    mesh.start("a");
    mesh.all_reach_all(&NODES);
}

#[test]
fn rules_and_revocations_are_kept_everywhere() {
    let mesh = Mesh::up(Family::V4, "rules");
    mesh.all_reach_all(&NODES);
    let rules = mesh.lab.directory().join("rules.toml");
    let text = "default = \"deny\"\n[[rule]]\nfrom = [\"of-a\"]\nto = [\"of-b\"]\nprotocol = \"tcp\"\nports = [\"5430-5433\"]\naction = \"allow\"\n[[rule]]\nprotocol = \"icmp\"\naction = \"allow\"\n";
    fs::write(&rules, text).unwrap();
    let b = mesh.member("b");
    // By how many of the two families.
    let connects = |from: &str, port: u16| {
        let from = &mesh.member(from).place;
        let soon = Duration::from_secs(2);
        let homes = b.homes.iter();
        homes
            .filter(|home| from.connects(**home, port, soon).unwrap())
            .count()
    };
    let listeners: Vec<_> = [5_432, 22]
        .into_iter()
        .flat_map(|port: u16| b.homes.iter().map(move |home| (*home, port)))
        .map(|at| b.place.enter(|| std::net::TcpListener::bind(at)).unwrap())
        .collect();
    // Who is not taken in fills a queue, behind which nobody gets an answer. The threads end with the test.
    for listener in listeners {
        let listener = listener.unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
    }
    assert_eq!((connects("c", 5_432), connects("a", 22)), (2, 2));
    mesh.ask(&["params", "--rules", rules.to_str().unwrap()]);
    let enforced = || {
        let all = [("c", 5_432), ("a", 22), ("a", 5_432)];
        all.map(|(from, port)| connects(from, port)) == [0, 0, 2]
    };
    assert!(wait_until(LIMIT, enforced), "{}", mesh.last_words());
    mesh.all_reach_all(&NODES);

    let c = mesh.member("c");
    mesh.ask(&["revoke", &c.number]);
    let is_out = || {
        let mut others = ["a", "b"].into_iter();
        others.all(|name| {
            let other = mesh.member(name);
            let way = ["ip", "route", "get", &c.homes[0].to_string()];
            let way = other.place.output(&way).unwrap();
            let way = String::from_utf8_lossy(&way.stdout).into_owned();
            !other.tunnels().contains(&c.number) && !way.contains("hxm")
        })
    };
    assert!(wait_until(LIMIT, is_out), "{}", mesh.last_words());
    mesh.all_reach_all(&["a", "b"]);
}
