//! What a prefix holds: its gateway, the addresses that ports can have, and its allocation pools.

use std::net::IpAddr;

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::AllocationPool;
use hextet_types::{Family, Prefix};

use crate::state::ranges::{address, number};

/// IPv4: the first address; IPv6: the subnet-router anycast address (RFC 4291 §2.6.1), or as in
/// Neutron the one behind it when a pool has chosen the prefix.
pub fn default_gateway(cidr: Prefix, chosen: bool) -> IpAddr {
    match cidr.family() {
        Family::V6 if chosen && !cidr.is_host() => {
            address(number(cidr.addr()).saturating_add(1), cidr.addr())
        }
        Family::V4 => address(number(cidr.addr()).saturating_add(1), cidr.addr()),
        Family::V6 => cidr.addr(),
    }
}

/// The first and the last address that ports can have.
fn usable_ends(cidr: Prefix) -> (u128, u128) {
    let (first, last) = (number(cidr.addr()), number(cidr.last()));
    match cidr.family() {
        Family::V4 if cidr.len() <= 30 => (first + 1, last - 1),
        Family::V6 if first < last => (first + 1, last),
        _ => (first, last),
    }
}

/// Whether a port can have the address at all.
pub fn can_have(cidr: Prefix, candidate: IpAddr) -> bool {
    let (first, last) = usable_ends(cidr);
    cidr.contains(candidate) && (first..=last).contains(&number(candidate))
}

pub fn default_pools(cidr: Prefix, gateway: Option<IpAddr>) -> Vec<AllocationPool> {
    let (first, last) = usable_ends(cidr);
    let like = cidr.addr();
    let pool = |a: u128, b: u128| AllocationPool {
        start: address(a, like),
        end: address(b, like),
    };
    match gateway.filter(|g| cidr.contains(*g)).map(number) {
        Some(g) if (first..=last).contains(&g) => {
            let below = (first < g).then(|| pool(first, g - 1));
            let above = (g < last).then(|| pool(g + 1, last));
            below.into_iter().chain(above).collect()
        }
        _ => vec![pool(first, last)],
    }
}

pub fn checked_pools(
    cidr: Prefix,
    gateway: Option<IpAddr>,
    mut pools: Vec<AllocationPool>,
) -> Result<Vec<AllocationPool>> {
    let (first, last) = usable_ends(cidr);
    let show = |p: &AllocationPool| format!("{}-{}", p.start, p.end);
    for pool in &pools {
        let (start, end) = (number(pool.start), number(pool.end));
        let families = [pool.start, pool.end].map(Family::of);
        if families != [cidr.family(); 2] || start > end {
            let message = format!("The allocation pool {} is not valid.", show(pool));
            return Err(ApiError::new(400, "InvalidAllocationPool", message));
        }
        if start < first || end > last {
            return Err(ApiError::new(
                400,
                "OutOfBoundsAllocationPool",
                format!(
                    "The allocation pool {} spans beyond the subnet cidr {cidr}.",
                    show(pool)
                ),
            ));
        }
        if let Some(gateway) = gateway.filter(|g| (start..=end).contains(&number(*g))) {
            return Err(ApiError::conflict(
                "GatewayConflictWithAllocationPools",
                format!(
                    "Gateway ip {gateway} conflicts with allocation pool {}.",
                    show(pool)
                ),
            ));
        }
    }
    pools.sort_unstable();
    if let Some([a, b]) = pools
        .windows(2)
        .find(|w| matches!(w, [a, b] if a.end >= b.start))
    {
        return Err(ApiError::conflict(
            "OverlappingAllocationPools",
            format!(
                "Found overlapping allocation pools: {} {} for subnet {cidr}.",
                show(a),
                show(b)
            ),
        ));
    }
    Ok(pools)
}
