//! Asking, and counting answers.

use std::{
    io::ErrorKind,
    net::Ipv6Addr,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_autoconf::{
    frame::Envelope,
    nd::{NdOption, NeighbourSolicitation},
};
use hextet_bench::sample::Samples;
use hextet_kernel::{links::Links, packet::PacketSocket};
use hextet_lab::Node;
use hextet_model::state::Netns;
use hextet_types::Mac;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::segment::{Segment, address};

const ROUTER: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const FROM: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// An answer that takes longer is none, in milliseconds.
const PATIENCE: u16 = 200;
/// Nobody is asked, or waited for, longer than that.
const LONGEST: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_millis(300);
/// Frames between two looks at the clock.
const BURST: usize = 64;
/// Behind the last address that anybody answers for.
const NOBODY: u32 = 1 << 24;

/// A router's kernel that asks.
pub struct Asker<'a> {
    place: &'a Node,
    frames: Vec<Vec<u8>>,
}

/// How long answers took, in microseconds, and how many there were of those that were asked for.
pub struct Times {
    /// Of those that came.
    pub answered: Samples,
    /// Between 0 and 1.
    pub share: f64,
}

impl<'a> Asker<'a> {
    /// Asks on that segment.
    ///
    /// # Errors
    ///
    /// A frame can't be made.
    pub fn new(segment: &'a Segment) -> Result<Asker<'a>> {
        Ok(Asker {
            place: &segment.router,
            frames: (0..segment.size).map(solicitation).collect::<Result<_>>()?,
        })
    }

    /// Asks for one after the other, as fast as it goes; so many answers a second come back.
    ///
    /// # Errors
    ///
    /// Nothing can be sent or counted.
    pub fn answered(&self, time: Duration) -> Result<f64> {
        self.place.enter(|| {
            let socket = PacketSocket::of_sender(index()?, Mac::new([0; 6]))?;
            let index = index()?;
            let (before, begin) = (received()?, Instant::now());
            let mut frames = self.frames.iter().cycle();
            while begin.elapsed() < time {
                for frame in frames.by_ref().take(BURST) {
                    send(&socket, index, frame)?;
                }
            }
            let took = begin.elapsed();
            let count = received()? - before;
            await_silence()?;
            Ok(count as f64 / took.as_secs_f64())
        })?
    }

    /// Asks, and waits for the answer, so often.
    ///
    /// # Errors
    ///
    /// Nothing can be sent or heard.
    pub fn times(&self, count: usize) -> Result<Times> {
        self.place.enter(|| self.ask(count))?
    }

    /// The same while somebody else asks so often in a second for addresses that nobody has.
    ///
    /// # Errors
    ///
    /// Nothing can be sent or heard.
    pub fn flooded(&self, rate: u32, count: usize) -> Result<Times> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = scope.spawn(|| self.place.enter(|| flood(rate, &over))?);
            let times = self.place.enter(|| self.ask(count));
            over.store(true, Relaxed);
            match flood.join() {
                Ok(flooded) => flooded?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            times?
        })
    }

    fn ask(&self, count: usize) -> Result<Times> {
        let index = index()?;
        let socket = PacketSocket::of_sender(index, HOST)?;
        let mut answered = Samples::default();
        let mut asked = 0_u32;
        let started = Instant::now();
        for frame in self.frames.iter().cycle().take(count) {
            let begin = Instant::now();
            send(&socket, index, frame)?;
            asked += 1;
            if heard(&socket)? {
                answered.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            if started.elapsed() > LONGEST {
                break;
            }
        }
        let share = answered.len() as f64 / f64::from(asked);
        Ok(Times { answered, share })
    }
}

fn flood(rate: u32, over: &AtomicBool) -> Result<()> {
    let index = index()?;
    let socket = PacketSocket::of_sender(index, Mac::new([0; 6]))?;
    let begin = Instant::now();
    let mut sent = 0;
    while !over.load(Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        if sent >= due {
            thread::yield_now();
            continue;
        }
        send(&socket, index, &solicitation(NOBODY + sent % (1 << 16))?)?;
        sent += 1;
    }
    Ok(())
}

/// Whoever answers from a process of its own may have much to do still.
fn await_silence() -> Result<()> {
    let begin = Instant::now();
    let mut before = received()?;
    while begin.elapsed() < LONGEST {
        thread::sleep(SILENCE);
        let now = received()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// Whether an answer comes.
fn heard(socket: &PacketSocket) -> Result<bool> {
    loop {
        match socket.recv(&mut [0; 64]) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("hear an answer"),
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(PATIENCE))? == 0 {
            return Ok(false);
        }
    }
}

/// What the link's queue has no room for is not asked.
fn send(socket: &PacketSocket, index: u32, frame: &[u8]) -> Result<()> {
    match socket.send(index, frame) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        outcome => outcome.context("ask"),
    }
}

fn index() -> Result<u32> {
    Ok(nix::net::if_::if_nametoindex("down0")?)
}

/// Frames that have come in so far.
fn received() -> Result<u64> {
    let links = Links::open(&Netns::Main)?.list(true)?;
    let stats = links.iter().find(|l| l.name.as_str() == "down0");
    let stats = stats.and_then(|l| l.stats);
    Ok(stats.context("no counters")?.rx_packets)
}

/// As a router asks (RFC 4861 §4.3).
fn solicitation(n: u32) -> Result<Vec<u8>> {
    let target = address(n);
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    let envelope = Envelope {
        source_mac: ROUTER,
        destination_mac: Mac::new([0x33, 0x33, 0xff, a, b, c]),
        source: FROM,
        destination: group,
    };
    let options = vec![NdOption::SourceLinkLayer(ROUTER)];
    let message = NeighbourSolicitation { target, options }.encode();
    envelope
        .neighbour_discovery(&message)
        .context("a solicitation")
}
