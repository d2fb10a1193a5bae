//! `/v2.0/metering/metering-label-sums`: what metering labels have counted.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State as Shared},
    response::Response,
};
use hextet_api::{
    query::{Query, Record},
    request::Caller,
    resources,
};
use hextet_model::neutron::Direction;
use hextet_types::{HostId, MeteringLabelId, RouterId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{
    entity::Entity,
    serve::{answer_list, decode},
};
use crate::{
    app::{App, Asked},
    http::answer::NetworkingError,
    state::State,
};

/// What a label has counted at a router on a host, of one direction; it never goes down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metered {
    /// The label.
    pub metering_label_id: MeteringLabelId,
    /// Its name.
    pub metering_label_name: String,
    /// The router, which may be gone.
    pub router_id: RouterId,
    /// The host, which may be gone.
    pub host: HostId,
    /// What comes from outside is `ingress`.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
    /// Octets, from the IP header on.
    pub octets: u64,
    /// When it last grew.
    pub updated_at: Timestamp,
}

impl Metered {
    /// Whether its label has that name or identifier.
    pub fn is_of(&self, label: &str) -> bool {
        self.metering_label_name == label || self.metering_label_id.to_string() == label
    }
}

impl Record for Metered {
    fn value(&self, attribute: &str) -> Value {
        match attribute {
            "metering_label_id" => json!(self.metering_label_id),
            "metering_label_name" => json!(self.metering_label_name),
            "router_id" => json!(self.router_id),
            "host" => json!(self.host),
            "direction" => json!(self.direction),
            "packets" => json!(self.packets),
            "octets" => json!(self.octets),
            "updated_at" => json!(self.updated_at),
            _ => Value::Null,
        }
    }
}

/// Of all labels that are there.
pub fn all(state: &State) -> Vec<Metered> {
    sums(state, |_| true)
}

fn sums(state: &State, is_meant: impl Fn(MeteringLabelId) -> bool) -> Vec<Metered> {
    let metering = &state.metering;
    let ids = metering.sums.ids().filter(|id| is_meant(id.label));
    let shown = ids.filter_map(|id| {
        let (label, sum) = (metering.labels.get(&id.label)?, metering.sums.get(id)?);
        Some(Metered {
            metering_label_id: id.label,
            metering_label_name: label.name.clone(),
            router_id: id.router,
            host: id.host.clone(),
            direction: id.direction,
            packets: sum.packets,
            octets: sum.octets,
            updated_at: sum.updated_at,
        })
    });
    shown.collect()
}

fn seen_by(state: &State, caller: &Caller) -> Vec<Metered> {
    sums(state, |id| {
        let label = state.metering.labels.get(&id);
        label.is_some_and(|label| label.is_visible(state, caller))
    })
}

/// `GET /v2.0/metering/metering-label-sums`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Result<Response, NetworkingError> {
    let resource = &resources::METERING_LABEL_SUM;
    let query = Query::parse(resource, decode(query.as_deref().unwrap_or_default()))?;
    let rows = seen_by(&app.cloud.state(), &asked.caller);
    let rows = rows.into_iter().filter(|row| query.matches(row)).collect();
    answer_list(resource, &asked, &query, rows, None)
}
