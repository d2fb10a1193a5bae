//! What a lab is made of, as a TOML file says it.
//!
//! Reading checks everything that can be known before anything is made: unknown keys, names that clash,
//! links to nodes that do not exist. Each complaint has the line it is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use hextet_types::{IfName, Mac};
use serde::Deserialize;
use toml::Spanned;

use crate::{Error, InterfaceAddress};

/// Nodes and links of a lab: more than this is a typing error.
const MAX_NODES: usize = 1000;
const MAX_LINKS: usize = 10_000;

/// A lab, as its file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabFile {
    /// The lab's name, part of every namespace's name.
    pub(crate) name: Spanned<String>,
    /// One line for `hextet lab list`.
    #[serde(default)]
    pub description: String,
    /// Variables for templates and commands, in all nodes.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The nodes, by name.
    #[serde(rename = "node", default)]
    pub nodes: BTreeMap<Spanned<String>, NodeSpec>,
    /// The links between them.
    #[serde(rename = "link", default)]
    pub links: Vec<Link>,
    /// What runs, in the order in which it is started.
    #[serde(rename = "process", default)]
    pub processes: Vec<ProcessSpec>,
    /// Where it was read from.
    #[serde(skip)]
    pub(crate) path: PathBuf,
    #[serde(skip)]
    pub(crate) text: String,
}

/// A node: a network namespace of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// What it stands for, shown by `hextet lab list`.
    pub role: String,
    /// Addresses on the loopback interface.
    pub loopback: Vec<InterfaceAddress>,
    /// Settings below `/proc/sys`, such as `net.ipv4.ip_forward`.
    pub sysctls: BTreeMap<String, String>,
    /// Bridges that join the far ends of links.
    pub bridges: BTreeMap<IfName, Bridge>,
    /// Routes in the words of `ip route add`, set once all links are up.
    pub routes: Vec<String>,
    /// Name servers for programs on this node.
    pub name_servers: Vec<std::net::IpAddr>,
    /// Variables for templates and commands on this node.
    pub vars: BTreeMap<String, String>,
    /// Give it a `/run/netns` of its own, as another machine would have: what programs on it name there nobody
    /// else sees. The lab's own namespaces are found there under their names.
    pub own_netns: bool,
}

/// A bridge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// The links' ends that are its ports.
    pub ports: Vec<Spanned<IfName>>,
    /// Addresses on the bridge itself.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
}

/// A veth pair between two nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// One end.
    pub a: LinkEnd,
    /// The other.
    pub b: LinkEnd,
    /// In octets; the kernel's default without it.
    pub mtu: Option<u32>,
}

/// One end of a link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEnd {
    /// The node that has it.
    pub node: Spanned<String>,
    /// The interface's name there.
    pub dev: Spanned<IfName>,
    /// Random without it.
    pub mac: Option<Mac>,
    /// A link-local address among them replaces the one that the kernel would make.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
}

/// A program on a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    pub(crate) node: Spanned<String>,
    /// Unique on its node; also names its log.
    pub name: String,
    /// Program and arguments; `@name@` stands for a variable. The working directory is the node's own.
    pub command: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files to write into the node's directory beforehand, from templates beside the lab file.
    #[serde(default)]
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// When it counts as started; at once without it.
    pub ready: Option<Ready>,
    /// How long it may take to get ready, or to end if it runs `once`.
    #[serde(default = "default_ready_secs")]
    pub ready_secs: u64,
    /// Give it a `/sys` that shows the node's interfaces; hides what else is mounted there.
    #[serde(default)]
    pub private_sys: bool,
    /// It runs to its end, successfully, before the next is started.
    #[serde(default)]
    pub once: bool,
    /// It is started by [`crate::Lab::start`] only.
    #[serde(default)]
    pub manual: bool,
}

fn default_ready_secs() -> u64 {
    20
}

/// When a program counts as started.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ready {
    /// A UNIX socket at this path takes connections.
    Socket(String),
    /// A TCP socket at this address takes connections from the same node.
    Tcp(String),
    /// This file is there.
    File(String),
    /// The program's log contains this.
    Log(String),
    /// This command, run on the same node, succeeds.
    Command(Vec<String>),
}

impl ProcessSpec {
    /// A program that is ready at once; change the fields for anything else.
    pub fn new(node: &str, name: &str, command: &[&str]) -> ProcessSpec {
        ProcessSpec {
            node: Spanned::new(0..0, node.to_owned()),
            name: name.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            files: BTreeMap::new(),
            ready: None,
            ready_secs: default_ready_secs(),
            private_sys: false,
            once: false,
            manual: false,
        }
    }

    /// The node it runs on.
    pub fn node(&self) -> &str {
        self.node.get_ref()
    }
}

impl LabFile {
    /// Reads a lab file.
    ///
    /// # Errors
    ///
    /// The file can't be read, or describes no lab.
    pub fn read(path: &Path) -> Result<LabFile, Error> {
        let text =
            fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        LabFile::parse(&text, &path)
    }

    /// Reads a lab file's text; templates are looked for beside `path`.
    ///
    /// # Errors
    ///
    /// The text describes no lab.
    pub fn parse(text: &str, path: &Path) -> Result<LabFile, Error> {
        let syntax = |error: toml::de::Error| Error::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let mut file: LabFile = toml::from_str(text).map_err(syntax)?;
        file.path = path.to_owned();
        file.text = text.to_owned();
        file.check()?;
        Ok(file)
    }

    /// The same lab under another name, so that several can be up at once.
    ///
    /// # Errors
    ///
    /// The name can't be part of a namespace's name.
    pub fn named(mut self, name: &str) -> Result<LabFile, Error> {
        check_lab_name(name)?;
        self.name = Spanned::new(0..0, name.to_owned());
        Ok(self)
    }

    /// The same lab with a variable for its templates and commands.
    #[must_use]
    pub fn with_var(mut self, name: &str, value: &str) -> LabFile {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// A node, by name.
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.get(name)
    }

    /// Both ends of the link that has this one: itself first.
    pub fn link_of(&self, node: &str, dev: &str) -> Option<(&LinkEnd, &LinkEnd)> {
        let is = |end: &LinkEnd| end.node.get_ref() == node && end.dev.get_ref().as_str() == dev;
        self.links.iter().find_map(|link| match () {
            () if is(&link.a) => Some((&link.a, &link.b)),
            () if is(&link.b) => Some((&link.b, &link.a)),
            () => None,
        })
    }

    fn check(&self) -> Result<(), Error> {
        check_lab_name(self.name()).map_err(|error| self.meaning(&self.name, error.to_string()))?;
        if self.nodes.len() > MAX_NODES || self.links.len() > MAX_LINKS {
            let message = format!("a lab has at most {MAX_NODES} nodes and {MAX_LINKS} links");
            return Err(self.meaning(&self.name, message));
        }
        for name in self.nodes.keys() {
            check_node_name(name.get_ref())
                .map_err(|error| self.meaning(name, error.to_string()))?;
        }
        self.check_links()?;
        self.check_bridges()?;
        self.check_processes()
    }

    fn check_links(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            self.check_node(&end.node)?;
            if !seen.insert((end.node.get_ref(), end.dev.get_ref())) {
                let message = format!(
                    "{} has two interfaces {}",
                    end.node.get_ref(),
                    end.dev.get_ref()
                );
                return Err(self.meaning(&end.dev, message));
            }
        }
        Ok(())
    }

    fn check_bridges(&self) -> Result<(), Error> {
        for (name, node) in &self.nodes {
            let ports = node.bridges.values().flat_map(|bridge| &bridge.ports);
            for port in ports {
                if self
                    .link_of(name.get_ref(), port.get_ref().as_str())
                    .is_none()
                {
                    let message = format!("no link ends at {} {}", name.get_ref(), port.get_ref());
                    return Err(self.meaning(port, message));
                }
            }
        }
        Ok(())
    }

    fn check_processes(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for process in &self.processes {
            self.check_node(&process.node)?;
            let complaint = if !seen.insert((process.node.get_ref(), &process.name)) {
                Some(format!(
                    "{} has two processes {}",
                    process.node.get_ref(),
                    process.name
                ))
            } else if !is_name(&process.name, "-_") {
                Some(Error::Name(process.name.clone(), "process", "- _").to_string())
            } else if process.command.is_empty() {
                Some(format!("process {} has an empty command", process.name))
            } else {
                process
                    .files
                    .keys()
                    .find(|path| !stays_inside(path))
                    .map(|path| {
                        format!(
                            "{}: a file's place is relative to the node's directory",
                            path.display()
                        )
                    })
            };
            if let Some(message) = complaint {
                return Err(self.meaning(&process.node, message));
            }
        }
        Ok(())
    }

    fn check_node(&self, node: &Spanned<String>) -> Result<(), Error> {
        if self.nodes.contains_key(node.get_ref().as_str()) {
            return Ok(());
        }
        let known: Vec<&str> = self
            .nodes
            .keys()
            .map(|name| name.get_ref().as_str())
            .collect();
        let message = format!(
            "no node {}; there are: {}",
            node.get_ref(),
            known.join(", ")
        );
        Err(self.meaning(node, message))
    }

    fn meaning<T>(&self, at: &Spanned<T>, message: String) -> Error {
        let before = self.text.get(..at.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Error::Meaning {
            path: self.path.clone(),
            line,
            message,
        }
    }
}

fn stays_inside(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn is_name(name: &str, extra: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(c);
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(fits)
}

/// A lab's name may have dashes, a node's may not: so `hxlab-LAB-NODE` reads in one way only.
pub(crate) fn check_lab_name(name: &str) -> Result<(), Error> {
    if is_name(name, "-") {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned(), "lab", "-"))
    }
}

fn check_node_name(name: &str) -> Result<(), Error> {
    if is_name(name, "_") {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned(), "node", "_"))
    }
}

#[cfg(test)]
mod tests;
