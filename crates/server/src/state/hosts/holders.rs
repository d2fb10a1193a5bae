//! Of addresses that several may use, who has them, as hosts are told: each host with a port that may use such an
//! address. Where it is, is told like the place of any other ([`super::remotes`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::{
    intent::{Change, RoutingDomain},
    neutron::Port,
};
use hextet_types::{HostId, NetworkId, PortId, Prefix};

use super::{Step, places::Places};
use crate::state::{State, holders::HolderRecord, table::Row};

/// Who has an address, and where.
pub type Holding = (PortId, HostId);

/// Who may use addresses, and what hosts are told of it.
#[derive(Debug, Default)]
pub struct Tellings {
    /// What the ports that a host is told may use besides their own; never an empty map.
    pairs: HashMap<NetworkId, BTreeMap<HostId, BTreeMap<PortId, Vec<Prefix>>>>,
    /// Never an empty map.
    told: BTreeMap<HostId, BTreeMap<(NetworkId, IpAddr), PortId>>,
}

impl Tellings {
    fn set_pairs(&mut self, host: &HostId, port: &Port, there: bool) {
        if port.allowed_address_pairs.is_empty() {
            return;
        }
        let hosts = self.pairs.entry(port.network_id).or_default();
        let ports = hosts.entry(host.clone()).or_default();
        if there {
            let pairs = port.allowed_address_pairs.iter().map(|p| p.ip_address);
            ports.insert(port.id, pairs.collect());
        } else {
            ports.remove(&port.id);
        }
        if ports.is_empty() {
            hosts.remove(host);
        }
        if hosts.is_empty() {
            self.pairs.remove(&port.network_id);
        }
    }

    fn hosts(&self, network: NetworkId) -> Vec<HostId> {
        let hosts = self.pairs.get(&network).into_iter().flatten();
        hosts.map(|(host, _)| host.clone()).collect()
    }

    /// What a host is told.
    pub fn on(&self, host: &HostId) -> impl Iterator<Item = (&(NetworkId, IpAddr), &PortId)> {
        self.told.get(host).into_iter().flatten()
    }

    /// What a host has to be told of a network is this now; answers what is new, and what is not any more.
    fn tell(
        &mut self,
        host: &HostId,
        network: NetworkId,
        held: &BTreeMap<IpAddr, Holding>,
    ) -> Vec<Change> {
        let ports = self.pairs.get(&network).and_then(|hosts| hosts.get(host));
        let pairs: Vec<Prefix> = ports
            .into_iter()
            .flat_map(|ports| ports.values().flatten().copied())
            .collect();
        let concerns = |address: &IpAddr| pairs.iter().any(|pair| pair.contains(*address));
        let told = self.told.entry(host.clone()).or_default();
        let mut changes = Vec::new();
        for (address, (port, _)) in held.iter().filter(|(address, _)| concerns(address)) {
            if told.insert((network, *address), *port) != Some(*port) {
                changes.push(Change::PutHolder(network, *address, *port));
            }
        }
        told.retain(|(of, address), _| {
            let stays = *of != network || (held.contains_key(address) && concerns(address));
            if !stays {
                changes.push(Change::RemoveHolder(network, *address));
            }
            stays
        });
        if told.is_empty() {
            self.told.remove(host);
        }
        changes
    }
}

impl State {
    /// Who has an address of those that several may use, and where; none when nobody has said so who may.
    fn holding(&self, network: NetworkId, address: IpAddr) -> Option<Holding> {
        let id = self.holders.row(network, address)?.value.port_id;
        let port = self.ports.get(&id).filter(|p| p.network_id == network)?;
        if self.views.hidden == Some(network) || self.networks.get(&network).is_none() {
            return None;
        }
        let home = self.places(Some(port)).home?;
        self.may_have(port, address).then_some((id, home))
    }

    /// Those of a network's addresses with a holder that a change of such a port can concern.
    pub(super) fn concerned(&self, port: &Port) -> BTreeSet<(NetworkId, IpAddr)> {
        if self.holders.count(port.network_id) == 0 {
            return BTreeSet::new();
        }
        let own = port.fixed_ips.iter().map(|f| f.ip_address);
        let own = own.map(|address| (port.network_id, address));
        own.chain(self.holders.by(port.id)).collect()
    }

    /// Somebody says that he has an address, or does not count any more.
    pub(in crate::state) fn set_holder(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        row: Option<Row<HolderRecord>>,
    ) {
        self.holders.set(network, address, row);
        self.review_holders(&[(network, address)].into());
    }

    /// Whether a network's holders count may be something else now.
    pub(in crate::state) fn view_holders(&mut self, network: NetworkId) {
        let all = self.holders.of(network);
        let all = all.map(|(address, _)| (network, *address)).collect();
        self.review_holders(&all);
    }

    pub(super) fn review_holders(&mut self, concerned: &BTreeSet<(NetworkId, IpAddr)>) {
        let mut changed: BTreeMap<NetworkId, BTreeMap<IpAddr, Option<Holding>>> = BTreeMap::new();
        for (network, address) in concerned {
            let new = self.holding(*network, *address);
            if self.views.remotes.holding(*network, *address) != new.as_ref() {
                changed.entry(*network).or_default().insert(*address, new);
            }
        }
        for (network, changed) in changed {
            if self.domain_of(network) == RoutingDomain::Routed {
                self.views.remotes.hold(network, changed);
            } else {
                let addresses = changed.keys().copied().collect();
                self.shift(network, &addresses, |remotes| {
                    remotes.hold(network, changed)
                });
            }
            for host in self.views.tellings.hosts(network) {
                self.tell_holders(&host, network);
            }
        }
    }

    /// A host has other ports that may use addresses besides their own.
    pub(super) fn pair_up(&mut self, old: &Places, new: &Places) {
        let pairs = |(host, port): &(HostId, Arc<Port>)| {
            let any = !port.allowed_address_pairs.is_empty();
            any.then(|| (host.clone(), port.network_id))
        };
        let concerned: BTreeSet<_> = old.told.iter().chain(&new.told).filter_map(pairs).collect();
        for (places, there) in [(old, false), (new, true)] {
            for (host, port) in &places.told {
                self.views.tellings.set_pairs(host, port, there);
            }
        }
        for (host, network) in concerned {
            self.tell_holders(&host, network);
        }
    }

    fn tell_holders(&mut self, host: &HostId, network: NetworkId) {
        let held = self.views.remotes.held_in(network);
        let changes = self.views.tellings.tell(host, network, held);
        for change in changes {
            self.views.emit(host, || Step::other(change));
        }
    }
}
