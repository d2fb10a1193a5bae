//! Where nodes are that anybody can reach, as they said themselves in the last minutes. Nothing of it is stored: they say it again.
//!
//! What always holds: others are sent to no address but to one that its node asked from, so that nobody can point them at a third;
//! at most [`MAX_KNOWN`] nodes are known; what a node said is not changed by whoever hands it in again.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_mesh::{
    certificate::{NodeId, UnixTime},
    letter::{MAX_INTRODUCED, Presence},
};
use hextet_types::Way;

use crate::message::OtherShown;

/// Nodes that are known.
const MAX_KNOWN: usize = 10_000;
/// What was said counts for so long; a node says it again every four minutes.
const FRESH_SECS: u64 = 600;

#[derive(Clone, Debug)]
struct Said {
    /// By the node's clock, which orders what it says.
    at: UnixTime,
    /// By ours.
    heard: UnixTime,
    /// By each family, ways to the address that it asked from.
    v4: Ways,
    v6: Ways,
}

/// By datagrams, and by a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    udp: Option<Way>,
    tls: Option<Way>,
}

impl Ways {
    /// The first of each kind that is there.
    fn of(candidates: &[Way], there: IpAddr) -> Ways {
        let all = candidates.iter().filter(|way| way.address().ip() == there);
        let (mut udp, mut tls) = (all.clone(), all);
        Ways {
            udp: udp.find(|way| way.udp().is_some()).copied(),
            tls: tls.find(|way| way.tls().is_some()).copied(),
        }
    }

    fn is_none(self) -> bool {
        self.udp.is_none() && self.tls.is_none()
    }

    /// What is still said of it.
    fn kept(self, candidates: &[Way]) -> Ways {
        let is_said = |way: &Way| candidates.contains(way);
        Ways {
            udp: self.udp.filter(is_said),
            tls: self.tls.filter(is_said),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Present(BTreeMap<NodeId, Said>);

impl Present {
    /// A node says where it is, from that address. What is older than what it said last says nothing, and what is as old adds
    /// the address that it comes from by now, and takes nothing away.
    pub fn says(&mut self, presence: &Presence, from: IpAddr, now: UnixTime) {
        self.0.retain(|_, said| now.since(said.heard) <= FRESH_SECS);
        let known = self.0.get(&presence.node).cloned();
        let no_more = presence.candidates.is_empty() || self.0.len() >= MAX_KNOWN;
        if known.is_none() && no_more {
            return;
        }
        let unknown = Said {
            at: presence.at,
            heard: now,
            v4: Ways::default(),
            v6: Ways::default(),
        };
        let mut said = known.unwrap_or(unknown);
        if presence.at < said.at {
            return;
        }
        let is_new = presence.at > said.at;
        let from = from.to_canonical();
        let here = Ways::of(&presence.candidates, from);
        if is_new {
            // What it said by the other family counts only as long as it says it still.
            let kept = |ways: Ways| ways.kept(&presence.candidates);
            (said.v4, said.v6) = (kept(said.v4), kept(said.v6));
            (said.at, said.heard) = (presence.at, now);
        }
        let place = match from {
            IpAddr::V4(_) => &mut said.v4,
            IpAddr::V6(_) => &mut said.v6,
        };
        if is_new || !here.is_none() {
            *place = here;
        }
        // A node that can be reached no more stays for a while, so that nobody brings back what it said before.
        self.0.insert(presence.node, said);
    }

    /// Others, from `first` on, which is drawn by chance: one address of each and one for streams, of the family by which it is
    /// asked if there is one.
    pub fn others(&self, but: NodeId, first: NodeId, by: IpAddr, now: UnixTime) -> Vec<OtherShown> {
        let behind = self.0.range(first..).chain(self.0.range(..first));
        let fresh =
            behind.filter(|(node, said)| **node != but && now.since(said.heard) <= FRESH_SECS);
        let reached = fresh.filter_map(|(node, said)| {
            let [first, second] = match by.to_canonical() {
                IpAddr::V4(_) => [said.v4, said.v6],
                IpAddr::V6(_) => [said.v6, said.v4],
            };
            let udp = first.udp.or(second.udp);
            let tls = first.tls.or(second.tls);
            (udp.is_some() || tls.is_some()).then_some((node, udp.into_iter().chain(tls)))
        });
        let shown = reached.take(MAX_INTRODUCED).flat_map(|(node, ways)| {
            ways.map(|at| OtherShown {
                node: node.to_string(),
                at,
            })
        });
        shown.collect()
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
        others_by("192.0.2.250", present, first, now)
    }

    fn others_by(by: &str, present: &Present, first: u64, now: u64) -> Vec<(u64, String)> {
        let by = by.parse().unwrap();
        let others = present.others(NodeId(99), NodeId(first), by, UnixTime(now));
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
    fn what_is_handed_in_again_takes_nothing_away_and_lives_no_longer() {
        let mut present = Present::default();
        let at = ["192.0.2.1:1", "[2001:db8::1]:1"];
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        // Its clock is ahead.
        let said = presence(1, 400, &at);
        present.says(&said, from("192.0.2.1"), UnixTime(100));
        present.says(&said, from("2001:db8::1"), UnixTime(100));
        let v4 = vec![(1, "192.0.2.1:1".to_owned())];
        let v6 = vec![(1, "[2001:db8::1]:1".to_owned())];
        for thief in ["198.51.100.66", "2001:db8::66"] {
            present.says(&said, from(thief), UnixTime(650));
            assert_eq!(others_by("192.0.2.9", &present, 0, 650), v4);
            assert_eq!(others_by("::ffff:192.0.2.9", &present, 0, 650), v4);
            assert_eq!(others_by("2001:db8::9", &present, 0, 650), v6);
        }
        assert_eq!(others(&present, 0, 700), v4);
        assert_eq!(others(&present, 0, 701), [], "ten minutes by our clock");
        // Whoever is out of reach is not brought back by its own words.
        present.says(&presence(2, 700, &at), from("192.0.2.1"), UnixTime(700));
        present.says(&presence(2, 701, &[]), from("192.0.2.1"), UnixTime(701));
        present.says(&presence(2, 700, &at), from("192.0.2.1"), UnixTime(701));
        assert_eq!(others(&present, 0, 701), []);
        // Whoever only asks takes no place.
        present.says(&presence(3, 701, &[]), from("192.0.2.1"), UnixTime(701));
        assert!(!present.0.contains_key(&NodeId(3)));
    }

    #[test]
    fn a_stream_s_address_is_told_beside_the_other() {
        let mut present = Present::default();
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let said = [
            "192.0.2.1:1",
            "tls:192.0.2.1:443",
            "tls:[2001:db8::1]:443",
            "tls:198.51.100.9:443",
        ];
        present.says(&presence(1, 100, &said), v4, UnixTime(100));
        let both = vec![
            (1, "192.0.2.1:1".to_owned()),
            (1, "tls:192.0.2.1:443".to_owned()),
        ];
        assert_eq!(others(&present, 0, 100), both);
        present.says(&presence(1, 101, &said[1..]), v4, UnixTime(101));
        assert_eq!(others(&present, 0, 101), both[1..]);
        present.says(&presence(1, 102, &said[2..]), v4, UnixTime(102));
        assert_eq!(others(&present, 0, 102), []);
    }

    #[test]
    fn an_address_of_the_family_that_asks_goes_first_and_the_other_will_do() {
        let mut present = Present::default();
        let v4 = "192.0.2.1".parse().unwrap();
        present.says(&presence(1, 100, &["192.0.2.1:1"]), v4, UnixTime(100));
        let v6 = "2001:db8::2".parse().unwrap();
        present.says(&presence(2, 100, &["[2001:db8::2]:1"]), v6, UnixTime(100));
        let all = vec![
            (1, "192.0.2.1:1".to_owned()),
            (2, "[2001:db8::2]:1".to_owned()),
        ];
        for by in ["192.0.2.9", "2001:db8::9"] {
            assert_eq!(others_by(by, &present, 0, 100), all);
        }
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
