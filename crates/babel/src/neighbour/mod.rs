//! What a node knows of a neighbour by the packets between them (RFC 8966 §3.2.4, §3.4).

mod history;
mod rtt;

use std::{collections::BTreeSet, net::Ipv6Addr};

use hextet_types::Time;

pub use history::History;
pub use rtt::{Rtt, Stamps};

use crate::{
    config::{Cost, LinkId},
    number::{Interval, Metric, Seqno},
    packet::{Destination, Echo},
};

/// Of the last Hellos of a series, so many …
const WINDOW: u32 = 3;
/// … must have come (RFC 8966 appendix A.2.1).
const ENOUGH: u32 = 2;
/// What can be used costs no more.
const DEAREST: u16 = Metric::INFINITE.0 - 1;
/// A cost that differs by less than this part of it is the same.
const STEADY: u16 = 8;

/// A neighbour's name: its link, and the link-local address that it sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Where it is.
    pub link: LinkId,
    /// From where it sends.
    pub addr: Ipv6Addr,
}

/// When the neighbour's last Hello was sent and came, by a clock each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamped {
    sent: u32,
    came: u32,
}

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Neighbour {
    to_all: History,
    to_us: History,
    /// What it says that it costs to send to it, for as long as that counts.
    txcost: Metric,
    rtt: Rtt,
    hello: Option<Stamped>,
    cost: Metric,
    /// What it has told of.
    pub destinations: BTreeSet<Destination>,
    /// Of that, what it told in an earlier run, and has not told again since it began anew.
    pub kept: BTreeSet<Destination>,
    /// It has promised to forward what it tells of while it says nothing.
    pub lasting: bool,
    stale: bool,
}

impl Default for Neighbour {
    fn default() -> Neighbour {
        Neighbour {
            to_all: History::default(),
            to_us: History::default(),
            txcost: Metric::INFINITE,
            rtt: Rtt::default(),
            hello: None,
            cost: Metric::INFINITE,
            destinations: BTreeSet::new(),
            kept: BTreeSet::new(),
            lasting: false,
            stale: false,
        }
    }
}

impl Neighbour {
    /// A Hello of its came. With its stamp goes when it came, by our own clock, in microseconds. Whether it has begun anew: then it is
    /// to be forgotten before.
    pub fn hear(
        &mut self,
        unicast: bool,
        (seqno, interval): (Seqno, Interval),
        stamps: Option<(u32, u32)>,
        now: Time,
    ) -> bool {
        let series = if unicast {
            &mut self.to_us
        } else {
            &mut self.to_all
        };
        self.hello = stamps.map(|(sent, came)| Stamped { sent, came });
        series.hear(seqno, interval, now)
    }

    /// It says what it costs to send to it.
    pub const fn heard_us(&mut self, txcost: Metric) {
        self.txcost = txcost;
    }

    /// What it said so does not count any more.
    pub const fn forget_us(&mut self) {
        self.txcost = Metric::INFINITE;
    }

    /// It gives our own stamp back, in a packet with one of its own.
    pub fn take_echo(&mut self, echo: Echo, answered: u32, came: u32, now: Time) {
        let stamps = Stamps {
            origin: echo.origin,
            received: echo.received,
            answered,
            now: came,
        };
        if let Some(sample) = stamps.round_trip() {
            self.rtt.take(sample, now);
        }
    }

    /// What it gets back of its own stamp.
    pub fn echo(&self) -> Option<Echo> {
        self.hello.map(|hello| Echo {
            origin: hello.sent,
            received: hello.came,
        })
    }

    /// Counts the Hellos that have not come.
    pub fn miss(&mut self, now: Time) {
        self.to_all.miss(now);
        self.to_us.miss(now);
    }

    /// When to do that.
    pub fn deadline(&self) -> Option<Time> {
        let both = [self.to_all.deadline(), self.to_us.deadline()];
        both.into_iter().flatten().min()
    }

    /// Nothing comes through any more, whatever its Hellos promised.
    pub fn is_lost(&mut self) {
        self.to_all = History::default();
        self.to_us = History::default();
        self.txcost = Metric::INFINITE;
        (self.lasting, self.stale) = (false, false);
    }

    /// The same, but for what it has told of and whether it can be reached.
    pub fn as_it_was(&self) -> Neighbour {
        Neighbour {
            cost: Metric::INFINITE,
            destinations: BTreeSet::new(),
            kept: BTreeSet::new(),
            stale: false,
            ..self.clone()
        }
    }

    /// It has, but forwards what it has told of: whether it hears us is open, and all else stays until it has told of it again.
    pub fn begins_anew(&mut self) {
        self.txcost = Metric::INFINITE;
        self.kept = self.destinations.clone();
    }

    /// Whether it is not heard, or does not hear us, and is gone by all the same, at the cost that it had.
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether none of its Hellos is remembered.
    pub const fn is_silent(&self) -> bool {
        self.to_all.is_silent() && self.to_us.is_silent()
    }

    /// Whether enough of its last Hellos came.
    pub fn is_heard(&self) -> bool {
        self.to_all.came(WINDOW).max(self.to_us.came(WINDOW)) >= ENOUGH
    }

    /// What it costs the neighbour to send to us over a link that costs so much more than its kind, as it is told.
    pub fn rxcost(&self, rule: Cost, extra: Metric) -> Metric {
        if self.is_heard() {
            Metric(rule.base.plus(extra).0.min(DEAREST))
        } else {
            Metric::INFINITE
        }
    }

    /// What it costs to send to it: infinite, unless both hear each other (RFC 8966 §3.4.3).
    pub const fn cost(&self) -> Metric {
        self.cost
    }

    /// Computes that anew; whether it has changed. Small changes are none. One that has promised to last, where that counts, has the
    /// cost that it had while it is not heard.
    pub fn weigh(&mut self, rule: Cost, extra: Metric, may_last: bool) -> bool {
        let cost = match (self.rxcost(rule, extra), self.txcost) {
            (Metric::INFINITE, _) | (_, Metric::INFINITE) => Metric::INFINITE,
            (_, txcost) => {
                let all = txcost.plus(rule.of_rtt(self.rtt.least())).plus(extra);
                Metric(all.0.clamp(1, DEAREST))
            }
        };
        self.stale = may_last && self.lasting && cost.is_infinite() && !self.cost.is_infinite();
        if self.stale {
            return false;
        }
        let both_finite = !cost.is_infinite() && !self.cost.is_infinite();
        let is_steady = both_finite && cost.0.abs_diff(self.cost.0) <= self.cost.0 / STEADY;
        if is_steady || cost == self.cost {
            return false;
        }
        self.cost = cost;
        true
    }

    /// Round trips to it.
    pub const fn rtt(&self) -> &Rtt {
        &self.rtt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(neighbour: &mut Neighbour, seqno: u16, at: Time) {
        let is_new = neighbour.hear(false, (Seqno(seqno), Interval(100)), None, at);
        assert!(!is_new);
    }

    #[test]
    fn a_neighbour_is_one_when_both_hear_each_other() {
        let (rule, mut neighbour) = (Cost::WIRED, Neighbour::default());
        hear(&mut neighbour, 1, Time::ZERO);
        neighbour.heard_us(Metric(96));
        assert!(
            !neighbour.weigh(rule, Metric::ZERO, true),
            "one Hello is not enough"
        );
        hear(&mut neighbour, 2, Time::from_secs(1));
        assert!(neighbour.weigh(rule, Metric::ZERO, true));
        assert_eq!(
            (neighbour.cost(), neighbour.rxcost(rule, Metric::ZERO)),
            (Metric(96), Metric(96))
        );
        neighbour.forget_us();
        assert!(neighbour.weigh(rule, Metric::ZERO, true));
        assert_eq!(
            (neighbour.cost(), neighbour.rxcost(rule, Metric::ZERO)),
            (Metric::INFINITE, Metric(96))
        );
        neighbour.heard_us(Metric(96));
        neighbour.miss(Time::from_secs(4));
        assert!(!neighbour.is_silent());
        assert!(
            !neighbour.weigh(rule, Metric::ZERO, true),
            "two Hellos missed"
        );
        assert_eq!(neighbour.rxcost(rule, Metric::ZERO), Metric::INFINITE);
        neighbour.is_lost();
        assert!(neighbour.is_silent());
    }

    #[test]
    fn a_cost_does_not_shake() {
        let (rule, mut neighbour) = (Cost::WIRED, Neighbour::default());
        hear(&mut neighbour, 1, Time::ZERO);
        hear(&mut neighbour, 2, Time::ZERO);
        let mut costs = Vec::new();
        for txcost in [800, 880, 900, 901, 790, 788, 787, u16::MAX] {
            neighbour.heard_us(Metric(txcost));
            if neighbour.weigh(rule, Metric::ZERO, true) {
                costs.push(neighbour.cost().0);
            }
        }
        assert_eq!(costs, [800, 901, 788, u16::MAX]);
        neighbour.heard_us(Metric::ZERO);
        assert!(neighbour.weigh(rule, Metric::ZERO, true));
        assert_eq!(
            neighbour.cost(),
            Metric(1),
            "each hop is one, or routes might loop"
        );
    }
}
