//! A write being decided: what it read (compares), what it claims, what it changes.
//!
//! Decided against the state at one revision, committed only if what it read is still so. What a
//! request has made already counts for the rest of it, so that the items of a bulk request cannot
//! take the same address or pass a quota together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use hextet_api::{
    describe::Quota,
    error::{ApiError, Result},
    request::Caller,
};
use hextet_model::neutron::{
    MeteringRule, RbacAction, SecurityGroup, SecurityGroupRule, Standard, Subnet, SubnetPool,
};
use hextet_store::{Check, Compare, KeyRange, Op, Relation, Txn, limits};
use hextet_types::{ProjectId, SubnetId};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    config::NetworkPolicy,
    state::{State, ranges::Ranges},
};

/// What a project will have besides, by quota.
pub type Usage = BTreeMap<(ProjectId, &'static str), (i64, Quota)>;

/// A write being decided.
pub struct Write<'s> {
    /// The cloud as it stands.
    pub state: &'s State,
    /// Who asks.
    pub caller: &'s Caller,
    /// What the configuration says of networks.
    pub policy: &'s NetworkPolicy,
    /// In whole seconds.
    pub now: Timestamp,
    /// Subnets that this write has made.
    pub new_subnets: Vec<Arc<Subnet>>,
    /// Groups that this write has made.
    pub new_groups: Vec<Arc<SecurityGroup>>,
    /// Rules that this write has made.
    pub new_rules: Vec<Arc<SecurityGroupRule>>,
    /// Rules of metering labels that this write has made.
    pub new_metering_rules: Vec<Arc<MeteringRule>>,
    /// Pools that this write has put into scopes.
    pub new_pools: Vec<Arc<SubnetPool>>,
    /// What this write has shared: object, how, with whom.
    pub new_grants: Vec<(Uuid, RbacAction, ProjectId)>,
    /// Addresses out of pools that this write has taken.
    pub taken: HashMap<SubnetId, Ranges>,
    compares: BTreeMap<Bytes, Compare>,
    puts: BTreeMap<Bytes, Bytes>,
    deletes: BTreeSet<Bytes>,
    usage: Usage,
}

impl<'s> Write<'s> {
    /// Nothing decided yet.
    pub fn new(
        state: &'s State,
        caller: &'s Caller,
        policy: &'s NetworkPolicy,
        now: Timestamp,
    ) -> Self {
        Write {
            state,
            caller,
            policy,
            now,
            new_subnets: Vec::new(),
            new_groups: Vec::new(),
            new_rules: Vec::new(),
            new_metering_rules: Vec::new(),
            new_pools: Vec::new(),
            new_grants: Vec::new(),
            taken: HashMap::new(),
            compares: BTreeMap::new(),
            puts: BTreeMap::new(),
            deletes: BTreeSet::new(),
            usage: Usage::new(),
        }
    }

    /// Makes a claim; false when this write has made it already. Whether somebody else has it is
    /// asked of the state before, and of the store at commit.
    pub fn claim(&mut self, key: Bytes, value: impl Into<Bytes>) -> bool {
        if self.puts.contains_key(&key) {
            return false;
        }
        // Given up and taken again within one write: it stays whose it was.
        if !self.deletes.remove(&key) {
            self.compares
                .insert(key.clone(), Compare::absent(key.clone()));
        }
        self.puts.insert(key, value.into());
        true
    }

    /// Puts a key that only tells that something has been written, whoever has put it before.
    pub fn mark(&mut self, key: Bytes) {
        self.deletes.remove(&key);
        self.puts.insert(key, Bytes::new());
    }

    /// Whether this write has claimed the key.
    pub fn has_claimed(&self, key: &Bytes) -> bool {
        self.puts.contains_key(key)
    }

    /// Whether this write gives the key up.
    pub fn has_released(&self, key: &Bytes) -> bool {
        self.deletes.contains(key)
    }

    /// What this write has put under the key already.
    pub fn pending<T: DeserializeOwned>(&self, key: &Bytes) -> Option<T> {
        serde_json::from_slice(self.puts.get(key)?).ok()
    }

    /// Puts a thing whose key is new.
    ///
    /// # Errors
    ///
    /// 409: this write has put it already.
    pub fn create(&mut self, key: Bytes, thing: &impl Serialize) -> Result<()> {
        if self.claim(key, encode(thing)?) {
            return Ok(());
        }
        Err(ApiError::conflict(
            "Conflict",
            "the same thing twice in one request",
        ))
    }

    /// Puts a thing that was read at this revision of its key.
    ///
    /// # Errors
    ///
    /// It cannot be encoded.
    pub fn replace(&mut self, key: Bytes, read_at: u64, thing: &impl Serialize) -> Result<()> {
        self.unchanged(key.clone(), read_at);
        self.puts.insert(key, encode(thing)?);
        Ok(())
    }

    /// Deletes a thing that was read at this revision of its key.
    pub fn remove(&mut self, key: Bytes, read_at: u64) {
        self.unchanged(key.clone(), read_at);
        self.release(key);
    }

    /// Deletes a key that belongs to a thing which this write changes or deletes.
    pub fn release(&mut self, key: Bytes) {
        self.puts.remove(&key);
        self.deletes.insert(key);
    }

    /// The key must be as it was read.
    pub fn unchanged(&mut self, key: Bytes, read_at: u64) {
        self.compares
            .entry(key.clone())
            .or_insert_with(|| Compare::unchanged(key, read_at));
    }

    /// The key must exist.
    pub fn exists(&mut self, key: Bytes) {
        self.compares
            .entry(key.clone())
            .or_insert_with(|| Compare::exists(key));
    }

    /// Nothing under the prefix may have been written since the state that this is decided on.
    pub fn quiet(&mut self, prefix: Bytes) {
        let check = Check::ModRevision(Relation::Less, self.state.revision + 1);
        let range = KeyRange::prefix(prefix.clone());
        self.compares.insert(prefix, Compare { range, check });
    }

    /// Nothing may be under the prefix.
    pub fn empty(&mut self, prefix: Bytes) {
        let range = KeyRange::prefix(prefix.clone());
        self.compares.insert(
            prefix,
            Compare {
                range,
                check: Check::Absent,
            },
        );
    }

    /// Counts against a quota. Checked when the whole request is decided.
    pub fn use_quota(&mut self, project: &ProjectId, quota: Quota, count: i64) {
        let entry = self.usage.entry((project.clone(), quota.name));
        entry.or_insert((0, quota)).0 += count;
    }

    /// Whether anything is to be committed.
    pub fn changes_something(&self) -> bool {
        !self.puts.is_empty() || !self.deletes.is_empty()
    }

    /// What it counts against quotas.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The standard attributes of something new.
    pub fn standard(&self, input: &hextet_api::request::Input) -> Result<Standard> {
        Ok(Standard {
            project_id: input.take("project_id")?,
            name: input.get("name")?.unwrap_or_default(),
            description: input.take("description")?,
            tags: input.get("tags")?.unwrap_or_default(),
            revision_number: 1,
            created_at: self.now,
            updated_at: self.now,
        })
    }

    /// Changes the standard attributes of something that is there.
    pub fn touch(&self, standard: &mut Standard, input: &hextet_api::request::Input) -> Result<()> {
        input.put("name", &mut standard.name)?;
        input.put("description", &mut standard.description)?;
        standard.revision_number += 1;
        standard.updated_at = self.now;
        Ok(())
    }

    /// The transaction; none when nothing changes.
    ///
    /// # Errors
    ///
    /// 400: it is larger than the store takes at once.
    pub fn into_txn(self) -> Result<Option<Txn>> {
        if self.puts.is_empty() && self.deletes.is_empty() {
            return Ok(None);
        }
        let puts = self.puts.into_iter().map(|(k, v)| Op::put(k, v));
        let deletes = self.deletes.into_iter().map(Op::delete);
        let txn = Txn {
            compares: self.compares.into_values().collect(),
            success: puts.chain(deletes).collect(),
            failure: Vec::new(),
        };
        let operations = txn.success.len().max(txn.compares.len());
        if operations > limits::TXN_OPS {
            return Err(ApiError::bad_request(format!(
                "the request would change {operations} entries of the store at once, more than {}: \
                 split it",
                limits::TXN_OPS
            )));
        }
        Ok(Some(txn))
    }
}

fn encode(thing: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(thing)
        .map(Bytes::from)
        .map_err(|e| ApiError::new(500, "HTTPInternalServerError", format!("encode: {e}")))
}
