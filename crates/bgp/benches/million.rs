//! A million routes from one feeder: seconds and memory.
//!
//! ```text
//! cargo bench -p hextet-bgp                    into a speaker in this process, without sockets
//! cargo bench -p hextet-bgp -- tell            with a second peer that is told everything
//! cargo bench -p hextet-bgp -- serve ADDR      a speaker that waits for the feeder on a TCP address
//! cargo bench -p hextet-bgp -- feed ADDR       the feeder: for `serve`, or for another program's BGP
//! ```
//!
//! The feed is the same each time: 800,000 IPv4 and 200,000 IPv6 prefixes, on average five of them
//! for each set of attributes. `serve` and the plain mode print CPU time and memory of this process;
//! what others use has to be read from their `/proc/PID`. The feeder's AS is 64513, the fed one's is
//! 64512.

use std::{
    error::Error,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hextet_bgp::{
    Action, Event, Speaker,
    config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig},
    packet::{
        Afi, AsPath, Capability, Community, Encoding, Message, NextHop, Open, PathAttributes,
        encode_end_of_rib, encode_reach,
    },
    policy::Policy,
    session::{ConnId, Endpoint},
    speaker::READ_SIZE,
};
use hextet_types::{Asn, Family, Prefix, Time};

type Failure = Box<dyn Error>;

const IPV4: u32 = 800_000;
const IPV6: u32 = 200_000;
const FEEDER: Asn = Asn(64513);
const FED: Asn = Asn(64512);

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; without it, `cargo test --all-targets` wants to know that it builds.
    let benched = arguments.iter().any(|a| a == "--bench");
    arguments.retain(|a| a != "--bench");
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] if !benched => Ok(()),
        [] => in_process(false),
        ["tell"] => in_process(true),
        ["serve", addr] => serve(addr.parse()?),
        ["feed", addr] => feed(addr.parse()?),
        _ => Err("usage: million [tell | serve ADDR | feed ADDR]".into()),
    }
}

/// The feed in pieces of a few messages.
struct Feed {
    random: u64,
    next: u32,
    next_hops: [NextHop; 2],
}

impl Feed {
    fn new(local: IpAddr) -> Self {
        let v4 = match local {
            IpAddr::V4(addr) => addr,
            IpAddr::V6(_) => Ipv4Addr::new(192, 0, 2, 2),
        };
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);
        Feed {
            random: 1,
            next: 0,
            next_hops: [NextHop::V4(v4), NextHop::from_addr(v6.into())],
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.random >> 33) % u64::from(below)).unwrap_or(0)
    }

    fn attributes(&mut self, family: Family) -> PathAttributes {
        let [v4, v6] = self.next_hops;
        let mut attributes = PathAttributes::new(if family == Family::V4 { v4 } else { v6 });
        let hops = 2 + self.random(5);
        let mut path = vec![FEEDER];
        path.extend((0..hops).map(|_| Asn(1 + self.random(60_000))));
        attributes.as_path = AsPath::sequence(&path);
        attributes.med = Some(self.random(10));
        let communities = 1 + self.random(8);
        attributes.communities = (0..communities)
            .map(|_| Community(self.random(u32::MAX)))
            .collect();
        attributes
    }

    fn prefix(number: u32) -> Prefix {
        let made = if number < IPV4 {
            Prefix::new(Ipv4Addr::from((number + 0x1_0000) << 8).into(), 24)
        } else {
            let bits = 0x2a00_u128 << 112 | u128::from(number) << 80;
            Prefix::new(Ipv6Addr::from(bits).into(), 48)
        };
        made.unwrap_or(Prefix::default_route(Family::V4))
    }

    /// Appends the next messages; returns whether there were any.
    fn next(&mut self, octets: &mut Vec<u8>) -> bool {
        let encoding = Encoding {
            four_octet_as: true,
            extended: false,
        };
        while octets.len() < READ_SIZE - 4096 && self.next < IPV4 + IPV6 {
            let family = if self.next < IPV4 {
                Family::V4
            } else {
                Family::V6
            };
            let end = if self.next < IPV4 { IPV4 } else { IPV4 + IPV6 };
            let count = (1 + self.random(9)).min(end - self.next);
            let prefixes: Vec<_> = (self.next..self.next + count).map(Feed::prefix).collect();
            self.next += count;
            let attributes = self.attributes(family);
            if encode_reach(octets, encoding, family, &attributes, &prefixes).is_err() {
                return false;
            }
        }
        if self.next == IPV4 + IPV6 {
            self.next += 1;
            encode_end_of_rib(octets, Family::V4);
            encode_end_of_rib(octets, Family::V6);
        }
        !octets.is_empty()
    }
}

fn greeting(asn: Asn, identifier: Ipv4Addr) -> Vec<u8> {
    let unicast = |f| Capability::Multiprotocol(Afi::unicast(f));
    let open = Open {
        my_as: Open::two_octets(asn),
        hold_time_secs: 240,
        identifier,
        capabilities: vec![
            unicast(Family::V4),
            unicast(Family::V6),
            Capability::FourOctetAs(asn),
        ],
    };
    let mut octets = Message::Open(open).encode();
    octets.extend(Message::Keepalive.encode());
    octets
}

fn speaker(remote: IpAddr) -> Speaker {
    let config = SpeakerConfig::new(FED, Ipv4Addr::new(10, 0, 0, 1), 1);
    let mut speaker = Speaker::new(config, Time::ZERO);
    let mut peer = PeerConfig::new(PeerKey::Address(remote), RemoteAs::Is(FEEDER));
    peer.import = Policy::accept_all().into();
    peer.passive = true;
    peer.hold_time_secs = 240;
    speaker.handle(Event::Configure(Box::new(peer)), Time::ZERO);
    speaker
}

fn prefixes(speaker: &Speaker) -> usize {
    let status = speaker.status();
    status.ipv4_prefixes + status.ipv6_prefixes
}

fn in_process(tell: bool) -> Result<(), Failure> {
    let remote = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    let (mut dry, mut octets) = (Feed::new(remote), Vec::new());
    let before = cpu_seconds()?;
    while dry.next(&mut octets) {
        octets.clear();
    }
    let making = cpu_seconds()? - before;
    let memory = resident_kib()?;
    let mut speaker = speaker(remote);
    let conn = accept(
        &mut speaker,
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        remote,
    );
    let received = |octets: Vec<u8>| Event::Received {
        conn,
        octets: octets.into(),
    };
    speaker.handle(
        received(greeting(FEEDER, Ipv4Addr::new(10, 0, 0, 2))),
        Time::ZERO,
    );
    let listener = tell.then(|| add_listener(&mut speaker));
    let mut feed = Feed::new(remote);
    let (mut changes, mut told) = (0, 0);
    let before = cpu_seconds()?;
    loop {
        let mut octets = Vec::with_capacity(READ_SIZE);
        if !feed.next(&mut octets) {
            break;
        }
        let mut actions = speaker.handle(received(octets), Time::ZERO);
        while let Some(action) = actions.pop() {
            match action {
                Action::Routes(routes) => changes += routes.len(),
                Action::Send { conn, octets } if Some(conn) == listener => {
                    told += octets.len();
                    let octets = octets.len();
                    actions.extend(speaker.handle(Event::Written { conn, octets }, Time::ZERO));
                }
                _ => (),
            }
        }
    }
    let cpu = cpu_seconds()? - before - making;
    let memory = resident_kib()? - memory;
    println!(
        "{} prefixes, {} attribute sets, {changes} changes, {told} octets told: {cpu:.2} s CPU, {} MiB",
        prefixes(&speaker),
        speaker.status().attribute_sets,
        memory / 1024
    );
    Ok(())
}

/// A second peer, of our own AS, that is up.
fn add_listener(speaker: &mut Speaker) -> ConnId {
    let local = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let remote = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
    let mut peer = PeerConfig::new(PeerKey::Address(remote), RemoteAs::Internal);
    peer.export = Policy::accept_all().into();
    peer.passive = true;
    speaker.handle(Event::Configure(Box::new(peer)), Time::ZERO);
    let conn = accept(speaker, local, remote);
    let octets = greeting(FED, Ipv4Addr::new(10, 0, 0, 3)).into();
    speaker.handle(Event::Received { conn, octets }, Time::ZERO);
    conn
}

fn accept(speaker: &mut Speaker, local: IpAddr, remote: IpAddr) -> ConnId {
    let conn = speaker.new_connection();
    let endpoint = Endpoint {
        local,
        remote,
        interface: None,
    };
    speaker.handle(Event::Accepted { conn, endpoint }, Time::ZERO);
    conn
}

fn serve(addr: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(addr)?;
    let (mut stream, remote) = listener.accept()?;
    let mut speaker = speaker(remote.ip());
    let started = Instant::now();
    let conn = speaker.new_connection();
    let endpoint = Endpoint {
        local: stream.local_addr()?.ip(),
        remote: remote.ip(),
        interface: None,
    };
    let mut actions = speaker.handle(Event::Accepted { conn, endpoint }, Time::ZERO);
    let mut buffer = vec![0; READ_SIZE];
    loop {
        for action in actions.drain(..) {
            if let Action::Send { octets, .. } = action {
                stream.write_all(&octets)?;
            }
        }
        if prefixes(&speaker) >= (IPV4 + IPV6) as usize {
            break;
        }
        let len = stream.read(&mut buffer)?;
        let read = buffer.get(..len).unwrap_or_default();
        if read.is_empty() {
            return Err("the feeder went away".into());
        }
        let octets = Bytes::copy_from_slice(read);
        let now = Time::ZERO + started.elapsed();
        actions = speaker.handle(Event::Received { conn, octets }, now);
    }
    println!(
        "{} prefixes after {:.2} s: {:.2} s CPU, {} MiB",
        prefixes(&speaker),
        started.elapsed().as_secs_f64(),
        cpu_seconds()?,
        resident_kib()? / 1024
    );
    Ok(())
}

fn feed(addr: SocketAddr) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(&greeting(FEEDER, Ipv4Addr::new(10, 0, 0, 2)))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // Its OPEN and its KEEPALIVE; what they say is of no interest here.
    let mut greeted = vec![0; 19];
    stream.read_exact(&mut greeted)?;
    let mut sink = stream.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut sink, &mut std::io::sink()));
    let mut feed = Feed::new(stream.local_addr()?.ip());
    let started = Instant::now();
    let mut octets = Vec::with_capacity(READ_SIZE);
    while feed.next(&mut octets) {
        stream.write_all(&octets)?;
        octets.clear();
    }
    println!("fed after {:.2} s", started.elapsed().as_secs_f64());
    // Until whoever measures has seen enough.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// User and system time of this process (`/proc/self/stat`, in hundredths of a second).
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat is odd")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<f64, Failure> {
        Ok(fields.next().ok_or("/proc/self/stat is short")?.parse()?)
    };
    Ok((ticks()? + ticks()?) / 100.0)
}

fn resident_kib() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    Ok(number.ok_or("no VmRSS in /proc/self/status")?.parse()?)
}
