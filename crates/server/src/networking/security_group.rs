//! Security groups: the default one of each project, and those that users make.

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    render::Shown,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{Direction, RbacAction, SecurityGroup, SecurityGroupRule, Standard};
use hextet_types::{Family, ProjectId, SecurityGroupId, SecurityGroupRuleId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, Item, standard_value, wanted_ids},
    sharing::forget,
};
use crate::{
    cloud::Cloud,
    keys,
    state::{DEFAULT_GROUP, State, table::Row},
    write::Write,
};

impl Entity for SecurityGroup {
    const RESOURCE: &'static Resource = &resources::SECURITY_GROUP;
    /// Its rules as they are shown.
    type Extra = Vec<Value>;

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
        keys::group(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.groups.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        if let Some(ids) = wanted_ids(query, "id") {
            return ids
                .iter()
                .filter_map(|id| state.groups.get(id))
                .cloned()
                .collect();
        }
        if caller.admin {
            return state.groups.values().cloned().collect();
        }
        let shared = state
            .groups
            .values()
            .filter(|g| g.standard.project_id != caller.project)
            .filter(|g| is_shared(g, state, &caller.project));
        let own = state.groups_by_project.get(&caller.project);
        own.filter_map(|id| state.groups.get(id))
            .chain(shared)
            .cloned()
            .collect()
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller) || is_shared(self, state, &caller.project)
    }

    fn shared_with(&self, state: &State, caller: &Caller) -> Option<bool> {
        Some(is_shared(self, state, &caller.project))
    }

    fn extra(&self, state: &State) -> Self::Extra {
        let shown = Shown::new(&resources::SECURITY_GROUP_RULE, true, &[]);
        let items = state
            .rules_of(self.id)
            .map(|r| Item::new(Arc::clone(r), state));
        items.map(|item| json!(shown.of(&item))).collect()
    }

    fn value(&self, rules: &Self::Extra, attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "stateful" => json!(self.stateful),
            "shared" => json!(self.shared),
            "security_group_rules" => json!(rules),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let standard = write.standard(input)?;
        if standard.name.eq_ignore_ascii_case(DEFAULT_GROUP) {
            return Err(ApiError::conflict(
                "SecurityGroupDefaultAlreadyExists",
                "Default security group already exists.",
            ));
        }
        if !standard.project_id.0.is_empty() {
            default_group(write, &standard.project_id.clone())?;
        }
        let group = SecurityGroup {
            id: SecurityGroupId(Uuid::new_v4()),
            standard,
            stateful: input.take("stateful")?,
            shared: false,
        };
        make(write, group, false)
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut group = old.value.as_ref().clone();
        write.touch(&mut group.standard, input)?;
        let is_default = old.value.standard.name == DEFAULT_GROUP;
        if is_default && group.standard.name != DEFAULT_GROUP {
            return Err(ApiError::conflict(
                "SecurityGroupCannotUpdateDefault",
                "Updating default security group not allowed.",
            ));
        }
        if !is_default && group.standard.name.eq_ignore_ascii_case(DEFAULT_GROUP) {
            return Err(ApiError::conflict(
                "SecurityGroupDefaultAlreadyExists",
                "Default security group already exists.",
            ));
        }
        input.put("stateful", &mut group.stateful)?;
        if group.stateful != old.value.stateful {
            check_unused(write, group.id)?;
        }
        write.replace(group.key(), old.mod_revision, &group)?;
        Ok(Arc::new(group))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let group = &old.value;
        check_unused(write, group.id)?;
        let project = &group.standard.project_id;
        if group.standard.name == DEFAULT_GROUP {
            if !write.caller.admin {
                return Err(ApiError::conflict(
                    "SecurityGroupCannotRemoveDefault",
                    "Insufficient rights for removing default security group.",
                ));
            }
            write.release(keys::default_group(project));
        }
        // Rules of other groups that name it as remote would allow nobody any more.
        write.quiet(keys::rules());
        let state = write.state;
        let own = state.rules_by_group.get(&group.id);
        let remote = state.rules_by_remote.get(&group.id);
        let rules: std::collections::BTreeSet<_> = own.chain(remote).copied().collect();
        for row in rules.iter().filter_map(|id| state.rules.row(id)) {
            write.remove(row.value.key(), row.mod_revision);
        }
        forget(write, group.id.0);
        write.remove(group.key(), old.mod_revision);
        Ok(())
    }

    /// A project sees its default group from the first look on.
    async fn prepare(cloud: &Cloud, caller: &Caller) -> Result<()> {
        ensure_default(cloud, caller).await
    }
}

/// Makes the default group of the caller's project, if it is not there.
///
/// # Errors
///
/// The store fails.
pub async fn ensure_default(cloud: &Cloud, caller: &Caller) -> Result<()> {
    let project = &caller.project;
    if project.0.is_empty() || cloud.state().default_groups.contains_key(project) {
        return Ok(());
    }
    cloud
        .write(caller, |write| default_group(write, project))
        .await
        .map(drop)
}

/// Whether the project's ports may have it although it is somebody else's.
fn is_shared(group: &SecurityGroup, state: &State, project: &ProjectId) -> bool {
    let action = RbacAction::AccessAsShared;
    group.shared || state.grants.allows(group.id.0, action, project)
}

fn check_unused(write: &mut Write<'_>, id: SecurityGroupId) -> Result<()> {
    if write.state.ports_by_group.count(&id) > 0 {
        let message = format!("Security Group {id} in use.");
        return Err(ApiError::conflict("SecurityGroupInUse", message));
    }
    write.quiet(keys::ports());
    Ok(())
}

/// The project's default group, made when it is not there.
///
/// # Errors
///
/// 409 `OverQuota`, at commit.
pub fn default_group(write: &mut Write<'_>, project: &ProjectId) -> Result<SecurityGroupId> {
    if let Some(id) = write.state.default_groups.get(project) {
        if let Some(row) = write.state.groups.row(id) {
            write.exists(row.value.key());
        }
        return Ok(*id);
    }
    let made = write
        .new_groups
        .iter()
        .find(|g| g.standard.project_id == *project && g.standard.name == DEFAULT_GROUP);
    if let Some(group) = made {
        return Ok(group.id);
    }
    let id = SecurityGroupId(Uuid::new_v4());
    write.claim(keys::default_group(project), id.to_string());
    let standard = Standard {
        project_id: project.clone(),
        name: DEFAULT_GROUP.to_owned(),
        description: "Default security group".to_owned(),
        tags: Vec::new(),
        revision_number: 1,
        created_at: write.now,
        updated_at: write.now,
    };
    let group = SecurityGroup {
        id,
        standard,
        stateful: true,
        shared: false,
    };
    make(write, group, true).map(|g| g.id)
}

/// Puts a new group with the rules that it begins with: anything may leave; to a default group,
/// what comes from its own members may come.
fn make(
    write: &mut Write<'_>,
    group: SecurityGroup,
    is_default: bool,
) -> Result<Arc<SecurityGroup>> {
    let mut directions = vec![(Direction::Egress, None)];
    if is_default {
        directions.push((Direction::Ingress, Some(group.id)));
    }
    for (direction, remote_group_id) in directions {
        for ethertype in Family::BOTH {
            let rule = SecurityGroupRule {
                id: SecurityGroupRuleId(Uuid::new_v4()),
                security_group_id: group.id,
                project_id: group.standard.project_id.clone(),
                description: String::new(),
                direction,
                ethertype,
                protocol: None,
                port_range_min: None,
                port_range_max: None,
                remote_ip_prefix: None,
                remote_group_id,
                remote_address_group_id: None,
                as_written: None,
                revision_number: 1,
                created_at: write.now,
                updated_at: write.now,
            };
            write.create(rule.key(), &rule)?;
        }
    }
    if !is_default {
        let quota = resources::SECURITY_GROUP
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&group.standard.project_id, quota, 1);
    }
    write.create(group.key(), &group)?;
    let group = Arc::new(group);
    write.new_groups.push(Arc::clone(&group));
    Ok(group)
}

/// Groups that a port of the project is to have: they exist, the project may use them (those that
/// the port has already, in any case), and they are stateful all or not at all.
///
/// # Errors
///
/// 404: one is not there, or foreign. 409: a mixture.
pub fn check_groups(
    write: &mut Write<'_>,
    project: &ProjectId,
    groups: &[SecurityGroupId],
    present: &[SecurityGroupId],
) -> Result<()> {
    let mut kinds = [false; 2];
    for id in groups {
        let row = write.state.groups.row(id).filter(|r| {
            let group = &r.value;
            let theirs =
                group.standard.project_id == *project || is_shared(group, write.state, project);
            theirs || write.caller.admin || present.contains(id)
        });
        let row = row.ok_or_else(|| resources::SECURITY_GROUP.missing(id))?;
        kinds[usize::from(row.value.stateful)] = true;
        write.unchanged(row.value.key(), row.mod_revision);
    }
    if kinds == [true; 2] {
        return Err(ApiError::conflict(
            "SecurityGroupConflict",
            "Error Cannot apply both stateful and stateless security groups on the same port at the \
             same time while attempting the operation.",
        ));
    }
    Ok(())
}
