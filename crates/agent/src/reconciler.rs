//! The one loop that makes the kernel equal to what it has to be.
//!
//! It owns the planner, the kernel and the journal, on a thread of its own. Whatever happens (a new
//! intent, a route that a peer told, somebody else's hand in the kernel) only changes what is desired or
//! what is known of the kernel; the same comparison then finds what is to be written. Every minute
//! everything is looked at ([`look`]), whether or not anything was heard.

mod hear;
mod joins;
mod look;
mod meters;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_autoconf::Upstream;
use hextet_kernel::{Kernel, Op, Report, Scope, Standing, diff, netlink::Heard};
use hextet_model::{
    plan::Planner,
    state::{Changed, Key, Netns, NextHop, Object, Responder, Route, RouteKey, RouteKind},
};
use hextet_types::{IfName, PortId, Prefix};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::{
    announcement::Announcement,
    arrival::Standbys,
    bgp::{Announcements, Learned},
    doubt::Doubt,
    explain::{self, Verdicts},
    flows::Flows,
    herald,
    journal::Journal,
    lookout::Lookout,
    membership,
    mesh::Inside,
    meters::Ledger,
    next_hop::NextHops,
    probe::Watched,
    report::{ExplainRequest, Explained, KernelStatus, PlannedWrite, PortStatus, RouterStatus},
    reporter::Standing as Reported,
    rollcall,
    subscription::Update,
    uplinks::Answering,
};
use joins::Joins;
use look::Looks;
use meters::Meters;

/// Priority of routes that BGP taught; between a port's own and the cloud's black holes.
pub const LEARNED_METRIC: u32 = 200;
/// The kernel's main routing table.
const MAIN_TABLE: u32 = 254;
/// How often everything is looked at.
const FULL_PASS: Duration = Duration::from_secs(60);
/// What failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// After a port's programs were moved, nothing is for so many times as long: nobody can change a link meanwhile.
const MOVING_RESTS: u32 = 9;
/// Nor is anything moved so soon after the kernel was written: there may be more to come.
const QUIET: Duration = Duration::from_secs(1);
const UNCHECKED: &str = "open flows were not checked against the new policy; trying again";
/// Inputs that are taken together before the kernel is written.
const BATCH: usize = 4096;

/// What the loop hears.
pub enum Input {
    /// From the server.
    Intent(Update),
    /// From BGP.
    Learned(Learned),
    /// Some BGP peer is there, or none any more.
    Peers(bool),
    /// Somebody else, or we, changed something in the kernel.
    Kernel(Heard),
    /// A port's workload has said on its link that it is there.
    Announced(PortId, Announcement),
    /// A port's workload has said what multicast groups it has joined, or left.
    Reported(PortId, membership::Report),
    /// Routers on a physical network say something else.
    Upstream(String, Box<Upstream>),
    /// Somebody asks.
    Ask(Question),
}

/// What people ask.
pub enum Question {
    /// What would be written.
    Plan(oneshot::Sender<Result<Vec<PlannedWrite>>>),
    /// What becomes of a packet.
    Explain(ExplainRequest, oneshot::Sender<Result<Explained>>),
    /// How things stand.
    Status(oneshot::Sender<Standpoint>),
}

/// How things stand with the kernel and the ports.
#[derive(Clone, Debug)]
pub struct Standpoint {
    /// The revision that the kernel stands at.
    pub revision: u64,
    /// The kernel.
    pub kernel: KernelStatus,
    /// The ports.
    pub ports: Vec<PortStatus>,
    /// The routers.
    pub routers: Vec<RouterStatus>,
    /// When the server was last heard of.
    pub server_heard: Option<Instant>,
}

/// Whom the loop tells.
pub struct Outputs {
    /// What workloads have said of themselves, as far as it is news.
    pub heard: tokio::sync::mpsc::Sender<herald::News>,
    /// What multicast groups ports have joined.
    pub joined: watch::Sender<rollcall::Ports>,
    /// What is to be announced.
    pub announce: Option<watch::Sender<Announcements>>,
    /// What the cloud routes.
    pub inside: watch::Sender<Inside>,
    /// What the responders answer; the whole, since a port's link may have come or gone.
    pub responders: mpsc::UnboundedSender<ResponderChange>,
    /// What the server is told.
    pub standing: watch::Sender<Reported>,
    /// Which hosts' kernels are watched.
    pub watched: watch::Sender<Watched>,
    /// Which ports' workloads may arrive.
    pub standbys: watch::Sender<Standbys>,
    /// For which addresses the host answers on links.
    pub answering: mpsc::UnboundedSender<Answering>,
    /// What has been metered.
    pub ledger: Arc<Ledger>,
}

/// A port's responder is new, different or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponderChange {
    /// The port.
    pub port: PortId,
    /// What it answers from now on; none when it is gone.
    pub responder: Option<Responder>,
    /// Whether its workload is asked what multicast groups it has joined.
    pub joins: bool,
}

/// The loop and all that it owns.
pub struct Reconciler {
    planner: Planner,
    kernel: Kernel,
    journal: Journal,
    flows: Flows,
    verdicts: Verdicts,
    /// Heard while flows were checked.
    ahead: Option<Input>,
    next_hops: NextHops,
    outputs: Outputs,
    /// The plan's objects, the learned routes, and what an earlier run learned and nobody took back.
    desired: BTreeMap<Key, Object>,
    /// Routes of an earlier run that nobody has confirmed yet.
    adopted: BTreeSet<Key>,
    /// Keys to compare before anything else is heard.
    dirty: BTreeSet<Key>,
    /// Ports whose state is to be told anew.
    touched_ports: BTreeSet<PortId>,
    failures: BTreeMap<Key, String>,
    /// What can't stand before its link is there.
    waiting: BTreeMap<IfName, BTreeSet<Key>>,
    /// Whose link that is.
    links: BTreeMap<IfName, PortId>,
    /// The index of each port's interface for which what is known to stand was written: another one, of which we have not
    /// heard yet, has nothing.
    plugged: BTreeMap<PortId, u32>,
    /// Ports whose interface was there before they were. Whoever plugged them does not wait to be told yet, and is told again,
    /// with the index, when the interface is opened.
    found: BTreeSet<PortId>,
    revision: u64,
    server_heard: Option<Instant>,
    doubt: Doubt,
    writes: u64,
    mended: u64,
    looks: Looks,
    joins: Joins,
    meters: Meters,
    next_move: Instant,
}

impl Reconciler {
    /// Takes over whatever stands in the kernel, and makes it equal to the intent that the journal holds.
    ///
    /// # Errors
    ///
    /// The kernel can't be read.
    pub fn new(
        mut planner: Planner,
        (kernel, flows): (Kernel, Flows),
        (journal, intent, revision): (Journal, hextet_model::intent::Intent, u64),
        next_hops: NextHops,
        outputs: Outputs,
    ) -> Result<Reconciler> {
        let looks = Looks::new(Lookout::start(kernel.onlooker()?)?);
        let meters = Meters::new(Arc::clone(&outputs.ledger));
        planner.replace_with(intent);
        let desired = planner.state().objects.clone();
        let mut reconciler = Reconciler {
            planner,
            kernel,
            journal,
            flows,
            verdicts: Verdicts::default(),
            ahead: None,
            next_hops,
            outputs,
            desired,
            adopted: BTreeSet::new(),
            dirty: BTreeSet::new(),
            touched_ports: BTreeSet::new(),
            failures: BTreeMap::new(),
            waiting: BTreeMap::new(),
            links: BTreeMap::new(),
            plugged: BTreeMap::new(),
            found: BTreeSet::new(),
            revision,
            server_heard: None,
            doubt: Doubt::None,
            writes: 0,
            mended: 0,
            looks,
            joins: Joins::new(Instant::now()),
            meters,
            next_move: Instant::now(),
        };
        reconciler.adopt()?;
        if !reconciler.stood_before() {
            reconciler.doubt = Doubt::Alone;
        }
        let ports: Vec<PortId> = reconciler.planner.intent().ports.keys().copied().collect();
        for port in ports {
            reconciler.note_link(port);
        }
        let report = reconciler.kernel.reconcile_known(&reconciler.desired);
        reconciler.note(report);
        let planner = &reconciler.planner;
        let ends = planner.intent().ports.values().flat_map(|port| {
            let netns = planner.netns_of(port.network_id);
            let addresses = port.fixed_ips.iter().map(|f| f.ip_address);
            addresses.map(move |addr| (netns.clone(), addr))
        });
        reconciler.flows.check(ends);
        reconciler.tell_all();
        Ok(reconciler)
    }

    /// Whether an earlier run left learned routes: then BGP restarts gracefully (RFC 4724).
    pub fn restarting(&self) -> bool {
        !self.adopted.is_empty()
    }

    /// Whether an earlier run left learned routes, or anything at all where nobody here learns any.
    fn stood_before(&self) -> bool {
        let is_known = !self.kernel.known().is_empty();
        self.restarting() || (!self.next_hops.are_wanted() && is_known)
    }

    /// Runs until nobody is left to be heard.
    pub fn run(mut self, inputs: &Receiver<Input>) {
        loop {
            self.settle();
            self.meter();
            self.look_at_joins();
            self.set_doubt(self.doubt.expire(Instant::now()));
            self.check_flows(inputs);
            match self.next_input(inputs) {
                Ok(input) => {
                    self.hear(input);
                    inputs
                        .try_iter()
                        .take(BATCH)
                        .for_each(|input| self.hear(input));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next_input(&mut self, inputs: &Receiver<Input>) -> Result<Input, RecvTimeoutError> {
        if let Some(input) = self.ahead.take() {
            return Ok(input);
        }
        let look = self.looks.due();
        let due = [self.flows.due(), self.doubt.due()];
        let until = due.into_iter().flatten().fold(look, Instant::min);
        let until = until.min(self.meters.due()).min(self.joins.due());
        let until = match self.kernel.programs_to_move() {
            0 => until,
            _ => until.min(self.next_move),
        };
        inputs.recv_timeout(until.saturating_duration_since(Instant::now()))
    }

    /// Keeps the routes that an earlier run learned until the peers have told all (RFC 4724 §4.1).
    fn adopt(&mut self) -> Result<()> {
        self.kernel
            .look(&Scope::of(&self.desired))
            .context("read the kernel")?;
        for (key, standing) in self.kernel.known() {
            let learned = matches!(key, Key::Route(route) if route.metric == LEARNED_METRIC);
            if let (true, Standing::As(object)) = (learned, standing) {
                self.desired.insert(key.clone(), object.clone());
                self.adopted.insert(key.clone());
            }
        }
        if !self.adopted.is_empty() {
            info!(
                routes = self.adopted.len(),
                "keeping the routes of the former run until peers confirm them"
            );
        }
        Ok(())
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Intent(update) => self.hear_intent(update),
            Input::Learned(Learned::Routes(changes)) => {
                for change in changes {
                    self.learn(change.prefix, &change.next_hops);
                }
            }
            Input::Learned(Learned::Complete) => {
                for key in std::mem::take(&mut self.adopted) {
                    self.desired.remove(&key);
                    self.dirty.insert(key);
                }
            }
            Input::Peers(there) => self.set_doubt(self.doubt.peers(there, Instant::now())),
            Input::Kernel(heard) => self.hear_kernel(heard),
            Input::Announced(port, announcement) => self.hear_announcement(port, &announcement),
            Input::Reported(port, report) => self.hear_report(port, &report),
            Input::Upstream(on, said) => self.hear_upstream(on, said),
            Input::Ask(question) => {
                self.settle();
                self.answer(question);
            }
        }
    }

    fn take(&mut self, mut changed: Changed) {
        self.verdicts.forget(&changed.objects);
        self.tell_answering(&changed.objects, true);
        for key in &changed.objects {
            match self.planner.state().objects.get(key) {
                Some(object) => drop(self.desired.insert(key.clone(), object.clone())),
                None => drop(self.desired.remove(key)),
            }
        }
        self.dirty.append(&mut changed.objects);
        if !changed.announce.is_empty() {
            self.tell_announcements(&changed.announce);
        }
        for port in changed.responders {
            self.tell_responder(port);
        }
        self.flows.check(changed.recheck);
        self.flows.end_translated(changed.cut);
    }

    fn learn(&mut self, prefix: Prefix, hops: &[hextet_bgp::Hop]) {
        let key = RouteKey {
            netns: Netns::Main,
            table: MAIN_TABLE,
            prefix,
            source: None,
            metric: LEARNED_METRIC,
        };
        let mut next_hops: Vec<NextHop> = hops
            .iter()
            .filter_map(|hop| self.next_hops.resolve(hop))
            .collect();
        next_hops.sort();
        next_hops.dedup();
        let route = Key::Route(key.clone());
        self.adopted.remove(&route);
        if next_hops.is_empty() {
            self.desired.remove(&route);
        } else {
            let object = Route {
                key,
                kind: RouteKind::Unicast(next_hops),
                prefsrc: None,
            };
            self.desired.insert(route.clone(), Object::Route(object));
        }
        self.dirty.insert(route);
    }

    /// Writes what is to be written, and looks a bit further.
    fn settle(&mut self) {
        if !self.dirty.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            let report = self.kernel.reconcile_keys(&dirty, &self.desired);
            debug!(
                revision = self.revision,
                keys = dirty.len(),
                applied = report.applied,
                "written"
            );
            for key in &dirty {
                self.failures.remove(key);
                self.touched_ports.extend(self.port_of(key));
            }
            self.note(report);
        }
        self.look();
        self.tell_standing();
        self.move_program();
    }

    fn move_program(&mut self) {
        let begin = Instant::now();
        if begin < self.next_move || self.kernel.programs_to_move() == 0 {
            return;
        }
        if let Err(error) = self.kernel.move_program() {
            warn!(%error, "a port's programs were not moved between tc and TCX");
        }
        self.next_move = Instant::now() + MOVING_RESTS * begin.elapsed();
    }

    fn note(&mut self, report: Report) {
        self.writes += report.applied as u64;
        if report.applied > 0 {
            self.next_move = self.next_move.max(Instant::now() + QUIET);
        }
        if report.disturbed {
            self.looks.soon();
        }
        for key in report.waiting {
            if let Some(link) = self.link_of(&key) {
                self.waiting.entry(link).or_default().insert(key);
            }
        }
        for (op, error) in report.failed {
            warn!(%op, %error, "not written");
            self.failures.insert(op.key(), format!("{op}: {error}"));
            self.looks.again();
        }
    }

    /// The link without which the object can't stand.
    fn link_of(&self, key: &Key) -> Option<IfName> {
        match (key.link(), self.desired.get(key)) {
            (Some((_, link)), _) => Some(link.clone()),
            (
                None,
                Some(Object::Route(Route {
                    kind: RouteKind::Unicast(hops),
                    ..
                })),
            ) => hops.first().map(|hop| hop.link.clone()),
            _ => None,
        }
    }

    fn port_of(&self, key: &Key) -> Option<PortId> {
        self.links.get(&self.link_of(key)?).copied()
    }

    /// Ends the flows that a change of policy no longer allows, until something else is heard.
    fn check_flows(&mut self, inputs: &Receiver<Input>) {
        if self.flows.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        match self.flows.end_due(|netns| self.kernel.connections(netns)) {
            Ok(0) => {}
            Ok(ended) => info!(flows = ended, "ended what is translated otherwise now"),
            Err(error) => error!(%error, "connections go on that are translated otherwise now"),
        }
        while self.flows.due().is_some_and(|due| due <= Instant::now()) {
            match self.flows.begin(|netns| self.kernel.connections(netns)) {
                Ok(None) => {}
                Ok(Some(netns)) => self.check_flows_in(&netns, inputs),
                Err(error) => error!(%error, "{UNCHECKED}"),
            }
            if self.ahead.is_some() || self.looks.due() <= Instant::now() {
                return;
            }
        }
    }

    fn check_flows_in(&mut self, netns: &Netns, inputs: &Receiver<Input>) {
        let mut judge = self.verdicts.judge(&self.planner, netns);
        loop {
            let outcome = self.flows.next_slice(|flow| judge.allows(flow));
            self.ahead = inputs.try_recv().ok();
            let waits = self.ahead.is_some() || self.looks.due() <= Instant::now();
            match outcome {
                Ok(None) if waits => return,
                Ok(None) => {}
                Ok(Some(0)) => return,
                Ok(Some(cut)) => {
                    info!(flows = cut, %netns, "cut what the policy no longer allows");
                    return;
                }
                Err(error) => {
                    error!(%error, %netns, "{UNCHECKED}");
                    return;
                }
            }
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Plan(answer) => drop(answer.send(self.plan())),
            Question::Explain(request, answer) => {
                drop(answer.send(explain::explain(&self.planner, &request)));
            }
            Question::Status(answer) => drop(answer.send(self.standpoint())),
        }
    }

    fn plan(&mut self) -> Result<Vec<PlannedWrite>> {
        let standing = self
            .kernel
            .dump(&Scope::of(&self.desired))
            .context("read the kernel")?;
        Ok(diff(&self.desired, &standing).iter().map(planned).collect())
    }

    fn standpoint(&self) -> Standpoint {
        Standpoint {
            revision: self.revision,
            kernel: KernelStatus {
                objects: self.desired.len(),
                writes: self.writes,
                mended: self.mended,
                failed: self.failures.values().cloned().collect(),
            },
            ports: self
                .planner
                .intent()
                .ports
                .values()
                .map(|p| self.port_status(p))
                .collect(),
            routers: self.router_statuses(),
            server_heard: self.server_heard,
        }
    }
}

fn planned(op: &Op) -> PlannedWrite {
    let operation = match op {
        Op::Create(_) => "create",
        Op::Replace { .. } => "replace",
        Op::Delete(_) => "delete",
    };
    let line = op.to_string();
    let object = line.trim_start_matches(['+', '-', '~', ' ']).to_owned();
    PlannedWrite {
        operation: operation.to_owned(),
        object,
    }
}
