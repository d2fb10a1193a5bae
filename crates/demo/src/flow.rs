//! Streams as fast as they go, or faster than they may, and how much of them arrives in a second.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_lab::Node;

/// What may go in one go is gone by then.
const BEFORE: Duration = Duration::from_secs(3);
/// So long it is looked at.
const WINDOW: Duration = Duration::from_secs(6);
/// Whoever hears nothing looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// A datagram may take so long to come back.
const ANSWER: Duration = Duration::from_secs(5);

/// A stream from one place to another.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// The sender.
    pub from: &'a Node,
    /// The receiver.
    pub to: &'a Node,
    /// Where the sender sends to.
    pub at: SocketAddr,
    /// Where the receiver listens: the same, unless that is translated on the way.
    pub inside: SocketAddr,
}

/// What it consists of.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// One connection, as fast as TCP finds out.
    Tcp,
    /// Datagrams, so many octets in each, so many a second.
    Udp {
        /// Octets of the payload.
        payload: usize,
        /// Each second.
        rate: u64,
    },
}

/// What arrived in a second, on average of some.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// In bits: of datagrams with their headers from IP on; of TCP without, since packets of any size may be on the way.
    pub bits: u64,
    /// Datagrams; none of TCP.
    pub packets: u64,
}

/// Octets of headers that a datagram has from IP on.
pub const fn header(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(_) => 28,
        IpAddr::V6(_) => 48,
    }
}

/// Runs a stream for some seconds.
///
/// # Errors
///
/// It does not begin, or ends by itself.
pub fn measure(flow: Flow<'_>, load: Load) -> Result<Arrived> {
    let over = AtomicBool::new(false);
    let received = thread::scope(|scope| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let over = &over;
        let receiver = scope.spawn(move || {
            let outcome = flow.to.enter(|| match load {
                Load::Tcp => receive_tcp(flow.inside, &ready),
                Load::Udp { .. } => receive_udp(flow.inside, &ready),
            });
            over.store(true, Ordering::Relaxed);
            outcome?
        });
        if is_ready.recv().is_ok() {
            flow.from.enter(|| match load {
                Load::Tcp => send_tcp(flow.at, over),
                Load::Udp { payload, rate } => send_udp(flow.at, payload, rate, over),
            })??;
        }
        match receiver.join() {
            Ok(received) => received,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let header = header(flow.at.ip());
    let secs = WINDOW.as_secs();
    Ok(match load {
        Load::Tcp => Arrived {
            bits: received * 8 / secs,
            packets: 0,
        },
        Load::Udp { payload, .. } => {
            let packets = received / u64::try_from(payload)?;
            Arrived {
                bits: (received + packets * header) * 8 / secs,
                packets: packets / secs,
            }
        }
    })
}

/// Sends so many datagrams, one after another, each of which is sent back as it is before the next one goes.
///
/// # Errors
///
/// One does not come back.
pub fn exchange(flow: Flow<'_>, payload: usize, count: usize) -> Result<()> {
    thread::scope(|scope| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let answering = scope.spawn(move || {
            flow.to
                .enter(|| send_back(flow.inside, (payload, count), &ready))?
        });
        if is_ready.recv().is_ok() {
            flow.from.enter(|| {
                let socket = UdpSocket::bind(any_of(flow.at))?;
                socket.set_read_timeout(Some(ANSWER))?;
                let octets = vec![0x68; payload];
                let mut answer = vec![0; payload + 1];
                for nth in 1..=count {
                    socket.send_to(&octets, flow.at)?;
                    let got = socket.recv(&mut answer).with_context(|| {
                        format!("datagram {nth} of {count} to {} did not come back", flow.at)
                    })?;
                    if got != payload {
                        bail!("{got} octets came back from {}, and not {payload}", flow.at);
                    }
                }
                Ok(())
            })??;
        }
        match answering.join() {
            Ok(answered) => answered,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn send_back(at: SocketAddr, (payload, count): (usize, usize), ready: &Ready) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("listen on {at}"))?;
    socket.set_read_timeout(Some(ANSWER))?;
    ready.send(())?;
    let mut octets = vec![0; payload];
    for _ in 0..count {
        let (_, from) = socket.recv_from(&mut octets)?;
        socket.send_to(&octets, from)?;
    }
    Ok(())
}

fn any_of(at: SocketAddr) -> &'static str {
    if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

type Ready = std::sync::mpsc::Sender<()>;

/// Counts what `read` gets within the window.
fn count(mut read: impl FnMut() -> std::io::Result<usize>) -> Result<u64> {
    let begin = Instant::now();
    let mut received = 0;
    while begin.elapsed() < BEFORE + WINDOW {
        let got = match read() {
            Ok(0) => bail!("the stream has ended"),
            Ok(octets) => u64::try_from(octets)?,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(e) => return Err(e.into()),
        };
        if begin.elapsed() >= BEFORE {
            received += got;
        }
    }
    Ok(received)
}

fn receive_tcp(at: SocketAddr, ready: &Ready) -> Result<u64> {
    let listener = TcpListener::bind(at).with_context(|| format!("listen on {at}"))?;
    ready.send(())?;
    listener.set_nonblocking(true)?;
    let begin = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock && begin.elapsed() < BEFORE => {
                thread::sleep(TICK);
            }
            Err(e) => return Err(e).with_context(|| format!("accept at {at}")),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut buffer = vec![0; 65_536];
    count(|| stream.read(&mut buffer))
}

fn receive_udp(at: SocketAddr, ready: &Ready) -> Result<u64> {
    let socket = UdpSocket::bind(at).with_context(|| format!("listen on {at}"))?;
    socket.set_read_timeout(Some(TICK))?;
    ready.send(())?;
    let mut buffer = vec![0; 65_536];
    count(|| socket.recv(&mut buffer))
}

fn send_tcp(at: SocketAddr, over: &AtomicBool) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))
        .with_context(|| format!("connect to {at}"))?;
    stream.set_write_timeout(Some(TICK))?;
    let octets = vec![0x68; 65_536];
    while !over.load(Ordering::Relaxed) {
        match stream.write(&octets) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // The receiver has seen enough, or says itself what was wrong.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                break;
            }
            written => drop(written.with_context(|| format!("send to {at}"))?),
        }
    }
    Ok(())
}

/// In time: whoever is late sends more at once.
fn send_udp(at: SocketAddr, payload: usize, rate: u64, over: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind(any_of(at))?;
    let octets = vec![0x68; payload];
    let begin = Instant::now();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let due = u64::try_from(begin.elapsed().as_micros())? * rate / 1_000_000;
        while sent < due {
            match socket.send_to(&octets, at) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                other => drop(other.with_context(|| format!("send to {at}"))?),
            }
            sent += 1;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
