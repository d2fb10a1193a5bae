//! Which multicast groups the workloads of private networks have joined: what they say counts until they say otherwise, or
//! have not said it for so long that two questions went unanswered. What a port has joined in the intent counts as said when it
//! is first seen here, so that a restart loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use hextet_api::agent::{Memberships, is_joinable};
use hextet_model::{intent::Intent, neutron::Port, state::Netns};
use hextet_types::{NetworkId, PortId};
use tracing::warn;

use super::Reconciler;
use crate::membership::Report;

/// After so long without a word (RFC 3376 §8.4).
const HELD: Duration = Duration::from_secs(260);
/// How often it is looked who has not said a word.
const LOOKS: Duration = Duration::from_secs(10);

/// Of all ports.
#[derive(Debug)]
pub(super) struct Joins {
    ports: BTreeMap<PortId, Groups>,
    next_look: Instant,
}

/// Of one port: when each group was last heard of.
#[derive(Debug, Default)]
struct Groups {
    heard: BTreeMap<IpAddr, Instant>,
    /// That it wants too many has been said.
    warned: bool,
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
        changed
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
                warned: false,
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

    /// Who has joined something else than before, since nobody has said a word of it.
    fn look(&mut self, intent: &Intent, now: Instant) -> Vec<(PortId, BTreeSet<IpAddr>)> {
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOKS;
        for ((network, _), joined) in &intent.audiences {
            let own = joined.keys().filter_map(|id| intent.ports.get(id));
            for port in own.filter(|port| port.network_id == *network) {
                self.seen(port, intent, now);
            }
        }
        self.ports.retain(|id, _| intent.ports.contains_key(id));
        let mut changed = Vec::new();
        for (id, groups) in &mut self.ports {
            let before = groups.heard.len();
            // Who is not here yet cannot be asked.
            if intent.standbys.contains(id) {
                groups.heard.values_mut().for_each(|last| *last = now);
            }
            groups
                .heard
                .retain(|_, last| now.duration_since(*last) < HELD);
            if groups.heard.len() != before {
                changed.push((*id, groups.joined()));
            }
        }
        changed
    }
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
            self.outputs
                .joined
                .send_modify(|all| drop(all.insert(id, joined)));
        }
    }

    /// Who has not said a word for long enough has left.
    pub(super) fn look_at_joins(&mut self) {
        let intent = self.planner.intent();
        let changed = self.joins.look(intent, Instant::now());
        let ports = &intent.ports;
        self.outputs.joined.send_if_modified(|all| {
            all.retain(|port, _| ports.contains_key(port));
            let news = !changed.is_empty();
            all.extend(changed);
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use hextet_model::intent::{Change, Joined};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn network() -> NetworkId {
        NetworkId(Uuid::from_u128(1))
    }

    fn port(n: u128) -> Port {
        let port = json!({
            "id": Uuid::from_u128(n), "network_id": network(), "mac_address": "02:00:00:00:00:01",
            "fixed_ips": [], "security_groups": [], "port_security_enabled": true, "device_owner": "",
            "project_id": "p", "revision_number": 0, "admin_state_up": true, "status": "DOWN",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(port).expect("a port")
    }

    fn group(n: u8) -> IpAddr {
        [239, 0, 0, n].into()
    }

    fn intent(ports: &[u128], joined: &[(u128, u8)]) -> Intent {
        let mut intent = Intent::default();
        for n in ports {
            intent.apply(Change::PutPort(Box::new(port(*n))));
        }
        for (n, of) in joined {
            let one = Joined {
                mac: port(*n).mac_address,
                addr: [10, 0, 0, 1].into(),
            };
            let all = [(port(*n).id, one)].into();
            intent.apply(Change::PutAudience(network(), group(*of), all));
        }
        intent
    }

    fn says(all: &[(u8, bool)]) -> Report {
        all.iter().map(|(n, joined)| (group(*n), *joined)).collect()
    }

    fn groups(all: &[u8]) -> BTreeSet<IpAddr> {
        all.iter().map(|n| group(*n)).collect()
    }

    #[test]
    fn what_is_said_counts_until_it_is_said_otherwise_or_not_at_all() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let mut joins = Joins::new(now);
        let intent = intent(&[1], &[]);
        let hear = |joins: &mut Joins, all: &[(u8, bool)], secs| {
            joins.hear(&port(1), &intent, &says(all), after(secs))
        };
        assert_eq!(
            hear(&mut joins, &[(1, true), (2, true)], 0),
            Some(groups(&[1, 2]))
        );
        assert_eq!(hear(&mut joins, &[(1, true)], 125), None, "known");
        assert_eq!(hear(&mut joins, &[(9, false)], 125), None, "never joined");
        assert_eq!(
            hear(&mut joins, &[(3, true)], 130),
            Some(groups(&[1, 2, 3]))
        );
        assert_eq!(hear(&mut joins, &[(3, false)], 131), Some(groups(&[1, 2])));
        let all: Report = [
            IpAddr::from([224, 0, 0, 1]),
            "ff02::1:ff00:1".parse().unwrap(),
        ]
        .map(|group| (group, true))
        .into();
        assert_eq!(joins.hear(&port(1), &intent, &all, after(131)), None);
        assert_eq!(joins.look(&intent, after(259)), []);
        assert_eq!(joins.look(&intent, after(265)), [], "not so soon again");
        assert_eq!(
            joins.look(&intent, after(270)),
            [(port(1).id, groups(&[1]))]
        );
        assert_eq!(joins.look(&intent, after(385)), [(port(1).id, groups(&[]))]);
        let none = super::tests::intent(&[], &[]);
        assert_eq!(joins.look(&none, after(400)), []);
        assert!(joins.ports.is_empty());
    }

    #[test]
    fn a_restart_begins_with_what_is_known() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let intent = intent(&[1, 2], &[(1, 1), (2, 2), (3, 3)]);
        let mut joins = Joins::new(now);
        let heard = joins.hear(&port(1), &intent, &says(&[(1, true)]), now);
        assert_eq!(heard, None, "it goes on");
        assert_eq!(joins.look(&intent, after(10)), []);
        let heard = joins.hear(&port(1), &intent, &says(&[(1, false)]), after(11));
        assert_eq!(heard, Some(groups(&[])));
        assert_eq!(
            joins.look(&intent, after(30)),
            [],
            "the server knows it later"
        );
        let mut later = intent.clone();
        later.apply(Change::PutStandby(port(2).id));
        assert_eq!(joins.look(&later, after(280)), [], "it is not here");
        assert_eq!(joins.look(&intent, after(530)), []);
        assert_eq!(joins.look(&intent, after(545)), [(port(2).id, groups(&[]))]);
    }

    #[test]
    fn a_port_joins_so_many_and_no_more() {
        let now = Instant::now();
        let intent = intent(&[1], &[]);
        let all: Vec<(u8, bool)> = (0..100).map(|n| (n, true)).collect();
        let mut joins = Joins::new(now);
        let heard = joins.hear(&port(1), &intent, &says(&all), now);
        assert_eq!(heard.map(|h| h.len()), Some(Memberships::MAX_GROUPS));
    }
}
