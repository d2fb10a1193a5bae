//! Private networks by themselves: who reaches whom, and who does not.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use hextet_types::{Family, Mac};
use serde_json::Value;

use super::{
    Tenant,
    fragments::{Receiver, Sender},
    guest::Guest,
};
use crate::{
    check::{expect, wait_for},
    hypervisor::tunnel_address,
    probe::{Counter, Reach, tcp_passes},
    rest::text,
};

/// How long an allowed connection may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Datagrams of each sender whose fragments lie between the other's.
const DATAGRAMS: u16 = 50;
const ROUNDS: u16 = 5;
/// IP and ICMP headers.
const HEADERS: [(Family, u64); 2] = [(Family::V4, 28), (Family::V6, 48)];

/// Two projects' guests with the same addresses on the same hosts: each hears its own and nobody else, in pings,
/// connections, and datagrams whose fragments have the same identification.
pub fn overlap_isolated(t: &Tenant) -> Result<String> {
    let (red, blue) = (
        [t.guest("red1")?, t.guest("red2")?],
        [t.guest("blue1")?, t.guest("blue2")?],
    );
    expect(
        red[0].addresses == blue[0].addresses && red[1].addresses == blue[1].addresses,
        "the projects' addresses differ",
    )?;
    for family in Family::BOTH {
        for [from, to] in [red, blue] {
            echo_comes_from(from, to, family)?;
            let at = SocketAddr::new(to.of(family)?, 7);
            let passes = tcp_passes(&from.place, &to.place, at, ANSWER)?;
            expect(passes, format!("no connection from {} to {at}", from.name))?;
        }
        colliding_fragments([red, blue], family)?;
    }
    Ok(format!(
        "red and blue both have {} and {}: pings, TCP, and 2 x {DATAGRAMS} fragmented datagrams with equal \
         identifications, each to its own, by both families",
        red[0].of(Family::V4)?,
        red[0].of(Family::V6)?,
    ))
}

/// Echo requests of one come to the other, and to nobody else.
fn echo_comes_from(from: &Guest, to: &Guest, family: Family) -> Result<()> {
    let icmp = match family {
        Family::V4 => "icmp type echo-request",
        Family::V6 => "icmpv6 type echo-request",
    };
    let seen = Counter::place(&to.place, icmp)?;
    from.place.reaches(to.of(family)?, 10)?;
    let seen = seen.take()?;
    expect(
        seen > 0,
        format!("{} is answered, but not by {}", from.name, to.name),
    )
}

fn colliding_fragments(pairs: [[&Guest; 2]; 2], family: Family) -> Result<()> {
    let mut ends = Vec::new();
    for ([from, to], filling) in pairs.into_iter().zip([b'r', b'b']) {
        let addresses = [from.of(family)?, to.of(family)?];
        let sender = Sender::new(&from.place, addresses, filling)?;
        ends.push((sender, Receiver::new(&to.place, addresses[1])?, filling));
    }
    let [(red, ..), (blue, ..)] = &ends[..] else {
        anyhow::bail!("two pairs");
    };
    // Some at a time, so that no receiver's buffer fills.
    for round in 0..ROUNDS {
        for nth in 1..=DATAGRAMS / ROUNDS {
            let id = round * 100 + nth;
            red.send(id, true)?;
            blue.send(id, true)?;
            blue.send(id, false)?;
            red.send(id, false)?;
        }
        for (_, receiver, filling) in &ends {
            let wanted = DATAGRAMS / ROUNDS;
            let (right, wrong) = receiver.hear(wanted.into(), *filling)?;
            expect(
                right == usize::from(wanted) && wrong == 0,
                format!(
                    "of {wanted} fragmented datagrams by {family} {right} came whole; {wrong} others came"
                ),
            )?;
        }
    }
    Ok(())
}

/// Between two hosts, by both families, in both directions; on the way there are tunnel packets only.
pub fn east_west(t: &Tenant) -> Result<String> {
    let (a, b) = (t.guest("red1")?, t.guest("red2")?);
    for family in Family::BOTH {
        let bare: Vec<Counter<'_>> = counters(
            &t.spines,
            &format!("{} saddr {}", word(family), a.of(family)?),
        )?;
        let tunnels = counters(&t.spines, "udp dport 4789")?;
        for [from, to] in [[a, b], [b, a]] {
            from.place.reaches(to.of(family)?, 5)?;
            let at = SocketAddr::new(to.of(family)?, 80);
            let passes = tcp_passes(&from.place, &to.place, at, ANSWER)?;
            expect(passes, format!("no connection from {} to {at}", from.name))?;
        }
        let (bare, tunnels) = (total(bare)?, total(tunnels)?);
        expect(tunnels > 0, "no tunnel packet passed a spine")?;
        expect(bare == 0, format!("{bare} packets passed a spine bare"))?;
    }
    Ok(format!(
        "{} on h1 and {} on h2 by VXLAN over {}, both families, both directions",
        a.name, b.name, t.tunnels
    ))
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn counters<'a>(places: &'a [Node], what: &str) -> Result<Vec<Counter<'a>>> {
    places
        .iter()
        .map(|place| Counter::place(place, what))
        .collect()
}

fn total(counters: Vec<Counter<'_>>) -> Result<u64> {
    counters.into_iter().map(Counter::take).sum()
}

/// Guests whose links would carry 1500 octets are told what the tunnels carry; that passes whole, no outer packet is
/// fragmented, and more than that passes in pieces.
pub fn pmtu(t: &Tenant) -> Result<String> {
    let (a, b) = (t.guest("red1")?, t.guest("red2")?);
    let mtu = a.network.mtu;
    let shown = a.place.run(&["ip", "-j", "link", "show", "eth0"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    expect(
        shown[0]["mtu"].as_u64() == Some(mtu),
        format!("by DHCP its MTU became {}, and not {mtu}", shown[0]["mtu"]),
    )?;
    let by_ra = a.place.sysctl("net/ipv6/conf/eth0/mtu")?;
    expect(
        by_ra == mtu.to_string(),
        format!("for IPv6 it uses {by_ra}, and not {mtu}"),
    )?;
    let pieces = counters(&t.spines, "ip6 nexthdr ipv6-frag")?;
    let pieces_v4 = counters(&t.spines, "ip frag-off & 0x3fff != 0")?;
    for (family, headers) in HEADERS {
        let to = b.of(family)?;
        let whole = mtu - headers;
        expect(
            pings(a, to, whole, true)?,
            format!("{mtu} octets to {to} do not pass"),
        )?;
        expect(
            !pings(a, to, whole + 1, true)?,
            format!("{} octets to {to} pass unfragmented", mtu + 1),
        )?;
        expect(
            pings(a, to, 4000, false)?,
            format!("4000 octets to {to} do not pass in pieces"),
        )?;
    }
    let pieces = total(pieces)? + total(pieces_v4)?;
    expect(
        pieces == 0,
        format!("{pieces} outer packets were fragmented"),
    )?;
    Ok(format!(
        "{mtu} octets are announced by DHCP and RA, pass whole between hosts, and more in pieces; no outer packet was fragmented"
    ))
}

/// Whether a ping with so many octets of data is answered.
fn pings(from: &Guest, to: IpAddr, octets: u64, whole: bool) -> Result<bool> {
    let (octets, to) = (octets.to_string(), to.to_string());
    let fragments = if whole { "do" } else { "dont" };
    let words = [
        "ping", "-n", "-c", "2", "-W", "2", "-M", fragments, "-s", &octets, &to,
    ];
    Ok(from.place.output(&words)?.status.success())
}

/// Tunnel packets from an address that is no host's, and from a host in the name of somebody who lives elsewhere.
pub fn forged(t: &Tenant) -> Result<String> {
    let (victim, remote) = (t.guest("red1")?, t.guest("red2")?);
    let network = t.admin.show("network", &victim.network.id)?;
    let vni = network["provider:segmentation_id"]
        .as_u64()
        .context("no segment")?;
    let vni = u32::try_from(vni)?;
    let here = &t.hosts[victim.host];
    let to = SocketAddr::new(tunnel_address(1, t.tunnels), 4789);
    let (known, stranger) = (tunnel_address(2, t.tunnels), tunnel_address(66, t.tunnels));
    let netns = namespaces(&here.place)?
        .into_iter()
        .find(|name| name.ends_with(tail(&victim.network.id)))
        .context("h1 has no namespace of the network")?;
    let inside = ["ip", "netns", "exec", &netns];
    let shown = ["ip", "-j", "link", "show", "vxlan"];
    let device: Value =
        serde_json::from_str(&here.place.run(&[inside.as_slice(), &shown].concat())?)?;
    let segment = (vni, text(&device[0], "address")?.parse()?);
    let arrived = || Counter::place(&victim.place, "udp dport 5000");
    let (local, other) = (victim.of(Family::V4)?, remote.of(Family::V4)?);

    let honest = arrived()?;
    wait_for(ANSWER, || {
        send(&t.hosts[1].place, known, to, &frame(segment, other, local))?;
        let listed = Counter::peek(&honest)?;
        expect(
            listed > 0,
            "what a host sends for its own port does not arrive",
        )
    })?;
    honest.take()?;

    let forged = arrived()?;
    let before = dropped(&here.place, &[], "nobody we know")?;
    let len = if known.is_ipv4() { 32 } else { 128 };
    let address = format!("{stranger}/{len}");
    let spine = &t.spines[0];
    let add = ["ip", "addr", "add", &address, "dev", "lo", "nodad"];
    spine.run(if known.is_ipv4() { &add[..6] } else { &add })?;
    let sent = (0..5).try_for_each(|_| send(spine, stranger, to, &frame(segment, other, local)));
    spine.run(&["ip", "addr", "del", &address, "dev", "lo"])?;
    sent?;
    wait_for(ANSWER, || {
        let now = dropped(&here.place, &[], "nobody we know")?;
        expect(
            now == before + 5,
            format!("{} of 5 packets of a stranger were counted", now - before),
        )
    })?;
    let before = dropped(&here.place, &inside, "came by a tunnel")?;
    (0..5).try_for_each(|_| send(&t.hosts[1].place, known, to, &frame(segment, local, local)))?;
    wait_for(ANSWER, || {
        let now = dropped(&here.place, &inside, "came by a tunnel")?;
        expect(
            now == before + 5,
            format!(
                "{} of 5 packets under a local address were counted",
                now - before
            ),
        )
    })?;
    let arrived = forged.take()?;
    expect(
        arrived == 0,
        format!("{arrived} forged packets came to {}", victim.name),
    )?;
    Ok(format!(
        "of VXLAN {vni}: 5 packets from {stranger}, 5 from h2 under {local} that lives on h1: counted, and none arrived"
    ))
}

/// The namespaces that a host has made.
fn namespaces(host: &Node) -> Result<Vec<String>> {
    let listed = host.run(&["ip", "netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

fn tail(id: &str) -> &str {
    id.get(id.len().saturating_sub(10)..).unwrap_or(id)
}

fn send(place: &Node, from: IpAddr, to: SocketAddr, packet: &[u8]) -> Result<()> {
    place.enter(|| {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("send from {from}"))?;
        socket
            .send_to(packet, to)
            .with_context(|| format!("send to {to}"))?;
        anyhow::Ok(())
    })?
}

/// A frame with a datagram to UDP port 5000, in VXLAN (RFC 7348 §5).
fn frame((vni, mac): (u32, Mac), source: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    packet.extend(mac.octets());
    packet.extend([6, 0x68, 0x78, 0, 0, 99, 8, 0]);
    let mut header = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
    for addr in [source, to] {
        if let IpAddr::V4(addr) = addr {
            header.extend(addr.octets());
        }
    }
    let words = header.chunks(2);
    let sum: u32 = words
        .map(|pair| {
            pair.iter()
                .fold(0, |sum, octet| sum << 8 | u32::from(*octet))
        })
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(header);
    // From port 5001 to port 5000, without a checksum.
    packet.extend([0x13, 0x89, 0x13, 0x88, 0, 12, 0, 0]);
    packet.extend(b"hext");
    packet
}

/// How many packets the rule with that comment has dropped.
fn dropped(host: &Node, inside: &[&str], comment: &str) -> Result<u64> {
    let words = [inside, &["nft", "list", "table", "inet", "hextet"]].concat();
    let listed = host.run(&words)?;
    let rule = listed.lines().find(|line| line.contains(comment));
    let rule = rule.with_context(|| format!("no rule says '{comment}'"))?;
    let mut words = rule
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    let count = words.nth(1).context("a rule without a counter")?;
    Ok(count.parse()?)
}
