//! What becomes of a packet, and which rule, group or route decides.
//!
//! An explanation is read off the state that a plan makes, by walking its routes and rules as the kernel
//! would ([`Machine`]); it never asks the planner why. So it tells what the host really does, and a test
//! that compares it with the meaning of the security groups finds faults of the planner.

mod hop;
mod machine;
mod multicast;
mod packet;
mod path;
mod step;
mod table;
mod track;

use std::{fmt, net::IpAddr};

use hextet_types::{Family, HostId, IfName, Mac, PortId, SecurityGroupId};
use serde::{Deserialize, Serialize};

pub use machine::{Machine, Ways};
pub use packet::{Packet, Payload};
pub use path::{Journey, travel, travel_by};
pub use step::{Outcome, Reason, RuleStep, Step};
pub use track::{Passage, Point, Tracked, Tracking};

use crate::{
    intent::{Group, Intent, RoutingDomain},
    neutron::{Direction, SecurityGroupRule},
    plan::{self, Planner, Realm, index::has_interface, rules},
    state::{CtState, Netns, Value},
};
use packet::Flight;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// A port of this host.
    Port(PortId),
    /// Whoever has that address: a port of this host, or somebody behind the uplink.
    Address(IpAddr),
    /// The host itself.
    Host,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// From there.
    pub from: Endpoint,
    /// With this source; a port's first address of the family, where there is none.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// With this Ethernet source; the port's own, where there is none.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// To there.
    pub to: IpAddr,
    /// By way of this next hop, which a port chooses; its gateway, where there is none.
    #[serde(default)]
    pub via: Option<IpAddr>,
    /// What is sent.
    pub payload: Payload,
    /// As what it counts: `new`, if it is the first of its flow.
    pub connection: CtState,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The path, as far as the packet comes.
    pub steps: Vec<Step>,
    /// What becomes of it.
    pub verdict: Outcome,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The port is not bound here.
    #[error("explain: port {0} is not on this host; ask the host that it is bound to")]
    NoSuchPort(PortId),
    /// The port cannot send to that address.
    #[error("explain: port {port} has no {family} address to send from; name a source")]
    NoSource {
        /// The port.
        port: PortId,
        /// The family.
        family: Family,
    },
    /// One IPv4, one IPv6.
    #[error("explain: {from} and {to} are not of one family")]
    Families {
        /// The source.
        from: IpAddr,
        /// The destination.
        to: IpAddr,
    },
}

/// What becomes of such a packet on this host.
///
/// # Errors
///
/// The question makes no packet: an unknown port, or no source of the family.
pub fn explain(planner: &Planner, query: &Query) -> Result<Explanation, ExplainError> {
    let packet = packet_of(planner, query)?;
    let mut steps = Vec::new();
    let verdict = match query.from {
        Endpoint::Host => {
            let machine = Machine::new(planner.state(), planner.config());
            let verdict = machine.send_from_host(&packet, Some(&mut steps));
            name(planner, &Netns::Main, &packet, &mut steps);
            verdict
        }
        _ => {
            let netns = netns_of(planner, query.from);
            if let Some(verdict) = hop::copy(planner, &netns, &packet, &mut steps) {
                return Ok(Explanation { steps, verdict });
            }
            let sender = match query.from {
                Endpoint::Port(id) => planner.intent().ports.get(&id),
                Endpoint::Address(_) | Endpoint::Host => None,
            };
            if let Some(verdict) = multicast::spread(planner, &netns, &packet, sender, &mut steps) {
                return Ok(Explanation { steps, verdict });
            }
            let chosen = query.via.map_or(0, |via| {
                hop::choose(planner, &netns, &packet, via, &mut steps)
            });
            let mut tracking = track::Stateless;
            travel_by(planner, netns, (packet, chosen), &mut tracking, &mut steps).outcome
        }
    };
    Ok(Explanation { steps, verdict })
}

/// Adds to the steps in a namespace what of the cloud they come from.
fn name(planner: &Planner, netns: &Netns, packet: &Packet, steps: &mut [Step]) {
    let realm = planner.realm(netns);
    let domain = realm.map_or(RoutingDomain::Routed, Realm::domain);
    for step in steps {
        match step {
            Step::Rule(step) => name_group((planner.intent(), domain), packet, step),
            Step::Tunnels { to, host, .. } => *host = host_at(planner.intent(), *to),
            _ => {}
        }
    }
}

/// Where the sender is: a port on its network, everybody else in the main namespace.
fn netns_of(planner: &Planner, from: Endpoint) -> Netns {
    match from {
        Endpoint::Port(id) => match planner.intent().ports.get(&id) {
            Some(port) => planner.netns_of(port.network_id),
            None => Netns::Main,
        },
        Endpoint::Address(_) | Endpoint::Host => Netns::Main,
    }
}

fn host_at(intent: &Intent, addr: IpAddr) -> Option<HostId> {
    let mut hosts = intent.hosts.iter();
    let found = hosts.find(|(_, endpoint)| endpoint.address == addr);
    found.map(|(host, _)| host.clone())
}

/// The port with that interface.
pub fn port_of_link(intent: &Intent, link: &IfName) -> Option<PortId> {
    let first = link.as_str().strip_prefix(IfName::OF_PORTS)?;
    let first: PortId = format!("{first}00-0000-0000-000000000000").parse().ok()?;
    let same = intent
        .ports
        .range(first..)
        .take_while(|(_, port)| port.if_name() == *link);
    let mut plugged = same.filter(|(_, port)| has_interface(port));
    plugged.next().map(|(id, _)| *id)
}

fn packet_of(planner: &Planner, query: &Query) -> Result<Packet, ExplainError> {
    let intent = planner.intent();
    let to = query.to;
    let port = match query.from {
        Endpoint::Port(id) => Some(intent.ports.get(&id).ok_or(ExplainError::NoSuchPort(id))?),
        Endpoint::Address(addr) => planner.port_with(addr),
        Endpoint::Host => None,
    };
    let (link, source, mac) = match (query.from, port) {
        (Endpoint::Host, _) => {
            let own = match Family::of(to) {
                Family::V4 => IpAddr::V4(planner.config().link_local_v4),
                Family::V6 => IpAddr::V6(plan::base::GATEWAY_V6),
            };
            (None, Some(own), None)
        }
        (Endpoint::Address(addr), None) => (
            planner.config().all_uplinks().first().copied().cloned(),
            Some(addr),
            None,
        ),
        (Endpoint::Address(addr), Some(port)) => {
            (Some(port.if_name()), Some(addr), Some(port.mac_address))
        }
        (Endpoint::Port(_), port) => {
            let first = port.and_then(|p| p.addresses(Family::of(to)).next());
            (
                port.map(|p| p.if_name()),
                first,
                port.map(|p| p.mac_address),
            )
        }
    };
    let source = match (query.source.or(source), query.from) {
        (Some(source), _) => source,
        (None, Endpoint::Port(port)) => {
            let family = Family::of(to);
            return Err(ExplainError::NoSource { port, family });
        }
        (None, _) => Family::of(to).unspecified(),
    };
    if Family::of(source) != Family::of(to) {
        return Err(ExplainError::Families { from: source, to });
    }
    Ok(Packet {
        link,
        mac: query.mac.or(mac),
        source,
        destination: to,
        payload: query.payload,
        connection: query.connection,
        flow: None,
        quoted: None,
    })
}

/// Adds to a step in a group's chain which group that is, and which of its rules say so.
fn name_group((intent, domain): (&Intent, RoutingDomain), packet: &Packet, step: &mut RuleStep) {
    let chain = step.chain.0.as_str();
    let (direction, id) = match (chain.strip_prefix("ge-"), chain.strip_prefix("gi-")) {
        (Some(id), _) => (Direction::Egress, id),
        (_, Some(id)) => (Direction::Ingress, id),
        _ => return,
    };
    let Ok(id) = id.parse::<SecurityGroupId>() else {
        return;
    };
    step.group = Some(id);
    if let Some(group) = intent.groups.get(&id) {
        let allows = |rule: &&SecurityGroupRule| allows((intent, domain), (group, rule), packet);
        let rules = rules_of(group, direction).filter(allows);
        step.group_rules = rules.map(|rule| rule.id).collect();
    }
}

fn rules_of(group: &Group, direction: Direction) -> impl Iterator<Item = &SecurityGroupRule> {
    let rules = group.rules.values();
    rules.filter(move |rule| rule.direction == direction)
}

fn allows(
    (intent, domain): (&Intent, RoutingDomain),
    (group, rule): (&Group, &SecurityGroupRule),
    packet: &Packet,
) -> bool {
    let flight = Flight::new(packet);
    let other_end = rules::other_end(rule.direction, rule.ethertype);
    let is_member = |group: SecurityGroupId| match flight.field(other_end) {
        Some(Value::Addr(addr)) => intent
            .members
            .get(&(group, domain))
            .is_some_and(|m| m.contains(&addr)),
        _ => false,
    };
    let matched = |m: &rules::Match| {
        m.shape.family == packet.family()
            && m.shape.remote.is_none_or(is_member)
            && flight.key(&m.shape.key_parts(rule.direction)).as_ref() == Some(&m.key)
    };
    rules::matches(group, rule).iter().any(matched)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        write!(f, "{}", self.verdict)
    }
}
