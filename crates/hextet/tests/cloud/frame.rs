//! What workloads say of themselves, octet by octet.

use std::net::IpAddr;

/// A way to say that one has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Gratuitous ARP (RFC 5227 §3), or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
    Gratuitous,
    /// VRRP's advertisement, of that version (RFC 3768, RFC 5798).
    Vrrp(u8),
}

const VRRP: u8 = 112;
const ICMPV6: u8 = 58;

/// The whole frame.
pub fn of(word: Word, mac: [u8; 6], addr: IpAddr) -> Vec<u8> {
    match (word, addr) {
        (Word::Gratuitous, IpAddr::V4(addr)) => {
            let addr = addr.octets();
            let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &addr, &[0; 6], &addr];
            ethernet([0xff; 6], mac, [8, 6], &arp.concat())
        }
        (Word::Gratuitous, IpAddr::V6(addr)) => {
            let head = [136, 0, 0, 0, 0x20, 0, 0, 0];
            let advertisement = [&head[..], &addr.octets(), &[2, 1], &mac].concat();
            let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            let group = [0x33, 0x33, 0, 0, 0, 1];
            ethernet(
                group,
                mac,
                [0x86, 0xdd],
                &ipv6(ICMPV6, to, mac, &advertisement),
            )
        }
        (Word::Vrrp(version), IpAddr::V4(addr)) => {
            let advert = [
                &[version << 4 | 1, 7, 100, 1, 0, 20, 0, 0][..],
                &addr.octets(),
            ]
            .concat();
            let head = [
                0x45, 0, 0, 32, 0, 0, 0, 0, 255, VRRP, 0, 0, 10, 0, 0, 5, 224, 0, 0, 18,
            ];
            let group = [1, 0, 0x5e, 0, 0, 18];
            ethernet(group, mac, [8, 0], &[&head[..], &advert].concat())
        }
        (Word::Vrrp(version), IpAddr::V6(addr)) => {
            let advert = [
                &[version << 4 | 1, 7, 100, 1, 0, 20, 0, 0][..],
                &addr.octets(),
            ]
            .concat();
            let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12];
            let group = [0x33, 0x33, 0, 0, 0, 0x12];
            ethernet(group, mac, [0x86, 0xdd], &ipv6(VRRP, to, mac, &advert))
        }
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind, payload].concat()
}

/// From the link-local address that follows from the Ethernet address.
fn ipv6(next: u8, to: [u8; 16], mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac;
    let length = u8::try_from(payload.len()).unwrap();
    let head = [
        0x60, 0, 0, 0, 0, length, next, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0,
    ];
    let from = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    [&head[..], &from, &to, payload].concat()
}
