//! UDP without anybody's IP layer but the host's: whole frames out of a packet socket, dropped where they
//! arrive.

use std::{
    io::IoSlice,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use hextet_kernel::links::Links;
use hextet_model::state::Netns;
use hextet_types::Mac;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
    },
};

use super::{
    meter::Meter,
    workload::{DISCARD, GATEWAY, Workload},
};

/// Frames for one system call.
const BATCH: usize = 64;
/// What a frame carries beyond its headers.
const PAYLOAD: [u8; 18] = [0; 18];
/// Of what was sent, so much has to arrive.
const ARRIVING: f64 = 0.999;

/// A UDP packet as a workload sends it. Without a checksum, as from whoever leaves it to the network card.
pub fn frame(from: Mac, source: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut udp = Vec::new();
    let length = 8 + PAYLOAD.len() as u16;
    for field in [source.1, to.1, length, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(PAYLOAD);
    let mut frame = [GATEWAY.octets(), from.octets()].concat();
    match (source.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0, 0, 20 + length as u8, 0, 0, 0x40, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(to.octets());
            let sum = checksum(&header).to_be_bytes();
            header.splice(10..12, sum);
            frame.extend(header);
        }
        (source, to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length as u8, 17, 64]);
            for address in [source, to] {
                frame.extend(six(address));
            }
        }
    }
    frame.extend(udp);
    frame
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// RFC 1071, of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks_exact(2).map(|pair| match pair {
        [a, b] => u32::from(u16::from_be_bytes([*a, *b])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// How long to go on.
#[derive(Clone, Copy)]
pub enum Length {
    /// All frames again and again, until so many CPU seconds are used.
    CpuSeconds(f64),
    /// All frames, once.
    Once,
}

/// Sends frames from one workload to another; gives packets that arrived per CPU-second.
///
/// # Errors
///
/// Some do not arrive: then there is nothing to compare.
pub fn flood(
    meter: Meter,
    from: &Workload,
    to: &Workload,
    frames: &[Vec<u8>],
    length: Length,
) -> Result<f64> {
    let before = received(to)?;
    let (sent, used) = pinned(meter, from, frames, length)?;
    let arrived = received(to)?.saturating_sub(before) as f64;
    ensure!(
        arrived >= ARRIVING * sent as f64,
        "only {arrived} of {sent} packets arrive"
    );
    Ok(arrived / used)
}

/// Sends frames to a host that drops them where they come in; gives packets sent per CPU-second.
///
/// # Errors
///
/// The kernel refuses them.
pub fn send_only(meter: Meter, from: &Workload, frames: &[Vec<u8>], length: Length) -> Result<f64> {
    let (sent, used) = pinned(meter, from, frames, length)?;
    Ok(sent as f64 / used)
}

fn pinned(meter: Meter, from: &Workload, frames: &[Vec<u8>], length: Length) -> Result<(u64, f64)> {
    from.place.enter(|| {
        meter.pin()?;
        send(meter, frames, length)
    })?
}

/// Sends frames once, unmeasured.
///
/// # Errors
///
/// The kernel refuses them.
pub fn send_once(from: &Workload, frames: &[Vec<u8>], meter: Meter) -> Result<()> {
    from.place.enter(|| send(meter, frames, Length::Once))??;
    Ok(())
}

fn received(workload: &Workload) -> Result<u64> {
    let links = workload.place.enter(|| {
        let mut links = Links::open(&Netns::Main)?;
        links.list(true)
    })??;
    let link = links.into_iter().find(|link| link.name.as_str() == "eth0");
    let stats = link.context("no eth0")?.stats.context("no counters")?;
    Ok(stats.rx_packets)
}

fn open() -> Result<OwnedFd> {
    let packet = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let packet = packet.context("open a packet socket")?;
    let mut addresses = getifaddrs().context("list interfaces")?;
    let link = addresses
        .find_map(|i| {
            let link = i.address.and_then(|a| a.as_link_addr().copied());
            link.filter(|_| i.interface_name == "eth0")
        })
        .context("no eth0")?;
    bind(packet.as_raw_fd(), &link).context("bind a packet socket to eth0")?;
    Ok(packet)
}

/// Sends, and gives how many frames that were and what it cost.
fn send(meter: Meter, frames: &[Vec<u8>], length: Length) -> Result<(u64, f64)> {
    let socket = open()?;
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, None);
    let mut sent = 0;
    let begin = meter.now()?;
    loop {
        for batch in slices.chunks(BATCH) {
            let addresses = vec![None; batch.len()];
            sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                batch,
                &addresses,
                [],
                MsgFlags::empty(),
            )
            .context("send frames")?;
            sent += batch.len() as u64;
        }
        let used = meter.now()? - begin;
        match length {
            Length::CpuSeconds(wanted) if used < wanted => {}
            _ => return Ok((sent, used)),
        }
    }
}

/// A flow to where floods end, and its answer.
pub fn flow(
    one: &Workload,
    two: &Workload,
    port: u16,
    family: hextet_types::Family,
) -> [Vec<u8>; 2] {
    let [a, b] = [one, two].map(|w| w.address(family));
    [
        frame(one.mac, (a, port), (b, DISCARD)),
        frame(two.mac, (b, DISCARD), (a, port)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_right() {
        let mac = Mac::new([2, 0, 0, 0, 0, 5]);
        let v4 = frame(
            mac,
            ("10.8.0.16".parse().unwrap(), 5000),
            ("10.8.0.17".parse().unwrap(), 9),
        );
        assert_eq!(v4.len(), 14 + 20 + 26);
        assert_eq!(checksum(&v4[14..34]), 0);
        assert_eq!(v4[34..38], [0x13, 0x88, 0, 9]);
        let v6 = frame(
            mac,
            ("2001:db8::1".parse().unwrap(), 5000),
            ("2001:db8::2".parse().unwrap(), 9),
        );
        assert_eq!(v6.len(), 14 + 40 + 26);
        assert_eq!(v6[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 17, 64]);
        assert_eq!(v6[22 + 31], 2);
    }
}
