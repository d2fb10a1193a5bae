//! From the socket to the device.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use hextet_wg::segment::Merger;

use crate::{
    datagrams::{Came, MANY, MAX_RUN, Sender, receive},
    session::{HANDSHAKE, Opened, Session},
    tunnel::{Shared, Woken},
};

/// Of kernels that send more at once.
const MANY_DATAGRAMS: usize = 2 * MAX_RUN;

/// The other way of a tunnel.
pub struct Inward {
    shared: Arc<Shared>,
    sender: Sender,
    came: Vec<u8>,
    opened: Packets,
    merger: Merger,
    frame: Vec<u8>,
}

/// What was opened of what came at once.
struct Packets {
    plain: Vec<u8>,
    /// Where in there packets for the device are.
    places: Vec<(usize, usize)>,
    /// What is to be sent for it, and whether to where it came from.
    answers: Vec<(Vec<u8>, bool)>,
    heard: bool,
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
                heard: false,
                refused: 0,
            },
            merger: Merger::new(shared.datagrams),
            frame: Vec::new(),
            shared,
        }
    }

    /// Until the tunnel ends.
    pub fn run(mut self) {
        while !self.shared.is_ending() {
            match receive(&self.shared.socket, &mut self.came) {
                Ok(Some(came)) => self.carry(&came),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.shared.wait(self.shared.socket.as_fd(), None) == Woken::ToEnd {
                        return;
                    }
                }
                // Of an earlier datagram that somebody refused.
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn carry(&mut self, came: &Came) {
        {
            let mut session = self.shared.session();
            self.opened.open(&mut session, came, &self.came);
        }
        let tally = &self.shared.tally;
        tally.refused.fetch_add(self.opened.refused, Relaxed);
        if self.opened.heard {
            tally.note_heard();
            self.shared.meet(came.from);
        }
        for (answer, to_sender) in self.opened.answers.drain(..) {
            let to = to_sender.then_some(came.from);
            let len = answer.len();
            self.shared.send(&mut self.sender, &answer, &[len], to);
        }
        let octets: usize = self.opened.places.iter().map(|(_, len)| len).sum();
        tally.octets_in.fetch_add(octets as u64, Relaxed);
        self.give();
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
        (self.heard, self.refused) = (false, 0);
        let mut at = 0;
        for datagram in octets[..came.len].chunks(came.each) {
            let (from, out) = (came.from.ip(), &mut self.plain[at..]);
            match session.open(from, datagram, out) {
                Opened::Packet(packet) => {
                    self.places.push((at, packet.len()));
                    at += packet.len();
                    self.heard = true;
                }
                Opened::Nothing => self.heard = true,
                Opened::Challenge(challenge) => self.answers.push((challenge.to_vec(), true)),
                Opened::Answer(answer) => {
                    self.heard = true;
                    self.answers.push((answer.to_vec(), false));
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
