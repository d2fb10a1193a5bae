//! What comes to ports of the host's own IPv4 addresses and is for ports of workloads (`hextet:exposed`).
//!
//! One map for each protocol, by the host's port: a packet costs one lookup, however many are exposed. Only what comes in is
//! translated, from outside and from workloads; the host itself has its workloads' own addresses. Where several ports
//! expose the same, the first has it.

use std::net::IpAddr;

use hextet_types::{Family, PortId};

use super::{
    index::Name,
    names,
    nft::{self, rule},
    place::Place,
    unit::View,
};
use crate::{
    neutron::{Exposure, ForwardedProtocol, Port},
    state::{Field, Hook, KeyType, NatEnd, Object, Statement, Value},
};

const PROTOCOLS: [ForwardedProtocol; 4] = [
    ForwardedProtocol::Tcp,
    ForwardedProtocol::Udp,
    ForwardedProtocol::Dccp,
    ForwardedProtocol::Sctp,
];
/// `RTN_LOCAL` of rtnetlink(7).
const LOCAL: u32 = 2;

/// The chain and its maps, as long as anything is exposed.
pub fn chain(view: View<'_>) -> Vec<Object> {
    if view.place != Place::Main || !view.index.is_named(&Name::Exposing) {
        return Vec::new();
    }
    let to_us = nft::compare(Field::FibDaddrType, Value::U32(LOCAL));
    let map = |protocol| names::exposed(ForwardedProtocol::number(protocol));
    let rules = PROTOCOLS.map(|protocol| {
        rule([
            nft::compare(Field::NfProto, Value::Family(Family::V4)),
            nft::protocol(protocol.number()),
            to_us.clone(),
            Statement::NatMap(
                NatEnd::Destination,
                vec![Field::Dport.into()],
                map(protocol),
                true,
            ),
        ])
    });
    let end = [KeyType::Addr(Family::V4), KeyType::InetService];
    let maps = PROTOCOLS.map(|protocol| nft::data_map(map(protocol), [KeyType::InetService], end));
    let chain = nft::base_chain("exposed", Hook::Prerouting, nft::DSTNAT, rules.into());
    maps.into_iter().chain([chain]).collect()
}

/// Where a port of the host leads.
pub fn port(view: View<'_>, protocol: ForwardedProtocol, external_port: u16) -> Vec<Object> {
    let name = Name::Exposed(protocol, external_port);
    let mut ports = view.index.ports(&name);
    let end = ports.find_map(|id| end(view, id, protocol, external_port));
    let element = end.map(|(addr, port)| {
        let key = [Value::Port(external_port)];
        let to = [Value::Addr(addr), Value::Port(port)];
        nft::data_element(names::exposed(protocol.number()), key, to)
    });
    element.into_iter().collect()
}

fn end(
    view: View<'_>,
    id: PortId,
    protocol: ForwardedProtocol,
    external_port: u16,
) -> Option<(IpAddr, u16)> {
    let port = view.plugged(id).filter(|port| view.is_up(port))?;
    let mut all = port.exposed.iter();
    let exposure = all.find(|e| (e.protocol, e.external_port) == (protocol, external_port))?;
    Some((address(port)?, exposure.internal_port))
}

/// Where what is exposed goes.
pub fn address(port: &Port) -> Option<IpAddr> {
    port.addresses(Family::V4).next()
}

/// What a port exposed and does not any more, or otherwise.
pub fn taken_back<'a>(
    old: &'a Port,
    new: Option<&'a Port>,
) -> impl Iterator<Item = &'a Exposure> + 'a {
    let same = new.filter(|new| address(new) == address(old) && new.admin_state_up);
    let kept = same.map_or_else(Default::default, |new| new.exposed.as_slice());
    old.exposed.iter().filter(move |e| !kept.contains(e))
}
