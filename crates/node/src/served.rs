//! What somebody else on this host has the node do: the agent of a cloud, whose workloads the mesh makes reachable.
//!
//! What always holds: it is remembered, so that a node that begins again announces what it announced, whether the other program runs or not; the last word counts.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};
use hextet_types::Prefix;
use serde::{Deserialize, Serialize};

/// Prefixes of either kind.
pub const MAX_PREFIXES: usize = 20_000;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// Others are shown the way to these.
    pub announce: BTreeSet<Prefix>,
    /// Ways to what lies in these are taken.
    pub accept: BTreeSet<Prefix>,
}

/// What the node says to that; again, whenever it is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The node's first address, by which others reach this host.
    pub home: std::net::Ipv6Addr,
    /// Whether it hears of any other node.
    pub is_connected: bool,
}

impl Served {
    /// Whether a node can do that.
    ///
    /// # Errors
    ///
    /// There is too much of it, or it is about what is no unicast destination.
    pub fn check(&self) -> Result<()> {
        for (what, prefixes) in [("announce", &self.announce), ("accept", &self.accept)] {
            ensure!(
                prefixes.len() <= MAX_PREFIXES,
                "{what} has {} prefixes: {MAX_PREFIXES} at most; aggregates say the same in fewer",
                prefixes.len()
            );
            let odd = prefixes.iter().find(|prefix| leads_nowhere(**prefix));
            if let Some(odd) = odd {
                anyhow::bail!("{what} has {odd}, to which nothing leads");
            }
        }
        Ok(())
    }
}

/// Whether no packet to that destination may be forwarded (RFC 6890).
pub fn leads_nowhere(prefix: Prefix) -> bool {
    let addr = prefix.addr();
    let is_link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    // Half of all destinations begins so, too.
    let is_nobody = addr.is_unspecified() && prefix.len() >= 8;
    is_nobody || addr.is_multicast() || addr.is_loopback() || is_link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_and_what_is_too_much_is_refused() {
        let served = |announce: &[&str]| Served {
            announce: announce.iter().map(|text| text.parse().unwrap()).collect(),
            accept: BTreeSet::new(),
        };
        assert!(
            served(&["2001:db8::1/128", "10.0.0.0/8", "::/0", "0.0.0.0/1"])
                .check()
                .is_ok()
        );
        for odd in [
            "ff02::/16",
            "fe80::/64",
            "::1/128",
            "127.0.0.0/8",
            "224.0.0.1/32",
        ] {
            let error = served(&[odd]).check().unwrap_err().to_string();
            assert!(error.contains(odd), "{error}");
        }
        let host = |n: u32| Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
        let many = Served {
            accept: (0..=MAX_PREFIXES as u32).map(host).collect(),
            announce: BTreeSet::new(),
        };
        assert!(many.check().unwrap_err().to_string().contains("aggregates"));
    }
}
