//! QoS policies, and what has them.

use std::{collections::HashMap, fmt, sync::Arc};

use hextet_model::neutron::{FloatingIp, Network, Port, QosPolicy, Router};
use hextet_types::{FloatingIpId, NetworkId, PortId, ProjectId, QosPolicyId, QosRuleId, RouterId};

use super::{
    State,
    table::{Index, Row, Table},
};

/// Something that has a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosUser {
    /// A network.
    Network(NetworkId),
    /// A port.
    Port(PortId),
    /// A floating IP.
    FloatingIp(FloatingIpId),
    /// A router, for one of its gateways.
    Router(RouterId),
}

impl fmt::Display for QosUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QosUser::Network(id) => write!(f, "network {id}"),
            QosUser::Port(id) => write!(f, "port {id}"),
            QosUser::FloatingIp(id) => write!(f, "floatingip {id}"),
            QosUser::Router(id) => write!(f, "router {id}"),
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Qos {
    /// Policies.
    pub policies: Table<QosPolicyId, QosPolicy>,
    /// Whose a rule is.
    pub by_rule: HashMap<QosRuleId, QosPolicyId>,
    /// What new networks of a project get.
    pub defaults: HashMap<ProjectId, QosPolicyId>,
    /// What has a policy.
    pub users: Index<QosPolicyId, QosUser>,
}

impl Qos {
    fn used(&mut self, policy: Option<QosPolicyId>, user: QosUser, there: bool) {
        match policy {
            Some(policy) if there => self.users.insert(policy, user),
            Some(policy) => self.users.remove(&policy, &user),
            None => {}
        }
    }

    pub(super) fn network(&mut self, network: &Network, there: bool) {
        let user = QosUser::Network(network.id);
        self.used(network.qos_policy_id, user, there);
    }

    pub(super) fn port(&mut self, port: &Port, there: bool) {
        self.used(port.qos_policy_id, QosUser::Port(port.id), there);
    }

    pub(super) fn floating_ip(&mut self, ip: &FloatingIp, there: bool) {
        self.used(ip.qos_policy_id, QosUser::FloatingIp(ip.id), there);
    }

    pub(super) fn router(&mut self, router: &Router, there: bool) {
        for gateway in &router.gateways {
            self.used(gateway.qos_policy_id, QosUser::Router(router.id), there);
        }
    }

    fn index(&mut self, policy: &QosPolicy, there: bool) {
        for rule in &policy.rules {
            if there {
                self.by_rule.insert(rule.id, policy.id);
            } else {
                self.by_rule.remove(&rule.id);
            }
        }
        let project = &policy.standard.project_id;
        if there && policy.is_default {
            self.defaults.insert(project.clone(), policy.id);
        } else if !there && self.defaults.get(project) == Some(&policy.id) {
            self.defaults.remove(project);
        }
    }
}

impl State {
    pub(super) fn set_qos_policy(&mut self, id: QosPolicyId, row: Option<Row<QosPolicy>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.qos.policies.set(id, row);
        for (policy, there) in [(&old, false), (&new, true)] {
            if let Some(policy) = policy {
                self.count(&policy.standard.project_id, "qos_policy", there);
                self.qos.index(policy, there);
            }
        }
        self.views.tell_policy(id, new.as_deref());
    }
}
