//! Which addresses a port gets: those that follow from its Ethernet address, those that it asks
//! for, and a free one of each other family.

mod delegated;
mod late;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    error::{ApiError, Result},
    resources,
};
use hextet_model::neutron::{FixedIp, Ipv6Mode, Network, Port, Subnet};
use hextet_types::{Family, Mac, NetworkId, SubnetId};
use rand::Rng;
use serde::Deserialize;

pub use delegated::{attach_delegated, delegate, detach_delegated, is_taken_within, release};
pub use late::{attach_automatic, attach_ipv4, detach_automatic};

use super::{entity::Entity, subnet::can_have};
use crate::{
    keys,
    state::ranges::{Ranges, address, number},
    write::Write,
};

/// An address as a request asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Wanted {
    /// Out of this subnet.
    pub subnet_id: Option<SubnetId>,
    /// This one.
    pub ip_address: Option<IpAddr>,
}

/// For whom addresses are allocated.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// On this network.
    pub network: &'a Network,
    /// With this Ethernet address.
    pub mac: Mac,
    /// `device_owner`: some subnets are for some owners alone.
    pub owner: &'a str,
    /// Gets no addresses but those that it asks for.
    pub only_wanted: bool,
}

/// Whether addresses follow from the subnet's prefix and the port's Ethernet address.
pub fn is_automatic(subnet: &Subnet) -> bool {
    let modes = [subnet.ipv6_address_mode, subnet.ipv6_ra_mode];
    let automatic =
        |m: &Option<Ipv6Mode>| matches!(m, Some(Ipv6Mode::Slaac | Ipv6Mode::Dhcpv6Stateless));
    modes.iter().any(automatic)
}

/// The address that SLAAC gives; none outside of IPv6.
pub fn automatic_address(subnet: &Subnet, mac: Mac) -> Option<FixedIp> {
    match subnet.cidr.addr() {
        IpAddr::V6(prefix) => {
            let ip_address = IpAddr::V6(mac.slaac(prefix));
            Some(FixedIp {
                subnet_id: subnet.id,
                ip_address,
            })
        }
        IpAddr::V4(_) => None,
    }
}

/// Whether ports of that owner get addresses of the subnet; where it serves addresses, whoever
/// serves them does in any case.
fn is_for(subnet: &Subnet, owner: &str) -> bool {
    subnet.service_types.is_empty()
        || subnet.service_types.iter().any(|s| s == owner)
        || (subnet.enable_dhcp && owner == "network:dhcp")
}

/// Those of a network's subnets that are for the port, those first that are for its like alone.
fn eligible(place: Place<'_>, subnets: &[Arc<Subnet>]) -> Result<Vec<Arc<Subnet>>> {
    let fitting = subnets.iter().filter(|s| is_for(s, place.owner));
    let mut fitting: Vec<_> = fitting.cloned().collect();
    if fitting.is_empty() && !subnets.is_empty() {
        return Err(ApiError::conflict(
            "IpAddressGenerationFailureNoMatchingSubnet",
            format!(
                "No valid service subnet for the given device owner, network {}, service type {}.",
                place.network.id, place.owner
            ),
        ));
    }
    fitting.sort_by_key(|s| s.service_types.is_empty());
    Ok(fitting)
}

/// Allocates all addresses of a new port, and claims them.
///
/// # Errors
///
/// 400: an address that the network does not have. 409: one in use, or none free.
pub fn allocate(
    write: &mut Write<'_>,
    place: Place<'_>,
    wanted: Option<&[Wanted]>,
) -> Result<Vec<FixedIp>> {
    let subnets = subnets_of(write, place.network.id);
    let subnets = match wanted {
        Some([]) => subnets
            .into_iter()
            .filter(|s| is_for(s, place.owner))
            .collect(),
        _ => eligible(place, &subnets)?,
    };
    let mut chosen = match wanted {
        Some(wanted) => take_wanted(write, place, &subnets, wanted)?,
        None => take_one_of_each(write, place, &subnets)?,
    };
    if !place.only_wanted {
        for subnet in subnets.iter().filter(|s| is_automatic(s)) {
            if !chosen.iter().any(|f| f.subnet_id == subnet.id) {
                chosen.push(take_automatic(write, place, subnet)?);
            }
        }
    }
    Ok(chosen)
}

/// The addresses of a port whose request or Ethernet address has changed: what stays stays whose it
/// was, the rest is let go or claimed.
///
/// # Errors
///
/// As [`allocate`].
pub fn reallocate(
    write: &mut Write<'_>,
    place: Place<'_>,
    old: &Port,
    wanted: Option<&[Wanted]>,
) -> Result<Vec<FixedIp>> {
    let subnets = subnets_of(write, place.network.id);
    let automatic = |id: SubnetId| subnets.iter().any(|s| s.id == id && is_automatic(s));
    let stays = |f: &FixedIp| !automatic(f.subnet_id) || place.mac == old.mac_address;
    let wanted: Vec<Wanted> = match wanted {
        Some(wanted) => wanted.to_vec(),
        None => old
            .fixed_ips
            .iter()
            .map(|f| Wanted {
                subnet_id: Some(f.subnet_id),
                ip_address: stays(f).then_some(f.ip_address),
            })
            .collect(),
    };
    let mut kept: Vec<FixedIp> = Vec::new();
    let mut open: Vec<Wanted> = Vec::new();
    for want in wanted {
        let same = old.fixed_ips.iter().find(|f| {
            !kept.contains(f)
                && stays(f)
                && want
                    .ip_address
                    .map_or(want.subnet_id == Some(f.subnet_id), |a| a == f.ip_address)
                && want.subnet_id.is_none_or(|s| s == f.subnet_id)
        });
        match same {
            Some(same) => kept.push(*same),
            None => open.push(want),
        }
    }
    // Addresses that follow from a subnet cannot be given up.
    let forced = old
        .fixed_ips
        .iter()
        .filter(|f| automatic(f.subnet_id) && stays(f));
    let forced: Vec<_> = forced.filter(|f| !kept.contains(f)).copied().collect();
    kept.extend(forced);
    for gone in old.fixed_ips.iter().filter(|f| !kept.contains(f)) {
        write.release(keys::address(gone.subnet_id, gone.ip_address));
    }
    let subnets = match open.as_slice() {
        [] => subnets
            .into_iter()
            .filter(|s| is_for(s, place.owner))
            .collect(),
        _ => eligible(place, &subnets)?,
    };
    let mut chosen = kept;
    chosen.extend(take_wanted(write, place, &subnets, &open)?);
    for subnet in subnets
        .iter()
        .filter(|s| is_automatic(s) && !place.only_wanted)
    {
        if !chosen.iter().any(|f| f.subnet_id == subnet.id) {
            chosen.push(take_automatic(write, place, subnet)?);
        }
    }
    Ok(chosen)
}

/// The network's subnets that have addresses; the write depends on there being no others.
fn subnets_of(write: &mut Write<'_>, network: NetworkId) -> Vec<Arc<Subnet>> {
    write.quiet(keys::subnets_of(network));
    let all = write.state.subnets_of(network);
    all.filter(|s| s.delegation.is_none()).cloned().collect()
}

fn claim(write: &mut Write<'_>, subnet: &Subnet, fixed: FixedIp) -> bool {
    let key = keys::address(fixed.subnet_id, fixed.ip_address);
    let taken = write
        .state
        .owner(fixed.subnet_id, fixed.ip_address)
        .is_some();
    if (taken && !write.has_released(&key)) || !write.claim(key, Bytes::new()) {
        return false;
    }
    write
        .taken
        .entry(subnet.id)
        .or_default()
        .insert(number(fixed.ip_address));
    write.exists(subnet.key());
    true
}

fn in_use(network: &Network, address: IpAddr) -> ApiError {
    ApiError::conflict(
        "IpAddressInUse",
        format!(
            "Unable to complete operation for network {}. The IP address {address} is in use.",
            network.id
        ),
    )
}

fn take_automatic(write: &mut Write<'_>, place: Place<'_>, subnet: &Subnet) -> Result<FixedIp> {
    let fixed = automatic_address(subnet, place.mac)
        .ok_or_else(|| ApiError::invalid_input("SLAAC is of IPv6 alone"))?;
    if claim(write, subnet, fixed) {
        Ok(fixed)
    } else {
        Err(in_use(place.network, fixed.ip_address))
    }
}

/// One IPv4 address, and one IPv6 address by DHCPv6, out of the first subnet that has one free.
fn take_one_of_each(
    write: &mut Write<'_>,
    place: Place<'_>,
    subnets: &[Arc<Subnet>],
) -> Result<Vec<FixedIp>> {
    let mut chosen = Vec::new();
    for family in Family::BOTH {
        let mut there = subnets
            .iter()
            .filter(|s| s.family() == family && !is_automatic(s))
            .peekable();
        if there.peek().is_none() {
            continue;
        }
        let free = there.find_map(|subnet| take_free(write, subnet));
        chosen.push(free.ok_or_else(|| exhausted(place.network.id))?);
    }
    Ok(chosen)
}

fn exhausted(network: NetworkId) -> ApiError {
    ApiError::conflict(
        "IpAddressGenerationFailure",
        format!("No more IP addresses available on network {network}."),
    )
}

fn take_wanted(
    write: &mut Write<'_>,
    place: Place<'_>,
    subnets: &[Arc<Subnet>],
    wanted: &[Wanted],
) -> Result<Vec<FixedIp>> {
    let mut chosen = Vec::new();
    for want in wanted {
        let subnet = subnet_for(write, place, subnets, *want)?;
        if is_automatic(subnet) {
            check_automatic(place, subnet, *want)?;
            chosen.push(take_automatic(write, place, subnet)?);
            continue;
        }
        let fixed = match want.ip_address {
            None => take_free(write, subnet).ok_or_else(|| exhausted(place.network.id))?,
            Some(ip_address) => {
                let fixed = FixedIp {
                    subnet_id: subnet.id,
                    ip_address,
                };
                if subnet.gateway_ip == Some(ip_address) || !claim(write, subnet, fixed) {
                    return Err(in_use(place.network, ip_address));
                }
                fixed
            }
        };
        chosen.push(fixed);
    }
    Ok(chosen)
}

/// Claims the address that a subnet's clients are told as their router: for a router alone.
///
/// # Errors
///
/// 409: somebody has it.
pub fn take_gateway(
    write: &mut Write<'_>,
    network: &Network,
    subnet: &Subnet,
    ip_address: IpAddr,
) -> Result<FixedIp> {
    let fixed = FixedIp {
        subnet_id: subnet.id,
        ip_address,
    };
    if claim(write, subnet, fixed) {
        Ok(fixed)
    } else {
        Err(in_use(network, ip_address))
    }
}

/// Claims one IPv4 address: the one that is wanted, out of the subnet that is wanted, or any.
///
/// # Errors
///
/// As [`allocate`].
pub fn allocate_ipv4(
    write: &mut Write<'_>,
    place: Place<'_>,
    wanted: Option<Wanted>,
) -> Result<FixedIp> {
    let subnets = eligible(place, &subnets_of(write, place.network.id))?;
    let subnets: Vec<_> = subnets
        .into_iter()
        .filter(|s| s.family() == Family::V4)
        .collect();
    match wanted {
        Some(wanted) => take_wanted(write, place, &subnets, &[wanted])?.pop(),
        None => subnets.iter().find_map(|subnet| take_free(write, subnet)),
    }
    .ok_or_else(|| exhausted(place.network.id))
}

/// Of addresses that follow from the Ethernet address, only that one can be asked for.
fn check_automatic(place: Place<'_>, subnet: &Subnet, want: Wanted) -> Result<()> {
    let own = automatic_address(subnet, place.mac).map(|f| f.ip_address);
    match (want.ip_address, own) {
        (Some(wanted), Some(own)) if wanted != own => Err(ApiError::new(
            400,
            "AllocationOnAutoAddressSubnet",
            format!(
                "IPv6 address {wanted} cannot be directly assigned to a port on subnet {} as the \
                 subnet is configured for automatic addresses; this port's is {own}.",
                subnet.id
            ),
        )),
        _ => Ok(()),
    }
}

fn subnet_for<'s>(
    write: &Write<'_>,
    place: Place<'_>,
    subnets: &'s [Arc<Subnet>],
    want: Wanted,
) -> Result<&'s Arc<Subnet>> {
    let bad = |kind, what: &str, a: IpAddr| {
        let text = format!("IP address {a} is not a valid IP for the specified {what}.");
        Err(ApiError::new(400, kind, text))
    };
    match (want.subnet_id, want.ip_address) {
        (Some(id), wanted) => {
            let Some(subnet) = subnets.iter().find(|s| s.id == id) else {
                if write.state.subnets.get(&id).is_none() {
                    return Err(resources::SUBNET.missing(id));
                }
                return Err(ApiError::invalid_input(format!(
                    "Failed to create port on network {}, because fixed_ips included invalid subnet \
                     {id}",
                    place.network.id
                )));
            };
            match wanted.filter(|a| !can_have(subnet.cidr, *a)) {
                Some(a) => bad("InvalidIpForSubnet", "subnet", a),
                None => Ok(subnet),
            }
        }
        (None, Some(a)) => match subnets.iter().find(|s| can_have(s.cidr, a)) {
            Some(subnet) => Ok(subnet),
            None => bad("InvalidIpForNetwork", "network", a),
        },
        (None, None) => Err(ApiError::invalid_input(
            "IP allocation requires subnet_id or ip_address",
        )),
    }
}

/// A free address of the subnet's pools: from a random place on, so that writers at the same time
/// seldom choose the same, and what was given back rests for a while.
fn take_free(write: &mut Write<'_>, subnet: &Arc<Subnet>) -> Option<FixedIp> {
    let like = subnet.cidr.addr();
    let size = |start: IpAddr, end: IpAddr| number(end) - number(start);
    let pools: Vec<_> = subnet
        .allocation_pools
        .iter()
        .map(|p| (p.start, p.end))
        .collect();
    let total = pools
        .iter()
        .fold(0u128, |sum, (s, e)| sum.saturating_add(size(*s, *e)));
    let mut skip = rand::rng().random_range(0..=total);
    let at = pools.iter().position(|(s, e)| {
        let here = skip <= size(*s, *e);
        if !here {
            skip -= size(*s, *e);
        }
        here
    })?;
    let from = number(pools.get(at)?.0) + skip;
    let spans = |i: usize| pools.get(i).map(|(s, e)| (number(*s), number(*e)));
    let mut order = vec![(from, spans(at)?.1)];
    order.extend((1..pools.len()).filter_map(|i| spans((at + i) % pools.len())));
    order.push((spans(at)?.0, from));
    let free = order
        .into_iter()
        .find_map(|(start, end)| free_between(write, subnet.id, start, end))?;
    let fixed = FixedIp {
        subnet_id: subnet.id,
        ip_address: address(free, like),
    };
    claim(write, subnet, fixed).then_some(fixed)
}

/// The first number that is free in the state and not taken by this write.
fn free_between(write: &Write<'_>, subnet: SubnetId, start: u128, end: u128) -> Option<u128> {
    let none = Ranges::default();
    let allocated = write
        .state
        .addresses
        .get(&subnet)
        .map_or(&none, |a| &a.ranges);
    let taken = write.taken.get(&subnet).unwrap_or(&none);
    let mut at = start;
    loop {
        let free = allocated.free_from(at, end)?;
        at = taken.free_from(free, end)?;
        if at == free {
            return Some(at);
        }
    }
}
