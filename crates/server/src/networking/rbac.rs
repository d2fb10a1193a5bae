//! RBAC policies: what they may share with whom, and when they may go.

mod object;

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{RbacAction, RbacPolicy, RbacType, Standard};
use hextet_types::{ProjectId, RbacPolicyId};
use serde_json::{Value, json};
use uuid::Uuid;

use object::Object;

use super::{
    entity::{Entity, wanted_ids},
    sharing::{claim_grant, everybody, put_policy},
    subnet_pool::check_scope_follows,
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

/// Policies of one object.
pub const MAX_POLICIES: usize = 1_000;

impl Entity for RbacPolicy {
    const RESOURCE: &'static Resource = &resources::RBAC_POLICY;
    type Extra = ();

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn project(&self) -> &ProjectId {
        &self.project_id
    }

    fn revision(&self) -> u64 {
        self.revision_number
    }

    fn key(&self) -> Bytes {
        keys::rbac_policy(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        None
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.policies.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        let all = |ids: Vec<RbacPolicyId>| {
            let found = ids.iter().filter_map(|id| state.policies.get(id));
            found.cloned().collect()
        };
        if let Some(ids) = wanted_ids(query, "id") {
            return all(ids);
        }
        match wanted_ids::<Uuid>(query, "object_id") {
            Some(objects) => {
                let of = |o: &Uuid| state.grants.of(*o).map(|(_, _, id)| id).collect::<Vec<_>>();
                all(objects.iter().flat_map(of).collect())
            }
            None => state.policies.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller)
    }

    fn extra(&self, _state: &State) {}

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "project_id" | "tenant_id" => json!(self.project_id),
            "object_type" => json!(self.object_type),
            "object_id" => json!(self.object_id),
            "action" => json!(self.action),
            "target_tenant" | "target_project" => json!(self.target_project),
            _ => Value::Null,
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let object_type = object_type(input)?;
        let policy = RbacPolicy {
            id: RbacPolicyId(Uuid::new_v4()),
            project_id: input.take("project_id")?,
            object_type,
            object_id: input.take("object_id")?,
            action: action(input, object_type)?,
            target_project: target(input)?.ok_or_else(|| {
                ApiError::bad_request(
                    "Failed to parse request. Required attribute 'target_tenant' not specified",
                )
            })?,
            revision_number: 1,
        };
        check_wildcard(write.caller, &policy.target_project, "create")?;
        let object = Object::find(write, object_type, policy.object_id)?;
        object.check_owned(write.caller)?;
        if write.state.grants.of(policy.object_id).count() >= MAX_POLICIES {
            return Err(ApiError::conflict(
                "OverQuota",
                format!("at most {MAX_POLICIES} RBAC policies share one object"),
            ));
        }
        if let Object::SubnetPool(pool) = &object {
            check_scope_follows(write, &pool.value, &policy.target_project)?;
        }
        if policy.action == RbacAction::AccessAsExternal {
            object.check_can_be_external()?;
        }
        put_policy(write, &policy)?;
        object.follow(write)?;
        let quota = resources::RBAC_POLICY
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&policy.project_id, quota, 1);
        Ok(Arc::new(policy))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut policy = old.value.as_ref().clone();
        let object = Object::find(write, policy.object_type, policy.object_id)?;
        object.check_owned(write.caller)?;
        let Some(target) = target(input)?.filter(|t| *t != policy.target_project) else {
            return Ok(Arc::clone(&old.value));
        };
        check_wildcard(write.caller, &target, "update")?;
        if target != everybody() {
            object.check_loss(write, &old.value, Some(&target))?;
        }
        if let Object::SubnetPool(pool) = &object {
            check_scope_follows(write, &pool.value, &target)?;
        }
        policy.target_project = target;
        policy.revision_number += 1;
        let former = &old.value;
        write.release(keys::rbac_grant(
            former.object_id,
            former.action,
            &former.target_project,
        ));
        claim_grant(write, &policy)?;
        write.replace(policy.key(), old.mod_revision, &policy)?;
        object.follow(write)?;
        Ok(Arc::new(policy))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let policy = &old.value;
        let object = Object::of(write.state, policy.object_type, policy.object_id)?;
        object.check_loss(write, policy, None)?;
        write.release(keys::rbac_grant(
            policy.object_id,
            policy.action,
            &policy.target_project,
        ));
        write.remove(policy.key(), old.mod_revision);
        object.follow(write)
    }
}

fn object_type(input: &Input) -> Result<RbacType> {
    let text: String = input.take("object_type")?;
    let known = serde_json::from_value(json!(text.trim().to_lowercase()));
    known.map_err(|_| ApiError::invalid_input(format!("'{text}' is not a valid RBAC object type")))
}

fn action(input: &Input, object_type: RbacType) -> Result<RbacAction> {
    let text: String = input.take("action")?;
    let valid: &[RbacAction] = match object_type {
        RbacType::Network => &[RbacAction::AccessAsExternal, RbacAction::AccessAsShared],
        _ => &[RbacAction::AccessAsShared],
    };
    let known = valid.iter().find(|a| a.name() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<_> = valid.iter().map(|a| a.name()).collect();
        let kind = json!(object_type);
        ApiError::new(
            400,
            "InvalidActionForType",
            format!(
                "Invalid action '{text}' for object type '{}'. Valid actions: {}",
                kind.as_str().unwrap_or_default(),
                names.join(", ")
            ),
        )
    })
}

/// The target under either of its names.
fn target(input: &Input) -> Result<Option<ProjectId>> {
    let both: [Option<String>; 2] = [input.get("target_project")?, input.get("target_tenant")?];
    let text = match both {
        [Some(new), Some(old)] if new != old => {
            return Err(ApiError::bad_request(
                "'target_project' and 'target_tenant' do not match",
            ));
        }
        [Some(text), _] | [None, Some(text)] => text,
        [None, None] => return Ok(None),
    };
    if text != RbacPolicy::EVERYBODY && text.parse::<Uuid>().is_err() {
        return Err(ApiError::invalid_input(format!(
            "'{text}' is not a valid target project ID; expected a UUID or '*'"
        )));
    }
    Ok(Some(ProjectId(text)))
}

/// Only an administrator shares with everybody.
fn check_wildcard(caller: &Caller, target: &ProjectId, verb: &str) -> Result<()> {
    if caller.admin || *target != everybody() {
        return Ok(());
    }
    let action = format!("{verb}_rbac_policy:target_project");
    Err(ApiError::forbidden(action))
}
