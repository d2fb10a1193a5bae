//! Sends packets through a world and compares, at each host, what comes out with what an explanation says.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use hextet_model::{
    explain::{Machine, Outcome, Packet, Step},
    state::{CtState, HostState},
};
use hextet_tests::{
    hypervisor::{SPINE_MAC, UPLINK, in_own_namespace},
    packet::{Ends, Icmp, Parsed, Tcp, parse},
    site::{Drops, Entry, Site, drop_name, link},
    wire::Frame,
};
use hextet_types::{Family, IfName, Mac, Prefix};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    coverage::Coverage,
    make::{self, strangers},
    shot::{self, Body, MARK_LEN, Shooter, Shot},
};

/// Hosts that a packet may pass before it counts as caught in a loop.
pub const MAX_HOSTS: usize = 4;

/// A cloud whose hosts stand.
pub struct World {
    seed: u64,
    shooter: Shooter,
    /// Its hosts.
    pub sites: Vec<Site>,
    /// What rules must have dropped since the batch began, for each host.
    drops: Vec<Drops>,
    next_number: u64,
    /// What has been seen so far.
    pub coverage: Coverage,
}

/// The kernel did something else than the explanation says.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// Of the world.
    pub seed: u64,
    /// The packet's number in it.
    pub number: u64,
    /// What came by which link to which host.
    pub packet: String,
    /// What should have become of it.
    pub expected: String,
    /// What came out.
    pub seen: String,
}

/// A packet that comes to a host.
struct Visit {
    host: usize,
    entry: Entry,
    mac: Mac,
    octets: Vec<u8>,
    explained: Packet,
    number: u64,
}

/// A packet that came where it was to go.
struct Arrival {
    host: usize,
    /// By which answers come back.
    entry: Entry,
    seen: Parsed,
    octets: Vec<u8>,
    shot: Shot,
    /// The hosts that it passed.
    passed: BTreeSet<usize>,
}

/// What holds, or the disagreement.
pub type Checked<T> = Result<T, Box<Disagreement>>;

/// Makes the world of that seed and sends so many packets through it.
pub fn world(seed: u64, packets: usize) -> (Coverage, Option<Disagreement>) {
    in_own_namespace(|| {
        let mut world = World::new(seed);
        let found = world.batch(packets).err();
        (world.coverage, found.map(|found| *found))
    })
}

impl World {
    /// The world of that seed, in namespaces that end with the calling thread.
    pub fn new(seed: u64) -> World {
        let setting = make::setting(seed);
        let sites: Vec<Site> = setting.hosts.iter().map(Site::new).collect();
        let mut coverage = Coverage::default();
        sites.iter().for_each(|site| coverage.plan(&site.state));
        World {
            seed,
            shooter: Shooter::new(&setting, seed),
            drops: vec![Drops::new(); sites.len()],
            sites,
            next_number: 0,
            coverage,
        }
    }

    /// So many packets, with what follows from those that arrive.
    ///
    /// # Errors
    ///
    /// The first disagreement.
    pub fn batch(&mut self, packets: usize) -> Checked<()> {
        self.drops.iter_mut().for_each(Drops::clear);
        let before: Vec<Drops> = self.sites.iter().map(Site::drops).collect();
        for _ in 0..packets {
            let shot = self.shooter.shot();
            self.exchange(shot)?;
        }
        (0..self.sites.len()).try_for_each(|host| self.check_drops(host, &before[host]))
    }

    /// What was dropped was dropped for the reason that was given. The kernel's own packets may be
    /// dropped, too, so the rules may have counted more.
    fn check_drops(&self, host: usize, before: &Drops) -> Checked<()> {
        let after = self.sites[host].drops();
        let count = |drops: &Drops, name| drops.get(name).copied().unwrap_or_default();
        for (name, expected) in &self.drops[host] {
            let seen = count(&after, name) - count(before, name);
            if seen < *expected {
                return Err(Box::new(Disagreement {
                    seed: self.seed,
                    number: self.next_number,
                    packet: format!("host {host} got all packets of a batch"),
                    expected: format!("{name}: {expected} drops"),
                    seen: format!("{seen} drops"),
                }));
            }
        }
        Ok(())
    }

    /// A packet, and answers or errors about it.
    fn exchange(&mut self, shot: Shot) -> Checked<()> {
        let new = shot.state == CtState::New;
        let to_itself = shot.ends.src == shot.ends.dst;
        let Some(arrival) = self.carry(shot)?.filter(|_| new && !to_itself) else {
            return Ok(());
        };
        if self.shooter.flip(0.15) {
            let error = self.error_about(&arrival);
            self.carry(error)?;
        }
        if self.shooter.flip(0.08)
            && let Some(error) = self.error_by_another(&arrival)
        {
            self.carry(error)?;
        }
        if !self.shooter.flip(0.5) {
            return Ok(());
        }
        let Some(answer) = self.answer_to(&arrival) else {
            return Ok(());
        };
        let asked = &arrival.shot;
        // The answer to a borrowed address goes to its owner, past hosts that know of the flow.
        let came_back = |a: &Arrival| (a.host, a.entry) == (asked.host, asked.entry);
        let Some(answered) = self.carry(answer)?.filter(came_back) else {
            return Ok(());
        };
        if self.shooter.flip(0.15) {
            let error = self.error_about_answer(&arrival, &answered);
            self.carry(error)?;
        }
        let odd = self.shooter.flip(0.3);
        self.carry(next_of(&arrival.shot, odd)).map(|_| ())
    }

    /// From host to host, as long as it leaves for one that announces where it goes.
    fn carry(&mut self, shot: Shot) -> Checked<Option<Arrival>> {
        self.next_number += 1;
        self.coverage.packets += 1;
        let mut visit = Visit {
            host: shot.host,
            entry: shot.entry,
            mac: shot.mac,
            octets: shot.packet(self.next_number),
            explained: shot.explained(),
            number: self.next_number,
        };
        let mut passed = BTreeSet::new();
        for _ in 0..MAX_HOSTS {
            passed.insert(visit.host);
            let Some((by, frame)) = self.visit(&visit)? else {
                return Ok(None);
            };
            let seen = parse(&frame).expect("it was recognised");
            let octets = frame[14..].to_vec();
            let arrival = |entry, seen, octets| Arrival {
                host: visit.host,
                entry,
                seen,
                octets,
                shot: shot.clone(),
                passed: passed.clone(),
            };
            if let Some(port) = self.sites[visit.host].port_of(&by) {
                self.coverage.delivered += 1;
                return Ok(Some(arrival(Entry::Port(port), seen, octets)));
            }
            let Some(next) = self.next_host(visit.host, seen.ends.dst) else {
                self.coverage.left += 1;
                let turned = visit.entry == Entry::Uplink;
                let arrived = (!turned).then(|| arrival(Entry::Uplink, seen, octets));
                return Ok(arrived);
            };
            visit = onwards(visit, next, seen.ends, octets);
            visit.explained.connection = shot.state_at(next);
        }
        Ok(None)
    }

    /// Whoever announces it, but the one from which it comes.
    fn next_host(&self, from: usize, to: IpAddr) -> Option<usize> {
        let length = |state: &HostState| {
            let announced = state.announce.keys().filter(|p: &&Prefix| p.contains(to));
            announced.map(|prefix| prefix.len()).max()
        };
        let sites = self.sites.iter().enumerate();
        let others = sites.filter(|(n, _)| *n != from);
        let announcing = others.filter_map(|(n, site)| length(&site.state).map(|len| (len, n)));
        announcing.max().map(|(_, n)| n)
    }

    /// One host: gives what came out of it and by which link.
    fn visit(&mut self, visit: &Visit) -> Checked<Option<(IfName, Frame)>> {
        let site = &mut self.sites[visit.host];
        let mut steps = Vec::new();
        let outcome =
            Machine::new(&site.state, &site.config).send(&visit.explained, Some(&mut steps));
        let counted = self.coverage.count(&site.state, &outcome, &steps);
        if let Some((chain, comment)) = counted.filter(|_| reaches_rules(&visit.explained)) {
            let name = drop_name(&chain, &comment);
            *self.drops[visit.host].entry(name).or_default() += 1;
        }
        site.send(visit.entry, visit.mac, &visit.octets);
        let sent = parse_packet(&visit.octets);
        let is_it = |frame: &[u8]| {
            let same = |p: Parsed| {
                let of = |p: &Parsed| (p.payload.protocol, p.icmp_type());
                sent.as_ref().is_some_and(|sent| of(sent) == of(&p))
            };
            shot::number(frame) == Some(visit.number) && parse(frame).is_some_and(same)
        };
        let expected = match &outcome {
            Outcome::Delivered { link } => Some(link.clone()),
            Outcome::Leaves { .. } => UPLINK.parse().ok(),
            _ => None,
        };
        let frames = site.receive(expected.as_ref(), is_it);
        let (came, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|(_, f)| is_it(f));
        let late = others.iter().any(|(_, frame)| is_late(frame, visit.number));
        let right = match (&expected, came.as_slice()) {
            (None, []) => true,
            (Some(link), [(by, frame)]) => link == by && self.is_right(visit, &outcome, by, frame),
            _ => false,
        };
        if right && !late {
            return Ok(came.into_iter().next());
        }
        Err(Box::new(
            self.disagreement(visit, &outcome, &steps, &came, late),
        ))
    }

    /// Whether the addresses of what came out are what they should be.
    fn is_right(&self, visit: &Visit, outcome: &Outcome, by: &IfName, frame: &[u8]) -> bool {
        let Some(seen) = parse(frame) else {
            return false;
        };
        let explained = &visit.explained;
        let to_mac = match self.sites[visit.host].port_of(by) {
            Some(port) => self.shooter.mac(port),
            None => SPINE_MAC,
        };
        let source = match outcome {
            Outcome::Leaves {
                translated: Some(range),
                ..
            } => range.first <= seen.ends.src && seen.ends.src <= range.last,
            // What was translated before stays so.
            Outcome::Leaves { .. } if explained.connection != CtState::New => true,
            _ => seen.ends.src == explained.source,
        };
        let whole = seen.checksum_is_right() || !matches!(seen.payload.protocol, 1 | 6 | 17 | 58);
        source && whole && seen.ends.dst == explained.destination && frame[..6] == to_mac.octets()
    }

    fn disagreement(
        &self,
        visit: &Visit,
        outcome: &Outcome,
        steps: &[Step],
        came: &[(IfName, Frame)],
        late: bool,
    ) -> Disagreement {
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        let seen = came.iter().map(|(by, frame)| {
            let ends = parse(frame).map(|p| p.ends);
            format!("by {by}, to {:02x?}, {ends:?}", &frame[..6])
        });
        let mut seen: Vec<String> = seen.collect();
        if late {
            seen.push("and something of an earlier packet".to_owned());
        }
        Disagreement {
            seed: self.seed,
            number: visit.number,
            packet: format!("host {} gets {:?}", visit.host, visit.explained),
            expected: format!("{}\n  {outcome}", steps.join("\n  ")),
            seen: seen.join("; "),
        }
    }

    /// What the one who got the packet answers.
    fn answer_to(&mut self, arrival: &Arrival) -> Option<Shot> {
        let body = answer_body(&arrival.shot.body, &arrival.seen)?;
        let ends = arrival.seen.ends.back();
        let undone = Ends::new(ends.src, arrival.shot.ends.src);
        let undone = (undone, undo_ports(&body, &arrival.shot.body));
        Some(self.back(arrival, ends, body, undone, CtState::Established))
    }

    fn back(
        &mut self,
        arrival: &Arrival,
        ends: Ends,
        body: Body,
        undone: (Ends, Body),
        state: CtState,
    ) -> Shot {
        let mac = match arrival.entry {
            Entry::Port(port) => self.shooter.mac(port),
            _ => SPINE_MAC,
        };
        Shot {
            host: arrival.host,
            entry: arrival.entry,
            mac,
            ends,
            body,
            state,
            known_at: arrival.passed.clone(),
            undone: Some(undone),
            flow: None,
            quoted: None,
        }
    }

    /// An error from the one who got the packet, or from somebody on the way outside.
    fn error_about(&mut self, arrival: &Arrival) -> Shot {
        let seen = arrival.seen.ends;
        let family = seen.family();
        let router = arrival.entry == Entry::Uplink && self.shooter.flip(0.5);
        let src = match router {
            true => strangers(family)[2],
            false => seen.dst,
        };
        let body = self.error_that_quotes(arrival);
        let undone = (Ends::new(src, arrival.shot.ends.src), body.clone());
        self.back(
            arrival,
            Ends::new(src, seen.src),
            body,
            undone,
            CtState::Related,
        )
    }

    /// An error from the one who asked, about the answer.
    fn error_about_answer(&mut self, asked: &Arrival, answered: &Arrival) -> Shot {
        let ends = Ends::new(asked.shot.ends.src, answered.seen.ends.src);
        Shot {
            ends,
            body: self.error_that_quotes(answered),
            state: CtState::Related,
            known_at: asked.passed.clone(),
            undone: None,
            ..asked.shot.clone()
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
        let (port, src) = self.shooter.another(arrival.host, got, family)?;
        let from = |ends: Ends| Ends::new(src, ends.dst);
        let asked = arrival.shot.ends;
        Some(Shot {
            entry: Entry::Port(port),
            mac: self.shooter.mac(port),
            ends: from(honest.ends),
            undone: honest.undone.map(|(ends, body)| (from(ends), body)),
            flow: Some([asked.src, asked.dst]),
            quoted: Some([arrival.seen.ends.src, arrival.seen.ends.dst]),
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

/// Some packets Linux drops by itself before any rule of ours sees them: to a group that the host has not
/// joined, and those that would take a link-local source off its link.
fn reaches_rules(packet: &Packet) -> bool {
    let stays = matches!(packet.source, IpAddr::V6(source) if source.is_unicast_link_local());
    !stays && !packet.destination.is_multicast()
}

/// The same packet at the next host.
fn onwards(visit: Visit, next: usize, ends: Ends, octets: Vec<u8>) -> Visit {
    let explained = Packet {
        link: Some(link(Entry::Uplink)),
        mac: Some(SPINE_MAC),
        source: ends.src,
        destination: ends.dst,
        ..visit.explained
    };
    Visit {
        host: next,
        entry: Entry::Uplink,
        mac: SPINE_MAC,
        octets,
        explained,
        number: visit.number,
    }
}

fn parse_packet(octets: &[u8]) -> Option<Parsed> {
    let addresses = hextet_tests::packet::Ether {
        src: SPINE_MAC,
        dst: SPINE_MAC,
    };
    parse(&hextet_tests::packet::ether_ip(addresses, octets))
}

/// Something that an earlier packet has left behind, and that is no error about it nor an answer to it.
fn is_late(frame: &[u8], number: u64) -> bool {
    let icmp = |p: Parsed| matches!(p.payload.protocol, 1 | 58);
    shot::number(frame).is_some_and(|n| n != number) && !parse(frame).is_some_and(icmp)
}

/// What answers a packet that came as this.
pub fn answer_body(asked: &Body, seen: &Parsed) -> Option<Body> {
    let (sport, dport) = seen.ports.unwrap_or_default();
    match asked {
        Body::Tcp(tcp) => Some(Body::Tcp(Tcp {
            sport: dport,
            dport: sport,
            seq: 5000,
            ack: tcp.seq + 1 + MARK_LEN as u32,
            flags: Tcp::SYN | Tcp::ACK,
        })),
        Body::Udp(..) => Some(Body::Udp(dport, sport)),
        Body::Icmp(icmp, _) => {
            let kind = match icmp.kind {
                8 => 0,
                128 => 129,
                _ => return None,
            };
            let rest = seen.payload.octets.get(4..8)?.try_into().ok()?;
            let icmp = Icmp {
                kind,
                code: 0,
                rest,
            };
            Some(Body::Icmp(icmp, Vec::new()))
        }
        Body::Other(protocol) => Some(Body::Other(*protocol)),
    }
}

/// An answer goes to the port that asked, whatever a translator made of it.
fn undo_ports(answer: &Body, asked: &Body) -> Body {
    match (answer, asked) {
        (Body::Tcp(tcp), Body::Tcp(first)) => Body::Tcp(Tcp {
            dport: first.sport,
            ..*tcp
        }),
        (Body::Udp(source, _), Body::Udp(first, _)) => Body::Udp(*source, *first),
        _ => answer.clone(),
    }
}

/// What the first sender sends next, once it was answered; an odd one is outside of the window.
fn next_of(first: &Shot, odd: bool) -> Shot {
    let mut next = first.clone();
    next.state = CtState::Established;
    match &mut next.body {
        Body::Tcp(tcp) => {
            tcp.flags = Tcp::ACK;
            tcp.seq += 1 + MARK_LEN as u32;
            tcp.ack = 5001 + MARK_LEN as u32;
            if odd {
                tcp.seq = tcp.seq.wrapping_add(0x4000_0000);
                next.state = CtState::Invalid;
            }
        }
        Body::Udp(..) | Body::Other(_) => {}
        Body::Icmp(icmp, _) => icmp.rest[3] += 1,
    }
    next
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, packet {}: {}",
            self.seed, self.number, self.packet
        )?;
        writeln!(f, "explained:\n  {}", self.expected)?;
        match self.seen.is_empty() {
            true => f.write_str("seen: nothing"),
            false => write!(f, "seen: {}", self.seen),
        }
    }
}
