//! A door: one UDP port for all tunnels of a node, and for its letters.
//!
//! The door's own socket is connected to nobody. A tunnel whose peer has proved where it is has a socket besides that is bound to the same
//! port and connected to that peer: the kernel prefers it, and so each tunnel keeps its own thread, its own order, and datagrams that come
//! many at once. Everything is sent by the door's socket, from whichever address routes say at that time.
//!
//! What comes at the door itself is handed on by its [`Reception`].

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use hextet_types::{IfName, Way};

use crate::{
    control::DoorStatus,
    datagrams::{self, MANY},
    letters::Letters,
    reception::Reception,
    streams::Streams,
};

/// Doors of a process at most.
pub const MAX_DOORS: usize = 16;
/// After something that the socket could not do.
const PAUSE: Duration = Duration::from_millis(10);

/// One port of the process.
#[derive(Debug)]
pub struct Door {
    asked: SocketAddr,
    address: SocketAddr,
    uplink: Option<IfName>,
    socket: UdpSocket,
    /// Who is heard by a socket of its own.
    peers: Mutex<BTreeSet<SocketAddr>>,
    reception: Reception,
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
        let address = socket.local_addr()?;
        let door = Arc::new(Door {
            asked,
            address,
            uplink,
            socket,
            peers: Mutex::default(),
            reception: Reception::new(letters, Some(address)),
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

    /// Who is heard here.
    pub const fn reception(&self) -> &Reception {
        &self.reception
    }

    /// How it stands.
    pub fn status(&self) -> DoorStatus {
        DoorStatus {
            address: Way::Udp(self.address),
            uplink: self.uplink.clone(),
            tunnels: self.reception.tunnels(),
            refused: self.reception.refused(),
            streams: 0,
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

    fn run(&self) {
        let mut came = vec![0; MANY];
        loop {
            let Ok((len, from)) = self.socket.recv_from(&mut came) else {
                thread::sleep(PAUSE);
                continue;
            };
            let datagram = came.get(..len).unwrap_or_default();
            self.reception.take(Way::Udp(from), datagram);
        }
    }

    /// Sends a letter; one that the uplink does not take is lost.
    fn send(&self, to: SocketAddr, octets: &[u8]) {
        let _ = datagrams::try_send(&self.socket, to, octets);
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

/// All doors of a process, its streams and its letters.
#[derive(Debug)]
pub struct Doors {
    doors: Mutex<Vec<Arc<Door>>>,
    streams: Arc<Streams>,
    letters: Arc<Letters>,
}

impl Doors {
    /// None yet.
    ///
    /// # Errors
    ///
    /// No TLS.
    pub fn new(letters: Letters) -> io::Result<Doors> {
        let letters = Arc::new(letters);
        Ok(Doors {
            doors: Mutex::default(),
            streams: Arc::new(Streams::new(Arc::clone(&letters))?),
            letters,
        })
    }

    /// The streams, of all doors.
    pub const fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// The door that was asked for, which is opened if it is not there.
    pub fn open(&self, asked: Way, uplink: Option<IfName>) -> Result<Way, String> {
        match asked {
            Way::Udp(asked) => self.open_udp(asked, uplink).map(Way::Udp),
            Way::Tls(asked) => {
                let opened = self.streams.open(asked, uplink, MAX_DOORS);
                opened.map(Way::Tls)
            }
        }
    }

    fn open_udp(&self, asked: SocketAddr, uplink: Option<IfName>) -> Result<SocketAddr, String> {
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
            let to = letter.other.address();
            let door = self.all().into_iter().find(|door| {
                let family = door.address().is_ipv4() == to.is_ipv4();
                family && (any || door.is_at(letter.door))
            });
            match (letter.other, door) {
                (Way::Tls(_), door) => {
                    let uplink = door.as_ref().and_then(|door| door.uplink());
                    self.streams.dial(to, uplink);
                    self.streams
                        .send(to, &letter.octets, &[letter.octets.len()]);
                }
                (Way::Udp(_), Some(door)) => door.send(to, &letter.octets),
                (Way::Udp(_), None) => {}
            }
        }
    }
}
