//! What becomes of a packet on this host: for people, and for flows that are open when a policy changes.

use anyhow::Result;
use hextet_kernel::conntrack::{Part, Tuple};
use hextet_model::{
    explain::{self, Endpoint, Machine, Outcome, Packet, Payload, Query},
    plan::Planner,
    state::CtState,
};

use crate::report::{ExplainRequest, Explained};

/// Where clients' ports come from when nobody says which (RFC 6335 §6).
const EPHEMERAL_PORT: u16 = 49_152;

/// Answers `hextet explain`.
///
/// # Errors
///
/// The question makes no packet; with the reason.
pub fn explain(planner: &Planner, request: &ExplainRequest) -> Result<Explained> {
    let query = Query {
        from: Endpoint::Port(request.from),
        source: None,
        mac: None,
        to: request.to,
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

/// Judges open flows as if each were new.
pub struct Judge<'a> {
    planner: &'a Planner,
    machine: Machine<'a>,
}

impl<'a> Judge<'a> {
    /// By what is planned now.
    pub fn new(planner: &'a Planner) -> Judge<'a> {
        Judge {
            planner,
            machine: Machine::new(planner.state(), planner.config()),
        }
    }

    /// Whether the flow might begin now.
    pub fn allows(&self, flow: &Tuple) -> bool {
        let port = self.planner.port_with(flow.source);
        let payload = match flow.part {
            Part::Ports(source, destination) => Payload::Ports {
                protocol: flow.protocol,
                source,
                destination,
            },
            Part::Icmp { kind, code, .. } => Payload::Icmp {
                icmp_type: kind,
                code,
            },
            Part::None => Payload::Protocol(flow.protocol),
        };
        let packet = Packet {
            link: match port {
                Some(port) => Some(port.if_name()),
                None => self.planner.config().uplinks.first().cloned(),
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
