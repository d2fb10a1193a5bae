//! A link with a router that asks, and a host that answers for workloads.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::Ipv6Addr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_kernel::{Config, Kernel, Scope};
use hextet_lab::{Lab, LabFile, LabGuard, Node, Process, wait_until};
use hextet_model::state::{Answer, Key, Object, Proxy, UplinkProgram};
use hextet_types::IfName;
use tempfile::TempDir;

/// The first of the addresses.
const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 1, 0);
const STARTING: Duration = Duration::from_secs(30);
const DEAF: &str = "table netdev bench { chain deaf { type filter hook ingress device down0 priority 0; policy drop; }; }";
const LAB: &str = r#"
name = "ndp"
[node.router]
[node.host]
[[link]]
a = { node = "router", dev = "down0", mac = "02:00:00:00:00:01", addresses = ["2001:db8:0:1::1/64"] }
b = { node = "host", dev = "up0", mac = "02:00:00:00:00:02", addresses = ["2001:db8:0:1::2/64"] }
"#;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The eBPF program.
    Ours,
    /// The kernel's proxy_ndp, without its delay.
    Kernel,
    /// ndppd, by a static rule for each address.
    Ndppd,
}

impl Answerer {
    /// All.
    pub const ALL: [Answerer; 3] = [Answerer::Ours, Answerer::Kernel, Answerer::Ndppd];
}

impl fmt::Display for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answerer::Ours => "ours",
            Answerer::Kernel => "proxy_ndp",
            Answerer::Ndppd => "ndppd",
        })
    }
}

/// The link.
pub struct Segment {
    /// Who asks.
    pub router: Node,
    /// How many addresses are answered for.
    pub size: u32,
    /// How long it took until they were.
    pub setup: Duration,
    _lab: LabGuard,
    _process: Option<Arc<Process>>,
    _directory: TempDir,
}

impl Segment {
    /// Brings it up.
    ///
    /// # Errors
    ///
    /// It can't be.
    pub fn up(answerer: Answerer, size: u32) -> Result<Segment> {
        let lab = Lab::up(LabFile::parse(LAB, Path::new("ndp.toml"))?)?.guard();
        let (host, router) = (lab.node("host")?, lab.node("router")?);
        let directory = TempDir::new()?;
        host.set_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        // What a router does with answers is not what is measured; they are counted, and heard, before this.
        router.run(&["nft", DEAF])?;
        let begin = Instant::now();
        let process = match answerer {
            Answerer::Ours => {
                host.enter(|| ours(size, directory.path()))??;
                None
            }
            Answerer::Kernel => {
                kernel(&host, size, directory.path())?;
                None
            }
            Answerer::Ndppd => Some(ndppd(&lab, &host, size, directory.path())?),
        };
        let setup = begin.elapsed();
        Ok(Segment {
            router,
            size,
            setup,
            _lab: lab,
            _process: process,
            _directory: directory,
        })
    }
}

/// The n-th of the addresses; those behind the last are nobody's.
pub fn address(n: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(FIRST) + u128::from(n))
}

fn ours(size: u32, directory: &Path) -> Result<()> {
    let mut kernel = Kernel::open(Config {
        gateway_mac: "02:68:78:00:00:01".parse()?,
        sysctl_record: directory.join("sysctls"),
        sysctls: Vec::new(),
        tcx: true,
    })?;
    let link: IfName = "up0".parse()?;
    let program = Object::UplinkProgram(UplinkProgram { link: link.clone() });
    let mut desired = BTreeMap::<Key, Object>::from([(program.key(), program)]);
    for n in 0..size {
        let (link, addr) = (link.clone(), address(n).into());
        let proxy = Object::Proxy(Proxy {
            link: link.clone(),
            addr,
        });
        let answer = Object::Answer(Answer { link, addr });
        desired.extend([proxy, answer].map(|object| (object.key(), object)));
    }
    let report = kernel.reconcile(&Scope::of(&desired))?;
    match report.failed.first() {
        Some((op, error)) => bail!("{op}: {error}"),
        None => Ok(()),
    }
}

fn kernel(host: &Node, size: u32, directory: &Path) -> Result<()> {
    for (name, value) in [
        ("net.ipv6.conf.all.proxy_ndp", "1"),
        ("net.ipv6.conf.up0.proxy_ndp", "1"),
        ("net.ipv6.neigh.up0.proxy_delay", "0"),
    ] {
        host.set_sysctl(name, value)?;
    }
    let lines = (0..size).map(|n| format!("neigh add proxy {} dev up0\n", address(n)));
    let batch = directory.join("proxies");
    fs::write(&batch, lines.collect::<String>())?;
    host.run(&["ip", "-6", "-batch", &batch.to_string_lossy()])?;
    Ok(())
}

fn ndppd(lab: &Lab, host: &Node, size: u32, directory: &Path) -> Result<Arc<Process>> {
    let config = directory.join("ndppd.conf");
    let rules = (0..size).map(|n| format!("  rule {}/128 {{\n    static\n  }}\n", address(n)));
    let rules: String = rules.collect();
    fs::write(&config, format!("proxy up0 {{\n  router no\n{rules}}}\n"))?;
    let mut command = Command::new("ndppd");
    command.arg("-c").arg(&config).arg("-v");
    let process = lab.spawn(host, "ndppd", &mut command)?;
    let hears = || {
        let shown = host.run(&["ip", "-o", "link", "show", "up0"]);
        shown.is_ok_and(|shown| shown.contains("ALLMULTI")) && process.runs()
    };
    match wait_until(STARTING, hears) {
        true => Ok(process),
        false => {
            Err(anyhow::anyhow!("{}", process.log())).context("ndppd does not begin to listen")
        }
    }
}
