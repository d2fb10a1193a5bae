//! The ports of one router, as a write leaves them so far.

use std::sync::Arc;

use hextet_api::error::Result;
use hextet_model::neutron::{FixedIp, Port, Router, Subnet};

use super::{any_ipv6, bad};
use crate::state::State;

/// A router's ports.
#[derive(Default)]
pub(super) struct Attached {
    /// On its networks.
    pub interfaces: Vec<Arc<Port>>,
    /// On external networks, in the order of the router's gateways.
    pub gateways: Vec<Arc<Port>>,
}

impl Attached {
    /// As the state has them.
    pub fn of(state: &State, router: &Router) -> Attached {
        let interfaces = state.interfaces_of(router.id);
        let gateways = router.gateways.iter();
        Attached {
            interfaces: interfaces.map(|row| Arc::clone(&row.value)).collect(),
            gateways: gateways
                .filter_map(|g| state.ports.get(&g.port_id))
                .cloned()
                .collect(),
        }
    }

    /// Whether its first gateway has an IPv6 address.
    pub fn has_ipv6_outside(&self) -> bool {
        self.gateways
            .first()
            .is_some_and(|p| any_ipv6(&p.fixed_ips))
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &FixedIp> {
        let ports = self.interfaces.iter().chain(&self.gateways);
        ports.flat_map(|p| &p.fixed_ips)
    }

    /// No prefix of the router's is part of another: those of its interfaces, and all of its
    /// external networks. A network may be named to which it is to have one gateway more.
    ///
    /// # Errors
    ///
    /// 400.
    pub fn check_apart(&self, state: &State, new: &[Arc<Subnet>], outside: bool) -> Result<()> {
        for port in &self.interfaces {
            for fixed in &port.fixed_ips {
                if new.iter().any(|s| s.id == fixed.subnet_id) {
                    let reason = format!("Router already has a port on subnet {}", fixed.subnet_id);
                    return Err(bad(reason));
                }
            }
        }
        let inside = self.interfaces.iter().flat_map(|p| &p.fixed_ips);
        let inside = inside.filter_map(|f| state.subnets.get(&f.subnet_id));
        let external = self
            .gateways
            .iter()
            .flat_map(|p| state.subnets_of(p.network_id));
        for there in inside {
            check_disjoint(there, new)?;
        }
        for there in external {
            if !(outside && new.iter().any(|s| s.id == there.id)) {
                check_disjoint(there, new)?;
            }
        }
        Ok(())
    }
}

fn check_disjoint(there: &Subnet, new: &[Arc<Subnet>]) -> Result<()> {
    match new.iter().find(|s| s.cidr.overlaps(there.cidr)) {
        None => Ok(()),
        Some(new) => Err(bad(format!(
            "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
            new.cidr, new.id, there.cidr, there.id
        ))),
    }
}

#[cfg(test)]
mod tests {
    use hextet_types::{NetworkId, Prefix, ProjectId, SubnetId};
    use serde_json::json;

    use super::*;

    fn subnet(cidr: &str) -> Arc<Subnet> {
        let cidr: Prefix = cidr.parse().unwrap();
        let standard = json!({
            "id": SubnetId(uuid::Uuid::new_v4()), "network_id": NetworkId(uuid::Uuid::nil()),
            "project_id": ProjectId("p".into()), "cidr": cidr, "gateway_ip": null,
            "allocation_pools": [], "enable_dhcp": true, "revision_number": 1,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        Arc::new(serde_json::from_value(standard).unwrap())
    }

    #[test]
    fn a_router_s_prefixes_are_apart_in_both_families() {
        let table = [
            ("10.0.0.0/24", "10.0.1.0/24", true),
            ("10.0.0.0/24", "10.0.0.128/25", false),
            ("10.0.0.0/16", "10.0.3.0/24", false),
            ("2001:db8::/64", "2001:db8:0:1::/64", true),
            ("2001:db8::/48", "2001:db8:0:1::/64", false),
            ("10.0.0.0/24", "2001:db8::/64", true),
        ];
        for (a, b, apart) in table {
            let (a, b) = (subnet(a), subnet(b));
            assert_eq!(
                check_disjoint(&a, &[Arc::clone(&b)]).is_ok(),
                apart,
                "{} {}",
                a.cidr,
                b.cidr
            );
            let refused = check_disjoint(&b, &[a]).map_err(|e| (e.status, e.kind));
            assert_eq!(
                refused,
                if apart {
                    Ok(())
                } else {
                    Err((400, "BadRequest"))
                }
            );
        }
    }
}
