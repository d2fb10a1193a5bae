//! Prefixes that a port's workload hands on (RFC 8415 §6.3): they lead to the workload, and its host announces them.

use std::net::IpAddr;

use hextet_types::Prefix;

use super::{
    address::{self, PORT_METRIC},
    index::{Name, Referrer},
    place::Place,
    unit::{Output, View},
};
use crate::{
    neutron::Port,
    state::{Announcement, NextHop, RouteKind, Scope},
};

/// The ways to a port's prefixes; to a standby there is none.
pub fn of_port(view: View<'_>, port: &Port, output: &mut Output) {
    if view.intent.standbys.contains(&port.id) {
        return;
    }
    for prefix in port.delegated_prefixes.iter().map(|d| d.prefix) {
        // Its neighbour stands, whichever link-local address the workload has made itself.
        let next_hop = NextHop {
            via: Some(IpAddr::V6(port.mac_address.link_local())),
            link: port.if_name(),
        };
        let kind = RouteKind::Unicast(vec![next_hop]);
        output
            .objects
            .push(address::route(prefix, PORT_METRIC, kind, None));
        if view.place == Place::Main && !view.config.aggregated(prefix) {
            let scope = Scope::Global;
            output.announce.push((prefix, Announcement { scope }));
        }
    }
}

/// Whether the prefix is that of a subnet for delegation.
pub fn is_of_one(view: View<'_>, prefix: Prefix) -> bool {
    let mut subnets = view.index.referrers(&Name::Inside(prefix));
    subnets.any(|who| match who {
        Referrer::Subnet(id) => view.subnet(id).is_some_and(|s| s.delegation.is_some()),
        _ => false,
    })
}
