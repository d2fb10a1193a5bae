//! What the loop tells others: announcements, responders, and how ports fare.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hextet_api::agent::PortState;
use hextet_kernel::Standing;
use hextet_model::{
    neutron::Port,
    plan::PORT_METRIC,
    state::{Key, Netns, RouteKey},
};
use hextet_types::{IfName, PortId, Prefix};

use super::{MAIN_TABLE, Reconciler, ResponderChange};
use crate::report::PortStatus;

impl Reconciler {
    /// Everything, as after a start.
    pub(super) fn tell_all(&mut self) {
        self.tell_announcements();
        let ports: Vec<PortId> = self.planner.intent().ports.keys().copied().collect();
        ports.into_iter().for_each(|port| self.tell_responder(port));
    }

    pub(super) fn tell_announcements(&self) {
        if let Some(announce) = &self.outputs.announce {
            announce.send_replace(self.planner.state().announce.clone());
        }
    }

    pub(super) fn tell_responder(&mut self, port: PortId) {
        let responder = self.planner.state().responders.get(&port).cloned();
        match self.planner.intent().ports.get(&port) {
            Some(known) => drop(self.links.insert(known.if_name(), port)),
            None => self.links.retain(|_, of| *of != port),
        }
        self.touched_ports.insert(port);
        drop(
            self.outputs
                .responders
                .send(ResponderChange { port, responder }),
        );
    }

    /// The states of the ports that something was done about.
    pub(super) fn tell_standing(&mut self) {
        let mut changed = false;
        for id in std::mem::take(&mut self.touched_ports) {
            let state = self
                .planner
                .intent()
                .ports
                .get(&id)
                .map(|port| self.port_state(port));
            changed |= match state {
                Some(state) if self.states.get(&id) == Some(&state) => false,
                Some(state) => {
                    self.states.insert(id, state);
                    true
                }
                None => self.states.remove(&id).is_some(),
            };
        }
        let revision = self.revision;
        self.outputs.standing.send_if_modified(|standing| {
            let news = changed || standing.applied_revision != revision;
            if changed {
                standing.ports = Arc::new(self.states.clone());
            }
            standing.applied_revision = revision;
            standing.configurations = BTreeMap::from([
                ("ports".to_owned(), self.states.len().into()),
                ("objects".to_owned(), self.desired.len().into()),
            ]);
            news
        });
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
            let stands = matches!(
                (self.kernel.known().get(&key), self.desired.get(&key)),
                (Some(Standing::As(actual)), Some(desired)) if actual == desired
            );
            if !stands && self.desired.contains_key(&key) {
                return down(&format!("waiting for the interface {link}"));
            }
        }
        PortState::Active
    }

    /// What makes the port's interface work.
    fn keys_of(&self, port: &Port, link: &IfName) -> Vec<Key> {
        let main = Netns::Main;
        let routes = port.fixed_ips.iter().map(|fixed| {
            Key::Route(RouteKey {
                netns: Netns::Main,
                table: MAIN_TABLE,
                prefix: Prefix::host(fixed.ip_address),
                metric: PORT_METRIC,
            })
        });
        [
            Key::Link(main.clone(), link.clone()),
            Key::EdgeProgram(main, link.clone()),
        ]
        .into_iter()
        .chain(routes)
        .collect()
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
            down: match self.port_state(port) {
                PortState::Active => None,
                PortState::Down { reason } => Some(reason),
            },
        }
    }
}
