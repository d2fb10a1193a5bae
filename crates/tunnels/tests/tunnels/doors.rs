//! Tunnels that share ports, and letters that come by these.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use hextet_lab::wait_until;
use hextet_tunnels::{
    Key, Listen, Spec,
    control::{Answer, Request},
    letters::{Letter, MAX_LETTER, Post},
};
use hextet_types::Way;

use crate::pair::{DEVICE, PATIENCE, Pair, Side, ip, transfer};

pub const PORT: u16 = 6_697;

impl Side {
    pub fn outer(number: u8, over_ipv6: bool) -> Way {
        let address = if over_ipv6 {
            format!("[2001:db8::{number}]:{PORT}")
        } else {
            format!("192.0.2.{number}:{PORT}")
        };
        address.parse().unwrap()
    }

    pub fn doors(&self) -> Vec<SocketAddr> {
        let listen = [format!("0.0.0.0:{PORT}"), format!("[::]:{PORT}")];
        let open = |listen: String| {
            let listen = listen.parse().unwrap();
            let uplink = Some("veth0".parse().unwrap());
            match self.ask(&Request::Door { listen, uplink }) {
                Answer::Door(door) => door.address(),
                other => panic!("{other:?}"),
            }
        };
        listen.map(open).to_vec()
    }

    pub fn letter(&self, to: Way, octets: &[u8]) -> Letter {
        Letter {
            door: "[::]:0".parse().unwrap(),
            other: to,
            octets: octets.to_vec(),
        }
    }

    pub fn refused_at_doors(&self) -> u64 {
        match self.ask(&Request::Doors) {
            Answer::Doors(doors) => doors.iter().map(|door| door.refused).sum(),
            other => panic!("{other:?}"),
        }
    }
}

/// A tunnel by doors that stand already or are opened for it.
fn by_doors(pair: &Pair, over_ipv6: bool) -> impl Fn(&mut Spec) {
    for side in &pair.sides {
        assert_eq!(side.doors(), side.doors(), "asked again");
    }
    let first = Side::key(1);
    let doors = pair.sides[0].doors();
    move |spec| {
        let other = if spec.private_key == first { 2 } else { 1 };
        spec.listen = Listen::Doors(doors.clone());
        spec.uplink = None;
        spec.endpoint = Some(Side::outer(other, over_ipv6));
    }
}

/// A second tunnel between the same two, with keys of its own.
fn second(pair: &Pair, number: u8) -> String {
    let name = format!("hxt-wg{number}");
    for side in &pair.sides {
        let own = number * 10 + side.number;
        let other = number * 10 + 3 - side.number;
        let mut spec = side.spec(true);
        by_doors(pair, true)(&mut spec);
        spec.name = name.parse().unwrap();
        spec.private_key = Key::from([own; 32]);
        spec.peer_key = Key::from([other; 32]).public();
        spec.endpoint = Some(Side::outer(3 - side.number, true));
        assert_eq!(side.ask(&Request::Up(Box::new(spec))), Answer::Done);
        let Side { netns, number, .. } = side;
        ip(&format!(
            "-n {netns} address add fd0{}::{number}/64 dev {name} nodad",
            name.trim_start_matches("hxt-wg")
        ));
    }
    name
}

pub fn post(pair: &Pair) -> [Post; 2] {
    let post = |side: &Side| Post::bind(&side.socket).unwrap();
    pair.sides.each_ref().map(post)
}

pub fn read(post: &Post) -> Letter {
    let mut letter = None;
    assert!(wait_until(PATIENCE, || {
        letter = post.try_recv().unwrap();
        letter.is_some()
    }));
    letter.unwrap()
}

#[test]
fn tunnels_between_the_same_two_share_their_doors_over_both_families() {
    for (name, over_ipv6) in [("dr4", false), ("dr6", true)] {
        let pair = Pair::new(name);
        let change = by_doors(&pair, over_ipv6);
        pair.connect(over_ipv6, change);
        transfer(&pair, "[fd00::2]:0", 20_000_000);
        transfer(&pair, "10.9.0.2:0", 20_000_000);
        let [a, _] = pair.sides.each_ref().map(Side::status);
        assert_eq!(a.endpoint, Some(Side::outer(2, over_ipv6)));
        assert!(a.endpoint_proven);
        for number in [3, 4] {
            second(&pair, number);
            transfer(&pair, &format!("[fd0{number}::2]:0"), 5_000_000);
            transfer(&pair, "[fd00::2]:0", 5_000_000);
        }
    }
}

#[test]
fn letters_come_by_the_same_ports_before_and_beside_tunnels() {
    let pair = Pair::new("post");
    let posts = post(&pair);
    let change = by_doors(&pair, false);
    let exchange = || {
        for over_ipv6 in [false, true] {
            for ([from, to], writer) in [([0, 1], 1), ([1, 0], 2)] {
                let octets = vec![0; MAX_LETTER];
                let at = Side::outer(3 - writer, over_ipv6);
                let letter = pair.sides[from].letter(at, &octets);
                posts[from].send(&letter).unwrap();
                let came = read(&posts[to]);
                assert_eq!(came.other, Side::outer(writer, over_ipv6));
                assert_eq!(came.door.port(), PORT);
                assert_eq!(came.door.is_ipv6(), over_ipv6);
                assert_eq!(came.octets, octets);
            }
        }
    };
    exchange();
    // Now the kernel has sockets for just these two addresses, which are a tunnel's.
    pair.connect(false, change);
    transfer(&pair, "10.9.0.2:0", 1_000_000);
    exchange();
    transfer(&pair, "10.9.0.2:0", 1_000_000);
    let stranger = pair.sides[0].inside(|| UdpSocket::bind("192.0.2.1:0"));
    let too_long = vec![0; MAX_LETTER + 1];
    let before = pair.sides[1].refused_at_doors();
    stranger
        .unwrap()
        .send_to(&too_long, Side::outer(2, false).address())
        .unwrap();
    assert!(wait_until(PATIENCE, || pair.sides[1].refused_at_doors() > before));
    assert_eq!(posts[1].try_recv().unwrap(), None);
}

#[test]
fn a_peer_at_a_door_is_followed_and_followed_back() {
    let pair = Pair::new("droam");
    let change = by_doors(&pair, false);
    pair.connect(false, change);
    let [a, b] = &pair.sides;
    let netns = &a.netns;
    for (from, to) in [(1, 77), (77, 1)] {
        ip(&format!(
            "-n {netns} address del 192.0.2.{from}/24 dev veth0"
        ));
        ip(&format!("-n {netns} address add 192.0.2.{to}/24 dev veth0"));
        transfer(&pair, "[fd00::2]:0", 5_000_000);
        assert_eq!(b.status().endpoint, Some(Side::outer(to, false)));
        transfer(&pair, "10.9.0.2:0", 5_000_000);
    }
    // To the other family, because somebody knows better.
    let name = DEVICE.parse().unwrap();
    let endpoint = Side::outer(2, true);
    assert_eq!(a.ask(&Request::Endpoint { name, endpoint }), Answer::Done);
    transfer(&pair, "[fd00::2]:0", 5_000_000);
    assert_eq!(b.status().endpoint, Some(Side::outer(1, true)));
    assert!(a.status().endpoint_proven);
}

#[test]
fn a_stranger_at_a_door_disturbs_nobody() {
    let pair = Pair::new("dwho");
    let change = by_doors(&pair, true);
    pair.connect(true, change);
    let [a, b] = &pair.sides;
    let stranger = b.inside(|| UdpSocket::bind("[2001:db8::2]:0")).unwrap();
    let (before, mut sent) = (a.refused_at_doors() + a.status().refused, 0);
    for kind in 0..6_u8 {
        for index in [0_u32, 1 << 8, (1 << 8) + 1, u32::MAX] {
            for len in [1, 31, 32, 64, 92, 148, 1_452] {
                let mut datagram = vec![0; len];
                datagram
                    .iter_mut()
                    .skip(4)
                    .take(4)
                    .zip(index.to_le_bytes())
                    .for_each(|(to, from)| *to = from);
                datagram[0] = kind;
                let to = Side::outer(1, true).address();
                stranger.send_to(&datagram, to).unwrap();
                sent += u64::from(kind != 0 || len > MAX_LETTER);
            }
        }
    }
    assert!(wait_until(PATIENCE, || {
        a.refused_at_doors() + a.status().refused >= before + sent
    }));
    assert_eq!(a.status().endpoint, Some(Side::outer(2, true)));
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

#[test]
fn a_tunnel_that_is_made_anew_by_its_peer_finds_the_one_that_waits() {
    let pair = Pair::new("danew");
    let change = by_doors(&pair, false);
    pair.connect(false, change);
    let name = second(&pair, 5);
    transfer(&pair, "[fd05::2]:0", 1_000_000);
    let [_, b] = &pair.sides;
    assert_eq!(b.ask(&Request::Down(name.parse().unwrap())), Answer::Done);
    second_again(b, &pair, &name);
    transfer(&pair, "[fd05::2]:0", 1_000_000);
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

fn second_again(side: &Side, pair: &Pair, name: &str) {
    let mut spec = side.spec(true);
    by_doors(pair, true)(&mut spec);
    spec.name = name.parse().unwrap();
    spec.private_key = Key::from([50 + side.number; 32]);
    spec.peer_key = Key::from([53 - side.number; 32]).public();
    spec.endpoint = Some(Side::outer(3 - side.number, true));
    assert_eq!(side.ask(&Request::Up(Box::new(spec))), Answer::Done);
    let Side { netns, number, .. } = side;
    ip(&format!(
        "-n {netns} address add fd05::{number}/64 dev {name} nodad"
    ));
}

#[test]
fn no_datagram_is_lost_or_overtaken_while_others_come_and_go_at_the_door() {
    const COUNT: u32 = 3_000;
    let pair = Pair::new("dflow");
    let change = by_doors(&pair, true);
    pair.connect(true, change);
    let [a, b] = &pair.sides;
    let receiver = b.inside(|| UdpSocket::bind("[fd00::2]:0")).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = receiver.local_addr().unwrap();
    let sender = a.inside(|| UdpSocket::bind("[fd00::1]:0")).unwrap();
    let flow = thread::spawn(move || {
        for number in 0..COUNT {
            sender.send_to(&number.to_be_bytes(), to).unwrap();
            thread::sleep(Duration::from_micros(300));
        }
    });
    let reader = thread::spawn(move || {
        for number in 0..COUNT {
            let mut datagram = [0; 10];
            assert_eq!(receiver.recv(&mut datagram).unwrap(), 4);
            assert_eq!(datagram[..4], number.to_be_bytes(), "lost, or not in order");
        }
    });
    let mut made = 0;
    while !flow.is_finished() {
        let name = second(&pair, 6);
        let down = Request::Down(name.parse().unwrap());
        assert!(
            pair.sides
                .iter()
                .all(|side| side.ask(&down) == Answer::Done)
        );
        made += 1;
    }
    flow.join().unwrap();
    reader.join().unwrap();
    assert!(made > 0);
}

#[test]
fn what_is_wrong_about_doors_is_said() {
    let pair = Pair::new("dwrong");
    let [a, _] = &pair.sides;
    let doors = a.doors();
    let refused = |request: &Request, why: &str| match a.ask(request) {
        Answer::Error(error) => assert!(error.contains(why), "{error}"),
        other => panic!("{other:?}"),
    };
    let up = |listen: &[SocketAddr]| {
        let listen = Listen::Doors(listen.to_vec());
        Request::Up(Box::new(Spec {
            listen,
            ..a.spec(true)
        }))
    };
    let nowhere: SocketAddr = "[::]:9".parse().unwrap();
    for listen in [
        &[][..],
        &[nowhere],
        &[doors[1], nowhere],
        &[doors[1], doors[1]],
    ] {
        refused(&up(listen), "one or two doors");
    }
    refused(&up(&doors[..1]), "other family");
    let many = Spec {
        listen: Listen::Doors(doors.clone()),
        candidates: vec![Side::outer(2, true); 9],
        ..a.spec(true)
    };
    refused(&Request::Up(Box::new(many)), "9 candidates, of 8");
    let door = |listen: &str| Request::Door {
        listen: listen.parse().unwrap(),
        uplink: None,
    };
    refused(&door("[::]:6697"), "another uplink");
    let taken = a.inside(|| UdpSocket::bind("[2001:db8::1]:0")).unwrap();
    let taken = taken.local_addr().unwrap();
    refused(&door(&taken.to_string()), "in use");
    let opened: BTreeSet<SocketAddr> = (10_000..10_014)
        .map(|port| match a.ask(&door(&format!("[::1]:{port}"))) {
            Answer::Door(door) => door.address(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opened.len(), 14);
    refused(&door("[::1]:0"), "16 doors already");
    assert_eq!(a.doors(), doors);
}
