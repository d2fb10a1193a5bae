//! What clients can learn of the API and of the cloud as a whole.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::{
    describe::Access,
    error::{ApiError, Result},
    extension, openapi,
    query::{Filter, Query, Record},
    resources,
};
use hextet_model::neutron::{Network, Subnet};
use hextet_types::{Family, NetworkId};
use serde_json::{Value, json};

use super::{
    allocate::is_automatic,
    serve::{allow, answer_list, decode},
};
use crate::{
    app::{Anybody, App, Asked},
    http::answer::{self, NetworkingError},
    state::{State, ranges::number},
};

type Answer = Result<Response, NetworkingError>;

/// The one availability zone.
pub const ZONE: &str = "nova";

/// `GET /networking/`.
pub async fn versions(anybody: Anybody) -> Response {
    let href = format!("{}/networking/v2.0/", anybody.base);
    answer::json(
        200,
        &json!({"versions": [
            {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]},
        ]}),
    )
}

/// `GET /networking/v2.0/`.
pub async fn resources(anybody: Anybody) -> Response {
    let all: Vec<_> = resources::ALL
        .iter()
        .map(|r| {
            json!({
                "name": r.name,
                "collection": r.collection,
                "links": [{
                    "rel": "self",
                    "href": format!("{}/networking/v2.0/{}", anybody.base, r.path),
                }],
            })
        })
        .collect();
    answer::json(200, &json!({"resources": all}))
}

/// `GET /networking/openapi.json`.
pub async fn openapi(anybody: Anybody) -> Response {
    answer::json(
        200,
        &openapi::document(&format!("{}/networking", anybody.base)),
    )
}

/// `GET /v2.0/extensions`.
pub async fn extensions(_asked: Asked) -> Response {
    let all: Vec<_> = extension::served().map(extension::show).collect();
    answer::json(200, &json!({"extensions": all}))
}

/// `GET /v2.0/extensions/ALIAS`.
pub async fn extension(_asked: Asked, Path(alias): Path<String>) -> Answer {
    let alias = alias.trim_end_matches(".json");
    let found = extension::served()
        .find(|e| e.alias == alias)
        .ok_or_else(|| {
            ApiError::new(
                404,
                "ExtensionsNotFound",
                format!("Extensions not found: {alias}."),
            )
        })?;
    Ok(answer::json(
        200,
        &json!({"extension": extension::show(found)}),
    ))
}

/// A row of what is computed, not stored.
struct Computed(BTreeMap<&'static str, Value>);

impl Record for Computed {
    fn value(&self, attribute: &str) -> Value {
        self.0.get(attribute).cloned().unwrap_or(Value::Null)
    }
}

/// `GET /v2.0/availability_zones`.
pub async fn availability_zones(asked: Asked, RawQuery(query): RawQuery) -> Answer {
    let resource = &resources::AVAILABILITY_ZONE;
    let query = Query::parse(resource, decode(query.as_deref().unwrap_or_default()))?;
    let zones = ["network", "router"].map(|of| {
        Computed(BTreeMap::from([
            ("name", json!(ZONE)),
            ("resource", json!(of)),
            ("state", json!("available")),
        ]))
    });
    let zones = zones.into_iter().filter(|z| query.matches(z)).collect();
    answer_list(resource, &asked, &query, zones, None)
}

/// `GET /v2.0/service-providers`: there are none to choose from.
pub async fn service_providers(_asked: Asked) -> Response {
    answer::json(200, &json!({"service_providers": []}))
}

/// `GET /v2.0/network-ip-availabilities`.
pub async fn ip_availabilities(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Answer {
    let resource = &resources::NETWORK_IP_AVAILABILITY;
    allow(Access::Admin, &asked.caller, || {
        format!("get_{}", resource.name)
    })?;
    let query = Query::parse(resource, decode(query.as_deref().unwrap_or_default()))?;
    let version = query.wanted("ip_version").map(<[Value]>::to_vec);
    let rows = {
        let state = app.cloud.state();
        let rows = state
            .networks
            .values()
            .map(|n| availability(&state, n, version.as_deref()));
        rows.collect::<Vec<_>>()
    };
    // The version says which subnets count, not which networks.
    let mut query = query;
    query
        .filters
        .retain(|f| !matches!(f, Filter::Equals(a, _) if a.name == "ip_version"));
    let rows = rows.into_iter().filter(|row| query.matches(row)).collect();
    answer_list(resource, &asked, &query, rows, None)
}

/// `GET /v2.0/network-ip-availabilities/NETWORK`.
pub async fn ip_availability(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Answer {
    let resource = &resources::NETWORK_IP_AVAILABILITY;
    allow(Access::Admin, &asked.caller, || {
        format!("get_{}", resource.name)
    })?;
    let state = app.cloud.state();
    let found = id
        .parse::<NetworkId>()
        .ok()
        .and_then(|id| state.networks.get(&id));
    let network = found.ok_or_else(|| resource.missing(&id))?;
    let row = availability(&state, network, None);
    Ok(answer::json(200, &json!({resource.name: row.0})))
}

fn availability(state: &State, network: &Network, versions: Option<&[Value]>) -> Computed {
    let version = |s: &Subnet| json!(if s.family() == Family::V4 { 4 } else { 6 });
    let wanted = |s: &Subnet| versions.is_none_or(|v| v.contains(&version(s)));
    let mut subnets = Vec::new();
    let (mut total, mut used) = (0u128, 0usize);
    for subnet in state.subnets_of(network.id).filter(|s| wanted(s)) {
        let owners = state
            .addresses
            .get(&subnet.id)
            .map_or(0, |a| a.owners.len());
        let size = size_of(subnet);
        (total, used) = (total.saturating_add(size), used + owners);
        subnets.push(json!({
            "subnet_id": subnet.id,
            "subnet_name": subnet.standard.name,
            "ip_version": version(subnet),
            "cidr": subnet.cidr,
            "total_ips": big(size),
            "used_ips": owners,
        }));
    }
    Computed(BTreeMap::from([
        ("network_id", json!(network.id)),
        ("network_name", json!(network.standard.name)),
        ("project_id", json!(network.standard.project_id)),
        ("tenant_id", json!(network.standard.project_id)),
        ("total_ips", big(total)),
        ("used_ips", json!(used)),
        ("subnet_ip_availability", json!(subnets)),
    ]))
}

/// How many addresses its pools hold; the whole prefix where addresses are automatic.
fn size_of(subnet: &Subnet) -> u128 {
    if is_automatic(subnet) {
        return number(subnet.cidr.last()) - number(subnet.cidr.addr());
    }
    let sizes = subnet
        .allocation_pools
        .iter()
        .map(|p| number(p.end) - number(p.start));
    sizes.fold(0, |sum, n| sum.saturating_add(n).saturating_add(1))
}

/// A number as JSON has it; beyond 64 bits as near as a float comes.
#[expect(
    clippy::cast_precision_loss,
    reason = "JSON has no larger whole numbers here"
)]
fn big(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}
