//! Physical networks: a host is told of those that it is on, whether or not a port of theirs is on it, since it may answer
//! there for other addresses than ports' (sources of NAT44, floating IPs).

use hextet_model::neutron::Network;
use hextet_types::{HostId, NetworkId};

use super::reach::Seed;
use crate::state::{HostRecord, State, table::Row};

/// The physical network that it is.
fn physical(network: &Network) -> Option<&String> {
    let named = network.physical_network.as_ref();
    named.filter(|_| network.network_type.is_physical())
}

impl State {
    /// The networks that a host is on by links of its own.
    pub(super) fn physical_seeds(&self, host: &HostId) -> Vec<Seed> {
        let Some(record) = self.hosts.get(host) else {
            return Vec::new();
        };
        let on = &record.physical_networks;
        let networks = self.networks.values();
        let there = networks.filter(|n| physical(n).is_some_and(|named| on.contains(named)));
        there.map(|network| Seed::Network(network.id)).collect()
    }

    /// A network comes, changes or goes.
    pub(in crate::state) fn on_physical_network(
        &mut self,
        id: NetworkId,
        new: Option<&Network>,
        set: impl FnOnce(&mut State),
    ) {
        let was = self.networks.get(&id).and_then(|n| physical(n).cloned());
        let is = new.and_then(|n| physical(n).cloned());
        if was == is {
            return set(self);
        }
        for host in self.hosts_on(was.as_ref()) {
            self.drop_seed(&host, Seed::Network(id));
        }
        set(self);
        for host in self.hosts_on(is.as_ref()) {
            self.need_seed(&host, Seed::Network(id));
        }
    }

    fn hosts_on(&self, physical: Option<&String>) -> Vec<HostId> {
        let on =
            |record: &HostRecord| physical.is_some_and(|p| record.physical_networks.contains(p));
        let hosts = self.hosts.values().filter(|record| on(record));
        hosts.map(|record| record.host.clone()).collect()
    }

    /// A host's record is another; it is on other physical networks.
    pub(super) fn set_record(&mut self, host: &HostId, row: Option<Row<HostRecord>>) {
        let was = self.physical_seeds(host);
        self.hosts.set(host.clone(), row);
        let is = self.physical_seeds(host);
        for seed in is.iter().filter(|seed| !was.contains(seed)) {
            self.need_seed(host, *seed);
        }
        for seed in was.iter().filter(|seed| !is.contains(seed)) {
            self.drop_seed(host, *seed);
        }
    }
}
