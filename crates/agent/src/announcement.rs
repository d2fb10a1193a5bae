//! What workloads say of themselves on their links: gratuitous ARP (RFC 5227 §3), unsolicited neighbour advertisements
//! (RFC 4861 §7.2.6), VRRP (RFC 5798, RFC 9568; version 2 of RFC 3768), and RARP as hypervisors send it for a guest that has
//! come.
//!
//! Frames are hostile; no octets make it panic. What is said is not believed here: whoever reads it asks what the
//! port may say.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::Mac;

/// The header of Ethernet.
const ETHERNET: usize = 14;
const ARP: [u8; 2] = [8, 6];
const RARP: [u8; 2] = [0x80, 0x35];
const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VRRP: u8 = 112;
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const VRRP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VRRP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Of one frame.
const MOST: usize = 64;

/// What a workload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The frame's source.
    pub mac: Mac,
    /// The addresses that it has; none of RARP, which knows of none.
    pub addresses: BTreeSet<IpAddr>,
}

/// Reads a frame, from its Ethernet header on; none, where it announces nothing. Who gives up its addresses (a VRRP
/// priority of 0) announces nothing, either.
pub fn parse(frame: &[u8]) -> Option<Announcement> {
    let mac = Mac::new(*frame.get(6..)?.first_chunk()?);
    let kind: [u8; 2] = *frame.get(12..)?.first_chunk()?;
    let packet = frame.get(ETHERNET..)?;
    let addresses = match kind {
        ARP => [arp(packet)?].into(),
        RARP => BTreeSet::new(),
        IPV4 => of_ipv4(packet)?,
        IPV6 => of_ipv6(packet)?,
        _ => return None,
    };
    Some(Announcement { mac, addresses })
}

fn arp(packet: &[u8]) -> Option<IpAddr> {
    let [0, 1, 8, 0, 6, 4, 0, 1 | 2, ..] = packet else {
        return None;
    };
    let sender: [u8; 4] = *packet.get(14..)?.first_chunk()?;
    let target: [u8; 4] = *packet.get(24..)?.first_chunk()?;
    let addr = Ipv4Addr::from(sender);
    (sender == target && !addr.is_unspecified()).then_some(addr.into())
}

fn of_ipv4(packet: &[u8]) -> Option<BTreeSet<IpAddr>> {
    let first = *packet.first()?;
    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
    let is_ours = first >> 4 == 4 && *packet.get(9)? == VRRP && Ipv4Addr::from(to) == VRRP_V4;
    let payload = packet.get(4 * usize::from(first & 0xf)..)?;
    let read = |octets: &[u8]| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?).into());
    vrrp(payload.get(..).filter(|_| is_ours)?, 4, read)
}

fn of_ipv6(packet: &[u8]) -> Option<BTreeSet<IpAddr>> {
    let to: [u8; 16] = *packet.get(24..)?.first_chunk()?;
    let payload = packet.get(40..)?;
    match *packet.get(6)? {
        VRRP if Ipv6Addr::from(to) == VRRP_V6 => vrrp(payload, 16, |octets| {
            Some(Ipv6Addr::from(*octets.first_chunk::<16>()?).into())
        }),
        ICMPV6 => {
            let [ADVERTISEMENT, 0, _, _, flags, ..] = payload else {
                return None;
            };
            let target: [u8; 16] = *payload.get(8..)?.first_chunk()?;
            let target = Ipv6Addr::from(target);
            let unsolicited = flags & SOLICITED == 0 && *packet.get(7)? == 255;
            (unsolicited && !target.is_multicast() && !target.is_unspecified())
                .then(|| [IpAddr::V6(target)].into())
        }
        _ => None,
    }
}

/// An advertisement: version and type, virtual router, priority, how many addresses, four octets more, and these.
fn vrrp(
    payload: &[u8],
    len: usize,
    read: impl Fn(&[u8]) -> Option<IpAddr>,
) -> Option<BTreeSet<IpAddr>> {
    let [0x21 | 0x31, _, priority, count, _, _, _, _, addresses @ ..] = payload else {
        return None;
    };
    let count = usize::from(*count).min(MOST);
    let all = addresses.get(..count * len)?.chunks(len).filter_map(read);
    (*priority > 0 && count > 0).then(|| all.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 3, 4, 5, 6, 7];

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &MAC, &kind, packet].concat()
    }

    fn said(kind: [u8; 2], packet: &[u8]) -> Option<Vec<String>> {
        let announcement = parse(&frame(kind, packet))?;
        assert_eq!(announcement.mac, Mac::new(MAC));
        let addresses = announcement.addresses.iter();
        Some(addresses.map(ToString::to_string).collect())
    }

    fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &MAC, &sender, &[0; 6], &target].concat()
    }

    fn vrrp_v4(version: u8, priority: u8, addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 40, 0, 0, 0, 0, 255, 112, 0, 0, 10, 0, 0, 5, 224, 0, 0, 18,
        ];
        let count = addresses.len() as u8;
        packet.extend([version << 4 | 1, 7, priority, count, 0, 1, 0, 0]);
        packet.extend(addresses.concat());
        packet
    }

    fn ipv6(next: u8, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
        packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn what_announces_is_read_and_nothing_else() {
        let own = [10, 0, 0, 9];
        for operation in [1, 2] {
            let said = said(ARP, &arp(operation, own, own));
            assert_eq!(said, Some(vec!["10.0.0.9".to_owned()]));
        }
        assert_eq!(said(ARP, &arp(1, own, [10, 0, 0, 1])), None, "a question");
        assert_eq!(said(ARP, &arp(1, [0; 4], own)), None, "a probe");
        assert_eq!(said(ARP, &arp(1, [0; 4], [0; 4])), None);
        assert_eq!(said(RARP, &[]), Some(Vec::new()));
        for version in [2, 3] {
            let advert = vrrp_v4(version, 100, &[own, [10, 0, 0, 8]]);
            let both = ["10.0.0.8", "10.0.0.9"].map(str::to_owned);
            assert_eq!(said(IPV4, &advert), Some(both.to_vec()), "{version}");
        }
        assert_eq!(said(IPV4, &vrrp_v4(3, 0, &[own])), None, "it gives up");
        assert_eq!(said(IPV4, &vrrp_v4(4, 9, &[own])), None);
        let mut short = vrrp_v4(3, 9, &[own]);
        short.pop();
        assert_eq!(said(IPV4, &short), None);
        let mut elsewhere = vrrp_v4(3, 9, &[own]);
        elsewhere[19] = 5;
        assert_eq!(said(IPV4, &elsewhere), None);
    }

    #[test]
    fn of_ipv6_adverts_and_unsolicited_advertisements() {
        let addr: Ipv6Addr = "fd00::9".parse().expect("an address");
        let mut advert = vec![0x31, 7, 100, 1, 0, 100, 0, 0];
        advert.extend(addr.octets());
        let all = Some(vec!["fd00::9".to_owned()]);
        assert_eq!(said(IPV6, &ipv6(VRRP, VRRP_V6, &advert)), all);
        let everybody = "ff02::1".parse().expect("an address");
        assert_eq!(said(IPV6, &ipv6(VRRP, everybody, &advert)), None);
        for (flags, expected) in [(0x20, all), (0x60, None)] {
            let mut na = vec![136, 0, 0, 0, flags, 0, 0, 0];
            na.extend(addr.octets());
            assert_eq!(said(IPV6, &ipv6(ICMPV6, everybody, &na)), expected);
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&octets);
            for kind in [ARP, RARP, IPV4, IPV6] {
                let announcement = parse(&frame(kind, &octets));
                prop_assert!(announcement.is_none_or(|a| a.addresses.len() <= MOST));
            }
        }
    }
}
