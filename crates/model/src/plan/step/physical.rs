//! What a change touches of networks that hosts are on by links of their own.

use std::net::IpAddr;

use hextet_types::NetworkId;

use super::Step;
use crate::{
    neutron::{Network, Port, Subnet},
    plan::{expose, index::Name, place::Place, unit::Unit},
    state::{Cut, CutEnd, CutPorts},
};

impl Step<'_> {
    /// A network is known now, or is another: the addresses on it are reached otherwise, whoever has them.
    pub(super) fn physical_network(&mut self, old: Option<&Network>, new: Option<&Network>) {
        let shape = |n: &Network| {
            let segment = (n.physical_network.clone(), n.segmentation_id);
            let physical = n.network_type.is_physical();
            physical.then_some((segment, n.admin_state_up))
        };
        let Some(id) = old.or(new).map(|n| n.id) else {
            return;
        };
        if old.and_then(shape) != new.and_then(shape) {
            self.touch_ports(Place::Main, &Name::Network(id));
            self.physical_subnets(id);
        }
    }

    /// Routers on a physical network say something else.
    pub(super) fn upstream(&mut self, on: &str) {
        let networks = self.intent.networks.values();
        let there = networks.filter(|n| n.physical_network.as_deref() == Some(on));
        for id in there.map(|n| n.id).collect::<Vec<_>>() {
            self.touch_ports(Place::Main, &Name::Network(id));
            self.physical_subnets(id);
        }
    }

    /// A subnet comes, changes or goes.
    pub(super) fn physical_subnet(&mut self, old: Option<&Subnet>, new: Option<&Subnet>) {
        let physical = |id| {
            let network = self.intent.networks.get(&id);
            network.is_some_and(|n| n.network_type.is_physical())
        };
        let mut concerned = Vec::new();
        for subnet in [old, new].into_iter().flatten() {
            if physical(subnet.network_id) {
                concerned.push((subnet.network_id, subnet.cidr));
            }
        }
        for (network, cidr) in concerned {
            let units = self.touched.units_of(Place::Main);
            units.insert(Unit::Inside(cidr));
            self.physical_subnets(network);
        }
    }

    /// Connections to what a port has of its host's own addresses end with that.
    pub(super) fn take_back(&mut self, place: Place, old: &Port, new: Option<&Port>) {
        let Some(IpAddr::V4(inside)) = expose::address(old) else {
            return;
        };
        let cuts = expose::taken_back(old, new).map(|e| Cut {
            netns: place.netns(),
            end: CutEnd::Inside(inside),
            ports: Some(CutPorts {
                protocol: e.protocol.number(),
                range: (e.external_port, e.external_port),
            }),
        });
        self.touched.cut.extend(cuts);
    }

    /// What may be reached on the network's link: the prefixes of its subnets, and addresses that are no port's.
    fn physical_subnets(&mut self, id: NetworkId) {
        let subnets = self.intent.subnets.values();
        let prefixes = subnets.filter(|s| s.network_id == id).map(|s| s.cidr);
        let sources = self.intent.nat44_sources.values().flatten();
        let public = self.places.routers().claims().addresses();
        let units = prefixes
            .map(Unit::Inside)
            .chain(sources.copied().map(Unit::Address))
            .chain(public.map(Unit::Public))
            .chain([Unit::Physical(id)]);
        self.touched.units_of(Place::Main).extend(units);
    }
}
