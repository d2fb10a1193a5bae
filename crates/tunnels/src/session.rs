//! The cryptographic half of a tunnel: WireGuard's handshake, keys and timers, by boringtun.
//!
//! What comes from the network is the peer's only after this has opened it.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use boringtun::noise::{Tunn, TunnResult};

use crate::Spec;

/// Octets that a sealed packet has beside what is in it.
pub const OVERHEAD: usize = 32;
/// The longest message of a handshake, in octets.
pub const HANDSHAKE: usize = 148;

const DATA: u8 = 4;
const COOKIE: u8 = 3;
/// The first octet of a handshake's first message.
pub const GREETING: u8 = 1;
/// How often one answer is given at most: to all addresses of ours, for a second.
const MAX_AGAIN: u8 = 160;
/// Of two who begin at once, the one with the lower key hears nothing of the other's handshake for so long: its own is on its way.
const INSISTS: Duration = Duration::from_millis(300);

/// One tunnel's keys.
pub struct Session {
    tunn: Tunn,
    persistent: bool,
    answered: Option<Answered>,
    /// Whether its handshake is the one that counts if both begin.
    insists: bool,
    /// When its handshake was begun that nobody has answered.
    begun: Option<Instant>,
}

/// A handshake's first message and the answer to it. The same octets may come by several ways, and be answered by one only.
struct Answered {
    greeting: [u8; HANDSHAKE],
    answer: Vec<u8>,
    left: u8,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A packet for the device, whose length is what its header says.
    Packet(&'a mut [u8]),
    /// The peer's, and nothing for the device.
    Nothing,
    /// The peer's; this goes back to it, and then what [`Session::next_waiting`] gives.
    Answer(&'a mut [u8]),
    /// Perhaps a stranger's, or what was answered before; this goes back to where it came from.
    Challenge(&'a mut [u8]),
    /// Not the peer's, or it came twice, or not to be understood.
    Refused,
}

impl Session {
    /// Without any keys yet.
    pub fn new(spec: &Spec, index: u32) -> Session {
        let keepalive = (spec.keepalive_secs > 0).then_some(spec.keepalive_secs);
        Session {
            tunn: Tunn::new(
                spec.private_key.secret(),
                spec.peer_key.public_key(),
                spec.preshared_key.as_ref().map(crate::Key::octets),
                keepalive,
                index,
                None,
            ),
            persistent: keepalive.is_some(),
            answered: None,
            insists: spec.private_key.public().octets() < spec.peer_key.octets(),
            begun: None,
        }
    }

    /// Seals a packet: octets of `out` to be sent, which are a handshake's first message while there are no keys. The packet waits then.
    /// `out` has room for the packet, [`OVERHEAD`], and [`HANDSHAKE`] besides.
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> usize {
        if out.len() < packet.len() + OVERHEAD + HANDSHAKE {
            return 0;
        }
        let len = sent(self.tunn.encapsulate(packet, out));
        self.begins(out.first().filter(|_| len > 0).copied());
        len
    }

    /// A message is sent that begins with this.
    fn begins(&mut self, first: Option<u8>) {
        if first == Some(GREETING) {
            self.begun = Some(Instant::now());
        }
    }

    /// Opens a datagram. `out` has room for it, and for [`HANDSHAKE`] besides.
    pub fn open<'a>(&mut self, from: IpAddr, datagram: &[u8], out: &'a mut [u8]) -> Opened<'a> {
        // An empty one would ask for what waits.
        let Some(kind) = datagram.first().copied() else {
            return Opened::Refused;
        };
        if out.len() < datagram.len() + HANDSHAKE {
            return Opened::Refused;
        }
        if kind == GREETING && self.is_answered(datagram) {
            return self.answer_again(out);
        }
        let begun = self.begun.filter(|_| self.insists && kind == GREETING);
        if begun.is_some_and(|begun| begun.elapsed() < INSISTS) {
            // Two that cross would leave each with half of each. It comes again.
            return Opened::Refused;
        }
        match self.tunn.decapsulate(Some(from), datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet)
            }
            TunnResult::WriteToNetwork(answer) if answer.first() == Some(&COOKIE) => {
                Opened::Challenge(answer)
            }
            TunnResult::WriteToNetwork(answer) => {
                self.begun = None;
                if let Ok(greeting) = datagram.try_into() {
                    self.answered = Some(Answered {
                        greeting,
                        answer: answer.to_vec(),
                        left: MAX_AGAIN,
                    });
                }
                Opened::Answer(answer)
            }
            TunnResult::Done if kind == DATA => Opened::Nothing,
            TunnResult::Done | TunnResult::Err(_) => Opened::Refused,
        }
    }

    fn is_answered(&self, greeting: &[u8]) -> bool {
        self.answered
            .as_ref()
            .is_some_and(|answered| answered.greeting == greeting)
    }

    fn answer_again<'a>(&mut self, out: &'a mut [u8]) -> Opened<'a> {
        let Some(answered) = self.answered.as_mut().filter(|answered| answered.left > 0) else {
            return Opened::Refused;
        };
        answered.left -= 1;
        match out.get_mut(..answered.answer.len()) {
            Some(out) => {
                out.copy_from_slice(&answered.answer);
                Opened::Challenge(out)
            }
            None => Opened::Refused,
        }
    }

    /// Seals the next packet that waited for keys: octets of `out`.
    pub fn next_waiting(&mut self, out: &mut [u8]) -> usize {
        sent(self.tunn.decapsulate(None, &[], out))
    }

    /// Begins a handshake, unless one is going on: octets of `out` to be sent.
    pub fn begin(&mut self, out: &mut [u8; HANDSHAKE]) -> usize {
        let len = sent(self.tunn.format_handshake_initiation(out, false));
        self.begins(out.first().filter(|_| len > 0).copied());
        len
    }

    /// Begins a handshake, even if one is going on: octets of `out` to be sent.
    pub fn begin_anew(&mut self, out: &mut [u8; HANDSHAKE]) -> usize {
        let len = sent(self.tunn.format_handshake_initiation(out, true));
        self.begins(out.first().filter(|_| len > 0).copied());
        len
    }

    /// What time asks for: octets of `out` to be sent. To be called some times a second.
    pub fn tick(&mut self, out: &mut [u8; HANDSHAKE], searching: bool) -> usize {
        match self.tunn.update_timers(out) {
            // It gave up, as WireGuard does after 90 seconds without an answer.
            TunnResult::Err(_) if self.persistent || searching => self.begin(out),
            result => {
                let len = sent(result);
                self.begins(out.first().filter(|_| len > 0).copied());
                len
            }
        }
    }

    /// Seconds since keys were agreed upon that still hold.
    pub fn since_handshake(&self) -> Option<u64> {
        self.tunn
            .time_since_last_handshake()
            .map(|time| time.as_secs())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}

fn sent(result: TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(datagram) => datagram.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Listen, Mtu};

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn session(own: u8, peer: u8) -> Session {
        let spec = Spec {
            name: "wg0".parse().unwrap(),
            private_key: Key::from([own; 32]),
            peer_key: Key::from([peer; 32]).public(),
            preshared_key: None,
            listen: Listen::Own("[::]:0".parse().unwrap()),
            uplink: None,
            endpoint: None,
            candidates: Vec::new(),
            keepalive_secs: 0,
            mtu: Mtu::try_from(1_420).unwrap(),
            most_mtu: None,
            segments: true,
        };
        Session::new(&spec, u32::from(own))
    }

    /// A packet of IPv4 with that many octets, filled up.
    fn packet(len: u8) -> Vec<u8> {
        let mut packet = vec![0; usize::from(len).next_multiple_of(16)];
        (packet[0], packet[3]) = (0x45, len);
        packet
    }

    fn opened(session: &mut Session, datagram: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2_000];
        match session.open(STRANGER, datagram, &mut out) {
            Opened::Packet(octets) | Opened::Answer(octets) => octets.to_vec(),
            Opened::Nothing => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    fn refuses(session: &mut Session, datagram: &[u8]) -> bool {
        session.open(STRANGER, datagram, &mut vec![0; 70_000]) == Opened::Refused
    }

    /// The first message of a handshake, while a packet waits.
    fn greeting(from: &mut Session) -> Vec<u8> {
        let mut out = vec![0; 2_000];
        let len = from.seal(&packet(40), &mut out);
        assert_eq!(len, HANDSHAKE);
        out[..len].to_vec()
    }

    fn agreed() -> (Session, Session) {
        let (mut a, mut b) = (session(1, 2), session(2, 1));
        let first = greeting(&mut a);
        let second = opened(&mut b, &first);
        let third = opened(&mut a, &second);
        assert_eq!(opened(&mut b, &third), Vec::<u8>::new());
        (a, b)
    }

    #[test]
    fn a_packet_waits_for_keys_and_comes_without_what_filled_it_up() {
        let (mut a, mut b) = agreed();
        let mut out = vec![0; 2_000];
        let len = a.next_waiting(&mut out);
        assert_eq!(len, 48 + OVERHEAD);
        assert_eq!(opened(&mut b, &out[..len]), packet(40)[..40]);
        assert_eq!(a.next_waiting(&mut out), 0);
        let len = b.seal(&packet(33), &mut out);
        assert_eq!(opened(&mut a, &out[..len]), packet(33)[..33]);
        assert!(a.since_handshake().is_some());
    }

    #[test]
    fn what_comes_twice_changed_or_from_somebody_else_is_refused() {
        let (mut a, mut b) = agreed();
        let mut out = vec![0; 2_000];
        let len = a.seal(&packet(40), &mut out);
        let sealed = out[..len].to_vec();
        for at in [0, 4, 8, 16, len - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(refuses(&mut b, &changed), "{at}");
        }
        assert_eq!(opened(&mut b, &sealed).len(), 40);
        assert!(refuses(&mut b, &sealed));
        let first = greeting(&mut session(3, 2));
        assert!(refuses(&mut b, &first));
    }

    /// The first octets that are heard are answered, and the same ones again wherever they come from.
    #[test]
    fn what_was_answered_is_answered_the_same_again_and_nobody_met() {
        let (mut a, mut b) = (session(1, 2), session(2, 1));
        let first = greeting(&mut a);
        let second = opened(&mut b, &first);
        let mut out = vec![0; 2_000];
        for _ in 0..MAX_AGAIN {
            match b.open(STRANGER, &first, &mut out) {
                Opened::Challenge(again) => assert_eq!(again, second),
                other => panic!("{other:?}"),
            }
        }
        assert!(refuses(&mut b, &first));
        let third = opened(&mut a, &second);
        assert_eq!(opened(&mut b, &third), Vec::<u8>::new());
    }

    /// Both begin, and each has another packet that waits between the other's first message and the answer to its own.
    #[test]
    fn of_two_who_begin_at_once_one_is_heard() {
        let (mut a, mut b) = (session(1, 2), session(2, 1));
        let (from_a, from_b) = (greeting(&mut a), greeting(&mut b));
        let mut out = vec![0; 2_000];
        let insists = [a.insists, b.insists];
        assert_ne!(insists[0], insists[1]);
        let (first, second, greeting, ignored) = match a.insists {
            true => (&mut a, &mut b, from_a, from_b),
            false => (&mut b, &mut a, from_b, from_a),
        };
        assert!(refuses(first, &ignored));
        let answer = opened(second, &greeting);
        second.seal(&packet(40), &mut out);
        first.seal(&packet(40), &mut out);
        let confirmed = opened(first, &answer);
        assert_eq!(opened(second, &confirmed), Vec::<u8>::new());
        assert!(first.since_handshake().is_some() && second.since_handshake().is_some());
    }

    #[test]
    fn nobody_insists_for_long() {
        let (mut a, mut b) = (session(1, 2), session(2, 1));
        let (from_a, from_b) = (greeting(&mut a), greeting(&mut b));
        let (first, ignored) = match a.insists {
            true => (&mut a, from_b),
            false => (&mut b, from_a),
        };
        assert!(refuses(first, &ignored));
        first.begun = first.begun.and_then(|at| at.checked_sub(INSISTS));
        assert!(!opened(first, &ignored).is_empty());
    }

    /// The tenth handshake within a second, and those after it.
    #[test]
    fn a_crowd_of_strangers_has_to_show_that_it_hears_what_is_said() {
        let mut b = session(2, 1);
        let mut out = vec![0; 2_000];
        let mut challenged = 0;
        for _ in 0..30 {
            let first = greeting(&mut session(3, 2));
            match b.open(STRANGER, &first, &mut out) {
                Opened::Challenge(challenge) => {
                    assert!(challenge.len() < first.len(), "no amplifier");
                    challenged += 1;
                }
                other => assert_eq!((other, challenged), (Opened::Refused, 0)),
            }
        }
        assert!(challenged >= 20, "{challenged}");
    }

    #[test]
    fn no_length_is_too_short_or_too_long() {
        let (mut a, mut b) = agreed();
        let mut out = vec![0; 2_000];
        let len = a.seal(&packet(40), &mut out);
        for kind in 0..6 {
            for len in (0..200).chain([65_535]) {
                let mut datagram = vec![0; len];
                if let Some(first) = datagram.first_mut() {
                    *first = kind;
                }
                assert!(refuses(&mut b, &datagram));
            }
        }
        for short in 0..len {
            assert!(refuses(&mut b, &out[..short]));
        }
        assert_eq!(b.open(STRANGER, &out[..len], &mut [0; 90]), Opened::Refused);
        assert_eq!(a.seal(&packet(40), &mut [0; 100]), 0);
    }

    #[test]
    fn time_alone_asks_for_nothing_at_first() {
        let (mut a, _) = agreed();
        assert_eq!(a.tick(&mut [0; HANDSHAKE], true), 0);
        assert_eq!(a.begin(&mut [0; HANDSHAKE]), HANDSHAKE);
        assert_eq!(a.begin(&mut [0; HANDSHAKE]), 0, "one goes on");
    }
}
