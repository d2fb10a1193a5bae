//! The multicast groups that ports have joined, as their hosts have last heard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use hextet_types::{NetworkId, PortId};
use serde::{Deserialize, Serialize};

use super::table::Row;

/// What one port has joined; the port is in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRecord {
    /// The port's network.
    pub network_id: NetworkId,
    /// The groups; never none.
    pub groups: BTreeSet<IpAddr>,
}

/// All of them, whether they count or not.
#[derive(Debug, Default)]
pub struct Joins {
    rows: HashMap<PortId, Row<JoinRecord>>,
    /// Never an empty set.
    by_network: HashMap<NetworkId, BTreeMap<IpAddr, BTreeSet<PortId>>>,
}

impl Joins {
    /// Of a port.
    pub fn row(&self, port: PortId) -> Option<&Row<JoinRecord>> {
        self.rows.get(&port)
    }

    /// The groups of a network that somebody has joined.
    pub fn groups(&self, network: NetworkId) -> impl Iterator<Item = IpAddr> {
        let groups = self.by_network.get(&network).into_iter().flatten();
        groups.map(|(group, _)| *group)
    }

    /// How many these are.
    pub fn count(&self, network: NetworkId) -> usize {
        self.by_network.get(&network).map_or(0, BTreeMap::len)
    }

    /// Who has joined one.
    pub fn of(&self, network: NetworkId, group: IpAddr) -> impl Iterator<Item = PortId> {
        let groups = self.by_network.get(&network);
        let ports = groups.and_then(|groups| groups.get(&group));
        ports.into_iter().flatten().copied()
    }

    /// Puts a port's or, with none, takes them away; the groups that this concerns.
    pub fn set(
        &mut self,
        port: PortId,
        row: Option<Row<JoinRecord>>,
    ) -> BTreeSet<(NetworkId, IpAddr)> {
        let groups = |row: &Row<JoinRecord>| -> Vec<(NetworkId, IpAddr)> {
            let network = row.value.network_id;
            row.value.groups.iter().map(|g| (network, *g)).collect()
        };
        let new = row.as_ref().map(groups).unwrap_or_default();
        let old = match row {
            Some(row) => self.rows.insert(port, row),
            None => self.rows.remove(&port),
        };
        let old = old.as_ref().map(groups).unwrap_or_default();
        for (network, group) in &old {
            self.leave(*network, *group, port);
        }
        for (network, group) in &new {
            let groups = self.by_network.entry(*network).or_default();
            groups.entry(*group).or_default().insert(port);
        }
        old.into_iter().chain(new).collect()
    }

    fn leave(&mut self, network: NetworkId, group: IpAddr, port: PortId) {
        let Some(groups) = self.by_network.get_mut(&network) else {
            return;
        };
        if let Some(ports) = groups.get_mut(&group) {
            ports.remove(&port);
            if ports.is_empty() {
                groups.remove(&group);
            }
        }
        if groups.is_empty() {
            self.by_network.remove(&network);
        }
    }
}
