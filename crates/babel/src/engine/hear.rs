//! What neighbours say.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use hextet_types::Time;

use super::{Due, Engine, Refusal};
use crate::{
    GROUP,
    config::LinkId,
    neighbour::{Neighbour, Peer},
    number::{Interval, Metric, Seqno},
    packet::{Echo, Frame, Tlv, decode},
    table::overdue,
};

/// Who promises no Hellos has so long to say that it hears us.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A Hello, as far as a round trip's time needs it.
type Answered = Option<u32>;

impl Engine {
    pub(super) fn datagram(
        &mut self,
        link: LinkId,
        (from, to): (Ipv6Addr, Ipv6Addr),
        octets: &[u8],
        now: Time,
    ) {
        let Some(running) = self.links.get(&link) else {
            self.refuse(Refusal::NoLink(link));
            return;
        };
        let own = running.link.addr;
        if from == own {
            return;
        }
        if !from.is_unicast_link_local() || (to != own && to != GROUP) {
            self.refuse(Refusal::Stranger { link, from });
            return;
        }
        let peer = Peer { link, addr: from };
        let frame = match Frame::of(octets) {
            Ok(frame) => frame,
            Err(error) => {
                let why = error.to_string();
                self.refuse(Refusal::Malformed { peer, why });
                return;
            }
        };
        if !self.is_signed(peer, to, octets) {
            return;
        }
        let said = decode(frame.body, IpAddr::V6(from));
        if !self.is_fresh(peer, to, &said.tlvs, now) {
            return;
        }
        if said.ignored > 0 {
            let why = format!("{} TLVs are unknown or malformed", said.ignored);
            self.refuse(Refusal::Malformed { peer, why });
        }
        self.heard_on(link, now);
        self.found_again(peer, now);
        self.hear(peer, &said.tlvs, now);
    }

    fn hear(&mut self, peer: Peer, tlvs: &[Tlv], now: Time) {
        // A stamp counts for the whole packet, wherever in it the Hello stands (RFC 9616 §3.3).
        let answered = tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Hello { timestamp, .. } => *timestamp,
            _ => None,
        });
        for tlv in tlvs {
            if matches!(tlv, Tlv::Hello { .. }) && !self.is_admitted(peer, now) {
                return;
            }
            // Nobody is a neighbour before the first Hello; what comes before is of no use, and nobody waits for an answer.
            if self.neighbours.contains_key(&peer) {
                self.take(peer, tlv, answered, now);
            }
        }
    }

    fn is_admitted(&mut self, peer: Peer, now: Time) -> bool {
        if self.neighbours.contains_key(&peer) {
            return true;
        }
        if self.peers_on(peer.link).len() >= self.config.neighbours {
            self.refuse(Refusal::Neighbour(peer));
            return false;
        }
        self.neighbours.insert(peer, Neighbour::default());
        self.timers.set(Due::HeardUs(peer), now + PATIENCE);
        self.greet(peer.link, now);
        true
    }

    fn take(&mut self, peer: Peer, tlv: &Tlv, answered: Answered, now: Time) {
        match tlv {
            Tlv::Hello {
                unicast,
                seqno,
                interval,
                timestamp,
            } => self.hello(peer, *unicast, (*seqno, *interval), *timestamp, now),
            Tlv::Ihu {
                to,
                rxcost,
                interval,
                echo,
            } => {
                let own = self.links.get(&peer.link).map(|running| running.link.addr);
                let is_ours = to.is_none() || *to == own.map(IpAddr::V6);
                if is_ours {
                    self.ihu(peer, (*rxcost, *interval), echo.zip(answered), now);
                }
            }
            Tlv::AckRequest { opaque, start, .. } => {
                self.say(peer, Tlv::Ack { opaque: *opaque }, now);
                self.promised(peer, *start, now);
            }
            Tlv::Ack { opaque } => self.confirmed(peer, *opaque, now),
            Tlv::Update(update) => self.update(peer, *update, now),
            Tlv::RouteRequest(to) => self.asked_for_route(peer, *to, now),
            Tlv::SeqnoRequest {
                to,
                seqno,
                hop_count,
                router_id,
            } => self.asked_for_seqno(peer, (*to, *router_id), *seqno, *hop_count, now),
            Tlv::PacketCounter { .. } | Tlv::ChallengeRequest(_) | Tlv::ChallengeReply(_) => {}
        }
    }

    fn hello(
        &mut self,
        peer: Peer,
        unicast: bool,
        promised: (Seqno, Interval),
        timestamp: Option<u32>,
        now: Time,
    ) {
        let stamps = timestamp.map(|sent| (sent, stamp(now)));
        let mut is_new = false;
        self.on_hellos(peer, now, |neighbour| {
            is_new = neighbour.hear(unicast, promised, stamps, now);
        });
        let lasts = self.neighbours.get(&peer).is_some_and(|n| n.is_stale());
        if is_new && lasts {
            self.begins_anew(peer, now);
        } else if lasts {
            self.hears_stale(peer, now);
        } else if is_new {
            self.neighbour_gone(peer, now);
            if self.is_admitted(peer, now) {
                self.hello(peer, unicast, promised, timestamp, now);
            }
        }
    }

    fn ihu(
        &mut self,
        peer: Peer,
        (rxcost, interval): (Metric, Interval),
        stamps: Option<(Echo, u32)>,
        now: Time,
    ) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.heard_us(rxcost);
            if let Some((echo, answered)) = stamps {
                neighbour.take_echo(echo, answered, stamp(now), now);
            }
        }
        self.timers.set(Due::HeardUs(peer), overdue(interval, now));
        self.weigh(peer, now);
    }

    /// A Hello came, or did not. Whether it can be heard is what a neighbour waits for, so it learns of that at once.
    fn on_hellos(&mut self, peer: Peer, now: Time, work: impl FnOnce(&mut Neighbour)) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        let before = neighbour.is_heard();
        work(neighbour);
        let has_changed = neighbour.is_heard() != before;
        let (deadline, is_silent) = (neighbour.deadline(), neighbour.is_silent());
        if has_changed {
            self.hello_soon(peer.link, now);
        }
        match deadline {
            Some(at) => self.timers.set(Due::Heard(peer), at),
            None => self.timers.cancel(Due::Heard(peer)),
        }
        self.weigh(peer, now);
        match (is_silent, self.is_stale(peer)) {
            (true, true) => self.is_silent_again(peer, now),
            (true, false) => self.neighbour_gone(peer, now),
            _ => {}
        }
    }

    pub(super) fn miss(&mut self, peer: Peer, now: Time) {
        self.on_hellos(peer, now, |neighbour| neighbour.miss(now));
    }

    pub(super) fn forget_us(&mut self, peer: Peer, now: Time) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        neighbour.forget_us();
        let promises_nothing = neighbour.deadline().is_none();
        self.weigh(peer, now);
        if promises_nothing && !self.is_stale(peer) {
            self.neighbour_gone(peer, now);
        }
    }
}

/// A clock's reading as packets have it: microseconds modulo 2^32 (RFC 9616 §3).
pub fn stamp(now: Time) -> u32 {
    let micros = (now.as_nanos() / 1_000) & u64::from(u32::MAX);
    u32::try_from(micros).unwrap_or(0)
}
