//! Ways to say the same thing so that a filter that looks no further than the first header, or the first
//! fragment, takes it for something else (RFC 6980, RFC 7112, RFC 7113).

use hextet_tests::packet::{Ends, Extension, Ip, Payload, fragments};
use hextet_types::Family;

/// What becomes of it on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host that checks nothing delivers it.
    Whole,
    /// No router puts it together or through; a layer 2 would carry it.
    Broken,
}

/// Puts a payload into packets, in the order in which they are sent.
pub type Packets = fn(&Ip, Ends, Payload) -> Vec<Vec<u8>>;

/// One packet, with nothing to hide.
pub const PLAIN: Packets = |ip, ends, payload| vec![ip.packet(ends, &payload)];

/// A way to put a payload into packets.
#[derive(Clone, Copy)]
pub struct Disguise {
    /// How, as part of a sentence.
    pub how: &'static str,
    /// What becomes of it.
    pub kind: Kind,
    /// The packets.
    pub packets: Packets,
}

/// Longer than any payload here.
const REST: usize = 4096;

const FRAGMENTS: [Disguise; 4] = [
    whole("in fragments", |ip, ends, p| {
        fragments(ip, ends, &p, &[(0, 16), (16, REST)])
    }),
    whole("in tiny fragments", |ip, ends, p| {
        fragments(ip, ends, &p, &[(0, 8), (8, 8), (16, REST)])
    }),
    whole("in fragments, the last one first", |ip, ends, p| {
        fragments(ip, ends, &p, &[(16, REST), (0, 16)])
    }),
    broken("in overlapping fragments", |ip, ends, p| {
        fragments(ip, ends, &p, &[(0, 16), (8, 8), (8, REST)])
    }),
];

/// Router alert (RFC 2113), and nothing.
const OPTIONS: [Disguise; 2] = [
    whole("with a router alert", |ip, ends, p| {
        vec![
            Ip {
                options: vec![0x94, 4, 0, 0],
                ..ip.clone()
            }
            .packet(ends, &p),
        ]
    }),
    whole("with IP options that mean nothing", |ip, ends, p| {
        vec![
            Ip {
                options: vec![1, 1, 1, 0],
                ..ip.clone()
            }
            .packet(ends, &p),
        ]
    }),
];

const HEADERS: [Disguise; 6] = [
    whole("behind hop-by-hop options", |ip, ends, p| {
        vec![ip.packet(ends, &p.behind(&Extension::HopByHop))]
    }),
    whole("behind destination options", |ip, ends, p| {
        vec![ip.packet(ends, &p.behind(&Extension::Destination(1)))]
    }),
    whole("behind a routing header", |ip, ends, p| {
        vec![ip.packet(ends, &p.behind(&Extension::Routing(0, 0, Vec::new())))]
    }),
    whole("in an atomic fragment", |ip, ends, p| {
        vec![ip.packet(ends, &p.behind(&Extension::AtomicFragment))]
    }),
    broken("behind many headers", |ip, ends, p| {
        let payload = (0..8).fold(p, |p, _| p.behind(&Extension::Destination(1)));
        vec![ip.packet(ends, &payload)]
    }),
    broken(
        "with all headers in the first fragment and all else in the second",
        |ip, ends, p| {
            let payload = p.behind(&Extension::Destination(2));
            fragments(ip, ends, &payload, &[(0, 16), (16, REST)])
        },
    ),
];

/// All of a family.
pub fn all(family: Family) -> impl Iterator<Item = Disguise> {
    let others = match family {
        Family::V4 => &OPTIONS[..],
        Family::V6 => &HEADERS[..],
    };
    FRAGMENTS.iter().chain(others).copied()
}

/// Those that a host would deliver.
pub fn deliverable(family: Family) -> impl Iterator<Item = Disguise> {
    all(family).filter(|disguise| disguise.kind == Kind::Whole)
}

const fn whole(how: &'static str, packets: Packets) -> Disguise {
    Disguise {
        how,
        kind: Kind::Whole,
        packets,
    }
}

const fn broken(how: &'static str, packets: Packets) -> Disguise {
    Disguise {
        how,
        kind: Kind::Broken,
        packets,
    }
}
