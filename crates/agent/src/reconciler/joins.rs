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
            "fixed_ips": [{"subnet_id": network(), "ip_address": "10.0.0.1"}], "security_groups": [], "port_security_enabled": true, "device_owner": "",
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
        assert_eq!(joins.look(&intent, after(262)), [], "not so soon again");
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
        let mut intent = intent;
        intent.apply(Change::RemoveAudience(network(), group(1)));
        let mut later = intent.clone();
        later.apply(Change::PutStandby(port(2).id));
        assert_eq!(joins.look(&later, after(280)), [], "it is not here");
        assert_eq!(joins.look(&intent, after(530)), []);
        assert_eq!(joins.look(&intent, after(545)), [(port(2).id, groups(&[]))]);
    }

    /// The server had no room, or a port's changes were too many for it.
    #[test]
    fn what_others_do_not_know_is_said_again_and_ever_more_rarely() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let mut joins = Joins::new(now);
        let none = intent(&[1], &[]);
        let ipv6 = "ff02::fb".parse().unwrap();
        let mut all = says(&[(1, true), (2, true)]);
        all.insert(ipv6, true);
        let expected: BTreeSet<IpAddr> = all.keys().copied().collect();
        let heard = joins.hear(&port(1), &none, &all, now);
        assert_eq!(heard.as_ref(), Some(&expected));
        let some = intent(&[1], &[(1, 1)]);
        let said = |joins: &mut Joins, intent: &Intent, secs: std::ops::Range<u64>| -> Vec<u64> {
            let mut all_said = Vec::new();
            for secs in secs {
                // It answers questions all the time, and that is nothing new.
                assert_eq!(joins.hear(&port(1), intent, &all, after(secs)), None);
                let said = joins.look(intent, after(secs));
                assert!(said.iter().all(|(_, groups)| *groups == expected));
                all_said.extend(said.iter().map(|_| secs));
            }
            all_said
        };
        let times = said(&mut joins, &some, 0..3_600);
        assert_eq!(times[..6], [10, 20, 40, 80, 160, 280]);
        assert_eq!(times.len(), 6 + (3_600 - 280) / 120);
        // Now there is room: nothing more is said, as the port has no address of IPv6.
        let both = intent(&[1], &[(1, 1), (1, 2)]);
        assert!(said(&mut joins, &both, 3_600..3_900).is_empty());
        // What it has left, but is still told.
        let more = intent(&[1], &[(1, 1), (1, 2), (1, 3)]);
        assert_eq!(said(&mut joins, &more, 3_900..3_915), [3_905]);
    }

    #[test]
    fn a_port_that_goes_and_comes_back_begins_anew() {
        let now = Instant::now();
        let there = intent(&[1], &[]);
        let mut joins = Joins::new(now);
        let all = says(&[(1, true)]);
        assert_eq!(joins.hear(&port(1), &there, &all, now), Some(groups(&[1])));
        assert_eq!(joins.look(&intent(&[], &[]), now), []);
        assert_eq!(joins.hear(&port(1), &there, &all, now), Some(groups(&[1])));
        // Nor are the two the same for whoever tells them.
        let [one, other] = [(); 2].map(|()| joins.saying(groups(&[1])));
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_joined_where_a_port_migrates_to_is_said_again_once_it_is_there() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let mut joins = Joins::new(now);
        let home = intent(&[1], &[(1, 1)]);
        let mut standby = home.clone();
        standby.apply(Change::PutStandby(port(1).id));
        assert_eq!(joins.look(&standby, after(5)), []);
        let heard = joins.hear(&port(1), &standby, &says(&[(2, true)]), after(6));
        assert_eq!(heard, Some(groups(&[1, 2])));
        for secs in 7..60 {
            assert_eq!(joins.look(&standby, after(secs)), []);
        }
        // Where it was it has joined one more meanwhile.
        standby.apply(Change::PutAudience(
            network(),
            group(3),
            home.audiences[&(network(), group(1))].clone(),
        ));
        assert_eq!(joins.look(&standby, after(60)), []);
        standby.apply(Change::RemoveStandby(port(1).id));
        let said: Vec<_> = (61..75)
            .flat_map(|secs| joins.look(&standby, after(secs)))
            .collect();
        assert_eq!(said, [(port(1).id, groups(&[1, 2, 3]))]);
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
