use proptest::{collection::vec, prelude::*};

use super::*;
use crate::samples::{self, GUEST, HOST, octets};

fn guest_link_local() -> Ipv6Addr {
    GUEST.link_local()
}

#[test]
fn frames_of_real_clients_are_requests() {
    let rs = samples::kernel_rs();
    let all_routers = "ff02::2".parse().unwrap();
    assert_eq!(
        parse(&rs),
        Ok(Frame {
            source: GUEST,
            destination: Mac::for_ipv6_multicast(all_routers),
            request: Request::RouterSolicitation {
                source: guest_link_local(),
                destination: all_routers,
            },
        })
    );
    for bytes in [
        samples::dhclient_discover(),
        samples::dhclient_request(),
        samples::udhcpc_discover(),
    ] {
        let expected = Request::Dhcpv4 {
            destination: Ipv4Addr::BROADCAST,
            payload: &bytes[42..],
        };
        assert_eq!(parse(&bytes).map(|f| f.request), Ok(expected));
    }
    for bytes in [
        samples::dhclient_solicit(),
        samples::dhclient_request6(),
        samples::dhclient_information_request(),
    ] {
        let expected = Request::Dhcpv6 {
            source: guest_link_local(),
            destination: "ff02::1:2".parse().unwrap(),
            payload: &bytes[62..],
        };
        assert_eq!(parse(&bytes).map(|f| f.request), Ok(expected));
    }
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    for mut bytes in samples::all() {
        let without = parse(&bytes).map(|f| format!("{f:?}"));
        bytes.extend([0xaa; 20]);
        assert_eq!(parse(&bytes).map(|f| format!("{f:?}")), without);
    }
}

#[test]
fn every_truncation_is_refused() {
    for bytes in samples::all() {
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), Err(Reason::Truncated), "{len}");
        }
    }
}

#[test]
fn every_flipped_bit_behind_the_ethernet_header_is_noticed_or_harmless() {
    for bytes in samples::all() {
        let ok = parse(&bytes).unwrap();
        for bit in 14 * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(frame) = parse(&flipped) else { continue };
            // An IPv6 header's traffic class, flow label and hop limit are under no checksum, and
            // nothing depends on them; a UDP checksum that was left to hardware covers nothing.
            let unprotected = bit < 18 * 8 || bit / 8 == 21;
            let partial = bytes[12..14] == [0x86, 0xdd] && bytes[20] == 17;
            assert!(
                unprotected && frame == ok || partial,
                "bit {bit} of {bytes:02x?}"
            );
        }
    }
}

#[test]
fn what_is_no_request_is_told_apart() {
    let rs = samples::kernel_rs();
    let discover = samples::dhclient_discover();
    let solicit = samples::dhclient_solicit();
    let with = |bytes: &[u8], changes: &[(usize, u8)]| {
        let mut bytes = bytes.to_vec();
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        parse(&bytes).map(|_| ()).unwrap_err()
    };
    for (bytes, changes, reason) in [
        (&rs, &[(12, 0x81), (13, 0)][..], Reason::VlanTag),
        (&rs, &[(12, 0x88), (13, 0xa8)], Reason::VlanTag),
        (&rs, &[(12, 0x08), (13, 6)], Reason::NotARequest),
        (&rs, &[(14, 0x40)], Reason::IpHeader),
        (&rs, &[(20, 44)], Reason::Fragment),
        (&rs, &[(20, 6)], Reason::NotARequest),
        (&rs, &[(20, 50)], Reason::NotARequest),
        (&rs, &[(21, 254)], Reason::HopLimit),
        (&rs, &[(54, 135)], Reason::NotARequest),
        (&rs, &[(56, 0)], Reason::Checksum),
        (&rs, &[(55, 1), (57, 0x11)], Reason::Malformed),
        (&discover, &[(14, 0x65)], Reason::IpHeader),
        (&discover, &[(14, 0x44)], Reason::IpHeader),
        (&discover, &[(20, 0x20)], Reason::Fragment),
        (&discover, &[(21, 1)], Reason::Fragment),
        (&discover, &[(23, 6)], Reason::NotARequest),
        (&discover, &[(22, 63)], Reason::Checksum),
        (&discover, &[(37, 68)], Reason::NotARequest),
        (&discover, &[(50, 1)], Reason::Checksum),
        (&discover, &[(16, 0), (17, 19)], Reason::IpHeader),
        (&solicit, &[(57, 0x24)], Reason::NotARequest),
        (&solicit, &[(60, 0)], Reason::Checksum),
        (&solicit, &[(60, 0), (61, 0)], Reason::Checksum),
    ] {
        assert_eq!(with(bytes, changes), reason, "{changes:?}");
    }
}

#[test]
fn a_checksum_may_be_left_out_in_ipv4_alone() {
    let mut bytes = samples::dhclient_discover();
    bytes[40..42].fill(0);
    assert!(parse(&bytes).is_ok());
}

#[test]
fn an_unspecified_source_has_no_link_layer_address() {
    let envelope = Envelope {
        source_mac: GUEST,
        destination_mac: HOST,
        source: Ipv6Addr::UNSPECIFIED,
        destination: "ff02::2".parse().unwrap(),
    };
    let mut rs = RouterSolicitation::default();
    let bytes = envelope.neighbour_discovery(&rs.encode()).unwrap();
    assert!(parse(&bytes).is_ok());
    rs.options.push(NdOption::SourceLinkLayer(GUEST));
    let bytes = envelope.neighbour_discovery(&rs.encode()).unwrap();
    assert_eq!(parse(&bytes), Err(Reason::Malformed));
}

/// The RS of [`samples::rdisc6_rs`] behind these headers, each `(type, octets)`.
fn behind(headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = samples::rdisc6_rs();
    let message = bytes.split_off(54);
    let mut next = 58;
    let mut chain = Vec::new();
    for (kind, header) in headers.iter().rev() {
        let mut header = header.clone();
        header[0] = next;
        next = *kind;
        header.extend(chain);
        chain = header;
    }
    bytes[20] = next;
    let len = u16::try_from(chain.len() + message.len()).unwrap();
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    [bytes, chain, message].concat()
}

#[test]
fn extension_headers_are_passed_over_up_to_a_bound() {
    let short = octets("00 00 01 04 00*4");
    let long = octets("00 ff 01 04 00*2044");
    for (headers, expected) in [
        (vec![(0, short.clone())], None),
        (vec![(0, short.clone()), (60, long.clone())], None),
        (vec![(60, short.clone()); MAX_EXTENSION_HEADERS], None),
        (
            vec![(60, short.clone()); MAX_EXTENSION_HEADERS + 1],
            Some(Reason::ExtensionHeader),
        ),
        (
            vec![(60, short.clone()), (0, short.clone())],
            Some(Reason::ExtensionHeader),
        ),
        (vec![(43, short.clone())], None),
        (
            vec![(60, short.clone()), (44, short.clone())],
            Some(Reason::Fragment),
        ),
        (vec![(51, short.clone())], Some(Reason::NotARequest)),
        (vec![(59, short)], Some(Reason::NotARequest)),
    ] {
        let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(parse(&behind(&headers)).err(), expected, "{kinds:?}");
    }
}

#[test]
fn a_bomb_of_extension_headers_ends_at_the_bound() {
    let bomb = behind(&vec![(60, octets("00 00 01 04 00*4")); 8_000]);
    assert_eq!(parse(&bomb), Err(Reason::ExtensionHeader));
    // A header that says it is longer than the packet.
    let mut liar = behind(&[(60, octets("00 00 01 04 00*4"))]);
    liar[55] = 0xff;
    assert_eq!(parse(&liar), Err(Reason::Truncated));
}

proptest! {
    #[test]
    fn any_octets_end(bytes in vec(any::<u8>(), 0..200), ether_type in prop::sample::select(vec![IPV4, IPV6])) {
        let mut bytes = bytes;
        let _ = parse(&bytes);
        if let Some(field) = bytes.get_mut(12..14) {
            field.copy_from_slice(&ether_type.to_be_bytes());
        }
        let _ = parse(&bytes);
    }

    /// What we make is taken apart by etherparse: addresses, ports, lengths, checksums.
    #[test]
    fn frames_that_are_made_are_sound(payload in vec(any::<u8>(), 0..1_400), a: [u8; 16], b: [u8; 16]) {
        let source = Ipv6Addr::from(a);
        let destination = Ipv6Addr::from(b);
        let v6 = Envelope { source_mac: HOST, destination_mac: GUEST, source, destination };
        check_made(&v6.dhcpv6(&payload).unwrap(), &payload, 546);
        let v4 = Envelope {
            source_mac: HOST,
            destination_mac: GUEST,
            source: Ipv4Addr::new(a[0], a[1], a[2], a[3]),
            destination: Ipv4Addr::new(b[0], b[1], b[2], b[3]),
        };
        check_made(&v4.dhcpv4(&payload).unwrap(), &payload, 68);
        let nd = v6.neighbour_discovery(&[&[134, 0, 0, 0, 1, 2, 3, 4], &payload[..]].concat()).unwrap();
        prop_assert_eq!(nd[21], 255);
        let addresses = [a, b].concat();
        let checksum = u16::from_be_bytes([nd[56], nd[57]]);
        prop_assert_eq!(check_checksum(&addresses, ICMPV6, &nd[54..], checksum), Ok(()));
        prop_assert_eq!(&nd[62..], &payload[..]);
    }
}

fn check_made(frame: &[u8], payload: &[u8], port: u16) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
        panic!("{sliced:?}");
    };
    assert_eq!(udp.destination_port(), port);
    assert_eq!(udp.payload(), payload);
    let sum = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            udp.to_header().calc_checksum_ipv4(&header, payload)
        }
        etherparse::NetSlice::Ipv6(ip) => udp
            .to_header()
            .calc_checksum_ipv6(&ip.header().to_header(), payload),
        etherparse::NetSlice::Arp(_) => panic!("ARP"),
    };
    assert_eq!(sum, Ok(udp.checksum()));
}
