//! What a tunnel counts, and when it last said and heard something.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Destinations that are counted at most; what goes to further ones until somebody asks is not.
pub const MAX_DESTINATIONS: usize = 1_024;

/// Both threads of a tunnel write it, whoever asks reads it.
#[derive(Debug)]
pub struct Tally {
    began: Instant,
    /// Of the interface, in octets.
    pub mtu: AtomicU16,
    sent: AtomicU64,
    heard: AtomicU64,
    /// Octets of inner packets that were sealed.
    pub octets_out: AtomicU64,
    /// Octets of inner packets that were opened.
    pub octets_in: AtomicU64,
    /// Datagrams that the kernel didn't send.
    pub unsent: AtomicU64,
    /// Datagrams that were not the peer's, or came twice.
    pub refused: AtomicU64,
    /// Packets that the device did not take, or that could not be cut.
    pub dropped: AtomicU64,
    /// Octets to each address since somebody asked last.
    destinations: Mutex<HashMap<IpAddr, u64>>,
}

impl Tally {
    pub fn new(mtu: u16) -> Tally {
        Tally {
            began: Instant::now(),
            mtu: AtomicU16::new(mtu),
            sent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            octets_out: AtomicU64::new(0),
            octets_in: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            destinations: Mutex::default(),
        }
    }

    /// A packet of the interface is to be sent, or as many as were merged into one.
    pub fn note_destination(&self, packet: &[u8]) {
        let Some(to) = destination(packet) else {
            return;
        };
        let mut all = self
            .destinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let has_room = all.len() < MAX_DESTINATIONS;
        match all.get_mut(&to) {
            Some(octets) => *octets += packet.len() as u64,
            None if has_room => drop(all.insert(to, packet.len() as u64)),
            None => {}
        }
    }

    /// Where packets went, and how many octets of them, since this was asked last.
    pub fn take_destinations(&self) -> HashMap<IpAddr, u64> {
        let mut all = self
            .destinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all)
    }

    /// Packets of the interface were sent.
    pub fn note_sent(&self, octets: usize) {
        self.octets_out.fetch_add(octets as u64, Relaxed);
        self.sent.store(self.elapsed(), Relaxed);
    }

    /// Something came that only the peer can have sent.
    pub fn note_heard(&self) {
        self.heard.store(self.elapsed(), Relaxed);
    }

    /// Milliseconds since a packet of the interface was sent last.
    pub fn since_sent(&self) -> Option<u64> {
        self.since(&self.sent)
    }

    /// Milliseconds since the peer was heard last.
    pub fn since_heard(&self) -> Option<u64> {
        self.since(&self.heard)
    }

    fn since(&self, when: &AtomicU64) -> Option<u64> {
        match when.load(Relaxed) {
            0 => None,
            when => Some(self.elapsed().saturating_sub(when)),
        }
    }

    /// Milliseconds, counted from 1: 0 is never.
    fn elapsed(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }
}

/// Of a packet of either family (RFC 791 §3.1, RFC 8200 §3); none of those to many.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    let to: IpAddr = match packet.first()? >> 4 {
        4 => Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
        6 => Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    (!to.is_multicast()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_counted_by_destination_until_somebody_asks() {
        let tally = Tally::new(1_280);
        let v4 = |last: u8| {
            let mut packet = [0; 28];
            (packet[0], packet[16], packet[19]) = (0x45, 10, last);
            packet
        };
        let mut v6 = [0; 40];
        (v6[0], v6[24], v6[39]) = (0x60, 0xfd, 7);
        let mut all = v6;
        all[24] = 0xff;
        for packet in [
            &v4(1)[..],
            &v4(2),
            &v4(1),
            &v6,
            &all,
            &v6[..39],
            &[],
            &[0x10; 60],
        ] {
            tally.note_destination(packet);
        }
        let found = tally.take_destinations();
        let expected: [(IpAddr, u64); 3] = [
            ("10.0.0.1".parse().unwrap(), 56),
            ("10.0.0.2".parse().unwrap(), 28),
            ("fd00::7".parse().unwrap(), 40),
        ];
        assert_eq!(found, HashMap::from(expected));
        assert!(tally.take_destinations().is_empty());
        for number in 0..2 * MAX_DESTINATIONS {
            let [.., high, low] = number.to_be_bytes();
            (v6[38], v6[39]) = (high, low);
            tally.note_destination(&v6);
        }
        assert_eq!(tally.take_destinations().len(), MAX_DESTINATIONS);
    }
}
