//! Packets of private networks through a real kernel: between hosts, and with what devices leave to the host.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
};

use hextet_kernel::netns::Handle;
use hextet_model::state::Netns;
use support::{
    NamedNetns, isolated,
    private::{Cloud, Guest, Names, Port, network, port, remote, vxlan},
    run,
    tap::Tap,
};

/// So much goes over a connection: enough for segments of all sizes.
const OCTETS: usize = 8 << 20;

/// The part of a network on one host, which knows of a port on the other.
fn part(hx: &str, own: &Port, local: &str, other: &Port, host: &str) -> (Cloud, Guest) {
    let guest = Guest::plug(own);
    let mut cloud = Cloud::open();
    cloud.add(network(hx));
    cloud.add(port(hx, own));
    cloud.add([vxlan(hx, 4711, local)]);
    cloud.add(remote(hx, host, std::slice::from_ref(other)));
    cloud.reconcile();
    (cloud, guest)
}

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

/// Whether all of a long stream arrives.
fn stream(from: &Guest, to: &Guest, addr: IpAddr) {
    let listener = inside(to, || TcpListener::bind((addr, 7)).expect("a listener"));
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut received = Vec::new();
            connection.read_to_end(&mut received).expect("a stream");
            received
        });
        let mut sender = inside(from, || TcpStream::connect((addr, 7)).expect("connected"));
        let octets: Vec<u8> = (0..OCTETS).map(|n| (n / 7) as u8).collect();
        sender.write_all(&octets).expect("sent");
        drop(sender);
        assert!(receiver.join().expect("received") == octets, "to {addr}");
    });
}

fn between_hosts(here: &str, there: &str, len: u8) {
    isolated(|| {
        let mut names = Names::none();
        let other_host = NamedNetns::create();
        run(&format!(
            "ip link add up0 type veth peer name up0 netns {}",
            other_host.0
        ));
        let nodad = if here.contains(':') { "nodad" } else { "" };
        run("ip link set up0 up");
        run(&format!("ip addr add {here}/{len} dev up0 {nodad}"));
        other_host.run("ip link set up0 up");
        other_host.run(&format!("ip addr add {there}/{len} dev up0 {nodad}"));
        let ports = [Port::nth("tap1", 1), Port::nth("tap2", 2)];
        let (hx, hx_there) = (names.unique(), names.unique());
        let (_cloud, first) = part(&hx, &ports[0], here, &ports[1], there);
        let handle = Handle::open(&other_host.netns()).expect("a namespace");
        let (_other_cloud, second) = handle
            .run(|| part(&hx_there, &ports[1], there, &ports[0], here))
            .expect("inside");
        for (one, two) in ports[0].addrs.iter().zip(&ports[1].addrs) {
            assert!(first.reaches(two, 1370), "{two}");
            assert!(second.reaches(one, 1370), "{one}");
            stream(&first, &second, *two);
        }
    });
}

#[test]
fn between_hosts_over_ipv4() {
    between_hosts("192.0.2.1", "192.0.2.2", 24);
}

#[test]
fn between_hosts_over_ipv6() {
    between_hosts("2001:db8::1", "2001:db8::2", 64);
}

#[test]
fn on_one_host_a_stream_arrives_in_both_families() {
    isolated(|| {
        let mut names = Names::none();
        let hx = names.unique();
        let ports = [Port::nth("tap1", 1), Port::nth("tap2", 2)];
        let guests = ports.each_ref().map(Guest::plug);
        let mut cloud = Cloud::open();
        cloud.add(network(&hx));
        ports.iter().for_each(|one| cloud.add(port(&hx, one)));
        cloud.reconcile();
        for addr in &ports[1].addrs {
            stream(&guests[0], &guests[1], *addr);
        }
    });
}

/// A TCP segment that is longer than the link allows, as a virtio device hands it over: its checksum and its
/// division are left to the host (virtio 1.2 §5.1.6).
fn long_segment(from: &Port, to: &Port) -> Vec<u8> {
    const PAYLOAD: usize = 4000;
    const TCP: usize = 20;
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.addrs[0], to.addrs[0]) else {
        panic!("IPv4 comes first");
    };
    let (needs_checksum, tcp_v4, start, checksum_at) = (1, 1, 34_u16, 16_u16);
    let mut frame = vec![needs_checksum, tcp_v4];
    for number in [start + 20, 1200, start, checksum_at] {
        frame.extend(number.to_ne_bytes());
    }
    frame.extend(support::GATEWAY.octets());
    frame.extend(from.mac.octets());
    frame.extend([8, 0]);
    let length = u16::try_from(20 + TCP + PAYLOAD).expect("short");
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = !fold(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    let mut pseudo = [source.octets(), destination.octets()].concat();
    pseudo.extend([0, 6]);
    pseudo.extend(u16::try_from(TCP + PAYLOAD).expect("short").to_be_bytes());
    frame.extend([
        0x12, 0x34, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x10, 0,
    ]);
    frame.extend(fold(&pseudo).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend([0x68; PAYLOAD]);
    frame
}

fn fold(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

#[test]
fn what_a_virtio_device_leaves_to_the_host_passes() {
    isolated(|| {
        let mut names = Names::none();
        let hx = names.unique();
        let ports = [Port::nth("tap1", 1), Port::nth("tap2", 2)];
        let mut tap = Tap::open_virtio("tap1");
        run("ip link set tap1 address 02:68:78:00:00:01 up");
        let guest = Guest::plug(&ports[1]);
        let mut cloud = Cloud::open();
        cloud.add(network(&hx));
        ports.iter().for_each(|one| cloud.add(port(&hx, one)));
        cloud.reconcile();
        tap.send(&long_segment(&ports[0], &ports[1]));
        // A segment of no connection is answered with a reset, if its checksum is right.
        let is_reset = |frame: &[u8]| {
            let (ethernet, ip) = (&frame[10..], 24);
            ethernet.get(12..14) == Some(&[8, 0])
                && frame.get(ip + 9) == Some(&6)
                && frame.get(ip + 20 + 13).is_some_and(|flags| flags & 4 != 0)
        };
        assert!(tap.receive(5000, is_reset).is_some());
        drop(guest);
    });
}
