//! What a change touches of subnets.

use std::collections::BTreeSet;

use hextet_types::{NetworkId, SubnetId};

use super::Step;
use crate::{
    neutron::Subnet,
    plan::{
        index::{Name, Referrer, names_of_subnet},
        place::Place,
        unit::Unit,
    },
};

impl Step<'_> {
    pub(super) fn subnet(&mut self, id: SubnetId, new: Option<&Subnet>) {
        let old = self.intent.subnets.get(&id);
        if !subnet_differs(old, new) {
            return;
        }
        self.physical_subnet(old, new);
        let at_home = |s: &Subnet| self.home(s.network_id);
        let (was, is) = (old.map(at_home), new.map(at_home));
        self.move_subnet(was.zip(old), is.zip(new));
        let on: BTreeSet<NetworkId> = [old, new]
            .into_iter()
            .flatten()
            .map(|s| s.network_id)
            .collect();
        for network in on {
            self.touch_routers_on(network);
            self.touch_network(network);
        }
    }

    pub(super) fn move_subnet(
        &mut self,
        old: Option<(Place, &Subnet)>,
        new: Option<(Place, &Subnet)>,
    ) {
        let places: BTreeSet<Place> = [old, new].into_iter().flatten().map(|(p, _)| p).collect();
        for place in places {
            let names = |s: Option<(Place, &Subnet)>| {
                let here = s.filter(|(p, _)| *p == place);
                here.map_or_else(BTreeSet::new, |(_, s)| names_of_subnet(s))
            };
            let Some((_, subnet)) = new.or(old) else {
                continue;
            };
            let who = Referrer::Subnet(subnet.id);
            self.rename(place, who, (&names(old), &names(new)));
            self.touch_ports(place, &Name::Subnet(subnet.id));
            // Another subnet may have the same prefix, and keep its name.
            let delegation = |s: Option<(Place, &Subnet)>| {
                let here = s.filter(|(p, _)| *p == place);
                here.and_then(|(_, s)| s.delegation)
            };
            if delegation(old) != delegation(new) {
                let both = [old, new].into_iter().flatten();
                let inside = both.map(|(_, s)| Unit::Inside(s.cidr));
                self.touched.units_of(place).extend(inside);
            }
            let both = [old, new].into_iter().flatten();
            if both.into_iter().any(|(_, s)| s.nat44.is_some()) {
                self.touched
                    .units_of(place)
                    .extend([Unit::Nat44(subnet.id), Unit::Translation]);
            }
        }
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
