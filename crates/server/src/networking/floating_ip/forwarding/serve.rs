//! `/v2.0/floatingips/FLOATINGIP/port_forwardings`.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::{
    error::Result,
    query::{Query, Record},
    render::Shown,
    request::{parse_create, parse_update},
    resources::PORT_FORWARDING,
};
use hextet_model::neutron::{FloatingIp, PortForwarding};
use serde_json::{Value, json};

use super::{
    super::super::serve::{allow, answer_list_at, changeable, decode, visible},
    brief,
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    state::{State, table::Row},
};

type Answer = Result<Response, NetworkingError>;

struct Item(Arc<PortForwarding>);

impl Record for Item {
    fn value(&self, attribute: &str) -> Value {
        match attribute {
            "description" => json!(self.0.description),
            other => brief(&self.0).get(other).cloned().unwrap_or_default(),
        }
    }
}

fn shown(forwarding: Arc<PortForwarding>) -> Value {
    json!(Shown::new(&PORT_FORWARDING, false, &[]).of(&Item(forwarding)))
}

fn find<'s>(state: &'s State, fip: &FloatingIp, id: &str) -> Result<&'s Row<PortForwarding>> {
    let parsed = id.parse().ok();
    let row = parsed.and_then(|id| state.layer3.forwardings.row(&id));
    row.filter(|r| r.value.floatingip_id == fip.id)
        .ok_or_else(|| PORT_FORWARDING.missing(id))
}

/// `GET …/port_forwardings`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(fip): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = decode(query.as_deref().unwrap_or_default());
    let query = Query::parse(&PORT_FORWARDING, parameters)?;
    let (items, marker) = {
        let state = app.cloud.state();
        let row = visible::<FloatingIp>(&state, &asked.caller, &fip)?;
        let all = state.layer3.forwardings_of(row.value.id).cloned().map(Item);
        let marker = query.marker.as_ref();
        let marker = marker.and_then(|id| find(&state, &row.value, id).ok());
        (
            all.filter(|item| query.matches(item)).collect(),
            marker.map(|row| Item(Arc::clone(&row.value))),
        )
    };
    let path = format!("floatingips/{fip}/port_forwardings");
    answer_list_at(
        &PORT_FORWARDING,
        &path,
        &asked,
        &query,
        items,
        marker.as_ref(),
    )
}

/// `GET …/port_forwardings/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((fip, id)): Path<(String, String)>,
) -> Answer {
    let found = {
        let state = app.cloud.state();
        let row = visible::<FloatingIp>(&state, &asked.caller, &fip)?;
        Arc::clone(&find(&state, &row.value, &id)?.value)
    };
    Ok(answer::json(
        200,
        &json!({PORT_FORWARDING.name: shown(found)}),
    ))
}

/// `POST …/port_forwardings`.
pub async fn create(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(fip): Path<String>,
    body: Bytes,
) -> Answer {
    let resource = &PORT_FORWARDING;
    let action = || "create_floatingip_port_forwarding".to_owned();
    allow(resource.operations.create, &asked.caller, action)?;
    let (inputs, bulk) = parse_create(resource, &body, &asked.caller)?;
    let made = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<FloatingIp>(write.state, write.caller, &fip, "update")?;
            super::create(write, row, &inputs)
        })
        .await?;
    app.metrics.changed(resource.name, "create", made.len());
    let mut all: Vec<Value> = made.into_iter().map(shown).collect();
    Ok(match bulk {
        true => answer::json(201, &json!({resource.collection: all})),
        false => answer::json(201, &json!({resource.name: all.pop()})),
    })
}

/// `PUT …/port_forwardings/ID`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((fip, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let input = parse_update(&PORT_FORWARDING, &body, &asked.caller)?;
    let changed = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<FloatingIp>(write.state, write.caller, &fip, "update")?;
            let old = find(write.state, &row.value, &id)?;
            super::update(write, row, old, &input)
        })
        .await?;
    app.metrics.changed(PORT_FORWARDING.name, "update", 1);
    Ok(answer::json(
        200,
        &json!({PORT_FORWARDING.name: shown(changed)}),
    ))
}

/// `DELETE …/port_forwardings/ID`.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((fip, id)): Path<(String, String)>,
) -> Answer {
    app.cloud
        .write(&asked.caller, |write| {
            let row = changeable::<FloatingIp>(write.state, write.caller, &fip, "update")?;
            let old = find(write.state, &row.value, &id)?;
            super::remove(write, old);
            super::follow(write, row.value.id)
        })
        .await?;
    app.metrics.changed(PORT_FORWARDING.name, "delete", 1);
    Ok(answer::empty(204))
}
