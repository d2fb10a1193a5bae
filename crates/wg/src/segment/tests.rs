use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6Header, PacketBuilder, TcpHeader,
};
use proptest::prelude::*;

use super::*;

const TUNNEL: Room = Room {
    before: 16,
    after: 16,
    unit: 16,
    most: 9_100,
};

/// A packet as somebody sends it; the payload is given when it is built.
#[derive(Clone, Debug)]
struct Like {
    ipv6: bool,
    tcp: bool,
    flow: u8,
    sequence: u32,
    identification: u16,
    df: bool,
    ttl: u8,
    window: u16,
    psh: bool,
    fin: bool,
    cwr: bool,
    timestamp: Option<u32>,
}

impl Like {
    fn new(ipv6: bool, tcp: bool) -> Like {
        Like {
            ipv6,
            tcp,
            flow: 1,
            sequence: u32::MAX - 2_000,
            identification: 0xfffe,
            df: false,
            ttl: 64,
            window: 500,
            psh: false,
            fin: false,
            cwr: false,
            timestamp: Some(7),
        }
    }

    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ip(self.ip());
        let mut out = Vec::new();
        let ports = (1_000 + u16::from(self.flow), 443);
        if !self.tcp {
            builder
                .udp(ports.0, ports.1)
                .write(&mut out, payload)
                .unwrap();
            return out;
        }
        let mut header = TcpHeader::new(ports.0, ports.1, self.sequence, self.window);
        (header.ack, header.acknowledgment_number) = (true, 99);
        (header.psh, header.fin, header.cwr) = (self.psh, self.fin, self.cwr);
        if let Some(value) = self.timestamp {
            let option = etherparse::TcpOptionElement::Timestamp(value, 3);
            header.set_options(&[option]).unwrap();
        }
        builder.tcp_header(header).write(&mut out, payload).unwrap();
        out
    }

    fn ip(&self) -> IpHeaders {
        if self.ipv6 {
            let header = Ipv6Header {
                traffic_class: 2,
                flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
                hop_limit: self.ttl,
                source: [self.flow; 16],
                destination: [9; 16],
                ..Ipv6Header::default()
            };
            return IpHeaders::Ipv6(header, Ipv6Extensions::default());
        }
        let number = if self.tcp {
            IpNumber::TCP
        } else {
            IpNumber::UDP
        };
        let mut header =
            Ipv4Header::new(0, self.ttl, number, [10, 0, 0, self.flow], [10, 9, 9, 9]).unwrap();
        header.identification = self.identification;
        header.dont_fragment = self.df;
        header.fragment_offset = IpFragOffset::ZERO;
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn transport(&self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    fn field(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// As a sender hands it to a device that cuts: the checksum is the pseudo-header's sum.
    fn build_super(&self, payload: &[u8], size: u16) -> Vec<u8> {
        let mut packet = self.build(payload);
        let at = self.transport();
        let len = packet.len() - at;
        let addresses = if self.ipv6 {
            &packet[8..40]
        } else {
            &packet[12..20]
        };
        let mut sum: u32 = addresses
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        sum += len as u32 + if self.tcp { 6 } else { 17 };
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let field = at + self.field();
        packet[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        let kind = match (self.tcp, self.ipv6) {
            (false, _) => Kind::Udp,
            (true, false) => Kind::Tcp4,
            (true, true) => Kind::Tcp6,
        };
        let offload = Offload {
            checksum: Some(Partial {
                start: at as u16,
                field: self.field() as u16,
            }),
            gso: Some(Gso {
                kind,
                size,
                ecn: self.cwr,
            }),
            headers: (packet.len() - payload.len()) as u16,
        };
        let mut frame = offload.encode().to_vec();
        frame.extend(packet);
        frame
    }

    /// What has to leave, one by one.
    fn expected(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let count = payload.len().div_ceil(size).max(1);
        let mut parts = payload.chunks(size);
        (0..count)
            .map(|i| {
                let last = i + 1 == count;
                let like = Like {
                    sequence: self.sequence.wrapping_add((i * size) as u32),
                    identification: self.identification.wrapping_add(i as u16),
                    psh: self.psh && last,
                    fin: self.fin && last,
                    cwr: self.cwr && i == 0,
                    ..self.clone()
                };
                like.build(parts.next().unwrap_or(&[]))
            })
            .collect()
    }
}

fn split(frame: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Error> {
    let (offload, packet) = Offload::decode(frame)?;
    let mut split = Split::of(&offload, packet)?;
    let mut out = vec![0xaa; 70_000];
    let mut packets = Vec::new();
    while let Some(batch) = split.fill(&TUNNEL, most, &mut out)? {
        assert!(batch.total(&TUNNEL) <= out.len() && batch.count <= most);
        for (at, len) in batch.slots() {
            let filled = TUNNEL.filled(len);
            let slot = &out[at..at + 16 + filled + 16];
            assert!(slot[16 + len..16 + filled].iter().all(|octet| *octet == 0));
            packets.push(slot[16..16 + len].to_vec());
        }
    }
    assert_eq!(split.left(), 0);
    Ok(packets)
}

fn merge<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    let mut merger = Merger::new(true);
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    for packet in packets {
        if !merger.push(packet) {
            assert!(merger.take(&mut frame));
            frames.push(frame.clone());
            assert!(merger.push(packet));
        }
    }
    while merger.take(&mut frame) {
        frames.push(frame.clone());
    }
    frames
}

fn payload(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8 ^ seed).collect()
}

const KINDS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn a_super_packet_becomes_what_its_sender_would_have_sent_and_that_the_super_packet() {
    for (ipv6, tcp) in KINDS {
        let like = Like {
            psh: true,
            ..Like::new(ipv6, tcp)
        };
        for (len, size) in [(60_000, 1_388), (2_776, 1_388), (1_389, 1_388), (640, 10)] {
            let payload = payload(len, 5);
            let frame = like.build_super(&payload, size as u16);
            let packets = split(&frame, 64).unwrap();
            assert_eq!(packets, like.expected(&payload, size));
            assert_eq!(merge(&packets), [frame], "{ipv6} {tcp} {len}");
        }
    }
}

#[test]
fn flags_stay_with_the_segment_that_they_are_of() {
    let like = Like {
        psh: true,
        fin: true,
        cwr: true,
        ..Like::new(true, true)
    };
    let payload = payload(3_000, 1);
    let packets = split(&like.build_super(&payload, 1_000), 64).unwrap();
    assert_eq!(packets, like.expected(&payload, 1_000));
    let flags: Vec<u8> = packets.iter().map(|packet| packet[53]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn a_batch_ends_where_the_buffer_does_and_the_next_goes_on() {
    let like = Like::new(false, true);
    let payload = payload(10_000, 1);
    let frame = like.build_super(&payload, 1_000);
    let (offload, packet) = Offload::decode(&frame).unwrap();
    let mut cut = Split::of(&offload, packet).unwrap();
    let slot = TUNNEL.slot(1_052);
    let mut out = vec![0; 3 * slot + slot - 1];
    let batch = cut.fill(&TUNNEL, 64, &mut out).unwrap().unwrap();
    assert_eq!((batch.count, batch.stride, cut.left()), (3, slot, 7));
    assert_eq!(cut.fill(&TUNNEL, 2, &mut out).unwrap().unwrap().count, 2);
    assert_eq!(
        cut.fill(&TUNNEL, 64, &mut out[..slot - 1]),
        Err(Error::Room)
    );
    assert_eq!(split(&frame, 3).unwrap(), like.expected(&payload, 1_000));
}

#[test]
fn a_segment_is_filled_up_but_not_beyond_the_most() {
    let room = Room {
        most: 1_420,
        ..TUNNEL
    };
    let filled = [0, 1, 16, 1_408, 1_409, 1_420, 1_421].map(|len| room.filled(len));
    assert_eq!(filled, [0, 16, 16, 1_408, 1_420, 1_420, 1_421]);
}

#[test]
fn a_packet_alone_gets_its_checksum_and_is_else_left_as_it_is() {
    for (ipv6, tcp) in KINDS {
        let like = Like::new(ipv6, tcp);
        let mut frame = like.build_super(&payload(99, 3), 1);
        frame[1] = 0;
        assert_eq!(split(&frame, 1).unwrap(), [like.build(&payload(99, 3))]);
        let mut plain = Offload::default().encode().to_vec();
        plain.extend(like.build(&payload(99, 3)));
        assert_eq!(split(&plain, 1).unwrap(), [plain[10..].to_vec()]);
        assert_eq!(merge([&plain[10..].to_vec()]), [plain]);
    }
}

#[test]
fn what_contradicts_itself_is_not_cut() {
    let frame = Like::new(true, true).build_super(&payload(3_000, 1), 1_000);
    assert_eq!(split(&frame[..9], 1), Err(Error::Offload));
    let without = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        split(&frame, 1)
    };
    assert_eq!(
        without(0, 0),
        Err(Error::Packet),
        "its checksum is finished"
    );
    assert_eq!(without(1, 1), Err(Error::Packet), "IPv4, it says");
    assert_eq!(without(1, 3), Err(Error::Offload), "fragments of UDP");
    assert_eq!(without(6, 39), Err(Error::Packet), "TCP begins within IPv6");
    assert_eq!(without(8, 6), Err(Error::Packet), "the field is UDP's");
    assert_eq!(without(10 + 52, 0xf0), split(&frame_with_long_header(), 1));
    assert_eq!(
        split(&frame[..10 + 60], 1),
        Err(Error::Packet),
        "it is torn"
    );
    let mut nothing = frame.clone();
    nothing[4..6].fill(0);
    assert_eq!(split(&nothing, 1), Err(Error::Offload));
    assert_eq!(split(&Offload::default().encode(), 1), Err(Error::Packet));
}

fn frame_with_long_header() -> Vec<u8> {
    let mut frame = Like::new(true, true).build_super(&payload(3_000, 1), 1_000);
    frame[10 + 52] = 0xf0;
    frame
}

/// Ways in which a second packet differs from one that would join.
fn others(joins: &Like) -> Vec<Like> {
    let changed = |change: fn(&mut Like)| {
        let mut other = joins.clone();
        change(&mut other);
        other
    };
    let mut others = vec![
        changed(|like| like.flow = 2),
        changed(|like| like.ttl = 63),
        changed(|like| like.tcp = !like.tcp),
        changed(|like| like.ipv6 = !like.ipv6),
    ];
    if joins.tcp {
        others.extend([
            changed(|like| like.sequence += 1),
            changed(|like| like.window = 501),
            changed(|like| like.fin = true),
            changed(|like| like.cwr = true),
            changed(|like| like.timestamp = Some(8)),
            changed(|like| like.timestamp = None),
        ]);
    }
    if !joins.ipv6 {
        others.extend([
            changed(|like| like.identification = 3),
            changed(|like| like.df = true),
        ]);
    }
    others
}

#[test]
fn what_differs_in_anything_does_not_join() {
    let bodies = (payload(500, 1), payload(500, 2));
    for (ipv6, tcp) in KINDS {
        let first = Like::new(ipv6, tcp);
        let joins = Like {
            sequence: first.sequence.wrapping_add(500),
            identification: first.identification.wrapping_add(1),
            ..first.clone()
        };
        let frames =
            |second: &Like| merge(&[first.build(&bodies.0), second.build(&bodies.1)]).len();
        assert_eq!(frames(&joins), 1);
        for other in others(&joins) {
            assert_eq!(frames(&other), 2, "{other:?}");
        }
    }
}

#[test]
fn a_wrong_or_absent_checksum_joins_nothing() {
    for (ipv6, tcp) in KINDS {
        let like = Like::new(ipv6, tcp);
        let packets = like.expected(&payload(3_000, 1), 1_000);
        assert_eq!(merge(&packets).len(), 1);
        let at = like.transport() + like.field();
        for (index, change) in [(0, at), (1, at), (1, packets[1].len() - 1)] {
            let mut packets = packets.clone();
            packets[index][change] ^= 1;
            assert_eq!(merge(&packets).len(), if index == 0 { 2 } else { 3 });
        }
        if !tcp {
            let mut packets = packets.clone();
            packets[1][at..at + 2].fill(0);
            assert_eq!(merge(&packets).len(), 3);
        }
    }
}

#[test]
fn a_merged_packet_is_no_longer_than_ip_allows_nor_of_more_datagrams_than_the_kernel_takes() {
    for (ipv6, tcp) in KINDS {
        let like = Like::new(ipv6, tcp);
        for size in [1_000, 100] {
            let body = payload(65_000, 1);
            let mut packets = like.expected(&body[..60_000], size);
            let more = Like {
                sequence: like.sequence.wrapping_add(60_000),
                identification: like.identification.wrapping_add((60_000 / size) as u16),
                ..like.clone()
            };
            packets.extend(more.expected(&body, size));
            let frames = merge(&packets);
            let most = if tcp { 65_535 } else { 64 * size + 48 };
            assert!(frames.iter().all(|frame| frame.len() - 10 <= most));
            assert!(
                frames.len() <= 125_000 / (most - 1_100) + 2,
                "{}",
                frames.len()
            );
            let again: Vec<_> = frames.iter().flat_map(|f| split(f, 64).unwrap()).collect();
            assert_eq!(again, packets);
        }
    }
}

#[test]
fn without_datagrams_only_tcp_is_merged() {
    for (ipv6, tcp) in KINDS {
        let packets = Like::new(ipv6, tcp).expected(&payload(300, 1), 100);
        let mut merger = Merger::new(false);
        assert!(merger.push(&packets[0]));
        assert_eq!(merger.push(&packets[1]), tcp);
    }
}

/// What the next packet of a flow is like.
fn steps() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    let lens = prop_oneof![4 => Just(100_usize), 1 => Just(40), 1 => 0_usize..200];
    prop::collection::vec((0..5_usize, lens, 0..20_u8), 1..60)
}

/// Packets of a few flows that mostly follow one another.
fn packets(steps: &[(usize, usize, u8)]) -> Vec<Vec<u8>> {
    let mut flows: Vec<Like> = KINDS.iter().map(|(v6, tcp)| Like::new(*v6, *tcp)).collect();
    flows.push(Like {
        df: true,
        ..Like::new(false, true)
    });
    let mut current = 0;
    let mut out = Vec::new();
    for (flow, len, change) in steps {
        if *change > 14 {
            current = *flow;
        }
        let like = &mut flows[current];
        (like.psh, like.fin) = (*change == 1, *change == 2);
        match *change {
            3 => like.window += 1,
            4 => like.identification = 77,
            5 => like.sequence = like.sequence.wrapping_sub(50),
            _ => {}
        }
        out.push(like.build(&payload(*len, *change)));
        if *change == 6
            && let Some(last) = out.last_mut().and_then(|packet| packet.last_mut())
        {
            *last ^= 1;
        }
        like.sequence = like.sequence.wrapping_add(*len as u32);
        like.identification = like.identification.wrapping_add(1);
    }
    out
}

/// Without the identification where it means nothing.
fn meaning(mut packet: Vec<u8>) -> Vec<u8> {
    if packet.len() >= 20 && packet[0] == 0x45 && packet[6..8] == [0x40, 0] {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #[test]
    fn what_is_merged_and_cut_is_what_it_was(steps in steps()) {
        let packets = packets(&steps);
        let frames = merge(&packets);
        let again = frames.iter().flat_map(|frame| split(frame, 64).unwrap());
        let again: Vec<_> = again.map(meaning).collect();
        let packets: Vec<_> = packets.into_iter().map(meaning).collect();
        prop_assert!(again == packets);
    }

    #[test]
    fn what_is_cut_and_merged_is_what_it_was(
        kind in 0..4_usize, len in 2..60_000_usize, size in 600..9_000_u16, psh: bool, seed: u8,
    ) {
        let (ipv6, tcp) = KINDS[kind];
        let most = if tcp { 60_000 } else { 64 * usize::from(size) };
        prop_assume!(len > usize::from(size) && len <= most);
        let like = Like { psh, ..Like::new(ipv6, tcp) };
        let frame = like.build_super(&payload(len, seed), size);
        prop_assert!(merge(&split(&frame, 64).unwrap()) == [frame]);
    }

    #[test]
    fn any_octets_are_survived(
        mut frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0..6_u8, v6: bool, start in 0..70_u8,
    ) {
        if frame.len() > 30 {
            (frame[0], frame[1]) = (1, kind);
            frame[2..10].fill(0);
            (frame[4], frame[6], frame[8]) = (9, start, if kind == 5 { 6 } else { 16 });
            frame[10] = if v6 { 0x60 } else { 0x45 };
        }
        if let Ok(packets) = split(&frame, 64) {
            for merged in merge(&packets) {
                prop_assert!(split(&merged, 64).is_ok());
            }
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written(octets: [u8; 10]) {
        if let Ok((offload, rest)) = Offload::decode(&octets) {
            prop_assert!(rest.is_empty());
            let written = offload.encode();
            prop_assert_eq!(Offload::decode(&written), Ok((offload, &[][..])));
        }
    }
}
