//! QoS policies: whose they are, and what has them.

pub mod rule;
pub mod types;

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{QosPolicy, QosRule, RbacAction, RbacType, Standard};
use hextet_types::{ProjectId, QosPolicyId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, standard_value, wanted_ids},
    sharing::{everybody, forget, share_with_all, take_away},
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

impl Entity for QosPolicy {
    const RESOURCE: &'static Resource = &resources::QOS_POLICY;
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
        keys::qos_policy(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.qos.policies.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        let policies = &state.qos.policies;
        match wanted_ids::<QosPolicyId>(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| policies.get(id))
                .cloned()
                .collect(),
            None => policies.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let own = caller.admin || self.standard.project_id == caller.project;
        own || is_shared(self, state, caller)
    }

    /// A project's own policies are its administrator's to change, too.
    fn is_owned(&self, _state: &State, caller: &Caller) -> bool {
        caller.admin
    }

    fn extra(&self, _state: &State) {}

    fn shared_with(&self, state: &State, caller: &Caller) -> Option<bool> {
        Some(is_shared(self, state, caller))
    }

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "shared" => json!(self.shared),
            "is_default" => json!(self.is_default),
            "rules" => self.rules.iter().map(|r| show_rule(r, self.id)).collect(),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let policy = QosPolicy {
            id: QosPolicyId(Uuid::new_v4()),
            standard: write.standard(input)?,
            shared: input.take("shared")?,
            is_default: input.take("is_default")?,
            rules: Vec::new(),
        };
        if policy.is_default {
            claim_default(write, &policy)?;
        }
        if policy.shared {
            share(write, &policy)?;
        }
        let quota = resources::QOS_POLICY
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&policy.standard.project_id, quota, 1);
        write.create(policy.key(), &policy)?;
        Ok(Arc::new(policy))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut policy = old.value.as_ref().clone();
        write.touch(&mut policy.standard, input)?;
        input.put("shared", &mut policy.shared)?;
        input.put("is_default", &mut policy.is_default)?;
        match (old.value.is_default, policy.is_default) {
            (false, true) => claim_default(write, &policy)?,
            (true, false) => write.release(keys::default_qos_policy(&policy.standard.project_id)),
            _ => {}
        }
        match (old.value.shared, policy.shared) {
            (false, true) => share(write, &policy)?,
            (true, false) => unshare(write, &policy)?,
            _ => {}
        }
        write.replace(policy.key(), old.mod_revision, &policy)?;
        Ok(Arc::new(policy))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let policy = &old.value;
        if let Some(user) = write.state.qos.users.get(&policy.id).next() {
            return Err(ApiError::conflict(
                "QosPolicyInUse",
                format!("QoS Policy {} is used by {user}.", policy.id),
            ));
        }
        write.quiet(keys::qos_uses(policy.id));
        if policy.is_default {
            write.release(keys::default_qos_policy(&policy.standard.project_id));
        }
        forget(write, policy.id.0);
        write.remove(policy.key(), old.mod_revision);
        Ok(())
    }
}

/// As a policy shows it.
fn show_rule(rule: &QosRule, policy: QosPolicyId) -> Value {
    let mut shown = json!(rule);
    if let Some(map) = shown.as_object_mut() {
        map.insert("qos_policy_id".into(), json!(policy));
    }
    shown
}

fn is_shared(policy: &QosPolicy, state: &State, caller: &Caller) -> bool {
    let action = RbacAction::AccessAsShared;
    policy.shared || state.grants.allows(policy.id.0, action, &caller.project)
}

fn share(write: &mut Write<'_>, policy: &QosPolicy) -> Result<()> {
    let object = (RbacType::QosPolicy, policy.id.0);
    let owner = &policy.standard.project_id;
    share_with_all(write, object, RbacAction::AccessAsShared, owner)
}

/// Others that use it need a policy of theirs.
fn unshare(write: &mut Write<'_>, policy: &QosPolicy) -> Result<()> {
    let state = write.state;
    let action = RbacAction::AccessAsShared;
    let may = |project: &ProjectId| {
        *project == policy.standard.project_id || state.grants.names(policy.id.0, action, project)
    };
    if let Some(user) = foreign_users(state, policy.id).find(|(_, project)| !may(project)) {
        return Err(ApiError::conflict(
            "QosPolicyInUse",
            format!("QoS Policy {} is used by {}.", policy.id, user.0),
        ));
    }
    write.quiet(keys::qos_uses(policy.id));
    take_away(write, policy.id.0, |action, target| {
        action == RbacAction::AccessAsShared && *target == everybody()
    });
    Ok(())
}

/// What has a policy, and whose it is; without what belongs to nobody.
pub fn foreign_users(
    state: &State,
    policy: QosPolicyId,
) -> impl Iterator<Item = (crate::state::qos::QosUser, &ProjectId)> {
    use crate::state::qos::QosUser;
    let users = state.qos.users.get(&policy);
    let owned = users.filter_map(|user| {
        let layer3 = &state.layer3;
        let standard = match user {
            QosUser::Network(id) => &state.networks.get(id)?.standard,
            QosUser::Port(id) => &state.ports.get(id)?.standard,
            QosUser::FloatingIp(id) => &layer3.floating_ips.get(id)?.standard,
            QosUser::Router(id) => &layer3.routers.get(id)?.standard,
        };
        Some((*user, &standard.project_id))
    });
    owned.filter(|(_, project)| !project.0.is_empty())
}

fn claim_default(write: &mut Write<'_>, policy: &QosPolicy) -> Result<()> {
    let project = &policy.standard.project_id;
    let there = write.state.qos.defaults.contains_key(project);
    if !there && write.claim(keys::default_qos_policy(project), policy.id.to_string()) {
        return Ok(());
    }
    Err(ApiError::conflict(
        "QoSPolicyDefaultAlreadyExists",
        format!("A default QoS policy exists for project {project}."),
    ))
}

/// What something new gets: the policy that is named, or none.
///
/// # Errors
///
/// 404 `QosPolicyNotFound`.
pub fn for_new(write: &mut Write<'_>, input: &Input, object: Uuid) -> Result<Option<QosPolicyId>> {
    let wanted = input.get("qos_policy_id")?;
    assign(write, None, wanted, object)?;
    Ok(wanted)
}

/// Something gets another policy, if the request names one.
///
/// # Errors
///
/// As [`assign`].
pub fn reassign(
    write: &mut Write<'_>,
    input: &Input,
    current: &mut Option<QosPolicyId>,
    object: Uuid,
) -> Result<()> {
    if input.names("qos_policy_id") {
        let wanted = input.get("qos_policy_id")?;
        assign(write, *current, wanted, object)?;
        *current = wanted;
    }
    Ok(())
}

/// Something goes that may have had a policy.
pub fn release(write: &mut Write<'_>, policy: Option<QosPolicyId>, object: Uuid) {
    if let Some(policy) = policy {
        write.release(keys::qos_use(policy, object));
    }
}

/// Something has another policy from now on. Only what one may see can be given or taken away.
///
/// # Errors
///
/// 403 `PolicyRemoveAuthorizationError`, 404 `QosPolicyNotFound`.
pub fn assign(
    write: &mut Write<'_>,
    old: Option<QosPolicyId>,
    new: Option<QosPolicyId>,
    object: Uuid,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let (state, caller) = (write.state, write.caller);
    let visible = |id: QosPolicyId| {
        let row = state.qos.policies.row(&id);
        row.filter(|r| r.value.is_visible(state, caller))
    };
    if let Some(id) = old {
        if visible(id).is_none() {
            return Err(ApiError::new(
                403,
                "PolicyRemoveAuthorizationError",
                format!("Failed to remove provided policy {id} because you are not authorized."),
            ));
        }
        release(write, old, object);
    }
    if let Some(id) = new {
        let row = visible(id).ok_or_else(|| resources::QOS_POLICY.missing(id))?;
        write.unchanged(keys::qos_policy(id), row.mod_revision);
        write.mark(keys::qos_use(id, object));
    }
    Ok(())
}
