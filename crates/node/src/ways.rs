//! Babel's ways as routes of the kernel, and the node's own addresses.
//!
//! What always holds: no way is taken to a destination that is none of the network's and that nobody has said to accept; while Babel has
//! not learnt again what an earlier run knew, that one's routes stand.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Result;
use hextet_babel::{Way, packet::Destination};
use hextet_kernel::ways::{Hop, Key, LAST, METRIC, Route, Ways as Kernel};
use hextet_mesh::{certificate::Certificate, node::home_of, parameters::Parameters};
use hextet_types::{Family, Prefix};
use tracing::warn;

use crate::babel::Changes;

/// The kernel's routes of this node.
#[derive(Debug)]
pub struct Ways {
    kernel: Kernel,
    /// As Babel and the certificate want them.
    wanted: BTreeMap<Key, Route>,
    /// As they were found, or set.
    standing: BTreeMap<Key, Route>,
    /// What is let in; the default route only if it is named.
    welcome: Vec<Prefix>,
    sources: Sources,
    /// Whether routes of an earlier run stay.
    keeps: bool,
}

/// From which of its addresses the host sends.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The node's first one.
    pub v6: Option<IpAddr>,
    /// Where the network has such.
    pub v4: Option<IpAddr>,
}

impl Sources {
    /// The first address of each family.
    pub fn of(certificate: &Certificate) -> Sources {
        let v6 = certificate.prefixes.first().copied().and_then(home_of);
        Sources {
            v6: v6.map(IpAddr::V6),
            v4: certificate.ipv4.map(first_v4),
        }
    }

    fn for_family(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// The address itself, or the first one behind the network's.
fn first_v4(prefix: Prefix) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(addr) if !prefix.is_host() => Ipv4Addr::from(u32::from(addr) | 1).into(),
        addr => addr,
    }
}

impl Ways {
    /// Gives the host the node's addresses; what stood before is left as it is.
    ///
    /// # Errors
    ///
    /// The kernel does not answer, or refuses the addresses.
    pub fn open(
        certificate: &Certificate,
        network: &Parameters,
        accept: &[Prefix],
    ) -> Result<Ways> {
        let mut kernel = Kernel::open()?;
        let sources = Sources::of(certificate);
        let own: Vec<IpAddr> = [sources.v6, sources.v4].into_iter().flatten().collect();
        kernel.own(&own)?;
        let standing = kernel.routes()?.into_iter();
        let standing: BTreeMap<Key, Route> = standing.map(|route| (route.key(), route)).collect();
        let prefixes = certificate.prefixes.iter().chain(&certificate.ipv4);
        let wanted = prefixes.filter(|prefix| !prefix.is_host()).map(|prefix| {
            let route = Route {
                to: *prefix,
                from: None,
                metric: LAST,
                hop: Hop::Unreachable,
                source: None,
            };
            (route.key(), route)
        });
        let mut ways = Ways {
            kernel,
            wanted: wanted.collect(),
            standing,
            welcome: welcome(network, accept),
            sources,
            keeps: true,
        };
        ways.mend();
        Ok(ways)
    }

    /// Whether ways of an earlier run stand.
    pub fn has_earlier(&self) -> bool {
        let mut standing = self.standing.values();
        standing.any(|route| matches!(route.hop, Hop::Via { .. }))
    }

    /// What Babel has found.
    pub fn change(&mut self, changes: Changes) {
        let mut set = Vec::new();
        let mut gone = Vec::new();
        for (to, way) in changes {
            if !self.is_welcome(to) {
                continue;
            }
            let key = (to.prefix(), to.source(), METRIC);
            let Some(way) = way else {
                self.wanted.remove(&key);
                if self.standing.remove(&key).is_some() {
                    gone.push(key);
                }
                continue;
            };
            let route = self.route(to, way);
            self.wanted.insert(key, route.clone());
            if self.standing.insert(key, route.clone()).as_ref() != Some(&route) {
                set.push(route);
            }
        }
        self.apply(&set, &gone);
    }

    /// Makes the kernel have what is wanted, and, once Babel has learnt everything (`keeps` is false), nothing else.
    pub fn look(&mut self, keeps: bool) {
        self.keeps = keeps;
        match self.kernel.routes() {
            Ok(found) => {
                self.standing = found
                    .into_iter()
                    .map(|route| (route.key(), route))
                    .collect();
                self.mend();
            }
            Err(error) => warn!(%error, "look at the routes"),
        }
    }

    fn mend(&mut self) {
        let missing = self.wanted.iter();
        let missing = missing.filter(|(key, route)| self.standing.get(*key) != Some(*route));
        let set: Vec<Route> = missing.map(|(_, route)| route.clone()).collect();
        let gone: Vec<Key> = match self.keeps {
            true => Vec::new(),
            false => {
                let standing = self.standing.keys();
                let gone = standing.filter(|key| !self.wanted.contains_key(*key));
                gone.copied().collect()
            }
        };
        for route in &set {
            self.standing.insert(route.key(), route.clone());
        }
        for key in &gone {
            self.standing.remove(key);
        }
        self.apply(&set, &gone);
    }

    fn apply(&mut self, set: &[Route], gone: &[Key]) {
        let done = [self.kernel.set(set), self.kernel.delete(gone)];
        for error in done.into_iter().filter_map(Result::err).flatten() {
            // The next look tries again.
            warn!(%error, "a route is not as it should be");
        }
    }

    fn route(&self, to: Destination, way: Way) -> Route {
        let hop = match way {
            Way::Via { link, next_hop } => Hop::Via {
                link: link.0,
                next_hop,
            },
            Way::Unreachable => Hop::Unreachable,
        };
        let source = self.sources.for_family(to.prefix().family());
        Route {
            to: to.prefix(),
            from: to.source(),
            metric: METRIC,
            hop,
            source: source.filter(|_| hop != Hop::Unreachable),
        }
    }

    fn is_welcome(&self, to: Destination) -> bool {
        let mut welcome = self.welcome.iter();
        welcome.any(|prefix| prefix.covers(to.prefix()))
    }
}

fn welcome(network: &Parameters, accept: &[Prefix]) -> Vec<Prefix> {
    let own = std::iter::once(network.prefix).chain(network.ipv4);
    own.chain(accept.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_first_address_of_each_prefix() {
        for (prefix, first) in [
            ("10.1.2.0/24", "10.1.2.1"),
            ("10.1.2.0/32", "10.1.2.0"),
            ("10.1.2.4/30", "10.1.2.5"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(first_v4(prefix), first.parse::<IpAddr>().unwrap());
        }
    }
}
