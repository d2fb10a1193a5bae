//! What was seen of a host and its links, as plain data.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{IfName, Mac, Prefix};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// The links that were looked at.
    pub links: Vec<Link>,
    /// Rules of others, as `nft` lists them; why not, where it can't.
    pub chains: Vec<Chain>,
    /// The table of neighbours of each family: what it holds, and could.
    pub neighbours: Vec<Neighbours>,
    /// Addresses that were asked.
    pub asked: Vec<Answered>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// In octets.
    pub mtu: u32,
    /// The addresses on it.
    pub addresses: Vec<Address>,
    /// By family, whether the default route is by this link; and whether a router made it.
    pub default_v6: Option<ByRouter>,
    /// Whether the default route of IPv4 is by this link.
    pub default_v4: bool,
    /// `forwarding`, `accept_ra` and `disable_ipv6` of IPv6.
    pub forwarding: u32,
    /// See `forwarding`.
    pub accept_ra: u32,
    /// See `forwarding`.
    pub disable_ipv6: u32,
    /// The stricter of the link's and all links' (`conf.all`).
    pub rp_filter: u32,
    /// The routers that were heard; none where nobody listened.
    pub routers: Option<Vec<Router>>,
}

/// Whether a router's advertisement made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByRouter(pub bool);

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// Whether duplicate address detection failed.
    pub duplicate: bool,
    /// Whether somebody set it, rather than a router.
    pub by_hand: bool,
}

/// A router that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its link-local address.
    pub addr: Ipv6Addr,
    /// Its Ethernet address, as it says.
    pub mac: Option<Mac>,
    /// How long it is a default router, in seconds.
    pub lifetime_secs: u16,
    /// The managed flag.
    pub managed: bool,
    /// The other flag.
    pub other: bool,
    /// The MTU that it says.
    pub mtu: Option<u32>,
    /// The prefixes that it says.
    pub prefixes: Vec<Said>,
}

/// A prefix, as a router says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The prefix.
    pub prefix: Prefix,
    /// Whether hosts form addresses from it.
    pub autonomous: bool,
    /// Whether it is on the link.
    pub on_link: bool,
    /// In seconds.
    pub valid_secs: u32,
    /// In seconds.
    pub preferred_secs: u32,
}

/// A base chain of somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Of the table: `ip`, `ip6` or `inet`.
    pub family: String,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub name: String,
    /// `input` or `forward`.
    pub hook: String,
    /// Whether it drops what no rule takes.
    pub drops: bool,
    /// Whether its first rules let ports of workloads through (`tap*`), coming and going.
    pub lets_ports: bool,
    /// Whether a rule is about ICMPv6 and accepts it.
    pub accepts_icmpv6: bool,
    /// A rule that is about ICMPv6 and drops it.
    pub drops_icmpv6: Option<String>,
    /// Whether the table has a chain of Docker's for others' rules.
    pub has_docker_user: bool,
}

/// A family's neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// 4 or 6.
    pub version: u8,
    /// How many there are.
    pub held: usize,
    /// How many there can be (`gc_thresh3`).
    pub room: usize,
}

/// What an address answered that somebody named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The address.
    pub addr: IpAddr,
    /// By this link.
    pub link: IfName,
    /// That link's MTU.
    pub mtu: u32,
    /// Whether it is on the link, and nobody told its Ethernet address.
    pub unresolved: bool,
    /// Whether a small echo request was answered.
    pub small: bool,
    /// Whether one that fills the link was answered, or refused by somebody with a word.
    pub large: bool,
}
