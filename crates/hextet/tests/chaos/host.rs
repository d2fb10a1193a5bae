//! A host with an agent, and the server on it, too; and its workloads' namespaces.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use hextet_lab::{Lab, LabFile, LabGuard, Node, Process, wait_until};
use serde_json::Value;

use crate::{
    client::{CLIENTS, Client},
    client_of,
    operator::{self, Workload},
};

/// The host's name in the cloud.
pub const NAME: &str = "h1";
const AGENTS: &str = "[::1]:9797";
const PROGRAM: &str = env!("CARGO_BIN_EXE_hextet");
const STARTING: Duration = Duration::from_secs(30);
const LAB: &str = r#"
name = "chaos"
[node.host]
[node.outside]
[node.w1]
[node.w2]
[node.w3]
[[link]]
a = { node = "host", dev = "up1", addresses = ["192.0.2.1/24", "2001:db8:ffff::1/64"] }
b = { node = "outside", dev = "up1", addresses = ["192.0.2.2/24", "2001:db8:ffff::2/64"] }
"#;

/// What may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `hextet server`.
    Server,
    /// `hextet agent`.
    Agent,
}

impl Program {
    fn word(self) -> &'static str {
        match self {
            Program::Server => "server",
            Program::Agent => "agent",
        }
    }
}

/// What others need to know of it.
#[derive(Clone)]
pub struct Parts {
    /// The host's namespace.
    pub place: Node,
    /// The administrator's access.
    pub clouds_yaml: PathBuf,
}

/// The host.
pub struct Host {
    lab: LabGuard,
    place: Node,
    dir: PathBuf,
    running: BTreeMap<Program, Arc<Process>>,
}

impl Host {
    /// With a server that answers and an agent that has joined.
    pub fn up() -> Host {
        let file = LabFile::parse(LAB, Path::new("chaos.toml")).unwrap();
        let file = file.named(&format!("chaos-{}", std::process::id()));
        let lab = Lab::up(file.unwrap()).unwrap().guard();
        let (place, dir) = (lab.node("host").unwrap(), lab.node_directory("host"));
        let mut host = Host {
            lab,
            place,
            dir,
            running: BTreeMap::new(),
        };
        host.configure();
        host.start(Program::Server);
        host.client();
        let config = host.file("server.toml");
        let words = ["server", "join-token", "--host", NAME, "--config", &config];
        let token = host.hextet(&words).unwrap();
        let config = host.file("agent.toml");
        let words = [
            "agent",
            "join",
            "--token",
            token.trim(),
            "--config",
            &config,
        ];
        host.hextet(&words).unwrap();
        host.start(Program::Agent);
        host
    }

    fn configure(&self) {
        let dir = self.dir.display();
        let server = format!(
            "listen = \"{CLIENTS}\"\nagents = \"{AGENTS}\"\ndata_dir = \"{dir}/data\"\n\
             clouds_yaml = \"{dir}/clouds.yaml\"\nadmin_socket = \"{dir}/server.sock\"\n"
        );
        let agent = format!(
            "server = \"{AGENTS}\"\nstate_dir = \"{dir}/state\"\ncontrol_socket = \"{dir}/agent.sock\"\n\
             [host]\nhost = \"{NAME}\"\nuplinks = [\"up1\"]\nblackhole_inside = true\n"
        );
        for (name, text) in [("server.toml", server), ("agent.toml", agent)] {
            fs::write(self.dir.join(name), text).unwrap();
        }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// The lab that it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Another namespace.
    pub fn node(&self, name: &str) -> Node {
        self.lab.node(name).unwrap()
    }

    /// What others need to know.
    pub fn parts(&self) -> Parts {
        Parts {
            place: self.place.clone(),
            clouds_yaml: self.dir.join("clouds.yaml"),
        }
    }

    /// Starts a program; it may still be starting when this returns.
    pub fn start(&mut self, program: Program) {
        let mut command = Command::new(PROGRAM);
        let config = self.file(&format!("{}.toml", program.word()));
        command.args([program.word(), "--config", &config]);
        let process = self.lab.spawn(&self.place, program.word(), &mut command);
        self.running.insert(program, process.unwrap());
    }

    /// `kill -9`. It must have been there to be killed: nobody ends by himself.
    pub fn kill(&mut self, program: Program) {
        let process = self.running.remove(&program).unwrap();
        let ran = process.runs();
        assert!(process.kill(), "{program:?} does not end");
        // The first of its threads is gone then; its locks go with the last.
        wait_until(STARTING, || process.ended().is_some());
        assert!(ran, "{program:?} had ended:\n{}", tail(&process));
    }

    /// Runs `hextet` on the host.
    pub fn hextet(&self, words: &[&str]) -> Result<String> {
        let socket = format!("HEXTET_AGENT={}", self.file("agent.sock"));
        let all = [&["env", &socket, PROGRAM], words].concat();
        Ok(self.place.run(&all)?)
    }

    /// Runs a program of the system on the host.
    pub fn run(&self, words: &[&str]) -> String {
        self.place.run(words).unwrap()
    }

    /// The administrator, once the server answers.
    pub fn client(&self) -> Client {
        let mut client = Err(anyhow::anyhow!("not tried"));
        wait_until(STARTING, || {
            client = client_of(&self.place, &self.dir.join("clouds.yaml"));
            client.is_ok()
        });
        client.unwrap_or_else(|e| panic!("{e:#}\n{}", self.last_words()))
    }

    /// Plugs a port into its namespace and gives it its addresses.
    pub fn plug(&self, workload: &Workload) {
        let place = self.node(workload.place);
        let words = ["port", "attach", &workload.port, "--netns", place.netns()];
        self.hextet(&words).unwrap();
        for address in &workload.addresses {
            let (length, family, gateway) = match address {
                IpAddr::V4(_) => ("24", "-4", "198.51.100.1"),
                IpAddr::V6(_) => ("64", "-6", "fe80::1"),
            };
            let address = format!("{address}/{length}");
            let mut words = vec!["ip", "addr", "add", &address, "dev", "eth0"];
            words.extend((family == "-6").then_some("nodad"));
            place.run(&words).unwrap();
            let route = ["route", "replace", "default", "via", gateway, "dev", "eth0"];
            place.run(&[&["ip", family][..], &route].concat()).unwrap();
        }
    }

    /// Makes the TAPs of all ports here that have none: what has no link can't be programmed.
    pub fn plug_the_rest(&self) {
        let ports = ports_of_the_cloud(&self.client()).unwrap();
        let links = self.run(&["ip", "-o", "link"]);
        for port in ports.keys() {
            let name = operator::tap(port);
            if !links.contains(&name) {
                self.run(&["ip", "tuntap", "add", &name, "mode", "tap"]);
            }
        }
    }

    /// Removes all that agents made.
    pub fn leave(&self) {
        self.hextet(&["agent", "leave", "--config", &self.file("agent.toml")])
            .unwrap();
    }

    /// Whether the agent knows all that the cloud has for this host, and the kernel is what follows.
    pub fn agrees(&self) -> Result<()> {
        let cloud = client_of(&self.place, &self.dir.join("clouds.yaml"))?;
        let status: Value = serde_json::from_str(&self.hextet(&["status", "--json"])?)?;
        ensure!(
            status["server_silent_secs"].is_u64(),
            "the agent has not heard the server"
        );
        let wanted = ports_of_the_cloud(&cloud)?;
        let known = ports_of_the_agent(&status);
        if wanted != known {
            let both = |name| format!("{name}: {:?} {:?}", wanted.get(name), known.get(name));
            let differs = |name: &&String| wanted.get(*name) != known.get(*name);
            let names = wanted.keys().chain(known.keys()).filter(differs);
            bail!(
                "cloud and agent differ: {:?}",
                names.map(both).collect::<Vec<_>>()
            );
        }
        let failed = &status["kernel"]["failed"];
        ensure!(failed.as_array().is_some_and(Vec::is_empty), "{failed}");
        let plan = self.hextet(&["plan", "--json"])?;
        ensure!(plan.trim() == "[]", "left to write: {plan}");
        Ok(())
    }

    /// The ends of their logs.
    pub fn last_words(&self) -> String {
        let tails = self.running.values().map(|process| tail(process));
        tails.collect::<Vec<_>>().join("\n")
    }
}

/// Each port with its Ethernet address and its addresses.
type Ports = BTreeMap<String, (String, Vec<String>)>;

fn ports_of_the_cloud(cloud: &Client) -> Result<Ports> {
    let ports = cloud.list("port")?.into_iter();
    // Sources of NAT44 are ports, too, that no workload is behind.
    let is_ours = |port: &Value| text(&port["device_owner"]).starts_with("network:");
    let here = ports.filter(|port| port["binding:host_id"] == NAME && !is_ours(port));
    let described = here.map(|port| {
        let fixed_ips = port["fixed_ips"].as_array().cloned().unwrap_or_default();
        let addresses = fixed_ips.iter().map(|fixed| text(&fixed["ip_address"]));
        let mac = text(&port["mac_address"]);
        (text(&port["id"]), (mac, sorted(addresses)))
    });
    Ok(described.collect())
}

fn ports_of_the_agent(status: &Value) -> Ports {
    let ports = status["ports"].as_array().into_iter().flatten();
    let described = ports.map(|port| {
        let addresses = port["addresses"].as_array().into_iter().flatten().map(text);
        (text(&port["id"]), (text(&port["mac"]), sorted(addresses)))
    });
    described.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts
}

fn tail(process: &Process) -> String {
    let log = process.log();
    let lines: Vec<&str> = log.lines().collect();
    format!(
        "{}:\n{}",
        process.name(),
        lines[lines.len().saturating_sub(15)..].join("\n")
    )
}
