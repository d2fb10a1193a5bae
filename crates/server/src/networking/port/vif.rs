//! How a port is plugged on its host (`binding:vif_*`), as Nova asks.

use hextet_model::neutron::Port;
use hextet_types::{HostId, Mac};
use serde_json::{Value, json};

use crate::state::State;

/// The Ethernet address of a host's end of its ports (`HostConfig::gateway_mac`), until its agent has told.
const GATEWAY_MAC: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 1]);

/// How a port is plugged.
pub enum Plug {
    /// Nowhere.
    Unbound,
    /// The host does not take it: it is of a private network, and the host has no tunnels.
    Failed,
    /// By a TAP.
    Tap {
        /// The Ethernet address of the host's end.
        gateway: Mac,
    },
}

impl Plug {
    /// Where a port is bound.
    pub fn of(port: &Port, state: &State) -> Plug {
        match &port.binding.host_id {
            Some(host) => Plug::on(host, port, state),
            None => Plug::Unbound,
        }
    }

    /// On a host that it is bound to, or prepared for.
    pub fn on(host: &HostId, port: &Port, state: &State) -> Plug {
        if !state.takes(host, port.network_id) {
            return Plug::Failed;
        }
        let host = state.hosts.get(host);
        let gateway = host.and_then(|h| h.gateway_mac).unwrap_or(GATEWAY_MAC);
        Plug::Tap { gateway }
    }

    pub fn vif_type(&self) -> &'static str {
        match self {
            Plug::Unbound => "unbound",
            Plug::Failed => "binding_failed",
            Plug::Tap { .. } => "tap",
        }
    }

    /// What Nova makes a TAP by: its `mac_address` is that of the TAP, which is the host's end.
    pub fn vif_details(&self) -> Value {
        match self {
            Plug::Tap { gateway } => json!({
                "port_filter": true,
                "connectivity": "l3",
                "mac_address": gateway,
                "bound_drivers": {"0": "hextet"},
            }),
            _ => json!({}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_one_that_hosts_have_by_default() {
        let host = "h1".parse().unwrap();
        let config = hextet_model::plan::HostConfig::new(host);
        assert_eq!(config.gateway_mac, GATEWAY_MAC);
    }
}
