//! Which multicast groups the workloads of private networks have joined: what they say counts until they say otherwise, or
//! have not said it for so long that two questions went unanswered. What a port has joined in the intent counts as said when it
//! is first seen here, so that a restart loses nothing.
//!
//! What is joined here is compared with what the intent says of it. As long as that is something else, because the server had no
//! room for it, found that it changes too often, or has forgotten it, it is said again, ever more rarely.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use hextet_api::agent::{Memberships, is_joinable};
use hextet_model::{intent::Intent, neutron::Port, state::Netns};
use hextet_types::{Family, NetworkId, PortId};
use tracing::warn;

use super::Reconciler;
use crate::{membership::Report, rollcall::Saying};

/// After so long without a word (RFC 3376 §8.4).
const HELD: Duration = Duration::from_secs(260);
/// How often it is looked who has not said a word, and of whom others know something else.
const LOOKS: Duration = Duration::from_secs(5);
/// After so long what others do not know is said again; then after twice that, and so on.
const PATIENCE: Duration = LOOKS;
/// Up to this.
const MOST_PATIENCE: Duration = Duration::from_secs(120);

/// Of all ports.
#[derive(Debug)]
pub(super) struct Joins {
    ports: BTreeMap<PortId, Groups>,
    next_look: Instant,
    /// How often something has been said.
    said: u64,
}

/// Of one port: when each group was last heard of.
#[derive(Debug, Default)]
struct Groups {
    heard: BTreeMap<IpAddr, Instant>,
    /// That it wants too many has been said.
    warned: bool,
    behind: Option<Behind>,
}

/// Others know something else than what is joined here.
#[derive(Debug)]
struct Behind {
    /// When it is said again.
    due: Instant,
    patience: Duration,
}

impl Groups {
    /// Whether other groups than before are joined.
    fn hear(&mut self, port: PortId, report: &Report, now: Instant) -> bool {
        let mut changed = false;
        for (group, joined) in report.iter().filter(|(group, _)| is_joinable(**group)) {
            if !joined {
                changed |= self.heard.remove(group).is_some();
            } else if let Some(last) = self.heard.get_mut(group) {
                *last = now;
            } else if self.heard.len() < Memberships::MAX_GROUPS {
                self.heard.insert(*group, now);
                changed = true;
            } else if !std::mem::replace(&mut self.warned, true) {
                let most = Memberships::MAX_GROUPS;
                warn!(%port, %group, "the port has joined more than {most} multicast groups, and does not hear the others");
            }
        }
        if changed {
            self.behind = None;
        }
        changed
    }

    /// While the port is elsewhere, what it has joined is heard there.
    fn heard_elsewhere(&mut self, told: &BTreeSet<IpAddr>, now: Instant) {
        for group in told {
            if let Some(last) = self.heard.get_mut(group) {
                *last = now;
            } else if self.heard.len() < Memberships::MAX_GROUPS {
                self.heard.insert(*group, now);
            }
        }
        self.behind = None;
    }

    /// Forgets what nobody has said a word of; whether there was something.
    fn expire(&mut self, now: Instant) -> bool {
        let before = self.heard.len();
        self.heard
            .retain(|_, last| now.duration_since(*last) < HELD);
        self.heard.len() != before
    }

    /// Whether others have known something else for so long that it is said again. A group of a family that the port has no
    /// address of cannot be theirs.
    fn is_behind(&mut self, port: &Port, told: &BTreeSet<IpAddr>, now: Instant) -> bool {
        let own = port.fixed_ips.iter().map(|f| Family::of(f.ip_address));
        let families: BTreeSet<Family> = own.collect();
        let counts = |group: &&IpAddr| families.contains(&Family::of(**group));
        if self.heard.keys().filter(counts).eq(told) {
            self.behind = None;
            return false;
        }
        let behind = self.behind.get_or_insert(Behind {
            due: now + PATIENCE,
            patience: PATIENCE,
        });
        if now < behind.due {
            return false;
        }
        behind.patience = MOST_PATIENCE.min(behind.patience * 2);
        behind.due = now + behind.patience;
        true
    }

    fn joined(&self) -> BTreeSet<IpAddr> {
        self.heard.keys().copied().collect()
    }
}

impl Joins {
    pub(super) fn new(now: Instant) -> Self {
        Joins {
            ports: BTreeMap::new(),
            next_look: now + LOOKS,
            said: 0,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.next_look
    }

    /// A port that is seen for the first time has joined what others know that it has.
    fn seen(&mut self, port: &Port, intent: &Intent, now: Instant) -> &mut Groups {
        self.ports.entry(port.id).or_insert_with(|| {
            let groups = groups_of(intent, port.network_id, port.id);
            Groups {
                heard: groups.map(|group| (group, now)).collect(),
                ..Groups::default()
            }
        })
    }

    /// What the port has joined, if that is something else than before.
    fn hear(
        &mut self,
        port: &Port,
        intent: &Intent,
        report: &Report,
        now: Instant,
    ) -> Option<BTreeSet<IpAddr>> {
        let groups = self.seen(port, intent, now);
        groups.hear(port.id, report, now).then(|| groups.joined())
    }

    /// What is to be said of ports: nobody has said a word of something that they had joined, or others know something else.
    fn look(&mut self, intent: &Intent, now: Instant) -> Vec<(PortId, BTreeSet<IpAddr>)> {
        // A port that comes back begins anew, as it does with the server.
        self.ports.retain(|id, _| intent.ports.contains_key(id));
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOKS;
        let told = told_of(intent);
        for port in told.keys().filter_map(|id| intent.ports.get(id)) {
            self.seen(port, intent, now);
        }
        let nothing = BTreeSet::new();
        let mut to_say = Vec::new();
        for (id, groups) in &mut self.ports {
            let told = told.get(id).unwrap_or(&nothing);
            let is_elsewhere = intent.standbys.contains(id);
            if is_elsewhere {
                groups.heard_elsewhere(told, now);
            }
            let is_behind = |groups: &mut Groups| {
                let port = intent.ports.get(id);
                port.is_some_and(|port| groups.is_behind(port, told, now))
            };
            if groups.expire(now) || (!is_elsewhere && is_behind(groups)) {
                to_say.push((*id, groups.joined()));
            }
        }
        to_say
    }

    fn saying(&mut self, groups: BTreeSet<IpAddr>) -> Saying {
        self.said += 1;
        Saying {
            groups,
            number: self.said,
        }
    }
}

/// What the intent says of the ports here.
fn told_of(intent: &Intent) -> BTreeMap<PortId, BTreeSet<IpAddr>> {
    let mut told = BTreeMap::<_, BTreeSet<_>>::new();
    for ((network, group), joined) in &intent.audiences {
        let own = joined.keys().filter_map(|id| intent.ports.get(id));
        for port in own.filter(|port| port.network_id == *network) {
            told.entry(port.id).or_default().insert(*group);
        }
    }
    told
}

fn groups_of(intent: &Intent, network: NetworkId, port: PortId) -> impl Iterator<Item = IpAddr> {
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let all = intent.audiences.range((network, unspecified)..);
    let all = all.take_while(move |((of, _), _)| *of == network);
    all.filter(move |(_, joined)| joined.contains_key(&port))
        .map(|((_, group), _)| *group)
}

impl Reconciler {
    /// Whether a port is on a private network.
    pub(super) fn is_private(&self, port: &Port) -> bool {
        self.planner.netns_of(port.network_id) != Netns::Main
    }

    /// A workload says what it has joined, or left.
    pub(super) fn hear_report(&mut self, id: PortId, report: &Report) {
        let intent = self.planner.intent();
        let port = intent.ports.get(&id);
        let Some(port) = port.filter(|port| self.is_private(port)) else {
            return;
        };
        if let Some(joined) = self.joins.hear(port, intent, report, Instant::now()) {
            let saying = self.joins.saying(joined);
            self.outputs
                .joined
                .send_modify(|all| drop(all.insert(id, saying)));
        }
    }

    /// Who has not said a word for long enough has left, and what others do not know is said again.
    pub(super) fn look_at_joins(&mut self) {
        let intent = self.planner.intent();
        let to_say = self.joins.look(intent, Instant::now());
        let ports = &intent.ports;
        self.outputs.joined.send_if_modified(|all| {
            all.retain(|port, _| ports.contains_key(port));
            let news = !to_say.is_empty();
            for (port, groups) in to_say {
                all.insert(port, self.joins.saying(groups));
            }
            news
        });
    }
}

#[cfg(test)]
mod tests;
