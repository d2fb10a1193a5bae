//! Packets as a TUN device gives them, one behind the other: no panic whatever they are, slots that end where they should, and what was
//! cut, merged and cut again, is the same.

#![no_main]

use hextet_wg::segment::{Merger, Offload, Room, Split};
use libfuzzer_sys::fuzz_target;

const ROOM: Room = Room {
    before: 16,
    after: 16,
    unit: 16,
    most: 1_420,
};

fuzz_target!(|octets: &[u8]| {
    let mut rest = octets;
    let mut packets = Vec::new();
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(more.len());
        let (frame, behind) = more.split_at(len);
        packets.extend(cut(frame).unwrap_or_default());
        rest = behind;
    }
    packets.truncate(1_000);
    let mut again = Vec::new();
    for frame in merge(&packets) {
        again.extend(cut(&frame).expect("what we merge can be cut"));
    }
    assert_eq!(again.len(), packets.len());
    for (again, packet) in again.into_iter().zip(packets) {
        assert!(meaning(again) == meaning(packet));
    }
});

/// All segments, or those of the first sixteen batches.
fn cut(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (offload, packet) = Offload::decode(frame).ok()?;
    let mut split = Split::of(&offload, packet).ok()?;
    let mut packets = Vec::new();
    let mut out = vec![0xaa; 70_000];
    for _ in 0..16 {
        let Some(batch) = split.fill(&ROOM, 64, &mut out).ok()? else {
            break;
        };
        assert!(batch.count > 0 && batch.total(&ROOM) <= out.len());
        for (at, len) in batch.slots() {
            let end = at + ROOM.before + ROOM.filled(len);
            assert!(out[at..at + ROOM.before].iter().all(|octet| *octet == 0xaa));
            assert!(
                out[at + ROOM.before + len..end]
                    .iter()
                    .all(|octet| *octet == 0)
            );
            packets.push(out[at + ROOM.before..][..len].to_vec());
        }
        out.fill(0xaa);
    }
    Some(packets)
}

fn merge(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut merger = Merger::new(true);
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    for packet in packets {
        if !merger.push(packet) {
            assert!(merger.take(&mut frame));
            frames.push(frame.clone());
            assert!(merger.push(packet), "an empty one takes all");
        }
    }
    if merger.take(&mut frame) {
        frames.push(frame);
    }
    frames
}

/// Without IPv4's identification where fragments are forbidden.
fn meaning(mut packet: Vec<u8>) -> Vec<u8> {
    if packet.len() >= 20 && packet[0] == 0x45 && packet[6..8] == [0x40, 0] {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}
