//! What the operator says: the speaker and its peers.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use hextet_types::{Asn, Family, IfName, Prefix};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::{packet::Families, policy::Policy};

/// The most peers a speaker has.
pub const MAX_PEERS: usize = 1024;
/// The most next hops a route has.
pub const MAX_PATHS: u8 = 64;

/// What names a peer, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    /// By an address that is unique in the network.
    Address(IpAddr),
    /// By a link-local address on an interface.
    LinkLocal {
        /// Where the address means something.
        interface: IfName,
        /// `fe80::/10`.
        address: Ipv6Addr,
    },
    /// Whoever is at the other end of an interface (unnumbered); the driver learns the address, from
    /// router advertisements for instance.
    Interface(IfName),
}

impl PeerKey {
    /// The address, where it is configured.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            PeerKey::Address(addr) => Some(*addr),
            PeerKey::LinkLocal { address, .. } => Some(IpAddr::V6(*address)),
            PeerKey::Interface(_) => None,
        }
    }

    /// The interface, where it is part of the name.
    pub const fn interface(&self) -> Option<&IfName> {
        match self {
            PeerKey::Address(_) => None,
            PeerKey::LinkLocal { interface, .. } | PeerKey::Interface(interface) => Some(interface),
        }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerKey::Address(addr) => addr.fmt(f),
            PeerKey::LinkLocal { interface, address } => write!(f, "{address}%{interface}"),
            PeerKey::Interface(interface) => write!(f, "%{interface}"),
        }
    }
}

impl Serialize for PeerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which AS a peer has to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Is(Asn),
    /// Our own.
    Internal,
    /// Any other than ours.
    External,
}

impl RemoteAs {
    /// Whether a peer of `remote` may be this one.
    pub fn admits(self, remote: Asn, local: Asn) -> bool {
        match self {
            RemoteAs::Is(asn) => asn == remote,
            RemoteAs::Internal => remote == local,
            RemoteAs::External => remote != local,
        }
    }
}

/// A family of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// Which.
    pub family: Family,
    /// The session is ended when the peer has more routes accepted than this.
    pub max_prefixes: Option<u32>,
}

/// How the packets of a session are bounded to their link. The driver sets the socket options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlPolicy {
    /// Sent with this TTL: 1 for peers on a link.
    Ttl(u8),
    /// GTSM: sent with 255 and taken only if at most this many hops away (RFC 5082).
    Security(u8),
}

/// A secret for TCP MD5 (RFC 2385) that the driver applies; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What part a session takes in graceful restart (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartMode {
    /// None.
    Off,
    /// Keeps the routes of a peer that restarts.
    Helper,
    /// Asks the peer for the same, too: our kernel forwards while the program is away.
    Full,
}

/// What it means that BFD has lost a peer (RFC 5882 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BfdMode {
    /// Nothing.
    Off,
    /// The peer is gone, and its routes with it.
    Strict,
    /// The same where BFD runs with the forwarding plane. Where it does not, the program that runs
    /// it may be restarting, which is no loss: the session ends as for a graceful restart and the
    /// routes are kept, but used only where no other peer has one as good, until BFD is back or the
    /// peer confirms them.
    ///
    /// Deviation: RFC 4724 §4.2 uses stale routes like all others. With BFD down that would send half
    /// of the packets into a dead link of two for as long as a restart may take.
    Graceful,
}

/// Our own addresses towards a peer; what is not said here is learned from the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnAddresses {
    /// For IPv4 routes, unless the next hop is IPv6 (RFC 8950).
    pub v4: Option<Ipv4Addr>,
    /// Global.
    pub v6: Option<Ipv6Addr>,
    /// Link-local.
    pub link_local: Option<Ipv6Addr>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name and place.
    pub peer: PeerKey,
    /// Its AS.
    pub remote_as: RemoteAs,
    /// At least one; each at most once.
    pub families: Vec<FamilyConfig>,
    /// Offered hold time in seconds: 0 for none, else at least 3. The lesser of both sides' holds.
    pub hold_time_secs: u16,
    /// After a failed attempt the next is this long away, then twice as long, up to 120 s.
    pub connect_retry: Duration,
    /// Only wait for the peer to connect.
    pub passive: bool,
    /// What is taken from it.
    pub import: Arc<Policy>,
    /// What is told to it.
    pub export: Arc<Policy>,
    /// It is a client of this route reflector (RFC 4456).
    pub reflector_client: bool,
    /// Put our own address into routes that we pass on to an internal peer.
    pub next_hop_self: bool,
    /// Our addresses, where the connection's are not the right ones.
    pub own: OwnAddresses,
    /// TTL or GTSM.
    pub ttl: TtlPolicy,
    /// TCP MD5.
    pub md5: Option<Secret>,
    /// What a BFD event of this peer means.
    pub bfd: BfdMode,
    /// Graceful restart.
    pub restart: RestartMode,
    /// Keep its stale routes this many seconds more (RFC 9494); 0 for no longer.
    pub long_lived_secs: u32,
    /// Offer messages of 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// An external peer's AS_PATH has to begin with its own AS (RFC 4271 §6.3).
    pub enforce_first_as: bool,
    /// Hold the session down and say why (RFC 9003).
    pub shutdown: Option<String>,
    /// How long a session rests after too many prefixes; `None`: until it is configured anew.
    pub max_prefixes_rest: Option<Duration>,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// RFC 4271 §4.2.
    #[error("peer {0}: a hold time of {1} s; it is 0 or at least 3")]
    HoldTime(PeerKey, u16),
    /// Neither IPv4 nor IPv6, or one of them twice.
    #[error("peer {0}: list at least one family, and each once")]
    Families(PeerKey),
    /// A link-local peer without its interface, or one that is not link-local with it.
    #[error("peer {0}: a link-local address needs its interface, other addresses have none")]
    Scope(PeerKey),
    /// The table of peers is full.
    #[error("peer {0}: a speaker has at most {MAX_PEERS} peers")]
    TooMany(PeerKey),
    /// RFC 4456: only internal peers are clients.
    #[error("peer {0}: only an internal peer can be a route reflector's client")]
    Client(PeerKey),
}

impl PeerConfig {
    /// A peer with both families, 90 s of hold time, graceful restart as a full partner, TTL 1 for
    /// external peers, and policies that take nothing and tell nothing (RFC 8212).
    pub fn new(peer: PeerKey, remote_as: RemoteAs) -> Self {
        let family = |family| FamilyConfig {
            family,
            max_prefixes: None,
        };
        PeerConfig {
            peer,
            remote_as,
            families: Family::BOTH.into_iter().map(family).collect(),
            hold_time_secs: 90,
            connect_retry: Duration::from_secs(5),
            passive: false,
            import: Arc::new(Policy::reject_all()),
            export: Arc::new(Policy::reject_all()),
            reflector_client: false,
            next_hop_self: false,
            own: OwnAddresses::default(),
            ttl: TtlPolicy::Ttl(if remote_as == RemoteAs::Internal {
                64
            } else {
                1
            }),
            md5: None,
            bfd: BfdMode::Off,
            restart: RestartMode::Full,
            long_lived_secs: 0,
            extended_messages: true,
            extended_next_hop: true,
            enforce_first_as: true,
            shutdown: None,
            max_prefixes_rest: Some(Duration::from_secs(300)),
        }
    }

    /// The families as a set.
    pub fn family_set(&self) -> Families {
        self.families.iter().map(|f| f.family).collect()
    }

    /// The limit of a family.
    pub fn max_prefixes(&self, family: Family) -> Option<u32> {
        self.families
            .iter()
            .find(|f| f.family == family)
            .and_then(|f| f.max_prefixes)
    }

    /// Whether it can work.
    ///
    /// # Errors
    ///
    /// The first thing that cannot.
    pub fn check(&self, local: Asn) -> Result<(), ConfigError> {
        let key = || self.peer.clone();
        if matches!(self.hold_time_secs, 1 | 2) {
            return Err(ConfigError::HoldTime(key(), self.hold_time_secs));
        }
        let families = self.family_set();
        if families.is_empty() || families.len() as usize != self.families.len() {
            return Err(ConfigError::Families(key()));
        }
        let scoped = match &self.peer {
            PeerKey::Address(IpAddr::V6(addr)) => !addr.is_unicast_link_local(),
            PeerKey::LinkLocal { address, .. } => address.is_unicast_link_local(),
            PeerKey::Address(IpAddr::V4(_)) | PeerKey::Interface(_) => true,
        };
        if !scoped {
            return Err(ConfigError::Scope(key()));
        }
        let external = match self.remote_as {
            RemoteAs::Is(asn) => asn != local,
            RemoteAs::Internal => false,
            RemoteAs::External => true,
        };
        if self.reflector_client && external {
            return Err(ConfigError::Client(key()));
        }
        Ok(())
    }
}

/// The speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier; not 0.0.0.0.
    pub router_id: Ipv4Addr,
    /// As a route reflector; the router id if not said.
    pub cluster_id: Option<Ipv4Addr>,
    /// Next hops a route may have: 1 to [`MAX_PATHS`].
    pub max_paths: u8,
    /// Routes of equally long but different AS paths may share load.
    pub multipath_relax: bool,
    /// Compare MED between different neighbour AS, too.
    pub always_compare_med: bool,
    /// What we tell peers our restart may take; twelve bits.
    pub restart_time_secs: u16,
    /// Our kernel still forwards what an earlier run of this program taught it: the R and F bits are
    /// set, and nothing is selected before the peers have told all, or `deferral` is over.
    pub restarting: bool,
    /// The selection deferral timer (RFC 4724 §4.1).
    pub deferral: Duration,
    /// A peer that came back has this long to tell all before its stale routes go.
    pub stale_path_time: Duration,
    /// Prefixes of ours: each takes the place of the local announcements that lie in it.
    pub aggregates: Vec<Prefix>,
    /// Octets that a connection may have waiting to be written before no more routes are put on it;
    /// it may go over by one batch.
    pub write_limit: usize,
    /// Where jitter comes from; any number, another one at each start.
    pub seed: u64,
}

impl SpeakerConfig {
    /// One path, no aggregates, not restarting.
    pub fn new(asn: Asn, router_id: Ipv4Addr, seed: u64) -> Self {
        SpeakerConfig {
            asn,
            router_id,
            cluster_id: None,
            max_paths: 1,
            multipath_relax: false,
            always_compare_med: false,
            restart_time_secs: 120,
            restarting: false,
            deferral: Duration::from_secs(120),
            stale_path_time: Duration::from_secs(360),
            aggregates: Vec::new(),
            write_limit: 256 * 1024,
            seed,
        }
    }

    /// As a route reflector.
    pub fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}
