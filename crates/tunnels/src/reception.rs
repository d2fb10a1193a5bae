//! Hands on what came at a door, or by streams. It is a stranger's until a tunnel has opened it: here it is only said which tunnel is to
//! try, by the index that it gave to its session, or by the first MAC of a handshake, which names the receiver's key.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use hextet_types::Way;

use crate::{
    budget::Budget,
    inbox::Inbox,
    letters::{Letter, Letters, is_letter},
    wire::Kind,
};

/// Comparisons of a handshake's first MAC: about a microsecond each.
const COMPARISONS_EACH_SECOND: u32 = 100_000;
/// Letters that are handed on, each of which whoever drives the node may have to verify.
const LETTERS_EACH_SECOND: u32 = 1_000;

/// Who is heard there.
#[derive(Debug)]
pub struct Reception {
    /// The door that letters name; none for streams.
    door: SocketAddr,
    tunnels: Mutex<BTreeMap<u32, Arc<Inbox>>>,
    letters: Arc<Letters>,
    comparisons: Budget,
    letters_in: Budget,
    refused: AtomicU64,
}

impl Reception {
    pub fn new(letters: Arc<Letters>, door: Option<SocketAddr>) -> Reception {
        let now = Instant::now();
        Reception {
            door: door.unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into()),
            tunnels: Mutex::default(),
            letters,
            comparisons: Budget::new(COMPARISONS_EACH_SECOND, now),
            letters_in: Budget::new(LETTERS_EACH_SECOND, now),
            refused: AtomicU64::new(0),
        }
    }

    /// How many tunnels.
    pub fn tunnels(&self) -> usize {
        self.of_index().len()
    }

    /// What was for nobody, or beyond what is granted.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// A tunnel is to be heard here.
    pub fn admit(&self, tunnel: &Arc<Inbox>) {
        self.of_index().insert(tunnel.index(), Arc::clone(tunnel));
    }

    /// It is not any longer.
    pub fn dismiss(&self, tunnel: &Inbox) {
        self.of_index().remove(&tunnel.index());
    }

    fn of_index(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Inbox>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a datagram on to whom it is for; whether it is for anybody.
    pub fn take(&self, from: Way, datagram: &[u8]) -> bool {
        let taken = match Kind::of(datagram) {
            Kind::Letter => self.letter(from, datagram),
            Kind::Session(index) => {
                let tunnel = self.of_index().get(&(index >> 8)).map(Arc::clone);
                tunnel.map(|tunnel| tunnel.put(from, datagram)).is_some()
            }
            Kind::Greeting => self.greeting(from, datagram),
            Kind::Nothing => false,
        };
        if !taken {
            self.refused.fetch_add(1, Relaxed);
        }
        taken
    }

    fn letter(&self, from: Way, octets: &[u8]) -> bool {
        let fits = is_letter(octets) && self.letters_in.takes(Instant::now());
        if fits {
            self.letters.deliver(&Letter {
                door: self.door,
                other: from,
                octets: octets.to_vec(),
            });
        }
        fits
    }

    /// Tunnels whose peer may well be there are asked first, and always: strangers can't use up their comparisons.
    fn greeting(&self, from: Way, datagram: &[u8]) -> bool {
        let tunnels = self.of_index();
        let ip = from.address().ip();
        let expecting = tunnels.values().filter(|tunnel| tunnel.expects(ip));
        let other = tunnels.values().filter(|tunnel| !tunnel.expects(ip));
        let other = other.take_while(|_| self.comparisons.takes(Instant::now()));
        let tunnel = expecting
            .chain(other)
            .find(|tunnel| tunnel.is_for(Kind::Greeting, datagram))
            .map(Arc::clone);
        drop(tunnels);
        tunnel.map(|tunnel| tunnel.put(from, datagram)).is_some()
    }
}
