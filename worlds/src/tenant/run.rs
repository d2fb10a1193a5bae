//! Sends packets through a world of projects, from host to host, and compares what comes out of each with what
//! explanations say.

use std::net::IpAddr;

use hextet_model::state::HostState;
use hextet_tests::{
    hypervisor::{SPINE_MAC, in_own_namespace},
    packet::{Ends, Icmp, Tcp},
    site::{Entry, Site},
    wire::Frame,
};
use hextet_types::{Family, IfName, PortId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    look::{self, Expected, Visit, unwrap, whole},
    make,
    met::Met,
    shot::{Shooter, Shot},
};
use crate::{
    make::strangers,
    run::{Checked, Disagreement, MAX_HOSTS, answer_body},
    shot::{Body, MARK_LEN, number},
    track::{Connections, Tracing, Tracker},
};

/// A cloud whose hosts stand.
pub struct World {
    seed: u64,
    shooter: Shooter,
    /// Its hosts.
    pub sites: Vec<Site>,
    connections: Connections,
    next_number: u64,
    /// What has been seen so far.
    pub met: Met,
}

/// A packet that came where it was to go.
struct Arrival {
    host: usize,
    /// By which answers come back.
    entry: Entry,
    octets: Vec<u8>,
    seen: hextet_tests::packet::Parsed,
}

/// Makes the world of that seed and sends so many packets through it.
pub fn world(seed: u64, packets: usize) -> (Met, Option<Disagreement>) {
    in_own_namespace(|| {
        let mut world = World::new(seed);
        let found = world.batch(packets).err();
        (world.met, found.map(|found| *found))
    })
}

impl World {
    /// The world of that seed, in namespaces that end with the calling thread.
    pub fn new(seed: u64) -> World {
        let setting = make::setting(seed);
        let sites: Vec<Site> = setting.hosts.iter().map(Site::new).collect();
        World {
            seed,
            met: Met::default(),
            shooter: Shooter::new(setting.whole, seed),
            sites,
            connections: Connections::default(),
            next_number: 0,
        }
    }

    /// So many packets, with what follows from those that arrive.
    ///
    /// # Errors
    ///
    /// The first disagreement.
    pub fn batch(&mut self, packets: usize) -> Checked<()> {
        for _ in 0..packets {
            let mut shot = self.shooter.shot();
            shot.fragmented = shot.tunnel.is_none() && self.shooter.flip(0.12);
            self.exchange(shot)?;
        }
        Ok(())
    }

    /// A packet, and answers or errors about it.
    fn exchange(&mut self, shot: Shot) -> Checked<()> {
        let begins = match &shot.body {
            Body::Tcp(tcp) => tcp.flags == Tcp::SYN,
            Body::Icmp(icmp, _) => matches!(icmp.kind, 8 | 128),
            Body::Udp(..) | Body::Other(_) => true,
        };
        let to_itself = shot.ends.src == shot.ends.dst;
        let Some(arrival) = self.carry(&shot)? else {
            return Ok(());
        };
        if !begins || to_itself {
            return Ok(());
        }
        if self.shooter.flip(0.15) {
            let error = self.error_about(&arrival);
            self.carry(&error)?;
        }
        if self.shooter.flip(0.16)
            && let Some(error) = self.error_by_another(&arrival)
        {
            self.carry(&error)?;
        }
        if !self.shooter.flip(0.6) {
            return Ok(());
        }
        let Some(answer) = self.answer_to(&shot, &arrival) else {
            return Ok(());
        };
        let Some(answered) = self.carry(&answer)? else {
            return Ok(());
        };
        let asker = |a: &Arrival| Some(a.host) == shot.host && a.entry == shot.entry;
        if shot.tunnel.is_some() || shot.host.is_some() && !asker(&answered) {
            return Ok(());
        }
        self.is_answer(&shot, &arrival, &answered)?;
        self.met.word(match shot.entry {
            Entry::Uplink => "an answer to outside",
            _ => "an answer to a port",
        });
        if self.shooter.flip(0.2) {
            let error = self.error_about_answer(&shot, &answered);
            if shot.entry == Entry::Uplink {
                self.met.word("an error about an answer to outside");
            }
            self.carry(&error)?;
        }
        let odd = self.shooter.flip(0.2);
        self.carry(&next_of(&shot, odd)).map(|_| ())
    }

    /// Who asked has to know the answer for one: it comes from whom was asked, whatever is between them.
    fn is_answer(&self, shot: &Shot, asked: &Arrival, answered: &Arrival) -> Checked<()> {
        let packet = shot.body.packet(shot.ends, 0);
        let sent = unwrap(&look::framed(&packet)).expect("a packet of ours");
        let sent = look::tracing(&sent.parsed, false).tuple;
        let answer = look::tracing(&answered.seen, false).tuple;
        if answer == sent.back() {
            return Ok(());
        }
        Err(Box::new(Disagreement {
            seed: self.seed,
            number: self.next_number,
            packet: format!(
                "in projects ({}): {sent:?} came to host {} as {:?}",
                shot.kind,
                asked.host,
                look::tracing(&asked.seen, false).tuple
            ),
            expected: format!("{:?}", sent.back()),
            seen: format!("the answer came as {answer:?}"),
        }))
    }

    /// From host to host, as long as it leaves for one.
    fn carry(&mut self, shot: &Shot) -> Checked<Option<Arrival>> {
        let announcing = || self.announcing(None, shot.ends.dst);
        let Some(host) = shot.host.or_else(announcing) else {
            return Ok(None);
        };
        self.next_number += 1;
        self.met.packets += 1;
        let pieces = pieces(shot, self.next_number);
        let mut visit = Visit {
            host,
            entry: shot.entry,
            mac: shot.mac,
            to_mac: shot.to_mac,
            pieces,
            number: self.next_number,
            odd: shot.odd,
        };
        for _ in 0..MAX_HOSTS {
            let Some((by, frames)) = self.visit(&visit, shot.kind)? else {
                return Ok(None);
            };
            let seen = whole(&slices(&frames)).expect("it was recognised");
            let arrival = |entry| Arrival {
                host: visit.host,
                entry,
                octets: seen.frame[14..].to_vec(),
                seen: seen.parsed.clone(),
            };
            if let Some(port) = self.sites[visit.host].port_of(&by) {
                self.met.came(shot);
                self.stays_in_project(shot, port)?;
                return Ok(Some(arrival(Entry::Port(port))));
            }
            if seen.tunnel.is_none() {
                self.is_public(shot, seen.parsed.ends.src)?;
            }
            let next = match seen.tunnel {
                Some(tunnel) => self.reached_by(tunnel.ends.dst),
                None => self.announcing(Some(visit.host), seen.parsed.ends.dst),
            };
            let Some(next) = next else {
                self.met.word("left for outside");
                let turned = visit.entry == Entry::Uplink && seen.tunnel.is_none();
                return Ok((!turned).then(|| arrival(Entry::Uplink)));
            };
            visit = Visit {
                host: next,
                entry: Entry::Uplink,
                mac: SPINE_MAC,
                to_mac: None,
                pieces: frames.iter().map(|frame| frame[14..].to_vec()).collect(),
                ..visit
            };
        }
        Ok(None)
    }

    /// Whatever plans and explanations say: between projects goes only what was sent to a public address.
    fn stays_in_project(&self, shot: &Shot, to: PortId) -> Checked<()> {
        let project = |port: PortId| {
            let network = self.shooter.network_of(port)?;
            self.shooter.whole().project.get(&network).copied()
        };
        let strange = match shot.entry {
            Entry::Port(from) => project(from) != project(to),
            Entry::Uplink | Entry::Stray => shot.tunnel.is_none(),
        };
        match strange && is_inside(shot.ends.dst) {
            true => Err(self.meant(shot, format!("port {to} is another project's"))),
            false => Ok(()),
        }
    }

    /// And outside nobody hears of an address inside.
    fn is_public(&self, shot: &Shot, source: IpAddr) -> Checked<()> {
        match is_inside(source) {
            true => Err(self.meant(shot, format!("it left for outside as {source}"))),
            false => Ok(()),
        }
    }

    fn meant(&self, shot: &Shot, seen: String) -> Box<Disagreement> {
        Box::new(Disagreement {
            seed: self.seed,
            number: self.next_number,
            packet: format!(
                "in projects ({}): from {:?} {:?}",
                shot.kind, shot.entry, shot.ends
            ),
            expected: "whatever explanations say, projects are kept apart".to_owned(),
            seen,
        })
    }

    fn reached_by(&self, endpoint: IpAddr) -> Option<usize> {
        let mut sites = self.sites.iter();
        sites.position(|site| site.endpoint == Some(endpoint))
    }

    /// Whoever announces it, but the one from which it comes.
    fn announcing(&self, from: Option<usize>, to: IpAddr) -> Option<usize> {
        let length = |state: &HostState| {
            let announced = state.announce.keys().filter(|p| p.contains(to));
            announced.map(|prefix| prefix.len()).max()
        };
        let sites = self.sites.iter().enumerate();
        let others = sites.filter(|(n, _)| Some(*n) != from);
        let announcing = others.filter_map(|(n, site)| length(&site.state).map(|len| (len, n)));
        announcing.max().map(|(_, n)| n)
    }

    /// One host: gives what came out of it and by which link.
    fn visit(&mut self, visit: &Visit, kind: &str) -> Checked<Option<(IfName, Vec<Frame>)>> {
        let tracker = Tracker {
            connections: &mut self.connections,
            host: visit.host,
            tracing: Tracing::none(),
        };
        let expected = look::explain(&self.sites[visit.host], visit, tracker);
        let site = &mut self.sites[visit.host];
        for piece in &visit.pieces {
            let to = visit.to_mac.unwrap_or(site.config.gateway_mac);
            site.send_to(visit.entry, [visit.mac, to], piece);
        }
        let sent = visit.seen().parsed;
        let is_it = |frame: &[u8]| {
            let of = |p: &hextet_tests::packet::Parsed| (p.payload.protocol, p.icmp_type());
            let same = || unwrap(frame).is_some_and(|seen| of(&seen.parsed) == of(&sent));
            number(frame) == Some(visit.number) && same()
        };
        let frames = site.receive(expected.link.as_ref(), is_it);
        let (came, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|(_, f)| is_it(f));
        let late = others.iter().any(|(_, frame)| is_late(frame, visit.number));
        let out: Vec<&[u8]> = came.iter().map(|(_, frame)| frame.as_slice()).collect();
        let right = match &expected.link {
            None => came.is_empty(),
            Some(link) => {
                let all = came.len() <= visit.pieces.len() && came.iter().all(|(by, _)| by == link);
                all && expected.is(site, &out)
            }
        };
        if right && !late {
            self.met.passed(&expected, visit);
            let frames = came.into_iter().map(|(_, frame)| frame).collect();
            return Ok(expected.link.map(|link| (link, frames)));
        }
        Err(Box::new(
            self.disagreement(visit, kind, &expected, &came, late),
        ))
    }

    fn disagreement(
        &self,
        visit: &Visit,
        kind: &str,
        expected: &Expected,
        came: &[(IfName, Frame)],
        late: bool,
    ) -> Disagreement {
        let steps: Vec<String> = expected.steps.iter().map(ToString::to_string).collect();
        let seen = came.iter().map(|(by, frame)| {
            let seen = unwrap(frame);
            let seen = seen.map(|seen| {
                let tracing = look::tracing(&seen.parsed, false);
                (seen.tunnel, tracing.tuple, tracing.quote)
            });
            format!("by {by}, to {:02x?}, {seen:?}", &frame[..6])
        });
        let mut seen: Vec<String> = seen.collect();
        if late {
            seen.push("and something of an earlier packet".to_owned());
        }
        let sent = visit.seen();
        let sent = (
            visit.pieces.len(),
            sent.tunnel,
            look::tracing(&sent.parsed, visit.odd),
        );
        Disagreement {
            seed: self.seed,
            number: visit.number,
            packet: format!(
                "in projects ({kind}): host {} gets by {:?} from {} {sent:?}",
                visit.host, visit.entry, visit.mac
            ),
            expected: format!(
                "{}\n  {} in {}\n  as {:?}, quoting {:?}, by {:?} to {:?}",
                steps.join("\n  "),
                expected.journey.outcome,
                expected.journey.netns,
                expected.tracing.tuple,
                expected.tracing.quote,
                expected.tunnel,
                expected.mac,
            ),
            seen: seen.join("; "),
        }
    }

    fn back(&self, arrival: &Arrival, ends: Ends, body: Body) -> Shot {
        let (host, mac) = match arrival.entry {
            Entry::Port(port) => (Some(arrival.host), self.shooter.mac(port)),
            _ => (None, SPINE_MAC),
        };
        Shot {
            kind: "an answer or an error",
            host,
            entry: arrival.entry,
            mac,
            ends,
            body,
            odd: false,
            tunnel: None,
            fragmented: false,
            to_mac: None,
        }
    }

    /// What the one who got the packet answers.
    fn answer_to(&mut self, shot: &Shot, arrival: &Arrival) -> Option<Shot> {
        let body = answer_body(&shot.body, &arrival.seen)?;
        Some(self.back(arrival, arrival.seen.ends.back(), body))
    }

    /// An error from the one who got the packet, or from somebody on the way outside.
    fn error_about(&mut self, arrival: &Arrival) -> Shot {
        let seen = arrival.seen.ends;
        let router = arrival.entry == Entry::Uplink && self.shooter.flip(0.5);
        let src = match router {
            true => strangers(seen.family())[2],
            false => seen.dst,
        };
        let body = self.error_that_quotes(arrival);
        self.back(arrival, Ends::new(src, seen.src), body)
    }

    /// An error from the one who asked, about the answer.
    fn error_about_answer(&mut self, shot: &Shot, answered: &Arrival) -> Shot {
        Shot {
            kind: "an error about an answer",
            ends: answered.seen.ends.back(),
            body: self.error_that_quotes(answered),
            ..shot.clone()
        }
    }

    fn error_that_quotes(&mut self, arrival: &Arrival) -> Body {
        let kinds: &[(u8, u8)] = match arrival.seen.ends.family() {
            Family::V4 => &[(3, 3), (3, 4), (11, 0)],
            Family::V6 => &[(1, 4), (2, 0), (3, 0)],
        };
        let (kind, code) = kinds[self.shooter.rng.random_range(0..kinds.len())];
        let icmp = Icmp {
            kind,
            code,
            rest: [0, 0, 0x05, 0x00],
        };
        let quote = arrival.octets[..arrival.octets.len() - MARK_LEN].to_vec();
        Body::Icmp(icmp, quote)
    }

    /// An error from a port of that host that need not have to do with the connection.
    fn error_by_another(&mut self, arrival: &Arrival) -> Option<Shot> {
        let honest = self.error_about(arrival);
        let got = match arrival.entry {
            Entry::Port(port) => Some(port),
            _ => None,
        };
        let family = honest.ends.family();
        let another = self.shooter.another(arrival.host, got, family)?;
        let src = another.port.addresses(family).next()?;
        Some(Shot {
            kind: "an error by another",
            host: Some(another.host),
            entry: Entry::Port(another.port.id),
            mac: another.port.mac_address,
            ends: Ends::new(src, honest.ends.dst),
            ..honest
        })
    }

    /// Gives its hosts another state than they are explained by; `None` gives the right one back.
    pub fn impose(&mut self, states: Option<&[HostState]>) {
        for (n, site) in self.sites.iter_mut().enumerate() {
            let state = states.map_or_else(|| site.state.clone(), |states| states[n].clone());
            site.impose(&state);
        }
    }

    /// Random numbers that depend on the seed and on what has been sent.
    pub fn fork(&mut self) -> StdRng {
        StdRng::from_rng(&mut self.shooter.rng)
    }
}

/// Whether only those inside have that address, many of them at the same time.
fn is_inside(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The IP packet, or its fragments, as it comes.
fn pieces(shot: &Shot, number: u64) -> Vec<Vec<u8>> {
    let in_pieces = shot.body.pieces(shot.ends, number);
    if let Some(pieces) = in_pieces.filter(|_| shot.fragmented) {
        return pieces;
    }
    let packet = shot.body.packet(shot.ends, number);
    vec![match shot.tunnel {
        Some(tunnel) => tunnel.around(&packet),
        None => packet,
    }]
}

fn slices(frames: &[Frame]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

/// Something that an earlier packet has left behind, and that is no error about it nor an answer to it.
fn is_late(frame: &[u8], now: u64) -> bool {
    let icmp = |frame: &[u8]| {
        unwrap(frame).is_some_and(|seen| matches!(seen.parsed.payload.protocol, 1 | 58))
    };
    number(frame).is_some_and(|n| n != now) && !icmp(frame)
}

/// What the first sender sends next, once it was answered; an odd one is outside of the window.
fn next_of(first: &Shot, odd: bool) -> Shot {
    let mut next = first.clone();
    next.kind = "of a known connection";
    match &mut next.body {
        Body::Tcp(tcp) => {
            tcp.flags = Tcp::ACK;
            tcp.seq += 1 + MARK_LEN as u32;
            tcp.ack = 5001 + MARK_LEN as u32;
            next.odd = odd;
            if odd {
                tcp.seq = tcp.seq.wrapping_add(0x4000_0000);
            }
        }
        Body::Udp(..) | Body::Other(_) => {}
        Body::Icmp(icmp, _) => icmp.rest[3] += 1,
    }
    next
}
