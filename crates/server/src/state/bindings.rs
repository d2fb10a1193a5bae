//! Bindings of ports on hosts that are prepared for them, beside the active one, which a port itself has.

use std::collections::{BTreeMap, HashMap};

use hextet_model::neutron::{Binding, Port, Status, VnicType};
use hextet_types::{HostId, PortId};
use serde::{Deserialize, Serialize};

use super::table::{Index, Row};

/// A binding that is not the active one; its port and host are in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingRecord {
    /// What kind of interface the instance wants.
    pub vnic_type: VnicType,
    /// What Nova says about it; kept as it came.
    pub profile: serde_json::Map<String, serde_json::Value>,
    /// Whether the port's rules stand on that host; the port's status once it is activated.
    pub status: Status,
    /// Its workload was heard there: the port's addresses are there while it is migrating there.
    pub taken_over: bool,
}

impl BindingRecord {
    /// As a port has it that is bound to this host.
    pub fn on(&self, host: &HostId) -> Binding {
        Binding {
            host_id: Some(host.clone()),
            vnic_type: self.vnic_type,
            profile: self.profile.clone(),
        }
    }
}

/// Where a port is being migrated to, as Nova says it.
pub fn migrating_to(port: &Port) -> Option<&str> {
    port.binding.profile.get("migrating_to")?.as_str()
}

/// All of them.
#[derive(Debug, Default)]
pub struct Bindings {
    by_port: HashMap<PortId, BTreeMap<HostId, Row<BindingRecord>>>,
    by_host: Index<HostId, PortId>,
}

impl Bindings {
    /// A port's, by host.
    pub fn of(&self, port: PortId) -> impl Iterator<Item = (&HostId, &Row<BindingRecord>)> {
        self.by_port.get(&port).into_iter().flatten()
    }

    /// A port's on a host.
    pub fn row(&self, port: PortId, host: &HostId) -> Option<&Row<BindingRecord>> {
        self.by_port.get(&port)?.get(host)
    }

    /// Ports that have one on a host.
    pub fn on(&self, host: &HostId) -> impl Iterator<Item = &PortId> {
        self.by_host.get(host)
    }

    /// Puts one or, with none, takes it away.
    pub fn set(&mut self, port: PortId, host: HostId, row: Option<Row<BindingRecord>>) {
        match row {
            Some(row) => {
                self.by_host.insert(host.clone(), port);
                self.by_port.entry(port).or_default().insert(host, row);
            }
            None => {
                self.by_host.remove(&host, &port);
                if let Some(hosts) = self.by_port.get_mut(&port) {
                    hosts.remove(&host);
                    if hosts.is_empty() {
                        self.by_port.remove(&port);
                    }
                }
            }
        }
    }
}
