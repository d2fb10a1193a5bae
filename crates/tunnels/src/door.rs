//! A door: one UDP port for all tunnels of a node, and for its letters.
//!
//! The door's own socket is connected to nobody. A tunnel whose peer has proved where it is has a socket besides that is bound to the same
//! port and connected to that peer: the kernel prefers it, and so each tunnel keeps its own thread, its own order, and datagrams that come
//! many at once. Everything is sent by the door's socket, from whichever address routes say at that time.
//!
//! What comes at the door itself is a stranger's until a tunnel has opened it. Here it is only said which tunnel is to try: by the index
//! that it gave to its session, or by the first MAC of a handshake, which names the receiver's key.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use hextet_types::IfName;

use crate::{
    budget::Budget,
    control::DoorStatus,
    datagrams::{self, MANY},
    inbox::Inbox,
    letters::{Letter, Letters, is_letter},
    wire::Kind,
};

/// Doors of a process at most.
pub const MAX_DOORS: usize = 16;
/// After something that the socket could not do.
const PAUSE: Duration = Duration::from_millis(10);
/// Comparisons of a handshake's first MAC: about a microsecond each.
const COMPARISONS_EACH_SECOND: u32 = 100_000;
/// Letters that are handed on, each of which whoever drives the node may have to verify.
const LETTERS_EACH_SECOND: u32 = 1_000;

/// One port of the process.
#[derive(Debug)]
pub struct Door {
    asked: SocketAddr,
    address: SocketAddr,
    uplink: Option<IfName>,
    socket: UdpSocket,
    tunnels: Mutex<BTreeMap<u32, Arc<Inbox>>>,
    /// Who is heard by a socket of its own.
    peers: Mutex<BTreeSet<SocketAddr>>,
    letters: Arc<Letters>,
    comparisons: Budget,
    letters_in: Budget,
    refused: AtomicU64,
}

impl Door {
    /// Opens it. It stands as long as the process does.
    ///
    /// # Errors
    ///
    /// Somebody has the port.
    pub fn open(
        asked: SocketAddr,
        uplink: Option<IfName>,
        letters: Arc<Letters>,
    ) -> io::Result<Arc<Door>> {
        let socket = datagrams::open_door(asked, uplink.as_ref())?;
        let now = Instant::now();
        let door = Arc::new(Door {
            asked,
            address: socket.local_addr()?,
            uplink,
            socket,
            tunnels: Mutex::default(),
            peers: Mutex::default(),
            letters,
            comparisons: Budget::new(COMPARISONS_EACH_SECOND, now),
            letters_in: Budget::new(LETTERS_EACH_SECOND, now),
            refused: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&door);
        let thread = thread::Builder::new().name("door".to_owned());
        thread.spawn(move || of_thread.run())?;
        Ok(door)
    }

    /// Whether it is what was asked for by this address.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.asked == address || self.address == address
    }

    /// Where it is bound.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The interface that it is bound to.
    pub const fn uplink(&self) -> Option<&IfName> {
        self.uplink.as_ref()
    }

    /// By which everything is sent.
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How it stands.
    pub fn status(&self) -> DoorStatus {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        DoorStatus {
            address: self.address,
            uplink: self.uplink.clone(),
            tunnels: tunnels.len(),
            refused: self.refused.load(Relaxed),
        }
    }

    /// A socket that hears only that peer, and everything of it; nothing if some tunnel has it already, which hands on what is not its own.
    pub fn connect(self: &Arc<Self>, peer: SocketAddr) -> io::Result<Option<Ear>> {
        if !self.peers().insert(peer) {
            return Ok(None);
        }
        let door = Arc::clone(self);
        match datagrams::connect(self.address, self.uplink.as_ref(), peer) {
            Ok(socket) => Ok(Some(Ear { socket, peer, door })),
            Err(error) => {
                self.peers().remove(&peer);
                Err(error)
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tunnel is to be heard here.
    pub fn admit(&self, tunnel: &Arc<Inbox>) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.insert(tunnel.index(), Arc::clone(tunnel));
    }

    /// It is not any longer.
    pub fn dismiss(&self, tunnel: &Inbox) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.remove(&tunnel.index());
    }

    fn run(&self) {
        let mut came = vec![0; MANY];
        loop {
            let Ok((len, from)) = self.socket.recv_from(&mut came) else {
                thread::sleep(PAUSE);
                continue;
            };
            self.take(from, came.get(..len).unwrap_or_default());
        }
    }

    /// Hands a datagram on to whom it is for.
    pub fn take(&self, from: SocketAddr, datagram: &[u8]) {
        let taken = match Kind::of(datagram) {
            Kind::Letter => self.letter(from, datagram),
            Kind::Session(index) => {
                let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
                let tunnel = tunnels.get(&(index >> 8)).map(Arc::clone);
                drop(tunnels);
                tunnel.map(|tunnel| tunnel.put(from, datagram)).is_some()
            }
            Kind::Greeting => self.greeting(from, datagram),
            Kind::Nothing => false,
        };
        if !taken {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    fn letter(&self, from: SocketAddr, octets: &[u8]) -> bool {
        let fits = is_letter(octets) && self.letters_in.takes(Instant::now());
        if fits {
            self.letters.deliver(&Letter {
                door: self.address,
                other: from,
                octets: octets.to_vec(),
            });
        }
        fits
    }

    /// Tunnels whose peer may well be there are asked first, and always: strangers can't use up their comparisons.
    fn greeting(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        let ip = from.ip();
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

    /// Sends a letter; one that the uplink does not take is lost.
    fn send(&self, letter: &Letter) {
        let _ = datagrams::try_send(&self.socket, letter.other, &letter.octets);
    }
}

/// A socket at a door's port that hears only one peer.
#[derive(Debug)]
pub struct Ear {
    socket: UdpSocket,
    peer: SocketAddr,
    door: Arc<Door>,
}

impl Ear {
    /// Where that one is.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What it hears with.
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The socket that it would get now, if our own address is another by now.
    pub fn renewed(&self) -> io::Result<Option<UdpSocket>> {
        let door = &self.door;
        let socket = datagrams::connect(door.address, door.uplink.as_ref(), self.peer)?;
        Ok((socket.local_addr()? != self.socket.local_addr()?).then_some(socket))
    }

    /// Hears with that one from now on.
    pub fn renew(&mut self, socket: UdpSocket) {
        self.socket = socket;
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.door.peers().remove(&self.peer);
    }
}

/// All doors of a process, and its letters.
#[derive(Debug)]
pub struct Doors {
    doors: Mutex<Vec<Arc<Door>>>,
    letters: Arc<Letters>,
}

impl Doors {
    pub fn new(letters: Letters) -> Doors {
        Doors {
            doors: Mutex::default(),
            letters: Arc::new(letters),
        }
    }

    /// The door that was asked for, which is opened if it is not there.
    pub fn open(&self, asked: SocketAddr, uplink: Option<IfName>) -> Result<SocketAddr, String> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.iter().find(|door| door.is_at(asked)) {
            if door.uplink() != uplink.as_ref() {
                return Err(format!("the door {asked} stands, and has another uplink"));
            }
            return Ok(door.address());
        }
        if doors.len() >= MAX_DOORS {
            return Err(format!("there are {MAX_DOORS} doors already"));
        }
        let door = Door::open(asked, uplink, Arc::clone(&self.letters))
            .map_err(|error| format!("open the door {asked}: {error}"))?;
        let address = door.address();
        doors.push(door);
        Ok(address)
    }

    /// The door of that name.
    pub fn find(&self, address: SocketAddr) -> Option<Arc<Door>> {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors
            .iter()
            .find(|door| door.is_at(address))
            .map(Arc::clone)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Door>> {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.clone()
    }

    /// Sends what the node's driver writes, for ever.
    pub fn send_letters(&self) {
        loop {
            let Ok(Some(letter)) = self.letters.next() else {
                continue;
            };
            let any = letter.door.ip().is_unspecified() && letter.door.port() == 0;
            let door = self.all().into_iter().find(|door| {
                let family = door.address().is_ipv4() == letter.other.is_ipv4();
                family && (any || door.is_at(letter.door))
            });
            if let Some(door) = door {
                door.send(&letter);
            }
        }
    }
}
