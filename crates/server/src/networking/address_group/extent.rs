//! How much rules that name address groups may take on hosts. Each prefix is an element of a set for each block of a rule's
//! ports, and each of their lengths a look that each new packet may take: without a bound a few requests of one project
//! would fill the memory of every host that has its ports.

use std::collections::BTreeSet;

use hextet_api::error::{ApiError, Result};
use hextet_model::{
    neutron::{AddressGroup, SecurityGroupRule},
    plan::Extent,
};
use hextet_types::SecurityGroupId;

use crate::{keys, networking::entity::Entity, state::State, write::Write};

/// Elements of sets that one security group may become by address groups.
const MAX_ELEMENTS: usize = 10_000;
/// Looks.
const MAX_SHAPES: usize = 256;

/// Whether a rule that this write makes may name its address group.
///
/// # Errors
///
/// 409: its security group would take too much.
pub fn check_rule(write: &mut Write<'_>, rule: &SecurityGroupRule) -> Result<()> {
    let state = write.state;
    let group = rule.security_group_id;
    let new = write.new_rules.iter().map(AsRef::as_ref);
    let new = new.filter(|r: &&SecurityGroupRule| r.security_group_id == group);
    let stored = state.rules_of(group).map(AsRef::as_ref);
    let rules: Vec<&SecurityGroupRule> = stored.chain(new).chain([rule]).collect();
    check(state, &rules, None)?;
    let named: BTreeSet<_> = rules
        .iter()
        .filter_map(|r| r.remote_address_group_id)
        .collect();
    for row in named.iter().filter_map(|id| state.address_groups.row(id)) {
        write.unchanged(row.value.key(), row.mod_revision);
    }
    Ok(())
}

/// Whether an address group may become this.
///
/// # Errors
///
/// 409: a security group that names it would take too much.
pub fn check_group(write: &mut Write<'_>, changed: &AddressGroup) -> Result<()> {
    let state = write.state;
    let rules = state.rules_by_address_group.get(&changed.id);
    let rules = rules.filter_map(|id| state.rules.get(id));
    let groups: BTreeSet<SecurityGroupId> = rules.map(|rule| rule.security_group_id).collect();
    for group in groups {
        let rules: Vec<_> = state.rules_of(group).map(AsRef::as_ref).collect();
        check(state, &rules, Some(changed))?;
    }
    write.quiet(keys::rules());
    Ok(())
}

fn check(
    state: &State,
    rules: &[&SecurityGroupRule],
    changed: Option<&AddressGroup>,
) -> Result<()> {
    let mut extent = Extent::default();
    for rule in rules {
        let Some(id) = rule.remote_address_group_id else {
            continue;
        };
        let stored = state.address_groups.get(&id).map(AsRef::as_ref);
        if let Some(group) = changed.filter(|g| g.id == id).or(stored) {
            extent.add(rule, &group.addresses);
        }
        let (elements, shapes) = (extent.elements, extent.shapes.len());
        if elements > MAX_ELEMENTS || shapes > MAX_SHAPES {
            return Err(ApiError::conflict(
                "OverQuota",
                format!(
                    "The rules of a security group that name address groups may be {MAX_ELEMENTS} pairs of a \
                     prefix and a block of ports, with {MAX_SHAPES} different pairs of lengths; these would be \
                     more. Name fewer or wider prefixes, or ranges of ports that need fewer blocks."
                ),
            ));
        }
    }
    Ok(())
}
