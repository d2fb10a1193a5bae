//! What each resource adds to what its description says: where it is kept, who sees it, and what
//! creating, changing and deleting it mean.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::Result,
    query::{Query, Record},
    request::{Caller, Input},
};
use hextet_model::neutron::Standard;
use hextet_types::ProjectId;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cloud::Cloud,
    state::{State, table::Row},
    write::Write,
};

/// A resource that is kept in the store and served in general.
pub trait Entity: Clone + Serialize + Send + Sync + Sized + 'static {
    /// Its description.
    const RESOURCE: &'static Resource;
    /// What is shown of it beside itself.
    type Extra: Send + Sync;

    /// Its identifier.
    fn id(&self) -> Uuid;
    /// Its owner.
    fn project(&self) -> &ProjectId;
    /// Its revision.
    fn revision(&self) -> u64;
    /// Where the store keeps it.
    fn key(&self) -> Bytes;
    /// Its standard attributes, where it has all of them.
    fn standard_mut(&mut self) -> Option<&mut Standard>;

    /// The one of that identifier.
    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>>;
    /// Those that can match the query, found by an index where there is one for it; of one
    /// project, or of all.
    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>>;
    /// Whether the caller may know of it.
    fn is_visible(&self, state: &State, caller: &Caller) -> bool;
    /// Whether the caller may change it.
    fn is_owned(&self, _state: &State, caller: &Caller) -> bool {
        caller.admin || *self.project() == caller.project
    }

    /// What is shown beside.
    fn extra(&self, state: &State) -> Self::Extra;
    /// An attribute's value in normal form.
    fn value(&self, extra: &Self::Extra, attribute: &str) -> Value;

    /// Its attribute `shared`, which says of some whether they are shared with who asks.
    fn shared_with(&self, _state: &State, _caller: &Caller) -> Option<bool> {
        None
    }

    /// Decides to make one.
    ///
    /// # Errors
    ///
    /// What the resource's semantics refuse.
    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>>;
    /// Decides to change one.
    ///
    /// # Errors
    ///
    /// What the resource's semantics refuse.
    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>>;
    /// Decides to delete one.
    ///
    /// # Errors
    ///
    /// What the resource's semantics refuse.
    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()>;

    /// What has to follow once new ones stand, before the client is answered.
    fn settle(_cloud: &Cloud, _made: &[Arc<Self>]) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
    /// What has to precede the deletion.
    fn unsettle(_cloud: &Cloud, _going: &Arc<Self>) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
    /// What has to be there before a list is answered.
    fn prepare(_cloud: &Cloud, _caller: &Caller) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// An entity with what is shown beside it.
pub struct Item<E: Entity> {
    /// The entity.
    pub entity: Arc<E>,
    extra: E::Extra,
    shared: Option<bool>,
}

impl<E: Entity> Item<E> {
    /// The entity as the state shows it.
    pub fn new(entity: Arc<E>, state: &State) -> Self {
        let extra = entity.extra(state);
        Item {
            entity,
            extra,
            shared: None,
        }
    }

    /// The entity as the state shows it to this caller.
    pub fn seen_by(entity: Arc<E>, state: &State, caller: &Caller) -> Self {
        let shared = entity.shared_with(state, caller);
        Item {
            shared,
            ..Item::new(entity, state)
        }
    }
}

impl<E: Entity> Record for Item<E> {
    fn value(&self, attribute: &str) -> Value {
        match self.shared.filter(|_| attribute == "shared") {
            Some(shared) => json!(shared),
            None => self.entity.value(&self.extra, attribute),
        }
    }
}

/// A standard attribute's value.
pub fn standard_value(standard: &Standard, attribute: &str) -> Value {
    match attribute {
        "name" => json!(standard.name),
        "project_id" | "tenant_id" => json!(standard.project_id),
        "description" => json!(standard.description),
        "tags" => json!(standard.tags),
        "revision_number" => json!(standard.revision_number),
        "created_at" => json!(standard.created_at),
        "updated_at" => json!(standard.updated_at),
        _ => Value::Null,
    }
}

/// Parses the alternatives of a filter by identifier.
pub fn wanted_ids<K: std::str::FromStr>(query: &Query, attribute: &str) -> Option<Vec<K>> {
    let wanted = query.wanted(attribute)?;
    let texts = wanted.iter().filter_map(Value::as_str);
    Some(texts.filter_map(|t| t.parse().ok()).collect())
}
