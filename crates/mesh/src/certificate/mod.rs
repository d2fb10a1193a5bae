//! A node's certificate: who it is, which addresses are its own, what it may be reached as.
//!
//! Some 200 octets, so that keys, candidates and a signature fit into one datagram beside it. Of what it holds nothing is trusted before
//! [`Trust`](crate::trust::Trust) has judged it. It is revoked by node and serial, never by a hash.

use std::{fmt, str::FromStr};

use hextet_types::{
    Family, Prefix,
    octets::{Reader, put_u32},
};
use thiserror::Error;

use crate::{
    key::{Domain, NetworkId, PublicKey},
    label::{self, Label},
    signed::{Body, Malformed},
    wire::{self, Field},
};

#[cfg(test)]
pub(crate) mod tests;

/// IPv6 prefixes of one node.
pub const MAX_PREFIXES: usize = 4;
/// Groups of one node.
pub const MAX_GROUPS: usize = 16;

/// Seconds since 1970 (UTC), as a driver's clock has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// So many seconds later; the end of time where there are not so many.
    #[must_use]
    pub const fn plus(self, secs: u64) -> Self {
        UnixTime(self.0.saturating_add(secs))
    }

    /// Seconds since `earlier`; 0 where it is not.
    pub const fn since(self, earlier: UnixTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A node's number, drawn once by its registry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no node's number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a node is named by 16 hexadecimal digits, as `hextet mesh nodes` shows them")]
pub struct BadNodeId;

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, BadNodeId> {
        let good = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| BadNodeId)?;
        good.then_some(NodeId(number)).ok_or(BadNodeId)
    }
}

/// What a node is in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Forwards for others.
    Node,
    /// Has one tunnel and forwards for nobody.
    Client,
    /// A registry's own.
    Registry,
    /// Came in without an invitation.
    Anonymous,
}

impl Class {
    /// All, by their numbers.
    pub const ALL: [Class; 4] = [
        Class::Node,
        Class::Client,
        Class::Registry,
        Class::Anonymous,
    ];

    const fn number(self) -> u8 {
        match self {
            Class::Node => 0,
            Class::Client => 1,
            Class::Registry => 2,
            Class::Anonymous => 3,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Node => "node",
            Class::Client => "client",
            Class::Registry => "registry",
            Class::Anonymous => "anonymous",
        })
    }
}

/// A text that names no class.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no class: node, client, registry or anonymous")]
pub struct BadClass(String);

impl FromStr for Class {
    type Err = BadClass;

    fn from_str(text: &str) -> Result<Self, BadClass> {
        let mut all = Class::ALL.into_iter();
        all.find(|class| class.to_string() == text)
            .ok_or_else(|| BadClass(text.chars().take(32).collect()))
    }
}

/// What a certificate says; [`Certificate::check`] is what holds of every one that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The network that it counts in.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// Each certificate of a node has a higher one than those before.
    pub serial: u32,
    /// What the node is.
    pub class: Class,
    /// It counts from then on.
    pub not_before: UnixTime,
    /// It counts up to then.
    pub not_after: UnixTime,
    /// The node's key.
    pub key: PublicKey,
    /// Where its addresses come from: a country, a continent, or any label.
    pub community: Option<Label>,
    /// IPv6, ascending, none within another; at least one.
    pub prefixes: Vec<Prefix>,
    /// Its IPv4 prefix, where the network has such.
    pub ipv4: Option<Prefix>,
    /// Ascending; rules speak of them.
    pub groups: Vec<Label>,
}

impl Certificate {
    /// Checks the bounds of each field and the order of lists.
    ///
    /// # Errors
    ///
    /// The first that doesn't hold.
    pub fn check(&self) -> Result<(), Malformed> {
        let prefixes = &self.prefixes;
        let apart = prefixes
            .iter()
            .zip(prefixes.iter().skip(1))
            .all(|(a, b)| !a.overlaps(*b));
        let checks = [
            (
                (1..=MAX_PREFIXES).contains(&prefixes.len()),
                "the number of prefixes",
            ),
            (
                prefixes.iter().all(|p| p.family() == Family::V6),
                "an IPv6 prefix",
            ),
            (wire::ascends(prefixes) && apart, "the order of prefixes"),
            (
                self.ipv4.is_none_or(|p| p.family() == Family::V4),
                "the IPv4 prefix",
            ),
            (self.groups.len() <= MAX_GROUPS, "the number of groups"),
            (wire::ascends(&self.groups), "the order of groups"),
            (self.not_before <= self.not_after, "the span"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Malformed::Value(what)),
            None => Ok(()),
        }
    }

    /// When a node asks for the next one: at a third of the span left.
    pub fn renew_at(&self) -> UnixTime {
        let span = self.not_after.since(self.not_before);
        UnixTime(self.not_after.0.saturating_sub(span / 3))
    }
}

impl Body for Certificate {
    const DOMAIN: Domain = Domain::Certificate;
    const MAX_LEN: usize = 1
        + 69
        + (1 + label::MAX_LEN)
        + 1
        + MAX_PREFIXES * 17
        + 6
        + 1
        + MAX_GROUPS * (1 + label::MAX_LEN)
        + 72;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        out.extend_from_slice(&self.node.0.to_be_bytes());
        put_u32(out, self.serial);
        out.push(self.class.number());
        out.extend_from_slice(&self.not_before.0.to_be_bytes());
        out.extend_from_slice(&self.not_after.0.to_be_bytes());
        out.extend_from_slice(&self.key.0);
        wire::put_count(out, usize::from(self.community.is_some()));
        self.community.iter().for_each(|label| label.put(out));
        wire::put_count(out, self.prefixes.len());
        self.prefixes
            .iter()
            .for_each(|prefix| wire::put_prefix(out, *prefix));
        wire::put_count(out, usize::from(self.ipv4.is_some()));
        self.ipv4
            .iter()
            .for_each(|prefix| wire::put_prefix(out, *prefix));
        wire::put_count(out, self.groups.len());
        self.groups.iter().for_each(|label| label.put(out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = NetworkId(wire::u64_of(reader, "the network")?);
        let node = NodeId(wire::u64_of(reader, "the node")?);
        let serial = reader.u32().need("the serial")?;
        let class = reader.u8().need("the class")?;
        let class = Class::ALL.into_iter().find(|c| c.number() == class);
        let class = class.ok_or(Malformed::Value("the class"))?;
        let not_before = UnixTime(wire::u64_of(reader, "the begin")?);
        let not_after = UnixTime(wire::u64_of(reader, "the end")?);
        let key = PublicKey(reader.array().need("the key")?);
        let community = match wire::count(reader, "the community", 0, 1)? {
            0 => None,
            _ => Some(Label::read(reader, "the community")?),
        };
        let count = wire::count(reader, "the number of prefixes", 1, MAX_PREFIXES)?;
        let prefixes = (0..count).map(|_| wire::prefix(reader, Family::V6, "a prefix"));
        let prefixes = prefixes.collect::<Result<_, _>>()?;
        let ipv4 = match wire::count(reader, "the IPv4 prefix", 0, 1)? {
            0 => None,
            _ => Some(wire::prefix(reader, Family::V4, "the IPv4 prefix")?),
        };
        let count = wire::count(reader, "the number of groups", 0, MAX_GROUPS)?;
        let groups = (0..count).map(|_| Label::read(reader, "a group"));
        let groups = groups.collect::<Result<_, _>>()?;
        let certificate = Certificate {
            network,
            node,
            serial,
            class,
            not_before,
            not_after,
            key,
            community,
            prefixes,
            ipv4,
            groups,
        };
        certificate.check()?;
        Ok(certificate)
    }
}
