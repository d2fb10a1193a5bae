//! What a port's program does besides letting packets in: it answers for next hops that workloads choose, and copies VRRP
//! to those who share addresses with its sender.

use std::net::IpAddr;

use hextet_types::Family;

use super::{
    packet::{Packet, Payload},
    step::{Outcome, Reason, Step},
};
use crate::{
    plan::Planner,
    state::{Hop, HopEntry, HopKey, Key, Netns, Object, Receiver},
};

/// The protocol's number (RFC 5798 §5.1.1.4).
const VRRP: u8 = 112;

/// Who answers when the sender asks for that next hop: the mark that what is sent there gets; none of the gateway's.
pub(super) fn choose(
    planner: &Planner,
    netns: &Netns,
    packet: &Packet,
    via: IpAddr,
    steps: &mut Vec<Step>,
) -> u32 {
    let entry = |key| {
        let link = packet.link.clone()?;
        match planner
            .state()
            .objects
            .get(&Key::Hop(netns.clone(), link, key))?
        {
            Object::Hop(Hop { entry, .. }) => Some(*entry),
            _ => None,
        }
    };
    let mac = match entry(HopKey::Answer(via)) {
        Some(HopEntry::Answer { mac, .. }) => Some(mac),
        _ => None,
    };
    steps.push(Step::NextHop { via, mac });
    match mac.and_then(|mac| entry(HopKey::Way(mac))) {
        Some(HopEntry::Way { mark, .. }) => mark,
        _ => 0,
    }
}

/// What becomes of VRRP to its group; none of anything else. Nothing of it is routed.
pub(super) fn copy(
    planner: &Planner,
    netns: &Netns,
    packet: &Packet,
    steps: &mut Vec<Step>,
) -> Option<Outcome> {
    let (link, mac) = (packet.link.clone()?, packet.mac?);
    if packet.payload != Payload::Protocol(VRRP) || packet.destination != group(packet.family()) {
        return None;
    }
    steps.push(Step::Arrives(packet.link.clone()));
    let objects = &planner.state().objects;
    let source = Key::Source(netns.clone(), link.clone(), mac, packet.source);
    let checked = objects.contains_key(&source) || packet.source == IpAddr::V6(mac.link_local());
    let key = |slot| Key::Receiver(netns.clone(), link.clone(), mac, packet.family(), slot);
    let all = objects.range(key(0)..key(Receiver::MOST));
    let receivers: Vec<&Receiver> = all
        .filter_map(|(_, object)| match object {
            Object::Receiver(receiver) => Some(receiver),
            _ => None,
        })
        .collect();
    if receivers.is_empty() {
        return Some(Outcome::Dropped(Reason::NotAdmitted));
    }
    let heard = receivers.iter().filter(|to| checked || to.any_source);
    let hosts = &planner.intent().hosts;
    let mut verdict = Outcome::Dropped(Reason::Spoofed);
    for to in heard {
        let numbered = |number| hosts.iter().find(|(_, endpoint)| endpoint.number == number);
        let host = to.host.and_then(numbered).map(|(host, _)| host.clone());
        let link = to.to.clone();
        steps.push(Step::Copied {
            link: link.clone(),
            host,
        });
        verdict = match (to.host, verdict) {
            (_, Outcome::Delivered { link }) => Outcome::Delivered { link },
            (None, _) => Outcome::Delivered { link },
            (Some(_), _) => Outcome::Leaves {
                link: Some(link),
                translated: None,
            },
        };
    }
    Some(verdict)
}

fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => [224, 0, 0, 18].into(),
        Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0x12].into(),
    }
}
