//! What a port may send from, and what goes with port security.

use hextet_api::error::{ApiError, Result};
use hextet_model::{
    intent::RoutingDomain,
    neutron::{AddressPair, Port},
};
use hextet_types::Prefix;

use crate::write::Write;

/// Security groups of one port.
const MAX_GROUPS: usize = 50;

/// A member's port on a routed network sends from addresses of that network alone; what else it may send
/// from, an administrator decides. Within a private network that is its owner's business.
pub fn check_member_sources(write: &Write<'_>, port: &Port) -> Result<()> {
    if write.caller.admin || write.state.domain_of(port.network_id) != RoutingDomain::Routed {
        return Ok(());
    }
    if !port.port_security_enabled {
        return Err(ApiError::new(
            403,
            "PolicyNotAuthorized",
            "rule:port_security_enabled is disallowed by policy: without port security a port of a \
             routed network could send from anybody's address; an administrator may allow it.",
        ));
    }
    let subnets: Vec<Prefix> = write
        .state
        .subnets_of(port.network_id)
        .map(|subnet| subnet.cidr)
        .collect();
    let foreign = |pair: &&AddressPair| !subnets.iter().any(|cidr| cidr.covers(pair.ip_address));
    let Some(pair) = port.allowed_address_pairs.iter().find(foreign) else {
        return Ok(());
    };
    Err(ApiError::new(
        403,
        "PolicyNotAuthorized",
        format!(
            "rule:allowed_address_pairs is disallowed by policy: {} lies in no subnet of network {}; \
             an administrator may allow it.",
            pair.ip_address, port.network_id
        ),
    ))
}

/// Without source checks there are neither groups nor address pairs.
pub fn check_security(port: &Port, old: Option<&Port>) -> Result<()> {
    if port.security_groups.len() > MAX_GROUPS {
        return Err(ApiError::invalid_input(format!(
            "a port has at most {MAX_GROUPS} security groups"
        )));
    }
    if port.port_security_enabled {
        return Ok(());
    }
    if !port.security_groups.is_empty() {
        let was_on = old.is_none_or(|o| o.port_security_enabled);
        return Err(if was_on {
            ApiError::conflict(
                "PortSecurityPortHasSecurityGroup",
                "Port has security group associated. Cannot disable port security or IP address \
                 until security group is removed.",
            )
        } else {
            ApiError::new(
                400,
                "PortSecurityAndIPRequiredForSecurityGroups",
                "Port security must be enabled and port must have an IP address in order to use \
                 security groups.",
            )
        });
    }
    if !port.allowed_address_pairs.is_empty() {
        return Err(ApiError::conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        ));
    }
    Ok(())
}
