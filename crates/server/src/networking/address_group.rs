//! Address groups: their prefixes, and the rules that keep them.

mod extent;

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes as Body,
    extract::{Path, State as Shared},
    response::Response,
};
use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    render::Shown,
    request::{Caller, Input, parse_object},
    resources,
};
use hextet_model::neutron::{AddressGroup, RbacAction, Standard};
use hextet_types::{AddressGroupId, Prefix, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, Item, standard_value, wanted_ids},
    serve::changeable,
    sharing::forget,
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    keys,
    state::{State, table::Row},
    write::Write,
};

pub use extent::check_rule;

/// Prefixes of one group.
pub const MAX_ADDRESSES: usize = 1_000;

impl Entity for AddressGroup {
    const RESOURCE: &'static Resource = &resources::ADDRESS_GROUP;
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
        keys::address_group(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.address_groups.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        match wanted_ids(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| state.address_groups.get(id))
                .cloned()
                .collect(),
            None => state.address_groups.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let action = RbacAction::AccessAsShared;
        self.is_owned(state, caller)
            || self.shared
            || state.grants.allows(self.id.0, action, &caller.project)
    }

    fn extra(&self, _state: &State) {}

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "addresses" => json!(self.addresses),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let addresses: Vec<Prefix> = input.get("addresses")?.unwrap_or_default();
        let addresses: BTreeSet<Prefix> = addresses.into_iter().collect();
        let group = AddressGroup {
            id: AddressGroupId(Uuid::new_v4()),
            standard: write.standard(input)?,
            addresses: addresses.into_iter().collect(),
            shared: false,
        };
        let quota = resources::ADDRESS_GROUP
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&group.standard.project_id, quota, 1);
        write.create(group.key(), &group)?;
        Ok(Arc::new(group))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut group = old.value.as_ref().clone();
        write.touch(&mut group.standard, input)?;
        write.replace(group.key(), old.mod_revision, &group)?;
        Ok(Arc::new(group))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let id = old.value.id;
        if write.state.rules_by_address_group.count(&id) > 0 {
            return Err(ApiError::conflict(
                "AddressGroupInUse",
                format!("Address group {id} is in use on one or more security group rules."),
            ));
        }
        write.quiet(keys::rules());
        forget(write, id.0);
        write.remove(old.value.key(), old.mod_revision);
        Ok(())
    }
}

type Answer = Result<Response, NetworkingError>;

/// `PUT …/add_addresses`.
pub async fn add_addresses(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let named = parse(&body)?;
    change(&app, &asked, &id, |group| {
        let there: Vec<_> = named
            .iter()
            .filter(|p| group.addresses.contains(p))
            .collect();
        if !there.is_empty() {
            return Err(ApiError::new(
                400,
                "AddressesAlreadyExist",
                format!(
                    "Addresses {} already exist in the address group {}.",
                    json!(there),
                    group.id
                ),
            ));
        }
        if group.addresses.len() + named.len() > MAX_ADDRESSES {
            return Err(ApiError::conflict(
                "OverQuota",
                format!("an address group has at most {MAX_ADDRESSES} addresses"),
            ));
        }
        group.addresses.extend(&named);
        group.addresses.sort_unstable();
        Ok(())
    })
    .await
}

/// `PUT …/remove_addresses`.
pub async fn remove_addresses(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let named = parse(&body)?;
    change(&app, &asked, &id, |group| {
        let absent: Vec<_> = named
            .iter()
            .filter(|p| !group.addresses.contains(p))
            .collect();
        if !absent.is_empty() {
            return Err(ApiError::new(
                404,
                "AddressesNotFound",
                format!(
                    "Addresses {} not found in the address group {}.",
                    json!(absent),
                    group.id
                ),
            ));
        }
        group.addresses.retain(|p| !named.contains(p));
        Ok(())
    })
    .await
}

fn parse(body: &[u8]) -> Result<BTreeSet<Prefix>> {
    let invalid = || ApiError::bad_request("Request body contains invalid data");
    let list = parse_object(body)?
        .remove("addresses")
        .ok_or_else(invalid)?;
    let attribute = resources::ADDRESS_GROUP.attribute("addresses");
    let normal = attribute.ok_or_else(invalid)?.normalize(list)?;
    serde_json::from_value(normal).map_err(|_| invalid())
}

async fn change(
    app: &App,
    asked: &Asked,
    id: &str,
    edit: impl Fn(&mut AddressGroup) -> Result<()>,
) -> Answer {
    let changed = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<AddressGroup>(write.state, write.caller, id, "update")?;
            let mut group = row.value.as_ref().clone();
            edit(&mut group)?;
            if group.addresses.len() > row.value.addresses.len() {
                extent::check_group(write, &group)?;
            }
            group.standard.revision_number += 1;
            group.standard.updated_at = write.now;
            write.replace(group.key(), row.mod_revision, &group)?;
            Ok(Arc::new(group))
        })
        .await?;
    let resource = &resources::ADDRESS_GROUP;
    app.metrics.changed(resource.name, "update", 1);
    let item = Item::seen_by(changed, &app.cloud.state(), &asked.caller);
    let shown = Shown::new(resource, asked.caller.admin, &[]);
    Ok(answer::json(
        200,
        &json!({resource.name: json!(shown.of(&item))}),
    ))
}
