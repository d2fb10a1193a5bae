//! The whole: sessions, routes and what is told, for both families, as one engine.
//!
//! One task owns it, hands it events and does what it says. It has no I/O, clock or randomness. The
//! same events at the same times lead to the same actions; after any sequence of them the routes are
//! those that a fresh start with the same sessions and announcements would have.

mod event;
mod import;
mod outbound;
mod restart;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use bytes::Bytes;
use hashbrown::HashMap;
use hextet_types::{Family, IfName, Prefix, Time};

use crate::{
    config::{ConfigError, MAX_PATHS, MAX_PEERS, PeerConfig, PeerKey, SpeakerConfig},
    jitter::Jitter,
    packet::{Code, Families, NextHop, Notification, PathAttributes},
    policy::{LocalRoute, aggregate},
    rib::{
        ByFamily, Hop, HopSets, Interner, Path, Preferences, Source, SourceId, Table,
        hops::HopSetId, select,
    },
    session::{ConnId, DownReason, Endpoint, Negotiated, Output, Session, State, Step},
};
pub use event::{Action, Event, RouteChange};
use outbound::{Group, OutState};
use restart::Stale;
pub use status::{FamilyStatus, PathStatus, PeerStatus, RouteStatus, SpeakerStatus};

/// Octets that a driver should read at most for one [`Event::Received`]; what one call of
/// [`Speaker::handle`] does is bounded by what it is given.
pub const READ_SIZE: usize = 32 * 1024;
/// Prefixes chosen anew in one call; what is left makes [`Speaker::next_wakeup`] answer at once.
const WORK_PER_CALL: usize = 65_536;
/// Changed routes in one action. Larger lists cost the allocator more than they are worth.
const CHANGES_PER_ACTION: usize = 1024;

/// What was negotiated by the session that is up, and where it is.
#[derive(Debug)]
struct Up {
    negotiated: Negotiated,
    endpoint: Endpoint,
}

#[derive(Debug)]
struct Peer {
    session: Session,
    up: Option<Up>,
    group: Option<usize>,
    out: ByFamily<OutState>,
    /// Its paths in the tables.
    accepted: ByFamily<usize>,
    stale: ByFamily<Stale>,
    /// Long-lived graceful restart as the last session agreed.
    long_lived: Option<crate::session::LongLived>,
    /// Families that it has told all of in this session.
    complete: Families,
}

/// The engine; see the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    /// By source; the first is ourselves and stays empty.
    peers: Vec<Option<Peer>>,
    sources: Vec<Option<Source>>,
    names: BTreeMap<PeerKey, SourceId>,
    connections: HashMap<ConnId, SourceId>,
    tables: ByFamily<Table>,
    interner: Interner,
    hops: HopSets,
    hop_memo: Option<(Arc<PathAttributes>, SourceId, HopSetId)>,
    groups: Vec<Option<Group>>,
    local: BTreeMap<Prefix, LocalRoute>,
    jitter: Jitter,
    next_id: u64,
    /// Until when nothing is selected after a restart.
    deferral: Option<Time>,
    now: Time,
    actions: Vec<Action>,
    /// Empty between calls; kept, since what is read at once may be many messages.
    outputs: Vec<Output>,
}

impl Speaker {
    /// A speaker without peers. `now` begins the deferral of a restart.
    pub fn new(config: SpeakerConfig, now: Time) -> Self {
        let local = Source::local(config.asn, config.router_id);
        Speaker {
            peers: vec![None],
            sources: vec![Some(local)],
            names: BTreeMap::new(),
            connections: HashMap::new(),
            tables: ByFamily::default(),
            interner: Interner::new(),
            hops: HopSets::default(),
            hop_memo: None,
            groups: Vec::new(),
            local: BTreeMap::new(),
            jitter: Jitter::new(config.seed),
            next_id: 0,
            deferral: config.restarting.then(|| now + config.deferral),
            now,
            actions: Vec::new(),
            outputs: Vec::new(),
            config,
        }
    }

    /// An id for a connection that was accepted.
    pub fn new_connection(&mut self) -> ConnId {
        self.next_id += 1;
        ConnId(self.next_id)
    }

    /// Takes an event and says what to do. Time never goes back.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        self.now = now;
        self.dispatch(event);
        self.run_timers();
        self.select_routes();
        self.end_deferral_when_due();
        self.flush_all();
        std::mem::take(&mut self.actions)
    }

    /// When to hand in [`Event::Timer`] if nothing else happens before; may lie in the past.
    pub fn next_wakeup(&self) -> Option<Time> {
        let work = (self.deferral.is_none() && self.has_work()).then_some(self.now);
        self.peers
            .iter()
            .flatten()
            .flat_map(|p| {
                p.session
                    .next_wakeup()
                    .into_iter()
                    .chain(p.stale_deadlines())
            })
            .chain(work)
            .chain(self.deferral)
            .min()
    }

    fn has_work(&self) -> bool {
        Family::BOTH
            .into_iter()
            .any(|f| self.tables.get(f).has_dirty())
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Configure(config) => self.configure(*config),
            Event::Remove(key) => self.remove(&key),
            Event::Neighbour { interface, address } => {
                let key = PeerKey::Interface(interface);
                if let Some(id) = self.names.get(&key).copied() {
                    let address = address.map(IpAddr::V6);
                    self.drive(id, |s, step| s.set_address(address, step));
                }
            }
            Event::Opened { conn, endpoint } => {
                self.drive_connection(conn, |s, step| s.on_opened(conn, endpoint, step));
            }
            Event::Accepted { conn, endpoint } => self.accept(conn, endpoint),
            Event::Closed { conn } => {
                self.drive_connection(conn, |s, step| s.on_closed(conn, step));
                self.connections.remove(&conn);
            }
            Event::Received { conn, octets } => {
                self.drive_connection(conn, |s, step| s.on_received(conn, &octets, step));
            }
            Event::Written { conn, octets } => {
                self.drive_connection(conn, |s, step| s.on_written(conn, octets, step.now));
            }
            Event::Announce(routes) => self.announce(&routes),
            Event::BfdDown {
                peer,
                control_plane_independent,
            } => self.bfd_down(&peer, control_plane_independent),
            Event::BfdUp { peer } => self.bfd_up(&peer),
            Event::Timer => (),
        }
    }

    fn peer(&self, id: SourceId) -> Option<&Peer> {
        self.peers.get(id.index())?.as_ref()
    }

    fn peer_mut(&mut self, id: SourceId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index())?.as_mut()
    }

    fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id.index())?.as_ref()
    }

    fn ids(&self) -> Vec<SourceId> {
        self.names.values().copied().collect()
    }

    /// Lets a session do something, then does what it wants done.
    fn drive(&mut self, id: SourceId, act: impl FnOnce(&mut Session, &mut Step<'_>)) {
        let Some(peer) = self.peers.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        let mut out = std::mem::take(&mut self.outputs);
        let mut step = Step {
            now: self.now,
            jitter: &mut self.jitter,
            next_id: &mut self.next_id,
            out: &mut out,
        };
        act(&mut peer.session, &mut step);
        for output in out.drain(..) {
            self.on_output(id, output);
        }
        // One of them may have had a session do more.
        if self.outputs.capacity() < out.capacity() {
            self.outputs = out;
        }
    }

    fn drive_connection(&mut self, conn: ConnId, act: impl FnOnce(&mut Session, &mut Step<'_>)) {
        if let Some(id) = self.connections.get(&conn).copied() {
            self.drive(id, act);
        }
    }

    fn on_output(&mut self, id: SourceId, output: Output) {
        match output {
            Output::Connect(conn, remote) => self.connect(id, conn, remote),
            Output::Close(conn) => {
                self.connections.remove(&conn);
                self.actions.push(Action::Close { conn });
            }
            Output::Send(conn, octets) => {
                let octets = Bytes::from(octets);
                self.actions.push(Action::Send { conn, octets });
            }
            Output::Up(up) => {
                let (negotiated, endpoint) = *up;
                self.on_up(id, negotiated, endpoint);
            }
            Output::Down { reason, keep } => self.on_down(id, reason, keep),
            Output::Update(parsed) => self.on_update(id, parsed),
            Output::Refresh(refresh) => self.on_refresh(id, refresh),
        }
    }

    fn connect(&mut self, id: SourceId, conn: ConnId, remote: IpAddr) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let config = Arc::clone(&peer.session.settings.config);
        self.connections.insert(conn, id);
        self.actions.push(Action::Connect {
            conn,
            peer: config.peer.clone(),
            remote,
            interface: config.peer.interface().cloned(),
            ttl: config.ttl,
            md5: config.md5.clone(),
        });
    }

    /// The peer that a connection may be from: by address, by scoped address, or by interface.
    pub fn peer_for(&self, remote: IpAddr, interface: Option<&IfName>) -> Option<&PeerKey> {
        let scoped = |interface: &IfName| match remote {
            IpAddr::V6(address) => Some(PeerKey::LinkLocal {
                interface: interface.clone(),
                address,
            }),
            IpAddr::V4(_) => None,
        };
        let candidates = [
            Some(PeerKey::Address(remote)),
            interface.and_then(scoped),
            interface.cloned().map(PeerKey::Interface),
        ];
        let link_local = matches!(remote, IpAddr::V6(addr) if addr.is_unicast_link_local());
        candidates
            .into_iter()
            .flatten()
            .filter(|key| link_local || !matches!(key, PeerKey::Interface(_)))
            .find_map(|key| self.names.get_key_value(&key).map(|(key, _)| key))
    }

    fn accept(&mut self, conn: ConnId, endpoint: Endpoint) {
        let key = self.peer_for(endpoint.remote, endpoint.interface.as_ref());
        let Some(id) = key.and_then(|key| self.names.get(key)).copied() else {
            self.actions.push(Action::Close { conn });
            return;
        };
        self.connections.insert(conn, id);
        self.drive(id, |s, step| s.on_accepted(conn, endpoint, step));
    }

    fn run_timers(&mut self) {
        let now = self.now;
        for id in self.ids() {
            let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
            if self.peer(id).is_some_and(|p| due(p.session.next_wakeup())) {
                self.drive(id, |s, step| s.on_timer(step));
            }
            self.stale_timers(id);
        }
    }

    fn announce(&mut self, routes: &BTreeMap<Prefix, LocalRoute>) {
        let wanted = aggregate(routes, &self.config.aggregates);
        let before = std::mem::take(&mut self.local);
        for prefix in before.keys().filter(|p| !wanted.contains_key(p)) {
            let table = self.tables.get_mut(prefix.family());
            table.remove(*prefix, SourceId::LOCAL);
        }
        for (prefix, route) in &wanted {
            if before.get(prefix) == Some(route) {
                continue;
            }
            let unspecified = prefix.family().unspecified();
            let mut attributes = PathAttributes::new(NextHop::from_addr(unspecified));
            attributes.communities = route.communities.clone().into();
            attributes.med = route.med;
            attributes.local_pref = route.local_pref;
            let attributes = self.interner.intern(attributes);
            let path = Path::new(attributes, SourceId::LOCAL);
            self.tables.get_mut(prefix.family()).insert(prefix, path);
        }
        self.local = wanted;
    }

    fn preferences(&self) -> Preferences {
        Preferences {
            max_paths: usize::from(self.config.max_paths.clamp(1, MAX_PATHS)),
            multipath_relax: self.config.multipath_relax,
            always_compare_med: self.config.always_compare_med,
        }
    }

    /// Chooses anew for the prefixes whose paths have changed.
    fn select_routes(&mut self) {
        if self.deferral.is_some() {
            return;
        }
        let mut changes = Vec::new();
        let mut budget = WORK_PER_CALL;
        for family in Family::BOTH {
            while budget > 0 {
                let Some(net) = self.tables.get_mut(family).next_dirty() else {
                    break;
                };
                self.select_route(family, net, &mut changes);
                budget -= 1;
                if changes.len() >= CHANGES_PER_ACTION {
                    let changes = std::mem::take(&mut changes);
                    self.actions.push(Action::Routes(changes));
                }
            }
        }
        if !changes.is_empty() {
            self.actions.push(Action::Routes(changes));
        }
    }

    fn select_route(&mut self, family: Family, net: u32, changes: &mut Vec<RouteChange>) {
        let table = self.tables.get(family);
        let Some(prefix) = table.prefix(net) else {
            return;
        };
        let paths = table.paths(net);
        let sources = &self.sources;
        let source = |id: SourceId| sources.get(id.index())?.as_ref();
        let selection = select(paths, source, self.preferences());
        let best = selection.best(paths).cloned();
        let chosen: Vec<Path> = selection.all(paths).cloned().collect();
        let before = table.hops(net);
        let hops = self.hop_set(&chosen);
        if hops == before {
            self.hops.release(hops);
        } else {
            changes.push(RouteChange {
                prefix,
                next_hops: self.hops.hops(hops),
            });
            self.tables.get_mut(family).set_hops(net, hops);
            self.hops.release(before);
        }
        self.advertise(family, net, prefix, best.as_ref());
        self.tables.get_mut(family).forget_if_unused(net);
    }

    /// The next hops of the chosen paths, counted once more.
    fn hop_set(&mut self, chosen: &[Path]) -> HopSetId {
        if let ([path], Some((attributes, source, hops))) = (chosen, &self.hop_memo)
            && path.source == *source
            && Arc::ptr_eq(&path.attributes, attributes)
        {
            return self.hops.share(*hops);
        }
        let mut hops: Vec<Hop> = Vec::with_capacity(chosen.len());
        for path in chosen {
            if let Some(source) = self.source(path.source) {
                hops.extend(Hop::of(path, source));
            }
        }
        hops.sort();
        hops.dedup();
        let id = self.hops.acquire(&hops);
        if let [path] = chosen {
            self.forget_hop_memo();
            let remembered = self.hops.share(id);
            self.hop_memo = Some((Arc::clone(&path.attributes), path.source, remembered));
        }
        id
    }

    fn forget_hop_memo(&mut self) {
        if let Some((_, _, hops)) = self.hop_memo.take() {
            self.hops.release(hops);
        }
    }
}
