//! Where hosts are reached by tunnels: what each has said, and the number that is its own for ever.
//!
//! All of the cloud's tunnels are of one family. What a host has said in the other one (before the
//! configuration was changed) counts as if it had said nothing.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use hextet_model::intent::TunnelEndpoint;
use hextet_types::{Family, HostId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ranges::Ranges,
    table::{Row, Table},
};

/// Numbers of hosts go up to it: they are three octets of an Ethernet address.
const MAX_NUMBER: u32 = (1 << 24) - 1;

/// A host's part in tunnels. Stays when its agent is deleted, so that nobody else gets its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRecord {
    /// Its own for ever; 1 to 2^24 - 1.
    pub number: u32,
    /// The underlay's address that its agent has said last; none when that takes no part.
    pub address: Option<IpAddr>,
}

/// All hosts' parts in tunnels.
#[derive(Debug)]
pub struct Tunnels {
    family: Family,
    records: Table<HostId, TunnelRecord>,
    numbers: Ranges,
    hosts: HashMap<IpAddr, HostId>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Tunnels::of(Family::V6)
    }
}

impl Tunnels {
    /// None yet, of that family.
    pub fn of(family: Family) -> Tunnels {
        Tunnels {
            family,
            records: Table::default(),
            numbers: Ranges::default(),
            hosts: HashMap::new(),
        }
    }

    /// The family of all of them.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What is stored of a host.
    pub fn row(&self, host: &HostId) -> Option<&Row<TunnelRecord>> {
        self.records.row(host)
    }

    /// Where a host is reached, if it is.
    pub fn endpoint(&self, host: &HostId) -> Option<TunnelEndpoint> {
        self.endpoint_of(self.records.get(host)?)
    }

    /// Where a host with that record is reached, if it is.
    pub fn endpoint_of(&self, record: &TunnelRecord) -> Option<TunnelEndpoint> {
        let address = record.address.filter(|a| Family::of(*a) == self.family)?;
        (1..=MAX_NUMBER)
            .contains(&record.number)
            .then_some(TunnelEndpoint {
                number: record.number,
                address,
            })
    }

    /// The host that has an address.
    pub fn host_at(&self, address: IpAddr) -> Option<&HostId> {
        self.hosts.get(&address)
    }

    /// A number that no host has. Where the search begins follows from the name, so that many hosts that
    /// come at once do not all want the same.
    pub fn free_number(&self, host: &HostId) -> Option<u32> {
        let digest = Sha256::digest(host.as_str());
        let [a, b, c, ..] = *digest.as_slice() else {
            return None;
        };
        let start = u128::from(u32::from_be_bytes([0, a, b, c])).max(1);
        let behind = self.numbers.free_from(start, MAX_NUMBER.into());
        let free = behind.or_else(|| self.numbers.free_from(1, start));
        free.and_then(|n| u32::try_from(n).ok())
    }

    /// Puts a record or, with none, takes it away.
    pub fn set(&mut self, host: HostId, row: Option<Row<TunnelRecord>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        if let Some(old) = self.records.set(host.clone(), row) {
            self.numbers.remove(old.number.into());
            if let Some(address) = old.address {
                self.hosts.remove(&address);
            }
        }
        if let Some(new) = new {
            self.numbers.insert(new.number.into());
            if let Some(address) = new.address {
                self.hosts.insert(address, host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32, address: &str) -> Option<Row<TunnelRecord>> {
        let address = Some(address.parse().unwrap());
        Some(Row {
            value: Arc::new(TunnelRecord { number, address }),
            mod_revision: 1,
        })
    }

    #[test]
    fn numbers_run_out_only_when_each_is_taken() {
        let mut tunnels = Tunnels::default();
        let host: HostId = "h1".parse().unwrap();
        let first = tunnels.free_number(&host).unwrap();
        assert_eq!(tunnels.free_number(&host), Some(first));
        tunnels.set("h2".parse().unwrap(), row(first, "::2"));
        assert_eq!(tunnels.free_number(&host), Some(first + 1));
        for number in first..=MAX_NUMBER {
            tunnels.numbers.insert(number.into());
        }
        assert_eq!(tunnels.free_number(&host), Some(1), "from the beginning");
        for number in 1..first - 1 {
            tunnels.numbers.insert(number.into());
        }
        assert_eq!(tunnels.free_number(&host), Some(first - 1), "the last one");
        tunnels.numbers.insert(u128::from(first) - 1);
        assert_eq!(tunnels.free_number(&host), None);
    }

    #[test]
    fn an_address_of_the_other_family_does_not_count() {
        let host: HostId = "h1".parse().unwrap();
        for (family, counts) in [(Family::V6, false), (Family::V4, true)] {
            let mut tunnels = Tunnels::of(family);
            tunnels.set(host.clone(), row(7, "192.0.2.1"));
            assert_eq!(tunnels.endpoint(&host).is_some(), counts);
            for number in [0, MAX_NUMBER + 1] {
                tunnels.set(host.clone(), row(number, "192.0.2.1"));
                assert_eq!(tunnels.endpoint(&host), None, "no number: {number}");
            }
            tunnels.set(host.clone(), None);
            assert_eq!(tunnels.endpoint(&host), None);
        }
    }
}
