//! What workloads say of the multicast groups that they have joined: IGMP of all three versions (RFC 1112, RFC 2236, RFC 3376)
//! and MLD of both (RFC 2710, RFC 3810), and the questions that make them say so again.
//!
//! Frames are hostile; no octets make it panic. Who says it is known by the link. Sources are not told apart: who wants a
//! group from some sources only has joined it (RFC 3376 §3, the filter mode is the workload's own affair), and who leaves is
//! believed at once, since behind a link there is one workload.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::Mac;

/// The header of Ethernet.
const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
/// Of one frame; more is told in the next.
const MOST: usize = 64;

/// Types of messages (RFC 3376 §4, RFC 3810 §5, RFC 2710 §3).
const IGMP_QUERY: u8 = 0x11;
const IGMP_V1_REPORT: u8 = 0x12;
const IGMP_V2_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_V3_REPORT: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_V2_REPORT: u8 = 143;
/// Types of records (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
const IS_INCLUDE: u8 = 1;
const TO_INCLUDE: u8 = 3;
const BLOCK: u8 = 6;

/// Seconds between questions, and how many may get lost (RFC 3376 §8.1, §8.2).
pub const QUERY_SECS: u8 = 125;
const ROBUSTNESS: u8 = 2;
/// An answer comes within a second: nobody else is on the link.
const RESPONSE_TENTHS: u8 = 10;
const RESPONSE_MILLIS: u16 = 1000;

/// Groups, and whether the workload has joined or left each.
pub type Report = BTreeMap<IpAddr, bool>;

/// Reads a frame, from its Ethernet header on; none, where it is no report.
pub fn parse(frame: &[u8]) -> Option<Report> {
    let kind: [u8; 2] = *frame.get(12..)?.first_chunk()?;
    let packet = frame.get(ETHERNET..)?;
    match kind {
        IPV4 => of_ipv4(packet),
        IPV6 => of_ipv6(packet),
        _ => None,
    }
}

fn of_ipv4(packet: &[u8]) -> Option<Report> {
    let first = *packet.first()?;
    let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
    let is_ours = first >> 4 == 4 && *packet.get(9)? == IGMP && fragment == 0;
    let length = u16::from_be_bytes(*packet.get(2..)?.first_chunk()?);
    let end = packet.len().min(length.into());
    let message = packet.get(4 * usize::from(first & 0xf)..end)?;
    let message = Some(message).filter(|_| is_ours)?;
    let group = |octets: &[u8]| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?).into());
    let one = |joined| Some(Report::from([(group(message.get(4..)?)?, joined)]));
    match *message.first()? {
        IGMP_V1_REPORT | IGMP_V2_REPORT => one(true),
        IGMP_LEAVE => one(false),
        IGMP_V3_REPORT => records(message, 4, group),
        _ => None,
    }
}

fn of_ipv6(packet: &[u8]) -> Option<Report> {
    let length = u16::from_be_bytes(*packet.get(4..)?.first_chunk()?);
    let end = packet.len().min(40 + usize::from(length));
    let payload = packet.get(40..end)?;
    let message = match (*packet.get(6)?, payload) {
        (ICMPV6, message) => message,
        // The Router Alert option is there to be seen (RFC 2711).
        (HOP_BY_HOP, [ICMPV6, length, ..]) => payload.get(8 * (1 + usize::from(*length))..)?,
        _ => return None,
    };
    let group = |octets: &[u8]| Some(Ipv6Addr::from(*octets.first_chunk::<16>()?).into());
    let one = |joined| Some(Report::from([(group(message.get(8..)?)?, joined)]));
    match *message.first()? {
        MLD_REPORT => one(true),
        MLD_DONE => one(false),
        MLD_V2_REPORT => records(message, 16, group),
        _ => None,
    }
}

/// Of a report with records; those after one that is cut off are left out.
fn records(
    message: &[u8],
    address: usize,
    group: impl Fn(&[u8]) -> Option<IpAddr>,
) -> Option<Report> {
    let count = u16::from_be_bytes(*message.get(6..)?.first_chunk()?);
    let mut rest = message.get(8..)?;
    let mut report = Report::new();
    for _ in 0..usize::from(count).min(MOST) {
        let [kind, auxiliary, high, low, ..] = *rest else {
            break;
        };
        let sources = usize::from(u16::from_be_bytes([high, low]));
        let length = 4 + address + sources * address + 4 * usize::from(auxiliary);
        let (Some(of), Some(next)) = (rest.get(4..).and_then(&group), rest.get(length..)) else {
            break;
        };
        rest = next;
        match (kind, sources) {
            (IS_INCLUDE | TO_INCLUDE, 0) => drop(report.insert(of, false)),
            // What is blocked is less of what it has.
            (BLOCK | 0 | 7.., _) => {}
            _ => drop(report.insert(of, true)),
        }
    }
    Some(report)
}

/// The questions what a workload has joined, of both families, from the gateway. Of IPv4 no address of one's own is needed
/// (RFC 4541 §2.1.1).
pub fn queries(gateway: Mac, link_local: Ipv6Addr) -> [Vec<u8>; 2] {
    [igmp_query(gateway), mld_query(gateway, link_local)]
}

fn igmp_query(gateway: Mac) -> Vec<u8> {
    let mut message = [0; 12];
    message[0] = IGMP_QUERY;
    message[1] = RESPONSE_TENTHS;
    message[8] = ROBUSTNESS;
    message[9] = QUERY_SECS;
    let sum = checksum(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let everybody = Ipv4Addr::new(224, 0, 0, 1).octets();
    // 24 octets of header with the Router Alert option (RFC 2113), of importance (RFC 3376 §4), one hop.
    let mut header = [
        0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, IGMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x94, 4, 0, 0,
    ];
    header[16..20].copy_from_slice(&everybody);
    let sum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let to = [1, 0, 0x5e, 0, 0, 1];
    [&to[..], &gateway.octets(), &IPV4, &header, &message].concat()
}

fn mld_query(gateway: Mac, link_local: Ipv6Addr) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut message = [0; 28];
    message[0] = MLD_QUERY;
    message[4..6].copy_from_slice(&RESPONSE_MILLIS.to_be_bytes());
    message[24] = ROBUSTNESS;
    message[25] = QUERY_SECS;
    let pseudo = [0, 0, 0, message.len() as u8, 0, 0, 0, ICMPV6];
    let sum = checksum(&[&link_local.octets(), &everybody, &pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let alert = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let length = (alert.len() + message.len()) as u8;
    let header = [0x60, 0, 0, 0, 0, length, HOP_BY_HOP, 1];
    let to = [0x33, 0x33, 0, 0, 0, 1];
    let from = link_local.octets();
    let ethernet = [&to[..], &gateway.octets(), &IPV6].concat();
    [&ethernet[..], &header, &from, &everybody, &alert, &message].concat()
}

/// RFC 1071, of parts with an even number of octets.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let value =
        |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(value).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
