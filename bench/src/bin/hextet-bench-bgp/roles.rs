//! What this program is in the namespaces: the feeder, and hextet's speaker that is fed.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hextet_bgp::{
    Action, Event, Speaker,
    config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig},
    packet::{Afi, Capability, Message, Open},
    policy::Policy,
    session::Endpoint,
    speaker::READ_SIZE,
};
use hextet_types::{Asn, Family, Time};

use crate::feed::{Feed, ROUTES};

/// The feeder's AS.
pub const FEEDER: Asn = Asn(64513);
/// The AS of who is fed.
pub const FED: Asn = Asn(64512);
/// What the speaker says when it waits for the feeder.
pub const LISTENING: &str = "listening";
/// What the speaker says when it has all routes.
pub const COMPLETE: &str = "complete";

const HOLD_TIME_SECS: u16 = 240;
/// How long the feeder tries to reach who is to be fed.
const REACHING: Duration = Duration::from_secs(10);

/// hextet's speaker with one peer. It reads from a blocking socket and ends with its standard input.
pub fn serve(listen: SocketAddrV4) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    println!("{LISTENING}");
    let (mut stream, remote) = listener.accept().context("accept the feeder")?;
    let mut speaker = speaker(remote.ip());
    let started = Instant::now();
    let conn = speaker.new_connection();
    let endpoint = Endpoint {
        local: IpAddr::V4(*listen.ip()),
        remote: remote.ip(),
        interface: None,
    };
    let clock = || Time::ZERO + started.elapsed();
    let accepted = Event::Accepted { conn, endpoint };
    answer(&mut speaker, accepted, clock(), &mut stream)?;
    let mut buffer = vec![0; READ_SIZE];
    while prefixes(&speaker) < ROUTES {
        let len = stream.read(&mut buffer).context("read from the feeder")?;
        let read = buffer.get(..len).unwrap_or_default();
        ensure!(!read.is_empty(), "the feeder went away");
        let octets = Bytes::copy_from_slice(read);
        let received = Event::Received { conn, octets };
        answer(&mut speaker, received, clock(), &mut stream)?;
    }
    println!("{COMPLETE}");
    until_told()
}

/// Hands in an event, and writes what comes of it.
fn answer(speaker: &mut Speaker, event: Event, now: Time, stream: &mut TcpStream) -> Result<()> {
    let mut events = VecDeque::from([event]);
    while let Some(event) = events.pop_front() {
        for action in speaker.handle(event, now) {
            if let Action::Send { conn, octets } = action {
                stream.write_all(&octets).context("answer the feeder")?;
                let octets = octets.len();
                events.push_back(Event::Written { conn, octets });
            }
        }
    }
    Ok(())
}

fn speaker(remote: IpAddr) -> Speaker {
    let config = SpeakerConfig::new(FED, Ipv4Addr::new(10, 0, 0, 1), 1);
    let mut speaker = Speaker::new(config, Time::ZERO);
    let mut peer = PeerConfig::new(PeerKey::Address(remote), RemoteAs::Is(FEEDER));
    peer.import = Policy::accept_all().into();
    peer.passive = true;
    peer.hold_time_secs = HOLD_TIME_SECS;
    speaker.handle(Event::Configure(Box::new(peer)), Time::ZERO);
    speaker
}

fn prefixes(speaker: &Speaker) -> usize {
    let status = speaker.status();
    status.ipv4_prefixes + status.ipv6_prefixes
}

/// Announces the whole feed, as fast as it is taken, and keeps the session until its standard input ends.
pub fn feed(to: SocketAddrV4) -> Result<()> {
    let mut stream = connect(to)?;
    stream
        .write_all(&greeting())
        .with_context(|| format!("greet {to}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // Its OPEN; what it says is of no interest here.
    let mut greeted = [0; 19];
    stream
        .read_exact(&mut greeted)
        .with_context(|| format!("wait for {to} to answer"))?;
    stream.set_read_timeout(None)?;
    let mut sink = stream.try_clone()?;
    thread::spawn(move || io::copy(&mut sink, &mut io::sink()));
    let mut feed = Feed::default();
    let mut octets = Vec::with_capacity(READ_SIZE);
    while feed.next(&mut octets)? {
        stream
            .write_all(&octets)
            .with_context(|| format!("feed {to}"))?;
        octets.clear();
    }
    until_told()
}

/// A link that has just come up may need a moment.
fn connect(to: SocketAddrV4) -> Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(to) {
            Err(_) if begun.elapsed() < REACHING => thread::sleep(Duration::from_millis(10)),
            reached => return reached.with_context(|| format!("connect to {to}")),
        }
    }
}

fn greeting() -> Vec<u8> {
    let unicast = |f| Capability::Multiprotocol(Afi::unicast(f));
    let open = Open {
        my_as: Open::two_octets(FEEDER),
        hold_time_secs: HOLD_TIME_SECS,
        identifier: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![
            unicast(Family::V4),
            unicast(Family::V6),
            Capability::FourOctetAs(FEEDER),
        ],
    };
    let mut octets = Message::Open(open).encode();
    octets.extend(Message::Keepalive.encode());
    octets
}

/// Waits for the end of standard input: whoever measures has seen enough.
fn until_told() -> Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink()).context("wait for standard input to end")?;
    Ok(())
}
