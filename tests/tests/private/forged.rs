//! VXLAN packets that somebody forges: from a host that nobody knows, and from one that speaks for others.

use std::net::{IpAddr, UdpSocket};

use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World, endpoint},
};

const UNKNOWN: &str = "2001:db8::66";

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

/// How many packets a rule with that comment has dropped.
fn dropped(world: &World, netns: &str, comment: &str) -> u64 {
    let rules = world.hosts[0].run(&format!("{netns} nft list table inet hextet"));
    let rule = rules.lines().find(|line| line.contains(comment));
    let rule = rule.unwrap_or_else(|| panic!("{comment}: {rules}"));
    let words: Vec<&str> = rule.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").unwrap();
    words[at + 1].parse().unwrap()
}

#[test]
fn only_known_hosts_send_and_only_for_their_own() {
    let mut world = World::new(2, Family::V6);
    let group = world.open_group();
    let network = world.network();
    let local = world.guest(0, network, 11, group);
    let neighbour = world.guest(0, network, 12, group);
    let remote = world.guest(1, network, 13, group);
    world.hosts[1].run(&format!("ip addr add {UNKNOWN}/64 dev up0 nodad"));
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
    let to = endpoint(0, Family::V6);
    let send = |from: IpAddr, packet: &[u8]| {
        let socket = world.hosts[1].inside(None, || UdpSocket::bind((from, 0)).unwrap());
        socket.send_to(packet, (to, 4789)).unwrap();
    };
    let known = endpoint(1, Family::V6);
    let honest = forged(remote.addrs[0], &local, vni);
    send(known, &honest);
    wait_for("what the other host sends arrives", || {
        heard() == Some(remote.addrs[0])
    });

    send(UNKNOWN.parse().unwrap(), &honest);
    wait_for("what a stranger sends is counted", || {
        dropped(&world, "", "nobody we know") == 1
    });
    send(known, &forged(neighbour.addrs[0], &local, vni));
    let inside = format!("ip netns exec {name}");
    wait_for("what poses as a local port is counted", || {
        dropped(&world, &inside, "came by a tunnel") == 1
    });
    assert_eq!(heard(), None);
    send(known, &honest);
    wait_for("what is honest still arrives", || {
        heard() == Some(remote.addrs[0])
    });
}
