//! Who may see and use what belongs to others, as RBAC policies have it.

use std::collections::{BTreeMap, HashMap};

use hextet_model::neutron::{RbacAction, RbacPolicy};
use hextet_types::{ProjectId, RbacPolicyId};
use uuid::Uuid;

/// Policies by what they share, how, and with whom.
#[derive(Debug, Default)]
pub struct Grants(HashMap<Uuid, BTreeMap<(RbacAction, ProjectId), RbacPolicyId>>);

impl Grants {
    /// One more policy.
    pub fn insert(&mut self, policy: &RbacPolicy) {
        let grant = (policy.action, policy.target_project.clone());
        let object = self.0.entry(policy.object_id).or_default();
        object.insert(grant, policy.id);
    }

    /// One policy less.
    pub fn remove(&mut self, policy: &RbacPolicy) {
        let Some(object) = self.0.get_mut(&policy.object_id) else {
            return;
        };
        let grant = (policy.action, policy.target_project.clone());
        // Another may have taken its place meanwhile.
        if object.get(&grant) == Some(&policy.id) {
            object.remove(&grant);
        }
        if object.is_empty() {
            self.0.remove(&policy.object_id);
        }
    }

    /// Whether a policy shares the object so with this project itself.
    pub fn names(&self, object: Uuid, action: RbacAction, project: &ProjectId) -> bool {
        self.find(object, action, project).is_some()
    }

    /// Whether the project may, by itself or because everybody may.
    pub fn allows(&self, object: Uuid, action: RbacAction, project: &ProjectId) -> bool {
        let everybody = || ProjectId(RbacPolicy::EVERYBODY.to_owned());
        self.names(object, action, project) || self.names(object, action, &everybody())
    }

    /// The policy that shares the object so with just this target.
    pub fn find(
        &self,
        object: Uuid,
        action: RbacAction,
        target: &ProjectId,
    ) -> Option<RbacPolicyId> {
        let policies = self.0.get(&object)?;
        policies.get(&(action, target.clone())).copied()
    }

    /// Whether anybody may see and use the object beside its owner.
    pub fn is_shared(&self, object: Uuid) -> bool {
        let shared = |(action, _): &(RbacAction, ProjectId)| *action == RbacAction::AccessAsShared;
        let policies = self.0.get(&object);
        policies.is_some_and(|p| p.keys().any(shared))
    }

    /// All policies of an object.
    pub fn of(&self, object: Uuid) -> impl Iterator<Item = (RbacAction, &ProjectId, RbacPolicyId)> {
        let policies = self.0.get(&object).into_iter().flatten();
        policies.map(|((action, target), id)| (*action, target, *id))
    }
}
