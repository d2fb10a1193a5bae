//! Everything that must stand on one host: the kernel's objects, what is announced, and what the
//! responders answer.
//!
//! A state is a set of [`Object`]s, each with a [`Key`] that names one thing in the kernel; two states
//! are compared key by key. The order of keys is the order in which a reconciler may create them.

mod hop;
mod multicast;
mod nft;
mod nft_text;
mod object;
mod uplink;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{PortId, Prefix};
use serde::{Deserialize, Serialize};

pub use hop::{Hop, HopEntry, HopKey};
pub use multicast::{Audience, Listener, Receiver, Speaker, SpeakerFact};
pub use nft::{
    Chain, ChainHook, ChainName, CmpOp, CounterName, CtDirection, CtState, DynOp, Element, Field,
    Hook, KeyPart, KeyType, Limit, LimitUnit, Limiter, LimiterName, LimiterRate, Lookup, MANGLE,
    NatEnd, NatRange, PktType, Policy, Rule as NftRule, Set, SetName, Statement, TABLE, Value,
    Verdict,
};
pub use nft_text::table_text;
pub use object::{
    Address, EdgeProgram, Fdb, Key, Link, Namespace, Neighbour, Netns, NextHop, Object, Patch,
    Route, RouteKey, RouteKind, Rule, RuleAction, Source, Sysctl, Veth, Vxlan, XfrmPolicy, marks,
};
pub use uplink::{Answer, Proxy, UplinkProgram};

/// The whole truth for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// What the kernel must hold.
    pub objects: BTreeMap<Key, Object>,
    /// What the uplink must make reachable.
    pub announce: BTreeMap<Prefix, Announcement>,
    /// What each port's RA, DHCPv4 and DHCPv6 must say.
    pub responders: BTreeMap<PortId, Responder>,
}

impl HostState {
    /// Adds an object under its own key; gives back what stood there.
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        self.objects.insert(object.key(), object)
    }
}

/// How far an announced prefix may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Anywhere.
    Global,
    /// Within the fabric (BGP community `NO_EXPORT`, RFC 1997): private IPv4.
    Fabric,
}

/// A prefix that this host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// How far it may travel.
    pub scope: Scope,
}

/// A port's responder, bound to the interface it answers on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responder {
    /// Where the interface is.
    pub netns: Netns,
    /// The port's interface on the host.
    pub link: hextet_types::IfName,
    /// What the workload is told.
    pub config: hextet_autoconf::PortConfig,
    /// What it is told when it asks for metadata.
    pub facts: hextet_metadata::Facts,
}

/// What changed between two states of one planner, by key; the values are in the newer state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Kernel objects put, replaced or removed.
    pub objects: BTreeSet<Key>,
    /// Prefixes announced anew, otherwise, or no longer.
    pub announce: BTreeSet<Prefix>,
    /// Ports whose responder is new, different or gone.
    pub responders: BTreeSet<PortId>,
    /// Flows that may be open and must be checked against the new rules: the ports whose policy
    /// changed, by where they live and their addresses.
    pub recheck: BTreeSet<(Netns, IpAddr)>,
    /// Connections that end because what translated them is gone, or does so otherwise.
    pub cut: BTreeSet<Cut>,
}

/// Connections that have been translated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Where: a router's namespace, or the main one.
    pub netns: Netns,
    /// Which.
    pub end: CutEnd,
    /// Only those that were begun outside to these ports; of all, where there are none.
    pub ports: Option<CutPorts>,
}

/// What they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutEnd {
    /// The address outside, of either end.
    Outside(Ipv4Addr),
    /// The address that they were led to, whichever they were begun to.
    Inside(Ipv4Addr),
}

/// Ports of a transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutPorts {
    /// The protocol.
    pub protocol: u8,
    /// The first and the last.
    pub range: (u16, u16),
}
