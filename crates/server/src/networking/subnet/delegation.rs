//! Subnets out of which ports get prefixes for their workloads to hand on, and not addresses.

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{Network, NetworkType, Subnet};
use hextet_types::Family;

use super::super::allocate::is_taken_within;
use crate::write::Write;

/// A subnet for delegation has prefixes and no addresses, so there is nothing that would say anything of these.
///
/// # Errors
///
/// 400: it says something of addresses, or nothing can be cut out of it.
pub fn check(network: &Network, subnet: &Subnet) -> Result<()> {
    let Some(delegation) = subnet.delegation else {
        return Ok(());
    };
    let refuse = |text: String| {
        Err(ApiError::invalid_input(format!(
            "hextet:delegation: {text}"
        )))
    };
    let cidr = subnet.cidr;
    if subnet.family() == Family::V4 {
        return refuse("prefixes are delegated of IPv6 alone (RFC 8415)".to_owned());
    }
    if !(cidr.len()..=64).contains(&delegation.prefixlen) {
        return refuse(format!(
            "no /{} can be cut out of {cidr}: take a prefixlen from {} to 64, of a subnet of a /64 or more of them",
            delegation.prefixlen,
            cidr.len()
        ));
    }
    if network.network_type == NetworkType::Vxlan {
        return refuse(
            "on a private network nobody outside would find what is delegated: make the subnet on a routed, flat or VLAN network"
                .to_owned(),
        );
    }
    let says_more = [
        ("gateway_ip", subnet.gateway_ip.is_some()),
        ("allocation_pools", !subnet.allocation_pools.is_empty()),
        ("ipv6_ra_mode", subnet.ipv6_ra_mode.is_some()),
        ("ipv6_address_mode", subnet.ipv6_address_mode.is_some()),
        ("enable_dhcp=false", !subnet.enable_dhcp),
    ];
    match says_more.iter().find(|(_, says)| *says) {
        Some((what, _)) => refuse(format!(
            "a subnet of which ports get prefixes has no addresses: leave out {what}"
        )),
        None => Ok(()),
    }
}

/// Whether two subnets may overlap: on one network one for delegation and one for addresses, of which no port has anything
/// yet out of the other.
pub fn is_beside(write: &Write<'_>, one: &Subnet, other: &Subnet) -> bool {
    let (delegates, has_addresses) = match (one.delegation, other.delegation) {
        (Some(_), None) => (one, other),
        (None, Some(_)) => (other, one),
        _ => return false,
    };
    one.network_id == other.network_id
        && delegates.cidr.covers(has_addresses.cidr)
        && !is_taken_within(write, delegates, has_addresses.cidr)
}
