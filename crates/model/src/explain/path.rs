//! A packet's way from namespace to namespace: a network's, by a router's, to another network's or the main one. Each
//! judges it as a [`Machine`] of its own, since a packet takes no mark along; what it is translated to, it takes along.

use std::net::IpAddr;

use hextet_types::IfName;

use super::{
    machine::{Machine, pair_into_main},
    name,
    packet::Packet,
    step::{Outcome, Reason, Step},
    track::Tracking,
};
use crate::{
    intent::Router,
    plan::{Planner, Realm},
    state::{HostState, Key, NatRange, Netns, Object},
};

/// A packet that comes through more namespaces goes round in circles.
const MAX_NAMESPACES: usize = 16;

/// A way through a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// What becomes of the packet.
    pub outcome: Outcome,
    /// Where its way ends.
    pub netns: Netns,
    /// As it is there.
    pub packet: Packet,
    /// The neighbour that it is handed to, where a link takes it.
    pub neighbour: Option<IpAddr>,
}

/// What becomes of a packet that comes in in that namespace, when that is known of its connection. The steps are
/// added.
pub fn travel(
    planner: &Planner,
    from: Netns,
    packet: Packet,
    tracking: &mut dyn Tracking,
    steps: &mut Vec<Step>,
) -> Journey {
    travel_by(planner, from, (packet, 0), tracking, steps)
}

/// The same of a packet that the first program gives this mark besides: that of a next hop which its sender has chosen.
pub fn travel_by(
    planner: &Planner,
    from: Netns,
    (mut packet, chosen): (Packet, u32),
    tracking: &mut dyn Tracking,
    steps: &mut Vec<Step>,
) -> Journey {
    let state = planner.state();
    let mut netns = from;
    let mut translated = None;
    for nth in 0..MAX_NAMESPACES {
        let realm = planner.realm(&netns);
        let config = realm.map_or_else(|| planner.config(), Realm::config);
        let machine = Machine::within(&netns, state, config);
        let machine = machine.choosing(if nth == 0 { chosen } else { 0 });
        let first = steps.len();
        let router = realm.and_then(Realm::router);
        if nth == 0 || netns == Netns::Main {
            steps.push(Step::Arrives(packet.link.clone()));
        }
        match (router, &netns) {
            (Some(router), Netns::Named(name)) => steps.push(enters(router, name.clone())),
            (None, Netns::Named(name)) => steps.push(Step::Enters(name.clone())),
            (_, Netns::Main) => {}
        }
        let tracked = tracking.arrives(&netns, &packet);
        packet.connection = tracked.state;
        packet.flow = tracked.flow;
        let passage = machine.pass(&packet, &tracked, Some(steps));
        tracking.leaves(&netns, &tracked, &passage);
        name(
            planner,
            &netns,
            &packet,
            steps.get_mut(first..).unwrap_or_default(),
        );
        name_route(router, steps);
        if passage.packet.source != packet.source {
            translated = Some(passage.packet.source);
        }
        packet = passage.packet;
        let ends = |outcome| Journey {
            outcome,
            netns: netns.clone(),
            packet: packet.clone(),
            neighbour: passage.neighbour,
        };
        let link = match (passage.outcome, router) {
            (Outcome::Host, Some(router)) => return ends(Outcome::Router(router.router.id)),
            (Outcome::Delivered { link }, _) => link,
            (outcome, _) => return ends(as_translated(outcome, translated)),
        };
        match far_end(state, &netns, &link) {
            Some((there, link)) => {
                netns = there;
                packet.link = Some(link);
                packet.mac = None;
            }
            None => return ends(Outcome::Delivered { link }),
        }
    }
    Journey {
        outcome: Outcome::Dropped(Reason::Loop),
        netns,
        packet,
        neighbour: None,
    }
}

/// What leaves, with what a namespace on the way has made of its source.
fn as_translated(outcome: Outcome, before: Option<IpAddr>) -> Outcome {
    match outcome {
        Outcome::Leaves {
            link,
            translated: None,
        } => Outcome::Leaves {
            link,
            translated: before.map(|addr| NatRange {
                first: addr,
                last: addr,
            }),
        },
        outcome => outcome,
    }
}

fn enters(router: &Router, netns: String) -> Step {
    Step::Router {
        id: router.router.id,
        name: router.router.standard.name.clone(),
        netns,
    }
}

/// Says of the router's route that it is one of its extra routes, or that it leads to its gateway host.
fn name_route(router: Option<&Router>, steps: &mut Vec<Step>) {
    let (Some(router), Some(last)) = (router, steps.last()) else {
        return;
    };
    let destination = match last {
        Step::Tunnels { .. } => return steps.push(Step::GatewayHost),
        Step::Route { prefix, .. } => *prefix,
        _ => None,
    };
    let Some(destination) = destination else {
        return;
    };
    let routes = router.router.routes.iter();
    let nexthops: Vec<_> = routes
        .filter(|route| route.destination == destination)
        .map(|route| route.nexthop)
        .collect();
    if !nexthops.is_empty() {
        steps.push(Step::ExtraRoute {
            destination,
            nexthops,
        });
    }
}

/// Where a link leads that is an end of a pair between namespaces. A port's own is known by its far end, and leads to
/// nobody but its workload.
fn far_end(state: &HostState, netns: &Netns, link: &IfName) -> Option<(Netns, IfName)> {
    let near = Key::Veth(netns.clone(), link.clone());
    if let Some(Object::Veth(veth)) = state.objects.get(&near) {
        return Some((veth.peer_netns.clone(), veth.peer.clone()));
    }
    let Netns::Named(name) = netns else {
        let veth = pair_into_main(state, link)?;
        return Some((veth.netns.clone(), veth.name.clone()));
    };
    // The far end has the name of where its pair leads, and so has the near one.
    let near = Key::Veth(Netns::Named(link.as_str().to_owned()), name.parse().ok()?);
    match state.objects.get(&near) {
        Some(Object::Veth(veth)) if veth.peer_netns == *netns && veth.peer == *link => {
            Some((veth.netns.clone(), veth.name.clone()))
        }
        _ => None,
    }
}
