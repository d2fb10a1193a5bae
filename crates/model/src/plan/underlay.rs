//! From whom tunnel packets are taken.
//!
//! The main namespace takes VXLAN in from the endpoints of known hosts to its own, and from nobody else: whoever can
//! send to that port could otherwise speak for any port of any private network. What a known host sends into a
//! network with a source that lives here is not its own, either. No connections are tracked of tunnel packets: nothing
//! goes by them, they would cost each packet more than the device itself, and each flow inside an entry outside.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_types::Family;

use super::{
    base::ADMITTED,
    names,
    nft::{self, ACCEPT, DROP, because, rule},
    place::Place,
    tunnel::{PORT, device},
    unit::View,
    why,
};
use crate::{
    neutron::Protocol,
    state::{Field, Hook, KeyType, NftRule, Object, SetName, Statement, Value},
};

/// The base chain, of a private network.
const CHAIN: &str = "underlay";
/// Judges what comes to the port of tunnels and is in no fragments, before connection tracking.
pub const PLAIN_TUNNELS: &str = "plain-tunnels";
/// Judges the rest of it.
pub const TUNNELS: &str = "tunnels";

/// Set: the endpoints of all hosts that this one knows.
fn endpoints(family: Family) -> SetName {
    SetName(format!("endpoints{}", names::digit(family)))
}

/// Set, of a private network: the addresses of its ports on this host.
fn locals(family: Family) -> SetName {
    SetName(format!("locals{}", names::digit(family)))
}

/// Chains and sets; of the main namespace with all endpoints, since two hosts may claim the same one. The rules only
/// where this host has an endpoint, so that what other VXLAN a host has is left alone where it has none of ours.
pub fn underlay(view: View<'_>) -> Vec<Object> {
    match view.place {
        Place::Main => {
            let mut objects = sets(endpoints);
            objects.extend(end(view).into_iter().flat_map(judges));
            let hosts = view.intent.hosts.iter();
            let others = hosts.filter(|(host, _)| **host != view.config.host);
            let addresses: BTreeSet<IpAddr> = others.map(|(_, is)| is.address).collect();
            objects.extend(addresses.into_iter().map(|addr| {
                let set = endpoints(Family::of(addr));
                nft::element(set, [Value::Addr(addr)])
            }));
            objects
        }
        Place::Network(_) => {
            let mut objects = sets(locals);
            objects.push(prerouting());
            objects
        }
        Place::Router(_) => Vec::new(),
    }
}

fn sets(name: fn(Family) -> SetName) -> Vec<Object> {
    let set = |family| nft::set(name(family), [KeyType::Addr(family)]);
    Family::BOTH.map(set).to_vec()
}

/// Where this host's tunnels end, if they do.
pub fn end(view: View<'_>) -> Option<IpAddr> {
    let own = view.intent.hosts.get(&view.config.host);
    own.filter(|_| view.place == Place::Main)
        .map(|own| own.address)
}

/// What is plain is judged at once, and nothing else sees it; what is in fragments, once it is whole.
fn judges(own: IpAddr) -> Vec<Object> {
    let family = Family::of(own);
    let to_us = nft::compare(Field::Daddr(family), Value::Addr(own));
    let is_known = nft::found(vec![Field::Saddr(family).into()], endpoints(family), false);
    let is_plain = nft::is_plain(family, Protocol::UDP.0);
    let unknown = |statements: &[Statement]| {
        let dropped = [statements, &[Statement::Counter, DROP]].concat();
        because(dropped, why::UNKNOWN_ENDPOINT)
    };
    let plain = vec![
        rule([
            to_us.clone(),
            is_known.clone(),
            is_plain.clone(),
            Statement::Notrack,
            ADMITTED,
            ACCEPT,
        ]),
        unknown(&[to_us.clone(), is_plain]),
    ];
    let whole = vec![rule([to_us, is_known, ADMITTED, ACCEPT]), unknown(&[])];
    vec![nft::chain(PLAIN_TUNNELS, plain), nft::chain(TUNNELS, whole)]
}

/// What leaves by tunnels is not tracked, and is for no port, whose program would drop it.
pub fn leaves(view: View<'_>) -> Option<NftRule> {
    let own = end(view)?;
    let is_ours = nft::compare(Field::Saddr(Family::of(own)), Value::Addr(own));
    let [is_udp, to_tunnels] = is_tunnelled();
    Some(rule([
        is_udp,
        to_tunnels,
        is_ours,
        Statement::Notrack,
        ACCEPT,
    ]))
}

/// UDP to the port of tunnels (RFC 7348 section 5).
pub fn is_tunnelled() -> [Statement; 2] {
    [
        nft::protocol(Protocol::UDP.0),
        nft::compare(Field::Dport, Value::Port(PORT)),
    ]
}

/// Before fragments are put together, so that nobody speaks in somebody else's datagram or connection.
fn prerouting() -> Object {
    let by_tunnel = |link| nft::compare(Field::IifName, Value::IfName(link));
    let forged = |family| -> Option<NftRule> {
        let lives_here = nft::found(vec![Field::Saddr(family).into()], locals(family), false);
        let statements = [by_tunnel(device()?), lives_here, Statement::Counter, DROP];
        Some(because(statements, why::LOCAL_SOURCE))
    };
    let rules = Family::BOTH.into_iter().filter_map(forged).collect();
    nft::base_chain(CHAIN, Hook::Prerouting, nft::EACH_FRAGMENT, rules)
}

/// An address of a private network, if it leads to a port of this host.
pub fn local(view: View<'_>, addr: IpAddr) -> Option<Object> {
    let inside = matches!(view.place, Place::Network(_));
    let lives_here = inside && view.port_with(addr).is_some();
    let set = locals(Family::of(addr));
    lives_here.then(|| nft::element(set, [Value::Addr(addr)]))
}
