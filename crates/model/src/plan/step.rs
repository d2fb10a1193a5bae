//! What one change of the intent touches: units to compute again, and flows to look at again.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_types::{Family, NetworkId, PortId, SecurityGroupId, SubnetId};

use super::{
    index::{
        Index, Name, Referrer, names_of_group, names_of_port, names_of_sources, names_of_subnet,
    },
    rules::{self, Match},
    unit::Unit,
};
use crate::{
    intent::{Change, Group, Intent},
    neutron::{Direction, Network, Port, Subnet},
};

/// What a run of changes touches.
#[derive(Debug, Default)]
pub struct Touched {
    /// To be computed again.
    pub units: BTreeSet<Unit>,
    /// Ends of flows that may no longer be allowed.
    pub recheck: BTreeSet<IpAddr>,
}

/// Takes one step: intent, index and what it touches.
pub fn step(intent: &mut Intent, index: &mut Index, change: Change, touched: &mut Touched) {
    let mut step = Step {
        intent,
        index,
        touched,
    };
    match &change {
        Change::PutNetwork(network) => step.network(network.id, Some(network)),
        Change::RemoveNetwork(id) => step.network(*id, None),
        Change::PutSubnet(subnet) => step.subnet(subnet.id, Some(subnet)),
        Change::RemoveSubnet(id) => step.subnet(*id, None),
        Change::PutPort(port) => step.port(port.id, Some(port)),
        Change::RemovePort(id) => step.port(*id, None),
        Change::PutGroup(group) => step.group(group.group.id, Some(group)),
        Change::RemoveGroup(id) => step.group(*id, None),
        Change::AddMembers(id, members) => step.members(*id, members),
        Change::RemoveMembers(id, members) => {
            step.members(*id, members);
            step.touched.recheck.extend(members);
        }
        Change::SetNat44Sources(id, sources) => step.sources(*id, sources),
    }
    intent.apply(change);
}

/// After the last step: what follows from what was touched.
pub fn settle(intent: &Intent, index: &mut Index, touched: &mut Touched) {
    index.settle(intent, &mut touched.units);
    let mut more = Vec::new();
    for unit in &touched.units {
        match unit {
            Unit::Port(id) => {
                let port = intent.ports.get(id).into_iter();
                more.extend(
                    port.flat_map(|p| &p.fixed_ips)
                        .map(|f| Unit::Address(f.ip_address)),
                );
            }
            Unit::MemberSets(id) => {
                let members = intent.members.get(id).into_iter().flatten();
                more.extend(members.map(|addr| Unit::Member(*id, *addr)));
            }
            _ => {}
        }
    }
    touched.units.extend(more);
}

struct Step<'a> {
    intent: &'a Intent,
    index: &'a mut Index,
    touched: &'a mut Touched,
}

impl Step<'_> {
    fn touch_ports(&mut self, name: &Name) {
        self.touched
            .units
            .extend(self.index.ports(name).map(Unit::Port));
    }

    /// Asks to look at the flows of these families, of all ports with that name.
    fn recheck_ports(&mut self, name: &Name, families: &BTreeSet<Family>) {
        let ports = self
            .index
            .ports(name)
            .filter_map(|id| self.intent.ports.get(&id));
        let concerned = |addr: &IpAddr| families.contains(&Family::of(*addr));
        self.touched
            .recheck
            .extend(ports.flat_map(addresses).filter(concerned));
    }

    fn network(&mut self, id: NetworkId, new: Option<&Network>) {
        let old = self.intent.networks.get(&id);
        let relevant = |n: &Network| (n.admin_state_up, n.mtu, n.dns_domain.clone());
        if old.map(relevant) == new.map(relevant) {
            return;
        }
        let up = |n: Option<&Network>| n.is_some_and(|n| n.admin_state_up);
        self.touch_ports(&Name::Network(id));
        if up(old) && !up(new) {
            self.recheck_ports(&Name::Network(id), &Family::BOTH.into());
        }
    }

    fn subnet(&mut self, id: SubnetId, new: Option<&Subnet>) {
        let old = self.intent.subnets.get(&id);
        if !subnet_differs(old, new) {
            return;
        }
        let names = |s: Option<&Subnet>| s.map_or_else(BTreeSet::new, names_of_subnet);
        let who = Referrer::Subnet(id);
        self.index
            .rename(who, &names(old), &names(new), &mut self.touched.units);
        self.touch_ports(&Name::Subnet(id));
        if [old, new].into_iter().flatten().any(|s| s.nat44.is_some()) {
            self.touched
                .units
                .extend([Unit::Nat44(id), Unit::Translation]);
        }
    }

    fn port(&mut self, id: PortId, new: Option<&Port>) {
        let old = self.intent.ports.get(&id);
        let names = |p: Option<&Port>| p.map_or_else(BTreeSet::new, names_of_port);
        let who = Referrer::Port(id);
        self.index
            .rename(who, &names(old), &names(new), &mut self.touched.units);
        self.touched.units.insert(Unit::Port(id));
        if let Some(old) = old.filter(|old| port_narrowed(old, new)) {
            self.touched.recheck.extend(addresses(old));
        }
    }

    fn group(&mut self, id: SecurityGroupId, new: Option<&Group>) {
        let old = self.intent.groups.get(&id);
        let names = |g: Option<&Group>| g.map_or_else(BTreeSet::new, names_of_group);
        let who = Referrer::Group(id);
        self.index
            .rename(who, &names(old), &names(new), &mut self.touched.units);
        self.touched.units.insert(Unit::Group(id));
        if is_stateless(old) != is_stateless(new) {
            self.touch_ports(&Name::Group(id));
        }
        let narrowed = old.map_or_else(BTreeSet::new, |old| narrowed_families(old, new));
        if !narrowed.is_empty() {
            self.recheck_ports(&Name::Group(id), &narrowed);
        }
    }

    fn members(&mut self, id: SecurityGroupId, members: &BTreeSet<IpAddr>) {
        self.touched
            .units
            .extend(members.iter().map(|addr| Unit::Member(id, *addr)));
    }

    fn sources(&mut self, id: SubnetId, new: &BTreeSet<IpAddr>) {
        let none = BTreeSet::new();
        let old = self.intent.nat44_sources.get(&id).unwrap_or(&none);
        let who = Referrer::Sources(id);
        let (old_names, new_names) = (names_of_sources(old), names_of_sources(new));
        self.index
            .rename(who, &old_names, &new_names, &mut self.touched.units);
        self.touched.units.insert(Unit::Nat44(id));
        self.touched.recheck.extend(old.difference(new));
    }
}

/// Whether anything differs that planning looks at.
fn subnet_differs(old: Option<&Subnet>, new: Option<&Subnet>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            let like_old = Subnet {
                standard: old.standard.clone(),
                allocation_pools: old.allocation_pools.clone(),
                subnetpool_id: old.subnetpool_id,
                service_types: old.service_types.clone(),
                ..new.clone()
            };
            like_old != *old
        }
        (old, new) => old.is_some() != new.is_some(),
    }
}

fn is_stateless(group: Option<&Group>) -> bool {
    group.is_some_and(|g| !g.group.stateful)
}

/// Where flows of that port may end: its addresses and those of its address pairs.
fn addresses(port: &Port) -> impl Iterator<Item = IpAddr> + '_ {
    let pairs = port.allowed_address_pairs.iter().map(|p| p.ip_address);
    let pairs = pairs
        .filter(|prefix| prefix.is_host())
        .map(|prefix| prefix.addr());
    port.fixed_ips.iter().map(|f| f.ip_address).chain(pairs)
}

/// Whether something is no longer allowed that was.
fn port_narrowed(old: &Port, new: Option<&Port>) -> bool {
    let Some(new) = new else { return true };
    let lost_group = || {
        old.security_groups
            .iter()
            .any(|g| !new.security_groups.contains(g))
    };
    let lost_address = old.fixed_ips.iter().any(|f| !new.fixed_ips.contains(f));
    let lost_pair = || {
        let pairs = &new.allowed_address_pairs;
        old.allowed_address_pairs.iter().any(|p| !pairs.contains(p))
    };
    let policy = match (old.port_security_enabled, new.port_security_enabled) {
        (true, true) => lost_group() || lost_pair(),
        (false, true) => true,
        (_, false) => false,
    };
    policy
        || lost_address
        || old.admin_state_up && !new.admin_state_up
        || old.mac_address != new.mac_address
        || old.network_id != new.network_id
}

/// The families of flows that the group may have carried and does not any more.
fn narrowed_families(old: &Group, new: Option<&Group>) -> BTreeSet<Family> {
    if old.group.stateful && new.is_some_and(|new| !new.group.stateful) {
        return Family::BOTH.into();
    }
    let left = new.map_or_else(BTreeSet::new, all_matches);
    all_matches(old)
        .difference(&left)
        .map(|(_, lost)| lost.shape.family)
        .collect()
}

fn all_matches(group: &Group) -> BTreeSet<(Direction, Match)> {
    let rules = group.rules.values();
    rules
        .flat_map(|rule| {
            rules::matches(rule)
                .into_iter()
                .map(|m| (rule.direction, m))
        })
        .collect()
}
