//! Rules of metering labels. A rule is never changed: it is made and deleted.

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{MeteringLabel, MeteringRule, Standard};
use hextet_types::{MeteringLabelId, MeteringRuleId, Prefix, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{
    entity::{Entity, wanted_ids},
    serve::visible,
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

/// Rules of one label: they go with it in one transaction.
const MAX_RULES: usize = 1_000;

impl Entity for MeteringRule {
    const RESOURCE: &'static Resource = &resources::METERING_LABEL_RULE;
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
        keys::metering_rule(self.metering_label_id, self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        None
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.metering.rules.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        let metering = &state.metering;
        if let Some(ids) = wanted_ids::<MeteringRuleId>(query, "id") {
            let found = ids.iter().filter_map(|id| metering.rules.get(id));
            return found.cloned().collect();
        }
        let labels = match wanted_ids::<MeteringLabelId>(query, "metering_label_id") {
            Some(labels) => labels,
            None if caller.admin => return metering.rules.values().cloned().collect(),
            None => metering.labels_of(&caller.project).map(|l| l.id).collect(),
        };
        let rules = labels.iter().flat_map(|label| metering.rules_of(*label));
        rules.map(|row| Arc::clone(&row.value)).collect()
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let label = state.metering.labels.get(&self.metering_label_id);
        label.is_some_and(|label| label.is_visible(state, caller))
    }

    fn is_owned(&self, _state: &State, caller: &Caller) -> bool {
        caller.admin
    }

    fn extra(&self, _state: &State) {}

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "project_id" | "tenant_id" => json!(self.project_id),
            "metering_label_id" => json!(self.metering_label_id),
            "direction" => json!(self.direction),
            "excluded" => json!(self.excluded),
            "remote_ip_prefix" => json!(self.remote_ip_prefix),
            "source_ip_prefix" => json!(self.source_ip_prefix),
            "destination_ip_prefix" => json!(self.destination_ip_prefix),
            _ => Value::Null,
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let label: MeteringLabelId = input.take("metering_label_id")?;
        let row = visible::<MeteringLabel>(write.state, write.caller, &label.to_string())?;
        write.exists(row.value.key());
        let rule = MeteringRule {
            id: MeteringRuleId(Uuid::new_v4()),
            metering_label_id: label,
            project_id: input.take("project_id")?,
            direction: input.take("direction")?,
            excluded: input.take("excluded")?,
            remote_ip_prefix: prefix(input, "remote_ip_prefix")?,
            source_ip_prefix: prefix(input, "source_ip_prefix")?,
            destination_ip_prefix: prefix(input, "destination_ip_prefix")?,
        };
        check_prefixes(&rule)?;
        check_others(write, &rule)?;
        let quota = resources::METERING_LABEL_RULE
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&rule.project_id, quota, 1);
        write.create(rule.key(), &rule)?;
        let rule = Arc::new(rule);
        write.new_metering_rules.push(Arc::clone(&rule));
        Ok(rule)
    }

    fn update(_write: &mut Write<'_>, old: &Row<Self>, _input: &Input) -> Result<Arc<Self>> {
        Ok(Arc::clone(&old.value))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        write.remove(old.value.key(), old.mod_revision);
        Ok(())
    }
}

fn prefix(input: &Input, name: &str) -> Result<Option<Prefix>> {
    let text: Option<String> = input.get(name)?;
    let prefix = text.map(|text| text.parse().map_err(ApiError::invalid_input));
    prefix.transpose()
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(400, "Invalid", text.into())
}

/// Deviation: Neutron takes ends of two families, and then no packet matches.
fn check_prefixes(rule: &MeteringRule) -> Result<()> {
    let ends = (rule.source_ip_prefix, rule.destination_ip_prefix);
    match (rule.remote_ip_prefix, ends) {
        (Some(_), (Some(_), _) | (_, Some(_))) => Err(invalid(
            "Cannot use 'remote-ip-prefix' in conjunction with 'source-ip-prefix' or \
             'destination-ip-prefix'.",
        )),
        (None, (None, None)) => Err(invalid(
            "You must define at least one of the following parameters 'remote_ip_prefix', or \
             'source_ip_prefix' or 'destination_ip_prefix'.",
        )),
        (None, (Some(source), Some(destination))) if source.family() != destination.family() => {
            Err(invalid(format!(
                "source_ip_prefix {source} and destination_ip_prefix {destination} are of two families."
            )))
        }
        _ => Ok(()),
    }
}

/// Of one label's rules that say the same of a direction, no two `remote_ip_prefix` share an address.
fn check_others(write: &mut Write<'_>, rule: &MeteringRule) -> Result<()> {
    let label = rule.metering_label_id;
    let new = write.new_metering_rules.iter().map(AsRef::as_ref);
    let new = new.filter(|other: &&MeteringRule| other.metering_label_id == label);
    let stored = write.state.metering.rules_of(label);
    let mut count = 0;
    for other in stored.map(|row| row.value.as_ref()).chain(new) {
        count += 1;
        let alike = (other.direction, other.excluded) == (rule.direction, rule.excluded);
        let prefixes = rule.remote_ip_prefix.zip(other.remote_ip_prefix);
        if let Some((prefix, _)) = prefixes.filter(|(own, other)| alike && own.overlaps(*other)) {
            return Err(ApiError::conflict(
                "MeteringLabelRuleOverlaps",
                format!("Metering label rule with remote_ip_prefix '{prefix}' overlaps another."),
            ));
        }
    }
    if count >= MAX_RULES {
        return Err(ApiError::conflict(
            "OverQuota",
            format!("a metering label has at most {MAX_RULES} rules"),
        ));
    }
    write.quiet(keys::metering_rules_of(label));
    Ok(())
}
