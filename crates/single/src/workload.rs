//! A workload that is started by name: its port, its namespace, and what it finds in there.
//!
//! The port stays when the workload ends, and with it its addresses: whoever is called so next has them again. The namespace
//! goes. A record of each namespace is written before it is made, so that nothing is left unknown.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hextet_kernel::{
    host, netns,
    workload::{self, Veth, inside},
};
use hextet_model::state::Netns;
use hextet_types::{HostId, IfName, PortId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, text},
    network::{ON_LINK, OPEN, ROUTED},
    places::{Places, make_directory, write},
};

/// The interface in the namespace.
const INTERFACE: &str = "eth0";
/// The host's end of every port.
const ROUTER: &str = "fe80::1";
/// For the workload to have formed its addresses.
const FORMING: Duration = Duration::from_secs(5);
/// Between SIGTERM and SIGKILL.
const ENDING: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(20);
/// Of a namespace's name, and so that a port's name is one word.
const MAX_NAME: usize = 63;

/// What a workload is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, and that of its port and namespace.
    pub name: String,
    /// The network; without one, the best that there is.
    pub network: Option<String>,
    /// Security groups, by name; without any, [`OPEN`].
    pub groups: Vec<String>,
}

/// A port that is there for a workload.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The port.
    pub port: PortId,
    /// Its addresses, and by which default router each leaves, if it is to be told.
    own: Vec<inside::Own>,
    /// Addresses that the workload forms itself.
    forms: Vec<IpAddr>,
}

impl Ready {
    /// All addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let own = self.own.iter().map(|own| own.addr);
        self.forms.iter().copied().chain(own).collect()
    }
}

/// Checks a name.
///
/// # Errors
///
/// It can't be that of a namespace.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    ensure!(
        starts && name.len() <= MAX_NAME && name.chars().all(fits),
        "'{name}' is no name for a workload: it has up to {MAX_NAME} letters, digits, '-', '_' and '.', and begins with a letter or digit"
    );
    Ok(())
}

/// The port of that name, made if there is none, on this host.
///
/// # Errors
///
/// There is no such network or group, or the server refuses.
pub fn port(cloud: &Cloud, host: &HostId, wanted: &Wanted) -> Result<Ready> {
    check_name(&wanted.name)?;
    let port = match &cloud.find_ports(&wanted.name)?[..] {
        [] => create(cloud, host, wanted)?,
        [port] => port.clone(),
        several => bail!(
            "{} ports are called {}: rename one",
            several.len(),
            wanted.name
        ),
    };
    let (mut own, mut forms) = (Vec::new(), Vec::new());
    let query = format!("network_id={}", text(&port, "network_id"));
    let subnets = cloud.list("subnets", &query)?;
    for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
        let subnet = subnets.iter().find(|s| s["id"] == fixed["subnet_id"]);
        let subnet = subnet.context("the port's subnet has just gone; try again")?;
        let addr: IpAddr = text(fixed, "ip_address").parse()?;
        match (addr, subnet["ipv6_address_mode"] == "slaac") {
            (IpAddr::V6(_), true) => forms.push(addr),
            (IpAddr::V6(_), false) => own.push(inside::Own {
                addr,
                gateway: ROUTER.parse().ok(),
            }),
            (IpAddr::V4(_), _) => own.push(inside::Own {
                addr,
                gateway: text(subnet, "gateway_ip").parse().ok(),
            }),
        }
    }
    Ok(Ready {
        port: text(&port, "id").parse().context("the port's identifier")?,
        own,
        forms,
    })
}

fn create(cloud: &Cloud, host: &HostId, wanted: &Wanted) -> Result<Value> {
    let network = network(cloud, wanted.network.as_deref())?;
    let groups: Vec<String> = match wanted.groups.is_empty() {
        true => vec![OPEN.to_owned()],
        false => wanted.groups.clone(),
    };
    let groups = groups.iter().map(|name| group(cloud, name));
    let groups: Vec<String> = groups.collect::<Result<_>>()?;
    let attributes = json!({"name": wanted.name, "network_id": network, "security_groups": groups,
        "device_id": wanted.name, "device_owner": "compute:nova", "binding:host_id": host});
    cloud.create(("ports", "port"), &attributes)
}

fn network(cloud: &Cloud, name: Option<&str>) -> Result<String> {
    let candidates = match name {
        Some(name) => vec![name],
        None => vec![ROUTED, ON_LINK],
    };
    for name in &candidates {
        if let Some(found) = cloud.list("networks", &format!("name={name}"))?.first() {
            return Ok(text(found, "id").to_owned());
        }
    }
    bail!(
        "there is no network {}: 'openstack network list' shows those that there are",
        candidates.join(" or ")
    )
}

fn group(cloud: &Cloud, name: &str) -> Result<String> {
    match &cloud.list("security-groups", &format!("name={name}"))?[..] {
        [only] => Ok(text(only, "id").to_owned()),
        [] => bail!("there is no security group {name}"),
        _ => bail!("several security groups are called {name}"),
    }
}

/// Makes the namespace and plugs the port into it, which is to be done by `plug`; then all but the addresses that the
/// workload forms itself is there.
///
/// # Errors
///
/// The workload runs already, or something else has its name; then nothing is changed.
pub fn prepare(
    places: &Places,
    name: &str,
    ready: &Ready,
    plug: impl FnOnce(&str, &IfName) -> Result<()>,
) -> Result<()> {
    let record = record(places, name);
    match record.exists() {
        true => clear(places, name, false)?,
        false => ensure!(
            !netns::list()?.iter().any(|n| n == name),
            "there is a network namespace {name} already, and 'hextet run' did not make it: take another name"
        ),
    }
    make_directory(&places.workloads())?;
    write(&record, &ready.port.to_string())?;
    let interface: IfName = INTERFACE.parse()?;
    let made = inside::create(name)
        .map_err(anyhow::Error::from)
        .and_then(|()| plug(name, &interface))
        .and_then(|()| Ok(inside::configure(name, &interface, &ready.own)?))
        .and_then(|()| resolver(name))
        .and_then(|()| await_formed(name, ready));
    made.inspect_err(|_| drop(clear(places, name, true)))
}

/// Waits until what the workload forms is there, and no duplicate of anybody's.
fn await_formed(name: &str, ready: &Ready) -> Result<()> {
    let handle = netns::Handle::open(&Netns::Named(name.to_owned()))?;
    let end = Instant::now() + FORMING;
    loop {
        let inside = handle.run(host::look)??;
        let is_there = |addr: &IpAddr| {
            let mut found = inside.addresses.iter().filter(|own| own.addr == *addr);
            found.any(|own| !own.standing.tentative)
        };
        match ready.forms.iter().find(|addr| !is_there(addr)) {
            None => return Ok(()),
            Some(addr) if Instant::now() > end => bail!(
                "{name} has not formed {addr} within {} s; 'hextet status' and 'hextet doctor' say more",
                FORMING.as_secs()
            ),
            Some(_) => sleep(BETWEEN),
        }
    }
}

/// Starts a command in a workload's namespace.
///
/// # Errors
///
/// It can't be started.
pub fn spawn(name: &str, command: &[String]) -> Result<Child> {
    let (program, words) = command.split_first().context("a command")?;
    Ok(inside::spawn(name, Command::new(program).args(words))?)
}

/// The resolvers that the host goes by, unless they are the host itself.
fn resolver(name: &str) -> Result<()> {
    let candidates = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let texts = candidates.iter().filter_map(|p| fs::read_to_string(p).ok());
    let mut useful = texts.map(|text| servers(&text));
    let Some(servers) = useful.find(|servers| !servers.is_empty()) else {
        return Ok(());
    };
    let directory = inside::files(name);
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join("resolv.conf"), servers))
        .with_context(|| format!("write {}/resolv.conf", directory.display()))
}

fn servers(text: &str) -> String {
    let is_far = |line: &&str| {
        let mut words = line.split_whitespace();
        let server = (words.next(), words.next().map(str::parse::<IpAddr>));
        matches!(server, (Some("nameserver"), Some(Ok(addr))) if !addr.is_loopback())
    };
    let lines = text.lines().filter(is_far);
    lines.map(|line| format!("{line}\n")).collect()
}

fn record(places: &Places, name: &str) -> PathBuf {
    places.workloads().join(name)
}

/// The names of workloads whose namespaces were made.
///
/// # Errors
///
/// The records can't be read.
pub fn known(places: &Places) -> Result<Vec<String>> {
    let directory = places.workloads();
    let entries = match fs::read_dir(&directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", directory.display()))?,
    };
    let names = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|n| check_name(n).is_ok()).collect();
    names.sort();
    Ok(names)
}

/// Takes a workload's namespace away, and ends what runs in there if that is wanted.
///
/// # Errors
///
/// Something runs in there and is not to be ended, or does not end.
pub fn clear(places: &Places, name: &str, end: bool) -> Result<()> {
    let record = record(places, name);
    let is_there = netns::list()?.iter().any(|n| n == name);
    if is_there {
        let running = inside::processes(name)?;
        ensure!(
            end || running.is_empty(),
            "{name} runs already: process {} is in its network namespace",
            running.first().copied().unwrap_or_default()
        );
        end_all(name)?;
    }
    if let Ok(text) = fs::read_to_string(&record)
        && let Ok(port) = text.trim().parse::<PortId>()
    {
        workload::detach(&IfName::for_port(port))?;
    }
    netns::delete(name)?;
    for path in [inside::files(name).join("resolv.conf"), record] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    // Unless somebody else has something in there.
    let _ = fs::remove_dir(inside::files(name));
    Ok(())
}

fn end_all(name: &str) -> Result<()> {
    let begun = Instant::now();
    let mut signal = Some(Signal::SIGTERM);
    loop {
        let running = inside::processes(name)?;
        if running.is_empty() {
            return Ok(());
        }
        if let Some(signal) = signal.take() {
            for pid in &running {
                let _ = kill(Pid::from_raw(i32::try_from(*pid)?), signal);
            }
        }
        match begun.elapsed() {
            after if after > 2 * ENDING => bail!("process {} of {name} does not end", running[0]),
            after if after > ENDING => signal = Some(Signal::SIGKILL),
            _ => {}
        }
        sleep(BETWEEN);
    }
}

/// A veth for a port, as the agent says that it is to be.
pub fn veth(status: &hextet_agent::report::PortStatus, netns: &str, name: &IfName) -> Veth {
    Veth {
        host_end: status.link.clone(),
        netns: netns.to_owned(),
        name: name.clone(),
        mac: status.mac,
        mtu: status.mtu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_namespaces() {
        for good in ["web", "web-1", "a.b_c", "9"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "-a", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resolvers_that_a_workload_can_reach_are_told() {
        let text = "# mine\nnameserver 127.0.0.53\nnameserver 2001:db8::53\nnameserver ::1\nsearch example\n";
        assert_eq!(servers(text), "nameserver 2001:db8::53\n");
        assert_eq!(servers("nameserver\nnameserver x\n"), "");
    }
}
