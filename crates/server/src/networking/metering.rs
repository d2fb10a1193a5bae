//! Metering labels, which are made and deleted, and never changed.

pub mod rule;
pub mod sums;

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::Result,
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{MeteringLabel, Standard};
use hextet_types::{MeteringLabelId, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::entity::{Entity, wanted_ids};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

impl Entity for MeteringLabel {
    const RESOURCE: &'static Resource = &resources::METERING_LABEL;
    type Extra = ();

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn project(&self) -> &ProjectId {
        &self.project_id
    }

    fn revision(&self) -> u64 {
        1
    }

    fn key(&self) -> Bytes {
        keys::metering_label(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        None
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.metering.labels.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        let metering = &state.metering;
        if let Some(ids) = wanted_ids::<MeteringLabelId>(query, "id") {
            let found = ids.iter().filter_map(|id| metering.labels.get(id));
            return found.cloned().collect();
        }
        match caller.admin {
            true => metering.labels.values().cloned().collect(),
            false => metering.labels_of(&caller.project).cloned().collect(),
        }
    }

    fn is_visible(&self, _state: &State, caller: &Caller) -> bool {
        caller.admin || self.project_id == caller.project
    }

    /// A project's own labels are an administrator's to delete, too.
    fn is_owned(&self, _state: &State, caller: &Caller) -> bool {
        caller.admin
    }

    fn extra(&self, _state: &State) {}

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "name" => json!(self.name),
            "project_id" | "tenant_id" => json!(self.project_id),
            "description" => json!(self.description),
            "shared" => json!(self.shared),
            _ => Value::Null,
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let label = MeteringLabel {
            id: MeteringLabelId(Uuid::new_v4()),
            project_id: input.take("project_id")?,
            name: input.take("name")?,
            description: input.take("description")?,
            shared: input.take("shared")?,
        };
        let quota = resources::METERING_LABEL
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&label.project_id, quota, 1);
        write.create(label.key(), &label)?;
        Ok(Arc::new(label))
    }

    fn update(_write: &mut Write<'_>, old: &Row<Self>, _input: &Input) -> Result<Arc<Self>> {
        Ok(Arc::clone(&old.value))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let label = &old.value;
        write.quiet(keys::metering_rules_of(label.id));
        for row in write.state.metering.rules_of(label.id) {
            write.remove(row.value.key(), row.mod_revision);
        }
        write.remove(label.key(), old.mod_revision);
        Ok(())
    }
}
