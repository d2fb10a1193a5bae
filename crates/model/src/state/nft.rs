//! One nftables table, as data: sets, maps, chains, rules, elements (nft(8)).
//!
//! It says what a rule means; how that becomes netlink expressions and registers is the business of the
//! kernel crate. `Display` writes the nft language, so that `nft -c` can judge it and people can read it.
//!
//! A chain is one object with all its rules and is replaced whole. What changes often is an [`Element`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::{Family, IfName, Mac};
use serde::{Deserialize, Serialize};

/// The one table that is ours, in every namespace: `inet hextet`.
pub const TABLE: &str = "hextet";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                $name(name.to_owned())
            }
        }
    )*};
}

names! {
    /// A chain's name, at most 127 octets.
    ChainName;
    /// A set's or map's name, at most 127 octets.
    SetName;
    /// A limiter's name, at most 127 octets.
    LimiterName;
    /// A counter's name, at most 127 octets.
    CounterName;
}

/// What a packet or its connection has, and a rule can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// `iifname`.
    IifName,
    /// `oifname`.
    OifName,
    /// `iifgroup`: the group of the interface.
    IifGroup,
    /// `oifgroup`.
    OifGroup,
    /// `ether saddr`.
    EtherSaddr,
    /// `ip saddr` or `ip6 saddr`.
    Saddr(Family),
    /// `ip daddr` or `ip6 daddr`.
    Daddr(Family),
    /// `meta nfproto`: the family.
    NfProto,
    /// `meta l4proto`, behind all extension headers.
    L4Proto,
    /// `th sport`.
    Sport,
    /// `th dport`.
    Dport,
    /// `icmp type` or `icmpv6 type`.
    IcmpType(Family),
    /// `icmp code` or `icmpv6 code`.
    IcmpCode(Family),
    /// The target of a neighbour solicitation or advertisement (`@th,64,128`).
    NdTarget,
    /// `meta mark`.
    Mark,
    /// `meta pkttype` is `host`, `broadcast` or `multicast`, as 0, 1, 2.
    PktType,
    /// `ct status`; a mask test.
    CtStatus,
    /// `ct original ip saddr`, `ct reply ip6 saddr`: an end of the connection, as it was before any
    /// translation in that direction.
    CtSaddr(CtDirection, Family),
    /// `fib daddr type`: 2 is local, 3 broadcast, 5 multicast (RTN_* of rtnetlink(7)).
    FibDaddrType,
    /// `exthdr frag exists` for IPv6, 1 or 0.
    Ip6Fragment,
    /// `ip6 nexthdr`: the protocol of what follows the header, which may be a header more (RFC 8200 section 3).
    Ip6NextHeader,
    /// `ip frag-off`: the flags and the fragment's offset, two octets (RFC 791 section 3.1).
    Ip4Fragment,
    /// Where the code point of RFC 2474 is, among other bits: `@nh,8,8` of IPv4, one octet, six bits from above; `@nh,0,16` of IPv6, two octets,
    /// six bits behind the first four.
    Dscp(Family),
    /// `numgen random mod N`: a number below N, by chance.
    Random(u32),
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CtDirection {
    /// That of its first packet.
    Original,
    /// That of the answers.
    Reply,
}

/// A field, or some of its bits (`field & mask`, the mask in network order and as long as the field).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyPart {
    /// The field.
    pub field: Field,
    /// The bits that count; all, where there is none.
    pub mask: Option<Vec<u8>>,
}

impl From<Field> for KeyPart {
    fn from(field: Field) -> Self {
        KeyPart { field, mask: None }
    }
}

/// One value, as part of a key or beside an operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// An interface.
    IfName(IfName),
    /// An Ethernet address.
    Mac(Mac),
    /// An IP address.
    Addr(IpAddr),
    /// A family.
    Family(Family),
    /// A protocol, ICMP type or code, or one octet otherwise.
    U8(u8),
    /// A TCP, UDP or SCTP port, or two octets otherwise.
    Port(u16),
    /// A mark, status or group, in host order.
    U32(u32),
    /// A limiter, to which a map leads.
    Limiter(LimiterName),
}

/// The type of a key's part; concatenations pad each to four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// `ifname`, 16 octets.
    IfName,
    /// `devgroup`, 4 octets.
    DevGroup,
    /// `ether_addr`, 6 octets.
    EtherAddr,
    /// `ipv4_addr` or `ipv6_addr`.
    Addr(Family),
    /// `nf_proto`, 1 octet.
    NfProto,
    /// `inet_proto`, 1 octet.
    InetProto,
    /// `inet_service`, 2 octets.
    InetService,
    /// `icmp_type`, `icmpv6_type`, 1 octet.
    IcmpType(Family),
    /// `icmp_code`, `icmpv6_code`, 1 octet.
    IcmpCode(Family),
    /// `mark`, 4 octets.
    Mark,
    /// `limit`: a limiter; never a part of a key, and alone as data.
    Limiter,
}

/// A hash set, or a map. Never an interval set: their updates cost what grows with their size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// The parts of its key; at least one, at most 64 octets together with padding.
    pub key: Vec<KeyType>,
    /// Whether elements carry a verdict.
    pub verdicts: bool,
    /// The parts of what elements carry otherwise; none, where they carry nothing or a verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<KeyType>,
    /// Filled by packets (`flags dynamic`), with at most this many elements; its elements are nobody's
    /// objects and are left alone.
    pub dynamic: Option<u32>,
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// In this set.
    pub set: SetName,
    /// One value for each part of the set's key.
    pub key: Vec<Value>,
    /// In a verdict map, what to do.
    pub verdict: Option<Verdict>,
    /// In another map, one value for each part of its data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Value>,
}

/// Where a rule's evaluation goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Ends the base chain.
    Accept,
    /// Ends the packet.
    Drop,
    /// Back to where the chain was jumped from.
    Return,
    /// On in that chain, and back at its end.
    Jump(ChainName),
    /// On in that chain, without coming back here.
    Goto(ChainName),
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To the host itself.
    Input,
    /// Through the host.
    Forward,
    /// From the host itself.
    Output,
    /// After routing.
    Postrouting,
}

/// What a base chain does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Lets pass.
    Accept,
    /// Drops.
    Drop,
}

/// Makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHook {
    /// Where.
    pub hook: Hook,
    /// Lower comes first; 0 is `filter`, 100 `srcnat`, -100 `dstnat`, -300 `raw`.
    pub priority: i32,
    /// At its end.
    pub policy: Policy,
    /// `type nat` where true, otherwise as [`ChainHook::kind`] says.
    pub nat: bool,
}

/// The priority `mangle`.
pub const MANGLE: i32 = -150;

impl ChainHook {
    /// Its type: what changes packets of the host itself before they are routed has them routed anew.
    pub fn kind(&self) -> &'static str {
        match (self.nat, self.hook, self.priority) {
            (true, ..) => "nat",
            (false, Hook::Output, MANGLE) => "route",
            _ => "filter",
        }
    }
}

/// A chain with all its rules, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// Its hook, for a base chain.
    pub hook: Option<ChainHook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A rule: statements from left to right, each a condition for the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// At least one.
    pub statements: Vec<Statement>,
    /// What the rule is there for, at most 120 octets (kept in the kernel as its comment).
    pub comment: Option<String>,
}

/// How a field compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
}

/// `ct state`, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CtState {
    /// Not to be made sense of.
    Invalid,
    /// Seen in both directions.
    Established,
    /// An error or helper flow of another.
    Related,
    /// First of its flow.
    New,
    /// `notrack`.
    Untracked,
}

/// A rate that all packets share which are led to it, with what is left of it: it stays as it is while rules and
/// elements come and go. One whose rate changes is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limiter {
    /// Its name.
    pub name: LimiterName,
    /// How much passes; what is beyond goes on in the rule.
    pub rate: LimiterRate,
}

/// What a limiter lets pass each second, at least 1, and how much more in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimiterRate {
    /// Octets from the IP header on; the kernel adds what passes in a second to the burst.
    Octets(u64, u32),
    /// Packets; at least 1 in one go.
    Packets(u64, u32),
}

/// Whether a key is in a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The key's parts.
    pub key: Vec<KeyPart>,
    /// The set.
    pub set: SetName,
    /// Holds when it is *not* in it.
    pub negate: bool,
}

/// The time unit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitUnit {
    /// Each second.
    Second,
    /// Each minute.
    Minute,
}

/// A packet rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Packets for each unit.
    pub rate: u64,
    /// The unit.
    pub unit: LimitUnit,
    /// More in one go.
    pub burst: u32,
}

/// What happens in a dynamic set for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynOp {
    /// `ct count over N`: true once more than N connections are open.
    CtCountOver(u32),
    /// `limit rate over`: true for what is beyond the rate.
    LimitOver(Limit),
}

/// Whom a frame is for, as its link layer says. Only what is for the host is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PktType {
    /// For this host.
    Host,
    /// For all on the link.
    Broadcast,
    /// For a group.
    Multicast,
}

/// Source addresses of a translation, both ends included; one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRange {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
}

impl NatRange {
    /// Stands for what only the kernel knows: the address of the link that a packet leaves by ([`Statement::Masquerade`]).
    pub const OF_LINK: NatRange = NatRange {
        first: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        last: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
}

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatEnd {
    /// Where its packets come from; after routing.
    Source,
    /// Where they go to; before routing.
    Destination,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    /// Goes on when the part compares so.
    Compare(KeyPart, CmpOp, Value),
    /// Goes on when an interface's name begins so (`iifname "tap*"`).
    NamePrefix(Field, String),
    /// Goes on when the connection is in one of these states.
    CtStateIn(Vec<CtState>),
    /// Goes on when the key is, or is not, in the set.
    Lookup(Lookup),
    /// Does what the map says of the key; goes on when it says nothing.
    VerdictMap(Vec<KeyPart>, SetName),
    /// Goes on when the operation on the key's element of that dynamic set is true.
    Dynamic(Vec<KeyPart>, SetName, DynOp),
    /// Goes on within the rate (`over` false) or beyond it.
    Limit(Limit, bool),
    /// Goes on beyond the rate of the limiter that the map has for the key; not where it has none.
    LimitMap(Vec<KeyPart>, SetName),
    /// `ip dscp set`: the code point (RFC 2474) of a packet of that family.
    SetDscp(Family, u8),
    /// `meta mark set meta mark & !mask | value`.
    SetMark {
        /// The bits to set.
        value: u32,
        /// The bits to change.
        mask: u32,
    },
    /// `meta pkttype set`; in prerouting only.
    SetPktType(PktType),
    /// `ip6 saddr set`, IPv6 only: the packet's source becomes another, and its transport checksum right; no
    /// translation that an answer would undo.
    SetSaddr(Ipv6Addr),
    /// Counts packets and octets.
    Counter,
    /// Counts them at the counter of that name, which stands by itself.
    Count(CounterName),
    /// Leaves the packet without connection tracking.
    Notrack,
    /// Translates the source; `persistent`, so that one client keeps one address.
    Snat(NatRange),
    /// Translates the source to the address of the link that a packet leaves by.
    Masquerade,
    /// Translates an end, of IPv4, to what the map has for the key: an address, and where true a port besides. Goes on when
    /// it has nothing.
    NatMap(NatEnd, Vec<KeyPart>, SetName, bool),
    /// Ends the packet, and tells its sender that this is prohibited (`reject with icmpx admin-prohibited`).
    Reject,
    /// Ends the rule.
    Verdict(Verdict),
}
