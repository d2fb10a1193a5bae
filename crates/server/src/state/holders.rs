//! Addresses that several ports of a network may use, and the one of them that was the last to say that it has it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use hextet_model::neutron::Port;
use hextet_types::{NetworkId, PortId};
use serde::{Deserialize, Serialize};

use super::{
    State,
    hosts::places::is_guest,
    table::{Index, Row},
};

/// Who has an address; its network and itself are in its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderRecord {
    /// The port.
    pub port_id: PortId,
}

/// All of them, whether they count or not.
#[derive(Debug, Default)]
pub struct Holders {
    by_network: HashMap<NetworkId, BTreeMap<IpAddr, Row<HolderRecord>>>,
    by_port: Index<PortId, (NetworkId, IpAddr)>,
}

impl Holders {
    /// Of a network.
    pub fn of(&self, network: NetworkId) -> impl Iterator<Item = (&IpAddr, &Row<HolderRecord>)> {
        self.by_network.get(&network).into_iter().flatten()
    }

    /// How many a network has.
    pub fn count(&self, network: NetworkId) -> usize {
        self.by_network.get(&network).map_or(0, BTreeMap::len)
    }

    /// That of an address.
    pub fn row(&self, network: NetworkId, address: IpAddr) -> Option<&Row<HolderRecord>> {
        self.by_network.get(&network)?.get(&address)
    }

    /// What a port has.
    pub fn by(&self, port: PortId) -> impl Iterator<Item = (NetworkId, IpAddr)> {
        self.by_port.get(&port).copied()
    }

    /// Puts one or, with none, takes it away.
    pub fn set(&mut self, network: NetworkId, address: IpAddr, row: Option<Row<HolderRecord>>) {
        let addresses = self.by_network.entry(network).or_default();
        if let Some(new) = &row {
            self.by_port.insert(new.value.port_id, (network, address));
        }
        let new = row.as_ref().map(|row| row.value.port_id);
        let old = match row {
            Some(row) => addresses.insert(address, row),
            None => addresses.remove(&address),
        };
        if addresses.is_empty() {
            self.by_network.remove(&network);
        }
        if let Some(old) = old.filter(|old| Some(old.value.port_id) != new) {
            self.by_port.remove(&old.value.port_id, &(network, address));
        }
    }
}

/// Whether a port may use the address besides its own.
pub fn may_hold(port: &Port, address: IpAddr) -> bool {
    let mut pairs = port.allowed_address_pairs.iter();
    let own = port.fixed_ips.iter().any(|f| f.ip_address == address);
    is_guest(port) && !own && pairs.any(|pair| pair.ip_address.contains(address))
}

impl State {
    /// Whether an address is somebody's own, who does not lend it: all do but those that are bound nowhere, and so
    /// only keep it for others.
    pub fn is_owned(&self, network: NetworkId, address: IpAddr) -> bool {
        let owners = self.subnets_of(network);
        let mut owners = owners.filter_map(|s| self.ports.get(&self.owner(s.id, address)?));
        owners.any(|port| {
            let serves = port.device_owner.starts_with("network:");
            serves || self.places(Some(port)).home.is_some()
        })
    }

    /// Whether a port may say that it has an address, and others are sent to it then.
    pub fn may_have(&self, port: &Port, address: IpAddr) -> bool {
        may_hold(port, address) && !self.is_owned(port.network_id, address)
    }
}
