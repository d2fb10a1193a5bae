//! How a port is plugged on its host (`binding:vif_*`), as Nova asks.

use hextet_model::neutron::Port;
use hextet_types::Mac;
use serde_json::{Value, json};

/// The Ethernet address of a host's end of its ports (`HostConfig::gateway_mac`), until its agent has told.
pub(super) const GATEWAY_MAC: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 1]);

pub(super) fn vif_type(port: &Port) -> &'static str {
    if port.binding.host_id.is_some() {
        "tap"
    } else {
        "unbound"
    }
}

/// What Nova makes a TAP by: its `mac_address` is that of the TAP, which is the host's end.
pub(super) fn vif_details(gateway: Option<Mac>) -> Value {
    match gateway {
        Some(mac) => json!({
            "port_filter": true,
            "connectivity": "l3",
            "mac_address": mac,
            "bound_drivers": {"0": "hextet"},
        }),
        None => json!({}),
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
