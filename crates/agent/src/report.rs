//! What an agent tells people about itself, through its control socket.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use hextet_types::{Asn, HostId, IfName, Mac, NetworkId, PortId, Prefix, RouterId};
use serde::{Deserialize, Serialize};

use crate::bgp::Drain;

/// `GET /status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This host.
    pub host: HostId,
    /// `hextet --version`.
    pub version: String,
    /// The intent's revision that the kernel stands at.
    pub revision: u64,
    /// Seconds since the server was last heard of; none when never since the start.
    pub server_silent_secs: Option<u64>,
    /// The kernel.
    pub kernel: KernelStatus,
    /// Our ports.
    pub ports: Vec<PortStatus>,
    /// Routers that this host has parts of.
    #[serde(default)]
    pub routers: Vec<RouterStatus>,
    /// Whether this host is out of service, or about to be.
    #[serde(default)]
    pub drain: Drain,
    /// BGP peers.
    pub peers: Vec<PeerStatus>,
    /// The mesh, where that is the uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<MeshStatus>,
}

/// How the node of a mesh on this host carries for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    /// The node's first address.
    pub home: Option<std::net::Ipv6Addr>,
    /// Whether it hears of any other node.
    pub is_connected: bool,
    /// Why it does not answer.
    pub away: Option<String>,
}

/// How the kernel compares with the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// Objects that have to stand.
    pub objects: usize,
    /// Writes since the start.
    pub writes: u64,
    /// Of these, such that mended what somebody else had changed.
    pub mended: u64,
    /// What could not be done, and why; tried again.
    pub failed: Vec<String>,
}

/// A port on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port.
    pub id: PortId,
    /// Its name, or empty.
    pub name: String,
    /// The network that it is on.
    pub network: NetworkId,
    /// That network's name.
    pub network_name: String,
    /// The interface on this host.
    pub link: IfName,
    /// The workload's Ethernet address.
    pub mac: Mac,
    /// What the workload is told, in octets.
    pub mtu: u16,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What its workload may hand on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegated: Vec<Prefix>,
    /// None while the kernel passes its packets; otherwise why it does not.
    pub down: Option<String>,
}

/// A router that is told to this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// The router.
    pub id: RouterId,
    /// Its name, or empty.
    pub name: String,
    /// Its network namespace on this host.
    pub netns: String,
    /// The names of the networks that it is on.
    pub networks: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Its addresses outside.
    pub external: Vec<IpAddr>,
    /// Where it translates for many, if anywhere.
    pub gateway_host: Option<HostId>,
    /// None while the kernel forwards for it; otherwise why it does not.
    pub down: Option<String>,
}

/// A BGP peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// By configuration.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// By this interface, for link-local addresses.
    pub interface: Option<IfName>,
    /// Its autonomous system.
    pub asn: Asn,
    /// `Established`, or the state it is in (RFC 4271 §8.2.2).
    pub state: String,
    /// Seconds in this state.
    pub for_secs: u64,
    /// Routes that it sent, by family.
    pub received: BTreeMap<String, usize>,
    /// Routes that it was sent, by family.
    pub sent: BTreeMap<String, usize>,
    /// The last notification or failure, if any.
    pub last_error: Option<String>,
    /// `Up`, `Down` …, where BFD watches it (RFC 5880 §6.2).
    pub bfd: Option<String>,
}

/// A line of `GET /plan`: what the reconciler would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWrite {
    /// `create`, `replace` or `delete`.
    pub operation: String,
    /// The object, for people: `route 2001:db8::5/128 dev tap0a1b2c3d-4e`.
    pub object: String,
}

/// The port that sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sender {
    /// By its identifier.
    Port(PortId),
    /// By its interface on this host.
    Interface(IfName),
}

/// A text that is no [`Sender`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither a port's identifier, which is a UUID, nor an interface's name, which has 1 to 15 characters \
     without '/', ':' or spaces"
)]
pub struct SenderError;

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, SenderError> {
        match text.parse() {
            Ok(port) => Ok(Sender::Port(port)),
            Err(_) => text.parse().map(Sender::Interface).map_err(|_| SenderError),
        }
    }
}

/// `POST /explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// A port of this host.
    pub from: Sender,
    /// Where the packet goes.
    pub to: IpAddr,
    /// By way of this next hop, as a workload chooses it; its gateway, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Its IP protocol.
    pub protocol: u8,
    /// Its destination port, for protocols that have ports.
    pub port: Option<u16>,
    /// Its ICMP or ICMPv6 type.
    pub icmp_type: Option<u8>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The packet's way, for people.
    pub steps: Vec<String>,
    /// What becomes of it, and what decides that.
    pub verdict: String,
    /// Whether it leaves this host towards its destination, or reaches it here.
    pub delivered: bool,
}
