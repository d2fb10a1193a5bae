//! A rented machine of the lab, with hextet on it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};
use serde_json::Value;

use crate::{
    check::{expect, wait_for},
    probe::greeting,
};

/// Where each workload says its name to whoever connects, by both families.
pub const PORT: u16 = 80;
const STARTING: Duration = Duration::from_secs(20);
const GREETER: &str = "import socket, sys\n\
    s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)\n\
    while True:\n    c, a = s.accept()\n    c.sendall((sys.argv[1] + ' ' + a[0]).encode())\n    c.close()\n";

/// A machine.
pub struct Vps {
    /// Where it is.
    pub place: Node,
    program: PathBuf,
    state: PathBuf,
    run: PathBuf,
}

/// What runs on it.
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its addresses of the world's IPv6.
    pub v6: Vec<Ipv6Addr>,
    /// Its private IPv4 address.
    pub v4: Ipv4Addr,
    process: Arc<Process>,
}

impl Vps {
    /// The machine that this node of the lab is.
    ///
    /// # Errors
    ///
    /// There is none such.
    pub fn new(lab: &Lab, program: &Path, name: &str) -> Result<Vps> {
        let directory = lab.node_directory(name);
        Ok(Vps {
            place: lab.node(name)?,
            program: program.to_owned(),
            state: directory.join("state"),
            run: directory.join("run"),
        })
    }

    fn settings(&self) -> [String; 3] {
        [
            format!("HEXTET_STATE_DIR={}", self.state.display()),
            format!("HEXTET_RUN_DIR={}", self.run.display()),
            format!("HEXTET_AGENT={}/agent.sock", self.run.display()),
        ]
    }

    /// Runs `hextet` there.
    ///
    /// # Errors
    ///
    /// It fails; with what it said.
    pub fn hextet(&self, words: &[&str]) -> Result<String> {
        let settings = self.settings();
        let mut all = vec!["env"];
        all.extend(settings.iter().map(String::as_str));
        let program = self.program.to_string_lossy();
        all.push(&program);
        all.extend(words);
        Ok(self.place.run(&all)?)
    }

    /// Runs `hextet` there, whether or not it succeeds; gives what it printed.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn hextet_says(&self, words: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let output = self.place.output(&[&[&*program], words].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts `hextet` there, in the lab's background.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start(&self, lab: &Lab, log: &str, words: &[&str]) -> Result<Arc<Process>> {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env("HEXTET_STATE_DIR", &self.state)
            .env("HEXTET_RUN_DIR", &self.run);
        Ok(lab.spawn(&self.place, log, &mut command)?)
    }

    /// Starts a workload that says its name, and waits until it does.
    ///
    /// # Errors
    ///
    /// It does not, with what `hextet run` said.
    pub fn container(&self, lab: &Lab, name: &str) -> Result<Container> {
        let words = ["run", "--name", name, "--", "python3", "-c", GREETER, name];
        let process = self.start(lab, name, &words)?;
        let (v6, v4) = wait_for(STARTING, || {
            expect(process.runs(), format!("it has ended: {}", process.log()))?;
            let (v6, v4) = self.addresses(name)?;
            let first = *v6.first().context("no IPv6 address")?;
            let said = greeting(&self.place, SocketAddr::from((first, PORT)))?;
            expect(said.starts_with(name), format!("somebody else: {said}"))?;
            Ok((v6, v4))
        })?;
        Ok(Container {
            name: name.to_owned(),
            v6,
            v4,
            process,
        })
    }

    /// A workload's addresses.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn addresses(&self, name: &str) -> Result<(Vec<Ipv6Addr>, Ipv4Addr)> {
        let ports: Vec<Value> = serde_json::from_str(&self.hextet(&["port", "list", "--json"])?)?;
        let port = ports.iter().find(|port| port["name"] == name);
        let port = port.with_context(|| format!("no port {name}"))?;
        let all = port["addresses"].as_array().into_iter().flatten();
        let all: Vec<IpAddr> = all.filter_map(|a| a.as_str()?.parse().ok()).collect();
        let v6 = all.iter().filter_map(|a| match a {
            IpAddr::V6(a) => Some(*a),
            IpAddr::V4(_) => None,
        });
        let v4 = all.iter().find_map(|a| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        });
        Ok((v6.collect(), v4.context("no IPv4 address")?))
    }

    /// Runs a command inside a workload.
    ///
    /// # Errors
    ///
    /// It fails; with what it said.
    pub fn inside(&self, name: &str, words: &[&str]) -> Result<String> {
        let mut all = vec!["ip", "netns", "exec", name];
        all.extend(words);
        Ok(self.place.run(&all)?)
    }

    /// Whether a workload gets an echo reply.
    ///
    /// # Errors
    ///
    /// It gets none.
    pub fn pings(&self, name: &str, to: IpAddr) -> Result<()> {
        let to = to.to_string();
        let ping = ["ping", "-c", "1", "-W", "1", "-n", to.as_str()];
        wait_for(Duration::from_secs(3), || self.inside(name, &ping)).map(drop)
    }

    /// Kills the process that is server and agent.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&self) -> Result<()> {
        // The directory is in its environment alone.
        let marked = format!("HEXTET_STATE_DIR={}\0", self.state.display());
        let mut killed = 0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let read = |file| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let words = read("cmdline");
            let is_meant = words.ends_with(b"\0up\0--foreground\0")
                && String::from_utf8_lossy(&read("environ")).contains(&marked);
            if is_meant {
                let pid = entry.file_name().to_string_lossy().into_owned();
                self.place.run(&["kill", "-9", &pid])?;
                killed += 1;
            }
        }
        expect(killed == 1, format!("{killed} processes run"))
    }
}

impl Container {
    /// Ends it as a terminal does.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(self) -> Result<()> {
        let ended = self.process.terminate(Duration::from_secs(10));
        expect(ended, format!("{} does not end", self.name))
    }

    /// Kills `hextet run`, and leaves what it started.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Where it says its name.
    pub fn at(&self) -> SocketAddr {
        SocketAddr::from((self.v6[0], PORT))
    }
}
