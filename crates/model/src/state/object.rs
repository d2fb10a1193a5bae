//! The kernel's objects outside nftables, and the key that names each.

use std::{fmt, net::IpAddr};

use hextet_types::{Family, IfName, Mac, Prefix};
use serde::{Deserialize, Serialize};

use super::{
    hop::{Hop, HopKey},
    multicast::{Audience, Receiver, Speaker, SpeakerFact},
    nft::{Chain, ChainName, CounterName, Element, Limiter, LimiterName, Set, SetName, Value},
    uplink::{Answer, Proxy, UplinkProgram},
};

/// Marks on packets (`skb->mark`); we touch no other bits.
pub mod marks {
    /// The bits that are ours.
    pub const MASK: u32 = 0x00f0_0000;
    /// Set by the port's eBPF program on what comes from a workload.
    pub const FROM_PORT: u32 = 0x0010_0000;
    /// Set by that program, too, where the source is one of the port's exact ones.
    pub const SOURCE_CHECKED: u32 = 0x0020_0000;
    /// Set by nftables once a packet may go to a port, or from a port to the host: what lacks it the port's
    /// eBPF program drops, or an XFRM policy.
    pub const ADMITTED: u32 = 0x0040_0000;
    /// Set by the port's program on an ICMP error about a packet that has one of the port's exact sources at
    /// an end.
    pub const OWN_REPORT: u32 = 0x0080_0000;
    /// In a private network's namespace: set by nftables on what it has to see each packet of. What lacks it, and follows
    /// what rules have let pass, takes a short way for a moment (`crates/kernel/bpf/flows.h`).
    pub const ALL_THE_WAY: u32 = OWN_REPORT;
    /// In a private network's namespace: which next hop the workload has chosen by its Ethernet address, as a number;
    /// 0 is the gateway. Set by the program of the port, or of the VXLAN device, that the packet came in by.
    pub const HOP_MASK: u32 = 0x000f_ffff;
    /// In a private network's namespace: set by the program on a copy that it makes of multicast. No rule touches it.
    pub const COPY: u32 = 0x0100_0000;
    /// In a router's namespace, where there are no ports: set by nftables on what leaves by this host, though by
    /// default its family does not.
    pub const LEAVES_HERE: u32 = 0x0010_0000;
}

/// A network namespace on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Netns {
    /// The one that the agent runs in: the main VRF.
    #[default]
    Main,
    /// One that we made, by its name under `/run/netns`.
    Named(String),
}

impl Netns {
    /// The number by which programs know a private network: the digits in which the name of its namespace ends.
    pub fn number(&self) -> Option<u64> {
        match self {
            Netns::Main => None,
            Netns::Named(name) => {
                u64::from_str_radix(name.strip_prefix(Namespace::PREFIXES[0])?, 16).ok()
            }
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Netns::Main => f.write_str("main"),
            Netns::Named(name) => f.write_str(name),
        }
    }
}

/// A namespace that we make: `lo` is up in it, and what comes to be in it makes no addresses by itself. It is
/// known to be ours by its name, which begins with one of [`Namespace::PREFIXES`], and by a mark in it, which names
/// the namespace that it belongs to. What others put into it goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Under `/run/netns`.
    pub name: String,
}

impl Namespace {
    /// How names of namespaces begin that we make and delete: a network's, a router's.
    pub const PREFIXES: [&str; 2] = ["hx-", "hr-"];

    /// Whether a namespace of that name may be one that we made.
    pub fn may_be_ours(name: &str) -> bool {
        Self::PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// A veth pair between two namespaces, both ends up, neither with an address of its own making.
///
/// Where one end is in the main namespace, both have the same index. Indexes are unique in the main namespace, so
/// those of ports are unique on the host, and maps of eBPF programs that go by them serve all namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veth {
    /// Where the end is by which the pair is known.
    pub netns: Netns,
    /// That end's name.
    pub name: IfName,
    /// That end's Ethernet address.
    pub mac: Mac,
    /// Of both ends, in octets.
    pub mtu: u16,
    /// Where the other end is.
    pub peer_netns: Netns,
    /// The other end's name.
    pub peer: IfName,
    /// The other end's Ethernet address.
    pub peer_mac: Mac,
    /// The other end's group; see [`Link::group`].
    pub peer_group: u32,
}

/// A VXLAN device (RFC 7348) that learns nothing. Its outer packets are the main namespace's, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// Where it is.
    pub netns: Netns,
    /// Its name.
    pub name: IfName,
    /// The network identifier, 24 bits.
    pub vni: u32,
    /// The source of outer packets; all its remote hosts are of that family.
    pub local: IpAddr,
    /// The UDP port, of both sides.
    pub port: u16,
    /// Of inner packets, in octets.
    pub mtu: u16,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// Where a VXLAN device sends what is for an Ethernet address. All permanent entries of such a device are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fdb {
    /// Where the device is.
    pub netns: Netns,
    /// The device.
    pub link: IfName,
    /// The Ethernet address.
    pub mac: Mac,
    /// The remote host.
    pub dst: IpAddr,
}

/// Joins a workload's link with a port in another namespace: what comes in by the one goes to the far end of a veth
/// pair, whose near end is in the main namespace, and what leaves by that far end goes out of the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Where the pair's far end is; nothing passes before the rules there stand.
    pub netns: Netns,
    /// The workload's link in the main namespace: a TAP, or the host's end of a veth.
    pub tap: IfName,
    /// The pair's near end, in the main namespace.
    pub outer: IfName,
}

/// A link that somebody else makes (QEMU, `hextet port attach`) and we set up once it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it is.
    pub netns: Netns,
    /// Its name.
    pub name: IfName,
    /// The Ethernet address of the host's end.
    pub mac: Mac,
    /// In octets.
    pub mtu: u16,
    /// The number of its group (`ip link … group N`), by which rules know it; 0 is none.
    pub group: u32,
    /// Administratively up.
    pub up: bool,
}

/// The eBPF programs on a port: ingress answers ARP and ND and marks, egress drops what nothing admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeProgram {
    /// Where the link is.
    pub netns: Netns,
    /// On this link.
    pub link: IfName,
}

/// What a port may send from: one entry in the map of its eBPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where the link is.
    pub netns: Netns,
    /// On this link.
    pub link: IfName,
    /// With this Ethernet source.
    pub mac: Mac,
    /// The IP source.
    pub addr: IpAddr,
}

/// An address on a link, without duplicate address detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where the link is.
    pub netns: Netns,
    /// On this link.
    pub link: IfName,
    /// The address.
    pub addr: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
}

/// A permanent neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Where the link is.
    pub netns: Netns,
    /// On this link.
    pub link: IfName,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// What tells one route from another in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Where.
    pub netns: Netns,
    /// Routing table; 254 is the main one.
    pub table: u32,
    /// Where to.
    pub prefix: Prefix,
    /// Only of what has a source in there; of IPv6 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Prefix>,
    /// Priority; lower wins.
    pub metric: u32,
}

/// One way to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NextHop {
    /// The router; none for what is on the link itself. May be IPv6 for an IPv4 route (RFC 8950).
    pub via: Option<IpAddr>,
    /// By this link.
    pub link: IfName,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// Forwards, by all of these in equal parts (ECMP); sorted, at least one, at most 64.
    Unicast(Vec<NextHop>),
    /// Drops silently.
    Blackhole,
    /// Leaves it to the next policy rule, as if the table had no route.
    Throw,
}

/// A route, with our protocol number on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its identity.
    pub key: RouteKey,
    /// What it does.
    pub kind: RouteKind,
    /// Source of packets that the host itself sends this way.
    pub prefsrc: Option<IpAddr>,
}

/// What a policy rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// Drops it.
    Blackhole,
    /// Looks it up in this table.
    Table(u32),
}

/// A policy routing rule, with our protocol number on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where.
    pub netns: Netns,
    /// Its family.
    pub family: Family,
    /// Lower comes first.
    pub priority: u32,
    /// `mark & mask == value`, as (value, mask).
    pub fwmark: Option<(u32, u32)>,
    /// Only what comes in by this link.
    pub iif: Option<IfName>,
    /// What it does.
    pub action: RuleAction,
}

/// An XFRM policy (RFC 4301 §4.4.1) that discards whatever comes to the host itself with a mark. The mark
/// has bits of [`marks::MASK`] and no others: by that it is known to be ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XfrmPolicy {
    /// Where.
    pub netns: Netns,
    /// Its family.
    pub family: Family,
    /// `mark & mask == value`, as (value, mask).
    pub mark: (u32, u32),
    /// Lower comes first.
    pub priority: u32,
}

/// A setting under `/proc/sys`. Its former value is recorded before the first write and restored when
/// it is no longer ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Where.
    pub netns: Netns,
    /// Path below `/proc/sys`, as in `net/ipv4/ip_forward`.
    pub path: String,
    /// As read back.
    pub value: String,
}

/// Something that stands, or has to stand, in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// A veth pair.
    Veth(Veth),
    /// A sysctl.
    Sysctl(Sysctl),
    /// An XFRM policy.
    XfrmPolicy(XfrmPolicy),
    /// A policy rule.
    Rule(Rule),
    /// A limiter of our nftables table.
    Limiter(Netns, Limiter),
    /// A counter of our nftables table: it stands, with what it has counted, while rules come and go.
    Counter(Netns, CounterName),
    /// A set or map of our nftables table.
    Set(Netns, Set),
    /// A chain with its rules.
    Chain(Netns, Chain),
    /// An element of a set or map.
    Element(Netns, Element),
    /// A source of a port.
    Source(Source),
    /// A next hop besides the gateway.
    Hop(Hop),
    /// A receiver of VRRP.
    Receiver(Receiver),
    /// What is known of a link whose multicast is copied.
    Speaker(Speaker),
    /// Who has joined a group.
    Audience(Audience),
    /// A link's settings.
    Link(Link),
    /// A port's eBPF programs.
    EdgeProgram(EdgeProgram),
    /// An address.
    Address(Address),
    /// A neighbour.
    Neighbour(Neighbour),
    /// An entry of a VXLAN device.
    Fdb(Fdb),
    /// A route.
    Route(Route),
    /// A patch between a workload's link and a port.
    Patch(Patch),
    /// An uplink's eBPF program.
    UplinkProgram(UplinkProgram),
    /// An address that is answered for on an uplink.
    Answer(Answer),
    /// A proxy neighbour.
    Proxy(Proxy),
}

/// What names an object. Keys sort in the order of creation: rules that stop packets come before the
/// links and routes that let them pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// By name.
    Namespace(String),
    /// By name.
    Vxlan(Netns, IfName),
    /// By the name of its first end.
    Veth(Netns, IfName),
    /// By path.
    Sysctl(Netns, String),
    /// By family and mark.
    XfrmPolicy(Netns, Family, (u32, u32)),
    /// By family, priority, mark and link.
    Rule(Netns, Family, u32, Option<(u32, u32)>, Option<IfName>),
    /// By name.
    Limiter(Netns, LimiterName),
    /// By name.
    Counter(Netns, CounterName),
    /// By name.
    Set(Netns, SetName),
    /// By name.
    Chain(Netns, ChainName),
    /// By set and key.
    Element(Netns, SetName, Vec<Value>),
    /// By all that it is.
    Source(Netns, IfName, Mac, IpAddr),
    /// By link, and what is asked for or sent to.
    Hop(Netns, IfName, HopKey),
    /// By link, sender, family and number.
    Receiver(Netns, IfName, Mac, Family, u8),
    /// By link.
    Speaker(Netns, IfName, SpeakerFact),
    /// By group.
    Audience(Netns, IpAddr),
    /// By name.
    Link(Netns, IfName),
    /// By link.
    EdgeProgram(Netns, IfName),
    /// By link and address.
    Address(Netns, IfName, IpAddr, u8),
    /// By link and address.
    Neighbour(Netns, IfName, IpAddr),
    /// By device and Ethernet address.
    Fdb(Netns, IfName, Mac),
    /// By table, prefix and metric.
    Route(RouteKey),
    /// By the workload's link, in the main namespace.
    Patch(IfName),
    /// By link.
    UplinkProgram(IfName),
    /// By link and address.
    Answer(IfName, IpAddr),
    /// By link and address.
    Proxy(IfName, IpAddr),
}

impl Object {
    /// What names it.
    pub fn key(&self) -> Key {
        match self {
            Object::Namespace(n) => Key::Namespace(n.name.clone()),
            Object::Vxlan(v) => Key::Vxlan(v.netns.clone(), v.name.clone()),
            Object::Veth(v) => Key::Veth(v.netns.clone(), v.name.clone()),
            Object::Sysctl(s) => Key::Sysctl(s.netns.clone(), s.path.clone()),
            Object::XfrmPolicy(p) => Key::XfrmPolicy(p.netns.clone(), p.family, p.mark),
            Object::Rule(r) => {
                let iif = r.iif.clone();
                Key::Rule(r.netns.clone(), r.family, r.priority, r.fwmark, iif)
            }
            Object::Limiter(ns, l) => Key::Limiter(ns.clone(), l.name.clone()),
            Object::Counter(ns, name) => Key::Counter(ns.clone(), name.clone()),
            Object::Set(ns, s) => Key::Set(ns.clone(), s.name.clone()),
            Object::Chain(ns, c) => Key::Chain(ns.clone(), c.name.clone()),
            Object::Element(ns, e) => Key::Element(ns.clone(), e.set.clone(), e.key.clone()),
            Object::Source(s) => Key::Source(s.netns.clone(), s.link.clone(), s.mac, s.addr),
            Object::Hop(h) => Key::Hop(h.netns.clone(), h.link.clone(), h.hop_key()),
            Object::Receiver(r) => {
                Key::Receiver(r.netns.clone(), r.link.clone(), r.from, r.family, r.slot)
            }
            Object::Speaker(s) => Key::Speaker(s.netns.clone(), s.link.clone(), s.fact),
            Object::Audience(a) => Key::Audience(a.netns.clone(), a.group),
            Object::Link(l) => Key::Link(l.netns.clone(), l.name.clone()),
            Object::EdgeProgram(e) => Key::EdgeProgram(e.netns.clone(), e.link.clone()),
            Object::Address(a) => {
                Key::Address(a.netns.clone(), a.link.clone(), a.addr, a.prefix_len)
            }
            Object::Neighbour(n) => Key::Neighbour(n.netns.clone(), n.link.clone(), n.addr),
            Object::Fdb(f) => Key::Fdb(f.netns.clone(), f.link.clone(), f.mac),
            Object::Route(r) => Key::Route(r.key.clone()),
            Object::Patch(p) => Key::Patch(p.tap.clone()),
            Object::UplinkProgram(p) => Key::UplinkProgram(p.link.clone()),
            Object::Answer(a) => Key::Answer(a.link.clone(), a.addr),
            Object::Proxy(p) => Key::Proxy(p.link.clone(), p.addr),
        }
    }
}

impl Object {
    /// Puts it there; only what is in one namespace alone.
    pub fn put_into(&mut self, netns: &Netns) {
        let place = match self {
            Object::Namespace(_)
            | Object::Veth(_)
            | Object::Patch(_)
            | Object::UplinkProgram(_)
            | Object::Answer(_)
            | Object::Proxy(_) => return,
            Object::Vxlan(o) => &mut o.netns,
            Object::Sysctl(o) => &mut o.netns,
            Object::XfrmPolicy(o) => &mut o.netns,
            Object::Rule(o) => &mut o.netns,
            Object::Limiter(place, _)
            | Object::Counter(place, _)
            | Object::Set(place, _)
            | Object::Chain(place, _)
            | Object::Element(place, _) => place,
            Object::Source(o) => &mut o.netns,
            Object::Hop(o) => &mut o.netns,
            Object::Receiver(o) => &mut o.netns,
            Object::Speaker(o) => &mut o.netns,
            Object::Audience(o) => &mut o.netns,
            Object::Link(o) => &mut o.netns,
            Object::EdgeProgram(o) => &mut o.netns,
            Object::Address(o) => &mut o.netns,
            Object::Neighbour(o) => &mut o.netns,
            Object::Fdb(o) => &mut o.netns,
            Object::Route(o) => &mut o.key.netns,
        };
        place.clone_from(netns);
    }
}

impl Key {
    /// Where it is; of what joins namespaces, the end by which it is known.
    pub fn netns(&self) -> &Netns {
        match self {
            Key::Namespace(_)
            | Key::Patch(_)
            | Key::UplinkProgram(_)
            | Key::Answer(..)
            | Key::Proxy(..) => &Netns::Main,
            Key::Vxlan(netns, _)
            | Key::Veth(netns, _)
            | Key::Sysctl(netns, _)
            | Key::XfrmPolicy(netns, ..)
            | Key::Rule(netns, ..)
            | Key::Limiter(netns, _)
            | Key::Counter(netns, _)
            | Key::Set(netns, _)
            | Key::Chain(netns, _)
            | Key::Element(netns, ..)
            | Key::Source(netns, ..)
            | Key::Hop(netns, ..)
            | Key::Receiver(netns, ..)
            | Key::Speaker(netns, ..)
            | Key::Audience(netns, _)
            | Key::Link(netns, _)
            | Key::EdgeProgram(netns, _)
            | Key::Address(netns, ..)
            | Key::Neighbour(netns, ..)
            | Key::Fdb(netns, ..)
            | Key::Route(RouteKey { netns, .. }) => netns,
        }
    }

    /// The link without which the object cannot stand, or that it is.
    pub fn link(&self) -> Option<(&Netns, &IfName)> {
        match self {
            Key::Vxlan(ns, link)
            | Key::Veth(ns, link)
            | Key::Source(ns, link, ..)
            | Key::Hop(ns, link, _)
            | Key::Receiver(ns, link, ..)
            | Key::Speaker(ns, link, _)
            | Key::Link(ns, link)
            | Key::EdgeProgram(ns, link)
            | Key::Address(ns, link, ..)
            | Key::Neighbour(ns, link, _)
            | Key::Fdb(ns, link, _) => Some((ns, link)),
            Key::Patch(link)
            | Key::UplinkProgram(link)
            | Key::Answer(link, _)
            | Key::Proxy(link, _) => Some((&Netns::Main, link)),
            _ => None,
        }
    }
}
