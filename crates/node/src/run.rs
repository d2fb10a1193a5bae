//! The task that owns the node: what happens goes to [`Node`], and what follows is done.
//!
//! [`act`] does what the node wants, [`strands`] shares flows out over several uplinks, [`hear`] tells it of tunnels and of Babel's ways, [`lan`] of who is on the same
//! network, [`direct`] watches routes that are not the mesh's, [`gateway`] leads others out of the network, [`registry`] asks for it, [`serve`] announces for another program, [`survey`] has the map made, [`tell`] answers people.

mod act;
mod direct;
mod gateway;
mod hear;
mod lan;
mod registry;
mod serve;
mod strands;
mod survey;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hextet_babel::{
    LinkId, Start,
    engine::Status as BabelStatus,
    number::Metric,
    packet::{Class as PacketClass, Destination},
};
use hextet_kernel::filter::{Filter, Table};
use hextet_mesh::{
    certificate::{Certificate, Class},
    node::{Action, Event, Node, PORT, Setup, Strand, home_of},
    parameters::Parameters,
    topology::{self, Reach},
};
use hextet_registry::clock::now as wall;
use hextet_tunnels::control::Status as TunnelStatus;
use hextet_types::{IfName, Prefix, Time, Way};
use rand::Rng as _;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use self::registry::Answer;
use crate::{
    babel,
    capacity::Meter,
    classes,
    clock::Clock,
    config::{Config, port_of},
    control::{self, Asked},
    direct::{
        Direct,
        echo::{Echo, Reply},
    },
    host,
    lan::{Beacon, Segments},
    mapping::Mappings,
    memory::{Identity, Memory},
    metrics, rules,
    served::{Served, Serving},
    tunnels::{self, Letters, Place, Report, Wish},
    ways::{Sources, Ways},
};

/// How often the host's addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(2);
/// How often the kernel's routes are looked at, and what is to be remembered is written down.
const LOOK: Duration = Duration::from_secs(10);
const REMEMBER: Duration = Duration::from_secs(1);
/// How often it is asked whether the certificate is to be renewed.
const RENEWAL: Duration = Duration::from_secs(60);
/// Questions of people that wait.
const ASKED: usize = 16;
/// Octets of a letter that comes by the mesh.
const MAX_LETTER: usize = 2_048;

/// Runs a node until it is told to end; what stands in the kernel, and tunnels, stay.
///
/// # Errors
///
/// This host has not joined a mesh, another node runs on it, or a right is missing.
pub async fn run(config: Config, told_to_end: impl Future<Output = ()>) -> Result<()> {
    let memory = Memory::open(&config.directory)?;
    let identity = memory.identity()?;
    let listener = control::bind(&config.socket).await?;
    let scrapes = match config.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let (mut runner, inputs) = Runner::start(config, memory, identity).await?;
    let (asked, asking) = mpsc::channel(ASKED);
    let scraped = scrapes.map(|scrapes| tokio::spawn(metrics::serve(scrapes, asked.clone())));
    let listening = tokio::spawn(control::listen(listener, asked));
    let body = &runner.node.certificate().body;
    info!(node = %body.node, network = %body.network, "a node of the mesh runs");
    let done = tokio::select! {
        done = runner.live(asking, inputs) => done,
        () = told_to_end => Ok(()),
    };
    listening.abort();
    if let Some(scraped) = scraped {
        scraped.abort();
    }
    done
}

/// A tunnel, from the moment that it is asked for.
#[derive(Debug)]
struct Tunnel {
    name: IfName,
    asked: Time,
    /// While it carries.
    link: Option<LinkId>,
    is_draining: bool,
    status: Option<TunnelStatus>,
    /// Told to Babel: when something had been heard last.
    told: Option<Time>,
    /// How many leave by it.
    routes: Option<usize>,
    meter: Meter,
    /// Told to Babel: what it costs packets that are many.
    carries: Option<Metric>,
}

/// What comes from elsewhere.
struct Inputs {
    reports: mpsc::Receiver<Report>,
    routes: mpsc::Receiver<babel::Changes>,
    status: tokio::sync::watch::Receiver<Arc<BabelStatus>>,
    babel_ended: tokio::sync::oneshot::Receiver<()>,
    answers: mpsc::Receiver<Answer>,
    beacons: mpsc::Receiver<Beacon>,
    echoes: mpsc::Receiver<Reply>,
}

struct Runner {
    config: Config,
    clock: Clock,
    memory: Memory,
    node: Node,
    place: Place,
    wishes: Sender<Wish>,
    /// Doors of the process for tunnels, by uplink, once there is one.
    doors: Vec<Vec<SocketAddr>>,
    letters: Option<Letters>,
    /// Letters over the mesh.
    inner: UdpSocket,
    orders: mpsc::Sender<babel::Order>,
    ways: Ways,
    babel: Arc<BabelStatus>,
    /// Distances as the node was told.
    distances: BTreeMap<Prefix, Metric>,
    tunnels: BTreeMap<Strand, Tunnel>,
    sharing: strands::Sharing,
    segments: Segments,
    neighbours: lan::Neighbours,
    direct: Direct,
    echo: Echo,
    /// Whether tunnels of an earlier run have been looked for.
    is_settled: bool,
    /// By uplink.
    addresses: Vec<Vec<SocketAddr>>,
    mappings: Mappings,
    /// Where this node is reached by them.
    mapped: Vec<SocketAddr>,
    told_out: gateway::Told,
    /// The kernel has WireGuard, and the node is told so with the addresses.
    has_kernel: bool,
    told_kernel: bool,
    /// Streams were asked for.
    streams: bool,
    to_remember: bool,
    registry: registry::Asker,
    filter: Filter,
    /// As the filter has it, once it has been written.
    rules: Option<Option<Table>>,
    refusals: act::Refusals,
    served: Served,
    /// Once somebody has asked.
    serving: Option<watch::Sender<Serving>>,
    maps: survey::Maps,
}

impl Runner {
    async fn start(config: Config, memory: Memory, identity: Identity) -> Result<(Runner, Inputs)> {
        let clock = Clock::start();
        let certificate = identity.certificate.body.clone();
        if config.forward && certificate.class != Class::Client {
            host::forward()?;
        }
        let network = identity.trust.parameters().body.clone();
        let served = memory.served();
        let (segments, beacons) = Segments::new(config.lan.clone(), config.port);
        let accept = (&config.accept[..], config.default, &served);
        let (ways, start) = open_ways(&certificate, &network, accept, &segments.bare())?;
        let announce = config.announce.iter().chain(&served.announce);
        let announce = announce.copied().collect();
        let babel = start_babel(clock, &certificate, start, announce).await?;
        let inner = listen_inside(&certificate).await?;
        let place = Place::of(&config);
        let (wishes, reports) = tunnels::start(place.clone())?;
        let (echo, echoes) = Echo::new(Sources::of(&certificate), rand::rng().random());
        let (registry, answers) = registry::Asker::new(memory.key()?);
        let runner = Runner {
            node: Node::new(setup(identity, config.reach), clock.now(), wall()),
            config,
            clock,
            memory,
            place,
            wishes,
            doors: Vec::new(),
            letters: None,
            inner,
            orders: babel.orders,
            ways,
            babel: babel.status.borrow().clone(),
            distances: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            sharing: strands::Sharing::default(),
            segments,
            neighbours: lan::Neighbours::default(),
            direct: Direct::default(),
            echo,
            is_settled: false,
            addresses: Vec::new(),
            mappings: Mappings::default(),
            mapped: Vec::new(),
            told_out: gateway::Told::default(),
            has_kernel: false,
            told_kernel: false,
            streams: false,
            to_remember: false,
            registry,
            filter: Filter::open(rules::TABLE)?,
            rules: None,
            refusals: act::Refusals::default(),
            served,
            serving: None,
            maps: survey::Maps::default(),
        };
        let inputs = Inputs {
            reports,
            routes: babel.routes,
            status: babel.status,
            babel_ended: babel.ended,
            answers,
            beacons,
            echoes,
        };
        Ok((runner, inputs))
    }

    async fn live(&mut self, mut asking: mpsc::Receiver<Asked>, mut inputs: Inputs) -> Result<()> {
        let mut addresses = steadily(ADDRESSES);
        let mut look = steadily(LOOK);
        let mut remember = steadily(REMEMBER);
        let mut renewal = steadily(RENEWAL);
        let mut octets = vec![0; MAX_LETTER];
        loop {
            let wakeup = self.is_settled.then(|| self.node.next_wakeup());
            tokio::select! {
                () = self.clock.sleep_until(wakeup) => self.tell(Event::Timer).await?,
                // Nobody is listened to before it is known which tunnels stand.
                letter = next_letter(self.letters.as_ref()), if self.is_settled => match letter {
                    Ok((from, octets)) => self.tell(Event::Letter { from, octets }).await?,
                    // A new process will be there soon.
                    Err(_) => self.letters = None,
                },
                came = self.inner.recv_from(&mut octets), if self.is_settled => if let Ok((len, from)) = came {
                    let octets = octets.get(..len).unwrap_or_default().to_vec();
                    let from = Way::Udp(from);
                    self.tell(Event::Letter { from, octets }).await?;
                },
                report = inputs.reports.recv() => {
                    self.report(report.context("nobody looks after tunnels any more")?).await?;
                }
                changes = inputs.routes.recv() => {
                    self.ways.change(changes.context("Babel has ended")?);
                }
                changed = inputs.status.changed() => {
                    changed.context("Babel has ended")?;
                    let status = inputs.status.borrow_and_update().clone();
                    self.babel_tells(status).await?;
                }
                _ = &mut inputs.babel_ended => anyhow::bail!("Babel has ended"),
                answer = inputs.answers.recv() => if let Some(answer) = answer {
                    self.registry_answers(answer).await?;
                },
                asked = asking.recv() => if let Some(asked) = asked {
                    self.asked(asked).await?;
                },
                beacon = inputs.beacons.recv(), if self.is_settled => if let Some(beacon) = beacon {
                    let Beacon { link, from, octets } = beacon;
                    self.tell(Event::Beacon { link, from, octets }).await?;
                },
                _ = addresses.tick() => {
                    self.look_at_addresses().await?;
                    if self.is_settled {
                        self.take_streams();
                        self.lead_out().await?;
                        self.look_at_segments().await?;
                    }
                }
                () = self.clock.sleep_until(self.sharing.next_wakeup()) => self.tell_silent().await?,
                () = self.clock.sleep_until(self.direct.next_wakeup()) => self.ask_direct(),
                reply = inputs.echoes.recv() => if let Some(reply) = reply {
                    self.direct_answers(reply);
                },
                _ = look.tick() => {
                    self.ways.look(self.babel.is_resuming);
                    self.look_for_direct();
                }
                _ = remember.tick() => {
                    self.remember();
                    self.enforce();
                }
                _ = renewal.tick() => self.renew_if_due(),
            }
        }
    }

    /// Tells the node, and does what it wants, and what follows from that.
    async fn tell(&mut self, event: Event) -> Result<()> {
        let actions = self.node.handle(event, self.clock.now(), wall());
        self.act(actions).await
    }

    async fn act(&mut self, actions: Vec<Action>) -> Result<()> {
        for action in actions {
            self.do_one(action).await?;
        }
        Ok(())
    }

    async fn order(&self, order: babel::Order) -> Result<()> {
        let sent = self.orders.send(order).await;
        sent.context("Babel has ended")
    }

    /// Rules as they are by now. Those of an earlier run stay until others have shown their certificates again.
    fn enforce(&mut self) {
        if self.babel.is_resuming {
            return;
        }
        let home = (self.node.certificate().body.prefixes.first().copied()).and_then(home_of);
        let Some(home) = home else { return };
        let table = rules::table(&self.node.filter(), home, &self.segments.bare());
        if self.rules.as_ref() == Some(&table) {
            return;
        }
        let written = match &table {
            Some(table) => self.filter.replace(table),
            None => self.filter.remove(),
        };
        match written {
            Ok(()) => self.rules = Some(table),
            Err(error) => warn!(%error, "enforce the network's rules"),
        }
    }

    /// Whoever can be reached by anybody takes streams, too.
    fn take_streams(&mut self) {
        let is_public = self.node.card().reach == Reach::Public;
        if let Some(port) = self.config.tls.port()
            && is_public
            && !std::mem::replace(&mut self.streams, true)
        {
            let _ = self.wishes.send(Wish::Streams(port));
        }
    }

    async fn look_at_addresses(&mut self) -> Result<()> {
        let network = self.node.trust().parameters().body.clone();
        let is_inside = |address: IpAddr| {
            let served = self.served.announce.iter().chain(&self.served.accept);
            let mut inside = served.chain(&network.ipv4).chain([&network.prefix]);
            inside.any(|prefix| prefix.contains(address))
        };
        let uplinks = self.config.uplinks.iter().map(Some);
        let uplinks: Vec<Option<&IfName>> = match self.config.uplinks.len() {
            0 => vec![None],
            _ => uplinks.collect(),
        };
        let found = uplinks.into_iter().enumerate().map(|(place, uplink)| {
            let port = port_of(self.config.port, place).unwrap_or(self.config.port);
            host::addresses(port, &self.config.hide, uplink, is_inside)
        });
        let found: Vec<Vec<SocketAddr>> = match found.collect() {
            Ok(found) => found,
            Err(error) => {
                let error: anyhow::Error = error;
                warn!("{error:#}");
                return Ok(());
            }
        };
        let mapped = self.mapped(found.first().map_or(&[], Vec::as_slice));
        let is_told = self.has_kernel == self.told_kernel;
        if is_told && (&found, &mapped) == (&self.addresses, &self.mapped) {
            return Ok(());
        }
        self.told_kernel = self.has_kernel;
        self.addresses.clone_from(&found);
        self.mapped.clone_from(&mapped);
        let mut found = found.into_iter();
        let local = found.next().unwrap_or_default();
        let kernel = local.iter().filter(|_| self.has_kernel);
        let kernel: Vec<IpAddr> = kernel.map(SocketAddr::ip).collect();
        self.tell(Event::Addresses { local, mapped }).await?;
        self.tell(Event::Kernel(kernel)).await?;
        self.tell(Event::Uplinks(found.collect())).await
    }
}

fn setup(identity: Identity, reach: Option<Reach>) -> Setup {
    let class = identity.certificate.body.class;
    let tunnels = &identity.trust.parameters().body.tunnels;
    Setup {
        config: topology::Config::default().with(class, tunnels),
        certificate: identity.certificate,
        key: identity.key,
        trust: identity.trust,
        reach,
        seed: rand::rng().random(),
    }
}

/// The kernel's part, and whether an earlier run left something there.
fn open_ways(
    certificate: &Certificate,
    network: &Parameters,
    (accept, default, served): (&[Prefix], bool, &Served),
    bare: &[IfName],
) -> Result<(Ways, Start)> {
    let mut ways = Ways::open(certificate, network, (accept, default))?;
    ways.accept(&served.accept);
    Filter::open(classes::TABLE)?.replace(&classes::table(bare))?;
    let start = match ways.has_earlier() {
        true => Start::Resumed,
        false => Start::Fresh,
    };
    Ok((ways, start))
}

/// For letters that come by the mesh.
async fn listen_inside(certificate: &Certificate) -> Result<UdpSocket> {
    let home = certificate.prefixes.first().copied().and_then(home_of);
    let home = home.context("the certificate names no prefix")?;
    let at = SocketAddrV6::new(home, PORT, 0, 0);
    let inner = UdpSocket::bind(at).await;
    inner.with_context(|| format!("listen for letters at {at}"))
}

/// With what this node announces.
async fn start_babel(
    clock: Clock,
    certificate: &Certificate,
    start: Start,
    announce: BTreeSet<Prefix>,
) -> Result<babel::Handle> {
    let number = u32::try_from(certificate.node.0 >> 32).unwrap_or_default();
    let role = babel::Role {
        lasting: Some(start),
        transit: certificate.class != Class::Client,
    };
    let babel = babel::start(clock, babel::router_id(number), role)?;
    let own = certificate.prefixes.iter().chain(&certificate.ipv4);
    for prefix in own.copied().chain(announce).collect::<BTreeSet<_>>() {
        for class in [PacketClass::Latency, PacketClass::Throughput] {
            let to = Destination::of(prefix).in_class(class);
            let order = babel::Order::Originate(to, Metric::ZERO);
            babel.orders.send(order).await?;
        }
    }
    Ok(babel)
}

fn steadily(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn next_letter(letters: Option<&Letters>) -> std::io::Result<(Way, Vec<u8>)> {
    match letters {
        Some(letters) => letters.next().await.map(|l| (l.other, l.octets)),
        None => std::future::pending().await,
    }
}
