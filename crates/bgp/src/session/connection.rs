//! One TCP connection of a session, from the attempt to the end.

use std::{net::IpAddr, time::Duration};

use hextet_types::{IfName, Time};
use serde::Serialize;

use super::Negotiated;
use crate::packet::{Framer, MessageType, Notification, Open, Parsed, RouteRefresh, Update};

/// Names a connection between the engine and its driver; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ConnId(pub u64);

/// Both ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// The interface that a link-local address belongs to; may also be said for others.
    pub interface: Option<IfName>,
}

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Outgoing,
    Incoming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Connecting,
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) direction: Direction,
    pub(crate) phase: Phase,
    pub(crate) framer: Framer,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) negotiated: Option<Negotiated>,
    /// When to give up: the connect attempt, or the hold timer.
    pub(crate) hold: Option<Time>,
    pub(crate) keepalive: Option<Time>,
    /// Octets handed to the driver that it has not written yet.
    pub(crate) in_flight: usize,
    /// When it last wrote some, or had none to write.
    pub(crate) progress: Time,
}

/// A message as it was read.
pub(crate) enum Incoming {
    Open(Result<Open, Notification>),
    Update(Box<Result<Parsed, Notification>>),
    /// An UPDATE before the session is up.
    EarlyUpdate,
    Notification(Notification),
    Keepalive,
    Refresh(Result<RouteRefresh, Notification>),
}

/// RFC 9687 §3.1: at least eight minutes.
const SEND_HOLD: Duration = Duration::from_secs(8 * 60);

impl Connection {
    pub(crate) fn new(id: ConnId, direction: Direction, now: Time) -> Self {
        Connection {
            id,
            direction,
            phase: Phase::Connecting,
            framer: Framer::new(),
            endpoint: None,
            negotiated: None,
            hold: None,
            keepalive: None,
            in_flight: 0,
            progress: now,
        }
    }

    /// The next message, or `None` when it has not come whole.
    pub(crate) fn next_incoming(&mut self) -> Result<Option<Incoming>, Notification> {
        let established = self.phase == Phase::Established;
        let context = self.negotiated.as_ref().map(Negotiated::context);
        let Some((kind, body)) = self.framer.next_message()? else {
            return Ok(None);
        };
        let incoming = match (kind, context) {
            (MessageType::Open, _) => Incoming::Open(Open::decode_body(body)),
            (MessageType::Update, Some(context)) if established => {
                Incoming::Update(Box::new(Update::decode_body(body, &context)))
            }
            (MessageType::Update, _) => Incoming::EarlyUpdate,
            (MessageType::Notification, _) => {
                Incoming::Notification(Notification::decode_body(body)?)
            }
            (MessageType::Keepalive, _) => Incoming::Keepalive,
            (MessageType::RouteRefresh, _) => Incoming::Refresh(RouteRefresh::decode_body(body)),
        };
        Ok(Some(incoming))
    }

    pub(crate) fn hold_time(&self) -> Duration {
        self.negotiated
            .as_ref()
            .map_or(Duration::ZERO, |n| n.hold_time)
    }

    pub(crate) fn restart_hold(&mut self, now: Time) {
        let hold_time = self.hold_time();
        self.hold = (!hold_time.is_zero()).then(|| now + hold_time);
    }

    /// When to give up because nothing can be sent (RFC 9687).
    pub(crate) fn send_hold(&self) -> Option<Time> {
        let limit = SEND_HOLD.max(self.hold_time() * 2);
        (self.in_flight > 0).then(|| self.progress + limit)
    }

    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Time> {
        [self.hold, self.keepalive, self.send_hold()]
            .into_iter()
            .flatten()
    }
}
