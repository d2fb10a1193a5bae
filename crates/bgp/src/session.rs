//! The finite state machine of one peer (RFC 4271 §8), without its routes.
//!
//! Knows connections by their ids and never touches one: what is to be done with them comes out as
//! an output. A peer has at most one attempt of its own, one accepted connection that is not up yet,
//! and one that is. Whatever happens to the session, an "up" is followed by exactly one
//! "down" before the next.
//!
//! Deviation: connections are accepted while the peer rests after an error (RFC 4271 §8.1.1 refuses
//! them in Idle), so that a peer that comes back is not kept waiting; only a session that is shut
//! down, or that rests after too many prefixes, refuses them.

mod connection;
mod messages;
mod negotiate;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hextet_types::{Asn, Family, Time};
use serde::Serialize;

pub use connection::{ConnId, Endpoint};
pub(crate) use connection::{Connection, Direction, Incoming, Phase};
pub use negotiate::{LongLived, Negotiated, PeerRestart};

use crate::{
    config::PeerConfig,
    jitter::Jitter,
    packet::{Afi, Code, Message, Notification, Parsed, Problem, RouteRefresh},
};

/// The state of a session (RFC 4271 §8.2.2), of its foremost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Held down, or resting.
    Idle,
    /// Waiting: for the peer, or for the next attempt.
    Active,
    /// An attempt is under way.
    Connect,
    /// Our OPEN is sent.
    OpenSent,
    /// Both OPENs are there.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// Why a session went down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownReason {
    /// The TCP connection ended without a NOTIFICATION.
    ConnectionLost,
    /// The peer opened another connection: it has restarted (RFC 4724 §5).
    Replaced,
    /// The peer ended it.
    Received(Notification),
    /// We ended it.
    Sent(Notification),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::ConnectionLost => f.write_str("connection lost"),
            DownReason::Replaced => f.write_str("the peer opened a new connection"),
            DownReason::Received(n) => write!(f, "received: {n}"),
            DownReason::Sent(n) => write!(f, "sent: {n}"),
        }
    }
}

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Output {
    Connect(ConnId, IpAddr),
    Close(ConnId),
    Send(ConnId, Vec<u8>),
    Up(Box<(Negotiated, Endpoint)>),
    /// `keep`: the peer's routes become stale instead of going (RFC 4724 §4.2, RFC 8538 §4).
    Down {
        reason: DownReason,
        keep: bool,
    },
    Update(Parsed),
    Refresh(RouteRefresh),
}

/// What a session gets from its surroundings in one call.
pub(crate) struct Step<'a> {
    pub(crate) now: Time,
    pub(crate) jitter: &'a mut Jitter,
    pub(crate) next_id: &'a mut u64,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Step<'_> {
    fn connection_id(&mut self) -> ConnId {
        *self.next_id += 1;
        ConnId(*self.next_id)
    }

    fn send(&mut self, connection: &mut Connection, octets: Vec<u8>) {
        if connection.in_flight == 0 {
            connection.progress = self.now;
        }
        connection.in_flight += octets.len();
        self.out.push(Output::Send(connection.id, octets));
    }
}

/// What a session knows of its speaker and its peer.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) local_as: Asn,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) restart_time_secs: u16,
    /// The R bit of our OPENs.
    pub(crate) restarting: bool,
    /// The F bits of our OPENs.
    pub(crate) forwarding: bool,
    pub(crate) config: Arc<PeerConfig>,
}

/// Messages of a session, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounters {
    /// Messages received, of all types.
    pub received: u64,
    /// UPDATEs among them.
    pub updates_received: u64,
    /// UPDATEs that had something malformed (RFC 7606).
    pub malformed_updates: u64,
}

/// The longest pause between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(120);
/// An attempt that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the peer's OPEN (RFC 4271 §8.2.2: "a large value … 4 minutes").
const OPEN_HOLD: Duration = Duration::from_secs(240);
/// A session that was up this long has forgotten its failures.
const SETTLED: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    connections: Vec<Connection>,
    /// Where the peer is; not known yet for an unnumbered one.
    address: Option<IpAddr>,
    retry_at: Option<Time>,
    failures: u32,
    /// Neither connects nor accepts before; `Some(None)`: never.
    rests_until: Option<Option<Time>>,
    up_since: Option<Time>,
    pub(crate) last_down: Option<(Time, DownReason)>,
    pub(crate) counters: MessageCounters,
    pub(crate) last_problem: Option<(Time, Problem)>,
    pub(crate) flaps: u64,
}

impl Session {
    pub(crate) fn new(settings: Settings) -> Self {
        Session {
            address: settings.config.peer.address(),
            settings,
            connections: Vec::new(),
            retry_at: None,
            failures: 0,
            rests_until: None,
            up_since: None,
            last_down: None,
            counters: MessageCounters::default(),
            last_problem: None,
            flaps: 0,
        }
    }

    pub(crate) fn state(&self) -> State {
        let foremost = self.connections.iter().map(|c| c.phase).max();
        match foremost {
            Some(Phase::Established) => State::Established,
            Some(Phase::OpenConfirm) => State::OpenConfirm,
            Some(Phase::OpenSent) => State::OpenSent,
            Some(Phase::Connecting) => State::Connect,
            None if self.refuses() => State::Idle,
            None => State::Active,
        }
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(crate) fn up_since(&self) -> Option<Time> {
        self.up_since
    }

    pub(crate) fn established(&self) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|c| c.phase == Phase::Established)
    }

    pub(crate) fn established_mut(&mut self) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|c| c.phase == Phase::Established)
    }

    pub(crate) fn next_wakeup(&self) -> Option<Time> {
        let rest = self.rests_until.flatten();
        let retry = if self.wants_to_connect() {
            self.retry_at
        } else {
            None
        };
        self.connections
            .iter()
            .flat_map(Connection::deadlines)
            .chain(rest)
            .chain(retry)
            .min()
    }

    /// Shut down by the operator, or resting.
    fn refuses(&self) -> bool {
        self.settings.config.shutdown.is_some() || self.rests_until.is_some()
    }

    /// Also while the peer's own connection waits for its OPEN: that one may be dead.
    fn wants_to_connect(&self) -> bool {
        let waits =
            |c: &Connection| c.direction == Direction::Incoming && c.phase <= Phase::OpenSent;
        !self.refuses()
            && !self.settings.config.passive
            && self.address.is_some()
            && self.connections.iter().all(waits)
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// Begins, or begins anew at once.
    pub(crate) fn start(&mut self, step: &mut Step<'_>) {
        self.rests_until = None;
        self.failures = 0;
        self.retry_at = Some(step.now);
        self.connect_if_due(step);
    }

    /// Ends the session with a notification.
    pub(crate) fn stop(&mut self, notification: &Notification, step: &mut Step<'_>) {
        let ids: Vec<ConnId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            self.end(id, Some(notification.clone()), step);
        }
    }

    /// Ends the session as if the connection were lost: the peer is told nothing.
    pub(crate) fn lose(&mut self, step: &mut Step<'_>) {
        if let Some(id) = self.established().map(|c| c.id) {
            self.end(id, None, step);
        }
    }

    /// Sends octets on the connection that is up.
    pub(crate) fn send(&mut self, octets: Vec<u8>, step: &mut Step<'_>) {
        if let Some(connection) = self.established_mut() {
            step.send(connection, octets);
        }
    }

    /// Ends the session because of too many prefixes, and rests.
    pub(crate) fn too_many_prefixes(&mut self, family: Family, limit: u32, step: &mut Step<'_>) {
        let afi = Afi::unicast(family);
        let mut data = afi.afi.to_be_bytes().to_vec();
        data.push(afi.safi);
        data.extend_from_slice(&limit.to_be_bytes());
        let notification = Notification::with_data(Code::MAX_PREFIXES, &data);
        let rest = self.settings.config.max_prefixes_rest;
        self.stop(&self.hard(notification), step);
        self.rests_until = Some(rest.map(|rest| step.now + rest));
    }

    /// As a Hard Reset where the peer would otherwise keep our routes (RFC 8538 §3).
    pub(crate) fn hard(&self, notification: Notification) -> Notification {
        let negotiated = self.established().and_then(|c| c.negotiated.as_ref());
        let both = negotiated
            .and_then(|n| n.restart)
            .is_some_and(|r| r.notification);
        if both {
            notification.into_hard_reset()
        } else {
            notification
        }
    }

    /// The address of an unnumbered peer was learned, has changed, or is gone.
    pub(crate) fn set_address(&mut self, address: Option<IpAddr>, step: &mut Step<'_>) {
        if self.settings.config.peer.address().is_some() || self.address == address {
            return;
        }
        self.address = address;
        let other = |c: &Connection| match (&c.endpoint, address) {
            (Some(endpoint), Some(address)) => endpoint.remote != address,
            (None, _) => true,
            // What is up stays up until its own timers end it.
            (Some(_), None) => false,
        };
        let stale: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|c| other(c))
            .map(|c| c.id)
            .collect();
        for id in stale {
            self.end(id, None, step);
        }
        self.retry_at = Some(step.now);
        self.connect_if_due(step);
    }

    /// BFD says that the peer is reachable: no reason to wait any longer.
    pub(crate) fn hurry(&mut self, step: &mut Step<'_>) {
        self.retry_at = Some(step.now);
        self.connect_if_due(step);
    }

    pub(crate) fn on_timer(&mut self, step: &mut Step<'_>) {
        if matches!(self.rests_until, Some(Some(until)) if until <= step.now) {
            self.start(step);
        }
        let due: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|c| c.deadlines().any(|at| at <= step.now))
            .map(|c| c.id)
            .collect();
        for id in due {
            self.connection_timer(id, step);
        }
        self.connect_if_due(step);
    }

    fn connection_timer(&mut self, id: ConnId, step: &mut Step<'_>) {
        let now = step.now;
        let past = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let Some(connection) = self.get(id) else {
            return;
        };
        if past(connection.hold) {
            let expired = Notification::new(Code::HOLD_TIMER);
            let notification = (connection.phase != Phase::Connecting).then_some(expired);
            self.end(id, notification, step);
        } else if past(connection.send_hold()) {
            self.end(id, Some(Notification::new(Code::SEND_HOLD_TIMER)), step);
        } else if past(connection.keepalive) {
            let interval = connection.hold_time() / 3;
            connection.keepalive = Some(now + step.jitter.spread(interval));
            step.send(connection, Message::Keepalive.encode());
        }
    }

    fn connect_if_due(&mut self, step: &mut Step<'_>) {
        let (true, Some(address)) = (self.wants_to_connect(), self.address) else {
            return;
        };
        if self.retry_at.is_none_or(|at| at > step.now) {
            return;
        }
        self.retry_at = None;
        let id = step.connection_id();
        let mut connection = Connection::new(id, Direction::Outgoing, step.now);
        connection.hold = Some(step.now + CONNECT_TIMEOUT);
        self.connections.push(connection);
        step.out.push(Output::Connect(id, address));
    }

    /// Our own attempt succeeded.
    pub(crate) fn on_opened(&mut self, id: ConnId, endpoint: Endpoint, step: &mut Step<'_>) {
        let attempt = |c: &&mut Connection| c.phase == Phase::Connecting;
        if self.get(id).filter(attempt).is_some() {
            self.greet(id, endpoint, step);
        }
    }

    /// The peer connected. One such connection at a time: a later one is what the peer now means.
    pub(crate) fn on_accepted(&mut self, id: ConnId, endpoint: Endpoint, step: &mut Step<'_>) {
        if self.refuses() {
            let refusal = Message::Notification(Notification::new(Code::REJECTED));
            step.out.push(Output::Send(id, refusal.encode()));
            step.out.push(Output::Close(id));
            return;
        }
        let earlier = self
            .connections
            .iter()
            .find(|c| c.direction == Direction::Incoming && c.phase < Phase::Established)
            .map(|c| c.id);
        if let Some(earlier) = earlier {
            self.end(earlier, Some(Notification::new(Code::COLLISION)), step);
        }
        if self.settings.config.peer.address().is_none() {
            self.address = Some(endpoint.remote);
        }
        let connection = Connection::new(id, Direction::Incoming, step.now);
        self.connections.push(connection);
        self.greet(id, endpoint, step);
    }

    fn greet(&mut self, id: ConnId, endpoint: Endpoint, step: &mut Step<'_>) {
        let open = Message::Open(negotiate::local_open(&self.settings)).encode();
        let Some(connection) = self.get(id) else {
            return;
        };
        connection.endpoint = Some(endpoint);
        connection.phase = Phase::OpenSent;
        connection.hold = Some(step.now + OPEN_HOLD);
        step.send(connection, open);
    }

    /// A connection ended, or an attempt failed.
    pub(crate) fn on_closed(&mut self, id: ConnId, step: &mut Step<'_>) {
        if let Some(connection) = self.take(id) {
            self.after_end(&connection, DownReason::ConnectionLost, step);
        }
    }

    /// The driver has written octets of ours.
    pub(crate) fn on_written(&mut self, id: ConnId, octets: usize, now: Time) {
        if let Some(connection) = self.get(id) {
            connection.in_flight = connection.in_flight.saturating_sub(octets);
            connection.progress = now;
        }
    }

    fn take(&mut self, id: ConnId) -> Option<Connection> {
        let at = self.connections.iter().position(|c| c.id == id)?;
        Some(self.connections.remove(at))
    }

    /// Closes a connection, with a notification where one is due.
    fn end(&mut self, id: ConnId, notification: Option<Notification>, step: &mut Step<'_>) {
        let Some(connection) = self.take(id) else {
            return;
        };
        let told = notification.filter(|_| connection.phase > Phase::Connecting);
        if let Some(notification) = &told {
            let octets = Message::Notification(notification.clone()).encode();
            step.out.push(Output::Send(id, octets));
        }
        step.out.push(Output::Close(id));
        let reason = told.map_or(DownReason::ConnectionLost, DownReason::Sent);
        self.after_end(&connection, reason, step);
    }

    /// The session went down, or an attempt came to nothing: report, and plan the next attempt.
    fn after_end(&mut self, connection: &Connection, reason: DownReason, step: &mut Step<'_>) {
        let collision = matches!(&reason, DownReason::Sent(n) if n.code == Code::COLLISION);
        if connection.phase == Phase::Established {
            let keep = keeps_routes(&reason, connection.negotiated.as_ref());
            let settled = self
                .up_since
                .is_some_and(|since| step.now - since >= SETTLED);
            if settled {
                self.failures = 0;
            }
            self.up_since = None;
            self.flaps += 1;
            self.last_down = Some((step.now, reason.clone()));
            step.out.push(Output::Down { reason, keep });
        } else if connection.phase > Phase::Connecting && !collision {
            self.last_down = Some((step.now, reason));
        }
        if !collision {
            let pause = self.settings.config.connect_retry * (1 << self.failures.min(16));
            self.failures = self.failures.saturating_add(1);
            self.retry_at = Some(step.now + step.jitter.spread(pause.min(MAX_RETRY)));
        } else if self.retry_at.is_none() {
            let pause = self.settings.config.connect_retry.min(MAX_RETRY);
            self.retry_at = Some(step.now + step.jitter.spread(pause));
        }
    }
}

/// Whether the peer's routes stay, stale, after the session went down.
fn keeps_routes(reason: &DownReason, negotiated: Option<&Negotiated>) -> bool {
    let Some(restart) = negotiated.and_then(|n| n.restart) else {
        return false;
    };
    match reason {
        DownReason::ConnectionLost | DownReason::Replaced => true,
        DownReason::Received(n) | DownReason::Sent(n) => {
            restart.notification && n.code != Code::HARD_RESET
        }
    }
}
