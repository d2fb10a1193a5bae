//! How large packets may be on the way to the peer: found by probes, not guessed (RFC 8899).
//!
//! A probe is an ICMPv6 echo request of the size in question between the two ends' link-local addresses, inside of the tunnel, in a datagram that
//! nobody may fragment. The peer's process answers with a small one; where its tunnel is held by the kernel, that answers. All else that is sent may be fragmented, so that a path
//! that has become narrower loses nothing until that is found out.
//!
//! What always holds: never less than the least size that was given, nor more than the largest; what was confirmed is confirmed again while
//! packets are sent, and given up when it is not.

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

/// Sizes of inner packets that are tried: of paths that carry 1,500 octets, or less as behind PPPoE and tunnels, by both families, and of such
/// that carry 9,000.
const SIZES: [u16; 12] = [
    1_280, 1_320, 1_340, 1_360, 1_380, 1_392, 1_400, 1_412, 1_420, 1_440, 8_920, 8_940,
];
/// The one that is tried first.
const USUAL: u16 = 1_420;
/// How long an answer is waited for, and how often a size is tried.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
/// What was confirmed is, again, after so long in which something was sent.
const CONFIRM: Duration = Duration::from_secs(15);
/// More is tried again (RFC 8899 §5.1.1).
const RAISE: Duration = Duration::from_secs(600);

/// A probe that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Tells its answer from others'.
    pub number: u16,
    /// Octets of the inner packet.
    pub size: u16,
}

/// What was found out, and what is next.
#[derive(Clone, Debug)]
pub struct Path {
    /// Ascending; the first is taken for granted.
    sizes: Vec<u16>,
    /// The place of the largest that is confirmed.
    confirmed: usize,
    /// That of the least that failed, or their number.
    failed: usize,
    number: u16,
    asked: Option<Asked>,
    /// When something is to be done while nothing is asked.
    next: Instant,
    raise: Instant,
}

/// A size that is being tried.
#[derive(Clone, Copy, Debug)]
struct Asked {
    place: usize,
    tries: u8,
    until: Instant,
}

impl Path {
    /// From `least` to `most`; nothing is tried where they are the same.
    pub fn new(least: u16, most: u16, now: Instant) -> Path {
        let between = SIZES
            .into_iter()
            .filter(|size| (least..=most).contains(size));
        let mut sizes: Vec<u16> = between.chain([least]).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Path {
            failed: sizes.len(),
            sizes,
            confirmed: 0,
            number: 0,
            asked: None,
            next: now,
            raise: now + RAISE,
        }
    }

    /// What packets may have.
    pub fn mtu(&self) -> u16 {
        self.size(self.confirmed)
    }

    /// Whether an answer is waited for.
    pub const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    fn size(&self, place: usize) -> u16 {
        let last = self.sizes.last().copied().unwrap_or(SIZES[0]);
        self.sizes.get(place).copied().unwrap_or(last)
    }

    /// The peer is elsewhere: what was confirmed may not hold, and more may.
    pub fn has_moved(&mut self, now: Instant) {
        self.failed = self.sizes.len();
        self.raise = now + RAISE;
        self.asked = None;
        match self.confirmed {
            0 => self.next = now,
            _ => self.next = now.min(self.next),
        }
    }

    /// What is to be sent now, if anything; `sends` says whether packets have been sent in the last time.
    pub fn due(&mut self, sends: bool, now: Instant) -> Option<Probe> {
        if let Some(asked) = self.asked {
            if now < asked.until {
                return None;
            }
            if asked.tries < TRIES {
                return Some(self.ask(asked.place, asked.tries + 1, now));
            }
            self.fails(now);
        }
        if now >= self.raise {
            self.failed = self.sizes.len();
            self.raise = now + RAISE;
            self.next = now;
        }
        if now < self.next {
            return None;
        }
        match self.untried() {
            Some(place) => Some(self.ask(place, 1, now)),
            None => {
                self.next = now + CONFIRM;
                let confirms = sends && self.confirmed > 0;
                confirms.then(|| self.ask(self.confirmed, 1, now))
            }
        }
    }

    /// The kernel did not send that: no interface on the way out takes it.
    pub fn is_too_large(&mut self, number: u16, now: Instant) {
        if self.asked.is_some() && number == self.number {
            self.fails(now);
        }
    }

    /// An answer has come; whether the MTU is another by that.
    pub fn hears(&mut self, number: u16, now: Instant) -> bool {
        let Some(asked) = self.asked.filter(|_| number == self.number) else {
            return false;
        };
        self.asked = None;
        self.next = now;
        if asked.place == self.confirmed {
            self.next = now + CONFIRM;
        }
        let before = self.confirmed;
        self.confirmed = asked.place.max(before);
        before != self.confirmed
    }

    fn ask(&mut self, place: usize, tries: u8, now: Instant) -> Probe {
        // Each try has a number of its own: a late answer to the one before counts for nothing.
        self.number = self.number.wrapping_add(1);
        self.asked = Some(Asked {
            place,
            tries,
            until: now + PATIENCE,
        });
        Probe {
            number: self.number,
            size: self.size(place),
        }
    }

    fn fails(&mut self, now: Instant) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        self.next = now;
        self.failed = self.failed.min(asked.place);
        if asked.place <= self.confirmed {
            self.confirmed = 0;
            self.failed = asked.place.max(1);
        }
    }

    /// The usual one, then what is larger, one by one; where something has failed, what halves the rest.
    fn untried(&self) -> Option<usize> {
        if self.confirmed + 1 >= self.failed {
            return None;
        }
        let usual = self.sizes.iter().position(|size| *size == USUAL);
        if let Some(usual) = usual.filter(|usual| (self.confirmed + 1..self.failed).contains(usual))
        {
            return Some(usual);
        }
        match self.failed == self.sizes.len() {
            true => Some(self.confirmed + 1),
            false => Some(usize::midpoint(self.confirmed, self.failed).max(self.confirmed + 1)),
        }
    }
}

const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// Network control (RFC 2474 §4.2.2.2): a full queue takes others first.
const TRAFFIC_CLASS: u8 = 0xc0;

/// The two ends of a tunnel, and what echoes between them bear.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Ours.
    pub own: Ipv6Addr,
    /// The peer's.
    pub peer: Ipv6Addr,
    /// Of our echo requests (RFC 4443 §4.1).
    pub identifier: u16,
}

impl Ends {
    /// An echo request, of at least 48 octets.
    pub fn request(&self, probe: Probe) -> Vec<u8> {
        let size = usize::from(probe.size).max(IPV6_HEADER + ICMP_HEADER);
        let mut packet = vec![0; size];
        let payload = u16::try_from(size - IPV6_HEADER).unwrap_or(u16::MAX);
        packet[0] = 0x60 | TRAFFIC_CLASS >> 4;
        packet[1] = TRAFFIC_CLASS << 4;
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        (packet[6], packet[7]) = (ICMPV6, 255);
        packet[8..24].copy_from_slice(&self.own.octets());
        packet[24..40].copy_from_slice(&self.peer.octets());
        packet[40] = ECHO_REQUEST;
        packet[44..46].copy_from_slice(&self.identifier.to_be_bytes());
        packet[46..48].copy_from_slice(&probe.number.to_be_bytes());
        let sum = checksum(&packet);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The answer to a probe of the peer, if that packet is one: as short as it can be, since it is the other direction's size that is in question.
    pub fn reply(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let header = packet.get(..IPV6_HEADER + ICMP_HEADER)?;
        let is_probe = header[..2] == [0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4]
            && (header[6], header[40]) == (ICMPV6, ECHO_REQUEST)
            && header[8..24] == self.peer.octets()
            && header[24..40] == self.own.octets();
        if !is_probe {
            return None;
        }
        let back = Ends {
            own: self.own,
            peer: self.peer,
            identifier: u16::from_be_bytes([header[44], header[45]]),
        };
        let number = u16::from_be_bytes([header[46], header[47]]);
        let mut reply = back.request(Probe { number, size: 0 });
        reply[40] = ECHO_REPLY;
        reply[42..44].fill(0);
        let sum = checksum(&reply);
        reply[42..44].copy_from_slice(&sum.to_be_bytes());
        Some(reply)
    }

    /// Which probe a packet of the peer answers, if it is an answer, or the first fragment of one; then also that fragment's identification.
    pub fn answered(&self, packet: &[u8]) -> Option<(u16, Option<[u8; 4]>)> {
        let from_peer = packet.get(8..24)? == self.peer.octets();
        let to_us = packet.get(24..40)? == self.own.octets();
        if packet[0] >> 4 != 6 || !from_peer || !to_us {
            return None;
        }
        let (at, fragment) = match packet[6] {
            ICMPV6 => (IPV6_HEADER, None),
            FRAGMENT => {
                let header: &[u8; FRAGMENT_HEADER] = packet.get(IPV6_HEADER..)?.first_chunk()?;
                let [ICMPV6, _, 0, 0 | 1, a, b, c, d] = *header else {
                    return None;
                };
                (IPV6_HEADER + FRAGMENT_HEADER, Some([a, b, c, d]))
            }
            _ => return None,
        };
        let icmp: &[u8; ICMP_HEADER] = packet.get(at..)?.first_chunk()?;
        let [ECHO_REPLY, 0, _, _, i, j, m, n] = *icmp else {
            return None;
        };
        let is_ours = u16::from_be_bytes([i, j]) == self.identifier;
        is_ours.then_some((u16::from_be_bytes([m, n]), fragment))
    }

    /// Whether a packet of the peer is a fragment with that identification.
    pub fn is_fragment(&self, packet: &[u8], identification: [u8; 4]) -> bool {
        packet.get(6) == Some(&FRAGMENT)
            && packet.get(8..24) == Some(&self.peer.octets())
            && packet.get(44..48) == Some(&identification)
    }
}

/// Of an ICMPv6 message behind its header (RFC 4443 §2.3).
fn checksum(packet: &[u8]) -> u16 {
    let len = packet.len() - IPV6_HEADER;
    let pseudo = u32::try_from(len).unwrap_or(0) + u32::from(ICMPV6);
    let words = packet[8..].chunks(2).map(|pair| match *pair {
        [a, b] => u32::from(u16::from_be_bytes([a, b])),
        [a] => u32::from(a) << 8,
        _ => 0,
    });
    let mut sum = words.fold(pseudo, |sum, word| sum.wrapping_add(word));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A path that carries that much, for so long; how many probes were sent.
    fn walk(path: &mut Path, carries: u16, (from, secs): (Instant, u64)) -> (Instant, u32) {
        let (mut now, mut probes) = (from, 0);
        let end = from + Duration::from_secs(secs);
        while now < end {
            if let Some(probe) = path.due(true, now) {
                probes += 1;
                if probe.size <= carries {
                    path.hears(probe.number, now + Duration::from_millis(20));
                }
            }
            now += Duration::from_millis(250);
        }
        (now, probes)
    }

    #[test]
    fn usual_paths_are_known_after_a_few_probes() {
        let start = Instant::now();
        for (carries, found, most) in [
            (1_440, 1_440, 6),
            (1_420, 1_420, 5),
            (8_940, 8_940, 5),
            (1_419, 1_412, 16),
            (1_279, 1_280, 16),
            (1_350, 1_340, 16),
        ] {
            let mut path = Path::new(1_280, 9_000, start);
            let (_, probes) = walk(&mut path, carries, (start, 14));
            assert_eq!(path.mtu(), found, "{carries}");
            assert!(probes <= most, "{carries}: {probes}");
        }
    }

    #[test]
    fn what_becomes_narrower_is_noticed_and_what_becomes_wider_in_ten_minutes() {
        let start = Instant::now();
        let mut path = Path::new(1_280, 9_000, start);
        let (now, _) = walk(&mut path, 1_440, (start, 30));
        assert_eq!(path.mtu(), 1_440);
        let (now, _) = walk(&mut path, 1_350, (now, 40));
        assert_eq!(path.mtu(), 1_340);
        let (now, _) = walk(&mut path, 1_440, (now, 300));
        assert_eq!(path.mtu(), 1_340);
        let (now, _) = walk(&mut path, 1_440, (now, 400));
        assert_eq!(path.mtu(), 1_440);
        path.has_moved(now);
        assert_eq!(path.mtu(), 1_440, "until it is known to be less");
        walk(&mut path, 1_280, (now, 40));
        assert_eq!(path.mtu(), 1_280);
    }

    #[test]
    fn where_nothing_is_sent_nothing_is_confirmed() {
        let start = Instant::now();
        let mut path = Path::new(1_280, 9_000, start);
        let (now, _) = walk(&mut path, 1_440, (start, 30));
        for secs in 0..500 {
            assert_eq!(path.due(false, now + Duration::from_secs(secs)), None);
        }
        let mut fixed = Path::new(1_300, 1_300, start);
        assert_eq!(walk(&mut fixed, 9_000, (start, 1_000)).1, 0);
        assert_eq!(fixed.mtu(), 1_300);
    }

    #[test]
    fn late_and_foreign_answers_count_for_nothing() {
        let start = Instant::now();
        let mut path = Path::new(1_280, 9_000, start);
        let probe = path.due(true, start).unwrap();
        assert!(!path.hears(probe.number.wrapping_add(1), start));
        path.is_too_large(probe.number.wrapping_add(1), start);
        let later = start + PATIENCE;
        let again = path.due(true, later).unwrap();
        assert_eq!((again.size, again.number), (probe.size, probe.number + 1));
        assert!(!path.hears(probe.number, later));
        path.is_too_large(again.number, later);
        let next = path.due(true, later).unwrap();
        assert!(next.size < probe.size, "at once");
    }

    const ENDS: Ends = Ends {
        own: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        peer: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
        identifier: 0x6878,
    };

    /// As the peer's kernel answers.
    fn reply(mut request: Vec<u8>, fragment: Option<[u8; 4]>) -> Vec<u8> {
        let (own, peer) = (ENDS.own.octets(), ENDS.peer.octets());
        request[8..24].copy_from_slice(&peer);
        request[24..40].copy_from_slice(&own);
        request[40] = ECHO_REPLY;
        if let Some([a, b, c, d]) = fragment {
            request[6] = FRAGMENT;
            request.splice(40..40, [ICMPV6, 0, 0, 1, a, b, c, d]);
        }
        request
    }

    #[test]
    fn a_request_is_a_good_packet_and_its_answer_is_known() {
        for size in [48, 1_280, 1_421, 8_940] {
            let probe = Probe { number: 7, size };
            let request = ENDS.request(probe);
            assert_eq!(request.len(), usize::from(size));
            assert_eq!(checksum(&request), 0);
            assert_eq!(ENDS.answered(&request), None, "it is no answer");
            let there = Ends {
                own: ENDS.peer,
                peer: ENDS.own,
                identifier: 1,
            };
            let short = there.reply(&request).unwrap();
            assert_eq!((short.len(), checksum(&short)), (48, 0));
            assert_eq!(ENDS.answered(&short), Some((7, None)));
            assert_eq!(there.reply(&short), None, "it is no request");
            assert_eq!(ENDS.reply(&request), None, "it is our own");
            let mut ping = request.clone();
            ping[..2].copy_from_slice(&[0x60, 0]);
            assert_eq!(there.reply(&ping), None, "it is somebody else's");
            let answer = reply(request.clone(), None);
            assert_eq!(ENDS.answered(&answer), Some((7, None)));
            let identification = [1, 2, 3, 4];
            let first = reply(request, Some(identification));
            assert_eq!(ENDS.answered(&first), Some((7, Some(identification))));
            assert!(ENDS.is_fragment(&first, identification));
            assert!(!ENDS.is_fragment(&first, [1, 2, 3, 5]));
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = (ENDS.answered(&octets), ENDS.reply(&octets));
            let _ = ENDS.is_fragment(&octets, [0; 4]);
        }

        #[test]
        fn whatever_happens_it_stays_within_its_bounds(
            steps in prop::collection::vec((0u8..5, 0u64..4_000), 0..200), most in 1_280u16..9_000
        ) {
            let mut now = Instant::now();
            let mut path = Path::new(1_280, most, now);
            let mut last = 0;
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 => path.has_moved(now),
                    1 => path.is_too_large(last, now),
                    2 => drop(path.hears(last, now)),
                    _ => if let Some(probe) = path.due(step == 3, now) {
                        last = probe.number;
                        prop_assert!((1_280..=most).contains(&probe.size));
                    },
                }
                prop_assert!((1_280..=most).contains(&path.mtu()));
            }
        }
    }
}
