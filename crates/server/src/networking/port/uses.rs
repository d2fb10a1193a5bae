//! What goes with a port's addresses: associations of floating IPs, port forwardings, NDP proxies.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{FixedIp, Port};

use super::super::{floating_ip, ndp_proxy};
use crate::{keys, write::Write};

/// Takes away what depends on addresses that the port does not keep.
///
/// # Errors
///
/// 409 `FipAssociated`: the floating IP is another project's.
pub fn let_go(write: &mut Write<'_>, port: &Port, keeps: &[FixedIp]) -> Result<()> {
    let state = write.state;
    let kept = |address: IpAddr| keeps.iter().any(|f| f.ip_address == address);
    let lost = |address: Option<IpAddr>| address.is_some_and(|a| !kept(a));
    for row in state.layer3.floating_ips_of(port.id) {
        if !lost(row.value.fixed_ip_address.map(IpAddr::V4)) {
            continue;
        }
        if !write.caller.admin && row.value.standard.project_id != write.caller.project {
            return Err(ApiError::conflict(
                "FipAssociated",
                format!(
                    "Unable to complete the operation on port {} because the port still has an \
                     associated floating IP.",
                    port.id
                ),
            ));
        }
        floating_ip::disassociate(write, row)?;
    }
    let mut emptied = BTreeSet::new();
    for forwarding in state.layer3.forwardings_to(port.id) {
        if lost(Some(forwarding.internal_ip_address.into()))
            && let Some(row) = state.layer3.forwardings.row(&forwarding.id)
        {
            floating_ip::forwarding::remove(write, row);
            emptied.insert(forwarding.floatingip_id);
        }
    }
    for id in emptied {
        floating_ip::forwarding::follow(write, id)?;
    }
    for row in state.layer3.proxies_of(port.id) {
        if lost(Some(row.value.ip_address.into())) {
            ndp_proxy::remove(write, row);
        }
    }
    write.quiet(keys::port_uses(port.id));
    Ok(())
}
