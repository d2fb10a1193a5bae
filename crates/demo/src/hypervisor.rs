//! A hypervisor: a node of the lab with an agent.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};
use hextet_types::Family;
use serde_json::Value;

use crate::{
    check::{expect, wait_for},
    server::Server,
};

/// How long an agent may take until everything that it knows of stands.
const SETTLING: Duration = Duration::from_secs(30);

/// A node with an agent.
#[derive(Debug)]
pub struct Hypervisor {
    /// `h1` …
    pub name: String,
    /// Its namespace.
    pub place: Node,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    agent: Option<Arc<Process>>,
}

/// A BGP peer of a hypervisor.
struct Spine {
    name: &'static str,
    /// The hypervisor's interface towards it.
    interface: &'static str,
    /// Its link-local address.
    address: &'static str,
}

const SPINES: [Spine; 2] = [
    Spine {
        name: "spine1",
        interface: "up1",
        address: "fe80::ff:fe00:51",
    },
    Spine {
        name: "spine2",
        interface: "up2",
        address: "fe80::ff:fe00:52",
    },
];

/// The hypervisors of `labs/fabric.toml`, each in the cloud and with an agent; with tunnels of that family, or
/// none.
///
/// # Errors
///
/// An agent does not join.
pub fn start_all(
    lab: &Lab,
    program: &Path,
    server: &Server,
    tunnels: Option<Family>,
) -> Result<Vec<Hypervisor>> {
    let mut hosts = Vec::new();
    for number in 1..=3 {
        let mut host = Hypervisor::configure(lab, program, server, number, tunnels)?;
        host.join(&server.join_token(&host.name)?)?;
        host.start_agent(lab)?;
        hosts.push(host);
    }
    Ok(hosts)
}

/// Where that hypervisor is reached by tunnels.
pub fn tunnel_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 255, 0, number].into(),
        Family::V6 => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

impl Hypervisor {
    /// Writes the agent's configuration; starts nothing.
    fn configure(
        lab: &Lab,
        program: &Path,
        server: &Server,
        number: u8,
        tunnels: Option<Family>,
    ) -> Result<Hypervisor> {
        let name = format!("h{number}");
        let tunnel = tunnels.map(|family| tunnel_address(number, family));
        let uplink = by_bgp(number, tunnel);
        Hypervisor::with_uplink(lab, program, server, &name, &uplink)
    }

    /// The same, with these lines on what makes workloads reachable; the node and the host have one name.
    ///
    /// # Errors
    ///
    /// There is no such node.
    pub fn with_uplink(
        lab: &Lab,
        program: &Path,
        server: &Server,
        name: &str,
        uplink: &str,
    ) -> Result<Hypervisor> {
        let dir = lab.node_directory(name);
        let (config, socket) = (dir.join("agent.toml"), dir.join("agent.sock"));
        let text = format!(
            "server = \"{1}\"\nstate_dir = \"{0}/state\"\ncontrol_socket = \"{0}/agent.sock\"\n{uplink}",
            dir.display(),
            server.agents_address(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Hypervisor {
            place: lab.node(name)?,
            name: name.to_owned(),
            program: program.to_owned(),
            config,
            socket,
            agent: None,
        })
    }

    /// Joins the cloud with a one-time token.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn join(&self, token: &str) -> Result<()> {
        let config = self.config.to_string_lossy().into_owned();
        self.hextet(&["agent", "join", "--token", token, "--config", &config])
            .map(drop)
    }

    /// Runs `hextet` on this host.
    ///
    /// # Errors
    ///
    /// It fails; with what it said.
    pub fn hextet(&self, words: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let socket = format!("HEXTET_AGENT={}", self.socket.display());
        let mut all = vec!["env", &socket, &program];
        all.extend(words);
        Ok(self.place.run(&all)?)
    }

    /// Runs `hextet` on this host; gives what it printed, and whether it succeeded.
    ///
    /// # Errors
    ///
    /// It can't be run.
    pub fn hextet_says(&self, words: &[&str]) -> Result<(String, bool)> {
        let program = self.program.to_string_lossy();
        let socket = format!("HEXTET_AGENT={}", self.socket.display());
        let all = [&["env", &socket, &program], words].concat();
        let output = self.place.output(&all)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((said, output.status.success()))
    }

    /// Starts the agent.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start_agent(&mut self, lab: &Lab) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("agent").arg("--config").arg(&self.config);
        self.agent = Some(lab.spawn(&self.place, "agent", &mut command)?);
        Ok(())
    }

    /// Starts the agent unless it runs.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn keep_agent(&mut self, lab: &Lab) -> Result<()> {
        match self.agent.as_ref().is_some_and(|agent| agent.runs()) {
            true => Ok(()),
            false => self.start_agent(lab),
        }
    }

    /// Kills the agent with `kill -9`.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn kill_agent(&mut self) -> Result<u32> {
        let agent = self.agent.take().context("the agent was not running")?;
        expect(agent.kill(), "the agent had ended by itself")?;
        Ok(agent.pid())
    }

    /// What `hextet status --json` says.
    ///
    /// # Errors
    ///
    /// The agent does not answer.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.hextet(&["status", "--json"])?)?)
    }

    /// Waits until the server is heard, every BGP session stands and nothing is left to write.
    ///
    /// # Errors
    ///
    /// It does not come to that in time.
    pub fn wait_until_settled(&mut self) -> Result<()> {
        wait_for(SETTLING, || {
            expect(
                self.agent.as_ref().is_some_and(|a| a.runs()),
                "the agent has ended",
            )?;
            let status = self.status()?;
            expect(
                status["server_silent_secs"].as_u64().is_some(),
                "the server was not heard yet",
            )?;
            for peer in status["peers"].as_array().into_iter().flatten() {
                expect(
                    peer["state"] == "Established",
                    format!("BGP with {}: {}", peer["name"], peer["state"]),
                )?;
            }
            let failed = &status["kernel"]["failed"];
            expect(
                failed.as_array().is_some_and(Vec::is_empty),
                format!("failed: {failed}"),
            )?;
            let output = self.hextet(&["plan", "--json"])?;
            expect(output.trim() == "[]", format!("left to write: {output}"))
        })
        .with_context(|| {
            format!(
                "{} does not settle; its log ends:\n{}",
                self.name,
                self.last_words()
            )
        })
    }
}

impl Hypervisor {
    fn last_words(&self) -> String {
        let log = self.agent.as_ref().map(|a| a.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default()
            .join("\n")
    }
}

fn by_bgp(number: u8, tunnel: Option<IpAddr>) -> String {
    let tunnel = tunnel.map(|address| format!("tunnel_address = \"{address}\"\n"));
    let mut text = format!(
        "{}\n\
         [host]\nhost = \"h{number}\"\nuplinks = [\"up1\", \"up2\"]\nblackhole_inside = true\n\n\
         [bgp]\nasn = 64512\nrouter_id = \"10.255.0.{number}\"\nhold_time_secs = 30\n",
        tunnel.unwrap_or_default(),
    );
    for spine in SPINES {
        text.push_str(&format!(
            "\n[[bgp.peers]]\nname = \"{}\"\naddress = \"{}\"\ninterface = \"{}\"\nasn = 64512\nbfd = true\n",
            spine.name, spine.address, spine.interface,
        ));
    }
    text
}
