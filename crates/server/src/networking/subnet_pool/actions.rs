//! `/v2.0/subnetpools/ID/…`: prefixes added and taken away, and subnets taken in that are there.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State as Shared},
    response::Response,
};
use hextet_api::{
    error::{ApiError, Result},
    request::parse_object,
    resources,
};
use hextet_model::{
    intent::RoutingDomain,
    neutron::{Network, Subnet, SubnetPool},
};
use hextet_types::{NetworkId, Prefix};
use serde_json::{Value, json};

use super::{
    super::{
        entity::Entity,
        network::is_network_owner,
        serve::{changeable, visible},
    },
    as_few, finish_update, grow, illegal_prefixes, illegal_update,
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    keys,
    state::{prefixes::PrefixSet, table::Row},
    write::Write,
};

type Answer = Result<Response, NetworkingError>;

/// `PUT …/add_prefixes`.
pub async fn add_prefixes(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let added = parse_prefixes(&body)?;
    let add = |write: &mut Write<'_>, pool: &mut SubnetPool| {
        let all = pool.prefixes.iter().chain(&added).copied().collect();
        grow(write, pool, all)
    };
    change_prefixes(&app, &asked, &id, add).await
}

/// `PUT …/remove_prefixes`.
pub async fn remove_prefixes(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let removed = parse_prefixes(&body)?;
    let remove = |write: &mut Write<'_>, pool: &mut SubnetPool| {
        let mut set = PrefixSet::of(pool.family, pool.prefixes.iter().copied());
        let space = write.state.spaces.get(&pool.id);
        let mut taken = space.into_iter().flat_map(|s| s.allocations());
        if taken.any(|(_, (subnet, _))| removed.iter().any(|r| r.overlaps(*subnet))) {
            let reason = "One or more the prefixes to be removed is in use by a subnet";
            return Err(illegal_prefixes(reason));
        }
        removed.iter().for_each(|prefix| set.remove(*prefix));
        pool.prefixes = as_few(&set)?;
        write.quiet(keys::allocations_of(pool.id));
        Ok(())
    };
    change_prefixes(&app, &asked, &id, remove).await
}

async fn change_prefixes(
    app: &App,
    asked: &Asked,
    id: &str,
    edit: impl Fn(&mut Write<'_>, &mut SubnetPool) -> Result<()>,
) -> Answer {
    let pool = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<SubnetPool>(write.state, write.caller, id, "update")?;
            let mut pool = row.value.as_ref().clone();
            edit(write, &mut pool)?;
            put(write, row, pool)
        })
        .await?;
    app.metrics
        .changed(resources::SUBNET_POOL.name, "update", 1);
    Ok(answer::json(200, &json!({"prefixes": pool.prefixes})))
}

fn put(
    write: &mut Write<'_>,
    row: &Row<SubnetPool>,
    mut pool: SubnetPool,
) -> Result<Arc<SubnetPool>> {
    if pool == *row.value {
        return Ok(Arc::clone(&row.value));
    }
    pool.standard.revision_number += 1;
    pool.standard.updated_at = write.now;
    finish_update(write, row, pool)
}

fn parse_prefixes(body: &[u8]) -> Result<Vec<Prefix>> {
    let invalid = || ApiError::bad_request("Request body contains invalid data");
    let list = parse_object(body)?.remove("prefixes").ok_or_else(invalid)?;
    if list.as_array().is_none_or(Vec::is_empty) {
        return Err(invalid());
    }
    let attribute = resources::SUBNET_POOL.attribute("prefixes");
    let normal = attribute.ok_or_else(invalid)?.normalize(list)?;
    serde_json::from_value(normal).map_err(|_| invalid())
}

/// `PUT …/onboard_network_subnets`.
pub async fn onboard_network_subnets(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let named = parse_object(&body)?.remove("network_id");
    let network = match named {
        Some(Value::String(network)) if !network.is_empty() => network,
        _ => return Err(ApiError::invalid_input("network_id must be specified").into()),
    };
    let taken_in = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<SubnetPool>(write.state, write.caller, &id, "update")?;
            let found = visible::<Network>(write.state, write.caller, &network)?;
            if !is_network_owner(&found.value, write.caller) {
                return Err(ApiError::new(403, "NotAuthorized", "Not authorized."));
            }
            write.unchanged(found.value.key(), found.mod_revision);
            onboard(write, row, found.value.id)
        })
        .await?;
    app.metrics
        .changed(resources::SUBNET_POOL.name, "update", 1);
    let shown = taken_in
        .iter()
        .map(|s| json!({"id": s.id, "cidr": s.cidr}))
        .collect::<Vec<_>>();
    Ok(answer::json(200, &json!(shown)))
}

/// What private networks have out of pools is on no routed one.
fn check_across(write: &Write<'_>, subnets: &[Arc<Subnet>]) -> Result<()> {
    let state = write.state;
    let routed = |s: &Subnet| state.domain_of(s.network_id) == RoutingDomain::Routed;
    for subnet in subnets {
        let mut rivals = state.subnets.values().filter(|other| match routed(subnet) {
            true => !routed(other) && other.subnetpool_id.is_some(),
            false => routed(other),
        });
        if let Some(other) = rivals.find(|other| other.cidr.overlaps(subnet.cidr)) {
            return Err(illegal_update(&format!(
                "Onboarding subnet {}: {} conflicts with subnet {} of a {} network",
                subnet.id,
                subnet.cidr,
                other.id,
                if routed(subnet) { "private" } else { "routed" }
            )));
        }
    }
    Ok(())
}

/// All subnets of the network that are of the pool's family become subnets out of it; its prefixes
/// grow by theirs.
fn onboard(
    write: &mut Write<'_>,
    row: &Row<SubnetPool>,
    network: NetworkId,
) -> Result<Vec<Arc<Subnet>>> {
    let mut pool = row.value.as_ref().clone();
    let subnets: Vec<_> = write
        .state
        .subnets_of(network)
        .filter(|s| s.family() == pool.family)
        .cloned()
        .collect();
    let space = write.state.spaces.get(&pool.id);
    let taken = space.into_iter().flat_map(|s| s.allocations());
    let taken = PrefixSet::of(pool.family, taken.map(|(_, (prefix, _))| *prefix));
    if let Some(subnet) = subnets.iter().find(|s| taken.overlaps(s.cidr)) {
        return Err(illegal_update(&format!(
            "Onboarding subnet {}: {} conflicts with allocated prefixes in subnet pool {}",
            subnet.id, subnet.cidr, pool.id
        )));
    }
    check_across(write, &subnets)?;
    let new = subnets.iter().map(|s| s.cidr);
    let all = pool.prefixes.iter().copied().chain(new).collect();
    grow(write, &mut pool, all)?;
    write.unchanged(row.value.key(), row.mod_revision);
    // So that nobody allocates meanwhile what is taken in.
    write.quiet(keys::allocations_of(pool.id));
    write.quiet(keys::subnets());
    let id = pool.id;
    put(write, row, pool)?;
    for subnet in &subnets {
        let Some(old) = write.state.subnets.row(&subnet.id) else {
            continue;
        };
        if let Some(former) = subnet.subnetpool_id {
            write.release(keys::allocation(former, subnet.id));
        }
        write.claim(keys::allocation(id, subnet.id), bytes::Bytes::new());
        let mut changed = subnet.as_ref().clone();
        changed.subnetpool_id = Some(id);
        changed.standard.revision_number += 1;
        changed.standard.updated_at = write.now;
        write.replace(changed.key(), old.mod_revision, &changed)?;
    }
    Ok(subnets)
}
