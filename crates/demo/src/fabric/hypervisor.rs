//! A hypervisor: a node of the lab with an agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};
use serde_json::Value;

use crate::check::{expect, wait_for};

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
#[derive(Clone, Debug)]
pub struct Spine {
    /// `spine1` …
    pub name: String,
    /// The hypervisor's interface towards it.
    pub interface: String,
    /// Its link-local address.
    pub address: String,
}

impl Hypervisor {
    /// Writes the agent's configuration into `state`; starts nothing.
    ///
    /// # Errors
    ///
    /// The files can't be written.
    pub fn new(
        name: &str,
        number: u8,
        place: Node,
        spines: &[Spine],
        server: &str,
        program: &Path,
        state: &Path,
    ) -> Result<Hypervisor> {
        let dir = state.to_owned();
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (config, socket) = (dir.join("agent.toml"), dir.join("agent.sock"));
        let text = configuration(name, number, spines, server, &dir);
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Hypervisor {
            name: name.to_owned(),
            place,
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

fn configuration(name: &str, number: u8, spines: &[Spine], server: &str, dir: &Path) -> String {
    let uplinks: Vec<String> = spines
        .iter()
        .map(|s| format!("\"{}\"", s.interface))
        .collect();
    let mut text = format!(
        "server = \"{server}\"\nstate_dir = \"{0}/state\"\ncontrol_socket = \"{0}/agent.sock\"\n\n\
         [host]\nhost = \"{name}\"\nuplinks = [{1}]\nblackhole_inside = true\n\n\
         [bgp]\nasn = 64512\nrouter_id = \"10.255.0.{number}\"\nhold_time_secs = 30\n",
        dir.display(),
        uplinks.join(", "),
    );
    for spine in spines {
        text.push_str(&format!(
            "\n[[bgp.peers]]\nname = \"{}\"\naddress = \"{}\"\ninterface = \"{}\"\nasn = 64512\nbfd = true\n",
            spine.name, spine.address, spine.interface,
        ));
    }
    text
}
