//! What the driver tells a speaker, and what it is told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use bytes::Bytes;
use hextet_types::{IfName, Prefix};

use crate::{
    config::{ConfigError, PeerConfig, PeerKey, Secret, TtlPolicy},
    policy::LocalRoute,
    rib::Hop,
    session::{ConnId, DownReason, Endpoint},
};

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer is to be there, as said; it is new or was changed.
    Configure(Box<PeerConfig>),
    /// A peer is no longer configured.
    Remove(PeerKey),
    /// The link-local address of whoever is at the other end of an interface, or that there is no
    /// one any more; for peers that are [`PeerKey::Interface`].
    Neighbour {
        /// The interface.
        interface: IfName,
        /// Their address.
        address: Option<Ipv6Addr>,
    },
    /// An attempt succeeded ([`Action::Connect`]).
    Opened {
        /// Which.
        conn: ConnId,
        /// Its ends.
        endpoint: Endpoint,
    },
    /// Somebody connected; the id is from [`Speaker::new_connection`](super::Speaker::new_connection).
    Accepted {
        /// The id.
        conn: ConnId,
        /// Its ends.
        endpoint: Endpoint,
    },
    /// A connection ended, or an attempt failed. Not for those that [`Action::Close`] was said of.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// Octets were read.
    Received {
        /// From where.
        conn: ConnId,
        /// The octets, at most [`READ_SIZE`](super::READ_SIZE).
        octets: Bytes,
    },
    /// Octets of [`Action::Send`] were written to the socket: there is room for more.
    Written {
        /// Where to.
        conn: ConnId,
        /// How many since the last such event.
        octets: usize,
    },
    /// All that is to be announced from here on, in the place of what was.
    Announce(BTreeMap<Prefix, LocalRoute>),
    /// BFD lost a peer (RFC 5882).
    BfdDown {
        /// Which.
        peer: PeerKey,
        /// The C bit of both sides: BFD runs with the forwarding plane, so that it is the forwarding
        /// that is gone and not just a program (RFC 5882 §4.3).
        control_plane_independent: bool,
    },
    /// BFD reaches a peer.
    BfdUp {
        /// Which.
        peer: PeerKey,
    },
    /// [`Speaker::next_wakeup`](super::Speaker::next_wakeup) has come.
    Timer,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to port 179 of a peer, and tell by [`Event::Opened`] or [`Event::Closed`].
    Connect {
        /// Its id from now on.
        conn: ConnId,
        /// To whom.
        peer: PeerKey,
        /// Where.
        remote: IpAddr,
        /// The scope of a link-local address.
        interface: Option<IfName>,
        /// TTL or GTSM.
        ttl: TtlPolicy,
        /// TCP MD5.
        md5: Option<Secret>,
    },
    /// Write what was sent so far, as far as the socket takes it at once, and close; or give up the
    /// attempt. The id is not heard of again.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Write to a connection, in order, and tell by [`Event::Written`].
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        octets: Bytes,
    },
    /// Routes have changed; of what one event brings, each prefix is in one such list, once.
    Routes(Vec<RouteChange>),
    /// For the restarting speaker: all routes of the peers are there; what an earlier run has left
    /// in the kernel and [`Action::Routes`] has not confirmed can go. Comes once, and only if
    /// [`SpeakerConfig::restarting`](crate::config::SpeakerConfig::restarting); after the routes that belong to it.
    SelectionComplete,
    /// A session is up.
    SessionUp {
        /// Whose.
        peer: PeerKey,
    },
    /// A session went down.
    SessionDown {
        /// Whose.
        peer: PeerKey,
        /// Why.
        reason: DownReason,
        /// Its routes are kept for a while (graceful restart).
        routes_kept: bool,
    },
    /// A configuration was refused; what was there before stays.
    Refused(ConfigError),
}

/// A route of the kernel that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: Prefix,
    /// Its next hops from now on, in a fixed order; none: the route is gone.
    pub next_hops: Arc<[Hop]>,
}
