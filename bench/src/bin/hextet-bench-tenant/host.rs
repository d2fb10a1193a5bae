//! One host, in its own namespaces: what it is told, and what its kernel then holds. Runs as a program of its own,
//! since names of namespaces are the whole machine's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hextet_bench::cpu;
use hextet_kernel::{Config, Kernel, Report, Scope};
use hextet_lab::{Lab, Node};
use hextet_model::{
    intent::Change,
    plan::{HostConfig, Planner},
};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::cloud::{self, Station};

/// Has a node be told these changes, and its kernel made equal to what follows.
///
/// # Errors
///
/// The kernel refuses something.
pub fn tell(lab: &Lab, node: &Node, changes: &[Change]) -> Result<()> {
    let text = serde_json::to_string(changes)?;
    let file = hextet_bench::forward::workload::write(lab, node, "told", &text)?;
    run(node, &["apply", node.name(), &file.to_string_lossy()]).map(drop)
}

/// Has a node be told of networks with a port each, one after the other.
///
/// # Errors
///
/// The kernel refuses something.
pub fn add_networks(node: &Node, count: u16) -> Result<Added> {
    let answer = run(node, &["networks", node.name(), &count.to_string()])?;
    serde_json::from_str(&answer).context("read what the host has measured")
}

fn run(node: &Node, words: &[&str]) -> Result<String> {
    let program = std::env::current_exe().context("find this program")?;
    let program = program.to_string_lossy();
    let mut all = vec![program.as_ref()];
    all.extend(words);
    Ok(node.run(&all)?)
}

/// What networks have cost, in the order in which they came.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Added {
    /// From what is told to a kernel that is equal to it, in milliseconds.
    pub wall_ms: Vec<f64>,
    /// Of that, this program's CPU time, in milliseconds.
    pub cpu_ms: Vec<f64>,
    /// What the machine holds more than before, without what it could give back; in KiB.
    pub machine_kib: f64,
    /// Of that, this program, in KiB.
    pub program_kib: f64,
}

/// A planner, and the kernel of the namespace that this program runs in.
struct Host {
    planner: Planner,
    kernel: Kernel,
    /// Keeps the record of former settings.
    _record: tempfile::TempDir,
}

impl Host {
    fn open(name: &str) -> Result<Host> {
        let config = HostConfig::new(name.parse().context("name the host")?);
        let record = tempfile::tempdir().context("make a directory")?;
        let kernel = Kernel::open(Config {
            gateway_mac: config.gateway_mac,
            sysctl_record: record.path().join("sysctls"),
            sysctls: vec!["net/".to_owned()],
            tcx: true,
        })?;
        Ok(Host {
            planner: Planner::new(config),
            kernel,
            _record: record,
        })
    }

    fn change(&mut self, changes: Vec<Change>) -> Result<()> {
        let changed = self.planner.apply_all(changes);
        let desired = &self.planner.state().objects;
        let report = self.kernel.reconcile_keys(&changed.objects, desired);
        complete(&report)
    }

    /// As an agent does in time.
    fn move_programs(&mut self) -> Result<()> {
        while self.kernel.programs_to_move() > 0 {
            self.kernel.move_program()?;
        }
        Ok(())
    }
}

fn complete(report: &Report) -> Result<()> {
    if let Some((op, error)) = report.failed.first() {
        bail!("{op}: {error} (and {} more)", report.failed.len() - 1);
    }
    ensure!(
        report.is_complete(),
        "waiting: {:?}",
        report.waiting.first()
    );
    Ok(())
}

/// What [`tell`] runs.
///
/// # Errors
///
/// The kernel refuses something.
pub fn apply(name: &str, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut host = Host::open(name)?;
    host.planner
        .apply_all(serde_json::from_str::<Vec<Change>>(&text)?);
    let desired = &host.planner.state().objects;
    complete(&host.kernel.reconcile(&Scope::of(desired))?)?;
    host.move_programs()
}

/// What [`add_networks`] runs. Each network has a port here and one on another host.
///
/// # Errors
///
/// The kernel refuses something.
pub fn networks(name: &str, count: u16) -> Result<()> {
    let mut host = Host::open(name)?;
    let endpoints = ["fd00:f::1", "fd00:f::2"].map(str::parse);
    let [Ok(here), Ok(there)] = endpoints else {
        bail!("no endpoints");
    };
    host.planner
        .apply_all(cloud::hosts(&[(name, here), ("b", there)])?);
    let desired = &host.planner.state().objects;
    complete(&host.kernel.reconcile(&Scope::of(desired))?)?;
    make_links(count)?;
    host.change(network(1)?)?;
    let (machine, program) = (machine_kib()?, program_kib()?);
    let mut added = Added::default();
    for n in 2..=count {
        let changes = network(n)?;
        let (begin, used) = (Instant::now(), own_cpu()?);
        host.change(changes)?;
        added.wall_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        added.cpu_ms.push((own_cpu()? - used).as_secs_f64() * 1e3);
    }
    added.machine_kib = machine_kib()? - machine;
    added.program_kib = program_kib()? - program;
    println!("{}", serde_json::to_string(&added)?);
    Ok(())
}

fn network(n: u16) -> Result<Vec<Change>> {
    let [here, there] = [2, 3].map(|station| Station {
        network: n,
        n: station,
    });
    let mut changes = cloud::network(n, 1430)?;
    changes.extend(cloud::group(&[n], &[here, there])?);
    changes.extend([cloud::remote(there, "b")?, here.told()?]);
    Ok(changes)
}

/// The links of one port in each network, with nobody behind them.
fn make_links(count: u16) -> Result<()> {
    let lines = (1..=count).map(|n| {
        let link = Station { network: n, n: 2 }.link();
        format!("link add {link} type veth peer name g{n}\nlink set {link} up\nlink set g{n} up\n")
    });
    let directory = tempfile::tempdir().context("make a directory")?;
    let file: PathBuf = directory.path().join("links");
    fs::write(&file, lines.collect::<String>())?;
    let made = Command::new("ip").arg("-batch").arg(&file).status();
    ensure!(made.context("run ip")?.success(), "ip can't make links");
    Ok(())
}

fn own_cpu() -> Result<Duration> {
    let clock = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read a CPU clock")?;
    Ok(Duration::from(clock))
}

fn program_kib() -> Result<f64> {
    Ok(cpu::resident(std::process::id())? * 1024.0)
}

/// What the machine holds and can't give back.
fn machine_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let field = |name: &str| -> Result<f64> {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|l| l.split_ascii_whitespace().next());
        Ok(number.with_context(|| format!("no {name}"))?.parse()?)
    };
    let given_back = ["MemFree", "Buffers", "Cached", "SReclaimable"].map(field);
    let mut held = field("MemTotal")?;
    for part in given_back {
        held -= part?;
    }
    Ok(held)
}
