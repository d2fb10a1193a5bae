//! Hosts joined by links, each with addresses of both families, and the programs on them.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hextet_lab::{Fault, Lab, LabFile, LabGuard, Node, Process, ProcessSpec, Ready, wait_until};

/// Everything that is waited for comes within this time, or not at all; generous, since tests share
/// a machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// All speakers' autonomous system.
pub const ASN: u32 = 64512;

/// The hosts of one test; gone with it.
pub struct Fabric {
    lab: LabGuard,
    hosts: Vec<String>,
}

impl Fabric {
    /// Makes hosts, by their names in these links. A host's interface has the name of the host at its
    /// other end.
    pub fn new(links: &[(&str, &str)]) -> Fabric {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("peers-{}-{count}", std::process::id());
        let mut hosts: Vec<String> = Vec::new();
        for host in links.iter().flat_map(|(a, b)| [a, b]) {
            if !hosts.iter().any(|known| known == host) {
                hosts.push((*host).to_owned());
            }
        }
        let file = LabFile::parse(&lab_file(&name, &hosts, links), "interop".as_ref()).unwrap();
        let lab = Lab::up(file).unwrap().guard();
        Fabric { lab, hosts }
    }

    pub fn node(&self, host: &str) -> Node {
        self.lab.node(host).unwrap()
    }

    /// A host's link-local address, the same on all its interfaces.
    pub fn link_local(&self, host: &str) -> String {
        format!("fe80::{:x}", self.number(host))
    }

    /// A host's router id.
    pub fn router_id(&self, host: &str) -> String {
        format!("192.0.2.{}", self.number(host))
    }

    /// The addresses of `host` on its link with `other`: IPv4, IPv6.
    pub fn addresses(&self, host: &str, other: &str) -> [String; 2] {
        let (a, b) = (self.number(host), self.number(other));
        let (low, high) = (a.min(b), a.max(b));
        [
            format!("10.{low}.{high}.{a}"),
            format!("2001:db8:{low}:{high}::{a:x}"),
        ]
    }

    fn number(&self, host: &str) -> usize {
        1 + self.hosts.iter().position(|known| known == host).unwrap()
    }

    /// Writes a file for a host's programs.
    pub fn write(&self, host: &str, name: &str, text: &str) -> PathBuf {
        let path = self.path(host, name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, host: &str, name: &str) -> PathBuf {
        self.lab.node_directory(host).join(name)
    }

    /// Starts a program; without it, says which Debian package it is in.
    pub fn run(
        &self,
        host: &str,
        name: &str,
        package: &str,
        command: &[&str],
        ready: Option<Ready>,
    ) -> Arc<Process> {
        let mut spec = ProcessSpec::new(host, name, command);
        spec.ready = ready;
        match self.lab.run_spec(&spec) {
            Ok(process) => process,
            Err(error) => {
                panic!(
                    "{error}; if {} is missing: apt-get install {package}",
                    command[0]
                )
            }
        }
    }

    /// What a host's programs said, for a test that fails.
    pub fn log(&self, host: &str, name: &str) -> String {
        self.lab.process(&format!("{host}/{name}")).unwrap().log()
    }

    /// Drops all packets of a link; its ends notice nothing.
    pub fn silence(&self, host: &str, other: &str) {
        self.lab.break_link(host, other, Fault::Silence).unwrap();
    }

    pub fn mend(&self, host: &str, other: &str) {
        self.lab.mend_link(host, other).unwrap();
    }
}

/// Waits for a condition, and fails with what was waited for.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        wait_until(LIMIT, condition),
        "within {} s: {what}",
        LIMIT.as_secs()
    );
}

fn lab_file(name: &str, hosts: &[String], links: &[(&str, &str)]) -> String {
    let mut text = format!("name = '{name}'\n");
    for host in hosts {
        writeln!(text, "[node.{host}]").unwrap();
    }
    let number = |host: &str| 1 + hosts.iter().position(|known| known == host).unwrap();
    for (a, b) in links {
        let (low, high) = (number(a).min(number(b)), number(a).max(number(b)));
        writeln!(text, "[[link]]").unwrap();
        for (end, host, other) in [("a", a, b), ("b", b, a)] {
            let n = number(host);
            writeln!(
                text,
                "{end} = {{ node = '{host}', dev = '{other}', addresses = ['fe80::{n:x}/64', \
                 '10.{low}.{high}.{n}/24', '2001:db8:{low}:{high}::{n:x}/64'] }}"
            )
            .unwrap();
        }
    }
    text
}

/// A block of configuration in `docs/bgp.md`: the tests run what is written there.
pub fn documented(language: &str) -> &'static str {
    let (_, block) = include_str!("../../../../docs/bgp.md")
        .split_once(&format!("```{language}\n"))
        .unwrap();
    block.split_once("```").unwrap().0
}
