//! The multicast groups that ports have joined, as their hosts have last heard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use hextet_types::{Family, NetworkId, PortId, ProjectId};
use serde::{Deserialize, Serialize};

use super::table::Row;

/// What one port has joined; the port is in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRecord {
    /// The port's network.
    pub network_id: NetworkId,
    /// The port's project.
    pub project_id: ProjectId,
    /// The groups; never none.
    pub groups: BTreeSet<IpAddr>,
}

/// All of them, whether they count or not.
#[derive(Debug, Default)]
pub struct Joins {
    rows: HashMap<PortId, Row<JoinRecord>>,
    /// Never an empty set.
    by_network: HashMap<NetworkId, BTreeMap<IpAddr, BTreeSet<PortId>>>,
    /// How many of a project's ports have joined each group of a network; never none.
    by_project: HashMap<ProjectId, BTreeMap<(NetworkId, IpAddr), usize>>,
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

    /// How many groups ports of a project have joined, on all networks.
    pub fn count_of(&self, project: &ProjectId) -> usize {
        self.by_project.get(project).map_or(0, BTreeMap::len)
    }

    /// Likewise, on one network.
    pub fn count_in(&self, project: &ProjectId, network: NetworkId) -> usize {
        let all = self.by_project.get(project).into_iter();
        let from = (network, Family::V4.unspecified());
        let all = all.flat_map(|all| all.range(from..));
        all.take_while(|((of, _), _)| *of == network).count()
    }

    /// Whether a port of a project has joined a group.
    pub fn has(&self, project: &ProjectId, of: (NetworkId, IpAddr)) -> bool {
        let all = self.by_project.get(project);
        all.is_some_and(|all| all.contains_key(&of))
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
        let joins_for = row.as_ref().map(|row| row.value.project_id.clone());
        let old = match row {
            Some(row) => self.rows.insert(port, row),
            None => self.rows.remove(&port),
        };
        let joined_for = old.as_ref().map(|row| row.value.project_id.clone());
        let old = old.as_ref().map(groups).unwrap_or_default();
        for (network, group) in &old {
            self.leave(*network, *group, port);
        }
        if let Some(project) = joined_for {
            self.discharge(&project, &old);
        }
        for (network, group) in &new {
            let groups = self.by_network.entry(*network).or_default();
            groups.entry(*group).or_default().insert(port);
        }
        if let Some(project) = joins_for {
            let all = self.by_project.entry(project).or_default();
            new.iter().for_each(|of| *all.entry(*of).or_default() += 1);
        }
        old.into_iter().chain(new).collect()
    }

    fn discharge(&mut self, project: &ProjectId, groups: &[(NetworkId, IpAddr)]) {
        let Some(all) = self.by_project.get_mut(project) else {
            return;
        };
        for of in groups {
            if let Some(ports) = all.get_mut(of) {
                *ports -= 1;
                if *ports == 0 {
                    all.remove(of);
                }
            }
        }
        if all.is_empty() {
            self.by_project.remove(project);
        }
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
