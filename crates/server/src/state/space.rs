//! What of each subnet pool is allocated, free, and used by which project; kept change by change,
//! and always what the pool and its subnets would give at once.

use std::collections::HashMap;

use hextet_model::neutron::{Subnet, SubnetPool};
use hextet_types::{Family, Prefix, ProjectId, SubnetId};

use super::prefixes::PrefixSet;

/// The space of one pool. May know of subnets before it knows the pool itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSpace {
    pool: Option<PrefixSet>,
    free: Option<PrefixSet>,
    taken: HashMap<SubnetId, (Prefix, ProjectId)>,
    used: HashMap<ProjectId, u128>,
}

/// How many addresses a prefix has; one less for all of IPv6.
pub fn size(prefix: Prefix) -> u128 {
    let bits = u32::from(prefix.family().bits() - prefix.len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// How many addresses one of a pool's quota is: one of IPv4, a /64 of IPv6.
pub fn quota_unit(family: Family) -> u128 {
    match family {
        Family::V4 => 1,
        Family::V6 => 1 << 64,
    }
}

impl PoolSpace {
    /// The pool has these prefixes now, or is gone.
    pub fn set_pool(&mut self, pool: Option<&SubnetPool>) {
        let set = pool.map(|p| PrefixSet::of(p.family, p.prefixes.iter().copied()));
        if set == self.pool {
            return;
        }
        self.free.clone_from(&set);
        if let Some(free) = &mut self.free {
            for (prefix, _) in self.taken.values() {
                free.remove(*prefix);
            }
        }
        self.pool = set;
    }

    /// A subnet is out of the pool.
    pub fn take(&mut self, subnet: &Subnet) {
        let project = subnet.standard.project_id.clone();
        let used = self.used.entry(project.clone()).or_insert(0);
        *used = used.saturating_add(size(subnet.cidr));
        if let Some(free) = &mut self.free {
            free.remove(subnet.cidr);
        }
        self.taken.insert(subnet.id, (subnet.cidr, project));
    }

    /// A subnet is not out of the pool any more.
    pub fn give_back(&mut self, subnet: SubnetId) {
        let Some((prefix, project)) = self.taken.remove(&subnet) else {
            return;
        };
        if let Some(used) = self.used.get_mut(&project) {
            *used = used.saturating_sub(size(prefix));
            if *used == 0 {
                self.used.remove(&project);
            }
        }
        let covered = self.pool.as_ref().is_some_and(|p| p.covers(prefix));
        if let Some(free) = self.free.as_mut().filter(|_| covered) {
            free.insert(prefix);
        }
    }

    /// What is free.
    pub fn free(&self) -> Option<&PrefixSet> {
        self.free.as_ref()
    }

    /// The pool's prefixes.
    pub fn all(&self) -> Option<&PrefixSet> {
        self.pool.as_ref()
    }

    /// What is allocated, with its owner.
    pub fn allocations(&self) -> impl Iterator<Item = (&SubnetId, &(Prefix, ProjectId))> {
        self.taken.iter()
    }

    /// How many addresses a project has of it.
    pub fn used(&self, project: &ProjectId) -> u128 {
        self.used.get(project).copied().unwrap_or(0)
    }

    /// Whether there is neither the pool nor a subnet out of it.
    pub fn is_empty(&self) -> bool {
        self.pool.is_none() && self.taken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hextet_model::neutron::Standard;
    use hextet_types::{NetworkId, SubnetPoolId};
    use jiff::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn standard(project: u8) -> Standard {
        Standard {
            project_id: ProjectId(project.to_string()),
            name: String::new(),
            description: String::new(),
            tags: Vec::new(),
            revision_number: 1,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn pool(prefixes: Vec<Prefix>) -> SubnetPool {
        SubnetPool {
            id: SubnetPoolId(Uuid::nil()),
            standard: standard(0),
            family: Family::V4,
            prefixes,
            min_prefixlen: 8,
            max_prefixlen: 32,
            default_prefixlen: 28,
            default_quota: None,
            is_default: false,
            shared: false,
            address_scope_id: None,
            made_by_admin: true,
        }
    }

    fn subnet(n: u8) -> Subnet {
        Subnet {
            id: SubnetId(Uuid::from_u128(n.into())),
            standard: standard(n % 3),
            network_id: NetworkId(Uuid::nil()),
            cidr: format!("10.0.{n}.0/24").parse().unwrap(),
            gateway_ip: None,
            allocation_pools: Vec::new(),
            enable_dhcp: true,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
            subnetpool_id: Some(SubnetPoolId(Uuid::nil())),
            service_types: Vec::new(),
            nat44: None,
            delegation: None,
        }
    }

    proptest! {
        #[test]
        fn change_by_change_is_all_at_once(
            steps in prop::collection::vec((0u8..4, 0u8..8), 0..60),
        ) {
            let mut space = PoolSpace::default();
            let mut there = std::collections::BTreeSet::new();
            let mut now = None;
            for (step, n) in steps {
                match step {
                    0 if there.insert(n) => space.take(&subnet(n)),
                    1 if there.remove(&n) => space.give_back(subnet(n).id),
                    2 => {
                        let prefixes = (0..=n).map(|n| subnet(n).cidr).collect();
                        now = Some(pool(prefixes));
                        space.set_pool(now.as_ref());
                    }
                    3 if n == 0 => {
                        now = None;
                        space.set_pool(None);
                    }
                    _ => {}
                }
                let mut fresh = PoolSpace::default();
                fresh.set_pool(now.as_ref());
                there.iter().for_each(|n| fresh.take(&subnet(*n)));
                prop_assert_eq!(&space, &fresh);
            }
        }
    }

    #[test]
    fn use_is_counted_in_addresses_and_never_overflows() {
        assert_eq!(size("10.0.0.0/24".parse().unwrap()), 256);
        assert_eq!(
            size("2001:db8::/63".parse().unwrap()),
            2 * quota_unit(Family::V6)
        );
        assert_eq!(size("::/0".parse().unwrap()), u128::MAX);
    }
}
