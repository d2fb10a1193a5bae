//! What metering labels have counted, all hosts together: sums of what counters say. Pure.
//!
//! A counter begins with nothing whenever it is made anew; its readings grow. A sum takes in by how much: it never goes
//! down, and no packet counts twice, whatever is told again, late or not at all.

use hextet_api::agent::{Epoch, Reading};
use hextet_model::neutron::Direction;
use hextet_types::{HostId, MeteringLabelId, RouterId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whose sum it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SumId {
    /// The label.
    pub label: MeteringLabelId,
    /// The router, which may be gone.
    pub router: RouterId,
    /// The host, which may be gone.
    pub host: HostId,
    /// What comes from outside is `ingress`.
    pub direction: Direction,
}

/// So many former starts of a host are known, and what is told of them comes too late.
const MAX_FORMER: usize = 8;

/// What one label has counted at one router on one host, of one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Octets, from the IP header on.
    pub octets: u64,
    /// When it last grew.
    pub updated_at: Timestamp,
    /// The last reading that counts.
    last: Last,
    /// The host's starts before the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    epoch: Epoch,
    at_ns: u64,
    packets: u64,
    octets: u64,
}

impl From<&Reading> for Last {
    fn from(reading: &Reading) -> Last {
        Last {
            epoch: reading.epoch,
            at_ns: reading.at_ns,
            packets: reading.packets,
            octets: reading.octets,
        }
    }
}

impl Sum {
    /// With a first reading.
    pub fn new(reading: &Reading, now: Timestamp) -> Sum {
        Sum {
            packets: reading.packets,
            octets: reading.octets,
            updated_at: now,
            last: reading.into(),
            former: Vec::new(),
        }
    }

    /// Takes a reading in; whether that changes anything worth keeping.
    pub fn take(&mut self, reading: &Reading, now: Timestamp) -> bool {
        let (last, epoch) = (self.last, reading.epoch);
        let is_late = match epoch.boot == last.epoch.boot {
            true => reading.at_ns <= last.at_ns,
            false => self.former.contains(&epoch.boot),
        };
        if is_late {
            return false;
        }
        // One that has gone back was set to nothing by somebody.
        let goes_on =
            epoch == last.epoch && reading.packets >= last.packets && reading.octets >= last.octets;
        let (packets, octets) = match goes_on {
            true => (last.packets, last.octets),
            false => (0, 0),
        };
        let grown = (reading.packets - packets, reading.octets - octets);
        if grown == (0, 0) && epoch == last.epoch && goes_on {
            return false;
        }
        if epoch.boot != last.epoch.boot {
            self.former.truncate(MAX_FORMER - 1);
            self.former.insert(0, last.epoch.boot);
        }
        self.packets = self.packets.saturating_add(grown.0);
        self.octets = self.octets.saturating_add(grown.1);
        self.updated_at = now;
        self.last = reading.into();
        true
    }
}

#[cfg(test)]
mod tests;
