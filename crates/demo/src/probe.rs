//! Probes: connections and streams of packets between places, and how many came through.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_lab::{Node, PingReport, PingStream};
use serde_json::Value;

use crate::check::expect;

/// What goes over a probe's connection.
const WORD: &[u8] = b"hextet";

/// Connects by TCP and exchanges a word. `Ok(false)` when nobody answers in time: the packets are
/// dropped; an error when it is refused or fails otherwise.
///
/// # Errors
///
/// The listener can't listen, or the connection fails in another way than by silence.
pub fn tcp_passes(from: &Node, to: &Node, at: SocketAddr, patience: Duration) -> Result<bool> {
    tcp_passes_by(from, to, (at, at), patience)
}

/// The same to an address that is translated to another on the way: the second, where somebody listens.
///
/// # Errors
///
/// As of [`tcp_passes`].
pub fn tcp_passes_by(
    from: &Node,
    to: &Node,
    (at, inside): (SocketAddr, SocketAddr),
    patience: Duration,
) -> Result<bool> {
    let listener = to.enter(|| {
        let listener = TcpListener::bind(inside).with_context(|| format!("listen on {inside}"))?;
        listener.set_nonblocking(true)?;
        anyhow::Ok(listener)
    })??;
    thread::scope(|scope| {
        let answerer = scope.spawn(|| answer_one(&listener, patience));
        let passed = from.enter(|| match TcpStream::connect_timeout(&at, patience) {
            Ok(stream) => exchange(stream, patience).map(|()| true),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error).with_context(|| format!("connect to {at}")),
        })?;
        let answered = answerer.join();
        if matches!(passed, Ok(true)) && !matches!(answered, Ok(Ok(true))) {
            bail!("a connection to {at} reached somebody else");
        }
        passed
    })
}

fn exchange(mut stream: TcpStream, patience: Duration) -> Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(WORD)?;
    let mut echo = [0; WORD.len()];
    stream
        .read_exact(&mut echo)
        .context("the connection stands, but nothing comes back")
}

fn answer_one(listener: &TcpListener, patience: Duration) -> Result<bool> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(patience))?;
                let mut word = [0; WORD.len()];
                stream.read_exact(&mut word)?;
                stream.write_all(&word)?;
                return Ok(word == WORD);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Sends datagrams from an address that need not be the sender's own.
///
/// # Errors
///
/// The socket can't be made or used.
pub fn send_udp(from: &Node, source: IpAddr, to: SocketAddr, count: usize) -> Result<()> {
    from.enter(|| {
        let socket = UdpSocket::bind((source, 0)).with_context(|| format!("send from {source}"))?;
        for _ in 0..count {
            match socket.send_to(WORD, to) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                other => drop(other.with_context(|| format!("send to {to}"))?),
            }
            thread::sleep(Duration::from_millis(2));
        }
        anyhow::Ok(())
    })?
}

/// What a place can say of others.
pub trait Reach {
    /// Sends one echo request at a time until one is answered or `tries` are spent.
    ///
    /// # Errors
    ///
    /// None was answered.
    fn reaches(&self, to: IpAddr, tries: u32) -> Result<()>;

    /// Sends a few echo requests, of which none may be answered.
    ///
    /// # Errors
    ///
    /// One was answered.
    fn does_not_reach(&self, to: IpAddr) -> Result<()>;
}

impl Reach for Node {
    fn reaches(&self, to: IpAddr, tries: u32) -> Result<()> {
        for _ in 0..tries {
            if self.ping(&to.to_string())? {
                return Ok(());
            }
        }
        bail!("{} gets no echo reply from {to}", self.name())
    }

    fn does_not_reach(&self, to: IpAddr) -> Result<()> {
        let words = [
            "ping",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "1",
            "-n",
            &to.to_string(),
        ];
        if self.output(&words)?.status.success() {
            bail!("{} gets an echo reply from {to}", self.name());
        }
        Ok(())
    }
}

/// Connects and reads what the other end says first.
///
/// # Errors
///
/// Nobody answers within some seconds.
pub fn greeting(from: &Node, at: SocketAddr) -> Result<String> {
    let patience = Duration::from_secs(10);
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&at, patience)
            .with_context(|| format!("connect to {at}"))?;
        stream.set_read_timeout(Some(patience))?;
        let mut said = String::new();
        stream
            .read_to_string(&mut said)
            .with_context(|| format!("read from {at}"))?;
        Ok(said)
    })?
}

/// Ends all streams, and gives what each has seen.
///
/// # Errors
///
/// One ended by itself.
pub fn finish(streams: Vec<PingStream>) -> Result<Vec<PingReport>> {
    streams
        .into_iter()
        .map(|stream| Ok(stream.finish()?))
        .collect()
}

/// Every stream was answered to the last request.
///
/// # Errors
///
/// One was not, or was too short to say anything.
pub fn nothing_lost(reports: &[PingReport]) -> Result<()> {
    for report in reports {
        expect(
            report.lost() == 0,
            format!("{} of {} echoes lost", report.lost(), report.sent),
        )?;
        expect(
            report.sent > 100,
            format!("only {} echoes were sent", report.sent),
        )?;
    }
    Ok(())
}

/// An nftables counter in a place, for packets that come in.
pub struct Counter<'a> {
    place: &'a Node,
    table: String,
}

impl<'a> Counter<'a> {
    /// Counts packets that these words of nftables match.
    ///
    /// # Errors
    ///
    /// `nft` does not take them.
    pub fn place(place: &'a Node, what: &str) -> Result<Counter<'a>> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let table = format!("demo{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let rules = format!(
            "table inet {table} {{ chain seen {{ type filter hook prerouting priority -500; {what} counter; }}; }}"
        );
        place.run(&["nft", &rules])?;
        Ok(Counter { place, table })
    }

    /// How many there were; counts no more.
    ///
    /// # Errors
    ///
    /// The counter is gone.
    pub fn take(self) -> Result<u64> {
        self.peek()
    }

    /// How many there were so far.
    ///
    /// # Errors
    ///
    /// The counter is gone.
    pub fn peek(&self) -> Result<u64> {
        let listed = self
            .place
            .run(&["nft", "-j", "list", "table", "inet", &self.table])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let rules = listed["nftables"].as_array().context("no rules")?;
        rules
            .iter()
            .flat_map(|o| o["rule"]["expr"].as_array().into_iter().flatten())
            .find_map(|e| e["counter"]["packets"].as_u64())
            .context("no counter in its own table")
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        drop(
            self.place
                .run(&["nft", "delete", "table", "inet", &self.table]),
        );
    }
}
