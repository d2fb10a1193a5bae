//! What is sent between the workloads, and what is counted.

use std::{
    fmt,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use hextet_types::Family;

use super::{
    Path,
    flood::{Length, flood, flow, send_once, send_only},
    meter::Meter,
};
use crate::sample::Samples;

/// Connections that each sample of [`Traffic::Flows`] makes: well below what a port may have open.
const FLOWS: u16 = 10_000;
/// Copies of one packet between two looks at the clock.
const COPIES: usize = 1024;
/// Connections of one sample, at most: the ports that the client has for them.
const MAX_CONNECTIONS: u32 = 4_000;
const ROUND_TRIPS: usize = 2_000;
/// How long an answer may take before something is broken.
const PATIENCE: Duration = Duration::from_secs(2);

/// Kinds of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Traffic {
    /// UDP, small packets of a flow that has been answered.
    Established,
    /// UDP, small packets of a flow that nobody answers: each of them is judged by the policy.
    New,
    /// UDP, each packet the first of its flow.
    Flows,
    /// TCP, in bulk.
    Stream,
    /// TCP: connect, an octet there, an octet back, close.
    Connect,
    /// UDP, there and back.
    RoundTrip,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Traffic; 6] = [
        Traffic::Established,
        Traffic::New,
        Traffic::Flows,
        Traffic::Stream,
        Traffic::Connect,
        Traffic::RoundTrip,
    ];

    /// What is measured, its unit, and by how much to divide it.
    pub fn metric(self) -> (&'static str, &'static str, f64) {
        match self {
            Traffic::Established | Traffic::New => ("packets per CPU-second", "k", 1e3),
            Traffic::Flows => ("flows per CPU-second", "k", 1e3),
            Traffic::Stream => ("octets per CPU-second", "GB", 1e9),
            Traffic::Connect => ("connections per CPU-second", "k", 1e3),
            Traffic::RoundTrip => ("round trip, median", "µs", 1.0),
        }
    }

    /// Whether it is one flow of small packets, of which the sender's own cost can be told.
    pub fn is_small(self) -> bool {
        matches!(self, Traffic::Established | Traffic::New)
    }

    /// A sample of what the sender of floods costs without any forwarding.
    ///
    /// # Errors
    ///
    /// The kernel refuses its frames.
    pub fn sender(path: &Path, family: Family, meter: Meter, seconds: f64) -> Result<f64> {
        let [there, _] = flow(&path.one, &path.two, 5_002, family);
        let copies = vec![there; COPIES];
        send_only(meter, &path.one, &copies, Length::CpuSeconds(seconds))
    }

    /// One sample, between these workloads; in CPU seconds about so long.
    ///
    /// # Errors
    ///
    /// Something does not arrive.
    pub fn sample(self, path: &Path, family: Family, meter: Meter, seconds: f64) -> Result<f64> {
        match self {
            Traffic::Established => established(path, family, meter, seconds),
            Traffic::New => {
                let [there, _] = flow(&path.one, &path.two, 5_001, family);
                let copies = vec![there; COPIES];
                let length = Length::CpuSeconds(seconds);
                flood(meter, &path.one, &path.two, &copies, length)
            }
            Traffic::Flows => {
                let frames: Vec<Vec<u8>> = (20_000..20_000 + FLOWS)
                    .map(|port| flow(&path.one, &path.two, port, family))
                    .map(|[there, _]| there)
                    .collect();
                path.forget_connections()?;
                let rate = flood(meter, &path.one, &path.two, &frames, Length::Once)?;
                path.forget_connections()?;
                Ok(rate)
            }
            Traffic::Stream => stream(path, family, meter, 2.0 * seconds),
            Traffic::Connect => {
                let rate = connect(path, family, meter, seconds)?;
                path.forget_connections()?;
                Ok(rate)
            }
            Traffic::RoundTrip => round_trip(path, family, meter),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Traffic::Established => "UDP established",
            Traffic::New => "UDP new",
            Traffic::Flows => "UDP, a flow per packet",
            Traffic::Stream => "TCP stream",
            Traffic::Connect => "TCP connect and close",
            Traffic::RoundTrip => "round trip",
        })
    }
}

fn established(path: &Path, family: Family, meter: Meter, seconds: f64) -> Result<f64> {
    let [there, back] = flow(&path.one, &path.two, 5_000, family);
    send_once(&path.one, std::slice::from_ref(&there), meter)?;
    send_once(&path.two, &[back], meter)?;
    let copies = vec![there; COPIES];
    flood(
        meter,
        &path.one,
        &path.two,
        &copies,
        Length::CpuSeconds(seconds),
    )
}

/// Both ends in one thread, so that nobody waits for anybody.
fn stream(path: &Path, family: Family, meter: Meter, seconds: f64) -> Result<f64> {
    let (listener, address) = listen(path, family)?;
    path.one.place.enter(|| {
        meter.pin()?;
        let mut from = TcpStream::connect(address).context("connect")?;
        let (mut to, _) = listener.accept().context("accept")?;
        from.set_nonblocking(true)?;
        to.set_nonblocking(true)?;
        carry(&mut from, &mut to, meter, seconds / 2.0)?;
        let (octets, used) = carry(&mut from, &mut to, meter, seconds)?;
        Ok(octets as f64 / used)
    })?
}

fn carry(
    from: &mut TcpStream,
    to: &mut TcpStream,
    meter: Meter,
    seconds: f64,
) -> Result<(u64, f64)> {
    let mut buffer = vec![0; 256 << 10];
    let (begin, mut octets, mut last) = (meter.now()?, 0, Instant::now());
    loop {
        if let Some(sent) = ready(from.write(&buffer)).context("write")? {
            buffer.truncate(buffer.len().max(sent));
        }
        while let Some(received) = ready(to.read(&mut buffer)).context("read")? {
            octets += received as u64;
            last = Instant::now();
        }
        if last.elapsed() > PATIENCE {
            bail!("a TCP connection carries nothing");
        }
        let used = meter.now()? - begin;
        if used >= seconds {
            return Ok((octets, used));
        }
    }
}

/// Nothing where it would have to wait.
fn ready(result: std::io::Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(0) => bail!("the connection has ended"),
        Ok(octets) => Ok(Some(octets)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn connect(path: &Path, family: Family, meter: Meter, seconds: f64) -> Result<f64> {
    let (listener, address) = listen(path, family)?;
    path.one.place.enter(|| {
        meter.pin()?;
        let begin = meter.now()?;
        for n in 1..=MAX_CONNECTIONS {
            once(&listener, address).with_context(|| format!("connection {n}"))?;
            let used = meter.now()? - begin;
            if used >= seconds || n == MAX_CONNECTIONS {
                return Ok(f64::from(n) / used);
            }
        }
        bail!("no connections to make")
    })?
}

fn once(listener: &TcpListener, address: SocketAddr) -> Result<()> {
    let mut octet = [0; 1];
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    let (mut server, _) = listener.accept().context("accept")?;
    client.write_all(b"?").context("ask")?;
    server.read_exact(&mut octet).context("hear")?;
    server.write_all(b"!").context("answer")?;
    client.read_exact(&mut octet).context("be answered")?;
    drop(client);
    let end = server.read(&mut octet).context("hear the end")?;
    anyhow::ensure!(end == 0, "something came after the end");
    Ok(())
}

fn listen(path: &Path, family: Family) -> Result<(TcpListener, SocketAddr)> {
    let address = path.two.address(family);
    let listener = path.two.place.enter(|| TcpListener::bind((address, 0)))?;
    let listener = listener.context("listen")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Both ends in one thread: what a packet costs there and back, without anybody's waking up.
fn round_trip(path: &Path, family: Family, meter: Meter) -> Result<f64> {
    let [one, two] = [&path.one, &path.two].map(|workload| {
        let address = workload.address(family);
        let socket = workload.place.enter(|| UdpSocket::bind((address, 0)))?;
        anyhow::Ok(socket?)
    });
    let (one, two) = (one?, two?);
    one.connect(two.local_addr()?)?;
    two.connect(one.local_addr()?)?;
    for socket in [&one, &two] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    path.one.place.enter(|| {
        meter.pin()?;
        let mut samples = Samples::default();
        let mut buffer = [0; 18];
        for _ in 0..ROUND_TRIPS {
            let begin = Instant::now();
            one.send(&buffer)?;
            two.recv(&mut buffer).context("hear")?;
            two.send(&buffer)?;
            one.recv(&mut buffer).context("be answered")?;
            samples.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples.median())
    })?
}
