//! Address scopes.

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{AddressScope, RbacAction, RbacType, Standard};
use hextet_types::{AddressScopeId, Family, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, wanted_ids},
    sharing::{forget, share_with_all},
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

impl Entity for AddressScope {
    const RESOURCE: &'static Resource = &resources::ADDRESS_SCOPE;
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
        keys::address_scope(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        None
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.scopes.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        match wanted_ids(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| state.scopes.get(id))
                .cloned()
                .collect(),
            None => state.scopes.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller) || is_shared(self, state, caller)
    }

    fn extra(&self, _state: &State) {}

    fn shared_with(&self, state: &State, caller: &Caller) -> Option<bool> {
        Some(is_shared(self, state, caller))
    }

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "name" => json!(self.name),
            "project_id" | "tenant_id" => json!(self.project_id),
            "ip_version" => json!(ip_version(self.family)),
            "shared" => json!(self.shared),
            _ => Value::Null,
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let scope = AddressScope {
            id: AddressScopeId(Uuid::new_v4()),
            project_id: input.take("project_id")?,
            name: input.take("name")?,
            family: family(input.take("ip_version")?)?,
            shared: input.take("shared")?,
            revision_number: 1,
        };
        if scope.shared {
            share(write, &scope)?;
        }
        write.create(scope.key(), &scope)?;
        Ok(Arc::new(scope))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut scope = old.value.as_ref().clone();
        input.put("name", &mut scope.name)?;
        input.put("shared", &mut scope.shared)?;
        scope.revision_number += 1;
        if old.value.shared && !scope.shared {
            return Err(ApiError::new(
                400,
                "AddressScopeUpdateError",
                format!(
                    "Unable to update address scope {} : Shared address scope can't be unshared.",
                    scope.id
                ),
            ));
        }
        if scope.shared && !old.value.shared {
            share(write, &scope)?;
        }
        write.replace(scope.key(), old.mod_revision, &scope)?;
        Ok(Arc::new(scope))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let id = old.value.id;
        if write.state.pools_by_scope.count(&id) > 0 {
            return Err(ApiError::conflict(
                "AddressScopeInUse",
                format!(
                    "Unable to complete operation on address scope {id}. There are one or more \
                     subnet pools in use on the address scope."
                ),
            ));
        }
        write.quiet(keys::subnet_pools());
        forget(write, id.0);
        write.remove(old.value.key(), old.mod_revision);
        Ok(())
    }
}

fn share(write: &mut Write<'_>, scope: &AddressScope) -> Result<()> {
    let object = (RbacType::AddressScope, scope.id.0);
    share_with_all(write, object, RbacAction::AccessAsShared, &scope.project_id)
}

fn is_shared(scope: &AddressScope, state: &State, caller: &Caller) -> bool {
    let action = RbacAction::AccessAsShared;
    scope.shared || state.grants.allows(scope.id.0, action, &caller.project)
}

/// 4 or 6.
pub fn ip_version(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// The family of that version.
///
/// # Errors
///
/// 400: neither 4 nor 6.
pub fn family(ip_version: u8) -> Result<Family> {
    match ip_version {
        4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        other => Err(ApiError::bad_request(format!(
            "Invalid input for ip_version. Reason: '{other}' is not in [4, 6]."
        ))),
    }
}
