//! A port's Ethernet address: made, checked, changed; one port's alone in its network.

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_model::neutron::Port;
use hextet_types::{Mac, NetworkId};
use rand::Rng;

use crate::{keys, write::Write};

/// What every Ethernet address that we make begins with.
const MAC_BASE: [u8; 3] = [0xfa, 0x16, 0x3e];
/// How often a random Ethernet address may be in use already.
const MAC_ATTEMPTS: usize = 64;

pub fn free_mac(write: &Write<'_>, network: NetworkId, mac: Mac) -> Result<Mac> {
    if mac.is_multicast() {
        return Err(ApiError::invalid_input(format!(
            "'{mac}' is a group address, no port's"
        )));
    }
    if write.state.macs.contains_key(&(network, mac))
        || write.has_claimed(&keys::port(network, mac))
    {
        return Err(ApiError::conflict(
            "MacAddressInUse",
            format!(
                "Unable to complete operation for network {network}. The mac address {mac} is in use."
            ),
        ));
    }
    Ok(mac)
}

pub fn new_mac(write: &Write<'_>, network: NetworkId) -> Result<Mac> {
    let [a, b, c] = MAC_BASE;
    let mut random = rand::rng();
    for _ in 0..MAC_ATTEMPTS {
        let [d, e, f] = random.random::<[u8; 3]>();
        if let Ok(mac) = free_mac(write, network, Mac::new([a, b, c, d, e, f])) {
            return Ok(mac);
        }
    }
    Err(ApiError::new(
        503,
        "MacAddressGenerationFailure",
        format!("Unable to generate unique mac on network {network}."),
    ))
}

/// A `null` makes a new one (`port-mac-address-regenerate`).
pub fn update_mac(write: &Write<'_>, port: &mut Port, input: &Input) -> Result<()> {
    if !input.names("mac_address") {
        return Ok(());
    }
    let mac = match input.get("mac_address")? {
        Some(mac) if mac == port.mac_address => return Ok(()),
        Some(mac) => free_mac(write, port.network_id, mac)?,
        None => new_mac(write, port.network_id)?,
    };
    if port.binding.host_id.is_some() {
        return Err(ApiError::conflict(
            "PortBound",
            format!(
                "Unable to complete operation on port {}, port is already bound, port type: tap, \
             old_mac {}, new_mac {mac}.",
                port.id, port.mac_address
            ),
        ));
    }
    port.mac_address = mac;
    Ok(())
}
