//! Packets that are neither forged nor old (RFC 8967 §4).
//!
//! A code proves who has sent a packet, a counter that it has not come before, and a challenge that a counter is of now. Counters of
//! packets to all and of packets to one are kept apart, since one may overtake the other (RFC 9467).

use std::{net::Ipv6Addr, time::Duration};

use hextet_types::Time;

use super::{Engine, Refusal};
use crate::{
    mac,
    neighbour::Peer,
    packet::{MAX_NONCE_LEN, Tlv},
};

/// A neighbour is challenged no more often (RFC 8967 §4.3.1.1: 300 ms), and the answer counts no longer than …
const CHALLENGE_PACE: Duration = Duration::from_millis(300);
/// … this.
const CHALLENGE_LIFE: Duration = Duration::from_secs(30);
/// Nor is it answered more often.
const REPLY_PACE: Duration = Duration::from_millis(50);

/// What is known of a neighbour's counter.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Under which index, and the highest to all and to one.
    counter: Option<(Vec<u8>, [Option<u32>; 2])>,
    challenge: Option<([u8; 16], Time)>,
    replied: Option<Time>,
}

/// This node's own, on a link.
#[derive(Clone, Debug)]
pub struct Counter {
    index: [u8; 16],
    next: u32,
}

impl Counter {
    pub const fn new(index: [u8; 16]) -> Counter {
        Counter { index, next: 0 }
    }

    /// Of the next packet. When numbers end, they begin anew under another index, which others have to be told of by a challenge.
    pub fn next(&mut self, fresh: impl FnOnce() -> [u8; 16]) -> Tlv {
        if self.next == u32::MAX {
            *self = Counter::new(fresh());
        }
        self.next += 1;
        Tlv::PacketCounter {
            counter: self.next,
            index: self.index.to_vec(),
        }
    }
}

impl Engine {
    /// Whether a packet with a good code, or on a link without keys, is of now; answers and asks what there is to be.
    pub(super) fn is_fresh(&mut self, peer: Peer, to: Ipv6Addr, tlvs: &[Tlv], now: Time) -> bool {
        let has_keys = |link| {
            self.links
                .get(&link)
                .is_some_and(|running| running.link.is_signed())
        };
        if !has_keys(peer.link) {
            return true;
        }
        if !self.auths.contains_key(&peer) && self.auths_on(peer) >= self.config.neighbours {
            self.refuse(Refusal::Neighbour(peer));
            return false;
        }
        let is_to_one = !to.is_multicast();
        let mut auth = self.auths.remove(&peer).unwrap_or_default();
        let is_fresh = auth.take(tlvs, is_to_one, now);
        if is_to_one {
            self.answer_challenge(peer, &mut auth, tlvs, now);
        }
        if !is_fresh {
            self.challenge(peer, &mut auth, now);
            self.refuse(Refusal::Stale(peer));
        }
        self.auths.insert(peer, auth);
        is_fresh
    }

    /// Whether a packet's code is good, where codes are asked for.
    pub(super) fn is_signed(&mut self, peer: Peer, to: Ipv6Addr, octets: &[u8]) -> bool {
        let Some(running) = self.links.get(&peer.link) else {
            return false;
        };
        let keys = running.link.keys_with(peer.addr);
        if !running.link.is_signed() || mac::verify(keys, peer.addr, to, octets) {
            return true;
        }
        self.refuse(Refusal::Forged(peer));
        false
    }

    /// Who has not become a neighbour, or is none any more, has to prove itself anew.
    pub(super) fn forget_strangers(&mut self, now: Time) {
        let neighbours = &self.neighbours;
        self.auths.retain(|peer, auth| {
            let is_at_it = (auth.challenge).is_some_and(|(_, at)| now - at < CHALLENGE_LIFE);
            is_at_it || neighbours.contains_key(peer)
        });
    }

    fn auths_on(&self, peer: Peer) -> usize {
        let same_link = |other: &&Peer| other.link == peer.link;
        self.auths.keys().filter(same_link).count()
    }

    fn answer_challenge(&mut self, peer: Peer, auth: &mut Auth, tlvs: &[Tlv], now: Time) {
        let nonce = tlvs.iter().find_map(|tlv| match tlv {
            Tlv::ChallengeRequest(nonce) if nonce.len() <= MAX_NONCE_LEN => Some(nonce.clone()),
            _ => None,
        });
        let may = (auth.replied).is_none_or(|last| now.saturating_since(last) >= REPLY_PACE);
        if let Some(nonce) = nonce.filter(|_| may) {
            auth.replied = Some(now);
            self.say(peer, Tlv::ChallengeReply(nonce), now);
        }
    }

    fn challenge(&mut self, peer: Peer, auth: &mut Auth, now: Time) {
        let last = auth.challenge.map(|(_, at)| at);
        if last.is_some_and(|last| now.saturating_since(last) < CHALLENGE_PACE) {
            return;
        }
        let nonce = self.random.octets();
        auth.challenge = Some((nonce, now));
        self.say(peer, Tlv::ChallengeRequest(nonce.to_vec()), now);
    }
}

impl Auth {
    fn take(&mut self, tlvs: &[Tlv], is_to_one: bool, now: Time) -> bool {
        let counter = tlvs.iter().find_map(|tlv| match tlv {
            Tlv::PacketCounter { counter, index } => Some((*counter, index)),
            _ => None,
        });
        let Some((counter, index)) = counter else {
            return false;
        };
        let series = usize::from(is_to_one);
        if self.is_proven(tlvs, now) {
            self.challenge = None;
            self.counter = Some((index.clone(), [Some(counter); 2]));
            return true;
        }
        let Some((known, highest)) = &mut self.counter else {
            return false;
        };
        let is_next = known == index && highest[series].is_none_or(|highest| counter > highest);
        if is_next {
            highest[series] = Some(counter);
        }
        is_next
    }

    /// Whether our challenge is answered.
    fn is_proven(&self, tlvs: &[Tlv], now: Time) -> bool {
        let Some((nonce, at)) = &self.challenge else {
            return false;
        };
        let is_in_time = now.saturating_since(*at) < CHALLENGE_LIFE;
        let is_it = |tlv: &Tlv| matches!(tlv, Tlv::ChallengeReply(reply) if reply == nonce);
        is_in_time && tlvs.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(counter: u32, index: u8) -> Tlv {
        Tlv::PacketCounter {
            counter,
            index: vec![index],
        }
    }

    #[test]
    fn a_counter_counts_after_a_challenge_and_only_upwards() {
        let (mut auth, nonce) = (Auth::default(), [9; 16]);
        let mut take = |tlvs: &[Tlv], is_to_one| auth.take(tlvs, is_to_one, Time::ZERO);
        assert!(!take(&[], false));
        assert!(!take(&[counter(7, 1)], false), "nothing is known");
        assert!(
            !take(&[counter(7, 1), Tlv::ChallengeReply(nonce.to_vec())], true),
            "nor asked"
        );
        auth.challenge = Some((nonce, Time::ZERO));
        let mut take = |tlvs: &[Tlv], is_to_one| auth.take(tlvs, is_to_one, Time::ZERO);
        assert!(!take(
            &[counter(7, 1), Tlv::ChallengeReply(vec![8; 16])],
            true
        ));
        assert!(take(
            &[counter(7, 1), Tlv::ChallengeReply(nonce.to_vec())],
            true
        ));
        for (number, index, is_to_one, is_fresh) in [
            (7, 1, true, false),
            (7, 1, false, false),
            (8, 2, false, false),
            (9, 1, true, true),
            (8, 1, true, false),
            // To all it is another series.
            (8, 1, false, true),
            (8, 1, false, false),
            (u32::MAX, 1, false, true),
            (0, 1, false, false),
        ] {
            let has = take(&[counter(number, index)], is_to_one);
            assert_eq!(has, is_fresh, "{number} {index} {is_to_one}");
        }
        let again = [counter(1, 2), Tlv::ChallengeReply(nonce.to_vec())];
        assert!(!take(&again, true), "an answer is good once");
    }

    #[test]
    fn an_answer_that_comes_too_late_is_none() {
        let nonce = [9; 16];
        for (secs, is_fresh) in [(29, true), (30, false)] {
            let mut auth = Auth {
                challenge: Some((nonce, Time::ZERO)),
                ..Auth::default()
            };
            let tlvs = [counter(1, 1), Tlv::ChallengeReply(nonce.to_vec())];
            assert_eq!(auth.take(&tlvs, true, Time::from_secs(secs)), is_fresh);
        }
    }

    #[test]
    fn when_numbers_end_the_index_is_another() {
        let mut own = Counter::new([1; 16]);
        own.next = u32::MAX - 1;
        let next = |own: &mut Counter| match own.next(|| [2; 16]) {
            Tlv::PacketCounter { counter, index } => (counter, index[0]),
            _ => panic!("no counter"),
        };
        assert_eq!(next(&mut own), (u32::MAX, 1));
        assert_eq!(next(&mut own), (1, 2));
    }
}
