//! What passes between the two hosts.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use hextet_bench::{cpu, sample::Samples};

use crate::site::Site;

/// Octets of a call.
const PIECE: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
const ROUND_TRIPS: usize = 500;
/// When nothing has come for so long nothing comes any more.
const QUIET: Duration = Duration::from_millis(500);

/// The family inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    Ipv4,
    Ipv6,
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inner::Ipv4 => "IPv4 inside",
            Inner::Ipv6 => "IPv6 inside",
        })
    }
}

impl Inner {
    fn address(self, site: &Site, number: u8) -> Result<SocketAddr> {
        let (ipv4, ipv6) = site.addresses(number);
        let text = if self == Inner::Ipv4 { ipv4 } else { ipv6 };
        let address: IpAddr = text.parse().context("an address")?;
        Ok(SocketAddr::new(address, 0))
    }
}

/// How a stream went.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub gigabits: f64,
    pub cpu_per_gigabyte: f64,
}

/// One stream of TCP from the first host to the second, for that long.
///
/// # Errors
///
/// It does not come about, or breaks.
pub fn flow(site: &Site, inner: Inner, lasting: Duration) -> Result<Flow> {
    let at = inner.address(site, 2)?;
    let listener = site.node(2)?.enter(|| TcpListener::bind(at))??;
    let to = listener.local_addr()?;
    let used = || anyhow::Ok(site.cpu()? + cpu::of_threads(std::process::id())?);
    let (cpu, begun) = (used()?, Instant::now());
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let (mut piece, mut octets) = (vec![0; PIECE], 0);
        loop {
            match stream.read(&mut piece)? {
                0 => return std::io::Result::Ok(octets),
                len => octets += len,
            }
        }
    });
    let mut stream = site
        .node(1)?
        .enter(|| TcpStream::connect_timeout(&to, PATIENCE))??;
    let piece = vec![0x55; PIECE];
    while begun.elapsed() < lasting {
        stream.write_all(&piece).context("send")?;
    }
    drop(stream);
    let octets = reader
        .join()
        .map_err(|_| anyhow!("the receiver panicked"))?;
    let gigabytes = octets.context("receive")? as f64 / 1e9;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Flow {
        gigabits: gigabytes * 8.0 / seconds,
        cpu_per_gigabyte: (used()? - cpu) / gigabytes,
    })
}

/// Thousands of datagrams of 64 octets that arrive in a second, while one thread sends as many as it can.
///
/// # Errors
///
/// None arrives.
pub fn small(site: &Site, inner: Inner, lasting: Duration) -> Result<f64> {
    let addresses = [inner.address(site, 1)?, inner.address(site, 2)?];
    let from = site.node(1)?.enter(|| UdpSocket::bind(addresses[0]))??;
    let to = site.node(2)?.enter(|| UdpSocket::bind(addresses[1]))??;
    from.connect(to.local_addr()?)?;
    to.set_read_timeout(Some(QUIET))?;
    let begun = Instant::now();
    let counting = thread::spawn(move || {
        let (mut datagram, mut count) = ([0; 128], 0_u32);
        // Queues run empty within the time that nothing comes.
        while to.recv(&mut datagram).is_ok() {
            count += u32::from(begun.elapsed() < lasting);
        }
        count
    });
    while begun.elapsed() < lasting {
        // What finds no room is lost, as on any network.
        let _ = from.send(&[7; 64]);
    }
    let count = counting
        .join()
        .map_err(|_| anyhow!("the receiver panicked"))?;
    anyhow::ensure!(count > 0, "no datagram arrived");
    Ok(f64::from(count) / lasting.as_secs_f64() / 1e3)
}

/// Microseconds that a small datagram and its answer take, the median of many.
///
/// # Errors
///
/// One is lost.
pub fn round_trip(site: &Site, inner: Inner) -> Result<f64> {
    let addresses = [inner.address(site, 1)?, inner.address(site, 2)?];
    let from = site.node(1)?.enter(|| UdpSocket::bind(addresses[0]))??;
    let to = site.node(2)?.enter(|| UdpSocket::bind(addresses[1]))??;
    from.connect(to.local_addr()?)?;
    to.connect(from.local_addr()?)?;
    for socket in [&from, &to] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let answering = thread::spawn(move || -> std::io::Result<()> {
        let mut datagram = [0; 64];
        for _ in 0..ROUND_TRIPS {
            let len = to.recv(&mut datagram)?;
            to.send(&datagram[..len])?;
        }
        Ok(())
    });
    let mut samples = Samples::default();
    let mut datagram = [0; 64];
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        from.send(&[7; 64])?;
        from.recv(&mut datagram).context("a datagram was lost")?;
        samples.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    answering
        .join()
        .map_err(|_| anyhow!("the answerer panicked"))??;
    Ok(samples.median())
}
