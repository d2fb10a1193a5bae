//! What is shared, and with whom: RBAC policies beside the attribute `shared` (and
//! `router:external`) of what they share. The attribute says what the policy for `*` says; both
//! change in one write, and each policy's change is a change of its object, so that whoever decides
//! on the object being shared notices.

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{RbacAction, RbacPolicy, RbacType};
use hextet_types::{ProjectId, RbacPolicyId};
use uuid::Uuid;

use crate::{keys, write::Write};

/// Everybody.
pub fn everybody() -> ProjectId {
    ProjectId(RbacPolicy::EVERYBODY.to_owned())
}

/// Puts a new policy.
///
/// # Errors
///
/// 409 `DuplicateRbacPolicy`.
pub fn put_policy(write: &mut Write<'_>, policy: &RbacPolicy) -> Result<()> {
    claim_grant(write, policy)?;
    write.create(keys::rbac_policy(policy.id), policy)
}

/// Claims to be the one policy that says so.
///
/// # Errors
///
/// 409 `DuplicateRbacPolicy`.
pub fn claim_grant(write: &mut Write<'_>, policy: &RbacPolicy) -> Result<()> {
    let (object, action, target) = (policy.object_id, policy.action, &policy.target_project);
    let key = keys::rbac_grant(object, action, target);
    let there = write.state.grants.find(object, action, target).is_some();
    if (there && !write.has_released(&key)) || !write.claim(key, policy.id.to_string()) {
        return Err(ApiError::conflict(
            "DuplicateRbacPolicy",
            "An RBAC policy already exists with those values.",
        ));
    }
    write.new_grants.push((object, action, target.clone()));
    Ok(())
}

/// Shares an object with everybody, as its attribute says now.
///
/// # Errors
///
/// It cannot be encoded.
pub fn share_with_all(
    write: &mut Write<'_>,
    object: (RbacType, Uuid),
    action: RbacAction,
    owner: &ProjectId,
) -> Result<()> {
    let (object_type, object_id) = object;
    if write.state.grants.names(object_id, action, &everybody()) {
        return Ok(());
    }
    let policy = RbacPolicy {
        id: RbacPolicyId(Uuid::new_v4()),
        project_id: owner.clone(),
        object_type,
        object_id,
        action,
        target_project: everybody(),
        revision_number: 1,
    };
    put_policy(write, &policy)
}

/// Takes away the policies of an object that are such.
pub fn take_away(
    write: &mut Write<'_>,
    object: Uuid,
    such: impl Fn(RbacAction, &ProjectId) -> bool,
) {
    let state = write.state;
    for (action, target, id) in state.grants.of(object).filter(|(a, t, _)| such(*a, t)) {
        write.release(keys::rbac_grant(object, action, target));
        if let Some(row) = state.policies.row(&id) {
            write.remove(keys::rbac_policy(id), row.mod_revision);
        }
    }
}

/// Takes away all policies of an object that goes.
pub fn forget(write: &mut Write<'_>, object: Uuid) {
    take_away(write, object, |_, _| true);
}
