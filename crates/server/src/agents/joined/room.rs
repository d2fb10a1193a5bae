//! How many multicast groups there is room for, and how many may hear each. Of what a network has no project takes all but the
//! one that owns it, and no project takes so much that hosts have no room for others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{neutron::Port, state::Audience};
use hextet_types::{Family, NetworkId, ProjectId};

use crate::state::State;

/// Groups of one network that somebody has joined.
const OF_NETWORK: usize = 256;
/// Groups of one network that ports of a project have joined which does not own it.
const OF_STRANGER: usize = OF_NETWORK / 4;
/// Groups that ports of one project have joined, on all networks. A host's map holds 65,536.
const OF_PROJECT: usize = 512;

/// A group of a network.
type Group = (NetworkId, IpAddr);

/// What one write has let in already, which the state before it does not show. What it gives up is room for the next.
#[derive(Debug, Default)]
pub struct Taken {
    new: BTreeSet<Group>,
    listeners: BTreeMap<Group, usize>,
    by_project: BTreeMap<ProjectId, BTreeSet<Group>>,
}

impl Taken {
    /// Whether there is room for a port to join a group that it has not joined; if so, it is taken.
    pub fn admit(&mut self, state: &State, port: &Port, group: IpAddr) -> bool {
        let of = (port.network_id, group);
        let project = &port.standard.project_id;
        let listeners = self.listeners.get(&of).copied().unwrap_or(0);
        let is_new = !self.new.contains(&of) && state.joins.of(of.0, group).next().is_none();
        let is_charged = state.joins.has(project, of)
            || self
                .by_project
                .get(project)
                .is_some_and(|a| a.contains(&of));
        let fits = state.count_listeners(of.0, group) + listeners < Audience::MOST
            && (!is_new || state.joins.count(of.0) + count(&self.new, of.0) < OF_NETWORK)
            && (is_charged || self.has_share(state, project, of.0));
        if !fits {
            return false;
        }
        if is_new {
            self.new.insert(of);
        }
        if !is_charged {
            let all = self.by_project.entry(project.clone()).or_default();
            all.insert(of);
        }
        *self.listeners.entry(of).or_default() += 1;
        true
    }

    /// Whether the project may have one more.
    fn has_share(&self, state: &State, project: &ProjectId, network: NetworkId) -> bool {
        let nothing = BTreeSet::new();
        let taken = self.by_project.get(project).unwrap_or(&nothing);
        let owner = state.networks.get(&network);
        let owns = owner.is_some_and(|network| network.standard.project_id == *project);
        let here = || state.joins.count_in(project, network) + count(taken, network);
        state.joins.count_of(project) + taken.len() < OF_PROJECT && (owns || here() < OF_STRANGER)
    }
}

/// Those of one network.
fn count(all: &BTreeSet<Group>, network: NetworkId) -> usize {
    let from = (network, Family::V4.unspecified());
    let all = all.range(from..);
    all.take_while(|(of, _)| *of == network).count()
}
