//! How addresses are cut: lengths, and parts for communities. All registries of a network have the same plan, that of the one that holds the root
//! key, so that the halves of one never meet those of another.

use std::collections::BTreeMap;

use hextet_mesh::{allocator::Share, label::Label, parameters::Parameters, token::Pin};
use hextet_types::Prefix;
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    error::{RegistryError, Result},
};

/// The plan, as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Bits of a node's IPv6 prefix.
    pub prefix_len: u8,
    /// Bits of a node's IPv4 prefix.
    pub ipv4_len: u8,
    /// Parts of the IPv6 prefix.
    pub communities: BTreeMap<String, Prefix>,
}

impl Plan {
    /// As a configuration says, or what holds without it.
    pub fn of(config: &Config) -> Plan {
        Plan {
            prefix_len: config.prefix_len.unwrap_or(64),
            ipv4_len: config.ipv4_len.unwrap_or(32),
            communities: config.communities.clone(),
        }
    }

    /// Labels and their prefixes.
    ///
    /// # Errors
    ///
    /// A name is no label.
    pub fn communities(&self) -> Result<Vec<(Label, Prefix)>> {
        let pair = |(name, prefix): (&String, &Prefix)| {
            let label = name.parse::<Label>();
            let label = label.map_err(|e| RegistryError::Setup(format!("`communities`: {e}")))?;
            Ok((label, *prefix))
        };
        self.communities.iter().map(pair).collect()
    }
}

/// Which half a registry gives from. It follows from the parameters, so that no two ever differ about it.
pub fn share(parameters: &Parameters, of: Pin) -> Share {
    let mut pins: Vec<Pin> = parameters.registries.iter().map(|r| r.pin).collect();
    pins.sort();
    match (pins.len(), pins.first() == Some(&of)) {
        (..=1, _) => Share::Whole,
        (_, true) => Share::Lower,
        (_, false) => Share::Upper,
    }
}
