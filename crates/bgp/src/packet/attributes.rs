//! Path attributes as a value (RFC 4271 §5).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::{Asn, Family};
use serde::{Deserialize, Serialize};

use super::{AsPath, Community, ExtendedCommunity, LargeCommunity};

/// ORIGIN; the lower is preferred.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// 0
    #[default]
    Igp,
    /// 1
    Egp,
    /// 2
    Incomplete,
}

/// Where to send packets: NEXT_HOP, or the next hop of MP_REACH_NLRI.
///
/// A route of either family may have either kind (RFC 8950).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// Four octets.
    V4(Ipv4Addr),
    /// Sixteen octets, or thirty-two with a link-local address (RFC 2545 §3).
    V6 {
        /// The first address; link-local where the sender has no other.
        global: Ipv6Addr,
        /// The second.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// One address and no other.
    pub const fn from_addr(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => NextHop::V4(addr),
            IpAddr::V6(global) => NextHop::V6 {
                global,
                link_local: None,
            },
        }
    }

    /// Which kind it is.
    pub const fn family(&self) -> Family {
        match self {
            NextHop::V4(_) => Family::V4,
            NextHop::V6 { .. } => Family::V6,
        }
    }

    /// The (first) address.
    pub const fn addr(&self) -> IpAddr {
        match *self {
            NextHop::V4(addr) => IpAddr::V4(addr),
            NextHop::V6 { global, .. } => IpAddr::V6(global),
        }
    }

    /// The link-local address, wherever it stands.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        match *self {
            NextHop::V4(_) => None,
            NextHop::V6 { global, link_local } => {
                link_local.or_else(|| is_link_local(global).then_some(global))
            }
        }
    }

    /// Whether it may be a host's address (RFC 4271 §6.3).
    pub fn is_usable(&self) -> bool {
        match *self {
            NextHop::V4(addr) => {
                !(addr.is_unspecified()
                    || addr.is_multicast()
                    || addr.is_broadcast()
                    || addr.is_loopback())
            }
            NextHop::V6 { global, .. } => {
                !(global.is_unspecified() || global.is_multicast() || global.is_loopback())
            }
        }
    }
}

/// `fe80::/10`.
pub(crate) const fn is_link_local(addr: Ipv6Addr) -> bool {
    addr.segments()[0] & 0xffc0 == 0xfe80
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)?;
        match self {
            NextHop::V6 {
                link_local: Some(addr),
                ..
            } => write!(f, " {addr}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// AGGREGATOR: who put routes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its identifier.
    pub identifier: Ipv4Addr,
}

/// An optional transitive attribute that we do not know: passed on with the partial bit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Its type.
    pub code: u8,
    /// Its value, as it came.
    pub value: Box<[u8]>,
}

/// The attributes that most routes do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rare {
    /// AGGREGATOR, with AS4_AGGREGATOR merged.
    pub aggregator: Option<Aggregator>,
    /// ORIGINATOR_ID (RFC 4456 §8).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, the latest first (RFC 4456 §8).
    pub cluster_list: Vec<Ipv4Addr>,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// What we do not know, by type.
    pub unknown: Vec<UnknownAttribute>,
}

static NO_RARE: Rare = Rare {
    aggregator: None,
    originator_id: None,
    cluster_list: Vec::new(),
    extended_communities: Vec::new(),
    large_communities: Vec::new(),
    unknown: Vec::new(),
};

/// All attributes of a route. Equal values are equal routes: nothing depends on how it was received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AS_PATH, with AS4_PATH merged.
    pub as_path: AsPath,
    /// NEXT_HOP, or MP_REACH_NLRI's.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// COMMUNITIES, in the order they came.
    pub communities: Box<[Community]>,
    rare: Option<Box<Rare>>,
}

impl PathAttributes {
    /// A route of our own: ORIGIN IGP and an empty path.
    pub fn new(next_hop: NextHop) -> Self {
        PathAttributes {
            origin: Origin::Igp,
            atomic_aggregate: false,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            communities: Box::default(),
            rare: None,
        }
    }

    /// The attributes that most routes do not have.
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NO_RARE)
    }

    /// Changes them.
    pub fn edit_rare(&mut self, edit: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().unwrap_or_default();
        edit(&mut rare);
        if *rare != NO_RARE {
            self.rare = Some(rare);
        }
    }

    /// Whether it has a community.
    pub fn has_community(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }

    /// Adds a community, unless it has it.
    pub fn add_community(&mut self, community: Community) {
        if !self.has_community(community) {
            let mut communities = self.communities.to_vec();
            communities.push(community);
            self.communities = communities.into();
        }
    }

    /// Removes a community.
    pub fn remove_community(&mut self, community: Community) {
        if self.has_community(community) {
            self.communities = self
                .communities
                .iter()
                .copied()
                .filter(|c| *c != community)
                .collect();
        }
    }
}
