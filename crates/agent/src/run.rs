//! Starts everything, in the order in which it is safe, and ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hextet_autoconf::Duid;
use hextet_bgp::session::State;
use hextet_kernel::{
    Config as KernelConfig, Keeper, Kernel, Scope, netlink::Monitor, netns, sysctl,
};
use hextet_model::{intent::Intent, plan::Planner, state::Netns};
use hextet_types::IfName;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc as async_mpsc, watch},
};
use tracing::{info, warn};

use crate::{
    arrival, bgp,
    clock::Clock,
    config::AgentConfig,
    control,
    flows::Flows,
    herald,
    identity::Identity,
    journal::Journal,
    mesh,
    meters::{self, Ledger},
    metrics, monitor,
    next_hop::NextHops,
    probe,
    reconciler::{Input, Outputs, Reconciler},
    relay::{self, Relay},
    report::MeshStatus,
    reporter, responder, rollcall,
    subscription::{self, Update},
    uplinks::{self, Answering, Physical},
};

/// The sysctls that plans may set.
const SYSCTLS: [&str; 3] = ["net/ipv4/", "net/ipv6/", "net/netfilter/"];
/// Inputs that wait for the reconciler before others have to wait.
const QUEUE: usize = 8192;
/// Groups of changes of the intent that wait.
const UPDATES: usize = 64;
/// How often the host's certificate is looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(600);

/// Whether this host has a certificate.
pub fn has_joined(config: &AgentConfig) -> bool {
    Identity::in_dir(&config.state_dir).exists()
}

/// Gets this host's certificate against a one-time token.
///
/// # Errors
///
/// The host has joined already, or the server refuses.
pub async fn join(config: &AgentConfig, token: &str) -> Result<()> {
    make_state_dir(&config.state_dir)?;
    let identity = Identity::in_dir(&config.state_dir);
    if identity.exists() {
        bail!(
            "{} has joined already; to join anew, remove host.pem from {}",
            config.host_id(),
            config.state_dir.display()
        );
    }
    identity.join(&config.server, config.host_id(), token).await
}

/// Removes all that agents made in this kernel, and restores what they had changed.
///
/// # Errors
///
/// An agent runs, or the kernel can't be read.
pub fn leave(config: &AgentConfig) -> Result<usize> {
    if std::os::unix::net::UnixStream::connect(&config.control_socket).is_ok() {
        bail!("an agent runs on this host: stop it first");
    }
    let mut kernel = open_kernel(config)?;
    let (_, intent, _) = Journal::open(&journal_path(config))?;
    let mut planner = Planner::new(config.host.clone());
    planner.replace(&intent);
    let expected = planner.state().objects.clone();
    let standing = kernel
        .dump(&Scope::of(&expected))
        .context("read the kernel")?;
    let report = kernel.apply(hextet_kernel::diff(&BTreeMap::new(), &standing));
    if let Some((op, error)) = report.failed.first() {
        bail!("{op}: {error} (and {} more)", report.failed.len() - 1);
    }
    Ok(report.applied)
}

/// Runs the agent until it is told to end (SIGTERM, SIGINT).
///
/// # Errors
///
/// The host has not joined, or something can't be started. Nothing is left half-started.
pub async fn run(mut config: AgentConfig) -> Result<()> {
    let identity = Identity::in_dir(&config.state_dir);
    if !identity.exists() {
        bail!("this host has not joined: hextet agent join --token …");
    }
    config.tunnel_address = mesh::tunnel_address(&config).await?;
    let config = Arc::new(config);
    let mut agent = start(&config).await?;
    let told = reporter::Host {
        gateway_mac: config.host.gateway_mac,
        tunnel_address: config.tunnel_address,
        gateway: config.gateway,
        physical_networks: config.host.physical_networks.keys().cloned().collect(),
    };
    tokio::spawn(reporter::run(
        (config.server.clone(), told),
        identity.clone(),
        (agent.standing.clone(), agent.pulses.clone()),
    ));
    let arrived = arrival::listen(agent.standbys.clone())?;
    let standbys = agent.standbys.clone();
    tokio::spawn(arrival::report(
        config.server.clone(),
        identity.clone(),
        standbys,
        arrived,
    ));
    let (_, none) = async_mpsc::channel(1);
    let news = std::mem::replace(&mut agent.news, none);
    tokio::spawn(herald::run(config.server.clone(), identity.clone(), news));
    tokio::spawn(rollcall::run(
        config.server.clone(),
        identity.clone(),
        agent.joined.clone(),
    ));
    tokio::spawn(meters::run(
        config.server.clone(),
        identity.clone(),
        agent.ledger.clone(),
    ));
    if let Some(relay) = agent.relay.take() {
        tokio::spawn(relay::run(config.server.clone(), identity.clone(), relay));
    }
    let (updates, told) = async_mpsc::channel(UPDATES);
    let following = subscription::run(
        config.server.clone(),
        identity.clone(),
        updates,
        agent.reach.clone(),
    );
    tokio::spawn(following);
    tokio::spawn(hand_on_intent(told, agent.inputs.clone()));
    tokio::spawn(renew(config.clone(), identity));
    info!(host = %config.host_id(), server = config.server, "the agent runs");
    agent.until_told_to_end().await
}

/// Runs the agent without a server, on what these updates say, until it is told to end.
///
/// # Errors
///
/// Something can't be started. Nothing is left half-started.
pub async fn run_told(config: AgentConfig, told: async_mpsc::Receiver<Update>) -> Result<()> {
    let mut agent = start(&Arc::new(config)).await?;
    agent.relay = None;
    tokio::spawn(hand_on_intent(told, agent.inputs.clone()));
    agent.until_told_to_end().await
}

/// An agent's threads and tasks, all but those that talk to the server.
struct Agent {
    inputs: mpsc::SyncSender<Input>,
    standing: watch::Receiver<reporter::Standing>,
    pulses: watch::Receiver<probe::Pulses>,
    standbys: watch::Receiver<arrival::Standbys>,
    /// Told when the first BGP peer is there again.
    reach: Arc<Notify>,
    news: async_mpsc::Receiver<herald::News>,
    joined: watch::Receiver<rollcall::Ports>,
    ledger: Arc<Ledger>,
    /// For whoever can ask the server.
    relay: Option<Relay>,
    speaker: Option<SpeakerStatus>,
    reconciling: thread::JoinHandle<()>,
}

async fn start(config: &Arc<AgentConfig>) -> Result<Agent> {
    let mut config = config.as_ref().clone();
    config.host.hears_routers = hears_routers(&config)?;
    let config = &Arc::new(config);
    let clock = Clock::start();
    let (inputs, heard) = mpsc::sync_channel(QUEUE);
    let (standing, standing_told) = watch::channel(reporter::Standing::default());
    let (news, news_told) = async_mpsc::channel(herald::QUEUE);
    let (joined, joined_told) = watch::channel(rollcall::Ports::new());
    let (responders, responders_told) = async_mpsc::unbounded_channel();
    let (announce, announcements) = watch::channel(bgp::Announcements::new());
    let (inside, inside_told) = watch::channel(mesh::Inside::new());
    let (watched, whom) = watch::channel(probe::Watched::new());
    let (standbys, standbys_told) = watch::channel(arrival::Standbys::new());
    let (answering, answering_told) = async_mpsc::unbounded_channel();

    let mut kernel = open_kernel(config)?;
    let ledger = hear_kernel(&mut kernel, inputs.clone(), config)?;
    let outputs = Outputs {
        announce: Some(announce),
        inside,
        responders,
        standing,
        watched,
        standbys,
        heard: news,
        joined,
        answering,
        ledger: Arc::clone(&ledger),
    };
    let physical = (answering_told, clock, &inputs);
    let reconciler = take_over(config, kernel, outputs, physical)?;
    let restarting = reconciler.restarting();
    let (nova, relay) = relay::channel();
    responder::start(
        responders_told,
        Duid::link_layer(config.host.gateway_mac),
        clock,
        inputs.clone(),
        nova,
    )?;
    let drains = Arc::new(bgp::Drains::open(&config.state_dir)?);
    let wanted = mesh::Wanted {
        announcements,
        inside: inside_told,
        drain: drains.hear(),
    };
    let reach = Arc::new(Notify::new());
    let (speaker, mesh) = start_uplink(config, clock, restarting, wanted, (&inputs, &reach))?;
    let pulses = start_probe(config, clock, whom)?;
    control::serve(
        &config.control_socket,
        sources(config, &inputs, (speaker.as_ref(), mesh), drains, clock),
    )?;
    metrics::serve(config.metrics, inputs.clone()).await?;
    let reconciling = begin(reconciler, heard)?;
    Ok(Agent {
        inputs,
        standing: standing_told,
        pulses,
        standbys: standbys_told,
        reach,
        news: news_told,
        joined: joined_told,
        ledger,
        relay: Some(relay),
        speaker,
        reconciling,
    })
}

/// The reconciler, with what the journal holds and the kernel has; and those who listen on physical networks.
fn take_over(
    config: &AgentConfig,
    kernel: Kernel,
    outputs: Outputs,
    (answering, clock, inputs): (
        async_mpsc::UnboundedReceiver<Answering>,
        Clock,
        &mpsc::SyncSender<Input>,
    ),
) -> Result<Reconciler> {
    let (journal, mut intent, revision) = Journal::open(&journal_path(config))?;
    let physical = physical_networks(config, &mut intent);
    uplinks::start(physical, answering, clock, inputs);
    Reconciler::new(
        Planner::new(config.host.clone()),
        (kernel, Flows::start()?),
        (journal, intent, revision),
        NextHops::new(config.bgp.as_ref()),
        outputs,
    )
}

/// The uplinks on which the host itself goes by what routers say (RFC 4861 §6.2.2 lets no router do so): it is to go on
/// doing so when it forwards. What was before we came counts.
fn hears_routers(config: &AgentConfig) -> Result<BTreeSet<IfName>> {
    let record = sysctl::Record::open(sysctl_record(config))?;
    let hears = |link: &IfName| {
        let path = |setting| format!("net/ipv6/conf/{link}/{setting}");
        match record.former(&path("accept_ra")) {
            Some(former) => former == "1",
            None => [("accept_ra", "1"), ("forwarding", "0")]
                .iter()
                .all(|(setting, value)| sysctl::read(&path(setting)).is_ok_and(|is| is == *value)),
        }
    };
    let uplinks = config.host.all_uplinks().into_iter();
    Ok(uplinks.filter(|link| hears(link)).cloned().collect())
}

fn sysctl_record(config: &AgentConfig) -> std::path::PathBuf {
    config.state_dir.join("former-sysctls")
}

/// The physical networks that the host is on, each with what was known of it; of others nothing counts any more.
fn physical_networks(config: &AgentConfig, intent: &mut Intent) -> Vec<Physical> {
    let all = &config.host.physical_networks;
    intent.upstreams.retain(|name, _| all.contains_key(name));
    let physical = all.iter().map(|(name, link)| Physical {
        name: name.clone(),
        link: link.clone(),
        said: intent.upstreams.get(name).cloned().unwrap_or_default(),
    });
    physical.collect()
}

fn begin(reconciler: Reconciler, inputs: mpsc::Receiver<Input>) -> Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("reconciler".to_owned())
        .spawn(move || reconciler.run(&inputs))
        .context("start the reconciler's thread")
}

/// Watches other hosts' kernels, if tunnels lead here.
fn start_probe(
    config: &AgentConfig,
    clock: Clock,
    whom: watch::Receiver<probe::Watched>,
) -> Result<watch::Receiver<probe::Pulses>> {
    match config.tunnel_address {
        Some(own) => probe::start(clock, own, whom),
        None => Ok(watch::channel(probe::Pulses::new()).1),
    }
}

/// Has the loop told of what others change in the kernel, and keeps what counters have counted that go.
fn hear_kernel(
    kernel: &mut Kernel,
    inputs: mpsc::SyncSender<Input>,
    config: &AgentConfig,
) -> Result<Arc<Ledger>> {
    let main = netns::Handle::open(&Netns::Main)?;
    let changes = Monitor::open(&main, &kernel.socket_ports(&Netns::Main))?;
    kernel.hush(changes.table_hearing());
    kernel.hear_everywhere(changes.everywhere());
    monitor::start(changes, inputs)?;
    let ledger = Ledger::open(&config.state_dir.join("metered"))?;
    let keeping = Arc::clone(&ledger);
    kernel.keep_counts(Keeper::new(move |counted| keeping.take_last(counted)));
    Ok(ledger)
}

impl Agent {
    async fn until_told_to_end(self) -> Result<()> {
        until_told_to_end(&self.reconciling).await?;
        if let Some(speaker) = self.speaker {
            speaker.end.come().await;
        }
        Ok(())
    }
}

fn make_state_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("make the state directory {}", path.display()))
}

fn journal_path(config: &AgentConfig) -> std::path::PathBuf {
    config.state_dir.join("intent.journal")
}

fn open_kernel(config: &AgentConfig) -> Result<Kernel> {
    make_state_dir(&config.state_dir)?;
    Kernel::open(KernelConfig {
        gateway_mac: config.host.gateway_mac,
        sysctl_record: sysctl_record(config),
        sysctls: SYSCTLS.map(str::to_owned).to_vec(),
        tcx: config.tcx,
    })
    .context("open the kernel; the agent needs to be root")
}

/// What the control socket, and the end, need of BGP.
struct SpeakerStatus {
    bgp: watch::Receiver<Option<Arc<hextet_bgp::speaker::SpeakerStatus>>>,
    bfd: Option<watch::Receiver<Arc<crate::bfd::Sessions>>>,
    end: bgp::End,
}

/// BGP, or the mesh, or neither.
fn start_uplink(
    config: &AgentConfig,
    clock: Clock,
    restarting: bool,
    wanted: mesh::Wanted,
    (inputs, reach): (&mpsc::SyncSender<Input>, &Arc<Notify>),
) -> Result<(Option<SpeakerStatus>, Option<watch::Receiver<MeshStatus>>)> {
    let told = (wanted.announcements.clone(), wanted.drain.clone());
    let mesh = start_mesh(config, wanted, inputs);
    let speaker = start_bgp(config, clock, restarting, told, inputs)?;
    if let Some(speaker) = &speaker {
        let (bgp, reach) = (speaker.bgp.clone(), Arc::clone(reach));
        tokio::spawn(tell_peers(bgp, inputs.clone(), reach));
    }
    Ok((speaker, mesh))
}

fn start_mesh(
    config: &AgentConfig,
    wanted: mesh::Wanted,
    inputs: &mpsc::SyncSender<Input>,
) -> Option<watch::Receiver<MeshStatus>> {
    let socket = config.mesh()?.to_owned();
    let (status, told) = watch::channel(MeshStatus::default());
    tokio::spawn(mesh::run(socket, wanted, inputs.clone(), status));
    Some(told)
}

fn start_bgp(
    config: &AgentConfig,
    clock: Clock,
    restarting: bool,
    (announcements, drain): (
        watch::Receiver<bgp::Announcements>,
        watch::Receiver<bgp::Drain>,
    ),
    inputs: &mpsc::SyncSender<Input>,
) -> Result<Option<SpeakerStatus>> {
    let Some(bgp_config) = &config.bgp else {
        return Ok(None);
    };
    let mut handle = bgp::start(bgp_config, clock, restarting, announcements, drain)?;
    let inputs = inputs.clone();
    tokio::task::spawn_blocking(move || {
        while let Some(learned) = handle.learned.blocking_recv() {
            if inputs.send(Input::Learned(learned)).is_err() {
                return;
            }
        }
    });
    Ok(Some(SpeakerStatus {
        bgp: handle.status,
        bfd: handle.sessions,
        end: handle.end,
    }))
}

/// Says when the first peer is there, and when the last one has gone.
async fn tell_peers(
    mut status: watch::Receiver<Option<Arc<hextet_bgp::speaker::SpeakerStatus>>>,
    inputs: mpsc::SyncSender<Input>,
    reach: Arc<Notify>,
) {
    let mut told = false;
    loop {
        let there = status.borrow_and_update().as_ref().is_some_and(|status| {
            let mut peers = status.peers.iter();
            peers.any(|peer| peer.state == State::Established)
        });
        if there != told {
            told = there;
            let inputs = inputs.clone();
            let tell = move || inputs.send(Input::Peers(there)).is_ok();
            if !tokio::task::spawn_blocking(tell).await.unwrap_or(false) {
                return;
            }
            if there {
                reach.notify_one();
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn sources(
    config: &AgentConfig,
    inputs: &mpsc::SyncSender<Input>,
    (speaker, mesh): (Option<&SpeakerStatus>, Option<watch::Receiver<MeshStatus>>),
    drains: Arc<bgp::Drains>,
    clock: Clock,
) -> control::Sources {
    control::Sources {
        host: config.host_id().clone(),
        peers: config.bgp.iter().flat_map(|b| b.peers.clone()).collect(),
        reconciler: inputs.clone(),
        bgp: speaker.map(|s| s.bgp.clone()),
        bfd: speaker.and_then(|s| s.bfd.clone()),
        mesh,
        drains,
        clock,
    }
}

/// Until nobody tells or hears any more.
async fn hand_on_intent(mut told: async_mpsc::Receiver<Update>, inputs: mpsc::SyncSender<Input>) {
    while let Some(update) = told.recv().await {
        let inputs = inputs.clone();
        let sent =
            tokio::task::spawn_blocking(move || inputs.send(Input::Intent(update)).is_ok()).await;
        if !sent.unwrap_or(false) {
            return;
        }
    }
}

/// Renews the certificate when a third of its life is left.
async fn renew(config: Arc<AgentConfig>, identity: Identity) {
    loop {
        match identity.renewal_due_in() {
            Ok(left) if left > RENEWAL_CHECK => tokio::time::sleep(RENEWAL_CHECK).await,
            Ok(left) => {
                tokio::time::sleep(left).await;
                match identity.renew(&config.server, config.host_id()).await {
                    Ok(()) => info!("the host's certificate was renewed"),
                    Err(error) => warn!(
                        error = format!("{error:#}"),
                        "the host's certificate was not renewed"
                    ),
                }
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "the host's certificate can't be read"
                );
                tokio::time::sleep(RENEWAL_CHECK).await;
            }
        }
    }
}

/// What was programmed stands when the process ends, and peers keep its routes (graceful restart).
async fn until_told_to_end(reconciling: &thread::JoinHandle<()>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look.tick() => if reconciling.is_finished() {
                bail!("the reconciler has ended; see the log above");
            },
        }
    }
    info!("the agent ends; what it programmed stands");
    Ok(())
}
