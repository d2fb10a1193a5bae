//! QoS policies: limits, and code points, of what passes between ports and others, and of what routers translate.
//!
//! A limiter is one of the kernel's own, with a name that says its rate: it stands as long as nothing of that
//! changes, whatever becomes of rules. One look into a map finds it, by the port's link or the address; so what a
//! packet costs depends on no number of ports, and where nothing has a policy there is neither map nor chain.
//! What is beyond the rate is dropped, in the chain after the one that judges: what may not pass counts for nobody.
//!
//! Deviation: Linux lets what passes in a second go in one go (`nft_limit_init`), and the rule's burst is on top of that;
//! so a burst of less than a second counts as one of a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Family, IfName, PortId, QosPolicyId};

use super::{
    group::DIRECTIONS,
    index::has_interface,
    names,
    nft::{self, ACCEPT, DROP, because, rule},
    place::Place,
    router::outside,
    unit::View,
    why,
};
use crate::{
    intent::{Intent, Router},
    neutron::{Direction, Port, QosRule, QosRuleKind},
    state::{
        Field, Hook, KeyPart, KeyType, Limiter, LimiterRate, Netns, NftRule, Object, Statement,
        Value, marks,
    },
};

const CHAIN: &str = "limits";
/// Linux handles as much as one packet until it leaves.
const LARGEST_PACKET: u64 = 65_536;
/// Which limits there are, whatever their rates.
const KINDS: [LimiterRate; 2] = [LimiterRate::Packets(0, 0), LimiterRate::Octets(0, 0)];

/// Owners of ports that belong to the cloud itself: a network's policy is not for them.
const SERVICES: &str = "network:";

/// The policy of a port: its own, or its network's.
pub fn policy_of(intent: &Intent, port: &Port) -> Option<QosPolicyId> {
    let of_network = || {
        let network = intent.networks.get(&port.network_id);
        network
            .filter(|_| !port.device_owner.starts_with(SERVICES))
            .and_then(|n| n.qos_policy_id)
    };
    port.qos_policy_id.or_else(of_network)
}

/// The policy of what leaves by a router's first gateway.
pub fn of_gateway(router: &Router) -> Option<QosPolicyId> {
    router.router.gateways.first()?.qos_policy_id
}

fn rules(intent: &Intent, policy: Option<QosPolicyId>) -> &[QosRule] {
    let policy = policy.and_then(|id| intent.qos_policies.get(&id));
    policy.map_or(&[], |p| &p.rules)
}

/// What a rule limits, and to what; none, where it limits nothing.
fn limit_of(rule: &QosRule) -> Option<(Direction, LimiterRate)> {
    let clip = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    match rule.kind {
        QosRuleKind::BandwidthLimit {
            direction,
            max_kbps,
            max_burst_kbps,
        } => {
            let rate = u64::from(max_kbps) * 125;
            let beyond = (u64::from(max_burst_kbps) * 125).saturating_sub(rate);
            let burst = clip(beyond.max(LARGEST_PACKET));
            (rate > 0).then_some((direction, LimiterRate::Octets(rate, burst)))
        }
        QosRuleKind::PacketRateLimit {
            direction,
            max_kpps,
            max_burst_kpps,
        } => {
            let rate = u64::from(max_kpps) * 1000;
            let burst = match max_burst_kpps {
                0 => rate * 4 / 5,
                kpps => u64::from(kpps) * 1000,
            };
            (rate > 0).then_some((direction, LimiterRate::Packets(rate, clip(burst))))
        }
        QosRuleKind::DscpMarking { .. } => None,
    }
}

fn mark_of(rules: &[QosRule]) -> Option<u8> {
    rules.iter().find_map(|rule| match rule.kind {
        QosRuleKind::DscpMarking { dscp_mark } => Some(dscp_mark),
        _ => None,
    })
}

/// A place's ports with policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    ports: BTreeMap<PortId, Option<u8>>,
    marks: BTreeMap<u8, usize>,
}

impl Limited {
    /// A port is there, is another, or is gone.
    pub fn set(&mut self, intent: &Intent, id: PortId, port: Option<&Port>) {
        let port = port.filter(|port| has_interface(port));
        let rules = port.map_or(&[][..], |port| rules(intent, policy_of(intent, port)));
        let new = (!rules.is_empty()).then(|| mark_of(rules));
        let old = match new {
            Some(mark) => self.ports.insert(id, mark),
            None => self.ports.remove(&id),
        };
        if let Some(mark) = new.flatten() {
            *self.marks.entry(mark).or_default() += 1;
        }
        if let Some(mark) = old.flatten()
            && let Some(count) = self.marks.get_mut(&mark)
        {
            *count -= 1;
            if *count == 0 {
                self.marks.remove(&mark);
            }
        }
    }

    /// Whether there are any, and which marks they have.
    pub fn kinds(&self) -> (bool, BTreeSet<u8>) {
        let marks = self.marks.keys().copied().collect();
        (!self.ports.is_empty(), marks)
    }
}

/// The link by which a port's packets of a direction come or go.
const fn link_of(direction: Direction) -> Field {
    match direction {
        Direction::Egress => Field::IifName,
        Direction::Ingress => Field::OifName,
    }
}

const ALL_THE_WAY: Statement = Statement::SetMark {
    value: marks::ALL_THE_WAY,
    mask: marks::ALL_THE_WAY,
};

/// The chain that limits, with its maps and the sets of marks.
pub fn limits(view: View<'_>) -> Vec<Object> {
    let (any, marks) = view.index.limited().kinds();
    if !any {
        return Vec::new();
    }
    let mut objects = Vec::new();
    let mut chain: Vec<NftRule> = Vec::new();
    for kind in KINDS {
        for direction in DIRECTIONS {
            objects.push(map(&kind, direction, KeyType::IfName));
            chain.push(over(&[], link_of(direction), &kind, direction));
        }
    }
    for mark in marks {
        objects.push(nft::set(names::dscp(mark), [KeyType::IfName]));
        for family in Family::BOTH {
            let from = nft::found(vec![Field::IifName.into()], names::dscp(mark), false);
            chain.push(rule([from, Statement::SetDscp(family, mark)]));
        }
    }
    chain.push(match view.place {
        Place::Network(_) => because([ALL_THE_WAY, ACCEPT], "each packet counts"),
        Place::Main | Place::Router(_) => rule([ACCEPT]),
    });
    objects.push(nft::base_chain(CHAIN, Hook::Forward, nft::LIMITS, chain));
    objects
}

fn map(kind: &LimiterRate, direction: Direction, key: KeyType) -> Object {
    nft::data_map(names::limits(kind, direction), [key], [KeyType::Limiter])
}

/// Drops what is beyond the limit of the field's value, where the conditions hold.
fn over(
    conditions: &[Statement],
    field: Field,
    kind: &LimiterRate,
    direction: Direction,
) -> NftRule {
    over_map(conditions, field, names::limits(kind, direction))
}

fn over_map(conditions: &[Statement], field: Field, map: &str) -> NftRule {
    let mut statements = conditions.to_vec();
    let key: Vec<KeyPart> = vec![field.into()];
    statements.push(Statement::LimitMap(key, map.into()));
    statements.extend([Statement::Counter, DROP]);
    because(statements, why::TOO_FAST)
}

/// A port's limiters and mark.
pub fn of_port(view: View<'_>, port: &Port) -> Vec<Object> {
    let rules = rules(view.intent, policy_of(view.intent, port));
    let name = port.if_name();
    let key = Value::IfName(name.clone());
    let mut objects = limiters(rules, name.as_str(), &key, names::limits);
    objects.extend(mark_of(rules).map(|mark| nft::element(names::dscp(mark), [key])));
    objects
}

/// The limiters that rules ask for, each with the element that leads to it.
fn limiters(
    rules: &[QosRule],
    of: &str,
    key: &Value,
    map: impl Fn(&LimiterRate, Direction) -> &'static str,
) -> Vec<Object> {
    let limits = rules.iter().filter_map(limit_of);
    let both = limits.flat_map(|(direction, rate)| {
        let name = names::limiter(of, direction, &rate);
        let to = Value::Limiter(name.clone());
        let element = nft::data_element(map(&rate, direction), [key.clone()], [to]);
        let limiter = Limiter { name, rate };
        [Object::Limiter(Netns::Main, limiter), element]
    });
    both.collect()
}

/// The limits of what a router translates here: those of floating IPs, and that of the gateway for all others.
pub struct Outside<'a> {
    view: View<'a>,
    gateway: &'a [QosRule],
    floating: BTreeMap<Ipv4Addr, &'a [QosRule]>,
}

/// Maps of the gateway: they hold the router's link alone, so that a rule keeps to its limiter.
const fn gateway_map(kind: &LimiterRate, direction: Direction) -> &'static str {
    match (kind, direction) {
        (LimiterRate::Octets(..), Direction::Egress) => "limit-octets-leave",
        (LimiterRate::Octets(..), Direction::Ingress) => "limit-octets-enter",
        (LimiterRate::Packets(..), Direction::Egress) => "limit-packets-leave",
        (LimiterRate::Packets(..), Direction::Ingress) => "limit-packets-enter",
    }
}

impl<'a> Outside<'a> {
    /// Those of a gateway with that policy.
    pub fn new(view: View<'a>, gateway: Option<QosPolicyId>) -> Outside<'a> {
        Outside {
            view,
            gateway: rules(view.intent, gateway),
            floating: BTreeMap::new(),
        }
    }

    /// That of the floating IP that stands for an address inside; of several for one, the first.
    pub fn add(&mut self, inside: Ipv4Addr, policy: Option<QosPolicyId>) {
        let rules = rules(self.view.intent, policy);
        if rules.iter().any(|rule| limit_of(rule).is_some()) {
            self.floating.entry(inside).or_insert(rules);
        }
    }

    /// All of it. `others` says by which conditions the gateway's packets are known: by that address of theirs which is inside.
    pub fn objects(&self, others: impl Fn(Field) -> Vec<Statement>) -> Vec<Object> {
        let gateway = self.gateway.iter().any(|rule| limit_of(rule).is_some());
        let Some(link) = outside::link().filter(|_| gateway || !self.floating.is_empty()) else {
            return Vec::new();
        };
        let mut objects = Vec::new();
        let mut chain = Vec::new();
        for direction in DIRECTIONS {
            let (at, inside) = match direction {
                Direction::Egress => (Field::OifName, Field::Saddr(Family::V4)),
                Direction::Ingress => (Field::IifName, Field::Daddr(Family::V4)),
            };
            let passes = nft::compare(at, Value::IfName(link.clone()));
            for kind in KINDS {
                if !self.floating.is_empty() {
                    objects.push(map(&kind, direction, KeyType::Addr(Family::V4)));
                    chain.push(over(
                        std::slice::from_ref(&passes),
                        inside,
                        &kind,
                        direction,
                    ));
                }
                if gateway {
                    let name = gateway_map(&kind, direction);
                    objects.push(nft::data_map(name, [KeyType::IfName], [KeyType::Limiter]));
                    chain.push(over_map(&v4(others(inside)), at, name));
                }
            }
        }
        chain.push(rule([ACCEPT]));
        objects.push(nft::base_chain(CHAIN, Hook::Forward, nft::LIMITS, chain));
        objects.extend(self.all_limiters(&link));
        objects
    }

    fn all_limiters(&self, link: &IfName) -> Vec<Object> {
        let key = Value::IfName(link.clone());
        let mut objects = limiters(self.gateway, "gateway", &key, gateway_map);
        for (inside, rules) in &self.floating {
            let key = Value::Addr(IpAddr::V4(*inside));
            objects.extend(limiters(rules, &inside.to_string(), &key, names::limits));
        }
        objects
    }
}

/// Nothing of IPv6 is translated.
fn v4(mut conditions: Vec<Statement>) -> Vec<Statement> {
    let v4 = nft::compare(Field::NfProto, Value::Family(Family::V4));
    conditions.insert(0, v4);
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use hextet_types::QosRuleId;

    fn limit(kind: QosRuleKind) -> Option<LimiterRate> {
        let id = QosRuleId(uuid::Uuid::nil());
        limit_of(&QosRule { id, kind }).map(|(_, rate)| rate)
    }

    fn bandwidth(max_kbps: u32, max_burst_kbps: u32) -> Option<LimiterRate> {
        let direction = Direction::Egress;
        limit(QosRuleKind::BandwidthLimit {
            direction,
            max_kbps,
            max_burst_kbps,
        })
    }

    fn packets(max_kpps: u32, max_burst_kpps: u32) -> Option<LimiterRate> {
        let direction = Direction::Egress;
        limit(QosRuleKind::PacketRateLimit {
            direction,
            max_kpps,
            max_burst_kpps,
        })
    }

    #[test]
    fn rates_are_in_octets_and_packets_each_second() {
        let octets = |rate, burst| Some(LimiterRate::Octets(rate, burst));
        assert_eq!(bandwidth(8_000, 0), octets(1_000_000, 65_536));
        assert_eq!(bandwidth(8_000, 16_000), octets(1_000_000, 1_000_000));
        assert_eq!(bandwidth(0, 1), None);
        assert_eq!(bandwidth(1, u32::MAX), octets(125, u32::MAX));
        assert_eq!(packets(1, 0), Some(LimiterRate::Packets(1_000, 800)));
        assert_eq!(packets(1, 2), Some(LimiterRate::Packets(1_000, 2_000)));
        assert_eq!(packets(0, 0), None);
    }

    #[test]
    fn a_limiter_of_another_rate_has_another_name() {
        let name = |rate| names::limiter("tap", Direction::Egress, &rate);
        let octets = name(LimiterRate::Octets(1, 2));
        assert_ne!(octets, name(LimiterRate::Packets(1, 2)));
        assert_ne!(octets, name(LimiterRate::Octets(1, 3)));
        assert!(name(LimiterRate::Octets(u64::MAX, u32::MAX)).0.len() < 128);
    }
}
