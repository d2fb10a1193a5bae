//! What becomes of a packet on this host: for people, and for flows that are open when a policy changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use hextet_kernel::conntrack::Flow;
use hextet_model::{
    explain::{self, Endpoint, Machine, Outcome, Packet, Payload, Query, Ways},
    plan::{Planner, Realm, tunnel_device},
    state::{CtState, Key, Netns},
};

use hextet_types::IfName;

use crate::report::{ExplainRequest, Explained, Sender};

/// Where clients' ports come from when nobody says which (RFC 6335 §6).
const EPHEMERAL_PORT: u16 = 49_152;
/// Verdicts that are remembered.
const VERDICTS: usize = 65_536;

/// Answers `hextet explain`.
///
/// # Errors
///
/// The question makes no packet; with the reason.
pub fn explain(planner: &Planner, request: &ExplainRequest) -> Result<Explained> {
    let from = match &request.from {
        Sender::Port(port) => *port,
        Sender::Interface(link) => explain::port_of_link(planner.intent(), link)
            .with_context(|| format!("explain: {link} is no port's interface on this host"))?,
    };
    let query = Query {
        from: Endpoint::Port(from),
        source: None,
        mac: None,
        to: request.to,
        via: request.via,
        payload: payload(request),
        connection: CtState::New,
    };
    let explanation = explain::explain(planner, &query)?;
    Ok(Explained {
        steps: explanation.steps.iter().map(ToString::to_string).collect(),
        verdict: explanation.verdict.to_string(),
        delivered: arrives(&explanation.verdict),
    })
}

/// What is known of the open flows of all namespaces, between changes of the plan.
#[derive(Debug, Default)]
pub struct Verdicts {
    ways: BTreeMap<Netns, Ways>,
    known: HashMap<(Netns, Flow), bool>,
}

impl Verdicts {
    /// These objects are others now.
    pub fn forget(&mut self, changed: &BTreeSet<Key>) {
        if !changed.is_empty() {
            self.known.clear();
        }
        if changed.iter().any(Ways::depend_on) {
            self.ways.clear();
        }
    }

    /// Judges flows of one namespace by what is planned now.
    pub fn judge<'a>(&'a mut self, planner: &'a Planner, netns: &'a Netns) -> Judge<'a> {
        let of_namespace = || Ways::of(planner.state(), netns);
        let ways = self.ways.entry(netns.clone()).or_insert_with(of_namespace);
        let realm = planner.realm(netns);
        let config = realm.map_or_else(|| planner.config(), Realm::config);
        Judge {
            netns,
            realm,
            machine: Machine::with(netns, planner.state(), config, ways),
            outside: match netns {
                Netns::Main => config.uplinks.first().cloned(),
                Netns::Named(_) => tunnel_device(),
            },
            known: &mut self.known,
        }
    }
}

/// Judges open flows as if each were new. Rules never look at a client's port, so that a verdict holds for all
/// connections of a flow.
pub struct Judge<'a> {
    netns: &'a Netns,
    realm: Option<Realm<'a>>,
    machine: Machine<'a>,
    /// What comes from nobody here comes by this link.
    outside: Option<IfName>,
    known: &'a mut HashMap<(Netns, Flow), bool>,
}

impl Judge<'_> {
    /// Whether the flow might begin now.
    pub fn allows(&mut self, flow: &Flow) -> bool {
        let key = (self.netns.clone(), *flow);
        if let Some(verdict) = self.known.get(&key) {
            return *verdict;
        }
        let verdict = self.is_allowed(flow);
        if self.known.len() >= VERDICTS {
            self.known.clear();
        }
        self.known.insert(key, verdict);
        verdict
    }

    fn is_allowed(&self, flow: &Flow) -> bool {
        let port = self.realm.and_then(|realm| realm.port_with(flow.source));
        let protocol = flow.protocol;
        let payload = match (flow.destination_port, flow.icmp) {
            (Some(destination), _) => Payload::Ports {
                protocol,
                source: EPHEMERAL_PORT,
                destination,
            },
            (None, Some((icmp_type, code))) => Payload::Icmp { icmp_type, code },
            (None, None) => Payload::Protocol(protocol),
        };
        let packet = Packet {
            link: match port {
                Some(port) => Some(port.if_name()),
                None => self.outside.clone(),
            },
            mac: port.map(|p| p.mac_address),
            source: flow.source,
            destination: flow.destination,
            payload,
            connection: CtState::New,
            flow: None,
            quoted: None,
        };
        arrives(&self.machine.send(&packet, None))
    }
}

fn payload(request: &ExplainRequest) -> Payload {
    let protocol = request.protocol;
    match (request.port, request.icmp_type) {
        (_, Some(icmp_type)) => Payload::Icmp { icmp_type, code: 0 },
        (Some(destination), _) => Payload::Ports {
            protocol,
            source: EPHEMERAL_PORT,
            destination,
        },
        _ => Payload::Protocol(protocol),
    }
}

fn arrives(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Dropped(_))
}
