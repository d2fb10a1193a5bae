//! A router's extra routes: each leads to a neighbour on one of its networks.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_api::{
    error::{ApiError, Result},
    resources,
};
use hextet_model::neutron::{HostRoute, Router};
use hextet_types::Family;
use serde_json::json;

use super::Attached;
use crate::write::Write;

/// Those that are there and these, each once.
pub(super) fn join(there: &[HostRoute], added: &[HostRoute]) -> Vec<HostRoute> {
    let mut all = there.to_vec();
    for route in added {
        if !all.contains(route) {
            all.push(*route);
        }
    }
    all
}

/// Those that are there, but these.
pub(super) fn without(there: &[HostRoute], removed: &[HostRoute]) -> Vec<HostRoute> {
    let stays = |route: &&HostRoute| !removed.contains(route);
    there.iter().filter(stays).copied().collect()
}

/// Every next hop is on a network of the router and none of its own addresses.
///
/// # Errors
///
/// 400 `InvalidRoutes`. 409 `OverQuota`: more than there were, and more than there may be.
pub(super) fn check(
    write: &Write<'_>,
    old: &Router,
    new: &Router,
    attached: &Attached,
) -> Result<()> {
    let limit = write
        .state
        .limit(&new.standard.project_id, resources::ROUTER_ROUTE);
    let count = i64::try_from(new.routes.len()).unwrap_or(i64::MAX);
    if new.routes.len() > old.routes.len() && limit >= 0 && count > limit {
        let name = resources::ROUTER_ROUTE.name;
        let message = format!("Quota exceeded for resources: ['{name}'].");
        return Err(ApiError::conflict("OverQuota", message));
    }
    let own: BTreeSet<IpAddr> = attached.addresses().map(|f| f.ip_address).collect();
    let subnets = attached.addresses().map(|f| f.subnet_id);
    let subnets = subnets.filter_map(|id| write.state.subnets.get(&id));
    let cidrs: BTreeSet<_> = subnets.map(|s| s.cidr).collect();
    let wrong = |route: &HostRoute| {
        let hop = route.nexthop;
        if route.destination.family() != Family::of(hop) {
            return Some("the nexthop is not of the destination's IP version");
        }
        if !cidrs.iter().any(|cidr| cidr.contains(hop)) {
            return Some("the nexthop is not connected with router");
        }
        own.contains(&hop)
            .then_some("the nexthop is used by router")
    };
    match new.routes.iter().find_map(wrong) {
        None => Ok(()),
        Some(reason) => Err(ApiError::new(
            400,
            "InvalidRoutes",
            format!("Invalid format for routes: {}, {reason}", json!(new.routes)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, nexthop: &str) -> HostRoute {
        HostRoute {
            destination: destination.parse().unwrap(),
            nexthop: nexthop.parse().unwrap(),
        }
    }

    #[test]
    fn routes_are_added_once_and_taken_away_where_they_are() {
        let (a, b) = (route("::/0", "fd00::1"), route("::/0", "fd00::2"));
        let c = route("10.0.0.0/8", "10.1.0.1");
        assert_eq!(join(&[a, b], &[b, c, c]), [a, b, c]);
        assert_eq!(without(&[a, b], &[b, c]), [a]);
        assert_eq!(without(&[], &[a]), []);
    }
}
