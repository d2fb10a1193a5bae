//! hextet's side: the planner's state for these ports, made by the reconciler.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result, ensure};
use hextet_kernel::{Config, Kernel, Scope};
use hextet_model::{
    intent::{Group, Intent},
    neutron::{
        Binding, Direction, FixedIp, Network, NetworkType, Port, SecurityGroup, SecurityGroupRule,
        Standard, Status, Subnet,
    },
    plan::{HostConfig, plan},
};
use hextet_types::{Family, NetworkId, ProjectId, SecurityGroupId, SecurityGroupRuleId, SubnetId};
use jiff::Timestamp;
use uuid::Uuid;

use crate::site::{self, Site};

const NETWORK: NetworkId = NetworkId(Uuid::from_u128(1));
const GROUP: SecurityGroupId = SecurityGroupId(Uuid::from_u128(2));

/// Makes the host what an agent would make it.
///
/// # Errors
///
/// The kernel refuses something.
pub fn apply(site: &Site, ports: &[site::Port]) -> Result<()> {
    let intent = intent(ports)?;
    let config = HostConfig::new("bench".parse().context("name the host")?);
    let state = plan(&intent, &config);
    let record = tempfile::tempdir().context("make a directory")?;
    let report = site.host.enter(|| {
        let mut kernel = Kernel::open(Config {
            gateway_mac: config.gateway_mac,
            sysctl_record: record.path().join("sysctls"),
            sysctls: vec!["net/".to_owned()],
        })?;
        kernel.reconcile(&Scope::of(&state.objects))
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
    intent.networks.insert(NETWORK, network());
    for family in Family::BOTH {
        let subnet = subnet(family)?;
        intent.subnets.insert(subnet.id, subnet);
    }
    let members: BTreeSet<IpAddr> = ports
        .iter()
        .flat_map(|p| Family::BOTH.map(|family| p.address(family)))
        .collect();
    intent.members.insert(GROUP, members);
    intent.groups.insert(GROUP, default_group());
    let described = ports.iter().map(|p| (p.id, port(p)));
    intent.ports.extend(described);
    Ok(intent)
}

fn port(port: &site::Port) -> Port {
    let fixed_ip = |family| FixedIp {
        subnet_id: subnet_id(family),
        ip_address: port.address(family),
    };
    Port {
        id: port.id,
        standard: standard(),
        network_id: NETWORK,
        mac_address: port.mac(),
        fixed_ips: Family::BOTH.map(fixed_ip).to_vec(),
        device_id: String::new(),
        device_owner: "compute:nova".to_owned(),
        admin_state_up: true,
        status: Status::Active,
        security_groups: vec![GROUP],
        port_security_enabled: true,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        dns_name: String::new(),
        binding: Binding::default(),
    }
}

/// Out: everything. In: what comes from the group itself.
fn default_group() -> Group {
    let mut rules = BTreeMap::new();
    for (n, (direction, family)) in [
        (Direction::Egress, Family::V4),
        (Direction::Egress, Family::V6),
        (Direction::Ingress, Family::V4),
        (Direction::Ingress, Family::V6),
    ]
    .into_iter()
    .enumerate()
    {
        let id = SecurityGroupRuleId(Uuid::from_u128(0x100 + n as u128));
        let rule = SecurityGroupRule {
            id,
            security_group_id: GROUP,
            project_id: project(),
            description: String::new(),
            direction,
            ethertype: family,
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: (direction == Direction::Ingress).then_some(GROUP),
            revision_number: 0,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        rules.insert(id, rule);
    }
    let group = SecurityGroup {
        id: GROUP,
        standard: standard(),
        stateful: true,
        shared: false,
    };
    Group { group, rules }
}

fn network() -> Network {
    Network {
        id: NETWORK,
        standard: standard(),
        admin_state_up: true,
        status: Status::Active,
        shared: false,
        external: false,
        is_default: false,
        mtu: 1500,
        port_security_enabled: true,
        network_type: NetworkType::Routed,
        physical_network: None,
        segmentation_id: None,
        dns_domain: String::new(),
        single_homed: false,
    }
}

fn subnet_id(family: Family) -> SubnetId {
    SubnetId(Uuid::from_u128(match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }))
}

fn subnet(family: Family) -> Result<Subnet> {
    let (cidr, gateway) = match family {
        Family::V4 => ("10.8.0.0/16", "10.8.0.1"),
        Family::V6 => ("2001:db8:8::/64", "2001:db8:8::1"),
    };
    Ok(Subnet {
        id: subnet_id(family),
        standard: standard(),
        network_id: NETWORK,
        cidr: cidr.parse().context("a prefix")?,
        gateway_ip: Some(gateway.parse().context("an address")?),
        allocation_pools: Vec::new(),
        enable_dhcp: true,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        nat44: None,
    })
}

fn project() -> ProjectId {
    ProjectId("bench".to_owned())
}

fn standard() -> Standard {
    Standard {
        project_id: project(),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}
