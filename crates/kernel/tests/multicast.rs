//! Multicast in real kernels: what a port sends to a group comes to those that have joined it, as it was sent, here and on
//! another host, if the rules of both let it, and to nobody else.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use hextet_kernel::netns::Handle;
use hextet_model::{
    intent::{Change, Joined, TunnelEndpoint},
    state::Netns,
};
use hextet_types::{Family, IfName, Mac};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    GATEWAY, Host,
    private::Guest,
    tenant::{
        ANYWHERE, Compute, Machine, Station, UNDERLAY, addrs, group, host, network, network_id,
        two_hosts,
    },
};

/// Of either family: one that is on the link, and one of the site.
const GROUPS: [[&str; 2]; 2] = [["224.0.0.251", "239.1.2.3"], ["ff02::fb", "ff05::1:3"]];
const PORT: u16 = 5353;
const SOON: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_millis(300);
/// Of the workload's own link, in its namespace.
const LINK: &str = "eth0";
const ETHERNET: usize = 14;

fn station(n: u16, group: u16) -> Station {
    Station {
        network: 1,
        n,
        group,
    }
}

fn groups(family: Family) -> [IpAddr; 2] {
    GROUPS[usize::from(family == Family::V6)].map(|text| text.parse().expect("a group"))
}

fn own(station: Station, family: Family) -> IpAddr {
    addrs(station.network, station.n)[usize::from(family == Family::V6)]
}

/// These have joined all groups.
fn joined(stations: &[Station]) -> Vec<Change> {
    let mut changes = Vec::new();
    for family in Family::BOTH {
        for group in groups(family) {
            let one = |s: &Station| {
                let (mac, addr) = (s.mac(), own(*s, family));
                (s.id(), Joined { mac, addr })
            };
            let all: BTreeMap<_, _> = stations.iter().map(one).collect();
            let network = network_id(stations.first().map_or(1, |s| s.network));
            changes.push(match all.is_empty() {
                false => Change::PutAudience(network, group, all),
                true => Change::RemoveAudience(network, group),
            });
        }
    }
    changes
}

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

/// A socket of a workload that sends to groups with so many hops.
fn speaker(guest: &Guest, family: Family, hops: u32) -> UdpSocket {
    inside(guest, || {
        let index = nix::net::if_::if_nametoindex(LINK).expect("a link");
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::DGRAM, None).expect("a socket");
        match family {
            Family::V4 => socket.set_multicast_ttl_v4(hops).expect("hops"),
            Family::V6 => {
                socket.set_multicast_if_v6(index).expect("by that link");
                socket.set_multicast_hops_v6(hops).expect("hops");
                socket.set_only_v6(true).expect("IPv6 alone");
            }
        }
        socket.bind_device(Some(LINK.as_bytes())).expect("its link");
        // A program that another test starts may hold the last one for as long as it takes to start.
        socket.set_reuse_address(true).expect("shared");
        let any = SocketAddr::new(family.unspecified(), PORT);
        socket.bind(&any.into()).expect("bound");
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(SOON)).expect("a limit");
        socket
    })
}

/// A socket of a workload that has joined all groups.
fn listener(guest: &Guest, family: Family) -> UdpSocket {
    let socket = speaker(guest, family, 1);
    inside(guest, || {
        let index = nix::net::if_::if_nametoindex(LINK).expect("a link");
        for group in groups(family) {
            match group {
                IpAddr::V4(group) => {
                    let link = socket2::InterfaceIndexOrAddress::Index(index);
                    let socket = socket2::SockRef::from(&socket);
                    socket.join_multicast_v4_n(&group, &link).expect("joined");
                }
                IpAddr::V6(group) => socket.join_multicast_v6(&group, index).expect("joined"),
            }
        }
    });
    socket
}

/// Frames that come to a workload, as its link has them.
struct Tap(Socket);

/// What came: to which Ethernet address, from whom, to whom, with how many hops, and what.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    mac: Mac,
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    payload: Vec<u8>,
}

impl Tap {
    fn on(guest: &Guest) -> Self {
        Tap(inside(guest, || {
            let all = Protocol::from(i32::from(3_u16.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("a socket");
            socket.set_nonblocking(true).expect("no waiting");
            socket
        }))
    }

    /// The next whole datagram to that UDP port that comes within the time.
    fn next(&self, limit: Duration) -> Option<Came> {
        let end = Instant::now() + limit;
        let mut octets = [0; 4096];
        while Instant::now() < end {
            match self.frame(&mut octets) {
                Some(frame) => {
                    if let Some(came) = came(frame) {
                        return Some(came);
                    }
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    /// A frame of the gateway's that waits; an empty one is somebody else's.
    fn frame<'a>(&self, octets: &'a mut [u8]) -> Option<&'a [u8]> {
        let len = (&self.0).read(octets).ok()?;
        let is = octets[6..12] == GATEWAY.octets();
        Some(&octets[..if is { len } else { 0 }])
    }
}

/// Reads a frame with UDP; its checksums have to be right.
fn came(frame: &[u8]) -> Option<Came> {
    let mac = Mac::new(*frame.first_chunk()?);
    let packet = frame.get(ETHERNET..)?;
    let (from, to, hops, udp): (IpAddr, IpAddr, u8, &[u8]) = match frame.get(12..14)? {
        [8, 0] => {
            let address = |at| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four");
            let header = &packet[..4 * usize::from(packet[0] & 15)];
            assert_eq!(sum(header, 0), 0xffff, "the header's checksum");
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let is_udp = packet[9] == 17 && packet[6] & 0x3f == 0 && packet[7] == 0;
            is_udp.then_some(())?;
            let (from, to) = (address(12).into(), address(16).into());
            (from, to, packet[8], &packet[header.len()..length])
        }
        [0x86, 0xdd] => {
            let address = |at| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen");
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (packet[6] == 17).then_some(())?;
            let (from, to) = (address(8).into(), address(24).into());
            (from, to, packet[7], &packet[40..40 + length])
        }
        _ => return None,
    };
    let mut pseudo = sum_of(from) + sum_of(to) + 17 + udp.len() as u32;
    pseudo = (pseudo & 0xffff) + (pseudo >> 16);
    assert_eq!(sum(udp, pseudo), 0xffff, "the checksum of {from} to {to}");
    let payload = udp[8..].to_vec();
    (udp[2..4] == PORT.to_be_bytes()).then_some(Came {
        mac,
        from,
        to,
        hops,
        payload,
    })
}

fn sum_of(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => sum(&addr.octets(), 0),
        IpAddr::V6(addr) => sum(&addr.octets(), 0),
    }
}

/// RFC 1071.
fn sum(octets: &[u8], from: u32) -> u32 {
    let pairs = octets.chunks(2);
    let value = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut all = pairs.map(value).sum::<u32>() + from;
    while all > 0xffff {
        all = (all & 0xffff) + (all >> 16);
    }
    all
}

fn mac_of(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            Mac::new([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            Mac::new([0x33, 0x33, a, b, c, d])
        }
    }
}

fn to(group: IpAddr) -> SocketAddr {
    SocketAddr::new(group, PORT)
}

/// Whether checksums are computed where a workload sends, or left to the host; and by the host, when packets come to one.
fn offload(host: &Compute, guest: usize, station: Station, left: bool) {
    inside(&host.guests[guest], || computes(LINK, !left));
    computes(IfName::for_port(station.id()).as_str(), true);
}

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    command: u32,
    value: u32,
}

/// Whether the kernel computes the checksums of what leaves by a link, or leaves them to the device.
#[allow(unsafe_code)]
fn computes(link: &str, does: bool) {
    const SET_TX_CHECKSUMS: u32 = 0x17;
    let mut value = EthtoolValue {
        command: SET_TX_CHECKSUMS,
        value: u32::from(!does),
    };
    // SAFETY: all zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0"));
    let socket = socket.expect("a socket");
    // SAFETY: the request is one of this ioctl's, and what it points to is alive and as long as the command says.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    assert_eq!(result, 0, "{link}: {}", std::io::Error::last_os_error());
}

/// One sends to both groups with 1, 64 and 255 hops: those to whom it is to come get it as it was sent.
fn all_hear(from: (&Guest, Station), who: &[&Guest], size: usize) {
    for family in Family::BOTH {
        let taps: Vec<Tap> = who.iter().map(|guest| Tap::on(guest)).collect();
        for (group, n) in groups(family).into_iter().zip(0..) {
            for hops in [1, 64, 255] {
                let payload = vec![hops ^ n; size];
                let speaker = speaker(from.0, family, hops.into());
                speaker.send_to(&payload, to(group)).expect("sent");
                for tap in &taps {
                    let expected = Came {
                        mac: mac_of(group),
                        from: own(from.1, family),
                        to: group,
                        hops,
                        payload: payload.clone(),
                    };
                    assert_eq!(tap.next(SOON), Some(expected), "{group}");
                }
            }
        }
    }
}

fn none_hears(from: &Guest, who: &[&Guest]) {
    for family in Family::BOTH {
        let taps: Vec<Tap> = who.iter().map(|guest| Tap::on(guest)).collect();
        for group in groups(family) {
            let speaker = speaker(from, family, 1);
            speaker.send_to(b"nobody", to(group)).expect("sent");
        }
        for tap in &taps {
            assert_eq!(tap.next(NEVER), None, "{family}");
        }
    }
}

#[test]
fn a_group_comes_to_those_that_have_joined_it_and_to_nobody_else() {
    Machine::start("h1").run(|host| {
        for n in [1, 2] {
            host.apply(network(n, 1430));
        }
        host.apply([
            group(0, &ANYWHERE),
            group(1, &["10.99.0.0/16", "fd99::/64"]),
        ]);
        let stations = [
            station(10, 0),
            station(11, 0),
            station(12, 0),
            station(13, 1),
            station(14, 0),
            Station {
                network: 2,
                n: 10,
                group: 0,
            },
        ];
        host.plug(&stations);
        let before = host.kernel.todo(&host.planner.state().objects);
        assert!(before.is_empty(), "{before:?}");
        let [speaker, one, other, refusing, stranger, elsewhere] = stations;
        host.apply(joined(&[speaker, one, other, refusing]));
        host.apply(joined(&[elsewhere]));
        let who = |host: &Compute, all: &[usize]| -> Vec<Guest> {
            all.iter()
                .map(|n| Guest(host.guests[*n].0.clone()))
                .collect()
        };
        let guests = who(host, &[0, 1, 2, 3, 4, 5]);
        let [from, one_is, other_is, refuses, strange, away] = &guests[..] else {
            panic!("six")
        };
        for left in [true, false] {
            offload(host, 0, speaker, left);
            for (n, station) in [(1, one), (2, other)] {
                offload(host, n, station, true);
            }
            for size in [1, 1300] {
                all_hear((from, speaker), &[one_is, other_is], size);
            }
        }
        none_hears(from, &[refuses, strange, away]);
        let _ = stranger;
        // Who leaves hears no more, the others do.
        host.apply(joined(&[speaker, other]));
        none_hears(from, &[one_is]);
        all_hear((from, speaker), &[other_is], 5);
        host.apply(joined(&[]));
        none_hears(from, &[one_is, other_is]);
        std::mem::forget(guests);
    });
}

/// What somebody asks a group is answered to the one who asks, whose rules let in nothing that it has not asked for.
#[test]
fn answers_are_those_of_a_connection() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([
            group(0, &ANYWHERE),
            group(1, &["10.99.0.0/16", "fd99::/64"]),
        ]);
        let [asks, answers] = [station(10, 1), station(11, 0)];
        host.plug(&[asks, answers]);
        host.apply(joined(&[answers]));
        for family in Family::BOTH {
            let answering = listener(&host.guests[1], family);
            let asking = speaker(&host.guests[0], family, 255);
            for group in groups(family) {
                asking.send_to(b"who?", to(group)).expect("sent");
                let mut octets = [0; 64];
                let (len, from) = answering.recv_from(&mut octets).expect("it comes");
                assert_eq!(&octets[..len], b"who?");
                assert_eq!(from.ip(), own(asks, family), "somebody who can be answered");
                answering.send_to(b"I", from).expect("sent");
                let (len, from) = asking.recv_from(&mut octets).expect("the answer comes");
                assert_eq!(
                    (&octets[..len], from.ip()),
                    (&b"I"[..], own(answers, family))
                );
            }
        }
    });
}

const STATIONS: [[(u16, u16); 3]; 2] = [[(10, 0), (11, 0), (12, 1)], [(20, 0), (21, 0), (22, 1)]];

fn stations(of: usize) -> [Station; 3] {
    STATIONS[of].map(|(n, group)| station(n, group))
}

/// Two hosts, each with three workloads, of which the third takes nothing from others. Nothing runs on them but kernels.
fn two_full_hosts() -> [Machine; 2] {
    let machines = two_hosts(UNDERLAY, [&stations(0), &stations(1)]);
    for (machine, here) in machines.iter().zip([0_usize, 1]) {
        machine.run(move |compute| {
            compute.apply([group(1, &["10.99.0.0/16", "fd99::/64"])]);
            compute.plug(&stations(here));
            for guest in &compute.guests {
                guest.run("ip link set eth0 mtu 1300");
            }
        });
    }
    machines
}

/// A workload of another host's thread: its namespace has a name there only, so work is done there.
fn hear_from(machines: &[Machine; 2], size: usize, whole: bool) {
    for family in Family::BOTH {
        for group in groups(family) {
            let listeners = machines[1].run(move |compute| {
                let all = compute.guests.iter();
                all.map(|guest| listener(guest, family)).collect::<Vec<_>>()
            });
            let near = machines[0].run(move |compute| listener(&compute.guests[1], family));
            let tap = machines[1].run(|compute| Tap::on(&compute.guests[0]));
            machines[0].run(move |compute| {
                let speaker = speaker(&compute.guests[0], family, 1);
                let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
                speaker.send_to(&payload, to(group)).expect("sent");
            });
            let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let mut octets = vec![0; 65_536];
            let [one, other, refusing] = &listeners[..] else {
                panic!("three")
            };
            for (socket, who) in [(&near, "near"), (one, "one"), (other, "other")] {
                let (len, from) = socket
                    .recv_from(&mut octets)
                    .unwrap_or_else(|e| panic!("{size} octets to {group}, {who}: {e}"));
                assert_eq!(
                    (&octets[..len], from.ip()),
                    (
                        &payload[..],
                        addrs(1, 10)[usize::from(family == Family::V6)]
                    ),
                    "{group}"
                );
            }
            refusing.set_read_timeout(Some(NEVER)).expect("a limit");
            refusing
                .recv_from(&mut octets)
                .expect_err("its rules refuse");
            if whole {
                let came = tap.next(SOON).expect("it comes");
                assert_eq!((came.mac, came.to, came.hops), (mac_of(group), group, 1));
            }
        }
    }
}

#[test]
fn a_group_comes_to_those_on_another_host() {
    let machines = two_full_hosts();
    let all: Vec<Station> = [stations(0), stations(1)].concat();
    for machine in &machines {
        let all = all.clone();
        machine.run(move |compute| compute.apply(joined(&all)));
    }
    for left in [true, false] {
        for (machine, n) in machines.iter().zip([0, 1]) {
            machine.run(move |compute| {
                for (guest, station) in stations(n).into_iter().enumerate() {
                    offload(compute, guest, station, left);
                }
            });
        }
        // As large as the network's packets may be, and larger.
        for (size, whole) in [(4, true), (1300 - 48, true), (4000, false)] {
            hear_from(&machines, size, whole);
        }
    }
    // Who has left is told by its own host, whatever the other knows.
    let one = [stations(0).to_vec(), stations(1)[1..].to_vec()].concat();
    machines[1].run(move |compute| compute.apply(joined(&one)));
    let taps = machines[1].run(|compute| [0, 1].map(|n| Tap::on(&compute.guests[n])));
    machines[0].run(|compute| {
        let speaker = speaker(&compute.guests[0], Family::V4, 1);
        speaker
            .send_to(b"left", to(groups(Family::V4)[0]))
            .expect("sent");
    });
    assert!(taps[1].next(SOON).is_some());
    assert_eq!(taps[0].next(NEVER), None);
}

#[test]
fn who_claims_to_be_another_is_not_heard_and_reports_stay() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        let [speaks, hears] = [station(10, 0), station(11, 0)];
        host.plug(&[speaks, hears]);
        offload(host, 1, hears, true);
        let mut changes = joined(&[hears]);
        let reports: IpAddr = [224, 0, 0, 22].into();
        let member = Joined {
            mac: hears.mac(),
            addr: own(hears, Family::V4),
        };
        let members = BTreeMap::from([(hears.id(), member)]);
        changes.push(Change::PutAudience(network_id(1), reports, members));
        host.apply(changes);
        let tap = Tap::on(&host.guests[1]);
        let all = Tap::on(&host.guests[1]);
        // The kernel reports what it joins, to that group.
        drop(listener(&host.guests[0], Family::V4));
        host.guests[0].run("ip addr add 10.0.1.99/24 dev eth0");
        host.guests[0].run("ip addr add fd00:1::99/64 dev eth0 nodad");
        for family in Family::BOTH {
            let socket = inside(&host.guests[0], || {
                let text = ["10.0.1.99", "fd00:1::99"][usize::from(family == Family::V6)];
                UdpSocket::bind(SocketAddr::new(text.parse().expect("an address"), 0))
            });
            let socket = socket.expect("a socket");
            let socket_ref = socket2::SockRef::from(&socket);
            if family == Family::V4 {
                let from = "10.0.1.99".parse().expect("an address");
                socket_ref.set_multicast_if_v4(&from).expect("from there");
            } else {
                let index = inside(&host.guests[0], || nix::net::if_::if_nametoindex(LINK));
                socket_ref
                    .set_multicast_if_v6(index.expect("a link"))
                    .expect("by it");
            }
            socket
                .send_to(b"forged", to(groups(family)[1]))
                .expect("sent");
        }
        assert_eq!(tap.next(NEVER), None);
        let mut octets = [0; 4096];
        while let Some(frame) = all.frame(&mut octets) {
            let is_report = frame.get(12..14) == Some(&[8, 0]) && frame[ETHERNET + 9] == 2;
            assert!(!is_report, "{frame:?}");
        }
        let [one, other] = [&host.guests[0], &host.guests[1]];
        host.guests[0].run("ip addr del 10.0.1.99/24 dev eth0");
        host.guests[0].run("ip addr del fd00:1::99/64 dev eth0");
        all_hear((one, speaks), &[other], 1);
    });
}

/// Whoever starts anew goes by the programs that are there, and so do ports that come later.
#[test]
fn groups_outlive_who_has_told_of_them() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        let all = [station(10, 0), station(11, 0), station(12, 0)];
        host.plug(&all[..2]);
        (0..2).for_each(|n| offload(host, n, all[n], true));
        host.apply(joined(&all[..2]));
        host.kernel = Host::open();
        all_hear((&host.guests[0], all[0]), &[&host.guests[1]], 1);
        assert_eq!(
            host.kernel.todo(&host.planner.state().objects),
            Vec::<String>::new()
        );
        host.plug(&all[2..]);
        offload(host, 2, all[2], true);
        host.apply(joined(&all));
        all_hear(
            (&host.guests[0], all[0]),
            &[&host.guests[1], &host.guests[2]],
            1,
        );
        all_hear(
            (&host.guests[2], all[2]),
            &[&host.guests[0], &host.guests[1]],
            1,
        );
        // What of it is not wanted any more goes, also what somebody has left there.
        host.apply(joined(&[]));
        none_hears(&host.guests[0], &[&host.guests[1], &host.guests[2]]);
    });
}

/// There are so many on another host, which does not answer; and ways to them.
fn elsewhere(compute: &mut Compute) -> Vec<Station> {
    let many: Vec<Station> = (100..163).map(|n| station(n, 0)).collect();
    let addresses = many.iter().flat_map(|s| addrs(1, s.n));
    let remotes = addresses.map(|addr| (addr, host(2))).collect();
    let endpoint = |n: u8| TunnelEndpoint {
        number: n.into(),
        address: IpAddr::from([127, 0, 0, n]),
    };
    compute.apply([
        Change::PutHost(host(1), endpoint(1)),
        Change::PutHost(host(2), endpoint(2)),
        Change::PutRemotes(network_id(1), remotes),
    ]);
    many
}

/// All copies of a datagram that is not whole yet share its sender's room.
#[test]
fn fragments_for_many_share_one_room() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        let [speaks, hears] = [station(10, 0), station(99, 0)];
        host.plug(&[speaks, hears]);
        let mut many = elsewhere(host);
        many.push(hears);
        // From then on what goes to a group of the link comes from a link-local address.
        let end = Instant::now() + SOON;
        while host.guests[0]
            .run("ip -6 addr show dev eth0")
            .contains("tentative")
        {
            assert!(Instant::now() < end, "its addresses stay tentative");
            std::thread::sleep(Duration::from_millis(20));
        }
        let both = Family::BOTH.map(|family| {
            let socket = listener(&host.guests[1], family);
            (family, socket, speaker(&host.guests[0], family, 1))
        });
        let mut octets = [0; 8192];
        host.apply(joined(&many[54..]));
        for (family, socket, speaker) in &both {
            for group in groups(*family) {
                for _ in 0..20 {
                    speaker.send_to(&[7; 4000], to(group)).expect("sent");
                    assert_eq!(socket.recv(&mut octets).expect("it comes"), 4000);
                    // There are 50 copies in a millisecond.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        host.apply(joined(&many));
        for (family, socket, speaker) in &both {
            let [group, _] = groups(*family);
            socket.set_read_timeout(Some(NEVER)).expect("a limit");
            speaker.send_to(&[7; 4000], to(group)).expect("sent");
            assert!(socket.recv(&mut octets).is_err(), "{group}");
            speaker.send_to(&[7; 1300], to(group)).expect("sent");
            assert_eq!(socket.recv(&mut octets).expect("it comes"), 1300);
        }
    });
}

/// With 64 listeners each packet costs 64; who sends many has fewer of them copied.
#[test]
fn copies_are_bounded() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        let [speaks, hears] = [station(10, 0), station(250, 0)];
        host.plug(&[speaks, hears]);
        let mut many = elsewhere(host);
        many.push(hears);
        host.apply(joined(&many));
        let socket = listener(&host.guests[1], Family::V4);
        socket.set_read_timeout(Some(NEVER)).expect("a limit");
        let counting = std::thread::spawn(move || {
            let mut octets = [0; 64];
            let mut count = 0;
            while socket.recv_from(&mut octets).is_ok() {
                count += 1;
            }
            count
        });
        let speaker = speaker(&host.guests[0], Family::V4, 1);
        let begin = Instant::now();
        let group = groups(Family::V4)[1];
        for _ in 0..20_000 {
            speaker.send_to(b"flood", to(group)).expect("sent");
        }
        let copies = 500.0 + 50_000.0 * (begin.elapsed().as_secs_f64() + 0.5);
        let heard: u32 = counting.join().expect("it counts");
        assert!(
            heard > 0 && f64::from(heard) <= copies / 64.0,
            "{heard} of {copies}"
        );
    });
}
