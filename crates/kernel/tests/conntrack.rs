//! The connection tracking table of a real kernel.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_kernel::{
    conntrack::{Conntrack, Entry, Filter, Part, Place, Tuple},
    netlink::{Batch, Socket, flags},
};
use hextet_model::state::Netns;
use hextet_types::Family;
use support::{isolated, run};

const CT_NEW: u16 = 1 << 8;

fn tuple(m: &mut hextet_kernel::netlink::Message<'_>, tuple: &Tuple) {
    let first = if tuple.source.is_ipv4() { 1 } else { 3 };
    m.nest(1, |m| {
        m.addr(first, tuple.source)
            .addr(first + 1, tuple.destination);
    });
    m.nest(2, |m| {
        m.octet(1, tuple.protocol);
        if let Part::Ports(source, destination) = tuple.part {
            m.be16(2, source).be16(3, destination);
        }
    });
}

/// Enters connections as the kernel itself would after their first packet.
fn enter(connections: &[(Tuple, Tuple, u16)]) {
    let mut socket = Socket::open(libc::NETLINK_NETFILTER as isize, "conntrack").expect("a socket");
    let mut batch = Batch::default();
    for (original, reply, zone) in connections {
        let family = if original.source.is_ipv4() { 2 } else { 10 };
        let mut m = batch.message(CT_NEW, flags::CREATE | flags::EXCL, &[family, 0, 0, 0]);
        m.nest(1, |m| tuple(m, original))
            .nest(2, |m| tuple(m, reply));
        m.be32(7, 600).be16(18, *zone);
    }
    assert_eq!(socket.request(&mut batch).expect("sent"), vec![]);
}

fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Tuple {
    let part = Part::Ports(source.1, destination.1);
    Tuple {
        source: source.0,
        destination: destination.0,
        protocol: 17,
        part,
    }
}

fn plain(source: (IpAddr, u16), destination: (IpAddr, u16)) -> (Tuple, Tuple, u16) {
    (udp(source, destination), udp(destination, source), 0)
}

fn v4(last: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

fn all(table: &mut Conntrack, filter: Filter) -> Vec<Entry> {
    let mut entries = Vec::new();
    table
        .walk(&filter, |entry| entries.push(entry))
        .expect("a walk");
    entries
}

fn track() {
    run(
        "nft 'add table inet t; add chain inet t c { type filter hook output priority 0; }; \
         add rule inet t c ct state new accept'",
    );
}

#[test]
fn filters_show_what_they_say() {
    isolated(|| {
        track();
        let nat = (
            udp((v4(1), 1000), (v4(9), 53)),
            udp((v4(9), 53), (Ipv4Addr::new(192, 0, 2, 1).into(), 2000)),
            0,
        );
        let mut zoned = plain((v4(1), 1000), (v4(3), 53));
        zoned.2 = 7;
        enter(&[
            nat,
            zoned,
            plain((v4(2), 1), (v4(1), 2)),
            plain((v6(1), 1), (v6(2), 2)),
        ]);
        let mut table = Conntrack::open(&Netns::Main).expect("a table");
        let mut count = |filter| all(&mut table, filter).len();
        let any = Filter::default();
        assert_eq!(count(any), 4);
        assert_eq!(
            count(Filter {
                family: Some(Family::V6),
                ..any
            }),
            1
        );
        assert_eq!(
            count(Filter {
                zone: Some(7),
                ..any
            }),
            1
        );
        let places = [
            (Place::OriginalSource, v4(1), 2),
            (Place::OriginalDestination, v4(1), 1),
            (Place::ReplySource, v4(1), 1),
            (Place::ReplyDestination, v4(1), 1),
            (
                Place::ReplyDestination,
                Ipv4Addr::new(192, 0, 2, 1).into(),
                1,
            ),
            (Place::ReplySource, v6(2), 1),
            (Place::OriginalSource, v6(9), 0),
        ];
        for (place, addr, expected) in places {
            let filter = Filter {
                address: Some((place, addr)),
                ..any
            };
            assert_eq!(count(filter), expected, "{place:?} {addr}");
        }
    });
}

#[test]
fn only_the_entry_that_is_meant_is_deleted() {
    isolated(|| {
        track();
        let here = plain((v4(1), 1000), (v4(2), 53));
        let mut there = here;
        there.2 = 5;
        enter(&[here, there, plain((v4(1), 1001), (v4(2), 53))]);
        let mut table = Conntrack::open(&Netns::Main).expect("a table");
        let entries = all(&mut table, Filter::default());
        let meant = entries
            .iter()
            .find(|e| e.zone == 5)
            .copied()
            .expect("entered");
        assert_eq!(table.delete(&[meant, meant]).expect("done"), 1);
        assert_eq!(
            table
                .delete(&[Entry {
                    id: !meant.id,
                    zone: 0,
                    ..meant
                }])
                .expect("done"),
            0
        );
        assert_eq!(all(&mut table, Filter::default()).len(), 2);
    });
}

#[test]
fn forbidden_flows_are_cut_among_a_hundred_thousand() {
    isolated(|| {
        track();
        let many = |n: u32| {
            plain(
                (v4(1 + n / 50_000), (n % 50_000) as u16 + 1),
                (v4(100 + n % 999), 53),
            )
        };
        let connections: Vec<_> = (0..100_000).map(many).collect();
        enter(&connections);
        let mut table = Conntrack::open(&Netns::Main).expect("a table");
        assert_eq!(all(&mut table, Filter::default()).len(), 100_000);
        let one = BTreeSet::from([v4(2)]);
        let cut = table.cut(&one, |flow| flow.destination != v4(100));
        let others = (50_000..100_000).filter(|n| n % 999 != 0).count();
        assert_eq!(cut.expect("done"), others);
        let everybody: BTreeSet<IpAddr> = (100..2000).map(v4).collect();
        let cut = table.cut(&everybody, |flow| flow.source == v4(2));
        assert_eq!(cut.expect("done"), 50_000 - others);
        assert_eq!(table.cut(&one, |_| true).expect("done"), 0);
        assert_eq!(all(&mut table, Filter::default()).len(), 50_000);
    });
}
