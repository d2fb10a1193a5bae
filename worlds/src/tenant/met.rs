//! What the packets of worlds of projects have met: worlds that meet nothing prove nothing, and fail.

use std::{collections::BTreeMap, net::IpAddr};

use comfy_table::Table;
use hextet_model::explain::{Outcome, Step};
use hextet_types::Family;
use serde::Serialize;

use super::{
    look::{Expected, Visit},
    shot::Shot,
};

/// Of a hundred packets, at least so many have to be delivered to a port.
const LEAST_DELIVERED: u64 = 30;
/// So often at least each of [`WANTED`] has to be met.
const LEAST_OF_EACH: u64 = 20;

/// What fifty worlds have to meet.
const WANTED: &[&str] = &[
    "an answer to a port",
    "an answer to outside",
    "an error as translated",
    "an error about an answer to outside",
    "by a router",
    "by a router in two projects",
    "by an extra route",
    "by two routers",
    "by way of the outside and back",
    "delivered: an answer or an error",
    "delivered: an error about an answer",
    "delivered: an error by another",
    "delivered: between projects by way of the outside",
    "delivered: by a chosen next hop",
    "delivered: by an extra route",
    "delivered: forged in the underlay",
    "delivered: from a port outside",
    "delivered: inside a network",
    "delivered: inside a project",
    "delivered: of a known connection",
    "delivered: to a floating IP",
    "delivered: to a published address",
    "delivered: to a shared address",
    "delivered: to an address of another project",
    "delivered: to forwarded ports",
    "delivered: with an address that may be another's",
    "dropped: DHCP clients are served by the host",
    "dropped: a port that no plan knows",
    "dropped: a source that lives on this host came by a tunnel",
    "dropped: a tunnel packet from nobody we know",
    "dropped: an error about a connection of others",
    "dropped: discovery and group membership stay at the port",
    "dropped: it belongs to no connection",
    "dropped: no security group of the receiving port allows it",
    "dropped: no security group of the sending port allows it",
    "dropped: nobody in the cloud has that address",
    "dropped: not a public address of that router",
    "dropped: redirects never pass",
    "dropped: the host's services are not for workloads",
    "dropped: the port may not use that source",
    "dropped: the port's link is down",
    "dropped: there is no route",
    "in fragments: delivered",
    "in fragments: over VXLAN",
    "left for outside",
    "over VXLAN in IPv4",
    "over VXLAN in IPv6",
    "reached a router itself",
    "to a floating IP, or the router's own",
    "to a forwarded port that becomes another",
    "to the gateway host",
    "untranslated from inside to outside in IPv4",
    "untranslated from inside to outside in IPv6",
    "with another source",
];

/// What was met, and how often.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Met {
    /// Worlds.
    pub worlds: u64,
    /// Packets sent.
    pub packets: u64,
    /// To a port.
    pub delivered: u64,
    /// By name.
    pub words: BTreeMap<String, u64>,
}

impl Met {
    /// One more of that.
    pub fn word(&mut self, word: &str) {
        *self.words.entry(word.to_owned()).or_default() += 1;
    }

    /// A packet of that kind has come to a port.
    pub fn came(&mut self, shot: &Shot) {
        self.delivered += 1;
        self.word(&format!("delivered: {}", shot.kind));
    }

    /// A packet has passed a host as it should.
    pub fn passed(&mut self, expected: &Expected, visit: &Visit) {
        let is = |what: fn(&Step) -> bool| expected.steps.iter().filter(|s| what(s)).count();
        let routers = is(|step| matches!(step, Step::Router { .. }));
        let back = is(
            |step| matches!(step, Step::Arrives(Some(link)) if link.as_str().starts_with("hr-")),
        );
        let translates = is(|step| matches!(step, Step::Translates(_)));
        let words = [
            ("by a router", routers == 1),
            ("by two routers", routers > 1 && back == 0),
            ("by a router in two projects", routers > 1 && back > 0),
            ("by way of the outside and back", back > 0 && routers > 1),
            (
                "by an extra route",
                is(|step| matches!(step, Step::ExtraRoute { .. })) > 0,
            ),
            (
                "to the gateway host",
                is(|step| matches!(step, Step::GatewayHost)) > 0,
            ),
            (
                "to a floating IP, or the router's own",
                is(|step| matches!(step, Step::Redirects { port: None, .. })) > 0,
            ),
            (
                "to a forwarded port that becomes another",
                is(|step| matches!(step, Step::Redirects { port: Some(_), .. })) > 0,
            ),
            ("with another source", translates > 0),
        ];
        for (word, _) in words.into_iter().filter(|(_, met)| *met) {
            self.word(word);
        }
        if visit.pieces.len() > 1 {
            let (by, fate) = match (&expected.journey.outcome, expected.tunnel) {
                (Outcome::Delivered { .. }, _) => ("in fragments: delivered", true),
                (_, Some(_)) => ("in fragments: over VXLAN", true),
                _ => ("", false),
            };
            if fate {
                self.word(by);
            }
        }
        self.outcome(expected, routers > 0 && translates == 0);
        let as_came = super::look::quote_of(&visit.seen());
        if as_came.is_some() && as_came != expected.tracing.quote {
            self.word("an error as translated");
        }
    }

    fn outcome(&mut self, expected: &Expected, routed: bool) {
        match &expected.journey.outcome {
            Outcome::Dropped(reason) => self.word(&format!("dropped: {reason}")),
            Outcome::Router(_) => self.word("reached a router itself"),
            Outcome::Leaves { .. } => match (expected.tunnel, expected.journey.packet.source) {
                (Some((_, IpAddr::V4(_))), _) => self.word("over VXLAN in IPv4"),
                (Some((_, IpAddr::V6(_))), _) => self.word("over VXLAN in IPv6"),
                (None, source) if routed => {
                    let family = Family::of(source);
                    self.word(&format!("untranslated from inside to outside in {family}"));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Met) {
        self.worlds += 1;
        self.packets += other.packets;
        self.delivered += other.delivered;
        for (word, count) in &other.words {
            *self.words.entry(word.clone()).or_default() += count;
        }
    }

    /// What was met too rarely.
    pub fn shortcomings(&self) -> Vec<String> {
        let count = |word: &str| self.words.get(word).copied().unwrap_or_default();
        let rare = WANTED.iter().filter(|word| count(word) < LEAST_OF_EACH);
        let mut all: Vec<String> = rare
            .map(|word| format!("{word}: {} times", count(word)))
            .collect();
        if self.delivered * 100 < self.packets * LEAST_DELIVERED {
            let (delivered, packets) = (self.delivered, self.packets);
            all.push(format!("{delivered} of {packets} packets delivered"));
        }
        all
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["packets in projects", "number"]);
        table.add_row(["sent".to_owned(), self.packets.to_string()]);
        table.add_row(["delivered to a port".to_owned(), self.delivered.to_string()]);
        for (word, count) in &self.words {
            table.add_row([word.clone(), count.to_string()]);
        }
        table
    }
}
