//! The host: its links, its agent, and what that agent uses and writes.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hextet_lab::{Lab, Node, Process};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use serde_json::Value;

use crate::world::wait_for;

/// Connections that a port may have: all that fill the table are of one pair of ports.
const CONNECTIONS: u32 = 262_144;
/// How long the kernel may take to find that all links have a carrier.
const CARRIERS: Duration = Duration::from_secs(300);
/// How long an agent may take until it rests.
const SETTLING: Duration = Duration::from_secs(120);
/// An agent that uses less than a hundredth of a CPU for so long has nothing left to do.
const RESTING: Duration = Duration::from_millis(1500);

/// The host under test.
pub struct Host {
    /// Its namespace.
    pub place: Node,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    agent: Option<Arc<Process>>,
}

/// What an agent says of itself.
pub struct Status {
    /// Writes since its start.
    pub writes: u64,
    /// Objects that have to stand.
    pub objects: u64,
    /// Its ports, and how many of them pass packets.
    pub ports: (usize, usize),
}

impl Host {
    /// Writes the agent's configuration; starts nothing.
    ///
    /// # Errors
    ///
    /// The file can't be written.
    pub fn new(lab: &Lab, program: &Path, server: &str) -> Result<Host> {
        let dir = lab.node_directory("host");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (config, socket) = (dir.join("agent.toml"), dir.join("agent.sock"));
        let text = format!(
            "server = \"{server}\"\nstate_dir = \"{0}/state\"\ncontrol_socket = \"{0}/agent.sock\"\n\n\
             [host]\nhost = \"host\"\nblackhole_inside = true\n\
             max_connections_per_port = {CONNECTIONS}\n",
            dir.display(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Host {
            place: lab.node("host")?,
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
        let config = self.config.to_string_lossy();
        self.hextet(&["agent", "join", "--token", token, "--config", &config])
            .map(drop)
    }

    /// Makes links with these names, whose other ends are in the namespace of the guests, and turns both
    /// ends on; settings are as an agent leaves them.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn make_links(&self, names: &[String], lab: &Lab) -> Result<()> {
        let guests = lab.node("guests")?;
        guests.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
            self.place
                .set_sysctl(&format!("net.ipv6.conf.default.{setting}"), value)?;
        }
        let (mut ours, mut theirs) = (String::new(), String::new());
        for name in names {
            let peer = format!("g{}", name.trim_start_matches("tap"));
            let netns = guests.netns();
            writeln!(
                ours,
                "link add {name} type veth peer name {peer} netns {netns}"
            )?;
            writeln!(ours, "link set {name} up")?;
            writeln!(theirs, "link set {peer} up")?;
        }
        for (place, lines) in [(&self.place, ours), (&guests, theirs)] {
            let batch = lab.node_directory(place.name()).join("links");
            fs::create_dir_all(lab.node_directory(place.name()))?;
            fs::write(&batch, lines).with_context(|| format!("write {}", batch.display()))?;
            place
                .run(&["ip", "-batch", &batch.to_string_lossy()])
                .context("make links")?;
        }
        // The kernel's own work on links that came up is not the agent's.
        wait_for(CARRIERS, || {
            let shown = self.place.run(&["ip", "-br", "link"])?;
            let ready = |line: &&str| line.starts_with("tap") && line.contains(" UP ");
            let ready = shown.lines().filter(ready).count();
            ensure!(ready >= names.len(), "{ready} links have a carrier");
            Ok(())
        })
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

    /// Ends the agent as an upgrade does.
    ///
    /// # Errors
    ///
    /// It had ended by itself, or does not end.
    pub fn stop_agent(&mut self) -> Result<()> {
        let agent = self.agent.take().context("the agent was not running")?;
        if !agent.terminate(Duration::from_secs(10)) {
            bail!("the agent did not end on SIGTERM:\n{}", agent.log());
        }
        Ok(())
    }

    /// CPU time, user and system, that the agent has used since its start, all threads, also ended ones.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn agent_cpu(&self) -> Result<Duration> {
        let agent = self.agent.as_ref().context("the agent is not running")?;
        let pid = Pid::from_raw(i32::try_from(agent.pid()).context("a process id")?);
        let used = clock_getcpuclockid(pid).and_then(|clock| clock.now());
        let used = used.with_context(|| format!("read the CPU clock of the agent, {pid}"))?;
        Ok(used.into())
    }

    /// How much of [`Host::agent_cpu`] was the kernel's part, as far as its clock's ticks tell.
    ///
    /// # Errors
    ///
    /// The agent does not run.
    pub fn agent_system_cpu(&self) -> Result<Duration> {
        let agent = self.agent.as_ref().context("the agent is not running")?;
        let path = format!("/proc/{}/stat", agent.pid());
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let system = behind_name.split_ascii_whitespace().nth(12);
        let ticks: u64 = system.with_context(|| format!("read {path}"))?.parse()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Waits until the agent rests, and gives the CPU time that it has used since its start.
    ///
    /// # Errors
    ///
    /// It ends, or finds no rest.
    pub fn rest(&self) -> Result<Duration> {
        let end = Instant::now() + SETTLING;
        let mut since = (Instant::now(), self.agent_cpu()?);
        loop {
            thread::sleep(Duration::from_millis(50));
            let used = self.agent_cpu()?;
            let rested = since.0.elapsed();
            if used - since.1 > RESTING / 100 {
                since = (Instant::now(), used);
            } else if rested >= RESTING {
                return Ok(since.1);
            }
            if Instant::now() > end {
                bail!("the agent is still busy after {} s", SETTLING.as_secs());
            }
        }
    }

    /// What `hextet status` says.
    ///
    /// # Errors
    ///
    /// The agent does not answer, has not heard of the server, or something can't be written.
    pub fn status(&self) -> Result<Status> {
        let status: Value = serde_json::from_str(&self.hextet(&["status", "--json"])?)?;
        let kernel = &status["kernel"];
        let failed = kernel["failed"].as_array().context("no failures listed")?;
        if let Some(first) = failed.first() {
            bail!("not written: {first} (and {} more)", failed.len() - 1);
        }
        if status["server_silent_secs"].is_null() {
            bail!("the agent has not heard of the server");
        }
        let ports = status["ports"].as_array().context("no ports listed")?;
        let up = ports.iter().filter(|port| port["down"].is_null()).count();
        Ok(Status {
            writes: kernel["writes"].as_u64().context("no writes told")?,
            objects: kernel["objects"].as_u64().context("no objects told")?,
            ports: (ports.len(), up),
        })
    }

    /// What the agent has logged.
    pub fn log(&self) -> String {
        self.agent.as_ref().map(|a| a.log()).unwrap_or_default()
    }

    fn hextet(&self, words: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let socket = format!("HEXTET_AGENT={}", self.socket.display());
        let mut all = vec!["env", &socket, &program];
        all.extend(words);
        Ok(self.place.run(&all)?)
    }
}
