//! VXLAN packets that somebody forges: from a host that nobody knows, and from one that speaks for others.

use std::net::{IpAddr, UdpSocket};

use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World, endpoint},
};

/// Who is no host: an address, its prefix's length, and how to have it at once.
fn unknown(underlay: Family) -> (IpAddr, u8, &'static str) {
    match underlay {
        Family::V4 => ([192, 0, 2, 66].into(), 24, ""),
        Family::V6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66].into(), 64, "nodad"),
    }
}

/// An Ethernet frame with a UDP datagram for a port, as it would come from the other host, in VXLAN.
fn forged(source: IpAddr, guest: &Guest, vni: u32) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(to)) = (source, guest.addrs[0]) else {
        panic!("IPv4 inside");
    };
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    packet.extend([0x06, 0x68, 0x78, 0, 0, 1, 0x06, 0x68, 0x78, 0, 0, 2, 8, 0]);
    let mut header = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(source.octets());
    header.extend(to.octets());
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(header);
    // From port 5001 to port 5000, without a checksum.
    packet.extend([0x13, 0x89, 0x13, 0x88, 0, 12, 0, 0]);
    packet.extend(b"hext");
    packet
}

/// How many packets rules with that comment have dropped.
fn dropped(world: &World, netns: &str, comment: &str) -> u64 {
    let rules = world.hosts[0].run(&format!("{netns} nft list table inet hextet"));
    let with = rules.lines().filter(|line| line.contains(comment));
    let counts = with.map(|rule| -> u64 {
        let mut words = rule
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    });
    counts.sum()
}

fn only_known_hosts_send(underlay: Family) {
    let mut world = World::new(2, underlay);
    let group = world.open_group();
    let network = world.network();
    let local = world.guest(0, network, 11, group);
    let neighbour = world.guest(0, network, 12, group);
    let remote = world.guest(1, network, 13, group);
    let (stranger, len, nodad) = unknown(underlay);
    world.hosts[1].run(&format!("ip addr add {stranger}/{len} dev up0 {nodad}"));
    world.hosts[1].run("ip link set up0 mtu 1400");
    world.tell();
    let vni = world.cloud.intent.networks[&network]
        .segmentation_id
        .unwrap();
    let name = world.hosts[0].networks().remove(0);
    let listener = world.hosts[0].inside(Some(&local.name), || {
        UdpSocket::bind((local.addrs[0], 5000)).unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    let heard = || {
        listener
            .recv_from(&mut [0; 64])
            .ok()
            .map(|(_, from)| from.ip())
    };
    let to = endpoint(0, underlay);
    let send = |from: IpAddr, packet: &[u8]| {
        let socket = world.hosts[1].inside(None, || UdpSocket::bind((from, 0)).unwrap());
        socket.send_to(packet, (to, 4789)).unwrap();
    };
    let known = endpoint(1, underlay);
    let inside = format!("ip netns exec {name}");
    // As it is, and with so many octets behind it that it leaves in fragments.
    for (n, padding) in [(1, 0), (2, 1400)] {
        let padded = |mut packet: Vec<u8>| {
            packet.resize(packet.len() + padding, 0);
            packet
        };
        let honest = padded(forged(remote.addrs[0], &local, vni));
        send(known, &honest);
        wait_for("what the other host sends arrives", || {
            heard() == Some(remote.addrs[0])
        });
        send(stranger, &honest);
        wait_for("what a stranger sends is counted", || {
            dropped(&world, "", "nobody we know") == n
        });
        send(known, &padded(forged(neighbour.addrs[0], &local, vni)));
        wait_for("what poses as a local port is counted", || {
            dropped(&world, &inside, "came by a tunnel") == n
        });
        assert_eq!(heard(), None);
        send(known, &honest);
        wait_for("what is honest still arrives", || {
            heard() == Some(remote.addrs[0])
        });
    }
}

#[test]
fn only_known_hosts_send_and_only_for_their_own_over_ipv4() {
    only_known_hosts_send(Family::V4);
}

#[test]
fn only_known_hosts_send_and_only_for_their_own_over_ipv6() {
    only_known_hosts_send(Family::V6);
}
