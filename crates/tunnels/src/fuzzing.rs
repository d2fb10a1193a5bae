//! What comes from the network, at one door for its fuzz target.

use std::net::{IpAddr, Ipv4Addr};

use hextet_wg::segment::Merger;

use crate::{
    Key, Listen, Mtu, Spec,
    letters::Letter,
    session::{Opened, Session},
    streams::{Frames, push},
    wire::Kind,
};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ROOM: usize = 140_000;

/// Two ends that have agreed on keys.
#[derive(Debug)]
pub struct Ends {
    peer: Session,
    ours: Session,
    out: Vec<u8>,
    sealed: Vec<u8>,
    merger: Merger,
}

impl Ends {
    /// Agrees; nothing if that is not possible.
    pub fn agreed() -> Option<Ends> {
        let mut ends = Ends {
            peer: session(1, 2)?,
            ours: session(2, 1)?,
            out: vec![0; ROOM],
            sealed: vec![0; ROOM],
            merger: Merger::new(true),
        };
        let mut buffer = vec![0; ROOM];
        let first = ends.peer.seal(&[0; 16], &mut buffer);
        let Opened::Answer(second) = ends.ours.open(FROM, &buffer[..first], &mut ends.out) else {
            return None;
        };
        let Opened::Answer(third) = ends.peer.open(FROM, second, &mut buffer) else {
            return None;
        };
        let third = third.to_vec();
        (ends.open(&third) == Some(0)).then_some(ends)
    }

    /// Octets of the packet in a datagram of anybody; nothing if it is refused.
    pub fn open(&mut self, datagram: &[u8]) -> Option<usize> {
        match self.ours.open(FROM, datagram, &mut self.out) {
            Opened::Packet(packet) => {
                let len = packet.len();
                while !self.merger.push(packet) {
                    self.merger.take(&mut self.sealed);
                    self.sealed.resize(ROOM, 0);
                }
                Some(len)
            }
            Opened::Nothing => Some(0),
            Opened::Answer(answer) | Opened::Challenge(answer) => {
                assert!(answer.len() <= 148, "an answer of {} octets", answer.len());
                None
            }
            Opened::Refused => None,
        }
    }

    /// What a door and whoever reads letters make of a datagram of anybody; the same again from a letter that was one.
    pub fn knock(datagram: &[u8]) {
        let kind = Kind::of(datagram);
        let letter = Letter::decode(datagram);
        if let Some(letter) = &letter {
            assert_eq!(Kind::of(&letter.octets), Kind::Letter);
            assert_eq!(
                letter.encode().and_then(|it| Letter::decode(&it)),
                Some(letter.clone())
            );
        }
        assert!(datagram.len() >= 8 || !matches!(kind, Kind::Session(_)));
    }

    /// What the end of a stream makes of the octets of anybody: each datagram, put into a stream again, is the same there.
    pub fn stream(octets: &[u8]) {
        let mut frames = Frames::default();
        let (mut again, mut all) = (Vec::new(), 0);
        for piece in octets.chunks(7) {
            frames.push(piece);
            while let Ok(Some(frame)) = frames.next() {
                assert!(push(&mut again, frame));
                all += frame.len() + 2;
            }
        }
        assert_eq!(octets.get(..all), Some(&again[..]));
    }

    /// Octets of the packet that comes, where the peer itself sends these octets as one; nothing if it is refused.
    pub fn send(&mut self, octets: &[u8]) -> Option<usize> {
        let datagram = self.seal(octets);
        self.open(&datagram)
    }

    /// As [`Ends::send`], but one octet on the way is another.
    pub fn send_changed(&mut self, octets: &[u8], at: usize, by: u8) -> Option<usize> {
        let mut datagram = self.seal(octets);
        let len = datagram.len();
        *datagram.get_mut(at % len)? ^= by.max(1);
        self.open(&datagram)
    }

    fn seal(&mut self, octets: &[u8]) -> Vec<u8> {
        let len = self.peer.seal(octets, &mut self.sealed);
        self.sealed[..len].to_vec()
    }
}

fn session(own: u8, peer: u8) -> Option<Session> {
    let spec = Spec {
        name: "wg0".parse().ok()?,
        private_key: Key::from([own; 32]),
        peer_key: Key::from([peer; 32]).public(),
        preshared_key: None,
        listen: Listen::Own("[::]:0".parse().ok()?),
        uplink: None,
        endpoint: None,
        candidates: Vec::new(),
        keepalive_secs: 0,
        mtu: Mtu::try_from(1_420).ok()?,
        most_mtu: None,
        segments: true,
    };
    Some(Session::new(&spec, u32::from(own)))
}
