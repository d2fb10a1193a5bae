//! Port forwardings of floating IPs.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use hextet_types::{FloatingIpId, PortForwardingId, PortId, ProjectId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Ports of a transport protocol, both ends included; neither is 0. Written `80` or `80:90`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A text that is no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no range of ports: two of 1 to 65535, as 80:90, the smaller one first")]
pub struct PortRangeError(String);

impl PortRange {
    /// From the first to the last; none when it would be empty or hold port 0.
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (0 < first && first <= last).then_some(PortRange { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are; 1 to 65535.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// The port, if there is just one.
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(s: &str) -> Result<Self, PortRangeError> {
        let (first, last) = s.split_once(':').unwrap_or((s, s));
        let number = |text: &str| text.parse::<u16>().ok();
        number(first)
            .zip(number(last))
            .and_then(|(first, last)| PortRange::new(first, last))
            .ok_or_else(|| PortRangeError(s.to_owned()))
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortRangeError;

    fn try_from(s: String) -> Result<Self, PortRangeError> {
        s.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

/// The protocols that have ports to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// DCCP.
    Dccp,
}

impl ForwardedProtocol {
    /// On the wire.
    pub const fn number(self) -> u8 {
        match self {
            ForwardedProtocol::Tcp => 6,
            ForwardedProtocol::Udp => 17,
            ForwardedProtocol::Dccp => 33,
            ForwardedProtocol::Sctp => 132,
        }
    }
}

/// Ports of a floating IP that lead to a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    /// Its identity.
    pub id: PortForwardingId,
    /// Who owns the floating IP; not shown.
    pub project_id: ProjectId,
    /// Free text, at most 255 characters.
    #[serde(default)]
    pub description: String,
    /// The floating IP.
    pub floatingip_id: FloatingIpId,
    /// Of which protocol.
    pub protocol: ForwardedProtocol,
    /// Ports of the floating IP.
    pub external_port_range: PortRange,
    /// The port that they lead to.
    pub internal_port_id: PortId,
    /// Which of that port's addresses.
    pub internal_ip_address: Ipv4Addr,
    /// As many ports there, one for one; or a single one for all.
    pub internal_port_range: PortRange,
    /// Grows with each change; not shown.
    pub revision_number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_neutron_writes_them() {
        let good = [("80", "80:80"), ("80:90", "80:90"), ("1:65535", "1:65535")];
        for (text, shown) in good {
            assert_eq!(
                text.parse::<PortRange>().map(|r| r.to_string()),
                Ok(shown.into())
            );
        }
        for bad in [
            "", ":", "0", "0:5", "9:8", "65536", "1:2:3", "a:b", "-1:2", "1 :2",
        ] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_overlap_at_their_ends() -> Result<(), PortRangeError> {
        let range = |text: &str| text.parse::<PortRange>();
        let table = [
            ("80:90", "90:95", true),
            ("80:90", "91:95", false),
            ("80:90", "85", true),
            ("1:65535", "65535", true),
        ];
        for (a, b, overlap) in table {
            assert_eq!(range(a)?.overlaps(range(b)?), overlap, "{a} {b}");
            assert_eq!(range(b)?.overlaps(range(a)?), overlap, "{b} {a}");
        }
        assert_eq!(range("1:65535")?.count(), 65535);
        assert_eq!(
            (range("7")?.single(), range("7:8")?.single()),
            (Some(7), None)
        );
        Ok(())
    }
}
