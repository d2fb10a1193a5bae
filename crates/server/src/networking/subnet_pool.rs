//! Subnet pools: their prefixes, their bounds, the scope that they are in.

pub mod actions;

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{AddressScope, RbacAction, RbacType, Standard, SubnetPool};
use hextet_types::{AddressScopeId, Family, NetworkId, Prefix, ProjectId, SubnetId, SubnetPoolId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    address_scope::ip_version,
    entity::{Entity, standard_value, wanted_ids},
    sharing::{everybody, forget, share_with_all},
};
use crate::{
    keys,
    state::{State, prefixes::PrefixSet, table::Row},
    write::Write,
};

/// Prefixes of one pool, once they are as few as possible.
pub const MAX_PREFIXES: usize = 200;

impl Entity for SubnetPool {
    const RESOURCE: &'static Resource = &resources::SUBNET_POOL;
    type Extra = ();

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn project(&self) -> &ProjectId {
        &self.standard.project_id
    }

    fn revision(&self) -> u64 {
        self.standard.revision_number
    }

    fn key(&self) -> Bytes {
        keys::subnet_pool(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.pools.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        match wanted_ids(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| state.pools.get(id))
                .cloned()
                .collect(),
            None => state.pools.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller) || is_shared(self, state, caller)
    }

    fn extra(&self, _state: &State) {}

    fn shared_with(&self, state: &State, caller: &Caller) -> Option<bool> {
        Some(is_shared(self, state, caller))
    }

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "prefixes" => json!(self.prefixes),
            "ip_version" => json!(ip_version(self.family)),
            "min_prefixlen" => json!(self.min_prefixlen.to_string()),
            "max_prefixlen" => json!(self.max_prefixlen.to_string()),
            "default_prefixlen" => json!(self.default_prefixlen.to_string()),
            "default_quota" => json!(self.default_quota),
            "is_default" => json!(self.is_default),
            "shared" => json!(self.shared),
            "address_scope_id" => json!(self.address_scope_id),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let prefixes: Vec<Prefix> = input.take("prefixes")?;
        let family = one_family(&prefixes)?;
        let mut pool = SubnetPool {
            id: SubnetPoolId(Uuid::new_v4()),
            standard: write.standard(input)?,
            family,
            prefixes: as_few(&PrefixSet::of(family, prefixes))?,
            min_prefixlen: match family {
                Family::V4 => 8,
                Family::V6 => 64,
            },
            max_prefixlen: family.bits(),
            default_prefixlen: 0,
            default_quota: input.get("default_quota")?,
            is_default: input.take("is_default")?,
            shared: input.take("shared")?,
            address_scope_id: input.get("address_scope_id")?,
            made_by_admin: write.caller.admin,
        };
        check_name(&pool.standard.name)?;
        set_lengths(&mut pool, input, true)?;
        if pool.is_default {
            claim_default(write, family)?;
        }
        check_scope(write, &pool)?;
        if pool.shared {
            check_scope_follows(write, &pool, &everybody())?;
            let object = (RbacType::SubnetPool, pool.id.0);
            let owner = &pool.standard.project_id;
            share_with_all(write, object, RbacAction::AccessAsShared, owner)?;
        }
        let quota = resources::SUBNET_POOL
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&pool.standard.project_id, quota, 1);
        write.create(pool.key(), &pool)?;
        Ok(Arc::new(pool))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut pool = old.value.as_ref().clone();
        write.touch(&mut pool.standard, input)?;
        check_name(&pool.standard.name)?;
        if let Some(prefixes) = input.get::<Vec<Prefix>>("prefixes")? {
            grow(write, &mut pool, prefixes)?;
        }
        set_lengths(&mut pool, input, false)?;
        if input.names("default_quota") {
            pool.default_quota = input.get("default_quota")?;
        }
        input.put("is_default", &mut pool.is_default)?;
        input.put_option("address_scope_id", &mut pool.address_scope_id)?;
        finish_update(write, old, pool)
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let pool = &old.value;
        let space = write.state.spaces.get(&pool.id);
        if space.is_some_and(|s| s.allocations().next().is_some()) {
            return Err(ApiError::new(
                400,
                "SubnetPoolDeleteError",
                "Unable to delete subnet pool: Subnet pool has existing allocations.",
            ));
        }
        write.empty(keys::allocations_of(pool.id));
        if pool.is_default {
            write.release(keys::default_subnet_pool(pool.family));
        }
        forget(write, pool.id.0);
        write.remove(pool.key(), old.mod_revision);
        Ok(())
    }
}

/// Whether others than its owner may have subnets out of it: everybody, or the caller's project.
fn is_shared(pool: &SubnetPool, state: &State, caller: &Caller) -> bool {
    let action = RbacAction::AccessAsShared;
    pool.shared || state.grants.allows(pool.id.0, action, &caller.project)
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid input for name. Reason: '{name}' Blank strings are not permitted."
        )));
    }
    Ok(())
}

fn one_family(prefixes: &[Prefix]) -> Result<Family> {
    let Some(first) = prefixes.first() else {
        let text = "Empty subnet pool prefix list.";
        return Err(ApiError::new(400, "EmptySubnetPoolPrefixList", text));
    };
    if prefixes.iter().any(|p| p.family() != first.family()) {
        return Err(ApiError::new(
            400,
            "PrefixVersionMismatch",
            "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.",
        ));
    }
    Ok(first.family())
}

fn illegal_prefixes(reason: &str) -> ApiError {
    let text = format!("Illegal update to prefixes: {reason}.");
    ApiError::new(400, "IllegalSubnetPoolPrefixUpdate", text)
}

fn as_few(set: &PrefixSet) -> Result<Vec<Prefix>> {
    if set.len() > MAX_PREFIXES {
        return Err(illegal_prefixes(&format!(
            "a pool has at most {MAX_PREFIXES} prefixes; make another one"
        )));
    }
    Ok(set.iter().collect())
}

/// The pool has these prefixes from now on: what it had, and more.
///
/// # Errors
///
/// 400: something would go, another family, or too many. 403: a member adds to an administrator's
/// pool what members may not announce.
fn grow(write: &Write<'_>, pool: &mut SubnetPool, prefixes: Vec<Prefix>) -> Result<()> {
    let wanted = PrefixSet::of(pool.family, prefixes.iter().copied());
    if !pool.prefixes.iter().all(|p| wanted.covers(*p)) {
        let reason = "Existing prefixes must be a subset of the new prefixes";
        return Err(illegal_prefixes(reason));
    }
    if one_family(&prefixes)? != pool.family {
        let text = "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.";
        return Err(ApiError::new(400, "PrefixVersionMismatch", text));
    }
    if pool.made_by_admin && !write.caller.admin {
        let known = PrefixSet::of(pool.family, pool.prefixes.iter().copied());
        let may = |p: &Prefix| {
            known.covers(*p) || write.policy.member_prefixes.iter().any(|m| m.covers(*p))
        };
        if let Some(prefix) = prefixes.iter().find(|p| !may(p)) {
            return Err(ApiError::new(
                403,
                "PolicyNotAuthorized",
                format!(
                    "rule:update_subnetpool:prefixes is disallowed by policy: an administrator made \
                     subnet pool {}, and what is out of it is announced; {prefix} lies in none of \
                     the server's member_prefixes, so an administrator adds it.",
                    pool.id
                ),
            ));
        }
    }
    pool.prefixes = as_few(&wanted)?;
    Ok(())
}

/// Sets the lengths that the request names. Of a new pool the others follow from its family, and
/// the default is the least.
fn set_lengths(pool: &mut SubnetPool, input: &Input, new: bool) -> Result<()> {
    let bits = pool.family.bits();
    let named = |name: &str| -> Result<Option<u32>> {
        let text: Option<String> = input.get(name)?;
        Ok(text.and_then(|t| t.parse().ok()))
    };
    let illegal = |name: &str, length: u32, base: &str, base_length: u32| {
        let text = format!("Illegal prefix bounds: {name}={length}, {base}={base_length}.");
        Err(ApiError::new(400, "IllegalSubnetPoolPrefixBounds", text))
    };
    let min = named("min_prefixlen")?.unwrap_or(pool.min_prefixlen.into());
    let max = named("max_prefixlen")?.unwrap_or(pool.max_prefixlen.into());
    let else_default = if new {
        min
    } else {
        pool.default_prefixlen.into()
    };
    let default = named("default_prefixlen")?.unwrap_or(else_default);
    if min > max {
        return illegal("min_prefixlen", min, "max_prefixlen", max);
    }
    if max > bits.into() {
        return illegal("max_prefixlen", max, "ip_version_max", bits.into());
    }
    if default < min {
        return illegal("default_prefixlen", default, "min_prefixlen", min);
    }
    if default > max {
        return illegal("default_prefixlen", default, "max_prefixlen", max);
    }
    let narrow = |length: u32| u8::try_from(length).unwrap_or(bits);
    pool.min_prefixlen = narrow(min);
    pool.max_prefixlen = narrow(max);
    pool.default_prefixlen = narrow(default);
    Ok(())
}

fn claim_default(write: &mut Write<'_>, family: Family) -> Result<()> {
    let mut all = write.state.pools.values();
    let there = all.any(|p| p.is_default && p.family == family);
    let key = keys::default_subnet_pool(family);
    if there || !write.claim(key, Bytes::new()) {
        return Err(ApiError::invalid_input(
            "A default subnetpool for this IP family has already been set. Only one default may \
             exist per IP family",
        ));
    }
    Ok(())
}

/// Puts a pool that has changed: its claim of being the default, its scope, itself.
fn finish_update(
    write: &mut Write<'_>,
    old: &Row<SubnetPool>,
    pool: SubnetPool,
) -> Result<Arc<SubnetPool>> {
    match (old.value.is_default, pool.is_default) {
        (false, true) => claim_default(write, pool.family)?,
        (true, false) => write.release(keys::default_subnet_pool(pool.family)),
        _ => {}
    }
    if let Some(id) = old.value.address_scope_id {
        let scope = scope(write, id)?;
        if !scope.is_owned(write.state, write.caller) {
            return Err(illegal_update(&format!(
                "subnetpool {} cannot be updated when associated with shared address scope {id}",
                pool.id
            )));
        }
    }
    check_scope(write, &pool)?;
    write.replace(pool.key(), old.mod_revision, &pool)?;
    Ok(Arc::new(pool))
}

fn illegal_update(reason: &str) -> ApiError {
    let text = format!("Illegal subnetpool update : {reason}.");
    ApiError::new(400, "IllegalSubnetPoolUpdate", text)
}

fn scope(write: &mut Write<'_>, id: AddressScopeId) -> Result<Arc<AddressScope>> {
    let row = write.state.scopes.row(&id);
    let row = row.filter(|r| r.value.is_visible(write.state, write.caller));
    let row = row.ok_or_else(|| resources::ADDRESS_SCOPE.missing(id))?;
    write.unchanged(row.value.key(), row.mod_revision);
    Ok(Arc::clone(&row.value))
}

/// The pool may be in its scope: of its family, without an address that another pool there has, and
/// its subnets share no network with subnets that are not out of it.
fn check_scope(write: &mut Write<'_>, pool: &SubnetPool) -> Result<()> {
    let Some(id) = pool.address_scope_id else {
        return Ok(());
    };
    let scope = scope(write, id)?;
    if scope.family != pool.family {
        return Err(ApiError::new(
            400,
            "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: subnetpool {} cannot associate with address scope \
                 {id} because subnetpool ip_version is not {}.",
                pool.id,
                ip_version(scope.family)
            ),
        ));
    }
    check_affinity(write, pool)?;
    let own = PrefixSet::of(pool.family, pool.prefixes.iter().copied());
    let others = write
        .state
        .pools_by_scope
        .get(&id)
        .filter(|p| **p != pool.id);
    let mut spaces = others.filter_map(|p| write.state.spaces.get(p)?.all());
    if spaces.any(|other| own.meets(other)) {
        return Err(ApiError::conflict(
            "AddressScopePrefixConflict",
            "Failed to associate address scope: subnetpools within an address scope must have \
             unique prefixes.",
        ));
    }
    // What the same request has made is not in the state yet.
    for other in &write.new_pools {
        let there = other.address_scope_id == Some(id) && other.id != pool.id;
        if there && other.prefixes.iter().any(|p| own.overlaps(*p)) {
            return Err(ApiError::conflict(
                "AddressScopePrefixConflict",
                "Failed to associate address scope: subnetpools within an address scope must have \
                 unique prefixes.",
            ));
        }
    }
    write.new_pools.push(Arc::new(pool.clone()));
    write.quiet(keys::subnet_pools());
    Ok(())
}

fn check_affinity(write: &mut Write<'_>, pool: &SubnetPool) -> Result<()> {
    let state = write.state;
    let Some(space) = state.spaces.get(&pool.id) else {
        return Ok(());
    };
    let subnet = |(id, _): (&SubnetId, _)| state.subnets.get(id);
    let networks: std::collections::BTreeSet<NetworkId> = space
        .allocations()
        .filter_map(subnet)
        .map(|s| s.network_id)
        .collect();
    let mut mates = networks.iter().flat_map(|n| state.subnets_of(*n));
    if mates.any(|s| s.family() == pool.family && s.subnetpool_id != Some(pool.id)) {
        return Err(affinity_error());
    }
    if !networks.is_empty() {
        write.quiet(keys::subnets());
    }
    Ok(())
}

/// The error for subnets of one network and family in several scopes.
pub fn affinity_error() -> ApiError {
    ApiError::new(
        400,
        "NetworkAddressScopeAffinityError",
        "Subnets of the same address family hosted on the same network must all participate in the \
         same address scope.",
    )
}

/// Whom a pool is shared with, its scope is shared with.
///
/// # Errors
///
/// 409: it is not. Deviation: Neutron answers 500, which says that the server is broken.
pub fn check_scope_follows(
    write: &mut Write<'_>,
    pool: &SubnetPool,
    target: &ProjectId,
) -> Result<()> {
    let Some(scope) = pool.address_scope_id else {
        return Ok(());
    };
    let Some(row) = write.state.scopes.row(&scope) else {
        return Err(resources::ADDRESS_SCOPE.missing(scope));
    };
    let action = RbacAction::AccessAsShared;
    if row.value.shared || write.state.grants.allows(scope.0, action, target) {
        write.unchanged(row.value.key(), row.mod_revision);
        return Ok(());
    }
    Err(ApiError::conflict(
        "RbacPolicyInitError",
        format!(
            "Failed to create RBAC policy on object {} because target project doesn't have access \
             to associated address scope.",
            pool.id
        ),
    ))
}
