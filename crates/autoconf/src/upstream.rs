//! What the routers on an uplink say to hosts (RFC 4861 §6.3.4, RFC 4191, RFC 8106, RFC 8781, RFC 9762), put together.
//!
//! A [`Listener`] takes frames and the time, and gives frames (solicitations) and what is said by now. Frames are hostile: it
//! keeps so many routers and so much of each, and believes only who is on the link (hop limit 255, RFC 4861 §6.1.2). What
//! always holds: what it tells is what a host that heard the same would go by; nothing that has run out is in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hextet_types::{Mac, Prefix, Time};
use serde::{Deserialize, Serialize};

use crate::{
    domain::DomainName,
    frame::{self, Envelope},
    nd::{NdOption, NeighbourAdvertisement, Preference, PrefixInformation, RouterSolicitation},
    ra::{RouterAdvertisement, subject_of},
};

/// Routers that are kept; others are not listened to.
pub const MAX_ROUTERS: usize = 16;
/// Options of one router that are kept.
pub const MAX_OPTIONS: usize = 64;
/// After the first solicitation, and twice as long after each other (RFC 7559 §2).
const FIRST_WAIT: Duration = Duration::from_secs(4);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const TO_ALL_NODES: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
const TO_ALL_ROUTERS: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 2]);

/// What routers on a link say in sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Default routers, by their link-local addresses, the best first.
    pub routers: Vec<Ipv6Addr>,
    /// That of the best.
    pub preference: Preference,
    /// M of the best: addresses by DHCPv6.
    pub managed: bool,
    /// O of the best: other configuration by DHCPv6.
    pub other: bool,
    /// The least that anybody says, in octets.
    pub mtu: Option<u32>,
    /// By prefix, each as it was said last.
    pub prefixes: Vec<OnLink>,
    /// In the order of the routers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Likewise.
    pub dns_search: Vec<DomainName>,
    /// The prefix of the NAT64 translator.
    pub pref64: Option<Prefix>,
}

/// A prefix of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnLink {
    /// The prefix.
    pub prefix: Prefix,
    /// L: its addresses are reached without a router.
    pub on_link: bool,
    /// A: for addresses by SLAAC.
    pub autonomous: bool,
    /// P: better ask for a prefix of your own.
    pub prefer_delegation: bool,
    /// Seconds, as they were said.
    pub valid_lifetime_secs: u32,
    /// Seconds, as they were said; 0 takes it back.
    pub preferred_lifetime_secs: u32,
}

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The link is there; its own link-local address, if it has one.
    Up(Option<Ipv6Addr>),
    /// A frame came.
    Frame(&'a [u8]),
    /// [`Listener::next_wakeup`] has come.
    Timer,
}

/// To be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A frame to be sent.
    Send(Vec<u8>),
    /// Routers say something else now.
    Tell(Upstream),
}

#[derive(Clone, Debug)]
struct Router {
    preference: Preference,
    managed: bool,
    other: bool,
    /// As a default router.
    until: Option<Time>,
    /// What it said, by what it is about, and until when it counts.
    options: BTreeMap<NdOption, (NdOption, Option<Time>)>,
}

/// What is heard on one link.
#[derive(Clone, Debug)]
pub struct Listener {
    mac: Mac,
    link_local: Option<Ipv6Addr>,
    routers: BTreeMap<Ipv6Addr, Router>,
    told: Upstream,
    /// When the next solicitation is due, and how long it is waited after that.
    solicit: Option<(Time, Duration)>,
}

impl Listener {
    /// On a link with that Ethernet address, of which this was known.
    pub fn new(mac: Mac, told: Upstream) -> Listener {
        Listener {
            mac,
            link_local: None,
            routers: BTreeMap::new(),
            told,
            solicit: None,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Up(link_local) => {
                self.link_local = link_local;
                self.solicit = Some((now, FIRST_WAIT));
            }
            Event::Frame(octets) => {
                if let Some((from, said)) = advertisement(octets) {
                    self.hear(from, said, now);
                    self.solicit = None;
                    self.expire(now);
                    actions.extend(self.tell());
                }
            }
            Event::Timer => {
                self.expire(now);
                // Who waits for the first word does not take silence for one.
                if !self.routers.is_empty() || self.solicit.is_none() {
                    actions.extend(self.tell());
                }
            }
        }
        actions.extend(self.solicit(now).map(Action::Send));
        actions
    }

    /// When something is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        let ends = self.routers.values().flat_map(|router| {
            let options = router.options.values().filter_map(|(_, until)| *until);
            options.chain(router.until)
        });
        ends.chain(self.solicit.map(|(at, _)| at)).min()
    }

    /// RFC 4861 §6.3.7, and RFC 7559 as long as nobody answers.
    fn solicit(&mut self, now: Time) -> Option<Vec<u8>> {
        let (at, wait) = self.solicit.filter(|(at, _)| *at <= now)?;
        self.solicit = Some((at.max(now) + wait, (2 * wait).min(LONGEST_WAIT)));
        let options = match self.link_local {
            Some(_) => vec![NdOption::SourceLinkLayer(self.mac)],
            None => Vec::new(),
        };
        let envelope = Envelope {
            source_mac: self.mac,
            destination_mac: TO_ALL_ROUTERS,
            source: self.link_local.unwrap_or(Ipv6Addr::UNSPECIFIED),
            destination: ALL_ROUTERS,
        };
        envelope.neighbour_discovery(&RouterSolicitation { options }.encode())
    }

    fn hear(&mut self, from: Ipv6Addr, said: RouterAdvertisement, now: Time) {
        if !self.routers.contains_key(&from) && self.routers.len() >= MAX_ROUTERS {
            return;
        }
        let router = self.routers.entry(from).or_insert_with(|| Router {
            preference: Preference::Medium,
            managed: false,
            other: false,
            until: None,
            options: BTreeMap::new(),
        });
        router.preference = said.preference;
        router.managed = said.managed;
        router.other = said.other;
        let lifetime = Duration::from_secs(said.router_lifetime_secs.into());
        router.until = (!lifetime.is_zero()).then(|| now + lifetime);
        for option in said.apart() {
            let subject = subject_of(&option);
            let Some(lifetime) = lifetime_of(&option) else {
                continue;
            };
            let full = router.options.len() >= MAX_OPTIONS;
            if lifetime == Some(Duration::ZERO) {
                router.options.remove(&subject);
            } else if !full || router.options.contains_key(&subject) {
                let until = lifetime.map(|lifetime| now + lifetime);
                router.options.insert(subject, (option, until));
            }
        }
    }

    fn expire(&mut self, now: Time) {
        let is_over = |until: &Option<Time>| until.is_some_and(|until| until <= now);
        for router in self.routers.values_mut() {
            if is_over(&router.until) {
                router.until = None;
            }
            router.options.retain(|_, (_, until)| !is_over(until));
        }
        // An MTU alone has no end of its own.
        let says = |option: &NdOption| !matches!(option, NdOption::Mtu(_));
        self.routers
            .retain(|_, router| router.until.is_some() || router.options.keys().any(says));
    }

    fn tell(&mut self) -> Option<Action> {
        let sum = self.sum();
        if sum == self.told {
            return None;
        }
        self.told = sum.clone();
        Some(Action::Tell(sum))
    }

    fn sum(&self) -> Upstream {
        let mut ordered: Vec<(&Ipv6Addr, &Router)> = self.routers.iter().collect();
        let rank = |router: &Router| (router.until.is_none(), std::cmp::Reverse(router.preference));
        ordered.sort_by_key(|(addr, router)| (rank(router), **addr));
        let mut sum = Upstream::default();
        if let Some((_, best)) = ordered.first() {
            (sum.managed, sum.other) = (best.managed, best.other);
            sum.preference = best.preference;
        }
        let mut prefixes = BTreeMap::new();
        for (addr, router) in ordered {
            if router.until.is_some() {
                sum.routers.push(*addr);
            }
            for (option, _) in router.options.values() {
                add(&mut sum, &mut prefixes, option);
            }
        }
        sum.prefixes = prefixes.into_values().collect();
        sum
    }
}

/// Of two that say the same thing, the first counts.
fn add(sum: &mut Upstream, prefixes: &mut BTreeMap<Prefix, OnLink>, option: &NdOption) {
    match option {
        NdOption::Mtu(mtu) => sum.mtu = Some(sum.mtu.map_or(*mtu, |least| least.min(*mtu))),
        NdOption::Prefix(said) => {
            prefixes.entry(said.prefix).or_insert_with(|| on_link(said));
        }
        NdOption::Rdnss { servers, .. } => {
            let new = servers.iter().filter(|s| !sum.dns_servers.contains(s));
            let new: Vec<Ipv6Addr> = new.copied().collect();
            sum.dns_servers.extend(new);
        }
        NdOption::Dnssl { domains, .. } => {
            let new = domains.iter().filter(|d| !sum.dns_search.contains(d));
            let new: Vec<DomainName> = new.cloned().collect();
            sum.dns_search.extend(new);
        }
        NdOption::Pref64 { prefix, .. } => sum.pref64 = sum.pref64.or(Some(*prefix)),
        _ => {}
    }
}

fn on_link(said: &PrefixInformation) -> OnLink {
    OnLink {
        prefix: said.prefix,
        on_link: said.on_link,
        autonomous: said.autonomous,
        prefer_delegation: said.prefer_delegation,
        valid_lifetime_secs: said.valid_lifetime_secs,
        preferred_lifetime_secs: said.preferred_lifetime_secs,
    }
}

/// For how long an option counts, for ever if nothing is there; none of what is not kept.
fn lifetime_of(option: &NdOption) -> Option<Option<Duration>> {
    let secs = |secs: u32| (secs != u32::MAX).then(|| Duration::from_secs(secs.into()));
    match option {
        // RFC 4861 §6.3.4: link-local prefixes, and preferred for longer than valid, say nothing.
        NdOption::Prefix(said) => {
            let local = matches!(said.prefix.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
            let sound = said.preferred_lifetime_secs <= said.valid_lifetime_secs;
            (sound && !local).then(|| secs(said.valid_lifetime_secs))
        }
        NdOption::Mtu(mtu) => (1_280..=65_535).contains(mtu).then_some(None),
        NdOption::Rdnss { lifetime_secs, .. } | NdOption::Dnssl { lifetime_secs, .. } => {
            Some(secs(*lifetime_secs))
        }
        NdOption::Pref64 { lifetime_secs, .. } => Some(secs((*lifetime_secs).into())),
        _ => None,
    }
}

/// RFC 4861 §6.1.2.
fn advertisement(octets: &[u8]) -> Option<(Ipv6Addr, RouterAdvertisement)> {
    let (envelope, message) = frame::neighbour_discovery(octets).ok()?;
    let said = RouterAdvertisement::decode(message).ok()?;
    let from = envelope.source;
    from.is_unicast_link_local().then_some((from, said))
}

/// Says to all on a link that an address is at that Ethernet address now, whoever they knew before: an unsolicited neighbour
/// advertisement (RFC 4861 §7.2.6), or an ARP announcement (RFC 5227 §3).
pub fn announcement(mac: Mac, addr: IpAddr) -> Option<Vec<u8>> {
    match addr {
        IpAddr::V6(target) => {
            let said = NeighbourAdvertisement {
                router: false,
                solicited: false,
                override_entry: true,
                target,
                options: vec![NdOption::TargetLinkLayer(mac)],
            };
            let envelope = Envelope {
                source_mac: mac,
                destination_mac: TO_ALL_NODES,
                source: target,
                destination: ALL_NODES,
            };
            envelope.neighbour_discovery(&said.encode())
        }
        IpAddr::V4(addr) => Some(arp_announcement(mac, addr)),
    }
}

fn arp_announcement(mac: Mac, addr: Ipv4Addr) -> Vec<u8> {
    const HEADER: [u8; 10] = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let (mac, addr) = (mac.octets(), addr.octets());
    let parts: [&[u8]; 7] = [&[0xff; 6], &mac, &HEADER, &mac, &addr, &[0; 6], &addr];
    parts.concat()
}

#[cfg(test)]
mod tests;
