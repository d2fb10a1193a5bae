//! The registries, each at a site of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};
use serde::Deserialize;

use crate::check::{expect, wait_for};

/// Their places, and where they listen.
const FIRST: (&str, &str) = ("registry", "192.0.2.2:8443");
const SECOND: (&str, &str) = ("registry2", "192.0.2.26:8443");
const STARTING: Duration = Duration::from_secs(20);

/// A registry.
pub struct Registry {
    place: Node,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    process: Option<Arc<Process>>,
}

/// A node, as the registry lists it.
#[derive(Debug, Deserialize)]
pub struct Listed {
    /// Its number.
    pub node: String,
    /// What it calls itself.
    pub name: Option<String>,
    /// What it got.
    pub prefixes: Vec<String>,
    /// Of its newest certificate.
    pub serial: u32,
    /// Whether it is out.
    pub revoked: bool,
}

impl Registry {
    /// The first of the network.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn first(lab: &Lab, program: &Path) -> Result<Registry> {
        Registry::start_in(lab, program, FIRST, "ipv4 = \"10.64.0.0/16\"\n")
    }

    /// One more, invited by the first.
    ///
    /// # Errors
    ///
    /// It does not answer, or the first refuses.
    pub fn second(&self, lab: &Lab, program: &Path) -> Result<Registry> {
        let invitation = self.hextet(&["token", "--class", "registry"])?;
        let join = format!("join = \"{}\"\n", invitation.trim());
        Registry::start_in(lab, program, SECOND, &join)
    }

    /// Configures it, and starts it for the first time.
    fn start_in(
        lab: &Lab,
        program: &Path,
        (name, listen): (&str, &str),
        more: &str,
    ) -> Result<Registry> {
        let dir = lab.node_directory(name);
        let (config, socket) = (dir.join("registry.toml"), dir.join("registry.sock"));
        let text = format!(
            "url = \"https://{listen}\"\nlisten = \"{listen}\"\nstore = \"{}\"\nsocket = \"{}\"\n{more}",
            dir.join("registry.redb").display(),
            socket.display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut registry = Registry {
            place: lab.node(name)?,
            program: program.to_owned(),
            config,
            socket,
            process: None,
        };
        registry.start(lab)?;
        Ok(registry)
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn start(&mut self, lab: &Lab) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("registry").arg("--config").arg(&self.config);
        let process = lab.spawn(&self.place, "registry", &mut command)?;
        self.process = Some(process.clone());
        wait_for(STARTING, || {
            expect(
                process.runs(),
                format!("the registry has ended:\n{}", process.log()),
            )?;
            self.nodes().map(drop)
        })
    }

    /// Kills it with `kill -9`.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        let process = process.context("the registry was not running")?;
        expect(process.kill(), "the registry had ended by itself")
    }

    /// An invitation for one node that is in these groups.
    ///
    /// # Errors
    ///
    /// The registry refuses.
    pub fn invitation(&self, groups: &[&str]) -> Result<String> {
        let groups = groups.iter().flat_map(|group| ["--group", group]);
        let words: Vec<&str> = std::iter::once("token").chain(groups).collect();
        Ok(self.hextet(&words)?.trim().to_owned())
    }

    /// From now on these rules hold, a file in TOML.
    ///
    /// # Errors
    ///
    /// The registry refuses.
    pub fn rule(&self, rules: &str) -> Result<()> {
        let file = self.config.with_file_name("rules.toml");
        fs::write(&file, rules).with_context(|| format!("write {}", file.display()))?;
        let file = file.to_string_lossy();
        self.hextet(&["params", "--rules", &file]).map(drop)
    }

    /// How long certificates count that it signs from now on.
    ///
    /// # Errors
    ///
    /// The registry refuses.
    pub fn lifetime(&self, secs: u32) -> Result<()> {
        let secs = secs.to_string();
        self.hextet(&["params", "--lifetime-secs", &secs]).map(drop)
    }

    /// What it knows of a node.
    ///
    /// # Errors
    ///
    /// It knows of none, or does not answer.
    pub fn node(&self, id: &str) -> Result<Listed> {
        let found = self.nodes()?.into_iter().find(|node| node.node == id);
        found.with_context(|| format!("the registry knows of no node {id}"))
    }

    /// All nodes that it knows.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn nodes(&self) -> Result<Vec<Listed>> {
        #[derive(Deserialize)]
        struct All {
            nodes: Vec<Listed>,
        }
        let all: All = serde_json::from_str(&self.hextet(&["nodes", "--json"])?)?;
        Ok(all.nodes)
    }

    /// Revokes all certificates of a node.
    ///
    /// # Errors
    ///
    /// The registry refuses.
    pub fn revoke(&self, node: &str) -> Result<()> {
        self.hextet(&["revoke", node]).map(drop)
    }

    /// Where administrators ask it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its namespace.
    pub fn place(&self) -> &str {
        self.place.name()
    }

    fn hextet(&self, words: &[&str]) -> Result<String> {
        let (program, socket) = (
            self.program.to_string_lossy(),
            self.socket.to_string_lossy(),
        );
        let all = [&[&*program, "mesh"], words, &["--registry", &socket]].concat();
        Ok(self.place.run(&all)?)
    }
}
