//! From the device to the socket.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use hextet_wg::segment::{Batch, Offload, Room, Split};

use crate::{
    climb::Climb,
    datagrams::{MANY, MAX_RUN, Sender},
    session::{GREETING, HANDSHAKE, OVERHEAD},
    tunnel::{Shared, Woken},
};

/// How often time is asked.
const TICK: Duration = Duration::from_millis(250);
/// WireGuard fills packets up to a multiple of this.
const UNIT: usize = 16;

/// One way of a tunnel, and its timers.
pub struct Outward {
    shared: Arc<Shared>,
    sender: Sender,
    frame: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    lens: Vec<usize>,
    next_tick: Instant,
    climb: Climb,
    /// The stream by which the peer was told last where we are.
    stream: Option<u64>,
}

impl Outward {
    pub fn new(shared: Arc<Shared>) -> Outward {
        Outward {
            sender: Sender::new(shared.segments),
            shared,
            frame: vec![0; MANY],
            plain: vec![0; MANY],
            sealed: vec![0; MANY + MAX_RUN * OVERHEAD + HANDSHAKE],
            lens: Vec::with_capacity(MAX_RUN),
            next_tick: Instant::now(),
            climb: Climb::default(),
            stream: None,
        }
    }

    /// Until the tunnel ends.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.tick();
                self.keep_stream();
                self.climb(now);
                self.probe();
            }
            self.repeat(now);
            match self.shared.tun.recv(&mut self.frame) {
                Ok(len) => self.carry(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    let next = self.shared.search().next();
                    let next = next.map_or(self.next_tick, |next| next.min(self.next_tick));
                    let left = next.saturating_duration_since(Instant::now());
                    if self.shared.wait(&[self.shared.tun.as_fd()], Some(left)) == Woken::ToEnd {
                        return;
                    }
                }
            }
            if self.shared.is_ending() {
                return;
            }
        }
    }

    fn tick(&mut self) {
        let mut message = [0; HANDSHAKE];
        let searching = self.shared.search().is_on();
        let len = self.shared.session().tick(&mut message, searching);
        match message.get(..len) {
            Some(message) if message.first() == Some(&GREETING) => {
                self.shared.greet(&mut self.sender, message);
            }
            Some(message) if !message.is_empty() => {
                self.shared.send(&mut self.sender, message, &[len], None);
            }
            _ => {}
        }
    }

    /// How much the way to the peer carries.
    fn probe(&mut self) {
        let Some(probe) = self.shared.probe() else {
            return;
        };
        let packet = self.shared.ends.request(probe);
        let len = {
            let mut session = self.shared.session();
            // What has no keys yet would wait, and be sent as others are.
            match session.since_handshake() {
                Some(_) => session.seal(&packet, &mut self.sealed),
                None => 0,
            }
        };
        match self.sealed.get(..len) {
            Some(sealed) if len > 0 && sealed.first() != Some(&GREETING) => {
                self.shared.send_probe(probe, sealed);
            }
            _ => {}
        }
    }

    /// A stream that broke is opened again, and the peer hears at once by which one we are there now.
    fn keep_stream(&mut self) {
        let Some(at) = self.shared.stream_end() else {
            self.stream = None;
            return;
        };
        let Some(standing) = self.shared.keep_stream(at) else {
            return;
        };
        let before = self.stream.replace(standing);
        if before.is_none_or(|before| before == standing) {
            return;
        }
        let mut message = [0; HANDSHAKE];
        let len = self.shared.session().begin_anew(&mut message);
        if len == HANDSHAKE {
            self.shared.greet(&mut self.sender, &message);
        }
    }

    /// While the peer is heard by a stream alone, a handshake by UDP is tried from time to time.
    fn climb(&mut self, now: Instant) {
        let by_stream = self.shared.is_by_stream();
        if !self.climb.is_due(by_stream, now) {
            return;
        }
        let candidates = self.shared.by_udp();
        if candidates.is_empty() {
            return;
        }
        let mut message = [0; HANDSHAKE];
        let len = self.shared.session().begin_anew(&mut message);
        for to in candidates.into_iter().filter(|_| len == HANDSHAKE) {
            self.shared
                .send(&mut self.sender, &message, &[len], Some(to));
        }
    }

    /// What is said to all candidates again and again.
    fn repeat(&mut self, now: Instant) {
        let message = self.shared.search().repeats(now);
        if let Some(message) = message {
            self.shared.send_to_all(&mut self.sender, &message);
        }
    }

    fn carry(&mut self, len: usize) {
        let shared = Arc::clone(&self.shared);
        let frame = std::mem::take(&mut self.frame);
        let room = Room {
            before: 0,
            after: 0,
            unit: UNIT,
            most: usize::from(shared.tally.mtu.load(Relaxed)),
        };
        let split = Offload::decode(&frame[..len]).and_then(|(o, packet)| {
            shared.tally.note_destination(packet);
            Split::of(&o, packet)
        });
        let mut split = match split {
            Ok(split) => split,
            Err(_) => {
                shared.tally.dropped.fetch_add(1, Relaxed);
                self.frame = frame;
                return;
            }
        };
        loop {
            match split.fill(&room, MAX_RUN, &mut self.plain) {
                Ok(Some(batch)) => self.seal(&batch, &room),
                Ok(None) => break,
                Err(_) => {
                    shared.tally.dropped.fetch_add(1, Relaxed);
                    break;
                }
            }
        }
        self.frame = frame;
    }

    fn seal(&mut self, batch: &Batch, room: &Room) {
        self.lens.clear();
        let (mut at, mut octets) = (0, 0);
        let mut greeting = None;
        {
            let mut session = self.shared.session();
            for (from, len) in batch.slots() {
                let packet = &self.plain[from..from + room.filled(len)];
                let sealed = session.seal(packet, &mut self.sealed[at..]);
                octets += len;
                if sealed == HANDSHAKE && self.sealed[at] == GREETING {
                    greeting = Some(self.sealed[at..at + sealed].to_vec());
                } else if sealed > 0 {
                    self.lens.push(sealed);
                    at += sealed;
                }
            }
        }
        if let Some(greeting) = greeting {
            self.shared.greet(&mut self.sender, &greeting);
        }
        self.shared.tally.note_sent(octets);
        self.shared
            .send(&mut self.sender, &self.sealed[..at], &self.lens, None);
    }
}
