//! Five nodes and a registry on a bridge.

use std::{
    env, fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hextet_bench::cpu;
use hextet_lab::{Fault, Lab, LabFile, LabGuard, Node, ProcessSpec, Ready, wait_until};

/// The nodes.
pub const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
const REGISTRY: &str = "https://192.0.2.1:8443";
const PATIENCE: Duration = Duration::from_secs(10);

/// All of them; they go when this is dropped.
pub struct Site {
    lab: LabGuard,
    program: PathBuf,
    homes: Vec<Ipv6Addr>,
}

impl Site {
    /// Makes them. All join; no node runs yet.
    ///
    /// # Errors
    ///
    /// The registry does not begin, or refuses a node.
    pub fn up() -> Result<Site> {
        let program = env::var_os("HEXTET_BIN").context("HEXTET_BIN names no program")?;
        let text = description();
        let lab = Lab::up(LabFile::parse(&text, "bench".as_ref())?)?.guard();
        let mut site = Site {
            lab,
            program: program.into(),
            homes: Vec::new(),
        };
        site.start_registry()?;
        for name in NODES {
            let home = site.join(name)?;
            site.homes.push(home);
        }
        Ok(site)
    }

    /// A node's namespace.
    ///
    /// # Errors
    ///
    /// There is none of that number.
    pub fn node(&self, number: usize) -> Result<Node> {
        Ok(self.lab.node(name_of(number)?)?)
    }

    /// The nodes' first addresses.
    pub fn homes(&self) -> &[Ipv6Addr] {
        &self.homes
    }

    /// Starts a node's program.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start(&self, number: usize) -> Result<()> {
        let name = name_of(number)?;
        let mut command = Command::new(&self.program);
        command
            .args(["mesh", "run", "--config"])
            .arg(self.lab.node_directory(name).join("mesh.toml"));
        self.lab
            .spawn(&self.lab.node(name)?, "mesh", &mut command)?;
        Ok(())
    }

    /// A node and the registry are gone at once: nothing comes to them or from them, and what ran there does not.
    ///
    /// # Errors
    ///
    /// They were gone before.
    pub fn lose(&self, number: usize) -> Result<()> {
        let name = name_of(number)?;
        for gone in [name, "registry"] {
            self.lab.break_link(gone, "eth0", Fault::Silence)?;
        }
        self.lab.process("registry/registry")?.kill();
        self.lab.process(&format!("{name}/mesh"))?.kill();
        let socket = self.lab.node_directory(name).join("tunnels.sock");
        let tunnels = tunnels_at(&socket)?.context("the node has no process for tunnels")?;
        self.lab
            .node(name)?
            .run(&["kill", "-9", &tunnels.to_string()])?;
        let gone = wait_until(PATIENCE, || matches!(tunnels_at(&socket), Ok(None)));
        ensure!(gone, "the process for tunnels does not end");
        Ok(())
    }

    /// The node is there again; the registry is not.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn bring_back(&self, number: usize) -> Result<()> {
        self.lab.mend_link(name_of(number)?, "eth0")?;
        self.start(number)
    }

    /// MiB of a node's two processes: what is each one's own, and once what both have of the program, as the larger one has it.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn resident(&self, number: usize) -> Result<f64> {
        let name = name_of(number)?;
        let node = self.lab.process(&format!("{name}/mesh"))?.pid();
        let socket = self.lab.node_directory(name).join("tunnels.sock");
        let tunnels = tunnels_at(&socket)?.context("the node has no process for tunnels")?;
        let (own, program) = cpu::memory(node)?;
        let (other, same) = cpu::memory(tunnels)?;
        Ok(own + other + f64::max(program, same))
    }

    fn start_registry(&self) -> Result<()> {
        let directory = self.lab.node_directory("registry");
        let (config, socket) = (
            directory.join("registry.toml"),
            directory.join("registry.sock"),
        );
        let text = format!(
            "url = \"{REGISTRY}\"\nlisten = \"192.0.2.1:8443\"\nstore = \"{}\"\nsocket = \"{}\"\n",
            directory.join("registry.redb").display(),
            socket.display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let (program, config) = (self.program.to_string_lossy(), config.to_string_lossy());
        let words = [&*program, "registry", "--config", &config];
        let mut spec = ProcessSpec::new("registry", "registry", &words);
        spec.ready = Some(Ready::Socket(socket.display().to_string()));
        self.lab.run_spec(&spec)?;
        Ok(())
    }

    /// Gives the node's first address.
    fn join(&self, name: &str) -> Result<Ipv6Addr> {
        let directory = self.lab.node_directory(name);
        let text = format!(
            "directory = \"{0}/mesh\"\nsocket = \"{0}/mesh.sock\"\ntunnels = \"{0}/tunnels.sock\"\n",
            directory.display()
        );
        let config = directory.join("mesh.toml");
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let program = self.program.to_string_lossy();
        let socket = self.lab.node_directory("registry").join("registry.sock");
        let token = [
            &*program,
            "mesh",
            "token",
            "--registry",
            &socket.to_string_lossy(),
        ];
        let token = self.lab.node("registry")?.run(&token)?;
        let mesh = directory.join("mesh");
        let mesh = mesh.to_string_lossy();
        let join = [
            &*program,
            "mesh",
            "join",
            token.trim(),
            "--directory",
            &mesh,
        ];
        let said = self.lab.node(name)?.run(&join)?;
        first_address(&said).with_context(|| format!("no prefix in '{said}'"))
    }
}

fn name_of(number: usize) -> Result<&'static str> {
    let name = NODES.get(number).copied();
    name.with_context(|| format!("no node {number}"))
}

fn description() -> String {
    let mut text = format!(
        "name = 'bench-converge-{}'\n[node.net]\nbridges.br = {{ ports = ['registry', '{}'] }}\n",
        std::process::id(),
        NODES.join("', '")
    );
    for (number, name) in std::iter::once("registry").chain(NODES).enumerate() {
        text.push_str(&format!(
            "[node.{name}]\n[[link]]\na = {{ node = 'net', dev = '{name}' }}\n\
             b = {{ node = '{name}', dev = 'eth0', addresses = ['192.0.2.{}/24'] }}\n",
            number + 1
        ));
    }
    text
}

/// Of what `hextet mesh join` says: `Node … of network …: fd00:1::/64.`
fn first_address(said: &str) -> Option<Ipv6Addr> {
    let prefix = said
        .split_whitespace()
        .find_map(|word| word.split_once('/'));
    let network: Ipv6Addr = prefix?.0.parse().ok()?;
    Some(Ipv6Addr::from(u128::from(network) | 1))
}

/// The process that holds a node's tunnels.
fn tunnels_at(socket: &Path) -> Result<Option<u32>> {
    let wanted = format!("mesh\0tunnels\0{}\0", socket.display());
    let entries = fs::read_dir("/proc")?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.find(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line.ends_with(wanted.as_bytes()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_first_address_of_its_prefix() {
        let said = "Node 67c0dcc28a50b0a8 of network a330112a7a9a79a7: fd2a:748d:f458::/64.\n";
        assert_eq!(first_address(said), "fd2a:748d:f458::1".parse().ok());
        assert_eq!(first_address("Key x waits for an approval."), None);
    }

    #[test]
    fn the_lab_can_be_read() {
        assert!(LabFile::parse(&description(), "bench".as_ref()).is_ok());
    }
}
