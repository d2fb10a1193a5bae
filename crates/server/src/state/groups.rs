//! Security groups, their rules, and the address groups that these name.

use std::sync::Arc;

use hextet_model::neutron::{AddressGroup, SecurityGroup, SecurityGroupRule};
use hextet_types::{AddressGroupId, SecurityGroupId, SecurityGroupRuleId};

use super::{DEFAULT_GROUP, State, table::Row};

impl State {
    pub(super) fn set_group(&mut self, id: SecurityGroupId, row: Option<Row<SecurityGroup>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.groups.set(id, row);
        if let Some(old) = &old {
            let project = &old.standard.project_id;
            self.count(project, "security_group", false);
            self.groups_by_project.remove(project, &id);
            if self.default_groups.get(project) == Some(&id) {
                self.default_groups.remove(project);
            }
        }
        if let Some(new) = &new {
            let project = &new.standard.project_id;
            self.count(project, "security_group", true);
            self.groups_by_project.insert(project.clone(), id);
            if new.standard.name == DEFAULT_GROUP {
                self.default_groups.insert(project.clone(), id);
            }
        }
        self.view_group(id);
    }

    pub(super) fn set_rule(
        &mut self,
        id: SecurityGroupRuleId,
        row: Option<Row<SecurityGroupRule>>,
    ) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.rules.set(id, row);
        if let Some(old) = &old {
            self.count(&old.project_id, "security_group_rule", false);
            self.rules_by_group.remove(&old.security_group_id, &id);
            if let Some(remote) = old.remote_group_id {
                self.rules_by_remote.remove(&remote, &id);
            }
            if let Some(group) = old.remote_address_group_id {
                self.rules_by_address_group.remove(&group, &id);
            }
        }
        if let Some(new) = &new {
            self.count(&new.project_id, "security_group_rule", true);
            self.rules_by_group.insert(new.security_group_id, id);
            if let Some(remote) = new.remote_group_id {
                self.rules_by_remote.insert(remote, id);
            }
            if let Some(group) = new.remote_address_group_id {
                self.rules_by_address_group.insert(group, id);
            }
        }
        self.view_rule(old.as_deref(), new.as_deref());
    }

    pub(super) fn set_address_group(&mut self, id: AddressGroupId, row: Option<Row<AddressGroup>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.address_groups.set(id, row);
        if let Some(old) = &old {
            self.count(&old.standard.project_id, "address_group", false);
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "address_group", true);
        }
        let addresses = |group: Option<&Arc<AddressGroup>>| group.map(|g| g.addresses.clone());
        if addresses(old.as_ref()) != addresses(new.as_ref()) {
            self.view_address_group(id);
        }
    }

    /// A group's rules, in the order of their identifiers.
    pub fn rules_of(
        &self,
        group: SecurityGroupId,
    ) -> impl Iterator<Item = &Arc<SecurityGroupRule>> {
        let ids = self.rules_by_group.get(&group);
        ids.filter_map(|id| self.rules.get(id))
    }
}
