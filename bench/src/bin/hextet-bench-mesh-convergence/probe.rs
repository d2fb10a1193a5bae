//! Datagrams from each node to each other, all the time, and when their answers came.

use std::{
    io::ErrorKind,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::site::Site;

const PORT: u16 = 7007;
/// From one datagram of a pair to the next.
const OFTEN: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(1);
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;

/// A socket in each node.
pub struct Probe {
    sockets: Vec<UdpSocket>,
    homes: Vec<Ipv6Addr>,
    pairs: Vec<Vec<Pair>>,
    begun: Instant,
    next: Instant,
}

/// What one node has heard of another since the beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    last: Option<Instant>,
    longest: Duration,
}

impl Probe {
    /// Opens them; sends nothing yet.
    ///
    /// # Errors
    ///
    /// A socket can't be made.
    pub fn open(site: &Site) -> Result<Probe> {
        let open = |number| {
            let socket = site.node(number)?.enter(|| -> std::io::Result<UdpSocket> {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            socket.with_context(|| format!("listen on port {PORT}"))
        };
        let homes = site.homes().to_vec();
        let sockets = (0..homes.len()).map(open).collect::<Result<Vec<_>>>()?;
        Ok(Probe {
            pairs: vec![vec![Pair::default(); homes.len()]; homes.len()],
            sockets,
            homes,
            begun: Instant::now(),
            next: Instant::now(),
        })
    }

    /// Forgets all answers: what is asked from now on counts.
    pub fn begin(&mut self) {
        self.begun = Instant::now();
        for pair in self.pairs.iter_mut().flatten() {
            *pair = Pair::default();
        }
    }

    /// Sends until each of these has an answer of each other, and gives how long that took since the beginning.
    ///
    /// # Errors
    ///
    /// It takes longer than `limit`.
    pub fn until_all_answer(&mut self, among: &[usize], limit: Duration) -> Result<Duration> {
        loop {
            self.step()?;
            let silent = self.pairs_of(among).filter(|pair| pair.last.is_none());
            let count = silent.count();
            let passed = self.begun.elapsed();
            if count == 0 {
                return Ok(passed);
            }
            ensure!(
                passed < limit,
                "{count} pairs have not met after {} s",
                limit.as_secs()
            );
        }
    }

    /// Sends for so long.
    ///
    /// # Errors
    ///
    /// A socket fails.
    pub fn watch(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// The longest time without an answer among these, from the beginning until now.
    ///
    /// # Errors
    ///
    /// A pair has none at all.
    pub fn longest_gap(&self, among: &[usize]) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for pair in self.pairs_of(among) {
            let Some(last) = pair.last else {
                bail!("a pair lost each other for good");
            };
            longest = longest.max(pair.longest).max(last.elapsed());
        }
        Ok(longest)
    }

    fn pairs_of<'a>(&'a self, among: &'a [usize]) -> impl Iterator<Item = &'a Pair> {
        let rows = among.iter().map(|from| (from, &self.pairs[*from]));
        rows.flat_map(move |(from, row)| {
            let others = among.iter().filter(move |to| *to != from);
            others.map(move |to| &row[*to])
        })
    }

    fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.next <= now {
            self.next = now + OFTEN;
            for (from, socket) in self.sockets.iter().enumerate() {
                for (to, home) in self.homes.iter().enumerate().filter(|(to, _)| *to != from) {
                    // Where there is no way, there is no answer.
                    let _ = socket.send_to(&[QUESTION, number(to)?], (*home, PORT));
                }
            }
        }
        for from in 0..self.sockets.len() {
            self.hear(from)?;
        }
        thread::sleep(TICK);
        Ok(())
    }

    /// Answers all questions, and notes all answers.
    fn hear(&mut self, own: usize) -> Result<()> {
        loop {
            let mut octets = [0; 2];
            let (from, octets) = match self.sockets[own].recv_from(&mut octets) {
                Ok((2, from)) => (from, octets),
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // An ICMP error of an earlier datagram.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error).context("receive"),
            };
            match octets {
                [QUESTION, to] if to == number(own)? => {
                    let _ = self.sockets[own].send_to(&[ANSWER, to], from);
                }
                [ANSWER, to] => self.note(own, usize::from(to), from),
                _ => {}
            }
        }
    }

    fn note(&mut self, own: usize, other: usize, from: SocketAddr) {
        if self.homes.get(other).is_none_or(|home| from.ip() != *home) {
            return;
        }
        let begun = self.begun;
        let pair = &mut self.pairs[own][other];
        pair.longest = pair.longest.max(pair.last.unwrap_or(begun).elapsed());
        pair.last = Some(Instant::now());
    }
}

fn number(index: usize) -> Result<u8> {
    Ok(u8::try_from(index)?)
}
