//! What becomes of a packet to a group that somebody has joined: a packet for each who has, to that one's own address.

use std::net::IpAddr;

use super::{
    packet::Packet,
    path::travel_by,
    step::{Outcome, Step},
    track,
};
use crate::{
    neutron::Port,
    plan::Planner,
    state::{Audience, Key, Netns, Object, SpeakerFact},
};

/// All copies' ways, one after another, and what becomes of the one that comes furthest; none where nobody has joined.
pub(super) fn spread(
    planner: &Planner,
    netns: &Netns,
    packet: &Packet,
    sender: Option<&Port>,
    steps: &mut Vec<Step>,
) -> Option<Outcome> {
    let link = packet.link.clone()?;
    let objects = &planner.state().objects;
    let speaks = Key::Speaker(netns.clone(), link, SpeakerFact::Network);
    let key = Key::Audience(netns.clone(), packet.destination);
    let (true, Some(Object::Audience(Audience { listeners, .. }))) =
        (objects.contains_key(&speaks), objects.get(&key))
    else {
        return None;
    };
    let source = source(packet, sender)?;
    let mut verdict = None;
    for listener in listeners.iter().filter(|listener| listener.addr != source) {
        steps.push(Step::Cast {
            listener: listener.addr,
        });
        let mut copy = packet.clone();
        (copy.source, copy.destination) = (source, listener.addr);
        let mut tracking = track::Stateless;
        let way = travel_by(planner, netns.clone(), (copy, 0), &mut tracking, steps);
        verdict = Some(match (verdict, way.outcome) {
            (Some(done @ Outcome::Delivered { .. }), _) => done,
            (_, done @ Outcome::Delivered { .. }) => done,
            (Some(away @ Outcome::Leaves { .. }), _) => away,
            (_, outcome) => outcome,
        });
    }
    verdict
}

/// Of what is link-local the port's own takes the place.
fn source(packet: &Packet, sender: Option<&Port>) -> Option<IpAddr> {
    match packet.source {
        IpAddr::V6(source) if source.is_unicast_link_local() => {
            let mut own = sender?.fixed_ips.iter().map(|f| f.ip_address);
            own.find(IpAddr::is_ipv6)
        }
        source => Some(source),
    }
}
