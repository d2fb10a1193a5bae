//! A member of the mesh: a node of the lab with `hextet mesh run`, and with the process that holds its tunnels.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};
use hextet_types::{Prefix, Way};
use serde::Deserialize;

use super::{gateway, insight, lan, uplinks};
use crate::check::{expect, wait_for};

/// How long its program may take to answer.
const STARTING: Duration = Duration::from_secs(20);

/// A member.
pub struct Member {
    /// `p1` …
    pub name: &'static str,
    /// Its namespace.
    pub place: Node,
    /// As whom the internet sees it.
    pub outside: Vec<IpAddr>,
    /// Its number.
    pub id: String,
    /// Its first address.
    pub home: Ipv6Addr,
    program: PathBuf,
    directory: PathBuf,
    process: Option<Arc<Process>>,
}

/// How it says that it stands.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Its number.
    pub node: String,
    /// Its first address.
    pub home: Option<Ipv6Addr>,
    /// What it got.
    pub prefixes: Vec<String>,
    /// Who can begin to talk to it.
    pub reach: String,
    /// Its tunnels.
    pub tunnels: Vec<Tunnel>,
    /// Nodes on the same network, which are reached without.
    pub lan: Vec<Beside>,
    /// Routes that are none of the mesh's.
    pub direct: Vec<Direct>,
    /// What Babel knows.
    pub routes: Vec<Route>,
}

/// A tunnel.
#[derive(Clone, Debug, Deserialize)]
pub struct Tunnel {
    /// With whom.
    pub node: String,
    /// Whether it carries packets.
    pub up: bool,
    /// Where the other end is.
    pub endpoint: Option<Way>,
}

/// A node on the same network.
#[derive(Clone, Debug, Deserialize)]
pub struct Beside {
    /// Which.
    pub node: String,
    /// By which interface.
    pub interface: Option<String>,
    /// How far it is.
    pub round_trip_ms: Option<f64>,
}

/// A route that is none of the mesh's.
#[derive(Clone, Debug, Deserialize)]
pub struct Direct {
    /// Whether it answers.
    pub good: bool,
}

/// A route.
#[derive(Clone, Debug, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// For which packets.
    pub class: String,
    /// By whom.
    pub via: Option<Hop>,
    /// Whether packets go this way.
    pub chosen: bool,
}

/// A neighbour.
#[derive(Clone, Debug, Deserialize)]
pub struct Hop {
    /// Which node.
    pub node: Option<String>,
}

impl Status {
    /// The tunnel that carries packets to that node.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn tunnel_to(&self, other: &Member) -> Result<&Tunnel> {
        let mut tunnels = self.tunnels.iter();
        tunnels
            .find(|tunnel| tunnel.node == other.id && tunnel.up)
            .with_context(|| format!("{} has no tunnel to {}", self.node, other.name))
    }

    /// Its address of IPv4.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn ipv4(&self) -> Result<String> {
        let mut prefixes = self.prefixes.iter();
        let address = prefixes.find_map(|prefix| prefix.strip_suffix("/32"));
        let address = address.with_context(|| format!("{} has no IPv4", self.node))?;
        Ok(address.to_owned())
    }

    /// The neighbour by which packets go to that node.
    ///
    /// # Errors
    ///
    /// There is no way.
    pub fn next_to(&self, other: &Member) -> Result<&str> {
        self.next_in("latency", other)
    }

    /// The same, for packets of a class.
    ///
    /// # Errors
    ///
    /// There is no way.
    pub fn next_in(&self, class: &str, other: &Member) -> Result<&str> {
        let mut routes = self.routes.iter();
        let chosen = routes.find(|route| {
            let is_way = route.chosen && route.class == class && !route.to.is_default();
            is_way && route.to.contains(other.home.into())
        });
        chosen
            .and_then(|route| route.via.as_ref()?.node.as_deref())
            .with_context(|| format!("{} has no way to {}", self.node, other.name))
    }
}

impl Member {
    /// Joins with an invitation, and writes its configuration; starts nothing.
    ///
    /// # Errors
    ///
    /// The registry refuses.
    pub fn join(
        lab: &Lab,
        program: &Path,
        (name, outside): (&'static str, &[&str]),
        invitation: &str,
    ) -> Result<Member> {
        let member = Member {
            name,
            place: lab.node(name)?,
            outside: outside
                .iter()
                .map(|address| Ok(address.parse()?))
                .collect::<Result<_>>()?,
            id: String::new(),
            home: Ipv6Addr::UNSPECIFIED,
            program: program.to_owned(),
            directory: lab.node_directory(name),
            process: None,
        };
        let text = format!(
            "directory = \"{0}/mesh\"\nsocket = \"{0}/mesh.sock\"\ntunnels = \"{0}/tunnels.sock\"\n",
            member.directory.display()
        );
        let text = match name {
            uplinks::HERE => text + uplinks::CONFIG,
            name if lan::HERE.contains(&name) => text + lan::CONFIG,
            _ => text,
        };
        let text = text + gateway::config(name) + &insight::config(name);
        let config = member.config();
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        member.enrol(invitation)?;
        Ok(member)
    }

    fn enrol(&self, invitation: &str) -> Result<()> {
        let directory = self.kept();
        let directory = directory.to_string_lossy();
        self.hextet(&[
            "join",
            invitation,
            "--directory",
            &directory,
            "--name",
            self.name,
        ])
        .map(drop)
    }

    /// What its program remembers.
    fn kept(&self) -> PathBuf {
        self.directory.join("mesh")
    }

    /// Forgets who it was, joins as somebody new, and runs.
    ///
    /// # Errors
    ///
    /// The registry refuses, or its program does not answer.
    pub fn begin_anew(&mut self, lab: &Lab, invitation: &str) -> Result<()> {
        self.kill_all()?;
        let kept = self.kept();
        fs::remove_dir_all(&kept).with_context(|| format!("remove {}", kept.display()))?;
        self.enrol(invitation)?;
        self.start(lab)?;
        self.introduce()
    }

    /// Starts its program.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start(&mut self, lab: &Lab) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["mesh", "run", "--config"])
            .arg(self.config())
            .env("NO_COLOR", "1");
        self.process = Some(lab.spawn(&self.place, "mesh", &mut command)?);
        Ok(())
    }

    /// Waits until its program answers, and learns who it is.
    ///
    /// # Errors
    ///
    /// It does not, or it has ended.
    pub fn introduce(&mut self) -> Result<()> {
        let status = wait_for(STARTING, || {
            let process = self.process.as_ref().context("it was not started")?;
            expect(
                process.runs(),
                format!("{} has ended:\n{}", self.name, process.log()),
            )?;
            self.status()
        })?;
        self.home = status.home.context("no address")?;
        self.id = status.node;
        Ok(())
    }

    /// Kills its program with `kill -9`; its tunnels stay.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        let process = process.with_context(|| format!("{} was not running", self.name))?;
        expect(process.kill(), format!("{} had ended by itself", self.name))
    }

    /// Kills its program and its tunnels with `kill -9`, as when the host loses its power.
    ///
    /// # Errors
    ///
    /// They were not running.
    pub fn kill_all(&mut self) -> Result<()> {
        self.kill()?;
        self.kill_tunnels()
    }

    /// Kills the process that holds its tunnels with `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// There was none.
    pub fn kill_tunnels(&self) -> Result<()> {
        let pid = self.tunnels_pid()?;
        self.place.run(&["kill", "-9", &pid.to_string()])?;
        wait_for(STARTING, || {
            expect(
                self.tunnels_pid().ok() != Some(pid),
                "the process for tunnels does not end",
            )
        })
    }

    /// The process that holds its tunnels.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn tunnels_pid(&self) -> Result<u32> {
        let socket = self.directory.join("tunnels.sock");
        let wanted = format!("mesh\0tunnels\0{}\0", socket.display());
        let entries = fs::read_dir("/proc")?.flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.ends_with(wanted.as_bytes()))
        })
        .with_context(|| format!("{} has no process for tunnels", self.name))
    }

    /// How it stands, as `hextet mesh status --json` says it.
    ///
    /// # Errors
    ///
    /// Its program does not answer.
    pub fn status(&self) -> Result<Status> {
        let said = self.ask(&["status"])?;
        serde_json::from_str(&said).with_context(|| format!("understand {}'s status", self.name))
    }

    /// Asks its node something; the answer is in JSON.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn ask(&self, question: &[&str]) -> Result<String> {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        self.hextet(&[question, &["--json", "--socket", &socket]].concat())
    }

    /// Where people ask it.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("mesh.sock")
    }

    /// Runs `hextet mesh …` there.
    ///
    /// # Errors
    ///
    /// It fails; with what it said.
    pub fn hextet(&self, words: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        Ok(self.place.run(&[&[&*program, "mesh"], words].concat())?)
    }

    fn config(&self) -> PathBuf {
        self.directory.join("mesh.toml")
    }
}
