//! What a tunnel counts, and when it last said and heard something.

use std::{
    sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

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
        }
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
