//! Where nodes are that anybody can reach, as they said themselves in the last minutes. Nothing of it is stored: they say it again.
//!
//! What always holds: others are sent to no address but to one that its node asked from, so that nobody can point them at a third;
//! at most [`MAX_KNOWN`] nodes are known.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use hextet_mesh::{
    certificate::{NodeId, UnixTime},
    letter::{MAX_INTRODUCED, Presence},
};

use crate::message::OtherShown;

/// Nodes that are known.
const MAX_KNOWN: usize = 10_000;
/// What was said counts for so long; a node says it again every four minutes.
const FRESH_SECS: u64 = 600;

#[derive(Clone, Debug)]
struct Said {
    at: UnixTime,
    /// By each family, the address that it asked from.
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Present(BTreeMap<NodeId, Said>);

impl Present {
    /// A node says where it is, from that address. What is older than what it said last says nothing.
    pub fn says(&mut self, presence: &Presence, from: IpAddr, now: UnixTime) {
        let from = from.to_canonical();
        let known = self.0.get(&presence.node).cloned();
        if known.as_ref().is_some_and(|known| presence.at < known.at) {
            return;
        }
        if presence.candidates.is_empty() {
            self.0.remove(&presence.node);
            return;
        }
        self.0.retain(|_, said| now.since(said.at) <= FRESH_SECS);
        if self.0.len() >= MAX_KNOWN && known.is_none() {
            return;
        }
        let mut said = known.unwrap_or(Said {
            at: presence.at,
            v4: None,
            v6: None,
        });
        said.at = presence.at;
        // What it said by the other family counts only as long as it says it still.
        let is_said = |at: &SocketAddr| presence.candidates.contains(at);
        (said.v4, said.v6) = (said.v4.filter(is_said), said.v6.filter(is_said));
        let mut candidates = presence.candidates.iter();
        let here = candidates.find(|at| at.ip() == from).copied();
        match from {
            IpAddr::V4(_) => said.v4 = here,
            IpAddr::V6(_) => said.v6 = here,
        }
        self.0.insert(presence.node, said);
    }

    /// Others, from `first` on, which is drawn by chance: one address of each.
    pub fn others(&self, but: NodeId, first: NodeId, now: UnixTime) -> Vec<OtherShown> {
        let behind = self.0.range(first..).chain(self.0.range(..first));
        let fresh = behind.filter(|(node, said)| **node != but && now.since(said.at) <= FRESH_SECS);
        let shown = fresh.filter_map(|(node, said)| {
            Some(OtherShown {
                node: node.to_string(),
                at: said.v4.or(said.v6)?,
            })
        });
        shown.take(MAX_INTRODUCED).collect()
    }
}

#[cfg(test)]
mod tests {
    use hextet_mesh::key::NetworkId;

    use super::*;

    fn presence(node: u64, at: u64, candidates: &[&str]) -> Presence {
        Presence {
            network: NetworkId(1),
            node: NodeId(node),
            at: UnixTime(at),
            candidates: candidates.iter().map(|at| at.parse().unwrap()).collect(),
        }
    }

    fn others(present: &Present, first: u64, now: u64) -> Vec<(u64, String)> {
        let others = present.others(NodeId(99), NodeId(first), UnixTime(now));
        let others = others.into_iter();
        others
            .map(|other| {
                let node: NodeId = other.node.parse().unwrap();
                (node.0, other.at.to_string())
            })
            .collect()
    }

    #[test]
    fn others_are_sent_to_no_address_but_the_one_that_a_node_asked_from() {
        let mut present = Present::default();
        let both = ["192.0.2.1:1", "[2001:db8::1]:1", "198.51.100.9:53"];
        let (v4, v6): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        present.says(&presence(1, 100, &both), v6, UnixTime(100));
        assert_eq!(others(&present, 0, 100), [(1, "[2001:db8::1]:1".into())]);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        present.says(&presence(1, 101, &both), mapped, UnixTime(101));
        assert_eq!(others(&present, 0, 101), [(1, "192.0.2.1:1".into())]);
        // Somebody else hands it in again.
        present.says(&presence(1, 100, &both), v4, UnixTime(101));
        let thief = "198.51.100.66".parse().unwrap();
        present.says(&presence(2, 100, &both), thief, UnixTime(101));
        assert_eq!(others(&present, 0, 101), [(1, "192.0.2.1:1".into())]);
        present.says(&presence(1, 102, &[]), v4, UnixTime(102));
        assert_eq!(others(&present, 0, 102), []);
    }

    #[test]
    fn what_was_said_is_forgotten_and_those_who_ask_get_different_ones() {
        let mut present = Present::default();
        for node in 0..100 {
            let at = format!("192.0.2.{node}:1");
            let from = format!("192.0.2.{node}").parse().unwrap();
            present.says(&presence(node, 100, &[&at]), from, UnixTime(100));
        }
        let some = others(&present, 98, 100);
        assert_eq!(some.len(), MAX_INTRODUCED);
        assert_eq!((some[0].0, some[1].0), (98, 0));
        assert_eq!(others(&present, 50, 700).len(), MAX_INTRODUCED);
        assert_eq!(others(&present, 50, 701), []);
        for node in 0..20_000_u64 {
            let at = "192.0.2.1:1";
            let from = "192.0.2.1".parse().unwrap();
            present.says(&presence(node, 702, &[at]), from, UnixTime(702));
        }
        assert_eq!(present.0.len(), MAX_KNOWN);
    }
}
