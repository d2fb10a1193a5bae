//! `/v2.0/agents`: hosts that have joined. Deleting one takes the power of its certificates.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::{
    describe::Access,
    error::{ApiError, Result},
    query::{Query, Record},
    render::Shown,
    request::parse_update,
    resources,
};
use hextet_model::intent::TunnelEndpoint;
use serde_json::{Value, json};

use super::{
    catalogue::ZONE,
    serve::{allow, answer_list, decode},
};
use crate::{
    agents::{live::Heard, nat44, tunnel},
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    keys,
    state::{HostRecord, State, table::Row},
};

type Answer = Result<Response, NetworkingError>;
const BINARY: &str = "hextet-agent";
const TYPE: &str = "hextet agent";

/// A host, and what its agent told last.
struct Item {
    record: Arc<HostRecord>,
    heard: Option<Heard>,
    tunnel: Option<TunnelEndpoint>,
}

impl Item {
    fn new(app: &App, record: &Arc<HostRecord>) -> Self {
        Item {
            record: Arc::clone(record),
            heard: app.live.heard(&record.host),
            tunnel: app.cloud.state().tunnels.endpoint(&record.host),
        }
    }
}

impl Item {
    /// What its agent tells for people, and its end of tunnels as Neutron's agents tell theirs.
    fn configurations(&self) -> Value {
        let heard = self.heard.as_ref();
        let mut all = heard.map_or(json!({}), |h| h.configurations.clone());
        all["gateway"] = json!(self.record.gateway);
        let physical = &self.record.physical_networks;
        if !physical.is_empty() {
            all["physical_networks"] = json!(physical);
        }
        if let Some(endpoint) = self.tunnel {
            all["tunneling_ip"] = json!(endpoint.address);
            all["tunnel_types"] = json!(["vxlan"]);
        }
        all
    }
}

impl Record for Item {
    fn value(&self, attribute: &str) -> Value {
        let heard = self.heard.as_ref();
        match attribute {
            "id" => json!(self.record.id),
            "agent_type" => json!(TYPE),
            "binary" => json!(BINARY),
            "host" => json!(self.record.host),
            "topic" => json!("N/A"),
            "availability_zone" => json!(ZONE),
            "alive" => json!(heard.is_some_and(Heard::is_fresh)),
            "admin_state_up" => json!(self.record.admin_state_up),
            "description" => json!(self.record.description),
            "configurations" => self.configurations(),
            "created_at" => json!(self.record.created_at),
            "started_at" => json!(heard.map_or(self.record.created_at, |h| h.first)),
            "heartbeat_timestamp" => json!(heard.map_or(self.record.created_at, |h| h.last)),
            _ => Value::Null,
        }
    }
}

fn find<'s>(state: &'s State, id: &str) -> Result<&'s Row<HostRecord>> {
    let found = state.hosts.values().find(|h| h.id.to_string() == id);
    let row = found.and_then(|h| state.hosts.row(&h.host));
    row.ok_or_else(|| resources::AGENT.missing(id))
}

fn admin(asked: &Asked, verb: &str) -> Result<()> {
    allow(Access::Admin, &asked.caller, || format!("{verb}_agent"))
}

/// `GET /v2.0/agents`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Answer {
    admin(&asked, "get")?;
    let query = Query::parse(
        &resources::AGENT,
        decode(query.as_deref().unwrap_or_default()),
    )?;
    let records: Vec<_> = app.cloud.state().hosts.values().cloned().collect();
    let items = records
        .iter()
        .map(|r| Item::new(&app, r))
        .collect::<Vec<_>>();
    let marker = query.marker.as_ref();
    let marker = marker.and_then(|m| records.iter().find(|r| r.id.to_string() == *m));
    let marker = marker.map(|r| Item::new(&app, r));
    let items = items.into_iter().filter(|i| query.matches(i)).collect();
    answer_list(&resources::AGENT, &asked, &query, items, marker.as_ref())
}

fn shown(app: &App, record: &Arc<HostRecord>) -> Response {
    let shown = Shown::new(&resources::AGENT, true, &[]);
    answer::json(
        200,
        &json!({"agent": json!(shown.of(&Item::new(app, record)))}),
    )
}

/// `GET /v2.0/agents/ID`.
pub async fn show(Shared(app): Shared<Arc<App>>, asked: Asked, Path(id): Path<String>) -> Answer {
    admin(&asked, "get")?;
    let record = Arc::clone(&find(&app.cloud.state(), &id)?.value);
    Ok(shown(&app, &record))
}

/// `PUT /v2.0/agents/ID`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    admin(&asked, "update")?;
    let input = parse_update(&resources::AGENT, &body, &asked.caller)?;
    let record = app
        .cloud
        .write(&asked.caller, |write| {
            let row = find(write.state, &id)?;
            let mut record = row.value.as_ref().clone();
            input.put("admin_state_up", &mut record.admin_state_up)?;
            input.put("description", &mut record.description)?;
            write.replace(keys::host(&record.host), row.mod_revision, &record)?;
            Ok(Arc::new(record))
        })
        .await?;
    Ok(shown(&app, &record))
}

/// `DELETE /v2.0/agents/ID`.
pub async fn delete(Shared(app): Shared<Arc<App>>, asked: Asked, Path(id): Path<String>) -> Answer {
    admin(&asked, "delete")?;
    let host = app
        .cloud
        .write(&asked.caller, |write| {
            let row = find(write.state, &id)?;
            let host = &row.value.host;
            let state = write.state;
            let mut ports = state.views.ports_of(host).chain(state.bindings.on(host));
            if ports.next().is_some() {
                return Err(ApiError::conflict("AgentInUse", format!(
                    "Agent {id} cannot be deleted: ports are bound to {host}. Move or delete them \
                     first."
                )));
            }
            write.quiet(keys::ports());
            write.quiet(keys::bindings());
            write.remove(keys::host(host), row.mod_revision);
            nat44::remove_sources(write, host);
            tunnel::leave(write, host)?;
            Ok(host.clone())
        })
        .await?;
    app.cloud.hang_up(&host);
    app.live.forget(&host);
    app.cloud.notifier().forget(&host);
    Ok(answer::empty(204))
}
