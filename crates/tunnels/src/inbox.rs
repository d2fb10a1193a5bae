//! What came at a door for one tunnel, until the tunnel's own thread takes it.

use std::{
    fmt,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use boringtun::{noise::rate_limiter::RateLimiter, x25519::PublicKey};
use hextet_types::Way;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::wire::Kind;

/// Datagrams that wait at most. More are for one whose sender is nobody yet.
const MAX_DATAGRAMS: usize = 300;
/// Octets that wait at most.
const MAX_OCTETS: usize = 512 << 10;

/// A datagram, and who sent it.
pub type Datagram = (Way, Vec<u8>);

/// One tunnel, as doors see it.
pub struct Inbox {
    index: u32,
    greetings: RateLimiter,
    expected: Mutex<Vec<IpAddr>>,
    waiting: Mutex<(Vec<Datagram>, usize)>,
    is_any: AtomicBool,
    wake: EventFd,
}

impl Inbox {
    /// For the tunnel with this index and this public key of ours.
    pub fn new(index: u32, own: &PublicKey) -> nix::Result<Inbox> {
        Ok(Inbox {
            index,
            // It only compares: the tunnel itself limits.
            greetings: RateLimiter::new(own, u64::MAX),
            expected: Mutex::default(),
            waiting: Mutex::default(),
            is_any: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        })
    }

    /// Which sessions are this tunnel's: the upper 24 bits of their indices.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Whether the datagram is for this tunnel, as far as anybody can see from outside.
    pub fn is_for(&self, kind: Kind, datagram: &[u8]) -> bool {
        match kind {
            Kind::Session(index) => index >> 8 == self.index,
            // `mac1` is made of the receiver's public key.
            Kind::Greeting => self
                .greetings
                .verify_packet(None, datagram, &mut [])
                .is_ok(),
            Kind::Letter | Kind::Nothing => false,
        }
    }

    /// The peer is at one of these now.
    pub fn expect(&self, peer: Vec<IpAddr>) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = peer;
    }

    /// Whether the peer may be there.
    pub fn expects(&self, from: IpAddr) -> bool {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.contains(&from)
    }

    /// Keeps a datagram, if there is room.
    pub fn put(&self, from: Way, datagram: &[u8]) {
        let mut waiting = self.waiting();
        let (datagrams, octets) = &mut *waiting;
        if datagrams.len() >= MAX_DATAGRAMS || *octets + datagram.len() > MAX_OCTETS {
            return;
        }
        *octets += datagram.len();
        datagrams.push((from, datagram.to_vec()));
        if !self.is_any.swap(true, SeqCst) {
            let _ = self.wake.write(1);
        }
    }

    /// All that waits, in the order in which it came.
    pub fn take(&self) -> Vec<Datagram> {
        if !self.is_any.load(SeqCst) {
            return Vec::new();
        }
        let mut waiting = self.waiting();
        let _ = self.wake.read();
        self.is_any.store(false, SeqCst);
        let (datagrams, _) = std::mem::take(&mut *waiting);
        datagrams
    }

    fn waiting(&self) -> MutexGuard<'_, (Vec<Datagram>, usize)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn it_keeps_a_bounded_number_of_datagrams_and_octets_in_their_order() {
        let inbox = Inbox::new(7, &Key::from([1; 32]).public().public_key()).unwrap();
        let from: Way = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(inbox.take(), []);
        for round in 0..3 {
            for number in 0..1_000_u32 {
                inbox.put(from, &number.to_be_bytes());
            }
            let taken = inbox.take();
            assert_eq!(taken.len(), MAX_DATAGRAMS, "{round}");
            assert_eq!(taken[1], (from, vec![0, 0, 0, 1]));
            inbox.put(from, &[0; 65_000]);
            inbox.put(from, &[0; MAX_OCTETS]);
            assert_eq!(inbox.take().len(), 1);
        }
    }
}
