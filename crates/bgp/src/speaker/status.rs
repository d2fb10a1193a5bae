//! What an operator sees: sessions, counts, and why a route is as it is.

use std::net::{IpAddr, Ipv4Addr};

use hextet_types::{Asn, Family, Prefix, Time};
use serde::Serialize;

use super::{Peer, SourceId, Speaker, restart::Stale};
use crate::{
    config::PeerKey,
    packet::{Community, NextHop, Origin, Problem},
    rib::{Hop, Path, select},
    session::{DownReason, MessageCounters, State},
};

/// The speaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpeakerStatus {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// A restart of ours still waits for peers; nothing is selected yet.
    pub deferring: bool,
    /// Prefixes in the IPv4 table.
    pub ipv4_prefixes: usize,
    /// Prefixes in the IPv6 table.
    pub ipv6_prefixes: usize,
    /// Distinct attribute sets held for them.
    pub attribute_sets: usize,
    /// The peers, by name.
    pub peers: Vec<PeerStatus>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its name.
    pub peer: PeerKey,
    /// Where it is; not known yet for an unnumbered one.
    pub address: Option<IpAddr>,
    /// Its session.
    pub state: State,
    /// Since when the session is up, on the driver's clock.
    pub up_since: Option<Time>,
    /// Its AS, once it is up.
    pub remote_as: Option<Asn>,
    /// Its BGP identifier, once it is up.
    pub remote_id: Option<Ipv4Addr>,
    /// The negotiated hold time.
    pub hold_time_secs: Option<u64>,
    /// Capabilities that both sides have.
    pub capabilities: Vec<&'static str>,
    /// Families that it has paths of, or that its session carries.
    pub families: Vec<FamilyStatus>,
    /// When and why the session or an attempt last ended.
    pub last_down: Option<LastDown>,
    /// The last malformed attribute that did not end the session (RFC 7606), and when it came.
    pub last_problem: Option<(Time, Problem)>,
    /// How often the session went down.
    pub flaps: u64,
    /// Messages.
    pub messages: MessageCounters,
    /// Octets that wait to be written.
    pub write_queue: usize,
}

/// The last end of a session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastDown {
    /// When, on the driver's clock.
    pub at: Time,
    /// Why, for people.
    pub text: String,
    /// Why, for programs.
    pub reason: DownReason,
}

/// A family of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FamilyStatus {
    /// Which.
    pub family: Family,
    /// The session carries it.
    pub negotiated: bool,
    /// The peer has told all that it had when the session came up (End-of-RIB, RFC 4724 §2).
    pub complete: bool,
    /// Paths taken from the peer.
    pub accepted: usize,
    /// The limit for them.
    pub max_prefixes: Option<u32>,
    /// Prefixes told to the peer.
    pub advertised: u64,
    /// Changes that wait to be told.
    pub waiting: usize,
    /// `restarting`, `long_lived`, `confirming`, or nothing: see graceful restart.
    pub stale: Option<&'static str>,
}

/// A prefix and all paths to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: Prefix,
    /// The paths.
    pub paths: Vec<PathStatus>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathStatus {
    /// Whose; `None` for our own.
    pub peer: Option<PeerKey>,
    /// It is told to peers.
    pub best: bool,
    /// It is used.
    pub used: bool,
    /// Its peer has not confirmed it since it restarted.
    pub stale: bool,
    /// Where it leads.
    pub next_hop: Option<Hop>,
    /// AS_PATH.
    pub as_path: String,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MED.
    pub med: Option<u32>,
    /// COMMUNITIES.
    pub communities: Vec<Community>,
}

impl Speaker {
    /// Everything at once; costs little but for the number of peers.
    pub fn status(&self) -> SpeakerStatus {
        SpeakerStatus {
            asn: self.config.asn,
            router_id: self.config.router_id,
            deferring: self.is_deferring(),
            ipv4_prefixes: self.tables.get(Family::V4).len(),
            ipv6_prefixes: self.tables.get(Family::V6).len(),
            attribute_sets: self.interner.len(),
            peers: self
                .names
                .iter()
                .filter_map(|(key, id)| Some(peer_status(key, self.peer(*id)?)))
                .collect(),
        }
    }

    /// All paths to a prefix.
    pub fn route(&self, prefix: Prefix) -> Option<RouteStatus> {
        let table = self.tables.get(prefix.family());
        let paths = table.paths(table.find(prefix)?);
        (!paths.is_empty()).then(|| self.route_status(prefix, paths))
    }

    /// All prefixes of a family with their paths, in no particular order.
    pub fn routes(&self, family: Family) -> impl Iterator<Item = RouteStatus> {
        let table = self.tables.get(family);
        table
            .iter()
            .map(|(_, prefix, paths)| self.route_status(prefix, paths))
    }

    fn route_status(&self, prefix: Prefix, paths: &[Path]) -> RouteStatus {
        let selection = select(paths, |id| self.source(id), self.preferences());
        let best = selection.best(paths);
        let status = |path: &Path| PathStatus {
            peer: self.name(path.source),
            best: best == Some(path),
            used: selection.all(paths).any(|p| p == path),
            stale: path.is_stale(),
            next_hop: self.source(path.source).and_then(|s| Hop::of(path, s)),
            as_path: path.attributes.as_path.to_string(),
            origin: path.attributes.origin,
            local_pref: path.attributes.local_pref,
            med: path.attributes.med,
            communities: path.attributes.communities.to_vec(),
        };
        RouteStatus {
            prefix,
            paths: paths.iter().map(status).collect(),
        }
    }

    fn name(&self, id: SourceId) -> Option<PeerKey> {
        let peer = self.peer(id)?;
        Some(peer.session.settings.config.peer.clone())
    }

    /// The prefixes that a peer has been told, for tests and for the curious.
    pub fn advertised(&self, peer: &PeerKey) -> Vec<(Prefix, NextHop, String)> {
        let Some((id, peer)) = self
            .names
            .get(peer)
            .and_then(|id| Some((*id, self.peer(*id)?)))
        else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for family in Family::BOTH {
            let table = self.tables.get(family);
            for (net, prefix, _) in table.iter() {
                if let Some(advert) = self.said(id, peer, family, net) {
                    told.push((prefix, advert.next_hop, advert.as_path.to_string()));
                }
            }
        }
        told
    }
}

fn peer_status(key: &PeerKey, peer: &Peer) -> PeerStatus {
    let session = &peer.session;
    let negotiated = peer.up.as_ref().map(|u| &u.negotiated);
    PeerStatus {
        peer: key.clone(),
        address: session.address(),
        state: session.state(),
        up_since: session.up_since(),
        remote_as: negotiated.map(|n| n.remote_as),
        remote_id: negotiated.map(|n| n.remote_id),
        hold_time_secs: negotiated.map(|n| n.hold_time.as_secs()),
        capabilities: capabilities(peer),
        families: Family::BOTH
            .into_iter()
            .filter_map(|f| family_status(peer, f))
            .collect(),
        last_down: session.last_down.as_ref().map(|(at, reason)| LastDown {
            at: *at,
            text: reason.to_string(),
            reason: reason.clone(),
        }),
        last_problem: session.last_problem,
        flaps: session.flaps,
        messages: session.counters,
        write_queue: session.established().map_or(0, |c| c.in_flight),
    }
}

fn capabilities(peer: &Peer) -> Vec<&'static str> {
    let Some(n) = peer.up.as_ref().map(|u| &u.negotiated) else {
        return Vec::new();
    };
    let restart = n.restart.is_some_and(|r| r.notification);
    [
        (n.four_octet_as, "four-octet-as"),
        (n.route_refresh, "route-refresh"),
        (n.enhanced_refresh, "enhanced-route-refresh"),
        (n.extended_messages, "extended-message"),
        (n.extended_next_hop, "extended-next-hop"),
        (n.restart.is_some(), "graceful-restart"),
        (restart, "graceful-restart-notification"),
        (n.long_lived.is_some(), "long-lived-graceful-restart"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

fn family_status(peer: &Peer, family: Family) -> Option<FamilyStatus> {
    let negotiated = peer
        .up
        .as_ref()
        .is_some_and(|u| u.negotiated.families.contains(family));
    let accepted = *peer.accepted.get(family);
    let out = peer.out.get(family);
    (negotiated || accepted > 0).then(|| FamilyStatus {
        family,
        negotiated,
        complete: peer.up.is_some() && peer.complete.contains(family),
        accepted,
        max_prefixes: peer.session.settings.config.max_prefixes(family),
        advertised: out.advertised(),
        waiting: out.waiting(),
        stale: match peer.stale.get(family) {
            Stale::None => None,
            Stale::Restarting(_) => Some("restarting"),
            Stale::LongLived(_) => Some("long_lived"),
            Stale::Confirming(_) => Some("confirming"),
        },
    })
}
