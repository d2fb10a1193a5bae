//! Where the addresses of private networks are, and where those hosts are reached.
//!
//! An address is where a port is that has it as its own; else where one is that may use it besides: that which
//! was the last to say that it has it ([`super::holders`]), or the first of them. A host
//! that is told a private network is told the addresses that are on other hosts, and those hosts. When an
//! address moves, a third host is told in one step.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::{
    intent::{Change, RemotePort, RoutingDomain},
    neutron::Port,
};
use hextet_types::{HostId, NetworkId, PortId, RouterId};

use super::{Counts, Row, Step, TunnelRecord, holders::Holding, paired_addresses, places::Places};
use crate::state::State;

/// Who may have an address; the least one has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    /// Not as its own.
    paired: bool,
    port: PortId,
    host: HostId,
}

type Holdings = BTreeMap<IpAddr, Holder>;

/// Where addresses of private networks are.
#[derive(Debug, Default)]
pub struct Remotes {
    /// Who may have each address; never an empty set.
    holders: HashMap<NetworkId, BTreeMap<IpAddr, BTreeSet<Holder>>>,
    /// Who has said that it has an address which several may use, on networks of any kind; never an empty map.
    held: HashMap<NetworkId, BTreeMap<IpAddr, Holding>>,
    /// How many addresses of a network are on a host.
    residents: Counts<NetworkId, HostId>,
    /// In how many networks a host has to be known: it → to whom.
    known: Counts<HostId, HostId>,
}

impl Remotes {
    /// Where an address is.
    pub(super) fn at(&self, network: NetworkId, address: IpAddr) -> Option<HostId> {
        let holders = self.holders.get(&network).and_then(|a| a.get(&address));
        let first = holders.and_then(BTreeSet::first);
        let held = self.holding(network, address);
        decide(first, held).cloned()
    }

    /// Who has said that it has an address which several may use.
    pub(super) fn holding(&self, network: NetworkId, address: IpAddr) -> Option<&Holding> {
        self.held.get(&network)?.get(&address)
    }

    /// All such addresses of a network.
    pub(super) fn held_in(&self, network: NetworkId) -> &BTreeMap<IpAddr, Holding> {
        static NONE: BTreeMap<IpAddr, Holding> = BTreeMap::new();
        self.held.get(&network).unwrap_or(&NONE)
    }

    pub(super) fn hold(&mut self, network: NetworkId, changed: BTreeMap<IpAddr, Option<Holding>>) {
        let held = self.held.entry(network).or_default();
        for (address, holding) in changed {
            match holding {
                Some(holding) => drop(held.insert(address, holding)),
                None => drop(held.remove(&address)),
            }
        }
        if held.is_empty() {
            self.held.remove(&network);
        }
    }

    fn insert(&mut self, network: NetworkId, address: IpAddr, holder: Holder) {
        let addresses = self.holders.entry(network).or_default();
        addresses.entry(address).or_default().insert(holder);
    }

    fn remove(&mut self, network: NetworkId, address: IpAddr, holder: &Holder) {
        let Some(addresses) = self.holders.get_mut(&network) else {
            return;
        };
        if let Some(holders) = addresses.get_mut(&address) {
            holders.remove(holder);
            if holders.is_empty() {
                addresses.remove(&address);
            }
        }
        if addresses.is_empty() {
            self.holders.remove(&network);
        }
    }

    /// Addresses that are not on this host, and where they are.
    fn elsewhere(&self, network: NetworkId, host: &HostId) -> BTreeMap<IpAddr, HostId> {
        let held = self.held_in(network);
        let claimed = self.holders.get(&network);
        let claims = claimed.into_iter().flatten();
        let places = claims.filter_map(|(addr, holders)| {
            let at = decide(holders.first(), held.get(addr))?;
            Some((*addr, at))
        });
        let unclaimed = |addr: &IpAddr| claimed.is_none_or(|c| !c.contains_key(addr));
        let rest = held.iter().filter(|(addr, _)| unclaimed(addr));
        let all = places.chain(rest.map(|(addr, (_, at))| (*addr, at)));
        let elsewhere = all.filter(|(_, at)| *at != host);
        elsewhere.map(|(addr, at)| (addr, at.clone())).collect()
    }

    /// Other hosts that have addresses of the network.
    fn others(&self, network: NetworkId, host: &HostId) -> Vec<HostId> {
        let hosts = self.residents.of(&network).map(|(other, _)| other);
        hosts.filter(|other| *other != host).cloned().collect()
    }
}

/// Whose own it is, has it; else who has said so; else who may use it.
fn decide<'r>(first: Option<&'r Holder>, held: Option<&'r Holding>) -> Option<&'r HostId> {
    match (first, held) {
        (Some(first), Some((_, host))) if first.paired => Some(host),
        (Some(first), _) => Some(&first.host),
        (None, held) => held.map(|(_, host)| host),
    }
}

fn holdings(port: &Port, host: &HostId) -> Holdings {
    let holder = |paired| Holder {
        paired,
        port: port.id,
        host: host.clone(),
    };
    let paired = paired_addresses(port).map(|addr| (addr, holder(true)));
    let own = port.fixed_ips.iter();
    let own = own.map(|fixed| (fixed.ip_address, holder(false)));
    paired.chain(own).collect()
}

/// An address that was and is somewhere.
struct Move {
    address: IpAddr,
    was: Option<HostId>,
    is: Option<HostId>,
}

impl State {
    /// The host's own end of tunnels.
    pub(super) fn own_endpoint(&self, host: &HostId) -> Option<Step> {
        let endpoint = self.tunnels.endpoint(host)?;
        Some(Step::other(Change::PutHost(host.clone(), endpoint)))
    }

    /// A network's addresses elsewhere, and the hosts that they are on.
    pub(super) fn remote_steps(&self, host: &HostId, network: NetworkId) -> Vec<Step> {
        let remotes = &self.views.remotes;
        let others = remotes.others(network, host);
        let mut steps: Vec<_> = others.iter().filter_map(|h| self.own_endpoint(h)).collect();
        let all = remotes.elsewhere(network, host);
        if !all.is_empty() {
            steps.push(Step::other(Change::PutRemotes(network, all)));
        }
        let ports = self.views.remote_ports.elsewhere(network, host).cloned();
        let ports = ports.map(|port| Change::PutRemotePort(Box::new(port)));
        steps.extend(ports.map(Step::other));
        steps
    }

    /// A host comes to have ports of a network; what it is told of it follows.
    pub(super) fn meet_all(&mut self, host: &HostId, network: NetworkId) {
        for other in self.views.remotes.others(network, host) {
            self.views.remotes.known.up(other, host.clone());
        }
    }

    /// A host has no ports of a network any more: its addresses elsewhere are nothing to it.
    pub(super) fn part_from_all(&mut self, host: &HostId, network: NetworkId) {
        self.forget_remote_ports(host, network);
        let all = self.views.remotes.elsewhere(network, host);
        if !all.is_empty() {
            let gone = all.into_keys().collect();
            let step = Step::other(Change::RemoveRemotes(network, gone));
            self.views.emit(host, || step);
        }
        for other in self.views.remotes.others(network, host) {
            self.forget_host(host, other);
        }
    }

    /// A host has to know where another one is.
    pub(super) fn meet(&mut self, host: &HostId, other: &HostId) {
        if host != other
            && self.views.remotes.known.up(other.clone(), host.clone())
            && let Some(step) = self.own_endpoint(other)
        {
            self.views.emit(host, || step);
        }
    }

    /// A host has to know it for one reason less.
    pub(super) fn part(&mut self, host: &HostId, other: &HostId) {
        if host != other {
            self.forget_host(host, other.clone());
        }
    }

    fn forget_host(&mut self, host: &HostId, other: HostId) {
        if self.views.remotes.known.down(&other, host) {
            let step = Step::other(Change::RemoveHost(other));
            self.views.emit(host, || step);
        }
    }

    /// A port's addresses come, move or go.
    pub(super) fn locate(
        &mut self,
        old: Option<(&Arc<Port>, &HostId)>,
        new: Option<(&Arc<Port>, &HostId)>,
    ) {
        let networks = [old, new].map(|p| p.map(|(port, _)| port.network_id));
        let networks: BTreeSet<NetworkId> = networks.into_iter().flatten().collect();
        for network in networks {
            if self.domain_of(network) == RoutingDomain::Routed {
                continue;
            }
            let here = |p: Option<(&Arc<Port>, &HostId)>| {
                let here = p.filter(|(port, _)| port.network_id == network);
                here.map_or_else(Holdings::new, |(port, host)| holdings(port, host))
            };
            self.relocate(network, &here(old), &here(new));
        }
        let told = |(port, host): (&Arc<Port>, &HostId)| RemotePort::of(port, host);
        self.tell_remote_port(old.and_then(told), new.and_then(told));
    }

    fn relocate(&mut self, network: NetworkId, old: &Holdings, new: &Holdings) {
        let all = old.keys().chain(new.keys()).copied();
        let changed = all.filter(|address| old.get(address) != new.get(address));
        let changed: BTreeSet<IpAddr> = changed.collect();
        self.shift(network, &changed, |remotes| {
            for address in &changed {
                if let Some(holder) = old.get(address) {
                    remotes.remove(network, *address, holder);
                }
                if let Some(holder) = new.get(address) {
                    remotes.insert(network, *address, holder.clone());
                }
            }
        });
    }

    /// Something changes by which these addresses may be somewhere else.
    pub(super) fn shift(
        &mut self,
        network: NetworkId,
        addresses: &BTreeSet<IpAddr>,
        change: impl FnOnce(&mut Remotes),
    ) {
        let remotes = &mut self.views.remotes;
        let places = |remotes: &Remotes| -> Vec<Option<HostId>> {
            let places = addresses.iter().map(|a| remotes.at(network, *a));
            places.collect()
        };
        let former = places(remotes);
        change(remotes);
        let latter = places(remotes);
        let moves = addresses.iter().zip(former.into_iter().zip(latter));
        let moves: Vec<Move> = moves
            .filter(|(_, (was, is))| was != is)
            .map(|(address, (was, is))| Move {
                address: *address,
                was,
                is,
            })
            .collect();
        for host in moves.iter().filter_map(|m| m.is.as_ref()) {
            if self.views.remotes.residents.up(network, host.clone()) {
                self.introduce(network, host);
            }
        }
        self.tell_moves(network, &moves);
        self.move_floating_ips(network, moves.iter().map(|m| m.address));
        for host in moves.iter().filter_map(|m| m.was.as_ref()) {
            if self.views.remotes.residents.down(&network, host) {
                let to = self.views.networks.of(&network).map(|(to, _)| to);
                let to: Vec<_> = to.filter(|to| *to != host).cloned().collect();
                for to in to {
                    self.forget_host(&to, host.clone());
                }
            }
        }
    }

    /// A host comes to have addresses of a network: those with ports of it have to know where it is.
    fn introduce(&mut self, network: NetworkId, host: &HostId) {
        let step = self.own_endpoint(host);
        let to = self.views.networks.of(&network).map(|(to, _)| to);
        let to: Vec<_> = to.filter(|to| *to != host).cloned().collect();
        for to in to {
            if self.views.remotes.known.up(host.clone(), to.clone())
                && let Some(step) = &step
            {
                self.views.emit(&to, || step.clone());
            }
        }
    }

    fn tell_moves(&mut self, network: NetworkId, moves: &[Move]) {
        if moves.is_empty() {
            return;
        }
        let concerned = moves.iter().flat_map(|m| [&m.was, &m.is]).flatten();
        let concerned: BTreeSet<_> = concerned.cloned().collect();
        let to_others = steps(network, moves, None);
        for host in self.views.listening(&self.views.networks, &network) {
            let own;
            let steps = if concerned.contains(&host) {
                own = steps(network, moves, Some(&host));
                &own
            } else {
                &to_others
            };
            for step in steps {
                self.views.emit(&host, || step.clone());
            }
        }
    }

    /// A host's part in tunnels changes. Where it begins or ends, the host begins or ceases to take ports of
    /// private networks.
    pub(in crate::state) fn set_tunnel(&mut self, host: &HostId, row: Option<Row<TunnelRecord>>) {
        let ids = self.views.ports_of(host).chain(self.bindings.on(host));
        let ids: BTreeSet<PortId> = ids.copied().collect();
        let ports = ids.iter().filter_map(|id| self.ports.get(id));
        let ports: Vec<Arc<Port>> = ports
            .filter(|p| self.domain_of(p.network_id) != RoutingDomain::Routed)
            .cloned()
            .collect();
        let places = |state: &State| -> Vec<Places> {
            let places = ports.iter().map(|p| state.places(Some(p)));
            places.collect()
        };
        let concerned: BTreeSet<_> = ports.iter().flat_map(|p| self.concerned(p)).collect();
        let former = places(self);
        let was = self.tunnels.endpoint(host);
        self.tunnels.set(host.clone(), row);
        let is = self.tunnels.endpoint(host);
        if was == is {
            return;
        }
        let latter = places(self);
        if is.is_none() {
            for (old, new) in former.iter().zip(&latter) {
                self.tell_port(old, new, &concerned);
            }
        }
        if was.is_none() || is.is_none() {
            let routers = self.layer3.gateways_by_host.get(host);
            for id in routers.copied().collect::<Vec<RouterId>>() {
                self.view_router(id);
            }
        }
        let Some(step) = self.own_endpoint(host) else {
            let gone = || Step::other(Change::RemoveHost(host.clone()));
            self.views.emit(host, gone);
            return;
        };
        self.views.emit(host, || step.clone());
        for to in self.views.listening(&self.views.remotes.known, host) {
            self.views.emit(&to, || step.clone());
        }
        if was.is_none() {
            for (old, new) in former.iter().zip(&latter) {
                self.tell_port(old, new, &concerned);
            }
        }
    }
}

/// How that host (another than all concerned, if none) sees the moves.
fn steps(network: NetworkId, moves: &[Move], host: Option<&HostId>) -> Vec<Step> {
    let elsewhere = |at: &Option<HostId>| at.clone().filter(|at| Some(at) != host);
    let mut here = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for Move { address, was, is } in moves {
        match (elsewhere(was), elsewhere(is)) {
            (_, Some(is)) => drop(here.insert(*address, is)),
            (Some(_), None) => drop(gone.insert(*address)),
            (None, None) => {}
        }
    }
    let mut steps = Vec::new();
    if !here.is_empty() {
        steps.push(Step::other(Change::PutRemotes(network, here)));
    }
    if !gone.is_empty() {
        steps.push(Step::other(Change::RemoveRemotes(network, gone)));
    }
    steps
}
