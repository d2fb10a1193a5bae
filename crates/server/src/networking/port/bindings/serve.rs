//! `/v2.0/ports/PORT/bindings`.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::{
    error::{ApiError, Result},
    query::{Query, Record},
    render::Shown,
    request::{parse_create, parse_update},
    resources::PORT_BINDING,
};
use hextet_model::neutron::{Binding, Port};
use hextet_types::{HostId, PortId, ProjectId};
use serde_json::{Value, json};

use super::{
    super::{
        super::serve::{allow, answer_list_at, decode, visible},
        vif::Plug,
    },
    as_it_stands, missing, parse,
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    state::{State, table::Row},
    write::Write,
};

type Answer = Result<Response, NetworkingError>;

/// A binding as it is shown.
struct Item {
    host: HostId,
    binding: Binding,
    active: bool,
    plug: Plug,
    project: ProjectId,
}

impl Item {
    fn new(state: &State, port: &Port, host: &HostId) -> Option<Item> {
        let active = port.binding.host_id.as_ref() == Some(host);
        let binding = match active {
            true => port.binding.clone(),
            false => state.bindings.row(port.id, host)?.value.on(host),
        };
        Some(Item {
            host: host.clone(),
            binding,
            active,
            plug: Plug::on(host, port, state),
            project: port.standard.project_id.clone(),
        })
    }

    /// All of a port.
    fn all(state: &State, port: &Port) -> Vec<Item> {
        let prepared = state.bindings.of(port.id).map(|(host, _)| host);
        let prepared = prepared.filter(|host| port.binding.host_id.as_ref() != Some(host));
        let hosts = port.binding.host_id.iter().chain(prepared);
        hosts.filter_map(|h| Item::new(state, port, h)).collect()
    }
}

impl Record for Item {
    fn value(&self, attribute: &str) -> Value {
        match attribute {
            // The host is what tells a port's bindings from each other.
            "host" | "id" => json!(self.host),
            "vif_type" => json!(self.plug.vif_type()),
            "vif_details" => self.plug.vif_details(),
            "vnic_type" => json!(self.binding.vnic_type),
            "profile" => Value::Object(self.binding.profile.clone()),
            "status" => json!(if self.active { "ACTIVE" } else { "INACTIVE" }),
            "project_id" => json!(self.project),
            _ => Value::Null,
        }
    }
}

/// A port that the caller sees, who may see its bindings, too.
fn port_of<'s>(state: &'s State, asked: &Asked, id: &str, verb: &str) -> Result<&'s Row<Port>> {
    let row = visible::<Port>(state, &asked.caller, id)?;
    let access = PORT_BINDING.operations.read;
    allow(access, &asked.caller, || format!("{verb}_port_binding"))?;
    Ok(row)
}

fn shown(app: &App, port: PortId, host: &HostId) -> Result<Value> {
    let state = app.cloud.state();
    let item = as_it_stands(&state, port).and_then(|port| Item::new(&state, &port, host));
    let item = item.ok_or_else(|| missing(port, host.as_str()))?;
    Ok(json!(Shown::new(&PORT_BINDING, true, &[]).of(&item)))
}

fn answer_one(status: u16, shown: &Value) -> Response {
    answer::json(status, &json!({PORT_BINDING.name: shown}))
}

/// `GET …/bindings`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = decode(query.as_deref().unwrap_or_default());
    let query = Query::parse(&PORT_BINDING, parameters)?;
    let (items, marker) = {
        let state = app.cloud.state();
        let port = &port_of(&state, &asked, &id, "get")?.value;
        let mut items = Item::all(&state, port);
        items.retain(|item| query.matches(item));
        let marker = query.marker.as_ref().and_then(|m| m.parse().ok());
        (
            items,
            marker.and_then(|host| Item::new(&state, port, &host)),
        )
    };
    let path = format!("ports/{id}/bindings");
    answer_list_at(&PORT_BINDING, &path, &asked, &query, items, marker.as_ref())
}

/// `GET …/bindings/HOST`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, host)): Path<(String, String)>,
) -> Answer {
    let port = port_of(&app.cloud.state(), &asked, &id, "get")?.value.id;
    let host = parse(port, &host)?;
    Ok(answer_one(200, &shown(&app, port, &host)?))
}

/// `POST …/bindings`.
pub async fn create(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let port = port_of(&app.cloud.state(), &asked, &id, "create")?.value.id;
    let (inputs, _) = parse_create(&PORT_BINDING, &body, &asked.caller)?;
    let [input] = &inputs[..] else {
        let words = "a port's bindings are made one at a time";
        return Err(ApiError::bad_request(words).into());
    };
    let done = app.cloud.write(&asked.caller, |write| {
        let row = port_of(write.state, &asked, &id, "create")?;
        super::create(write, row, input)
    });
    let host = done.await?;
    app.metrics.changed("port_binding", "create", 1);
    Ok(answer_one(201, &shown(&app, port, &host)?))
}

/// Does something with a port's binding on a host.
async fn change(
    app: &App,
    asked: &Asked,
    (id, host): (&str, &str),
    verb: &'static str,
    decide: impl Fn(&mut Write<'_>, &Row<Port>, &HostId) -> Result<()>,
) -> Result<(PortId, HostId)> {
    let done = app.cloud.write(&asked.caller, |write| {
        let row = port_of(write.state, asked, id, verb)?;
        let host = parse(row.value.id, host)?;
        decide(write, row, &host)?;
        Ok((row.value.id, host))
    });
    let done = done.await?;
    app.metrics.changed("port_binding", verb, 1);
    Ok(done)
}

/// `PUT …/bindings/HOST`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, host)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    port_of(&app.cloud.state(), &asked, &id, "update")?;
    let input = parse_update(&PORT_BINDING, &body, &asked.caller)?;
    let decide = |write: &mut Write<'_>, row: &Row<Port>, host: &HostId| {
        super::update(write, row, host, &input)
    };
    let (port, host) = change(&app, &asked, (&id, &host), "update", decide).await?;
    Ok(answer_one(200, &shown(&app, port, &host)?))
}

/// `PUT …/bindings/HOST/activate`; a body says nothing.
pub async fn activate(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, host)): Path<(String, String)>,
) -> Answer {
    let (port, host) = change(&app, &asked, (&id, &host), "activate", super::activate).await?;
    Ok(answer_one(200, &shown(&app, port, &host)?))
}

/// `DELETE …/bindings/HOST`.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, host)): Path<(String, String)>,
) -> Answer {
    change(&app, &asked, (&id, &host), "delete", super::delete).await?;
    Ok(answer::empty(204))
}
