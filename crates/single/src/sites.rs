//! Sites of workloads on the host's own IPv4 address, ports 80 and 443, by name.
//!
//! What people asked for is in one file, by workload; where that leads is in another, which [`keep`] writes and the process
//! follows that hands connections on. That process is one of its own: it outlives server and agent, and ends once there are no
//! sites and no connections.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hextet_proxy::{Backend, HostName, Limits, Proxy, Sites, listen::Port};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    cloud::{Cloud, text},
    places::{Places, write},
};

/// The ports at which sites are.
const PORTS: [(u16, Port); 2] = [(80, Port::Http), (443, Port::Https)];
/// How often the process looks for another table.
const LOOK: Duration = Duration::from_millis(200);
const STARTING: Duration = Duration::from_secs(5);
/// A listener's queue.
const BACKLOG: u32 = 1024;

/// A site that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The workload.
    pub workload: String,
    /// Its port for requests.
    pub http: u16,
    /// Its port for TLS.
    pub https: u16,
    /// Whether it is told the client's address first.
    pub proxy_protocol: bool,
}

/// By name.
pub type All = BTreeMap<HostName, Wanted>;

/// The sites that were asked for.
///
/// # Errors
///
/// The file can't be read.
pub fn all(places: &Places) -> Result<All> {
    let path = wanted_file(places);
    match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(All::new()),
        text => {
            let text = text.with_context(|| format!("read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
        }
    }
}

/// Adds a site, and waits until it is served.
///
/// # Errors
///
/// There is no such workload, its name is taken by another, or so are the host's ports.
pub fn add(places: &Places, cloud: &Cloud, name: HostName, wanted: Wanted) -> Result<()> {
    cloud.port(&wanted.workload)?;
    let mut all = all(places)?;
    if let Some(other) = all.get(&name).filter(|o| o.workload != wanted.workload) {
        bail!(
            "{name} leads to {0}: 'hextet expose {0} --host {name} --remove' first",
            other.workload
        );
    }
    check_ports(places, cloud)?;
    all.insert(name, wanted);
    write(&wanted_file(places), &serde_json::to_string(&all)?)?;
    await_table(places, &all)
}

/// Takes one away.
///
/// # Errors
///
/// It does not lead to that workload.
pub fn remove(places: &Places, name: &HostName, workload: &str) -> Result<()> {
    let mut all = all(places)?;
    let taken = all.remove(name).filter(|site| site.workload == workload);
    ensure!(
        taken.is_some(),
        "{name} does not lead to {workload}: 'hextet expose' lists those that do"
    );
    write(&wanted_file(places), &serde_json::to_string(&all)?)?;
    await_table(places, &all)
}

/// Nobody else may have the host's ports: neither a program nor a workload.
fn check_ports(places: &Places, cloud: &Cloud) -> Result<()> {
    for (port, _) in PORTS {
        let exposed = crate::expose::list(cloud)?;
        if let Some(other) = exposed
            .iter()
            .find(|e| e.exposure.protocol == "tcp" && e.exposure.external_port == port)
        {
            bail!(
                "port {port} of this host leads to {0} as a whole: 'hextet expose {0} {port} --remove' first",
                other.name
            );
        }
        if process(places).is_none() {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| {
                format!("port {port} of this host, which sites need, is not free ('ss -ltnp' shows whose it is)")
            })?;
        }
    }
    Ok(())
}

/// A port that sites are at can't lead to one workload as a whole.
///
/// # Errors
///
/// It is one of theirs.
pub fn refuse_beside(places: &Places, protocol: &str, port: u16) -> Result<()> {
    let is_theirs = protocol == "tcp" && PORTS.iter().any(|(of, _)| *of == port);
    if let Some((name, site)) = all(places)?.first_key_value().filter(|_| is_theirs) {
        bail!(
            "port {port} of this host is for sites, such as {name}: give the workload a name, too ('--host NAME'), or \
             take those away ('hextet expose {} --host {name} --remove')",
            site.workload
        );
    }
    Ok(())
}

fn await_table(places: &Places, all: &All) -> Result<()> {
    let end = Instant::now() + STARTING;
    loop {
        let names = |text: &str| serde_json::from_str::<BTreeMap<HostName, Value>>(text).ok();
        let table = fs::read_to_string(table_file(places)).unwrap_or_default();
        let is_told = names(&table).is_some_and(|told| told.keys().eq(all.keys()));
        if is_told && (all.is_empty() || process(places).is_some()) {
            // Until it has looked.
            sleep(2 * LOOK);
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the sites are not served after {} s: is hextet up? {} may say why not",
            STARTING.as_secs(),
            places.log().display()
        );
        sleep(LOOK / 4);
    }
}

/// Writes where sites lead now, and sees to it that somebody serves them.
///
/// # Errors
///
/// The server does not answer, or the process can't be started.
pub fn keep(places: &Places, cloud: &Cloud) -> Result<()> {
    let all = all(places)?;
    let table = table_file(places);
    if all.is_empty() && !table.exists() {
        return Ok(());
    }
    let ports = match all.is_empty() {
        true => Vec::new(),
        false => cloud.list("ports", "fields=name&fields=fixed_ips")?,
    };
    let sites: Sites = all
        .into_iter()
        .map(|(name, wanted)| (name, backend(&ports, &wanted)))
        .collect();
    let text = sites.to_json();
    if fs::read_to_string(&table).ok().as_ref() != Some(&text) {
        write(&table, &text)?;
        info!("other sites");
    }
    if !sites.is_empty() && process(places).is_none() {
        start(places)?;
    }
    Ok(())
}

fn backend(ports: &[Value], wanted: &Wanted) -> Backend {
    let port = ports.iter().find(|p| text(p, "name") == wanted.workload);
    let fixed = port.and_then(|port| port["fixed_ips"].as_array());
    let addresses = fixed.into_iter().flatten();
    let mut addresses: Vec<IpAddr> = addresses
        .filter_map(|fixed| text(fixed, "ip_address").parse().ok())
        .collect();
    // IPv4 is private here, and stays when the provider changes its prefix.
    addresses.sort_by_key(IpAddr::is_ipv6);
    Backend {
        addresses,
        http: Some(wanted.http),
        https: Some(wanted.https),
        proxy_protocol: wanted.proxy_protocol,
    }
}

fn start(places: &Places) -> Result<()> {
    let program = env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command
        .arg("proxy")
        .env("HEXTET_STATE_DIR", &places.state)
        .env("HEXTET_RUN_DIR", &places.run)
        .stdin(Stdio::null())
        .process_group(0);
    let mut child = command.spawn().context("start the proxy of sites")?;
    // It is to be nobody's zombie.
    std::thread::spawn(move || child.wait());
    Ok(())
}

fn wanted_file(places: &Places) -> PathBuf {
    places.state.join("sites.json")
}

fn table_file(places: &Places) -> PathBuf {
    places.state.join("proxy.json")
}

fn lock_file(places: &Places) -> PathBuf {
    places.run.join("proxy.pid")
}

/// The process, while it runs: it holds a lock on the file with its number.
pub fn process(places: &Places) -> Option<Pid> {
    let path = lock_file(places);
    let file = fs::File::open(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_free) => None,
        Err(_) => {
            let number = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
            Some(Pid::from_raw(number))
        }
    }
}

/// Ends it.
///
/// # Errors
///
/// It does not end.
pub fn stop(places: &Places) -> Result<()> {
    let end = Instant::now() + STARTING;
    if let Some(pid) = process(places) {
        kill(pid, Signal::SIGTERM).with_context(|| format!("end process {pid}"))?;
        while process(places).is_some() {
            ensure!(
                Instant::now() < end,
                "process {pid}, the proxy, does not end"
            );
            sleep(LOOK / 10);
        }
    }
    let _ = fs::remove_file(lock_file(places));
    Ok(())
}

/// Hands connections on, for as long as there are sites.
///
/// # Errors
///
/// There is such a process already, or a port can't be had.
pub async fn run(places: Places) -> Result<()> {
    let _lock = take_lock(&places)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (tell, told) = watch::channel(Arc::new(Sites::default()));
    let proxy = Proxy::new(told, Limits::default());
    let mut listening: Vec<JoinHandle<()>> = Vec::new();
    loop {
        match read_table(&places) {
            Ok(sites) => {
                tell.send_if_modified(|was| {
                    let is_new = **was != sites;
                    *was = Arc::new(sites.clone());
                    is_new
                });
                if !sites.is_empty() && listening.is_empty() {
                    for (port, kind) in PORTS {
                        let (listener, proxy) = (listener(port)?, proxy.clone());
                        let listen = async move { proxy.listen(&listener, kind).await };
                        listening.push(tokio::spawn(listen));
                    }
                }
                if sites.is_empty() {
                    listening.drain(..).for_each(|task| task.abort());
                    if proxy.connections() == 0 {
                        return Ok(());
                    }
                }
            }
            Err(error) => warn!(%error, "going on with the sites as they were"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn read_table(places: &Places) -> Result<Sites> {
    let path = table_file(places);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Sites::from_json(&text).with_context(|| format!("understand {}", path.display()))
}

fn take_lock(places: &Places) -> Result<Flock<fs::File>> {
    use std::io::Write as _;
    let path = lock_file(places);
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).read(true);
    let file = options
        .open(&path)
        .with_context(|| format!("write {}", path.display()))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| e)
        .context("the proxy of sites runs already")?;
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    Ok(lock)
}

fn listener(port: u16) -> Result<tokio::net::TcpListener> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(at)
        .and_then(|()| socket.listen(BACKLOG))
        .with_context(|| format!("listen on {at}"))
}
