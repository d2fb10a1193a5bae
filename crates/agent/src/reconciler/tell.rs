//! What the loop tells others: announcements, responders, and how ports fare.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_api::agent::PortState;
use hextet_kernel::Standing;
use hextet_model::{
    intent::{Change, Router, RouterInterface},
    neutron::Port,
    plan::{PORT_METRIC, Realm, outer_end},
    state::{Key, Netns, RouteKey},
};
use hextet_types::{IfName, NetworkId, PortId, Prefix};
use nix::net::if_::if_nametoindex;

use tracing::info;

use super::{MAIN_TABLE, Reconciler, ResponderChange};
use crate::{
    arrival::Standbys,
    doubt::{Doubt, announced_for_routers},
    report::{PortStatus, RouterStatus},
    reporter::Plug,
    subscription::Update,
    uplinks::Answering,
};

impl Reconciler {
    /// Everything, as after a start.
    pub(super) fn tell_all(&mut self) {
        self.tell_announcements(&self.planner.state().announce.keys().copied().collect());
        self.tell_inside();
        self.tell_watched();
        self.tell_standbys();
        let objects = self.planner.state().objects.keys();
        self.tell_answering(objects, false);
        let ports: Vec<PortId> = self.planner.intent().ports.keys().copied().collect();
        ports.into_iter().for_each(|port| self.tell_responder(port));
    }

    /// For which of these the host answers on links.
    pub(super) fn tell_answering<'a>(&self, keys: impl IntoIterator<Item = &'a Key>, is_new: bool) {
        for key in keys {
            if let Key::Answer(link, addr) = key {
                let answers = self.planner.state().objects.contains_key(key);
                let (link, addr) = (link.clone(), *addr);
                let _ = self.outputs.answering.send(Answering {
                    link,
                    addr,
                    answers,
                    is_new,
                });
            }
        }
    }

    /// What the cloud routes.
    pub(super) fn tell_inside(&self) {
        let wanted = self.planner.inside();
        self.outputs.inside.send_if_modified(|told| {
            let news = *told != wanted;
            *told = wanted;
            news
        });
    }

    /// Which hosts' kernels are watched.
    pub(super) fn tell_watched(&self) {
        let wanted = &self.planner.intent().watched;
        self.outputs.watched.send_if_modified(|told| {
            let news = told != wanted;
            if news {
                told.clone_from(wanted);
            }
            news
        });
    }

    /// Which ports' workloads may arrive.
    pub(super) fn tell_standbys(&self) {
        let intent = self.planner.intent();
        let ports = intent.standbys.iter();
        let ports = ports.filter_map(|id| intent.ports.get(id));
        let wanted = ports.map(|port| (port.id, (port.if_name(), port.mac_address)));
        let wanted: Standbys = wanted.collect();
        self.outputs.standbys.send_if_modified(|told| {
            let news = *told != wanted;
            *told = wanted;
            news
        });
    }

    /// What routers that translate here have announced is announced if there is no doubt that they do.
    pub(super) fn set_doubt(&mut self, doubt: Doubt) {
        let was = std::mem::replace(&mut self.doubt, doubt);
        if was.is_any() == doubt.is_any() {
            return;
        }
        let concerned = self.for_routers();
        if !concerned.is_empty() {
            let held = doubt.is_any();
            info!(
                addresses = concerned.len(),
                held, "announcing what routers translate to here"
            );
            self.tell_announcements(&concerned);
        }
    }

    fn for_routers(&self) -> BTreeSet<Prefix> {
        announced_for_routers(self.planner.intent(), &self.planner.config().host)
    }

    /// These prefixes are announced anew, otherwise, or no longer.
    pub(super) fn tell_announcements(&self, changed: &BTreeSet<Prefix>) {
        let Some(announce) = self.outputs.announce.as_ref().filter(|a| !a.is_closed()) else {
            return;
        };
        let wanted = &self.planner.state().announce;
        let held = match self.doubt.is_any() {
            true => self.for_routers(),
            false => BTreeSet::new(),
        };
        announce.send_modify(|told| {
            for prefix in changed {
                match wanted.get(prefix).filter(|_| !held.contains(prefix)) {
                    Some(announcement) => drop(told.insert(*prefix, *announcement)),
                    None => drop(told.remove(prefix)),
                }
            }
        });
    }

    pub(super) fn tell_responder(&mut self, port: PortId) {
        let responder = self.planner.state().responders.get(&port).cloned();
        let planned = self.planner.intent().ports.get(&port);
        let known = planned.is_some();
        let joins = planned.is_some_and(|port| self.is_private(port));
        for link in [IfName::for_port(port)].into_iter().chain(outer_end(port)) {
            match known {
                true => drop(self.links.insert(link, port)),
                false => drop(self.links.remove(&link)),
            }
        }
        match known {
            true if self.plugged.contains_key(&port) => {}
            true if self.note_link(port) => drop(self.found.insert(port)),
            true => {}
            false => {
                self.plugged.remove(&port);
                self.found.remove(&port);
            }
        }
        self.touched_ports.insert(port);
        drop(self.outputs.responders.send(ResponderChange {
            port,
            responder,
            joins,
        }));
    }

    /// Takes the port's interface as it is for the one that is written next; whether it is another one.
    pub(super) fn note_link(&mut self, port: PortId) -> bool {
        match if_nametoindex(IfName::for_port(port).as_str()) {
            Ok(index) => self.plugged.insert(port, index) != Some(index),
            Err(_) => self.plugged.remove(&port).is_some(),
        }
    }

    /// The states of the ports that something was done about.
    pub(super) fn tell_standing(&mut self) {
        let touched = std::mem::take(&mut self.touched_ports);
        let ports = &self.planner.intent().ports;
        let states: Vec<_> = touched
            .into_iter()
            .map(|id| (id, ports.get(&id).map(|port| self.plug(port))))
            .collect();
        let (revision, objects) = (self.revision, self.desired.len());
        self.outputs.standing.send_if_modified(|standing| {
            let mut news = standing.applied_revision != revision;
            for (port, state) in states {
                news |= standing.set(port, state);
            }
            standing.applied_revision = revision;
            standing.configurations = BTreeMap::from([
                ("ports".to_owned(), standing.ports().into()),
                ("objects".to_owned(), objects.into()),
            ]);
            news
        });
    }

    fn plug(&self, port: &Port) -> Plug {
        Plug {
            state: self.port_state(port),
            link: match self.found.contains(&port.id) {
                true => None,
                false => self.plugged.get(&port.id).copied(),
            },
        }
    }

    fn port_state(&self, port: &Port) -> PortState {
        let down = |reason: &str| PortState::Down {
            reason: reason.to_owned(),
        };
        let network = self.planner.intent().networks.get(&port.network_id);
        if !port.admin_state_up {
            return down("administratively down");
        }
        if network.is_none_or(|n| !n.admin_state_up) {
            return down("its network is administratively down");
        }
        let link = port.if_name();
        for key in self.keys_of(port, &link) {
            if let Some(failure) = self.failures.get(&key) {
                return down(failure);
            }
            if !self.stands(&key) && self.desired.contains_key(&key) {
                return down(&format!("waiting for the interface {link}"));
            }
        }
        PortState::Active
    }

    /// Whether what is desired there is known to stand.
    pub(super) fn stands(&self, key: &Key) -> bool {
        matches!(
            (self.kernel.known().get(key), self.desired.get(key)),
            (Some(Standing::As(actual)), Some(desired)) if actual == desired
        )
    }

    /// What makes the port's interface work.
    fn keys_of(&self, port: &Port, link: &IfName) -> Vec<Key> {
        let netns = self.planner.netns_of(port.network_id);
        let mut keys = vec![Key::Link(Netns::Main, link.clone())];
        if let Netns::Named(name) = &netns {
            keys.push(Key::Namespace(name.clone()));
            keys.extend(outer_end(port.id).map(|outer| Key::Veth(Netns::Main, outer)));
            keys.push(Key::Patch(link.clone()));
        }
        keys.push(Key::EdgeProgram(netns.clone(), link.clone()));
        keys.extend(port.fixed_ips.iter().map(|fixed| {
            Key::Route(RouteKey {
                netns: netns.clone(),
                table: MAIN_TABLE,
                prefix: Prefix::host(fixed.ip_address),
                source: None,
                metric: PORT_METRIC,
            })
        }));
        keys
    }

    pub(super) fn router_statuses(&self) -> Vec<RouterStatus> {
        let routers = self.planner.intent().routers.values();
        routers.map(|router| self.router_status(router)).collect()
    }

    fn router_status(&self, router: &Router) -> RouterStatus {
        let addresses = |interfaces: &BTreeMap<PortId, RouterInterface>| {
            let fixed = interfaces.values().flat_map(|i| &i.fixed_ips);
            fixed.map(|f| f.ip_address).collect()
        };
        let networks: BTreeSet<NetworkId> =
            router.interfaces.values().map(|i| i.network_id).collect();
        let known = networks
            .iter()
            .filter_map(|id| self.planner.intent().networks.get(id));
        let id = router.router.id;
        RouterStatus {
            id,
            name: router.router.standard.name.clone(),
            netns: self.planner.netns_of_router(id).to_string(),
            networks: known.map(|n| n.standard.name.clone()).collect(),
            addresses: addresses(&router.interfaces),
            external: addresses(&router.gateways),
            gateway_host: router.gateway_host.as_ref().map(|g| g.host.clone()),
            down: self.router_is_down(router),
        }
    }

    /// Why the kernel forwards nothing for it, or not all.
    fn router_is_down(&self, router: &Router) -> Option<String> {
        if !router.router.admin_state_up {
            return Some("administratively down".to_owned());
        }
        let netns = self.planner.netns_of_router(router.router.id);
        let in_it = self.planner.realm(&netns).and_then(Realm::router);
        if let Some(other) = in_it.filter(|other| other.router.id != router.router.id) {
            return Some(format!(
                "router {} has a namespace of the same name; make this one anew",
                other.router.id
            ));
        }
        let mut failures = self.failures.iter();
        if let Some((_, failure)) = failures.find(|(key, _)| *key.netns() == netns) {
            return Some(failure.clone());
        }
        let Netns::Named(name) = netns else {
            return None;
        };
        let stands = self.stands(&Key::Namespace(name));
        (!stands).then(|| "its namespace does not stand yet".to_owned())
    }

    pub(super) fn port_status(&self, port: &Port) -> PortStatus {
        let network = self.planner.intent().networks.get(&port.network_id);
        let addresses: Vec<IpAddr> = port.fixed_ips.iter().map(|f| f.ip_address).collect();
        PortStatus {
            id: port.id,
            name: port.standard.name.clone(),
            network: port.network_id,
            network_name: network.map(|n| n.standard.name.clone()).unwrap_or_default(),
            link: port.if_name(),
            mac: port.mac_address,
            mtu: network.map_or(1500, |n| n.mtu),
            addresses,
            delegated: port.delegated_prefixes.iter().map(|d| d.prefix).collect(),
            down: match self.port_state(port) {
                PortState::Active => None,
                PortState::Down { reason } => Some(reason),
            },
        }
    }
}

/// Whether the prefixes that the cloud routes may be others then.
pub(super) fn changes_inside(update: &Update) -> bool {
    match update {
        Update::Whole(..) => true,
        Update::StillAt(_) => false,
        Update::Group(changes, _) => changes.iter().any(|change| {
            matches!(
                change,
                Change::PutNetwork(_)
                    | Change::RemoveNetwork(_)
                    | Change::PutSubnet(_)
                    | Change::RemoveSubnet(_)
            )
        }),
    }
}
