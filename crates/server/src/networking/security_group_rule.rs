//! Rules of security groups. A rule is never changed: it is made and deleted.

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{Protocol, SecurityGroupRule, Standard};
use hextet_types::{Family, Prefix, ProjectId, SecurityGroupId, SecurityGroupRuleId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, wanted_ids},
    security_group::ensure_default,
};
use crate::{
    cloud::Cloud,
    keys,
    state::{State, table::Row},
    write::Write,
};

impl Entity for SecurityGroupRule {
    const RESOURCE: &'static Resource = &resources::SECURITY_GROUP_RULE;
    /// Whether its group is its project's default one.
    type Extra = bool;

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
        keys::rule(self.security_group_id, self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        None
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.rules.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        if let Some(ids) = wanted_ids(query, "id") {
            return ids
                .iter()
                .filter_map(|id| state.rules.get(id))
                .cloned()
                .collect();
        }
        if let Some(groups) = wanted_ids::<SecurityGroupId>(query, "security_group_id") {
            return groups
                .iter()
                .flat_map(|g| state.rules_of(*g))
                .cloned()
                .collect();
        }
        if caller.admin {
            return state.rules.values().cloned().collect();
        }
        let groups = state.groups_by_project.get(&caller.project);
        groups.flat_map(|g| state.rules_of(*g)).cloned().collect()
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let group = || state.groups.get(&self.security_group_id);
        self.is_owned(state, caller) || group().is_some_and(|g| g.is_visible(state, caller))
    }

    fn is_owned(&self, state: &State, caller: &Caller) -> bool {
        let group = || state.groups.get(&self.security_group_id);
        caller.admin
            || self.project_id == caller.project
            || group().is_some_and(|g| g.is_owned(state, caller))
    }

    fn extra(&self, state: &State) -> bool {
        state.default_groups.get(&self.project_id) == Some(&self.security_group_id)
    }

    fn value(&self, in_default: &bool, attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "project_id" | "tenant_id" => json!(self.project_id),
            "description" => json!(self.description),
            "revision_number" => json!(self.revision_number),
            "created_at" => json!(self.created_at),
            "updated_at" => json!(self.updated_at),
            "security_group_id" => json!(self.security_group_id),
            "direction" => json!(self.direction),
            "ethertype" => json!(self.ethertype.to_string()),
            "protocol" => json!(self.protocol),
            "port_range_min" => json!(self.port_range_min),
            "port_range_max" => json!(self.port_range_max),
            "remote_ip_prefix" | "normalized_cidr" => json!(self.remote_ip_prefix),
            "remote_group_id" => json!(self.remote_group_id),
            "belongs_to_default_sg" => json!(in_default),
            _ => Value::Null,
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let group = owned_group(write, input.take("security_group_id")?)?;
        let ethertype: String = input.take("ethertype")?;
        let mut rule = SecurityGroupRule {
            id: SecurityGroupRuleId(Uuid::new_v4()),
            security_group_id: group,
            project_id: input.take("project_id")?,
            description: input.take("description")?,
            direction: input.take("direction")?,
            ethertype: if ethertype == "IPv6" {
                Family::V6
            } else {
                Family::V4
            },
            protocol: input.get("protocol")?,
            port_range_min: input.get("port_range_min")?,
            port_range_max: input.get("port_range_max")?,
            remote_ip_prefix: remote_prefix(input)?,
            remote_group_id: input.get("remote_group_id")?,
            revision_number: 1,
            created_at: write.now,
            updated_at: write.now,
        };
        if input.get::<Value>("remote_address_group_id")?.is_some() {
            return Err(ApiError::invalid_input(
                "there are no address groups yet: name the prefixes \
                in rules of their own",
            ));
        }
        make_canonical(&mut rule);
        check_ports(&rule)?;
        check_families(&rule)?;
        check_remote(write, &rule)?;
        check_duplicate(write, &rule)?;
        let quota = resources::SECURITY_GROUP_RULE
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&rule.project_id, quota, 1);
        write.create(rule.key(), &rule)?;
        let rule = Arc::new(rule);
        write.new_rules.push(Arc::clone(&rule));
        Ok(rule)
    }

    fn update(_write: &mut Write<'_>, old: &Row<Self>, _input: &Input) -> Result<Arc<Self>> {
        Ok(Arc::clone(&old.value))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        write.remove(old.value.key(), old.mod_revision);
        Ok(())
    }

    async fn prepare(cloud: &Cloud, caller: &Caller) -> Result<()> {
        ensure_default(cloud, caller).await
    }
}

fn owned_group(write: &mut Write<'_>, id: SecurityGroupId) -> Result<SecurityGroupId> {
    let row = write.state.groups.row(&id);
    let row = row.filter(|r| r.value.is_owned(write.state, write.caller));
    let row = row.ok_or_else(|| resources::SECURITY_GROUP.missing(id))?;
    write.exists(row.value.key());
    Ok(id)
}

fn remote_prefix(input: &Input) -> Result<Option<Prefix>> {
    let text: Option<String> = input.get("remote_ip_prefix")?;
    match text.filter(|t| !t.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::new(
                400,
                "InvalidCIDR",
                format!("Invalid CIDR {text} given as IP prefix."),
            )
        }),
    }
}

/// ICMP of an IPv6 rule is ICMPv6; all ports are no range.
fn make_canonical(rule: &mut SecurityGroupRule) {
    if rule.ethertype == Family::V6 && rule.protocol == Some(Protocol::ICMP) {
        rule.protocol = Some(Protocol::ICMPV6);
    }
    if (rule.port_range_min, rule.port_range_max) == (Some(1), Some(65535)) {
        (rule.port_range_min, rule.port_range_max) = (None, None);
    }
}

fn check_ports(rule: &SecurityGroupRule) -> Result<()> {
    let refuse = |kind, text: String| Err(ApiError::new(400, kind, text));
    let (min, max) = (rule.port_range_min, rule.port_range_max);
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(protocol) = rule.protocol else {
        return refuse(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.".into(),
        );
    };
    if protocol.has_ports() {
        if min == Some(0) || max == Some(0) {
            let text = "Invalid value for port 0".into();
            return refuse("SecurityGroupInvalidPortValue", text);
        }
        return match (min, max) {
            (Some(min), Some(max)) if min <= max => Ok(()),
            _ => refuse(
                "SecurityGroupInvalidPortRange",
                "For TCP/UDP protocols, port_range_min must be <= port_range_max".into(),
            ),
        };
    }
    if !protocol.is_icmp() {
        return refuse(
            "SecurityGroupInvalidProtocolForPort",
            format!(
                "Ports cannot be specified for protocol {protocol}. Ports are only supported for \
                 DCCP, SCTP, TCP, UDP, UDPLITE."
            ),
        );
    }
    for (value, attribute, field) in [
        (min, "port_range_min", "type"),
        (max, "port_range_max", "code"),
    ] {
        if let Some(value) = value.filter(|v| *v > 255) {
            return refuse(
                "SecurityGroupInvalidIcmpValue",
                format!(
                    "Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255."
                ),
            );
        }
    }
    match (min, max) {
        (None, Some(code)) => refuse(
            "SecurityGroupMissingIcmpType",
            format!(
                "ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing."
            ),
        ),
        _ => Ok(()),
    }
}

/// IPv6's own protocols and prefixes are of IPv6 rules.
fn check_families(rule: &SecurityGroupRule) -> Result<()> {
    let ipv6_alone = |p: Protocol| matches!(p.0, 41 | 43 | 44 | 58 | 59 | 60);
    if let Some(protocol) = rule
        .protocol
        .filter(|p| ipv6_alone(*p) && rule.ethertype == Family::V4)
    {
        return Err(ApiError::new(
            400,
            "SecurityGroupEthertypeConflictWithProtocol",
            format!("Invalid ethertype IPv4 for protocol {protocol}."),
        ));
    }
    match rule
        .remote_ip_prefix
        .filter(|p| p.family() != rule.ethertype)
    {
        None => Ok(()),
        Some(prefix) => Err(ApiError::new(
            400,
            "SecurityGroupRuleParameterConflict",
            format!(
                "Conflicting value ethertype {} for CIDR {prefix}",
                rule.ethertype
            ),
        )),
    }
}

fn check_remote(write: &mut Write<'_>, rule: &SecurityGroupRule) -> Result<()> {
    let Some(remote) = rule.remote_group_id else {
        return Ok(());
    };
    if rule.remote_ip_prefix.is_some() {
        return Err(ApiError::new(
            400,
            "SecurityGroupMultipleRemoteEntites",
            "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be \
             provided.",
        ));
    }
    let row = write.state.groups.row(&remote);
    let row = row.filter(|r| r.value.is_visible(write.state, write.caller));
    let row = row.ok_or_else(|| resources::SECURITY_GROUP.missing(remote))?;
    write.exists(row.value.key());
    Ok(())
}

/// What makes two rules of a group the same: a prefix of length 0 is any, as none is.
fn same(a: &SecurityGroupRule, b: &SecurityGroupRule) -> bool {
    let shape = |r: &SecurityGroupRule| {
        let prefix = r.remote_ip_prefix.filter(|p| !p.is_default());
        let ports = (r.port_range_min, r.port_range_max);
        (
            r.security_group_id,
            r.direction,
            r.ethertype,
            r.protocol,
            ports,
            prefix,
            r.remote_group_id,
        )
    };
    shape(a) == shape(b)
}

fn check_duplicate(write: &mut Write<'_>, rule: &SecurityGroupRule) -> Result<()> {
    if write.new_rules.iter().any(|r| same(r, rule)) {
        return Err(ApiError::conflict(
            "DuplicateSecurityGroupRuleInPost",
            "Duplicate Security Group Rule in POST.",
        ));
    }
    let mut there = write.state.rules_of(rule.security_group_id);
    if let Some(other) = there.find(|r| same(r, rule)) {
        return Err(ApiError::conflict(
            "SecurityGroupRuleExists",
            format!(
                "Security group rule already exists. Rule id is {}.",
                other.id
            ),
        ));
    }
    write.quiet(keys::rules_of(rule.security_group_id));
    Ok(())
}
