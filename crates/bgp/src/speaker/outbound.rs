//! What peers are told: one view for each group of peers that are told the same, and for each peer
//! what of it has been said and what is still to be.
//!
//! A peer's queue holds each prefix at most once, and what is sent is the view at that moment: a slow
//! peer costs memory for the prefixes that wait, not for the changes they went through.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use hashbrown::HashMap;
use hextet_types::{Family, Prefix};

use super::{PathAttributes, Peer, SourceId, Speaker, Up};
use crate::{
    config::PeerConfig,
    packet::{
        Afi, Encoding, Message, NextHop, RefreshKind, RouteRefresh, encode_end_of_rib,
        encode_reach, encode_withdraw,
    },
    rib::{Advert, Bits, ByFamily, Exporter, NetId, Path, PeerKind, export::Audience},
};

/// Prefixes gathered before they are packed into messages.
const BATCH: usize = 4096;

/// Peers that are told the same, and what.
#[derive(Debug)]
pub(super) struct Group {
    exporter: Exporter,
    adverts: ByFamily<Vec<Option<Advert>>>,
    members: Vec<SourceId>,
}

impl Group {
    fn advert(&self, family: Family, net: NetId) -> Option<&Advert> {
        self.adverts.get(family).get(net as usize)?.as_ref()
    }

    /// Returns whether it was something else.
    fn set(&mut self, family: Family, net: NetId, advert: Option<Advert>) -> bool {
        let adverts = self.adverts.get_mut(family);
        let at = net as usize;
        if adverts.len() <= at {
            if advert.is_none() {
                return false;
            }
            adverts.resize(at + 1, None);
        }
        match adverts.get_mut(at) {
            Some(slot) if *slot != advert => {
                *slot = advert;
                true
            }
            _ => false,
        }
    }
}

/// What closes a round through the whole table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Marker {
    #[default]
    Nothing,
    EndOfRib,
    EndOfRefresh,
}

/// What a peer has been told in one family, and is yet to be.
#[derive(Debug, Default)]
pub(super) struct OutState {
    /// A round through the whole table is at this prefix.
    round: Option<NetId>,
    marker: Marker,
    sent: Bits,
    queued: Bits,
    queue: VecDeque<NetId>,
}

impl OutState {
    pub(super) fn advertised(&self) -> u64 {
        self.sent.count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether a change has to be put into the queue: the round has passed it, or it takes back what
    /// was said in an earlier round.
    fn is_concerned(&self, net: NetId, told: bool) -> bool {
        let passed = self.round.is_none_or(|at| net < at);
        self.sent.contains(net) || passed && told
    }
}

/// Prefixes to withdraw, and to announce by attributes, in the order in which they were found.
#[derive(Default)]
struct Batch {
    withdraw: Vec<Prefix>,
    reach: Vec<(Arc<PathAttributes>, Vec<Prefix>)>,
    places: HashMap<usize, usize>,
}

impl Batch {
    fn announce(&mut self, attributes: &Arc<PathAttributes>, prefix: Prefix) {
        // Interned: equal attributes are one allocation.
        let address = Arc::as_ptr(attributes).addr();
        let at = *self.places.entry(address).or_insert_with(|| {
            self.reach.push((Arc::clone(attributes), Vec::new()));
            self.reach.len() - 1
        });
        if let Some((_, prefixes)) = self.reach.get_mut(at) {
            prefixes.push(prefix);
        }
    }

    const fn is_empty(&self) -> bool {
        self.withdraw.is_empty() && self.reach.is_empty()
    }
}

impl Speaker {
    fn audience(&self, peer: &Peer, up: &Up) -> Audience {
        let config = &peer.session.settings.config;
        let negotiated = &up.negotiated;
        Audience {
            kind: if negotiated.internal {
                PeerKind::Internal {
                    client: config.reflector_client,
                }
            } else {
                PeerKind::External
            },
            policy: Arc::clone(&config.export),
            next_hop_self: config.next_hop_self,
            own_v4: own_next_hop(Family::V4, up, config),
            own_v6: own_next_hop(Family::V6, up, config),
            extended_next_hop: negotiated.extended_next_hop,
            long_lived: negotiated.long_lived.is_some(),
            families: negotiated.families,
        }
    }

    /// The peer is up: it is told everything, and then the End-of-RIB marker.
    pub(super) fn join_group(&mut self, id: SourceId) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let Some(up) = &peer.up else {
            return;
        };
        let families = up.negotiated.families;
        let audience = self.audience(peer, up);
        let same = |g: &Option<Group>| g.as_ref().is_some_and(|g| g.exporter.audience == audience);
        let at = match self.groups.iter().position(same) {
            Some(at) => at,
            None => self.add_group(audience),
        };
        if let Some(Some(group)) = self.groups.get_mut(at) {
            group.members.push(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.group = Some(at);
            for family in families.iter() {
                let out = peer.out.get_mut(family);
                out.round = Some(0);
                out.marker = Marker::EndOfRib;
            }
        }
    }

    fn add_group(&mut self, audience: Audience) -> usize {
        let exporter = Exporter::new(audience, self.config.asn, self.config.cluster());
        let mut group = Group {
            exporter,
            adverts: ByFamily::default(),
            members: Vec::new(),
        };
        let preferences = self.preferences();
        let sources = &self.sources;
        for family in Family::BOTH {
            let table = self.tables.get(family);
            for (net, prefix, paths) in table.iter() {
                // What is dirty comes to the group when it is selected.
                if table.is_dirty(net) {
                    continue;
                }
                let source = |id: SourceId| sources.get(id.index())?.as_ref();
                let selection = crate::rib::select(paths, source, preferences);
                let Some(best) = selection.best(paths) else {
                    continue;
                };
                if let Some(from) = source(best.source) {
                    let advert = group
                        .exporter
                        .export(prefix, best, from, &mut self.interner);
                    group.set(family, net, advert);
                }
            }
        }
        match self.groups.iter().position(Option::is_none) {
            Some(at) => {
                if let Some(slot) = self.groups.get_mut(at) {
                    *slot = Some(group);
                }
                at
            }
            None => {
                self.groups.push(Some(group));
                self.groups.len() - 1
            }
        }
    }

    /// What is known of a peer has changed: what was worked out from it does not hold.
    pub(super) fn forget_memos(&mut self) {
        self.forget_hop_memo();
        for group in self.groups.iter_mut().flatten() {
            group.exporter.forget();
        }
    }

    fn quit(&mut self, id: SourceId) {
        let Some(at) = self.peer_mut(id).and_then(|p| p.group.take()) else {
            return;
        };
        let Some(slot) = self.groups.get_mut(at) else {
            return;
        };
        if let Some(group) = slot {
            group.members.retain(|member| *member != id);
            if group.members.is_empty() {
                *slot = None;
            }
        }
    }

    /// The session is over: what was said and was to be said is forgotten.
    pub(super) fn leave_group(&mut self, id: SourceId) {
        self.quit(id);
        for family in Family::BOTH {
            let Some(peer) = self.peer_mut(id) else {
                return;
            };
            let out = std::mem::take(peer.out.get_mut(family));
            let table = self.tables.get_mut(family);
            out.queue.into_iter().for_each(|net| table.unqueue(net));
        }
    }

    /// What the peer may know has changed: it is told again, and what it may no longer know is
    /// withdrawn on the way.
    pub(super) fn regroup(&mut self, id: SourceId) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let Some(up) = &peer.up else {
            return;
        };
        let audience = self.audience(peer, up);
        let current = peer.group.and_then(|at| self.groups.get(at)?.as_ref());
        if current.is_some_and(|g| g.exporter.audience == audience) {
            return;
        }
        let markers = Family::BOTH.map(|f| peer.out.get(f).marker);
        self.quit(id);
        self.join_group(id);
        if let Some(peer) = self.peer_mut(id) {
            for (family, marker) in Family::BOTH.into_iter().zip(markers) {
                peer.out.get_mut(family).marker = marker;
            }
        }
    }

    /// The peer asked for all of a family again.
    pub(super) fn tell_again(&mut self, id: SourceId, family: Family, enhanced: bool) {
        if let Some(peer) = self.peer_mut(id) {
            let out = peer.out.get_mut(family);
            out.round = Some(0);
            if enhanced && out.marker == Marker::Nothing {
                out.marker = Marker::EndOfRefresh;
            }
        }
    }

    /// The best path of a prefix is another one, or there is none.
    pub(super) fn advertise(
        &mut self,
        family: Family,
        net: NetId,
        prefix: Prefix,
        best: Option<&Path>,
    ) {
        let source = best.and_then(|b| self.sources.get(b.source.index())?.as_ref());
        for group in self.groups.iter_mut().flatten() {
            let advert = match (best, source) {
                (Some(best), Some(source)) => {
                    group
                        .exporter
                        .export(prefix, best, source, &mut self.interner)
                }
                _ => None,
            };
            let from = advert.as_ref().map(|a| a.from);
            if !group.set(family, net, advert) {
                continue;
            }
            for member in &group.members {
                let peer = self.peers.get_mut(member.index()).and_then(Option::as_mut);
                let Some(peer) = peer else {
                    continue;
                };
                let out = peer.out.get_mut(family);
                let told = from.is_some_and(|from| from != *member);
                if out.is_concerned(net, told) && out.queued.insert(net) {
                    out.queue.push_back(net);
                    self.tables.get_mut(family).queue(net);
                }
            }
        }
    }

    /// What a peer has been told of a prefix.
    pub(super) fn said(
        &self,
        id: SourceId,
        peer: &Peer,
        family: Family,
        net: NetId,
    ) -> Option<&PathAttributes> {
        let group = self.groups.get(peer.group?)?.as_ref()?;
        let advert = group.advert(family, net).filter(|a| a.from != id)?;
        let told = peer.out.get(family).sent.contains(net);
        told.then_some(&advert.attributes)
    }

    pub(super) fn flush_all(&mut self) {
        if self.deferral.is_some() {
            return;
        }
        for id in self.ids() {
            let families = self
                .peer(id)
                .and_then(|p| p.up.as_ref())
                .map(|u| u.negotiated.families);
            for family in families.unwrap_or_default().iter() {
                while self.has_room(id) && self.flush(id, family) {}
            }
        }
    }

    fn has_room(&self, id: SourceId) -> bool {
        let connection = self.peer(id).and_then(|p| p.session.established());
        connection.is_some_and(|c| c.in_flight < self.config.write_limit)
    }

    /// Sends one batch; returns whether there may be more.
    fn flush(&mut self, id: SourceId, family: Family) -> bool {
        let batch = self.next_batch(id, family);
        let Some(encoding) = self
            .peer(id)
            .and_then(|p| p.up.as_ref())
            .map(|u| u.negotiated.encoding())
        else {
            return false;
        };
        let Some(mut batch) = batch else {
            return self.close_round(id, family);
        };
        let mut octets = Vec::new();
        self.encode(id, family, encoding, &mut batch, &mut octets);
        if !octets.is_empty() {
            self.drive(id, |s, step| s.send(octets, step));
        }
        true
    }

    fn encode(
        &mut self,
        id: SourceId,
        family: Family,
        encoding: Encoding,
        batch: &mut Batch,
        octets: &mut Vec<u8>,
    ) {
        let mut messages = Vec::new();
        for (attributes, prefixes) in &batch.reach {
            if encode_reach(&mut messages, encoding, family, attributes, prefixes).is_err() {
                self.cannot_be_said(id, family, prefixes, &mut batch.withdraw);
            }
        }
        encode_withdraw(octets, encoding, family, &batch.withdraw);
        octets.append(&mut messages);
    }

    /// Attributes that fit no message: the peer is told that it no longer has the route.
    fn cannot_be_said(
        &mut self,
        id: SourceId,
        family: Family,
        prefixes: &[Prefix],
        withdraw: &mut Vec<Prefix>,
    ) {
        for prefix in prefixes {
            let Some(net) = self.tables.get(family).find(*prefix) else {
                continue;
            };
            if let Some(peer) = self.peer_mut(id)
                && peer.out.get_mut(family).sent.remove(net)
            {
                withdraw.push(*prefix);
            }
        }
    }

    /// What the queue holds, then the next piece of the round; `None` when there is neither.
    fn next_batch(&mut self, id: SourceId, family: Family) -> Option<Batch> {
        let peer = self.peers.get_mut(id.index())?.as_mut()?;
        let group = self.groups.get(peer.group?)?.as_ref()?;
        let table = self.tables.get_mut(family);
        let out = peer.out.get_mut(family);
        let mut batch = Batch::default();
        let mut taken = 0;
        while taken < BATCH
            && let Some(net) = out.queue.pop_front()
        {
            taken += 1;
            out.queued.remove(net);
            if let Some(prefix) = table.prefix(net) {
                say(out, group.advert(family, net), id, net, prefix, &mut batch);
            }
            table.unqueue(net);
        }
        let end = table.end();
        while taken < BATCH
            && let Some(net) = out.round.filter(|net| *net < end)
        {
            out.round = Some(net + 1);
            let advert = group.advert(family, net);
            if let (true, Some(prefix)) = (
                advert.is_some() || out.sent.contains(net),
                table.prefix(net),
            ) {
                taken += 1;
                say(out, advert, id, net, prefix, &mut batch);
            }
        }
        (taken > 0 || !batch.is_empty()).then_some(batch)
    }

    /// The round is through and the queue is empty: says so. Returns whether something was sent.
    fn close_round(&mut self, id: SourceId, family: Family) -> bool {
        let pending = self.tables.get(family).has_dirty();
        let Some(out) = self.peer_mut(id).map(|p| p.out.get_mut(family)) else {
            return false;
        };
        if out.round.is_none() || pending {
            return false;
        }
        out.round = None;
        let mut octets = Vec::new();
        match std::mem::take(&mut out.marker) {
            Marker::Nothing => return false,
            Marker::EndOfRib => encode_end_of_rib(&mut octets, family),
            Marker::EndOfRefresh => {
                octets = Message::RouteRefresh(RouteRefresh {
                    family: Afi::unicast(family),
                    kind: Some(RefreshKind::End),
                })
                .encode();
            }
        }
        self.drive(id, |s, step| s.send(octets, step));
        true
    }
}

/// Puts a prefix into a batch as the peer is to hear of it.
fn say(
    out: &mut OutState,
    advert: Option<&Advert>,
    id: SourceId,
    net: NetId,
    prefix: Prefix,
    batch: &mut Batch,
) {
    match advert.filter(|a| a.from != id) {
        Some(advert) => {
            out.sent.insert(net);
            batch.announce(&advert.attributes, prefix);
        }
        None if out.sent.remove(net) => batch.withdraw.push(prefix),
        None => (),
    }
}

/// Our address as next hop towards a peer: what is configured, else the connection's.
fn own_next_hop(family: Family, up: &Up, config: &PeerConfig) -> Option<NextHop> {
    let (mut global, mut link_local) = (config.own.v6, config.own.link_local);
    let mut v4 = config.own.v4;
    match up.endpoint.local {
        IpAddr::V4(addr) => v4 = v4.or(Some(addr)),
        IpAddr::V6(addr) if addr.is_unicast_link_local() => {
            link_local = link_local.or(Some(addr));
        }
        IpAddr::V6(addr) => global = global.or(Some(addr)),
    }
    let v6 = match (global, link_local) {
        (Some(global), link_local) => Some(NextHop::V6 { global, link_local }),
        // RFC 2545 wants a global address; where there is none, everybody takes this.
        (None, Some(addr)) => Some(NextHop::V6 {
            global: addr,
            link_local: Some(addr),
        }),
        (None, None) => None,
    };
    match family {
        Family::V4 => v4
            .map(NextHop::V4)
            .or(v6.filter(|_| up.negotiated.extended_next_hop)),
        Family::V6 => v6,
    }
}
