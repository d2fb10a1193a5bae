//! What becomes of a way whose neighbour says that it has become longer than may be (RFC 8966 §3.5.4).
//!
//! It is gone by as it was, and the origin asked for something newer: mostly that comes, and nothing was lost meanwhile. If it does not, the
//! neighbour is believed: where the origin is out of reach, and the neighbour goes by this node itself since it has forgotten what it told, packets
//! would go round until the route expires.

use std::time::Duration;

use hextet_types::Time;

use super::{Due, Engine};
use crate::{
    neighbour::Peer,
    packet::Destination,
    table::{Choice, Route},
};

/// Within that time something newer comes, if there is a way to the origin.
const DOUBT: Duration = Duration::from_secs(8);

impl Engine {
    /// A neighbour that is gone by tells of more than may be; the last word counts.
    pub(super) fn doubt(&mut self, to: Destination, peer: Peer, route: Route, now: Time) {
        if self.doubted.insert((to, peer), route).is_none() {
            self.timers.set(Due::Doubt(to, peer), now + DOUBT);
        }
    }

    /// It tells of something that may be, or of nothing any more.
    pub(super) fn trust(&mut self, to: Destination, peer: Peer) {
        if self.doubted.remove(&(to, peer)).is_some() {
            self.timers.cancel(Due::Doubt(to, peer));
        }
    }

    /// Nothing newer has come.
    pub(super) fn believe(&mut self, to: Destination, peer: Peer, now: Time) {
        let Some(route) = self.doubted.remove(&(to, peer)) else {
            return;
        };
        let entry = self.table.get(&to);
        if entry.is_some_and(|entry| entry.choice == Some(Choice::Via(peer))) {
            self.put_route(to, peer, route, now);
        }
    }
}
