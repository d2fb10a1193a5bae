use hextet_model::state::Netns;
use proptest::prelude::*;

use super::*;
use crate::{
    netlink::{Answer, Attrs},
    netns::{self, Handle},
};

fn wanted(endpoint: Option<&str>) -> Wanted {
    Wanted {
        name: "hxt-wgk0".parse().unwrap(),
        mtu: 1_420,
        link_local: "fe80::7".parse().unwrap(),
        private_key: [1; 32],
        port: 5_000,
        peer: Peer {
            key: [2; 32],
            preshared_key: Some([3; 32]),
            endpoint: endpoint.map(|at| at.parse().unwrap()),
            keepalive_secs: 20,
        },
    }
}

fn answer(kind: u16, payload: &[u8]) -> Answer<'_> {
    Answer {
        kind,
        flags: 0,
        seq: 0,
        port: 0,
        payload,
    }
}

/// What the kernel is told it tells in the same form.
fn told(wanted: &Wanted) -> Device {
    let mut batch = Batch::default();
    message::set(&mut batch, 30, wanted);
    let mut octets = batch.octets_of_last().to_vec();
    assert_eq!(octets[..4], [1, 1, 0, 0], "a command to set, version 1");
    octets[0] = 0;
    read(&answer(30, &octets)).unwrap()
}

#[test]
fn what_is_set_reads_as_it_was_written_for_both_families() {
    let endpoints = ["192.0.2.1:6697", "[2001:db8::1]:6697", "[fe80::1%3]:7"];
    for endpoint in endpoints.into_iter().map(Some).chain([None]) {
        let wanted = wanted(endpoint);
        let device = told(&wanted);
        let peer = Some((wanted.peer, Counts::default()));
        assert!(device.peer == peer, "{endpoint:?}");
        assert_eq!((device.port, device.public_key), (5_000, None));
    }
}

/// As `struct sockaddr_in` and `struct sockaddr_in6` are laid out, and everything allowed.
#[test]
fn octets_of_a_peer() {
    let mut batch = Batch::default();
    let key = [2; 32];
    message::set_endpoint(&mut batch, 30, 9, &key, "192.0.2.1:258".parse().unwrap());
    let octets = batch.octets_of_last();
    let inet = 2_u16.to_ne_bytes();
    let mut expected = vec![1, 1, 0, 0];
    expected.extend([8_u16, 1].map(u16::to_ne_bytes).concat());
    expected.extend(9_u32.to_ne_bytes());
    expected.extend(
        [72_u16, 0x8008, 68, 0x8000, 36, 1]
            .map(u16::to_ne_bytes)
            .concat(),
    );
    expected.extend(key);
    expected.extend([8_u16, 3, 4, 0, 20, 4].map(u16::to_ne_bytes).concat());
    expected.extend([inet[0], inet[1], 1, 2, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(octets, expected);
    let mut batch = Batch::default();
    message::set(&mut batch, 30, &wanted(None));
    let peer = Attrs::after(batch.octets_of_last(), 4).nest(8).nest(0);
    let allowed: Vec<_> = peer.nest(9).into_iter().map(|(_, net)| net.len()).collect();
    assert_eq!(allowed, [8 + 8 + 8, 8 + 20 + 8], "0.0.0.0/0 and ::/0");
}

#[test]
fn handshakes_and_octets_are_read_and_zeros_are_none() {
    let mut batch = Batch::default();
    let time = |secs: u64, nanos: u64| [secs.to_ne_bytes(), nanos.to_ne_bytes()].concat();
    for (stamp, expected) in [
        (time(5, 6), Some(Duration::new(5, 6))),
        (time(0, 0), None),
        (time(5, 1_000_000_000), None),
        (time(5, 6)[..12].to_vec(), None),
    ] {
        let secret = [0; 32];
        batch
            .message(30, 0, &[0, 1, 0, 0])
            .attr(4, &[8; 32])
            .attr(6, &7_u16.to_ne_bytes())
            .nest(8, |m| {
                m.nest(0, |m| {
                    m.attr(1, &[2; 32])
                        .attr(2, &secret)
                        .attr(6, &stamp)
                        .attr(7, &11_u64.to_ne_bytes())
                        .attr(8, &12_u64.to_ne_bytes());
                });
            });
        let device = read(&answer(30, batch.octets_of_last())).unwrap();
        assert_eq!((device.public_key, device.port), (Some([8; 32]), 7));
        let (peer, counts) = device.peer.unwrap();
        assert!(peer.preshared_key.is_none());
        let Counts {
            handshake,
            rx_octets,
            tx_octets,
        } = counts;
        assert_eq!((handshake, rx_octets, tx_octets), (expected, 11, 12));
    }
}

/// Where the kernel has none, that is said; where it has, a link is made once, and goes.
#[test]
fn a_kernel_has_it_or_says_that_it_has_none() {
    let name = format!("hxt-{}-wgk", std::process::id());
    netns::create(&name).unwrap();
    let handle = Handle::open(&Netns::Named(name.clone())).unwrap();
    let done = handle.run(|| match WireGuard::open() {
        Err(error) => {
            assert!(!is_there());
            assert_eq!(error.to_string(), "there is no WireGuard in this kernel");
        }
        Ok(mut wireguard) => {
            let wanted = wanted(None);
            wireguard.make(&wanted).unwrap();
            assert!(wireguard.make(&wanted).is_err());
            let all = wireguard.list().unwrap();
            assert!(all.len() == 1 && all[0].device.port == 5_000 && all[0].mtu == 1_420);
            wireguard.delete(&wanted.name).unwrap();
            wireguard.delete(&wanted.name).unwrap();
            assert!(wireguard.look(&wanted.name).unwrap().is_none());
        }
    });
    netns::delete(&name).unwrap();
    done.unwrap();
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(kind: u16, payload: Vec<u8>) {
        let _ = (read(&answer(kind, &payload)), message::read_family(&answer(kind, &payload)));
    }

    #[test]
    fn no_change_makes_it_panic(at in 0_usize..400, octet: u8, cut in 0_usize..400) {
        let mut batch = Batch::default();
        message::set(&mut batch, 30, &wanted(Some("[2001:db8::1]:1")));
        let mut octets = batch.octets_of_last().to_vec();
        octets[0] = 0;
        octets.truncate(cut);
        if let Some(place) = octets.get_mut(at) {
            *place = octet;
        }
        let _ = read(&answer(30, &octets));
    }
}
