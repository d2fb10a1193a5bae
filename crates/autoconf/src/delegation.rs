//! A requesting router (RFC 8415 §6.3): asks for prefixes by DHCPv6 on an uplink, and keeps them.
//!
//! A [`Requester`] takes frames and the time, and gives frames and the prefixes that it holds. Servers are hostile: it keeps so
//! many prefixes, believes only answers to what it asked, and asks at the RFC's pace whatever they say. What always holds: a
//! prefix that it tells is global or unique local, /64 or shorter, and has not run out; nothing is sent before the link has a
//! link-local address.

mod answer;
mod exchange;

use std::{net::Ipv6Addr, time::Duration};

use hextet_types::{Mac, Prefix, Time};

use self::{
    answer::{Answer, Outcome},
    exchange::{Exchange, Kind},
};
use crate::{
    dhcpv6::{
        ALL_SERVERS, Duid,
        message::{Message, Options, code},
    },
    frame::{self, Envelope},
    random::Random,
};

/// Prefixes that are held; further ones are not taken.
pub const MAX_PREFIXES: usize = 8;
/// Lengths of a prefix that is taken.
pub const LENGTHS: std::ops::RangeInclusive<u8> = 16..=64;

/// The identity association: there is one, of a client of its own.
const IAID: u32 = 1;
/// Asked for where nothing is held (RFC 8168 §3.1); servers give what they like.
const HINT: u8 = 56;
/// Before it asks at all (RFC 8415 §7.6: `SOL_MAX_DELAY`).
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// After a server has refused what it offered.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// RFC 8415 §7.6: `SOL_MAX_RT`, and §21.24: what servers may make of it.
const SOL_MAX_RT: Duration = Duration::from_secs(3_600);
const SOL_MAX_RTS: std::ops::RangeInclusive<u32> = 60..=86_400;
/// Nobody has to be asked more often.
const LEAST_T1: Duration = Duration::from_secs(1);
const TO_ALL_SERVERS: Mac = Mac::new([0x33, 0x33, 0, 1, 0, 2]);

/// A prefix that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The prefix.
    pub prefix: Prefix,
    /// From then on it is deprecated.
    pub preferred_until: Time,
    /// From then on it is not held any more.
    pub valid_until: Time,
}

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The link is there, with that link-local address.
    Up(Ipv6Addr),
    /// A frame came.
    Frame(&'a [u8]),
    /// [`Requester::next_wakeup`] has come.
    Timer,
    /// All is to be given back (RFC 8415 §18.2.7).
    Release,
}

/// To be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A frame to be sent.
    Send(Vec<u8>),
    /// These are held now, the preferred ones first.
    Tell(Vec<Held>),
    /// A server would give these prefixes; they are not asked for yet.
    Offered(Vec<Prefix>),
    /// Everything is given back.
    Released,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The link's Ethernet address.
    pub mac: Mac,
    /// Of its own: another client on this host has another.
    pub duid: Duid,
    /// Spreads its timers and numbers its transactions.
    pub seed: u64,
}

/// What it is at.
#[derive(Clone, Debug)]
enum Phase {
    /// The link is not there, or all has been given back.
    Idle,
    /// It waits for an answer.
    Asking(Exchange),
    /// It holds something.
    Bound,
}

/// The client of one link.
#[derive(Clone, Debug)]
pub struct Requester {
    client: Client,
    random: Random,
    link_local: Option<Ipv6Addr>,
    phase: Phase,
    held: Vec<Held>,
    told: Vec<Held>,
    /// When it looked last.
    looked: Time,
    /// When the server is asked again (T1), and when any (T2).
    renewal: (Time, Time),
    /// The server that gave it.
    server: Option<Vec<u8>>,
    longest_solicitation: Duration,
}

impl Requester {
    /// With prefixes of an earlier run, which are asked about first, and the DUID of the server that gave them.
    pub fn new(client: Client, held: Vec<Held>, server: Option<Vec<u8>>) -> Requester {
        let mut known: Vec<Held> = Vec::new();
        for held in held.into_iter().filter(|h| answer::is_usable(h.prefix)) {
            if known.len() < MAX_PREFIXES && known.iter().all(|k| k.prefix != held.prefix) {
                known.push(held);
            }
        }
        Requester {
            random: Random::new(client.seed),
            client,
            link_local: None,
            phase: Phase::Idle,
            told: known.clone(),
            held: known,
            looked: Time::ZERO,
            renewal: (Time::ZERO, Time::ZERO),
            server: server.filter(|duid| Duid::is_len(duid.len())),
            longest_solicitation: SOL_MAX_RT,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        self.looked = now;
        self.held.retain(|held| held.valid_until > now);
        match event {
            Event::Up(link_local) => self.rise(link_local, now),
            Event::Frame(octets) => actions.extend(self.hear(octets, now)),
            Event::Timer => {}
            Event::Release if self.held.is_empty() || self.server.is_none() => {
                self.held.clear();
                self.phase = Phase::Idle;
                actions.push(Action::Released);
            }
            Event::Release => self.start(Kind::Release, now),
        }
        actions.extend(self.go_on(now));
        actions.extend(self.tell(now));
        actions
    }

    /// The DUID of the server that gave what is held.
    pub fn server(&self) -> Option<&[u8]> {
        self.server.as_deref()
    }

    /// When something is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        let ends = self
            .held
            .iter()
            .flat_map(|h| [h.preferred_until, h.valid_until]);
        let ends = ends.filter(|at| *at > self.looked);
        let next = match &self.phase {
            Phase::Idle => None,
            // A Renew ends where a Rebind begins (RFC 8415 §18.2.4).
            Phase::Asking(exchange) if exchange.kind == Kind::Renew => {
                Some(exchange.next.min(self.renewal.1))
            }
            Phase::Asking(exchange) => Some(exchange.next),
            Phase::Bound => Some(self.renewal.0),
        };
        ends.chain(next).min()
    }

    /// RFC 8415 §18.2.12: what is held may be another link's.
    fn rise(&mut self, link_local: Ipv6Addr, now: Time) {
        self.link_local = Some(link_local);
        let kind = match self.held.is_empty() {
            true => Kind::Solicit,
            false => Kind::Confirm,
        };
        let delay = self.random.between(Duration::ZERO, LONGEST_DELAY);
        self.start(kind, now + delay);
    }

    fn start(&mut self, kind: Kind, at: Time) {
        self.phase = Phase::Asking(Exchange::new(kind, at, &mut self.random));
    }

    /// Does what is due; afterwards the next wake-up is later than now.
    fn go_on(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_due = self.renewal.0 <= now || self.held.is_empty();
        if matches!(self.phase, Phase::Bound) && is_due {
            let kind = if self.held.is_empty() {
                Kind::Solicit
            } else if self.server.is_none() || self.renewal.1 <= now {
                Kind::Rebind
            } else {
                Kind::Renew
            };
            self.start(kind, now);
        }
        let Phase::Asking(exchange) = &self.phase else {
            return actions;
        };
        match exchange.kind {
            Kind::Renew if self.renewal.1 <= now => self.start(Kind::Rebind, now),
            Kind::Rebind | Kind::Renew | Kind::Confirm if self.held.is_empty() => {
                self.start(Kind::Solicit, now);
            }
            Kind::Solicit if exchange.next <= now && exchange.offer.is_some() => {
                self.request(now);
            }
            _ if exchange.next <= now && exchange.is_over(now) => {
                actions.extend(self.give_up(exchange.kind, now));
            }
            _ => {}
        }
        actions.extend(self.send(now));
        actions
    }

    /// Nobody has answered.
    fn give_up(&mut self, kind: Kind, now: Time) -> Option<Action> {
        match kind {
            Kind::Release => {
                self.held.clear();
                self.phase = Phase::Idle;
                return Some(Action::Released);
            }
            // RFC 8415 §18.2.12: it goes on with what it has.
            Kind::Confirm => self.bind(now, (0, 0)),
            _ => self.start(Kind::Solicit, now),
        }
        None
    }

    fn send(&mut self, now: Time) -> Option<Action> {
        let Phase::Asking(exchange) = &mut self.phase else {
            return None;
        };
        if exchange.next > now {
            return None;
        }
        exchange.sent(now, self.longest_solicitation, &mut self.random);
        let message = Message {
            message_type: exchange.kind.message_type(),
            transaction_id: exchange.id,
            options: self.options(now)?,
        };
        let envelope = Envelope {
            source_mac: self.client.mac,
            destination_mac: TO_ALL_SERVERS,
            source: self.link_local?,
            destination: ALL_SERVERS,
        };
        envelope.dhcpv6_request(&message.encode()).map(Action::Send)
    }

    fn options(&self, now: Time) -> Option<Options> {
        let Phase::Asking(exchange) = &self.phase else {
            return None;
        };
        let mut options = Options::default();
        options.push(code::CLIENT_ID, self.client.duid.as_bytes());
        let offer = exchange.offer.as_ref();
        let server = match exchange.kind {
            Kind::Request => offer.map(|offer| &offer.server),
            Kind::Renew | Kind::Release => self.server.as_ref(),
            Kind::Solicit | Kind::Rebind | Kind::Confirm => None,
        };
        if let Some(server) = server {
            options.push(code::SERVER_ID, server);
        }
        options.push(code::ELAPSED_TIME, &exchange.elapsed(now).to_be_bytes());
        if exchange.kind != Kind::Release {
            options.push(code::OPTION_REQUEST, &code::SOL_MAX_RT.to_be_bytes());
        }
        let offered = || offer.map(|offer| offer.prefixes()).unwrap_or_default();
        let items = match exchange.kind {
            Kind::Solicit => Vec::new(),
            Kind::Request => offered(),
            _ => self.held.iter().map(|held| held.prefix).collect(),
        };
        let hint = (exchange.kind == Kind::Solicit).then_some(HINT);
        options.push(code::IA_PD, &answer::encode_ia(IAID, &items, hint));
        Some(options)
    }

    fn hear(&mut self, octets: &[u8], now: Time) -> Vec<Action> {
        let Phase::Asking(exchange) = &self.phase else {
            return Vec::new();
        };
        let answer = frame::dhcpv6_answer(octets).ok();
        let to_us = answer.filter(|(envelope, _)| Some(envelope.destination) == self.link_local);
        let answer = to_us.and_then(|(_, payload)| {
            Answer::decode(payload, (exchange.id, &self.client.duid, IAID))
        });
        let Some(answer) = answer else {
            return Vec::new();
        };
        if let Some(secs) = answer.sol_max_rt.filter(|s| SOL_MAX_RTS.contains(s)) {
            self.longest_solicitation = Duration::from_secs(secs.into());
        }
        match (exchange.kind, answer.is_advertise) {
            (Kind::Solicit, true) => self.consider(answer, now),
            (Kind::Solicit, false) | (_, true) => Vec::new(),
            (Kind::Release, false) => self.give_up(Kind::Release, now).into_iter().collect(),
            (_, false) => {
                self.take(answer, now);
                Vec::new()
            }
        }
    }

    /// RFC 8415 §18.2.9: the most preferred that comes in the first round, or the first one after it.
    fn consider(&mut self, answer: Answer, now: Time) -> Vec<Action> {
        let Phase::Asking(exchange) = &mut self.phase else {
            return Vec::new();
        };
        if !matches!(answer.outcome, Outcome::Success) || answer.prefixes().is_empty() {
            return Vec::new();
        }
        let is_best = exchange.offer.as_ref();
        if is_best.is_some_and(|best| best.preference >= answer.preference) {
            return Vec::new();
        }
        let is_decided = answer.preference == u8::MAX || exchange.is_repeated();
        let offered = answer.prefixes();
        exchange.offer = Some(answer);
        if is_decided {
            self.request(now);
        }
        vec![Action::Offered(offered)]
    }

    fn request(&mut self, now: Time) {
        let Phase::Asking(Exchange { offer, .. }) = &mut self.phase else {
            return;
        };
        let offer = offer.take();
        let mut exchange = Exchange::new(Kind::Request, now, &mut self.random);
        exchange.offer = offer;
        self.phase = Phase::Asking(exchange);
    }

    /// A Reply to a Request, Renew or Rebind (RFC 8415 §18.2.10.1).
    fn take(&mut self, answer: Answer, now: Time) {
        let Phase::Asking(exchange) = &self.phase else {
            return;
        };
        let kind = exchange.kind;
        let asked = match kind {
            Kind::Request => exchange.offer.as_ref().map(|offer| &offer.server),
            Kind::Renew => self.server.as_ref(),
            _ => None,
        };
        if asked.is_some_and(|asked| *asked != answer.server) {
            return;
        }
        match answer.outcome {
            Outcome::Failed => {}
            Outcome::NoBinding if kind != Kind::Request => {
                let mut exchange = Exchange::new(Kind::Request, now, &mut self.random);
                exchange.offer = Some(answer.asking_for(&self.held));
                self.phase = Phase::Asking(exchange);
            }
            Outcome::NoBinding | Outcome::NoPrefix if kind == Kind::Request => {
                self.start(Kind::Solicit, now + AFTER_REFUSAL);
            }
            Outcome::NoBinding | Outcome::NoPrefix => {}
            Outcome::Success if answer.leases.is_empty() && kind == Kind::Request => {
                self.start(Kind::Solicit, now + AFTER_REFUSAL);
            }
            Outcome::Success if answer.leases.is_empty() => {}
            Outcome::Success => self.hold(answer, now),
        }
    }

    fn hold(&mut self, answer: Answer, now: Time) {
        for lease in &answer.leases {
            self.held.retain(|held| held.prefix != lease.prefix);
            if lease.valid_lifetime_secs == 0 || self.held.len() >= MAX_PREFIXES {
                continue;
            }
            let until = |secs: u32| now + Duration::from_secs(secs.into());
            self.held.push(Held {
                prefix: lease.prefix,
                preferred_until: until(lease.preferred_lifetime_secs),
                valid_until: until(lease.valid_lifetime_secs),
            });
        }
        self.server = Some(answer.server);
        match self.held.is_empty() {
            true => self.start(Kind::Solicit, now + AFTER_REFUSAL),
            false => self.bind(now, answer.times),
        }
    }

    /// T1 and T2 in seconds; 0 leaves it to the client (RFC 8415 §21.21).
    fn bind(&mut self, now: Time, (t1, t2): (u32, u32)) {
        let left = |held: &Held| match held.preferred_until.saturating_since(now) {
            Duration::ZERO => held.valid_until.saturating_since(now),
            preferred => preferred,
        };
        let shortest = self.held.iter().map(left).min().unwrap_or_default();
        let or = |secs: u32, otherwise: Duration| match secs {
            0 => otherwise,
            secs => Duration::from_secs(secs.into()),
        };
        let t1 = or(t1, shortest / 2).max(LEAST_T1);
        let t2 = or(t2, shortest / 5 * 4).max(t1);
        self.renewal = (now + t1, now + t2);
        self.phase = Phase::Bound;
    }

    fn tell(&mut self, now: Time) -> Option<Action> {
        let mut held = self.held.clone();
        let is_deprecated = |held: &Held| held.preferred_until <= now;
        held.sort_by_key(|h| {
            (
                is_deprecated(h),
                std::cmp::Reverse(h.preferred_until),
                h.prefix,
            )
        });
        if held == self.told {
            return None;
        }
        self.told.clone_from(&held);
        Some(Action::Tell(held))
    }
}

#[cfg(test)]
mod tests;
