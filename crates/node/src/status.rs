//! What people see of a node.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{Prefix, Way};
use serde::{Deserialize, Serialize};

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its number.
    pub node: String,
    /// Its network's.
    pub network: String,
    /// Its first address, by which others write to it.
    pub home: Option<IpAddr>,
    /// Its prefixes, of both families.
    pub prefixes: Vec<Prefix>,
    /// Who can begin to talk to it: anybody (`public`), whoever is told (`punchable`), or nobody (`closed`).
    pub reach: String,
    /// Where it may be reached from outside, the surest first.
    pub candidates: Vec<Way>,
    /// Other nodes that it knows.
    pub contacts: usize,
    /// Those whose certificates it has seen, with what they got.
    pub nodes: Vec<Known>,
    /// What it shows others.
    pub certificate: Shown,
    /// The version of what holds for the whole network.
    pub parameters: u64,
    /// Whether routes of an earlier run stand until Babel has learnt which are still good.
    pub resuming: bool,
    /// Letters that were not believed.
    pub refused: u64,
    /// Certificates that count no more, as its registries say.
    pub revoked: usize,
    /// Its tunnels.
    pub tunnels: Vec<Tunnel>,
    /// Nodes on the same network to which packets go as they are.
    pub lan: Vec<Beside>,
    /// Routes of the host by which packets go to other nodes in place of the mesh's ways.
    pub direct: Vec<Direct>,
    /// What Babel knows, the chosen one of each destination first.
    pub routes: Vec<Route>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub node: String,
    /// Its prefixes, of both families.
    pub prefixes: Vec<Prefix>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Grows with each renewal.
    pub serial: u32,
    /// Its end, in seconds since 1970.
    pub not_after: u64,
    /// The groups that rules know its bearer by.
    pub groups: Vec<String>,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// With whom.
    pub node: String,
    /// Which strand of it, where one end has several uplinks.
    pub strand: u8,
    /// By which interface.
    pub interface: String,
    /// What for: `entry`, `random`, `near` or `gain`.
    pub kind: String,
    /// Whether this side asked for it.
    pub ours: bool,
    /// `opening`, `up` or `draining`.
    pub stage: String,
    /// Whether it carries packets.
    pub up: bool,
    /// The least of the last round trips, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Where the other end is.
    pub endpoint: Option<Way>,
    /// Why it is there, or goes.
    pub reason: String,
    /// Octets of packets that were sent through it.
    pub octets_out: u64,
    /// Octets of packets that came through it.
    pub octets_in: u64,
    /// Packets and datagrams that were lost here: that could not be sent, or that the interface did not take.
    pub lost: u64,
    /// Datagrams that were not the other end's, or came twice.
    pub refused: u64,
    /// Of its interface.
    pub mtu: Option<u16>,
    /// Destinations that are reached by it.
    pub routes: usize,
}

/// A node on the same network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Which.
    pub node: String,
    /// By which interface.
    pub interface: Option<String>,
    /// Where, there.
    pub address: Ipv6Addr,
    /// The least of the last round trips, in milliseconds.
    pub round_trip_ms: Option<f64>,
}

/// A route that is not the mesh's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    /// Where to.
    pub to: Prefix,
    /// By which interface.
    pub interface: Option<String>,
    /// Whether it answers; else the mesh has taken over.
    pub good: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// From where, if that matters.
    pub from: Option<Prefix>,
    /// For which packets: all (`latency`), or those that are many (`throughput`).
    pub class: String,
    /// By whom; by nobody, if it is here.
    pub via: Option<Hop>,
    /// A hundredth of a millisecond of a round trip each, and a little for each hop; 65535 for none.
    pub metric: u16,
    /// Whether packets go this way.
    pub chosen: bool,
    /// Whether they might, without ever going round (RFC 8966 §3.5.1).
    pub feasible: bool,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Which node.
    pub node: Option<String>,
    /// By which interface.
    pub interface: Option<String>,
    /// At which address there.
    pub next_hop: IpAddr,
}
