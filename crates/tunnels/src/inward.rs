//! From the socket to the device.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use hextet_types::Way;
use hextet_wg::segment::Merger;

use crate::{
    datagrams::{Came, MANY, MAX_RUN, Sender, receive},
    door::Ear,
    inbox::Inbox,
    session::{GREETING, HANDSHAKE, OVERHEAD, Opened, Session},
    tunnel::{Heard, Shared, Woken},
    ways::Ways,
    wire::Kind,
};

/// Of kernels that send more at once.
const MANY_DATAGRAMS: usize = 2 * MAX_RUN;

/// How long a socket hears a peer at least, until it is looked whether our own address is another.
const SETTLED: Duration = Duration::from_secs(10);

/// The other way of a tunnel.
pub struct Inward {
    shared: Arc<Shared>,
    sender: Sender,
    came: Vec<u8>,
    opened: Packets,
    merger: Merger,
    frame: Vec<u8>,
    ear: Option<Ear>,
    /// Of the answer to a probe whose first fragment has come.
    rest: Option<[u8; 4]>,
    /// When it is to be looked at again, should the peer be heard at the door itself.
    again: Instant,
}

/// What was opened of what came at once.
struct Packets {
    plain: Vec<u8>,
    /// Where in there packets for the device are.
    places: Vec<(usize, usize)>,
    /// What is to be sent for it, and whether to where it came from.
    answers: Vec<(Vec<u8>, bool)>,
    heard: Option<Heard>,
    refused: u64,
}

impl Inward {
    pub fn new(shared: Arc<Shared>) -> Inward {
        Inward {
            sender: Sender::new(false),
            came: vec![0; MANY],
            opened: Packets {
                plain: vec![0; MANY + HANDSHAKE],
                places: Vec::with_capacity(MANY_DATAGRAMS),
                answers: Vec::new(),
                heard: None,
                refused: 0,
            },
            merger: Merger::new(shared.datagrams),
            frame: Vec::new(),
            ear: None,
            rest: None,
            again: Instant::now(),
            shared,
        }
    }

    /// Until the tunnel ends.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.is_ending() {
            self.empty_inbox(&shared.ways);
            match self.receive(&shared.ways) {
                Ok(true) => {}
                Ok(false) => {
                    if self.wait(&shared) == Woken::ToEnd {
                        break;
                    }
                }
                // Of an earlier datagram that somebody refused.
                Err(_) => {}
            }
        }
        // There may be something of other tunnels.
        self.empty_ear(&shared.ways);
    }

    fn wait(&self, shared: &Shared) -> Woken {
        let ear = self.ear.as_ref().map(|ear| ear.socket().as_fd());
        let fds = match &shared.ways {
            Ways::Own(socket) => vec![socket.as_fd()],
            Ways::Doors(_, inbox, _) => ear.into_iter().chain([inbox.as_fd()]).collect(),
        };
        shared.wait(&fds, None)
    }

    /// What has come at the socket; whether there was one, and anything.
    fn receive(&mut self, ways: &Ways) -> io::Result<bool> {
        let socket = match ways {
            Ways::Own(socket) => socket,
            Ways::Doors(..) => match &self.ear {
                Some(ear) => ear.socket(),
                None => return Ok(false),
            },
        };
        match receive(socket, &mut self.came) {
            Ok(Some(came)) => {
                let octets = std::mem::take(&mut self.came);
                match ways {
                    Ways::Own(_) => self.carry(&came, &octets[..came.len]),
                    Ways::Doors(_, inbox, _) => self.carry_ours(&came, &octets, ways, inbox),
                }
                self.came = octets;
                Ok(true)
            }
            Ok(None) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The peer's node may have other tunnels and letters that come from the same address: these are handed on.
    fn carry_ours(&mut self, came: &Came, octets: &[u8], ways: &Ways, inbox: &Inbox) {
        let octets = &octets[..came.len];
        let ours = |datagram: &[u8]| inbox.is_for(Kind::of(datagram), datagram);
        if octets.chunks(came.each).all(ours) {
            self.carry(came, octets);
            return;
        }
        for datagram in octets.chunks(came.each) {
            if ours(datagram) {
                let (len, each) = (datagram.len(), datagram.len());
                self.carry(&Came { len, each, ..*came }, datagram);
            } else if let Some(door) = ways.door_to(came.from.address()) {
                door.reception().take(came.from, datagram);
            }
        }
    }

    fn empty_inbox(&mut self, ways: &Ways) {
        let Ways::Doors(_, inbox, _) = ways else {
            return;
        };
        for (from, datagram) in inbox.take() {
            let (len, each) = (datagram.len(), datagram.len().max(1));
            self.carry(&Came { len, each, from }, &datagram);
            if let Way::Udp(at) = from
                && self.opened.heard.is_some()
                && self.shared.is_at(from)
            {
                self.settle(at, ways);
            }
        }
    }

    /// The peer has been heard at a door: from now on, a socket of its own hears it. Without one, all comes by the door, and slower.
    fn settle(&mut self, peer: SocketAddr, ways: &Ways) {
        if let Some(ear) = self.ear.as_ref().filter(|ear| ear.peer() == peer) {
            let now = Instant::now();
            if now < self.again {
                return;
            }
            self.again = now + SETTLED;
            if let Ok(Some(socket)) = ear.renewed() {
                self.empty_ear(ways);
                if let Some(ear) = &mut self.ear {
                    ear.renew(socket);
                }
            }
            return;
        }
        let Some(Ok(Some(ear))) = ways.door_to(peer).map(|door| door.connect(peer)) else {
            return;
        };
        // What came before comes first.
        self.empty_ear(ways);
        self.shared.meet(Way::Udp(peer), Heard::Packet);
        self.ear = Some(ear);
        self.again = Instant::now() + SETTLED;
    }

    fn empty_ear(&mut self, ways: &Ways) {
        for _ in 0..MANY_DATAGRAMS {
            if self.ear.is_none() || !self.receive(ways).unwrap_or(false) {
                return;
            }
        }
    }

    fn carry(&mut self, came: &Came, octets: &[u8]) {
        {
            let mut session = self.shared.session();
            self.opened.open(&mut session, came, octets);
        }
        let tally = &self.shared.tally;
        tally.refused.fetch_add(self.opened.refused, Relaxed);
        if let Some(heard) = self.opened.heard {
            tally.note_heard();
            self.shared.meet(came.from, heard);
        }
        self.take_probes();
        for (answer, to_sender) in self.opened.answers.drain(..) {
            let to = to_sender.then_some(came.from);
            let len = answer.len();
            self.shared.send(&mut self.sender, &answer, &[len], to);
        }
        let octets: usize = self.opened.places.iter().map(|(_, len)| len).sum();
        let tally = &self.shared.tally;
        tally.octets_in.fetch_add(octets as u64, Relaxed);
        self.give();
    }

    /// Probes and their answers are nobody else's business; nor is the rest of an answer that came in fragments.
    fn take_probes(&mut self) {
        let (shared, rest) = (&self.shared, &mut self.rest);
        let (plain, answers) = (&self.opened.plain, &mut self.opened.answers);
        let expects_answers = shared.expects_answers();
        self.opened.places.retain(|&(at, len)| {
            let packet = &plain[at..at + len];
            if let Some(reply) = shared.ends.reply(packet) {
                let mut sealed = vec![0; reply.len() + OVERHEAD + HANDSHAKE];
                let len = shared.session().seal(&reply, &mut sealed);
                sealed.truncate(len);
                answers.push((sealed, false));
                return false;
            }
            if !expects_answers {
                return true;
            }
            if let Some((number, fragment)) = shared.ends.answered(packet) {
                shared.answered(number);
                *rest = fragment;
                return false;
            }
            !rest.is_some_and(|rest| shared.ends.is_fragment(packet, rest))
        });
    }

    fn give(&mut self) {
        let mut device = Device {
            shared: &self.shared,
            merger: &mut self.merger,
            frame: &mut self.frame,
        };
        for (at, len) in &self.opened.places {
            device.push(&self.opened.plain[*at..at + len]);
        }
        device.write();
    }
}

struct Device<'a> {
    shared: &'a Shared,
    merger: &'a mut Merger,
    frame: &'a mut Vec<u8>,
}

impl Device<'_> {
    fn push(&mut self, packet: &[u8]) {
        if !self.shared.segments || !self.merger.push(packet) {
            self.write();
            // An empty one takes everything.
            let _ = self.merger.push(packet);
        }
    }

    fn write(&mut self) {
        if self.merger.take(self.frame) && self.shared.tun.send(self.frame).is_err() {
            self.shared.tally.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Packets {
    fn open(&mut self, session: &mut Session, came: &Came, octets: &[u8]) {
        self.places.clear();
        (self.heard, self.refused) = (None, 0);
        let mut at = 0;
        for datagram in octets.chunks(came.each) {
            let (from, out) = (came.from.address().ip(), &mut self.plain[at..]);
            match session.open(from, datagram, out) {
                Opened::Packet(packet) => {
                    self.places.push((at, packet.len()));
                    at += packet.len();
                    self.heard = Some(Heard::Packet);
                }
                Opened::Nothing => self.heard = Some(Heard::Packet),
                Opened::Challenge(challenge) => self.answers.push((challenge.to_vec(), true)),
                Opened::Answer(answer) => {
                    let greeted = datagram.first() == Some(&GREETING);
                    self.heard = Some(if greeted {
                        Heard::Greeting
                    } else {
                        Heard::Answer
                    });
                    self.answers.push((answer.to_vec(), true));
                    self.take_waiting(session);
                }
                Opened::Refused => self.refused += 1,
            }
        }
    }

    /// What waited for keys; boringtun keeps 256 packets at most.
    fn take_waiting(&mut self, session: &mut Session) {
        let mut out = vec![0; MANY];
        loop {
            let len = session.next_waiting(&mut out);
            if len == 0 {
                return;
            }
            self.answers.push((out[..len].to_vec(), false));
        }
    }
}
