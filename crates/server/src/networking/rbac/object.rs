//! What a policy shares, whatever its kind: who owns it, who depends on sharing it, and what
//! becomes of its attributes.

use std::collections::BTreeSet;

use hextet_api::{
    error::{ApiError, Result},
    request::Caller,
};
use hextet_model::neutron::{
    AddressGroup, AddressScope, Network, NetworkType, QosPolicy, RbacAction, RbacPolicy, RbacType,
    SecurityGroup, SubnetPool,
};
use hextet_types::ProjectId;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::super::{entity::Entity, network::not_external, qos::foreign_users, sharing::everybody};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

/// What is shared, as it was read.
pub enum Object {
    Network(Row<Network>),
    SecurityGroup(Row<SecurityGroup>),
    SubnetPool(Row<SubnetPool>),
    AddressScope(Row<AddressScope>),
    AddressGroup(Row<AddressGroup>),
    QosPolicy(Row<QosPolicy>),
}

/// How an object is shared as a write leaves it.
#[derive(Clone, Copy)]
struct Open {
    /// With everybody.
    to_all: bool,
    /// As an external network, with anybody.
    as_external: bool,
}

fn row<E: Entity>(state: &State, id: Uuid) -> Result<Row<E>> {
    let found = E::find(state, &id.to_string());
    found.cloned().ok_or_else(|| E::RESOURCE.missing(id))
}

impl Object {
    /// The object of a policy that is there.
    ///
    /// # Errors
    ///
    /// 404.
    pub fn of(state: &State, object_type: RbacType, id: Uuid) -> Result<Object> {
        Ok(match object_type {
            RbacType::Network => Object::Network(row(state, id)?),
            RbacType::SecurityGroup => Object::SecurityGroup(row(state, id)?),
            RbacType::SubnetPool => Object::SubnetPool(row(state, id)?),
            RbacType::AddressScope => Object::AddressScope(row(state, id)?),
            RbacType::AddressGroup => Object::AddressGroup(row(state, id)?),
            RbacType::QosPolicy => Object::QosPolicy(row(state, id)?),
        })
    }

    /// An object that the caller sees.
    ///
    /// # Errors
    ///
    /// 404, whether there is none or the caller may not know of it.
    pub fn find(write: &Write<'_>, object_type: RbacType, id: Uuid) -> Result<Object> {
        let (state, caller) = (write.state, write.caller);
        let object = Object::of(state, object_type, id)?;
        let (visible, resource) = match &object {
            Object::Network(r) => (r.value.is_visible(state, caller), Network::RESOURCE),
            Object::SecurityGroup(r) => {
                let resource = SecurityGroup::RESOURCE;
                (r.value.is_visible(state, caller), resource)
            }
            Object::SubnetPool(r) => (r.value.is_visible(state, caller), SubnetPool::RESOURCE),
            Object::AddressScope(r) => (r.value.is_visible(state, caller), AddressScope::RESOURCE),
            Object::AddressGroup(r) => (r.value.is_visible(state, caller), AddressGroup::RESOURCE),
            Object::QosPolicy(r) => (r.value.is_visible(state, caller), QosPolicy::RESOURCE),
        };
        if visible {
            Ok(object)
        } else {
            Err(resource.missing(id))
        }
    }

    fn project(&self) -> &ProjectId {
        match self {
            Object::Network(r) => r.value.project(),
            Object::SecurityGroup(r) => r.value.project(),
            Object::SubnetPool(r) => r.value.project(),
            Object::AddressScope(r) => r.value.project(),
            Object::AddressGroup(r) => r.value.project(),
            Object::QosPolicy(r) => r.value.project(),
        }
    }

    /// # Errors
    ///
    /// 400: it is somebody else's.
    pub fn check_owned(&self, caller: &Caller) -> Result<()> {
        if caller.admin || *self.project() == caller.project {
            return Ok(());
        }
        let what = match self {
            Object::Network(_) => "networks",
            _ => "objects",
        };
        Err(ApiError::invalid_input(format!(
            "Only admins can manipulate policies on {what} they do not own"
        )))
    }

    /// The policy may go, or come to name another project.
    ///
    /// # Errors
    ///
    /// 409 `RbacPolicyInUse`: somebody depends on it.
    pub fn check_loss(
        &self,
        write: &mut Write<'_>,
        policy: &RbacPolicy,
        instead: Option<&ProjectId>,
    ) -> Result<()> {
        let target = &policy.target_project;
        if policy.action == RbacAction::AccessAsExternal {
            return self.check_external_loss(write, policy, instead);
        }
        if target == self.project() {
            return Ok(());
        }
        let named = |project: &ProjectId| {
            let action = RbacAction::AccessAsShared;
            let another = project != target || instead == Some(project);
            another && write.state.grants.names(policy.object_id, action, project)
        };
        let to_all = *target != everybody() && named(&everybody());
        let bound = self.bound(write.state);
        let loses = |project: &&ProjectId| {
            *project != self.project()
                && !project.0.is_empty()
                && (*target == everybody() || *project == target)
                && instead != Some(*project)
                && !named(project)
        };
        match bound.iter().find(loses).filter(|_| !to_all) {
            Some(project) => Err(self.in_use(policy, project)),
            None => {
                write.quiet(self.users());
                Ok(())
            }
        }
    }

    fn in_use(&self, policy: &RbacPolicy, project: &ProjectId) -> ApiError {
        let details = match self {
            Object::Network(r) => format!(
                "Unable to reconfigure sharing settings for network {}. Multiple projects are \
                 using it.",
                r.value.id
            ),
            _ => format!("project_id={project}"),
        };
        policy_in_use(policy, &details)
    }

    /// # Errors
    ///
    /// 400: it is a private network.
    pub fn check_can_be_external(&self) -> Result<()> {
        match self {
            Object::Network(r) if r.value.network_type == NetworkType::Vxlan => Err(not_external()),
            _ => Ok(()),
        }
    }

    /// The external network of choice is everybody's; routers keep their gateways.
    fn check_external_loss(
        &self,
        write: &mut Write<'_>,
        policy: &RbacPolicy,
        instead: Option<&ProjectId>,
    ) -> Result<()> {
        let Object::Network(network) = self else {
            return Ok(());
        };
        let target = &policy.target_project;
        if network.value.is_default && *target == everybody() {
            let details = "Default external networks must be shared to everyone.";
            return Err(policy_in_use(policy, details));
        }
        let state = write.state;
        let named = |project: &ProjectId| {
            let action = RbacAction::AccessAsExternal;
            let another = project != target || instead == Some(project);
            another && state.grants.names(policy.object_id, action, project)
        };
        let to_all = instead == Some(&everybody()) || named(&everybody());
        let loses = |project: &ProjectId| {
            project != self.project()
                && (*target == everybody() || project == target)
                && instead != Some(project)
                && !named(project)
        };
        let routers = state.layer3.routers_by_network.get(&network.value.id);
        let mut routers = routers.filter_map(|id| state.layer3.routers.get(id));
        if !to_all && routers.any(|r| loses(&r.standard.project_id)) {
            let details = "There are routers attached to this network that depend on this policy \
                           for access.";
            return Err(policy_in_use(policy, details));
        }
        write.quiet(self.users());
        Ok(())
    }

    /// Projects that use it.
    fn bound(&self, state: &State) -> BTreeSet<ProjectId> {
        let port = |id| state.ports.get(id).map(|p| p.standard.project_id.clone());
        match self {
            Object::Network(r) => {
                let ports = state.ports_by_network.get(&r.value.id);
                ports.filter_map(port).collect()
            }
            Object::SecurityGroup(r) => {
                let ports = state.ports_by_group.get(&r.value.id);
                ports.filter_map(port).collect()
            }
            Object::SubnetPool(r) => {
                let space = state.spaces.get(&r.value.id);
                let subnets = space.into_iter().flat_map(|s| s.allocations());
                subnets.map(|(_, (_, project))| project.clone()).collect()
            }
            Object::AddressScope(r) => {
                let pools = state.pools_by_scope.get(&r.value.id);
                let pools = pools.filter_map(|id| state.pools.get(id));
                pools.map(|p| p.standard.project_id.clone()).collect()
            }
            Object::AddressGroup(r) => {
                let rules = state.rules_by_address_group.get(&r.value.id);
                let rules = rules.filter_map(|id| state.rules.get(id));
                rules.map(|r| r.project_id.clone()).collect()
            }
            Object::QosPolicy(r) => {
                let users = foreign_users(state, r.value.id);
                users.map(|(_, project)| project.clone()).collect()
            }
        }
    }

    /// Where the store keeps what uses it.
    fn users(&self) -> bytes::Bytes {
        match self {
            Object::Network(r) => keys::ports_of(r.value.id),
            Object::SecurityGroup(_) => keys::ports(),
            Object::SubnetPool(r) => keys::allocations_of(r.value.id),
            Object::AddressScope(_) => keys::subnet_pools(),
            Object::AddressGroup(_) => keys::rules(),
            Object::QosPolicy(r) => keys::qos_uses(r.value.id),
        }
    }

    /// Brings its attributes in line with the policies that this write leaves. It changes in any
    /// case, so that those who use it meanwhile notice.
    ///
    /// # Errors
    ///
    /// It cannot be encoded.
    pub fn follow(&self, write: &mut Write<'_>) -> Result<()> {
        let now = write.now;
        match self {
            Object::Network(r) => edit(write, r, |network, open| {
                network.shared = open.to_all;
                network.external = open.as_external;
                network.standard.revision_number += 1;
                network.standard.updated_at = now;
            }),
            Object::SecurityGroup(r) => edit(write, r, |group, open| {
                group.shared = open.to_all;
                group.standard.revision_number += 1;
                group.standard.updated_at = now;
            }),
            Object::SubnetPool(r) => edit(write, r, |pool, open| {
                pool.shared = open.to_all;
                pool.standard.revision_number += 1;
                pool.standard.updated_at = now;
            }),
            Object::AddressScope(r) => edit(write, r, |scope, open| {
                scope.shared = open.to_all;
                scope.revision_number += 1;
            }),
            Object::AddressGroup(r) => edit(write, r, |group, open| {
                group.shared = open.to_all;
                group.standard.revision_number += 1;
                group.standard.updated_at = now;
            }),
            Object::QosPolicy(r) => edit(write, r, |policy, open| {
                policy.shared = open.to_all;
                policy.standard.revision_number += 1;
                policy.standard.updated_at = now;
            }),
        }
    }
}

fn policy_in_use(policy: &RbacPolicy, details: &str) -> ApiError {
    let object = policy.object_id;
    ApiError::conflict(
        "RbacPolicyInUse",
        format!(
            "RBAC policy on object {object} cannot be removed because other objects depend on \
             it.\nDetails: {details}"
        ),
    )
}

/// Changes the object as this write has left it so far.
fn edit<E: Entity + DeserializeOwned>(
    write: &mut Write<'_>,
    row: &Row<E>,
    apply: impl FnOnce(&mut E, Open),
) -> Result<()> {
    let id = row.value.id();
    let stay = |(action, target): &(RbacAction, &ProjectId)| {
        !write.has_released(&keys::rbac_grant(id, *action, target))
    };
    let policies = write
        .state
        .grants
        .of(id)
        .map(|(action, target, _)| (action, target));
    let new = write.new_grants.iter().filter(|(object, ..)| *object == id);
    let all: Vec<_> = policies
        .filter(stay)
        .chain(new.map(|(_, action, target)| (*action, target)))
        .collect();
    let open = Open {
        to_all: all.contains(&(RbacAction::AccessAsShared, &everybody())),
        as_external: all
            .iter()
            .any(|(action, _)| *action == RbacAction::AccessAsExternal),
    };
    let key = row.value.key();
    let mut object = match write.pending(&key) {
        Some(object) => object,
        None => row.value.as_ref().clone(),
    };
    apply(&mut object, open);
    write.replace(key, row.mod_revision, &object)
}
