//! Security groups and their rules.

use std::{fmt, str::FromStr};

use hextet_types::{
    AddressGroupId, Family, Prefix, ProjectId, SecurityGroupId, SecurityGroupRuleId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Standard;

/// A rule's direction, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the port.
    Ingress,
    /// From the port.
    Egress,
}

/// An IP protocol by number (0 to 255); read and written by name where Neutron has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Protocol(pub u8);

/// Neither a protocol's name nor its number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no IP protocol: a number from 0 to 255 or one of ah, dccp, egp, esp, gre, hopopt, icmp, \
         igmp, ip, ipip, ipv6-encap, ipv6-frag, ipv6-icmp, ipv6-nonxt, ipv6-opts, ipv6-route, ospf, pgm, \
         rsvp, sctp, tcp, udp, udplite, vrrp"
)]
pub struct ProtocolError(String);

/// First come first written: the canonical name of a number is its first entry.
const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

impl Protocol {
    /// ICMP.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// ICMPv6.
    pub const ICMPV6: Protocol = Protocol(58);

    /// Whether rules may name its ports: dccp, sctp, tcp, udp and udplite.
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }

    /// Whether it is the control protocol of that family; rules then carry type and code.
    pub const fn is_icmp(self) -> bool {
        matches!(self.0, 1 | 58)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(s: &str) -> Result<Self, ProtocolError> {
        let name = s.to_ascii_lowercase();
        match PROTOCOLS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => Ok(Protocol(*number)),
            None => s
                .parse()
                .map(Protocol)
                .map_err(|_| ProtocolError(s.to_owned())),
        }
    }
}

impl TryFrom<String> for Protocol {
    type Error = ProtocolError;

    fn try_from(s: String) -> Result<Self, ProtocolError> {
        s.parse()
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> String {
        protocol.to_string()
    }
}

/// A Neutron security group, without its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Its identity.
    pub id: SecurityGroupId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether answers to what it allows are allowed, too.
    pub stateful: bool,
    /// Other projects may use it.
    #[serde(default)]
    pub shared: bool,
}

/// A rule of a security group. What no rule of a port's groups allows is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Its identity.
    pub id: SecurityGroupRuleId,
    /// The group that it is part of.
    pub security_group_id: SecurityGroupId,
    /// The owner.
    pub project_id: ProjectId,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Its direction.
    pub direction: Direction,
    /// Its family (`IPv4` or `IPv6`).
    #[serde(with = "ethertype")]
    pub ethertype: Family,
    /// Any where there is none.
    pub protocol: Option<Protocol>,
    /// The first port, or the ICMP type.
    pub port_range_min: Option<u16>,
    /// The last port, or the ICMP code.
    pub port_range_max: Option<u16>,
    /// The other end lies in this prefix.
    pub remote_ip_prefix: Option<Prefix>,
    /// The other end is a port with this group.
    pub remote_group_id: Option<SecurityGroupId>,
    /// The other end lies in a prefix of this address group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_address_group_id: Option<AddressGroupId>,
    /// What its author wrote otherwise than it stands above; none where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_written: Option<Box<AsWritten>>,
    /// Grows by at least one with each change.
    pub revision_number: u64,
    /// In whole seconds, UTC.
    pub created_at: Timestamp,
    /// In whole seconds, UTC.
    pub updated_at: Timestamp,
}

/// What clients are shown of a rule in place of the form that counts. Neutron keeps what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsWritten {
    /// `protocol`, where it was a number, or `ip` (which is any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `remote_ip_prefix`, where bits were set behind its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip_prefix: Option<String>,
}

impl SecurityGroupRule {
    /// `protocol` as clients are shown it.
    pub fn shown_protocol(&self) -> Option<String> {
        let written = self.as_written.as_ref().and_then(|w| w.protocol.clone());
        written.or_else(|| self.protocol.map(String::from))
    }

    /// `remote_ip_prefix` as clients are shown it.
    pub fn shown_prefix(&self) -> Option<String> {
        let written = self.as_written.as_ref();
        let written = written.and_then(|w| w.remote_ip_prefix.clone());
        written.or_else(|| self.remote_ip_prefix.map(|p| p.to_string()))
    }
}

mod ethertype {
    use hextet_types::Family;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde asks for"
    )]
    pub fn serialize<S: Serializer>(family: &Family, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(family)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Family, D::Error> {
        match String::deserialize(d)?.as_str() {
            "IPv4" => Ok(Family::V4),
            "IPv6" => Ok(Family::V6),
            other => Err(D::Error::custom(format!(
                "ethertype '{other}' is neither IPv4 nor IPv6"
            ))),
        }
    }
}
