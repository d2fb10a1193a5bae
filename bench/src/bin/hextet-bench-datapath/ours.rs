//! hextet's side: the planner's state for these ports, made by the reconciler.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, ensure};
use hextet_bench::intent::{default_group, resource};
use hextet_kernel::{Config, Kernel, Scope};
use hextet_model::{
    intent::{self, Intent},
    neutron::Port,
    plan::{HostConfig, plan},
};
use hextet_types::{Family, SecurityGroupId};
use serde_json::json;
use uuid::Uuid;

use crate::site::{self, Site};

const NETWORK: Uuid = Uuid::from_u128(1);
const GROUP: Uuid = Uuid::from_u128(2);

/// Makes the host what an agent would make it. By TCX only the ports with traffic get their programs: moving
/// the others, as an agent would in time, changes nothing for those.
///
/// # Errors
///
/// The kernel refuses something.
pub fn apply(site: &Site, ports: &[site::Port], tcx: bool) -> Result<()> {
    let config = HostConfig::new("bench".parse().context("name the host")?);
    let record = tempfile::tempdir().context("make a directory")?;
    let with_traffic = ports.get(..2).context("there are always two ports")?;
    let [two, all] = [with_traffic, ports].map(|ports| anyhow::Ok(plan(&intent(ports)?, &config)));
    let (two, all) = (two?, all?);
    let report = site.host.enter(|| {
        let mut kernel = Kernel::open(Config {
            gateway_mac: config.gateway_mac,
            sysctl_record: record.path().join("sysctls"),
            sysctls: vec!["net/".to_owned()],
            tcx,
        })?;
        kernel.reconcile(&Scope::of(&two.objects))?;
        while kernel.programs_to_move() > 0 {
            kernel.move_program()?;
        }
        kernel.reconcile(&Scope::of(&all.objects))
    })??;
    let failed: Vec<String> = report
        .failed
        .iter()
        .take(3)
        .map(|(op, error)| format!("{op}: {error}"))
        .collect();
    ensure!(
        report.is_complete(),
        "not written: {failed:?}, waiting: {:?}",
        report.waiting.first()
    );
    Ok(())
}

/// All ports on one network, in the group that every project begins with.
fn intent(ports: &[site::Port]) -> Result<Intent> {
    let mut intent = Intent::default();
    let network = json!({
        "id": NETWORK, "admin_state_up": true, "status": "ACTIVE", "shared": false,
        "router:external": false, "mtu": 1500, "port_security_enabled": true,
        "provider:network_type": "routed",
    });
    let network: hextet_model::neutron::Network = resource(network)?;
    intent.networks.insert(network.id, network);
    for family in Family::BOTH {
        let (cidr, gateway) = match family {
            Family::V4 => ("10.8.0.0/16", "10.8.0.1"),
            Family::V6 => ("2001:db8:8::/64", "2001:db8:8::1"),
        };
        let subnet = json!({
            "id": subnet_id(family), "network_id": NETWORK, "cidr": cidr, "gateway_ip": gateway,
            "allocation_pools": [], "enable_dhcp": true,
        });
        let subnet: hextet_model::neutron::Subnet = resource(subnet)?;
        intent.subnets.insert(subnet.id, subnet);
    }
    let addresses = |port: &site::Port| Family::BOTH.map(|family| port.address(family));
    let members: BTreeSet<IpAddr> = ports.iter().flat_map(addresses).collect();
    intent.members.insert(
        (SecurityGroupId(GROUP), intent::RoutingDomain::Routed),
        members,
    );
    let group = default_group(GROUP)?;
    intent.groups.insert(group.group.id, group);
    for described in ports {
        let port = port(described)?;
        intent.ports.insert(port.id, port);
    }
    Ok(intent)
}

fn port(port: &site::Port) -> Result<Port> {
    let fixed_ips = Family::BOTH
        .map(|family| json!({"subnet_id": subnet_id(family), "ip_address": port.address(family)}));
    resource(json!({
        "id": port.id, "network_id": NETWORK, "mac_address": port.mac(), "fixed_ips": fixed_ips,
        "device_owner": "compute:nova", "admin_state_up": true, "status": "ACTIVE",
        "security_groups": [GROUP], "port_security_enabled": true,
    }))
}

fn subnet_id(family: Family) -> Uuid {
    Uuid::from_u128(match family {
        Family::V4 => 4,
        Family::V6 => 6,
    })
}

#[cfg(test)]
mod tests {
    use hextet_model::state::{Key, Netns};

    use super::*;

    #[test]
    fn every_port_may_send_and_be_reached() {
        let ports = site::Port::first(5);
        let intent = intent(&ports).unwrap();
        assert_eq!(intent.ports.len(), 5);
        let config = HostConfig::new("bench".parse().unwrap());
        let state = plan(&intent, &config);
        for port in ports {
            for family in Family::BOTH {
                let (link, address) = (port.link(), port.address(family));
                let source = Key::Source(Netns::Main, link, port.mac(), address);
                assert!(state.objects.contains_key(&source), "{source:?}");
                let bits = if address.is_ipv6() { 128 } else { 32 };
                let reached = state.objects.keys().any(|key| {
                    matches!(key, Key::Route(route)
                        if route.prefix.addr() == address && route.prefix.len() == bits)
                });
                assert!(reached, "no route to {address}");
            }
        }
    }
}
