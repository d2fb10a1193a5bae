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
use hextet_model::neutron::{AddressGroup, AsWritten, Protocol, SecurityGroupRule, Standard};
use hextet_types::{Family, Prefix, ProjectId, SecurityGroupId, SecurityGroupRuleId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    address_group,
    entity::{Entity, wanted_ids},
    security_group::ensure_default,
    serve::visible,
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
            "protocol" => json!(self.shown_protocol()),
            "port_range_min" => json!(self.port_range_min),
            "port_range_max" => json!(self.port_range_max),
            "remote_ip_prefix" => json!(self.shown_prefix()),
            "normalized_cidr" => json!(self.remote_ip_prefix),
            "remote_group_id" => json!(self.remote_group_id),
            "remote_address_group_id" => json!(self.remote_address_group_id),
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
            protocol: None,
            port_range_min: input.get("port_range_min")?,
            port_range_max: input.get("port_range_max")?,
            remote_ip_prefix: None,
            remote_group_id: input.get("remote_group_id")?,
            remote_address_group_id: input.get("remote_address_group_id")?,
            as_written: None,
            revision_number: 1,
            created_at: write.now,
            updated_at: write.now,
        };
        read_written(&mut rule, input)?;
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

/// The forms that count, and what was written where that is another one.
fn read_written(rule: &mut SecurityGroupRule, input: &Input) -> Result<()> {
    let mut written = AsWritten::default();
    if let Some(text) = input.get::<String>("protocol")? {
        rule.protocol = text.parse().ok().filter(|_| text != "0");
        let same = rule.protocol.is_some_and(|p| String::from(p) == text);
        written.protocol = Some(text).filter(|_| !same);
    }
    if let Some(text) = input.get::<String>("remote_ip_prefix")? {
        let prefix: Prefix = text.parse().map_err(ApiError::invalid_input)?;
        rule.remote_ip_prefix = Some(prefix);
        written.remote_ip_prefix = Some(text).filter(|t| *t != prefix.to_string());
    }
    rule.as_written = (written != AsWritten::default()).then(|| Box::new(written));
    Ok(())
}

/// ICMP of an IPv6 rule is ICMPv6; all ports are no range.
fn make_canonical(rule: &mut SecurityGroupRule) {
    if rule.ethertype == Family::V6 && rule.protocol == Some(Protocol::ICMP) {
        rule.protocol = Some(Protocol::ICMPV6);
        let number = rule.as_written.as_mut().and_then(|w| w.protocol.as_mut());
        if let Some(number) = number {
            *number = Protocol::ICMPV6.0.to_string();
        }
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
    if rule.shown_protocol().is_none() {
        return refuse(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.".into(),
        );
    }
    let protocol = rule.protocol.unwrap_or(Protocol(0));
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
                "Ports cannot be specified for protocol {}. Ports are only supported for \
                 DCCP, SCTP, TCP, UDP, UDPLITE.",
                protocol.0
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
    if rule.protocol.is_some_and(ipv6_alone) && rule.ethertype == Family::V4 {
        let protocol = rule.shown_protocol().unwrap_or_default();
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
        Some(_) => Err(ApiError::new(
            400,
            "SecurityGroupRuleParameterConflict",
            format!(
                "Conflicting value ethertype {} for CIDR {}",
                rule.ethertype,
                rule.shown_prefix().unwrap_or_default()
            ),
        )),
    }
}

fn check_remote(write: &mut Write<'_>, rule: &SecurityGroupRule) -> Result<()> {
    let named = [
        rule.remote_ip_prefix.is_some(),
        rule.remote_group_id.is_some(),
        rule.remote_address_group_id.is_some(),
    ];
    if named.iter().filter(|named| **named).count() > 1 {
        return Err(ApiError::new(
            400,
            "SecurityGroupMultipleRemoteEntites",
            "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be \
             provided.",
        ));
    }
    if let Some(id) = rule.remote_address_group_id {
        visible::<AddressGroup>(write.state, write.caller, &id.to_string())?;
        address_group::check_rule(write, rule)?;
    }
    let Some(remote) = rule.remote_group_id else {
        return Ok(());
    };
    let row = write.state.groups.row(&remote);
    let row = row.filter(|r| r.value.is_visible(write.state, write.caller));
    let row = row.ok_or_else(|| resources::SECURITY_GROUP.missing(remote))?;
    write.exists(row.value.key());
    Ok(())
}

/// What makes two rules of a group the same, as Neutron judges it: a protocol's name and its number
/// are one, `ip` is another than none; `0.0.0.0/0` and `::/0` are none, but prefixes that differ
/// only behind their length are two.
fn same(a: &SecurityGroupRule, b: &SecurityGroupRule) -> bool {
    let shape = |r: &SecurityGroupRule| {
        let any = ["0.0.0.0/0", "::/0"];
        let protocol = r.protocol.map(|p| p.0);
        (
            r.security_group_id,
            r.direction,
            r.ethertype,
            (protocol, r.shown_protocol().is_some()),
            (r.port_range_min, r.port_range_max),
            r.shown_prefix().filter(|p| !any.contains(&p.as_str())),
            (r.remote_group_id, r.remote_address_group_id),
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
