//! What an operator, or who makes tunnels, may say of a node and of its links.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    slice,
    time::Duration,
};

use thiserror::Error;

use crate::{
    mac::Key,
    number::{Interval, Metric, RouterId},
};

/// The shortest packets that every link takes (RFC 8966 §4.2.1).
const LEAST_LIMIT: usize = 512;

/// A link, by the kernel's index of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// Of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Another one at each start, so that no sequence number has to outlive a node's memory (RFC 8966 §3.2.1 leaves it open).
    pub router_id: RouterId,
    /// What all that looks random comes from: jitter, and the nonces of RFC 8967, so it has to be a secret.
    pub seed: [u8; 32],
    /// How many destinations are taken from others; what is beyond is refused.
    pub destinations: usize,
    /// How many neighbours a link may have.
    pub neighbours: usize,
    /// Whether ways to others' destinations are told on. Who does not is nobody's way to anybody but itself.
    pub transit: bool,
    /// If whoever installs the routes keeps them while this program is gone, so that neighbours may go by them: how it starts.
    pub lasting: Option<Start>,
}

/// How a node starts whose routes outlive its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing is forwarded yet.
    Fresh,
    /// The kernel forwards by the routes of an earlier run still, until [`Engine::is_resuming`](crate::Engine::is_resuming) is over;
    /// what has not been replaced by then goes.
    Resumed,
}

impl Config {
    /// The usual bounds.
    pub const fn new(router_id: RouterId, seed: [u8; 32]) -> Config {
        Config {
            router_id,
            seed,
            destinations: 100_000,
            neighbours: 256,
            transit: true,
            lasting: None,
        }
    }
}

/// Of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link-local address that this node sends from.
    pub addr: Ipv6Addr,
    /// The next hop for IPv4 that is told.
    pub v4: NextHopV4,
    /// Octets that a datagram may have.
    pub limit: usize,
    /// Between Hellos.
    pub hello: Interval,
    /// Between updates that nothing has triggered.
    pub update: Interval,
    /// What it costs to send over it.
    pub cost: Cost,
    /// Whether what is heard on it is told on it, too (RFC 8966 §3.7.4): needless where all hear each other.
    pub split_horizon: bool,
    /// What packets are signed with (RFC 8967); if there are none, nothing is asked of those that come.
    pub keys: Vec<Key>,
    /// If it is known who is there: nobody else is heard, and each is spoken to alone and by a key of its own, in place of `keys`.
    pub pairs: Option<BTreeMap<Ipv6Addr, Key>>,
}

/// How IPv4 is routed over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopV4 {
    /// Not at all.
    None,
    /// By an address of the interface.
    Own(Ipv4Addr),
    /// By the link-local address of IPv6 (RFC 9229).
    ViaV6,
}

/// What a link costs (RFC 8966 §3.4.3, RFC 9616 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Without regard to time.
    pub base: Metric,
    /// How round trips count; not at all, if none.
    pub rtt: Option<RttCost>,
}

/// Nothing up to `from`, everything from `to` on, in between in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttCost {
    /// The longest round trip that costs nothing.
    pub from: Duration,
    /// The shortest that costs all.
    pub to: Duration,
    /// All.
    pub most: Metric,
}

impl Cost {
    /// As far as a link's own cost goes, a node's distance is a time: ten for each millisecond of a round trip, up to a second.
    pub const BY_TIME: Cost = Cost {
        base: Metric(16),
        rtt: Some(RttCost {
            from: Duration::ZERO,
            to: Duration::from_secs(1),
            most: Metric(10_000),
        }),
    };

    /// What RFC 8966 says of a wire (appendix A.2.1).
    pub const WIRED: Cost = Cost {
        base: Metric(96),
        rtt: None,
    };

    /// The round trip that such a distance stands for, if all links are of this kind; what each of them costs besides counts as time.
    pub fn time(self, metric: Metric) -> Duration {
        let Some(rule) = self.rtt else {
            return Duration::ZERO;
        };
        let range = rule.to.saturating_sub(rule.from);
        range * u32::from(metric.0) / u32::from(rule.most.0.max(1))
    }

    /// What is added to the neighbour's cost for such a round trip.
    pub fn of_rtt(self, rtt: Option<Duration>) -> Metric {
        let (Some(rule), Some(rtt)) = (self.rtt, rtt) else {
            return Metric::ZERO;
        };
        let range = rule.to.saturating_sub(rule.from).as_micros().max(1);
        let over = rtt.saturating_sub(rule.from).as_micros().min(range);
        let cost = u128::from(rule.most.0) * over / range;
        u16::try_from(cost).map_or(rule.most, Metric)
    }
}

/// A link can't be run like that.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// Neighbours are known by such.
    #[error("{0} is no link-local address (fe80::/10): Babel is spoken between those")]
    NoLinkLocal(Ipv6Addr),
    /// Too short for some TLVs.
    #[error("datagrams of {0} octets are too short: 512 at least")]
    Limit(usize),
    /// An interval of zero promises nothing.
    #[error("the interval of {0} is zero: 0.01 s at least")]
    Interval(&'static str),
    /// Nobody would use it, or routes over it would not get longer.
    #[error("a link's cost is 1 to 65534, not {0}")]
    Cost(Metric),
}

impl Link {
    /// A tunnel between two nodes of a mesh.
    pub const fn tunnel(addr: Ipv6Addr) -> Link {
        Link {
            addr,
            v4: NextHopV4::ViaV6,
            limit: 1_200,
            hello: Interval(400),
            update: Interval(6_000),
            cost: Cost::BY_TIME,
            split_horizon: true,
            keys: Vec::new(),
            pairs: None,
        }
    }

    /// A network of several nodes that know each other's keys. One may know another that a third does not.
    pub fn among(addr: Ipv6Addr, pairs: BTreeMap<Ipv6Addr, Key>) -> Link {
        Link {
            hello: Interval(100),
            split_horizon: false,
            pairs: Some(pairs),
            ..Link::tunnel(addr)
        }
    }

    /// What packets to and from such a neighbour are signed with.
    pub fn keys_with(&self, neighbour: Ipv6Addr) -> &[Key] {
        match &self.pairs {
            Some(pairs) => pairs
                .get(&neighbour)
                .map(slice::from_ref)
                .unwrap_or_default(),
            None => &self.keys,
        }
    }

    /// Whether packets have to be signed.
    pub const fn is_signed(&self) -> bool {
        self.pairs.is_some() || !self.keys.is_empty()
    }

    /// Whether it can be run like that.
    ///
    /// # Errors
    ///
    /// It can't.
    pub fn check(&self) -> Result<(), LinkError> {
        if !self.addr.is_unicast_link_local() {
            return Err(LinkError::NoLinkLocal(self.addr));
        }
        if self.limit < LEAST_LIMIT {
            return Err(LinkError::Limit(self.limit));
        }
        for (name, interval) in [("Hellos", self.hello), ("updates", self.update)] {
            if interval == Interval(0) {
                return Err(LinkError::Interval(name));
            }
        }
        if self.cost.base == Metric::ZERO || self.cost.base.is_infinite() {
            return Err(LinkError::Cost(self.cost.base));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_counts_in_proportion() {
        let rule = RttCost {
            from: Duration::from_millis(10),
            to: Duration::from_millis(120),
            most: Metric(96),
        };
        let cost = Cost {
            rtt: Some(rule),
            ..Cost::WIRED
        };
        for (millis, wanted) in [(0, 0), (10, 0), (65, 48), (120, 96), (5_000, 96)] {
            let rtt = Some(Duration::from_millis(millis));
            assert_eq!(cost.of_rtt(rtt), Metric(wanted), "{millis}");
        }
        assert_eq!(cost.of_rtt(None), Metric::ZERO);
        assert_eq!(
            Cost::WIRED.of_rtt(Some(Duration::from_secs(1))),
            Metric::ZERO
        );
        let rtt = Some(Duration::from_millis(25));
        assert_eq!(Cost::BY_TIME.of_rtt(rtt), Metric(250));
        assert_eq!(Some(Cost::BY_TIME.time(Metric(250))), rtt);
        assert_eq!(Cost::WIRED.time(Metric(250)), Duration::ZERO);
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let link = Link::tunnel("fe80::1".parse().expect("an address"));
        assert_eq!(link.check(), Ok(()));
        let broken = [
            Link {
                addr: Ipv6Addr::LOCALHOST,
                ..link.clone()
            },
            Link {
                limit: 511,
                ..link.clone()
            },
            Link {
                update: Interval(0),
                ..link.clone()
            },
            Link {
                cost: Cost {
                    base: Metric::ZERO,
                    rtt: None,
                },
                ..link
            },
        ];
        let said: Vec<String> = broken
            .iter()
            .filter_map(|link| link.check().err())
            .map(|error| error.to_string())
            .collect();
        assert_eq!(
            said,
            [
                "::1 is no link-local address (fe80::/10): Babel is spoken between those",
                "datagrams of 511 octets are too short: 512 at least",
                "the interval of updates is zero: 0.01 s at least",
                "a link's cost is 1 to 65534, not 0",
            ]
        );
    }
}
