//! Where a new subnet's prefix comes from: the request, or a subnet pool.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    error::{ApiError, Result},
    request::Input,
    resources,
};
use hextet_model::{
    intent::RoutingDomain,
    neutron::{Network, Subnet, SubnetPool},
};
use hextet_types::{AddressScopeId, Family, NetworkId, Prefix, ProjectId, SubnetId, SubnetPoolId};

use super::super::{
    address_scope::{family, ip_version},
    entity::Entity,
    subnet_pool::affinity_error,
};
use super::rivals;
use crate::{
    keys,
    state::{State, prefixes::PrefixSet, space},
    write::Write,
};

/// The prefix of a new subnet.
pub struct Source {
    /// The prefix.
    pub cidr: Prefix,
    /// The pool that it is out of.
    pub pool: Option<Arc<SubnetPool>>,
    /// The pool has chosen it.
    pub chosen: bool,
}

fn bad(reason: &str) -> ApiError {
    let text = format!("Bad subnets request: {reason}.");
    ApiError::new(400, "BadRequest", text)
}

/// Decides on the prefix of a new subnet.
///
/// # Errors
///
/// 400: the request contradicts itself or the pool. 404: no such pool. 409: no room.
pub fn source(write: &mut Write<'_>, network: &Network, input: &Input) -> Result<Source> {
    let cidr: Option<Prefix> = input.get("cidr")?;
    let length: Option<u64> = input.get("prefixlen")?;
    if cidr.is_some() && length.is_some() {
        return Err(bad("cidr and prefixlen must not be supplied together"));
    }
    let asked = family(input.take("ip_version")?)?;
    let pool = pool_for(write, input, cidr.map_or(asked, Prefix::family))?;
    let Some(pool) = pool else {
        let cidr =
            cidr.ok_or_else(|| bad("a subnetpool must be specified in the absence of a cidr"))?;
        check_mates(write, network, None, asked)?;
        return Ok(Source {
            cidr,
            pool: None,
            chosen: false,
        });
    };
    if cidr.is_none() && input.names("allocation_pools") {
        return Err(bad(
            "allocation_pools allowed only for specific subnet requests.",
        ));
    }
    if asked != pool.family {
        let (asked, there) = (ip_version(asked), ip_version(pool.family));
        return Err(bad(&format!(
            "Cannot allocate IPv{asked} subnet from IPv{there} subnet pool"
        )));
    }
    check_mates(write, network, Some(&pool), asked)?;
    let project: ProjectId = input.take("project_id")?;
    let length = length.unwrap_or(pool.default_prefixlen.into());
    let gateway: Option<IpAddr> = input.get("gateway_ip")?;
    let specific = match (cidr, gateway) {
        (Some(cidr), _) => Some(cidr),
        (None, Some(gateway)) => {
            let length = check_length(&pool, length)?;
            Some(Prefix::new(gateway, length).map_err(ApiError::invalid_input)?)
        }
        (None, None) => None,
    };
    let length = check_length(&pool, specific.map_or(length, |p| p.len().into()))?;
    check_quota(write, &pool, &project, length)?;
    write.quiet(keys::allocations_of(pool.id));
    let cidr = match specific {
        Some(cidr) => take_specific(write, &pool, cidr)?,
        None => take_any(write, &pool, network.id, length)?,
    };
    Ok(Source {
        cidr,
        pool: Some(pool),
        chosen: specific.is_none(),
    })
}

/// Claims a new subnet's part of its pool.
pub fn claim(write: &mut Write<'_>, pool: SubnetPoolId, subnet: SubnetId) {
    write.claim(keys::allocation(pool, subnet), Bytes::new());
}

fn pool_for(
    write: &mut Write<'_>,
    input: &Input,
    family: Family,
) -> Result<Option<Arc<SubnetPool>>> {
    let named: Option<SubnetPoolId> = input.get("subnetpool_id")?;
    let by_default: bool = input.take("use_default_subnetpool")?;
    let (state, caller) = (write.state, write.caller);
    let row = match (named, by_default) {
        (Some(_), true) => {
            return Err(bad(
                "subnetpool_id and use_default_subnetpool cannot both be specified",
            ));
        }
        (Some(id), false) => {
            let row = state.pools.row(&id);
            let row = row.filter(|r| r.value.is_visible(state, caller));
            row.ok_or_else(|| resources::SUBNET_POOL.missing(id))?
        }
        (None, true) => {
            let mut all = state.pools.values();
            let such = |p: &&Arc<SubnetPool>| {
                p.is_default && p.family == family && p.is_visible(state, caller)
            };
            let found = all.find(such).and_then(|p| state.pools.row(&p.id));
            found.ok_or_else(|| {
                let version = ip_version(family);
                bad(&format!("No default subnetpool found for IPv{version}"))
            })?
        }
        (None, false) => return Ok(None),
    };
    write.unchanged(row.value.key(), row.mod_revision);
    Ok(Some(Arc::clone(&row.value)))
}

/// The scope of a network's subnets of a family.
pub fn scope_of(state: &State, network: &Network, family: Family) -> Option<AddressScopeId> {
    let pools = state
        .subnets_of(network.id)
        .filter(|s| s.family() == family)
        .filter_map(|s| state.pools.get(&s.subnetpool_id?));
    pools.filter_map(|p| p.address_scope_id).next()
}

/// Subnets of one network and family are out of one pool, or of pools of one scope.
fn check_mates(
    write: &mut Write<'_>,
    network: &Network,
    pool: Option<&SubnetPool>,
    asked: Family,
) -> Result<()> {
    let state = write.state;
    let family = pool.map_or(asked, |p| p.family);
    let new = write.new_subnets.iter();
    let new_mates = new.filter(|s| s.network_id == network.id);
    let mates = state.subnets_of(network.id).chain(new_mates);
    let pools: Vec<_> = mates
        .filter(|s| s.family() == family)
        .map(|s| s.subnetpool_id)
        .collect();
    let scope = |id: &SubnetPoolId| state.pools.get(id)?.address_scope_id;
    let network_scope = pools.iter().flatten().find_map(scope);
    let fits = match (network_scope, pool) {
        (Some(scope), Some(pool)) if pool.address_scope_id != Some(scope) => {
            return Err(affinity_error());
        }
        (Some(_), Some(_)) => true,
        (None, Some(pool)) => pools.iter().all(|p| *p == Some(pool.id)),
        (_, None) => pools.iter().all(Option::is_none),
    };
    if fits {
        write.quiet(keys::subnets_of(network.id));
        return Ok(());
    }
    Err(ApiError::new(
        400,
        "NetworkSubnetPoolAffinityError",
        "Subnets hosted on the same network must be allocated from the same subnet pool.",
    ))
}

fn check_length(pool: &SubnetPool, length: u64) -> Result<u8> {
    let refuse = |kind, bound: &str, is: u8| {
        Err(ApiError::new(
            400,
            kind,
            format!(
                "Unable to allocate subnet with prefix length {length}, {bound} allowed prefix is \
                 {is}."
            ),
        ))
    };
    match u8::try_from(length) {
        Ok(length) if length < pool.min_prefixlen => refuse(
            "MinPrefixSubnetAllocationError",
            "minimum",
            pool.min_prefixlen,
        ),
        Ok(length) if length <= pool.max_prefixlen => Ok(length),
        _ => refuse(
            "MaxPrefixSubnetAllocationError",
            "maximum",
            pool.max_prefixlen,
        ),
    }
}

/// What a project has of the pool stays within the pool's quota.
fn check_quota(
    write: &Write<'_>,
    pool: &SubnetPool,
    project: &ProjectId,
    length: u8,
) -> Result<()> {
    let Some(quota) = pool.default_quota.filter(|q| *q > 0) else {
        return Ok(());
    };
    let limit = u128::from(quota).saturating_mul(space::quota_unit(pool.family));
    let used = write
        .state
        .spaces
        .get(&pool.id)
        .map_or(0, |s| s.used(project));
    let new = write
        .new_subnets
        .iter()
        .filter(|s| s.subnetpool_id == Some(pool.id) && s.standard.project_id == *project);
    let wanted = Prefix::new(pool.family.unspecified(), length).map_or(0, space::size);
    let all = new.fold(used.saturating_add(wanted), |sum, s| {
        sum.saturating_add(space::size(s.cidr))
    });
    if all <= limit {
        return Ok(());
    }
    let text = "Per-project subnet pool prefix quota exceeded.";
    Err(ApiError::conflict("SubnetPoolQuotaExceeded", text))
}

/// Deviation: Neutron answers 500, which says that the server is broken.
fn failed(reason: &str) -> ApiError {
    let text = format!("Failed to allocate subnet: {reason}.");
    ApiError::conflict("SubnetAllocationError", text)
}

fn free<'s>(write: &Write<'s>, pool: &SubnetPool) -> Result<&'s PrefixSet> {
    let space = write.state.spaces.get(&pool.id);
    space
        .and_then(|s| s.free())
        .ok_or_else(|| resources::SUBNET_POOL.missing(pool.id))
}

fn take_specific(write: &Write<'_>, pool: &SubnetPool, cidr: Prefix) -> Result<Prefix> {
    let new = |s: &Arc<Subnet>| s.subnetpool_id == Some(pool.id) && s.cidr.overlaps(cidr);
    if free(write, pool)?.covers(cidr) && !write.new_subnets.iter().any(new) {
        return Ok(cidr);
    }
    Err(failed(
        "Cannot allocate requested subnet from the available set of prefixes",
    ))
}

/// The best place for a subnet that overlaps no other of its routing table: what somebody has there by hand in
/// a pool's prefixes is not free. Nor is what routed networks have, for a private one either: a router may have
/// its addresses reached from everywhere.
fn take_any(
    write: &Write<'_>,
    pool: &SubnetPool,
    network: NetworkId,
    length: u8,
) -> Result<Prefix> {
    let mut free = Cow::Borrowed(free(write, pool)?);
    let foreign = || {
        let stored = write.state.subnets.values();
        let routed =
            stored.filter(|s| write.state.domain_of(s.network_id) == RoutingDomain::Routed);
        let here = rivals(write, network).chain(routed);
        let mine = write.new_subnets.iter();
        here.filter(|s| s.subnetpool_id != Some(pool.id))
            .chain(mine.filter(|s| s.subnetpool_id == Some(pool.id)))
            .map(|s| s.cidr)
    };
    for narrowed in [false, true] {
        let Some(prefix) = free.best_fit(length) else {
            break;
        };
        if narrowed || !foreign().any(|cidr| cidr.overlaps(prefix)) {
            return Ok(prefix);
        }
        let free = free.to_mut();
        foreign().for_each(|cidr| free.remove(cidr));
    }
    Err(failed(&format!(
        "Insufficient prefix space to allocate subnet size /{length}"
    )))
}
