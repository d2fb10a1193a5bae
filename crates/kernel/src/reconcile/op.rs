//! What stands, what is to be done, and how both read.

use std::fmt::{self, Write as _};

use hextet_model::state::{
    HopEntry, HopKey, Key, Listener, Netns, NextHop, Object, Route, RouteKind, Rule, RuleAction,
    SpeakerFact,
};

use crate::sysctl;

/// What the kernel has under a key of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What the model can say.
    As(Object),
    /// Something that no desired state ever says: tampered with, or made by another version.
    Otherwise {
        /// In a few words, for people.
        what: String,
        /// Whether it has to go before the right thing can stand there.
        remake: bool,
    },
}

impl Standing {
    pub(super) fn otherwise(what: impl Into<String>) -> Self {
        Standing::Otherwise {
            what: what.into(),
            remake: false,
        }
    }
}

impl From<Object> for Standing {
    fn from(object: Object) -> Self {
        Standing::As(object)
    }
}

/// One change to the kernel. `Display` prints a line: `+`, `~` or `-`, and the object in the words of the
/// tools that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// There is nothing of that key yet.
    Create(Object),
    /// There is something else of that key.
    Replace {
        /// What shall stand.
        new: Object,
        /// What stands.
        was: Standing,
    },
    /// It shall not stand any longer.
    Delete(Key),
}

impl Op {
    /// The object's key.
    pub fn key(&self) -> Key {
        match self {
            Op::Create(object) | Op::Replace { new: object, .. } => object.key(),
            Op::Delete(key) => key.clone(),
        }
    }

    /// What shall stand; none, where nothing shall.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Op::Create(object) | Op::Replace { new: object, .. } => Some(object),
            Op::Delete(_) => None,
        }
    }

    /// The namespace it happens in; that in which the rules have to stand for it, where that is another.
    pub fn netns(&self) -> &Netns {
        match self {
            Op::Create(object) | Op::Replace { new: object, .. } => netns_of(object),
            Op::Delete(key) => key.netns(),
        }
    }

    /// When it happens: services end, then policy changes, then services begin, then policy ends.
    pub(super) fn phase(&self) -> Phase {
        use Phase as P;
        match self {
            Op::Delete(key) => match key {
                Key::Answer(..) => P::AnswerEnds,
                Key::Proxy(..) => P::ProxyEnds,
                Key::UplinkProgram(_) => P::UplinkEnds,
                Key::Patch(_) => P::PatchEnds,
                Key::Route(_) => P::RouteEnds,
                Key::Fdb(..) => P::FdbEnds,
                Key::Neighbour(..) => P::NeighbourEnds,
                Key::Address(..) => P::AddressEnds,
                Key::Link(..) => P::LinkEnds,
                Key::EdgeProgram(..) => P::ProgramEnds,
                Key::Source(..) | Key::Hop(..) | Key::Receiver(..) | Key::Speaker(..) => {
                    P::SourceEnds
                }
                Key::Audience(..) => P::AudienceEnds,
                Key::Limiter(..) | Key::Set(..) | Key::Chain(..) | Key::Element(..) => P::Table,
                Key::Counter(..) => P::CounterEnds,
                Key::Rule(..) => P::RuleEnds,
                Key::XfrmPolicy(..) => P::XfrmPolicyEnds,
                Key::Sysctl(_, path) if sysctl::is_about_routers(path) => P::RoutersEnd,
                Key::Sysctl(..) => P::SysctlEnds,
                Key::Vxlan(..) | Key::Veth(..) => P::MadeEnds,
                Key::Namespace(_) => P::NamespaceEnds,
            },
            Op::Create(object) | Op::Replace { new: object, .. } => match object {
                Object::Namespace(_) => P::Namespace,
                Object::Vxlan(_) | Object::Veth(_) => P::Made,
                Object::Sysctl(o) if sysctl::is_about_routers(&o.path) => P::Routers,
                Object::Sysctl(_) => P::Sysctl,
                Object::XfrmPolicy(_) => P::XfrmPolicy,
                Object::Rule(_) => P::Rule,
                Object::Limiter(..)
                | Object::Counter(..)
                | Object::Set(..)
                | Object::Chain(..)
                | Object::Element(..) => P::Table,
                Object::Source(_) | Object::Hop(_) | Object::Receiver(_) | Object::Speaker(_) => {
                    P::Source
                }
                Object::Audience(_) => P::Audience,
                Object::EdgeProgram(_) => P::Program,
                Object::Link(_) => P::Link,
                Object::Address(_) => P::Address,
                Object::Neighbour(_) => P::Neighbour,
                Object::Fdb(_) => P::Fdb,
                Object::Route(_) => P::Route,
                Object::Patch(_) => P::Patch,
                Object::UplinkProgram(_) => P::Uplink,
                Object::Proxy(_) => P::Proxy,
                Object::Answer(_) => P::Answer,
            },
        }
    }
}

/// The order of all operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    AnswerEnds,
    ProxyEnds,
    UplinkEnds,
    PatchEnds,
    RouteEnds,
    FdbEnds,
    NeighbourEnds,
    AddressEnds,
    LinkEnds,
    ProgramEnds,
    SourceEnds,
    AudienceEnds,
    MadeEnds,
    NamespaceEnds,
    Namespace,
    Made,
    Routers,
    Sysctl,
    XfrmPolicy,
    Rule,
    Table,
    Source,
    Audience,
    Program,
    Link,
    Address,
    Neighbour,
    Fdb,
    Route,
    Patch,
    Uplink,
    Proxy,
    Answer,
    TableEnds,
    CounterEnds,
    RuleEnds,
    XfrmPolicyEnds,
    SysctlEnds,
    RoutersEnd,
}

impl Phase {
    /// Whether services that begin rely on it.
    pub(super) fn is_policy(self) -> bool {
        matches!(self, Phase::XfrmPolicy | Phase::Rule | Phase::Table)
    }

    /// Whether it ends what ends with its namespace anyhow. Maps of programs are of all namespaces.
    pub(super) fn goes_with_namespace(self) -> bool {
        use Phase as P;
        matches!(
            self,
            P::RouteEnds
                | P::FdbEnds
                | P::NeighbourEnds
                | P::AddressEnds
                | P::LinkEnds
                | P::ProgramEnds
                | P::MadeEnds
                | P::Table
                | P::CounterEnds
                | P::RuleEnds
                | P::XfrmPolicyEnds
                | P::SysctlEnds
                | P::RoutersEnd
        )
    }

    /// Whether it is about settings.
    pub(super) fn is_sysctl(self) -> bool {
        use Phase as P;
        matches!(self, P::Routers | P::Sysctl | P::SysctlEnds | P::RoutersEnd)
    }

    /// Whether links come and go by it.
    pub(super) fn changes_links(self) -> bool {
        matches!(
            self,
            Phase::MadeEnds | Phase::NamespaceEnds | Phase::Namespace | Phase::Made
        )
    }

    /// Whether it lets packets pass that did not before.
    pub(super) fn begins_service(self) -> bool {
        (Phase::Source..=Phase::Answer).contains(&self)
    }
}

fn netns_of(object: &Object) -> &Netns {
    match object {
        Object::Namespace(_) | Object::UplinkProgram(_) | Object::Answer(_) | Object::Proxy(_) => {
            &Netns::Main
        }
        Object::Vxlan(o) => &o.netns,
        Object::Veth(o) => &o.netns,
        Object::Sysctl(o) => &o.netns,
        Object::XfrmPolicy(o) => &o.netns,
        Object::Rule(o) => &o.netns,
        Object::Limiter(netns, _)
        | Object::Counter(netns, _)
        | Object::Set(netns, _)
        | Object::Chain(netns, _)
        | Object::Element(netns, _) => netns,
        Object::Source(o) => &o.netns,
        Object::Hop(o) => &o.netns,
        Object::Receiver(o) => &o.netns,
        Object::Speaker(o) => &o.netns,
        Object::Audience(o) => &o.netns,
        Object::Link(o) => &o.netns,
        Object::EdgeProgram(o) => &o.netns,
        Object::Address(o) => &o.netns,
        Object::Neighbour(o) => &o.netns,
        Object::Fdb(o) => &o.netns,
        Object::Route(o) => &o.key.netns,
        Object::Patch(o) => &o.netns,
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Create(object) => write!(f, "+ {}", describe(object))?,
            Op::Replace { new, was } => {
                write!(f, "~ {}", describe(new))?;
                match was {
                    Standing::As(old) if old != new => write!(f, " (was: {})", describe(old))?,
                    Standing::As(_) => f.write_str(" (with what it refers to)")?,
                    Standing::Otherwise { what, .. } => write!(f, " (was: {what})")?,
                }
            }
            Op::Delete(key) => write!(f, "- {}", describe_key(key))?,
        }
        match self.netns() {
            Netns::Main => Ok(()),
            netns => write!(f, " in {netns}"),
        }
    }
}

/// An object as the tools that list it would write it, in one line.
pub(super) fn describe(object: &Object) -> String {
    let name = describe_key(&object.key());
    match object {
        Object::Sysctl(o) => format!("{name} = {}", o.value),
        Object::XfrmPolicy(o) => format!("{name} priority {} action block", o.priority),
        Object::Rule(Rule {
            action: RuleAction::Blackhole,
            ..
        }) => format!("{name} blackhole"),
        Object::Rule(Rule {
            action: RuleAction::Table(table),
            ..
        }) => {
            format!("{name} lookup {table}")
        }
        Object::Limiter(_, limiter) => format!("{name} {}", limiter.rate),
        Object::Set(_, set) => {
            let key: Vec<_> = set.key.iter().map(ToString::to_string).collect();
            format!("{name} type {}", key.join(" . "))
        }
        Object::Chain(_, chain) => format!("{name} with {} rules", chain.rules.len()),
        Object::Element(_, element) => match &element.verdict {
            Some(verdict) => format!("{name} : {verdict}"),
            None => name,
        },
        Object::Link(o) => {
            let state = if o.up { "up" } else { "down" };
            format!(
                "{name} address {} mtu {} group {} {state}",
                o.mac, o.mtu, o.group
            )
        }
        Object::Namespace(_)
        | Object::Counter(..)
        | Object::EdgeProgram(_)
        | Object::UplinkProgram(_)
        | Object::Answer(_)
        | Object::Proxy(_)
        | Object::Source(_)
        | Object::Address(_) => name,
        Object::Receiver(o) => match o.host {
            Some(host) => format!("{name} to host {host} by {}", o.to),
            None => format!("{name} to {}", o.to),
        },
        Object::Speaker(o) => format!("{name} {:x}", o.value),
        Object::Audience(o) => format!("{name}:{}", addresses(&o.listeners)),
        Object::Hop(o) => match o.entry {
            HopEntry::Answer { mac, .. } => format!("{name} lladdr {mac}"),
            HopEntry::Way { mark, .. } => format!("{name} mark {mark:#x}"),
        },
        Object::Vxlan(o) => format!(
            "{name} id {} local {} dstport {} address {} mtu {}",
            o.vni, o.local, o.port, o.mac, o.mtu
        ),
        Object::Veth(o) => format!(
            "{name} address {} mtu {} peer {} address {} in {}",
            o.mac, o.mtu, o.peer, o.peer_mac, o.peer_netns
        ),
        Object::Fdb(o) => format!("{name} dst {}", o.dst),
        Object::Patch(o) => format!("{name} to {}", o.outer),
        Object::Neighbour(o) => format!("{name} lladdr {} permanent", o.mac),
        Object::Route(o) => describe_route(name, o),
    }
}

fn describe_route(name: String, route: &Route) -> String {
    let mut text = match &route.kind {
        RouteKind::Blackhole => format!("{name} blackhole"),
        RouteKind::Throw => format!("{name} throw"),
        RouteKind::Unicast(hops) => hops.iter().fold(name, |text, hop| text + &way(hop)),
    };
    if let Some(source) = route.prefsrc {
        let _ = write!(text, " src {source}");
    }
    text + " proto hextet"
}

fn addresses(listeners: &[Listener]) -> String {
    let all = listeners.iter();
    all.map(|listener| format!(" {}", listener.addr)).collect()
}

fn way(hop: &NextHop) -> String {
    match hop.via {
        Some(via) => format!(" via {via} dev {}", hop.link),
        None => format!(" dev {}", hop.link),
    }
}

/// What a key names.
pub(super) fn describe_key(key: &Key) -> String {
    match key {
        Key::Namespace(name) => format!("network namespace {name}"),
        Key::Vxlan(_, link) => format!("VXLAN device {link}"),
        Key::Veth(_, link) => format!("veth pair {link}"),
        Key::Fdb(_, link, mac) => format!("FDB entry {mac} dev {link}"),
        Key::Patch(tap) => format!("patch {tap}"),
        Key::Sysctl(_, path) => format!("sysctl {path}"),
        Key::XfrmPolicy(_, family, (value, mask)) => {
            format!("{family} xfrm policy in mark {value:#x}/{mask:#x}")
        }
        Key::Rule(_, family, priority, mark, iif) => {
            let mut text = format!("{family} rule {priority}");
            if let Some((value, mask)) = mark {
                let _ = write!(text, " fwmark {value:#x}/{mask:#x}");
            }
            if let Some(link) = iif {
                let _ = write!(text, " iif {link}");
            }
            text
        }
        Key::Limiter(_, limiter) => format!("nft limit {limiter}"),
        Key::Counter(_, counter) => format!("nft counter {counter}"),
        Key::Set(_, set) => format!("nft set {set}"),
        Key::Chain(_, chain) => format!("nft chain {chain}"),
        Key::Element(_, set, values) => {
            let key: Vec<_> = values.iter().map(ToString::to_string).collect();
            format!("nft element {set} {}", key.join(" . "))
        }
        Key::Link(_, link) => format!("link {link}"),
        Key::EdgeProgram(_, link) => format!("eBPF edge on {link}"),
        Key::Source(_, link, mac, addr) => format!("source {addr} lladdr {mac} dev {link}"),
        Key::Hop(_, link, HopKey::Answer(addr)) => format!("answer {addr} dev {link}"),
        Key::Hop(_, link, HopKey::Way(mac)) => format!("next hop {mac} dev {link}"),
        Key::Receiver(_, link, from, family, slot) => {
            format!("{family} VRRP receiver {slot} of {from} dev {link}")
        }
        Key::Speaker(_, link, fact) => match fact {
            SpeakerFact::Network => format!("multicast of network dev {link}"),
            SpeakerFact::OwnHigh => format!("multicast source, upper half, dev {link}"),
            SpeakerFact::OwnLow => format!("multicast source, lower half, dev {link}"),
        },
        Key::Audience(_, group) => format!("listeners of {group}"),
        Key::Address(_, link, addr, len) => format!("address {addr}/{len} dev {link}"),
        Key::Neighbour(_, link, addr) => format!("neighbour {addr} dev {link}"),
        Key::UplinkProgram(link) => format!("eBPF uplink on {link}"),
        Key::Answer(link, addr) => format!("answer for {addr} on {link}"),
        Key::Proxy(link, addr) => format!("proxy neighbour {addr} dev {link}"),
        Key::Route(key) => {
            let mut text = format!("route {}", key.prefix);
            if let Some(source) = key.source {
                let _ = write!(text, " from {source}");
            }
            if key.metric != 0 {
                let _ = write!(text, " metric {}", key.metric);
            }
            if key.table != 254 {
                let _ = write!(text, " table {}", key.table);
            }
            text
        }
    }
}
