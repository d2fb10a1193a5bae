//! What should come out of a host, and whether it is what did.

use std::net::IpAddr;

use hextet_model::{
    explain::{self, Journey, Machine, Outcome, Packet, Step, travel_by},
    state::{CtState, HopEntry, HopKey, Key, Netns, Object},
};
use hextet_tests::{
    hypervisor::{SPINE_MAC, UPLINK},
    packet::{Ends, Ether, Ip, Parsed, Payload, ether_ip, parse},
    site::{Entry, Site, link},
};
use hextet_types::{IfName, Mac, PortId};

use super::shot::Tunnel;
use crate::track::{Tracing, Tracker, Tuple};

/// The UDP port of VXLAN.
const VXLAN: u16 = 4789;

/// A frame without what a tunnel puts around it.
pub struct Seen {
    /// What was around it.
    pub tunnel: Option<Tunnel>,
    /// The frame itself.
    pub frame: Vec<u8>,
    /// What it says.
    pub parsed: Parsed,
}

/// Reads a frame.
pub fn unwrap(frame: &[u8]) -> Option<Seen> {
    let outer = parse(frame)?;
    let tunnelled = outer.ports.filter(|(_, to)| *to == VXLAN);
    let header = outer
        .payload
        .octets
        .get(8..16)
        .filter(|_| tunnelled.is_some());
    let inner = outer.payload.octets.get(16..);
    let (Some(header), Some(inner)) = (header, inner.filter(|inner| inner.len() > 14)) else {
        return Some(Seen {
            tunnel: None,
            frame: frame.to_vec(),
            parsed: outer,
        });
    };
    let mac = |at: usize| {
        let octets: Option<[u8; 6]> = inner.get(at..at + 6).and_then(|o| o.try_into().ok());
        octets.map(Mac::new)
    };
    let tunnel = Tunnel {
        ends: outer.ends,
        vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
        to: mac(0)?,
        from: mac(6)?,
    };
    Some(Seen {
        tunnel: Some(tunnel),
        frame: inner.to_vec(),
        parsed: parse(inner)?,
    })
}

/// An IP packet as a frame, to be read.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    let ether = Ether {
        src: SPINE_MAC,
        dst: SPINE_MAC,
    };
    ether_ip(ether, packet)
}

/// As connection tracking will see it.
pub fn tracing(seen: &Parsed, odd: bool) -> Tracing {
    let is_error = match (seen.ends.src, seen.icmp_type()) {
        (IpAddr::V4(_), Some(kind)) => matches!(kind, 3 | 4 | 11 | 12),
        (IpAddr::V6(_), Some(kind)) => kind < 128,
        (_, None) => false,
    };
    let quoted = seen.payload.octets.get(8..).filter(|_| is_error);
    let quoted = quoted.and_then(|quoted| parse(&framed(quoted)));
    Tracing {
        tuple: Tuple::of(seen),
        quote: quoted.as_ref().map(Tuple::of),
        flags: seen.tcp_flags(),
        odd,
    }
}

/// What came, put together where it came in fragments (RFC 791 §3.2, RFC 8200 §4.5).
pub fn whole(frames: &[&[u8]]) -> Option<Seen> {
    let [first, ..] = frames else { return None };
    let mut pieces: Vec<(usize, Vec<u8>)> = Vec::new();
    for frame in frames {
        pieces.push(piece(&unwrap(frame)?.frame)?);
    }
    pieces.sort_unstable();
    let mut payload = Vec::new();
    for (offset, piece) in pieces {
        if offset != payload.len() {
            return None;
        }
        payload.extend(piece);
    }
    let seen = unwrap(first)?;
    let ends = seen.parsed.ends;
    let protocol = seen.parsed.payload.protocol;
    let packet = Ip::ttl(seen.parsed.ttl).packet(
        ends,
        &Payload {
            protocol,
            octets: payload,
        },
    );
    let frame = [&seen.frame[..14], &packet].concat();
    let parsed = parse(&frame)?;
    Some(Seen {
        frame,
        parsed,
        ..seen
    })
}

/// Where a frame's part of its packet's payload begins, and the part.
fn piece(frame: &[u8]) -> Option<(usize, Vec<u8>)> {
    let packet = frame.get(14..)?;
    let word = |at: usize| {
        let pair = packet.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([pair[0], pair[1]])))
    };
    if packet.first()? >> 4 == 4 {
        let payload = packet.get(usize::from(packet[0] & 15) * 4..word(2)?)?;
        return Some(((word(6)? & 0x1fff) * 8, payload.to_vec()));
    }
    let end = 40 + word(4)?;
    match packet.get(6)? {
        44 => Some((word(42)? & 0xfff8, packet.get(48..end)?.to_vec())),
        _ => Some((0, packet.get(40..end)?.to_vec())),
    }
}

/// What an ICMP error quotes.
pub fn quote_of(seen: &Seen) -> Option<Tuple> {
    tracing(&seen.parsed, false).quote
}

/// A packet that comes to a host.
pub struct Visit {
    /// The host, by its number.
    pub host: usize,
    /// By this link.
    pub entry: Entry,
    /// Who the frame says that it is from.
    pub mac: Mac,
    /// The next hop that its sender has chosen.
    pub to_mac: Option<Mac>,
    /// The IP packet; a tunnel's, where it comes by one. In fragments, where it comes in some.
    pub pieces: Vec<Vec<u8>>,
    /// Its number.
    pub number: u64,
    /// Whether TCP's numbers are outside of the window.
    pub odd: bool,
}

impl Visit {
    /// What comes, as a whole.
    pub fn seen(&self) -> Seen {
        let frames: Vec<Vec<u8>> = self.pieces.iter().map(|piece| framed(piece)).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        whole(&frames).expect("a packet of ours")
    }
}

/// What should come out.
pub struct Expected {
    /// The way, as far as it goes.
    pub steps: Vec<Step>,
    /// What becomes of it, and as what it leaves.
    pub journey: Journey,
    /// As connection tracking has it by then.
    pub tracing: Tracing,
    /// By which link something must come, if any.
    pub link: Option<IfName>,
    /// To this Ethernet address, inside a tunnel where it leaves by one.
    pub mac: Option<Mac>,
    /// By this tunnel: its number, and where to.
    pub tunnel: Option<(u32, IpAddr)>,
}

fn dropped(reason: explain::Reason, packet: Packet) -> Journey {
    Journey {
        outcome: Outcome::Dropped(reason),
        netns: Netns::Main,
        packet,
        neighbour: None,
    }
}

fn packet_of(seen: &Parsed, tracing: &Tracing, link: Option<IfName>, mac: Option<Mac>) -> Packet {
    let (protocol, ends) = (tracing.tuple.protocol, tracing.tuple.ends);
    let [icmp_type, code] = ends.1.to_be_bytes();
    let payload = match protocol {
        6 | 17 => explain::Payload::Ports {
            protocol,
            source: ends.0,
            destination: ends.1,
        },
        1 | 58 => explain::Payload::Icmp { icmp_type, code },
        other => explain::Payload::Protocol(other),
    };
    Packet {
        link,
        mac,
        source: seen.ends.src,
        destination: seen.ends.dst,
        payload,
        connection: CtState::New,
        flow: None,
        quoted: tracing.quote.map(|quote| [quote.src, quote.dst]),
    }
}

/// Where a tunnel's packet comes out of it: the namespace, and the device.
fn out_of_tunnel(site: &Site, tunnel: &Tunnel) -> Option<Start> {
    let mut objects = site.state.objects.values();
    let device = objects.find_map(|object| match object {
        Object::Vxlan(v) if v.vni == tunnel.vni && v.local == tunnel.ends.dst => Some(v),
        _ => None,
    })?;
    let chosen = match tunnel.to == device.mac {
        true => 0,
        false => chosen(site, &device.netns, &device.name, tunnel.to)?,
    };
    Some(Start {
        netns: device.netns.clone(),
        by: device.name.clone(),
        mac: tunnel.from,
        chosen,
    })
}

/// The mark of a next hop besides the gateway, where it is known on that link.
fn chosen(site: &Site, netns: &Netns, link: &IfName, mac: Mac) -> Option<u32> {
    let key = Key::Hop(netns.clone(), link.clone(), HopKey::Way(mac));
    match site.state.objects.get(&key)? {
        Object::Hop(hop) => match hop.entry {
            HopEntry::Way { mark, .. } => Some(mark),
            HopEntry::Answer { .. } => None,
        },
        _ => None,
    }
}

/// Where a packet begins to be judged: in which namespace, by which link, from which Ethernet address, and with which mark
/// for the next hop that was chosen.
struct Start {
    netns: Netns,
    by: IfName,
    mac: Mac,
    chosen: u32,
}

fn of_port(site: &Site, id: PortId, visit: &Visit, by: IfName) -> Option<Start> {
    let network = site.planner().intent().ports[&id].network_id;
    let netns = site.planner().netns_of(network);
    let is_up = site.planner().intent().ports[&id].admin_state_up;
    let chosen = match visit.to_mac.filter(|_| is_up) {
        Some(mac) => chosen(site, &netns, &by, mac)?,
        None => 0,
    };
    Some(Start {
        netns,
        by,
        mac: visit.mac,
        chosen,
    })
}

/// What explanations say of a packet at a host.
pub fn explain(site: &Site, visit: &Visit, tracker: Tracker<'_>) -> Expected {
    let seen = visit.seen();
    let mut tracker = Tracker {
        tracing: tracing(&seen.parsed, visit.odd),
        ..tracker
    };
    let mut steps = Vec::new();
    let by = link(visit.entry);
    let own = site.endpoint;
    let ours = |tunnel: &Tunnel| visit.entry == Entry::Uplink && Some(tunnel.ends.dst) == own;
    let start = match (visit.entry, seen.tunnel.filter(ours)) {
        (_, Some(tunnel)) => {
            let outer = outer_packet(&tunnel, by);
            let machine = Machine::new(&site.state, &site.config);
            match machine.send(&outer, Some(&mut steps)) {
                Outcome::Host => out_of_tunnel(site, &tunnel).ok_or(explain::Reason::NoRoute),
                Outcome::Dropped(reason) => Err(reason),
                other => panic!("a tunnel's packet: {other}"),
            }
        }
        (Entry::Port(id), None) => of_port(site, id, visit, by).ok_or(explain::Reason::Edge),
        (_, None) => Ok(Start {
            netns: Netns::Main,
            by,
            mac: visit.mac,
            chosen: 0,
        }),
    };
    let journey = match start {
        Ok(Start {
            netns,
            by,
            mac,
            chosen,
        }) => {
            let packet = packet_of(&seen.parsed, &tracker.tracing, Some(by), Some(mac));
            let from = (packet, chosen);
            travel_by(site.planner(), netns, from, &mut tracker, &mut steps)
        }
        Err(reason) => dropped(
            reason,
            packet_of(&seen.parsed, &tracker.tracing, None, None),
        ),
    };
    expected(site, journey, steps, tracker.tracing)
}

fn outer_packet(tunnel: &Tunnel, by: IfName) -> Packet {
    Packet {
        link: Some(by),
        mac: Some(SPINE_MAC),
        source: tunnel.ends.src,
        destination: tunnel.ends.dst,
        payload: explain::Payload::Ports {
            protocol: 17,
            source: 49152,
            destination: VXLAN,
        },
        connection: CtState::New,
        flow: None,
        quoted: None,
    }
}

fn expected(site: &Site, journey: Journey, steps: Vec<Step>, tracing: Tracing) -> Expected {
    let neighbour = |link: &IfName| {
        let key = Key::Neighbour(journey.netns.clone(), link.clone(), journey.neighbour?);
        match site.state.objects.get(&key)? {
            Object::Neighbour(neighbour) => Some(neighbour.mac),
            _ => None,
        }
    };
    let tunnel = steps.iter().rev().find_map(|step| match step {
        Step::Tunnels { vni, to, .. } => Some((*vni, *to)),
        _ => None,
    });
    let (link, mac, tunnel) = match &journey.outcome {
        Outcome::Delivered { link } => (Some(link.clone()), neighbour(link), None),
        Outcome::Leaves { link, .. } => {
            let mac = match (tunnel, link) {
                (Some(_), Some(link)) => neighbour(link),
                _ => Some(SPINE_MAC),
            };
            (UPLINK.parse().ok(), mac, tunnel)
        }
        _ => (None, None, None),
    };
    Expected {
        steps,
        journey,
        tracing,
        link,
        mac,
        tunnel,
    }
}

impl Expected {
    /// Whether what came out is just that, be it in fragments.
    pub fn is(&self, site: &Site, frames: &[&[u8]]) -> bool {
        let led = frames.iter().all(|frame| self.is_led(site, frame));
        led && whole(frames).is_some_and(|seen| self.is_packet(&seen))
    }

    /// Whether a frame goes where it should go.
    fn is_led(&self, site: &Site, frame: &[u8]) -> bool {
        let Some(seen) = unwrap(frame) else {
            return false;
        };
        match (self.tunnel, seen.tunnel) {
            (None, None) => frame[..6] == self.mac.map_or([0; 6], |mac| mac.octets()),
            (Some((vni, to)), Some(tunnel)) => {
                let own = site.endpoint.expect("a host with tunnels has one");
                let right = (tunnel.vni, tunnel.ends, Some(tunnel.to));
                right == (vni, Ends::new(own, to), self.mac)
            }
            _ => false,
        }
    }

    fn is_packet(&self, seen: &Seen) -> bool {
        let packet = &self.journey.packet;
        let ends = Ends::new(packet.source, packet.destination);
        let tracing = tracing(&seen.parsed, false);
        let whole = seen.parsed.checksum_is_right()
            || !matches!(seen.parsed.payload.protocol, 1 | 6 | 17 | 58);
        let same = (tracing.tuple, tracing.quote) == (self.tracing.tuple, self.tracing.quote);
        whole && same && seen.parsed.ends == ends
    }
}
