//! What agents and the server say to each other: HTTP over mutual TLS, on a listener of its own.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/join` | [`JoinRequest`], without a client certificate | [`JoinResponse`] |
//! | `POST /v1/renew` | [`RenewRequest`] | [`JoinResponse`] |
//! | `GET /v7/intent` ([`INTENT`]) | | lines of JSON, each an [`IntentMessage`], without end |
//! | `POST /v1/status` | [`StatusReport`] | 204 |
//! | `POST /v1/heard` | [`Heard`] | 204 |
//! | `POST /v1/joined` | [`Memberships`] | 204 |
//! | `POST /v1/metered` | [`Metered`] | 204 |
//! | `POST /v1/metadata` | [`MetadataRequest`] | [`MetadataAnswer`] |
//!
//! The server shows its whole chain, the authority included, so that a host that joins can compare the
//! authority with the fingerprint (SHA-256 of the DER, in hexadecimal) that ends its join token
//! `ID.SECRET.FINGERPRINT`.
//!
//! The host's name is the certificate's subject, never a part of the request: an agent cannot ask for
//! another host's intent nor report another host's ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{intent::Change, neutron::Direction};
use hextet_types::{HostId, Mac, MeteringLabelId, PortId, RouterId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name in the server's certificate on this listener, whatever address it is reached by.
pub const SERVER_NAME: &str = "server.hextet.internal";

/// Where the intent is told. The version is that of [`Change`]: an agent that does not know of one of its steps
/// asks for an older one, and is told that it is too old.
pub const INTENT: &str = "/v7/intent";
/// Where it was told to agents that know nothing of routers; of standbys; of address groups, which they would take for any
/// address; of Nova's metadata; of physical networks.
pub const FORMER_INTENTS: &[&str] = &[
    "/v1/intent",
    "/v2/intent",
    "/v3/intent",
    "/v4/intent",
    "/v5/intent",
    "/v6/intent",
];

/// Asks for a certificate against a one-time token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// `ID.SECRET`, as `hextet server join-token` printed it, without its CA part.
    pub token: String,
    /// The name that the host wants to have.
    pub host: HostId,
    /// A PKCS #10 request in PEM; the key never leaves the host.
    pub csr_pem: String,
}

/// Asks for a new certificate with the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// A PKCS #10 request in PEM.
    pub csr_pem: String,
}

/// A certificate for the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinResponse {
    /// The host's certificate, in PEM.
    pub certificate_pem: String,
    /// The authority that the server's own certificate comes from, in PEM.
    pub ca_pem: String,
}

/// A line of the intent stream.
///
/// A connection begins with `reset`, the changes that make the whole intent, and `synced`. Later
/// changes come in groups that end with `synced`; a group is applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentMessage {
    /// Begin from an empty intent.
    Reset,
    /// One step.
    Change(Change),
    /// What has come so far is the intent at this revision of the store; sent again at least every ten
    /// seconds, so that a dead connection is noticed.
    Synced {
        /// The store's revision.
        revision: u64,
    },
}

/// What an agent has to tell, at least every ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusReport {
    /// `hextet --version`.
    pub version: String,
    /// Every port that it has been told of (`complete`), or those whose state changed.
    pub ports: BTreeMap<PortId, PortState>,
    /// Whether `ports` names every port.
    pub complete: bool,
    /// The interface's index, of those of `ports` that are active and have an interface: with each interface that is
    /// plugged it is another.
    #[serde(default)]
    pub plugs: BTreeMap<PortId, u32>,
    /// The revision that the kernel stands at.
    pub applied_revision: u64,
    /// The Ethernet address of the host's end of its ports, which whoever plugs a TAP gives to it.
    #[serde(default)]
    pub gateway_mac: Option<Mac>,
    /// Where the host is reached by tunnels; none when it takes no ports of private networks. Counts in a
    /// complete report.
    #[serde(default)]
    pub tunnel_address: Option<IpAddr>,
    /// Whether routers may translate for others on this host, which it is if nothing is said. Counts in a complete
    /// report.
    #[serde(default)]
    pub gateway: Option<bool>,
    /// The physical networks that the host is on (`provider:physical_network`). Counts in a complete report.
    #[serde(default)]
    pub physical_networks: BTreeSet<String>,
    /// How the kernels fare that the host is told to watch; one of which nothing is known yet is left out. Always
    /// the whole.
    #[serde(default)]
    pub watched: BTreeMap<HostId, Pulse>,
    /// For people: uplinks, peers, counts (`configurations` of Neutron's agent list).
    #[serde(default)]
    pub configurations: BTreeMap<String, serde_json::Value>,
}

/// Ports whose workloads have said on their links that they are there, each with the addresses that they say they
/// have: by gratuitous ARP (RFC 5227 §3), unsolicited neighbour advertisements (RFC 4861 §7.2.6) or VRRP (RFC 9568);
/// none of a port that has only shown its Ethernet address (RARP, RFC 903).
///
/// A standby port's addresses come to this host by it; of another port, the addresses that its pairs allow become
/// its own until another port says so. What it may not have is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// At most 1,000 ports with 64 addresses each.
    pub ports: BTreeMap<PortId, BTreeSet<IpAddr>>,
}

/// Which multicast groups ports have joined: of each port all, so the last report counts. Groups that nobody can join, and
/// what is beyond the bounds of a network or a project, are left out, and what changes too often stays as it was; the intent
/// shows it, and who wants it says it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memberships {
    /// At most [`Memberships::MAX_PORTS`], with [`Memberships::MAX_GROUPS`] groups each.
    pub ports: BTreeMap<PortId, BTreeSet<IpAddr>>,
}

impl Memberships {
    /// Ports in one report.
    pub const MAX_PORTS: usize = 1_000;
    /// Groups of one port.
    pub const MAX_GROUPS: usize = 32;
}

/// Whether a group is one that hosts join to hear of: not those of all nodes on a link, of neighbour discovery (RFC 4861 §7.2.2),
/// of reports themselves (RFC 3376 §4.2.14, RFC 3810 §5.2.14), or of VRRP, which goes its own way.
pub fn is_joinable(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => {
            let of_link = matches!(group.octets(), [224, 0, 0, 0 | 1 | 18 | 22]);
            group.is_multicast() && !of_link
        }
        IpAddr::V6(group) => {
            let of_link = matches!(
                group.segments(),
                [0xff02, 0, 0, 0, 0, 0, 0, 0 | 1 | 0x12 | 0x16]
                    | [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _]
            );
            let scope = group.segments()[0] & 0xf;
            group.is_multicast() && scope >= 2 && !of_link
        }
    }
}

/// What metering labels' counters have counted on this host; of one counter, older readings before younger ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metered {
    /// At most 1,000.
    pub readings: Vec<Reading>,
}

/// What a counter had counted at a time, since it was made.
///
/// The same reading may be told twice, and one be left out: what counts is the last of each counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// For this label.
    pub label: MeteringLabelId,
    /// At this router.
    pub router: RouterId,
    /// What comes from outside is `ingress`.
    pub direction: Direction,
    /// Which counter.
    pub epoch: Epoch,
    /// When it was read: nanoseconds since the host started (`CLOCK_BOOTTIME`).
    pub at_ns: u64,
    /// Packets.
    pub packets: u64,
    /// Octets, from the IP header on.
    pub octets: u64,
}

/// A counter from its making to its end: whenever one begins with nothing, it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// Of the host's start (`/proc/sys/kernel/random/boot_id`).
    pub boot: Uuid,
    /// Of the namespace, the table and the counter, as the kernel numbers them.
    pub counter: [u64; 3],
}

/// What a workload asks of itself, which Nova is to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataRequest {
    /// Its port: by the link on which it has asked.
    pub port: PortId,
    /// `GET` or `POST`.
    pub method: String,
    /// A path, and what may follow it.
    pub target: String,
    /// At most 4,096 octets.
    #[serde(with = "octets")]
    pub body: Vec<u8>,
}

/// What Nova answers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataAnswer {
    /// A status code.
    pub status: u16,
    /// A media type.
    pub content_type: String,
    /// At most 262,144 octets.
    #[serde(with = "octets")]
    pub body: Vec<u8>,
}

/// Octets as Base64.
mod octets {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(octets: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(octets))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

/// Whether other hosts can send to it with nothing but a route: one host's address, the same on every link.
pub fn is_tunnel_address(address: IpAddr) -> bool {
    let of_one_link = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast() || a.octets()[0] == 0,
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    let nobody = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    !(nobody || of_one_link || address.to_canonical() != address)
}

/// How a kernel fares, as another host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pulse {
    /// It answers.
    Answers,
    /// It has answered, and does not any more.
    Silent,
}

/// A port on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PortState {
    /// The kernel passes its packets.
    Active,
    /// It does not, and why.
    Down {
        /// For people.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_joined_that_are_for_those_who_ask() {
        for good in [
            "224.0.0.251",
            "239.1.2.3",
            "224.0.0.2",
            "ff02::fb",
            "ff05::1:3",
            "ff02::2",
            "ff3e::1",
        ] {
            assert!(is_joinable(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "224.0.0.1",
            "224.0.0.18",
            "224.0.0.22",
            "10.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "ff02::12",
            "ff02::16",
            "ff02::1:ff00:1",
            "ff01::fb",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert!(!is_joinable(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn tunnels_end_at_addresses_that_routes_lead_to() {
        for good in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_tunnel_address(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(!is_tunnel_address(bad.parse().unwrap()), "{bad}");
        }
    }
}
