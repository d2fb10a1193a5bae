//! Identifiers that cannot be mistaken for one another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                s.parse().map($name)
            }
        }
    )*};
}

uuid_ids! {
    /// A Neutron network.
    NetworkId;
    /// A Neutron subnet.
    SubnetId;
    /// A Neutron port.
    PortId;
    /// A Neutron security group.
    SecurityGroupId;
    /// A rule of a Neutron security group.
    SecurityGroupRuleId;
    /// A Neutron address group.
    AddressGroupId;
    /// A Neutron subnet pool.
    SubnetPoolId;
    /// A Neutron address scope.
    AddressScopeId;
    /// A Neutron RBAC policy.
    RbacPolicyId;
    /// A Neutron router.
    RouterId;
    /// A Neutron floating IP.
    FloatingIpId;
    /// A port forwarding of a floating IP.
    PortForwardingId;
    /// A Neutron NDP proxy.
    NdpProxyId;
    /// A Neutron QoS policy.
    QosPolicyId;
    /// A rule of a Neutron QoS policy.
    QosRuleId;
    /// A Neutron metering label.
    MeteringLabelId;
    /// A rule of a Neutron metering label.
    MeteringRuleId;
}

macro_rules! text_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

text_ids! {
    /// A Keystone project, written as its identity service writes it (usually 32 hexadecimal digits).
    ProjectId;
    /// A Keystone user, written as its identity service writes it.
    UserId;
}

/// The name by which the cloud knows a host (`binding:host_id`): a host name of at most 253 octets,
/// letters, digits, `-`, `_` and `.` (RFC 1123 §2.1, and `_` because operators use it).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostId(String);

/// A text that is no host name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no host name: 1 to 253 letters, digits, '-', '_' and '.'")]
pub struct HostIdError(String);

impl HostId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostId {
    type Error = HostIdError;

    fn try_from(s: String) -> Result<Self, HostIdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if (1..=253).contains(&s.len()) && s.bytes().all(allowed) && !s.starts_with(['-', '.']) {
            Ok(HostId(s))
        } else {
            Err(HostIdError(s))
        }
    }
}

/// The name of a network interface: 1 to 15 octets without `/`, `:`, white space or control
/// characters, and neither `.` nor `..` (`dev_valid_name` of the kernel).
///
/// It is kept in place: a host's plan holds hundreds of thousands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName {
    /// Zeroes behind the name, so that names compare as their texts do.
    octets: [u8; IfName::MAX],
    len: u8,
}

/// A text that is no interface name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no interface name: 1 to 15 characters without '/', ':' or spaces")]
pub struct IfNameError(String);

impl IfName {
    /// The most octets of a name.
    const MAX: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let octets = self.octets.get(..usize::from(self.len));
        octets
            .and_then(|octets| str::from_utf8(octets).ok())
            .unwrap_or_default()
    }

    /// What the names of all ports begin with.
    pub const OF_PORTS: &str = "tap";

    /// The name that Neutron and Nova give a port's TAP: `tap` and 11 characters of its id.
    pub fn for_port(port: PortId) -> IfName {
        let mut text = Uuid::encode_buffer();
        let id = port.0.hyphenated().encode_lower(&mut text).as_bytes();
        let prefix = IfName::OF_PORTS.bytes();
        IfName::of(prefix.chain(id.iter().take(11).copied()))
    }

    /// As many of these octets as fit.
    fn of(text: impl Iterator<Item = u8>) -> IfName {
        let (mut octets, mut len) = ([0; IfName::MAX], 0);
        for (octet, to) in text.zip(&mut octets) {
            *to = octet;
            len += 1;
        }
        IfName { octets, len }
    }
}

impl TryFrom<String> for IfName {
    type Error = IfNameError;

    fn try_from(s: String) -> Result<Self, IfNameError> {
        let allowed = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
        if (1..=15).contains(&s.len()) && s.bytes().all(allowed) && s != "." && s != ".." {
            Ok(IfName::of(s.bytes()))
        } else {
            Err(IfNameError(s))
        }
    }
}

impl From<HostId> for String {
    fn from(value: HostId) -> String {
        value.0
    }
}

impl From<IfName> for String {
    fn from(value: IfName) -> String {
        value.as_str().to_owned()
    }
}

macro_rules! checked_text {
    ($($name:ident, $error:ident;)*) => {$(
        impl FromStr for $name {
            type Err = $error;

            fn from_str(s: &str) -> Result<Self, $error> {
                s.to_owned().try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_str().fmt(f)
            }
        }
    )*};
}

checked_text! {
    HostId, HostIdError;
    IfName, IfNameError;
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_the_kernels() {
        for good in ["eth0", "tap0a1b2c3d-4e", "hx@peer"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-", "é"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_s_tap_is_named_as_nova_names_it() -> Result<(), uuid::Error> {
        let port: PortId = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".parse()?;
        assert_eq!(IfName::for_port(port).as_str(), "tap0a1b2c3d-4e");
        Ok(())
    }

    #[test]
    fn host_names_refuse_paths_and_spaces() {
        for bad in ["", "-a", ".", "../etc", "a b", "a/b"] {
            assert!(bad.parse::<HostId>().is_err(), "{bad}");
        }
        assert!("compute-1.uib_2".parse::<HostId>().is_ok());
    }
}
