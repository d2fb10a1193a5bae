//! The cloud in memory, with its indexes.
//!
//! One way in: [`State::apply`] takes what the store says has changed, whether that was read at
//! start, written by this server, or written by another. So the state is always what a fresh start
//! would make. Nothing here writes to the store.

pub mod bindings;
pub mod grants;
pub mod groups;
pub mod holders;
pub mod hosts;
pub mod joins;
pub mod layer3;
pub mod metering;
pub mod notices;
pub mod prefixes;
pub mod qos;
pub mod ranges;
pub mod space;
pub mod table;
pub mod tunnels;
pub mod watches;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::intent::RoutingDomain;
use hextet_model::neutron::{
    AddressGroup, AddressScope, DelegatedPrefix, Network, Port, RbacPolicy, SecurityGroup,
    SecurityGroupRule, Subnet, SubnetPool,
};
use hextet_store::{Event, KeyValue};
use hextet_types::{
    AddressGroupId, AddressScopeId, HostId, Mac, NetworkId, PortId, ProjectId, RbacPolicyId,
    SecurityGroupId, SecurityGroupRuleId, SubnetId, SubnetPoolId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use self::{
    bindings::Bindings,
    grants::Grants,
    holders::Holders,
    hosts::HostViews,
    joins::Joins,
    layer3::Layer3,
    metering::Metering,
    notices::Notice,
    qos::Qos,
    ranges::{Ranges, number, prefix_number},
    space::PoolSpace,
    table::{Counts, Index, Row, Table},
    tunnels::Tunnels,
};
use crate::{
    identity::directory::Directory,
    keys::{self, Key},
};

/// The name of the group that a project gets with its first port.
pub const DEFAULT_GROUP: &str = "default";
/// The owner of ports whose addresses are a host's NAT44 sources; `device_id` names the subnet.
pub const NAT44_OWNER: &str = "network:nat44";

/// Limits of a project that differ from the defaults, by quota.
pub type Limits = BTreeMap<String, i64>;

/// A host that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// The agent's identifier; every certificate carries it, so that deleting the record takes the
    /// power of all of them.
    pub id: Uuid,
    /// Its name.
    pub host: HostId,
    /// When it joined.
    pub created_at: Timestamp,
    /// What an administrator wrote.
    #[serde(default)]
    pub description: String,
    /// Without it no router translates for others there.
    pub admin_state_up: bool,
    /// The Ethernet address of its end of ports, once its agent has told.
    #[serde(default)]
    pub gateway_mac: Option<Mac>,
    /// Whether routers may translate for others there.
    #[serde(default = "willing")]
    pub gateway: bool,
    /// The physical networks that it is on, once its agent has told.
    #[serde(default)]
    pub physical_networks: BTreeSet<String>,
}

const fn willing() -> bool {
    true
}

/// A token with which one host may join once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// SHA-256 of its secret.
    pub secret: String,
    /// Only for this host, which may have joined before; else for any that has not.
    pub host: Option<HostId>,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A subnet's addresses that are in use; of one for delegation, its prefixes ([`prefix_number`]), by their first addresses.
#[derive(Debug, Default)]
pub struct SubnetAddresses {
    /// As ranges, for finding a free one.
    pub ranges: Ranges,
    /// By whom.
    pub owners: BTreeMap<IpAddr, PortId>,
}

/// The cloud.
#[derive(Debug, Default)]
pub struct State {
    /// The store's revision that all of it is of.
    pub revision: u64,
    /// Networks.
    pub networks: Table<NetworkId, Network>,
    /// Subnets.
    pub subnets: Table<SubnetId, Subnet>,
    /// Ports.
    pub ports: Table<PortId, Port>,
    /// Their bindings beside the active ones.
    pub bindings: Bindings,
    /// Who has the addresses that several of them may use.
    pub holders: Holders,
    /// What multicast groups ports have joined.
    pub joins: Joins,
    /// Security groups.
    pub groups: Table<SecurityGroupId, SecurityGroup>,
    /// Their rules.
    pub rules: Table<SecurityGroupRuleId, SecurityGroupRule>,
    /// Subnet pools.
    pub pools: Table<SubnetPoolId, SubnetPool>,
    /// Address scopes.
    pub scopes: Table<AddressScopeId, AddressScope>,
    /// Address groups.
    pub address_groups: Table<AddressGroupId, AddressGroup>,
    /// Rules that name an address group.
    pub rules_by_address_group: Index<AddressGroupId, SecurityGroupRuleId>,
    /// RBAC policies.
    pub policies: Table<RbacPolicyId, RbacPolicy>,
    /// What they allow whom.
    pub grants: Grants,
    /// What of each pool is free.
    pub spaces: HashMap<SubnetPoolId, PoolSpace>,
    /// Pools in a scope.
    pub pools_by_scope: Index<AddressScopeId, SubnetPoolId>,
    /// Routers, floating IPs and what belongs to them.
    pub layer3: Layer3,
    /// QoS policies, and what has them.
    pub qos: Qos,
    /// What is counted of routers' traffic.
    pub metering: Metering,
    /// Limits that differ from the defaults.
    pub quotas: Table<ProjectId, Limits>,
    /// Hosts that have joined.
    pub hosts: Table<HostId, HostRecord>,
    /// Where they are reached by tunnels.
    pub tunnels: Tunnels,
    /// Who watches whose kernel.
    pub watches: watches::Watches,
    /// VXLAN segments that networks, and routers with gateways, have.
    pub segments: Ranges,
    /// Tokens with which hosts may join.
    pub join_tokens: Table<String, JoinToken>,
    /// Grows whenever hosts, subnets with NAT44 or NAT44 sources change.
    pub nat44_changes: u64,
    /// Grows whenever routers, hosts or where routers translate change.
    pub gateway_changes: u64,
    /// The identity service.
    pub identity: Directory,
    /// What each host is told.
    pub views: HostViews,
    /// What has happened to ports.
    pub(crate) notices: Vec<Notice>,
    /// A network's subnets.
    pub subnets_by_network: Index<NetworkId, SubnetId>,
    /// A network's ports.
    pub ports_by_network: Index<NetworkId, PortId>,
    /// An instance's ports.
    pub ports_by_device: Index<String, PortId>,
    /// A project's ports.
    pub ports_by_project: Index<ProjectId, PortId>,
    /// Ports that have a group.
    pub ports_by_group: Index<SecurityGroupId, PortId>,
    /// A group's rules.
    pub rules_by_group: Index<SecurityGroupId, SecurityGroupRuleId>,
    /// Rules that name a group as remote.
    pub rules_by_remote: Index<SecurityGroupId, SecurityGroupRuleId>,
    /// A project's groups.
    pub groups_by_project: Index<ProjectId, SecurityGroupId>,
    /// A project's default group.
    pub default_groups: HashMap<ProjectId, SecurityGroupId>,
    /// Who has an Ethernet address on a network.
    pub macs: HashMap<(NetworkId, Mac), PortId>,
    /// Addresses in use.
    pub addresses: HashMap<SubnetId, SubnetAddresses>,
    /// How many addresses of a subnet a project has.
    pub project_addresses: Counts<ProjectId, SubnetId>,
    /// How many of each resource a project has.
    pub usage: Counts<ProjectId, &'static str>,
}

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the store's entry '{key}' cannot be understood: {source}")]
pub struct Corrupt {
    key: String,
    source: serde_json::Error,
}

impl Corrupt {
    /// What is stored there belongs under another key.
    fn of_another(key: &[u8]) -> Corrupt {
        Corrupt {
            key: key.escape_ascii().to_string(),
            source: serde::de::Error::custom("it is of another network or MAC address"),
        }
    }
}

fn decode<T: DeserializeOwned>(kv: &KeyValue) -> Result<Row<T>, Corrupt> {
    let value = serde_json::from_slice(&kv.value).map_err(|source| Corrupt {
        key: kv.key.escape_ascii().to_string(),
        source,
    })?;
    Ok(Row {
        value: Arc::new(value),
        mod_revision: kv.mod_revision,
    })
}

pub(crate) fn decode_if<T: DeserializeOwned>(
    kv: Option<&KeyValue>,
) -> Result<Option<Row<T>>, Corrupt> {
    kv.map(decode).transpose()
}

impl State {
    /// Takes in one change. Keys that are no thing of the cloud change nothing.
    ///
    /// # Errors
    ///
    /// What is stored cannot be read; then nothing has changed.
    pub fn apply(&mut self, event: &Event) -> Result<(), Corrupt> {
        let Some(key) = Key::parse(event.key()) else {
            return Ok(());
        };
        let kv = match event {
            Event::Put(kv) => Some(kv),
            Event::Delete { .. } => None,
        };
        match key {
            Key::Network(id) => self.set_network(id, decode_if(kv)?),
            Key::Subnet(id) => self.set_subnet(id, decode_if(kv)?),
            Key::Port(network, mac) => {
                let row: Option<Row<Port>> = decode_if(kv)?;
                let said = row
                    .as_ref()
                    .map(|r| (r.value.network_id, r.value.mac_address));
                if said.is_some_and(|said| said != (network, mac)) {
                    return Err(Corrupt::of_another(event.key()));
                }
                self.set_port((network, mac), row);
            }
            Key::Binding(port, host) => self.set_binding(port, host, decode_if(kv)?),
            Key::Holder(network, addr) => self.set_holder(network, addr, decode_if(kv)?),
            Key::Joined(port) => self.set_joined(port, decode_if(kv)?),
            Key::Group(id) => self.set_group(id, decode_if(kv)?),
            Key::Rule(id) => self.set_rule(id, decode_if(kv)?),
            Key::SubnetPool(id) => self.set_pool(id, decode_if(kv)?),
            Key::AddressScope(id) => drop(self.scopes.set(id, decode_if(kv)?)),
            Key::AddressGroup(id) => self.set_address_group(id, decode_if(kv)?),
            Key::RbacPolicy(id) => self.set_policy(id, decode_if(kv)?),
            Key::Router(id) => self.set_router(id, decode_if(kv)?),
            Key::Gateway(id) => self.set_gateway(id, decode_if(kv)?),
            Key::FloatingIp(id) => self.set_floating_ip(id, decode_if(kv)?),
            Key::PortForwarding(id) => self.set_forwarding(id, decode_if(kv)?),
            Key::NdpProxy(id) => self.set_proxy(id, decode_if(kv)?),
            Key::QosPolicy(id) => self.set_qos_policy(id, decode_if(kv)?),
            Key::MeteringLabel(id) => self.set_metering_label(id, decode_if(kv)?),
            Key::MeteringRule(id) => self.set_metering_rule(id, decode_if(kv)?),
            Key::Metered(id) => drop(self.metering.sums.set(id, decode_if(kv)?)),
            Key::Quota(project) => drop(self.quotas.set(project, decode_if(kv)?)),
            Key::Host(host) => {
                self.set_host(&host, decode_if(kv)?);
                self.view_watches(&host);
                self.nat44_changes += 1;
                self.gateway_changes += 1;
            }
            Key::Tunnel(host) => {
                self.set_tunnel(&host, decode_if(kv)?);
                self.view_watches(&host);
                self.gateway_changes += 1;
            }
            Key::JoinToken(id) => drop(self.join_tokens.set(id, decode_if(kv)?)),
            Key::Identity(table, id) => self.identity.set(table, id, kv)?,
        }
        Ok(())
    }

    fn count(&mut self, project: &ProjectId, what: &'static str, there: bool) {
        if there {
            self.usage.up(project.clone(), what);
        } else {
            self.usage.down(project, &what);
        }
    }

    fn set_network(&mut self, id: NetworkId, row: Option<Row<Network>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        if let Some(old) = self.networks.get(&id).cloned() {
            self.count(&old.standard.project_id, "network", false);
            self.qos.network(&old, false);
            if let Some(vni) = old.segmentation_id {
                self.segments.remove(vni.into());
            }
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "network", true);
            self.qos.network(new, true);
            if let Some(vni) = new.segmentation_id {
                self.segments.insert(vni.into());
            }
        }
        let told = new.clone();
        self.on_physical_network(id, new.as_deref(), |state| {
            state.view_network(id, told, |state| drop(state.networks.set(id, row)));
        });
    }

    fn set_subnet(&mut self, id: SubnetId, row: Option<Row<Subnet>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.subnets.set(id, row);
        if let Some(old) = &old {
            self.subnets_by_network.remove(&old.network_id, &id);
            if let Some(pool) = old.subnetpool_id {
                self.change_space(pool, |space| space.give_back(id));
            }
            self.count(&old.standard.project_id, "subnet", false);
        }
        if let Some(new) = &new {
            self.subnets_by_network.insert(new.network_id, id);
            if let Some(pool) = new.subnetpool_id {
                self.change_space(pool, |space| space.take(new));
            }
            self.count(&new.standard.project_id, "subnet", true);
        }
        if [&old, &new]
            .into_iter()
            .flatten()
            .any(|s| s.nat44.is_some())
        {
            self.nat44_changes += 1;
        }
        self.view_subnet(old.as_ref(), new.as_ref());
        for subnet in [old, new].into_iter().flatten() {
            self.view_routers_at(subnet.network_id);
            self.view_holders(subnet.network_id);
        }
    }

    fn set_pool(&mut self, id: SubnetPoolId, row: Option<Row<SubnetPool>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.pools.set(id, row);
        if let Some(old) = &old {
            self.count(&old.standard.project_id, "subnetpool", false);
            if let Some(scope) = old.address_scope_id {
                self.pools_by_scope.remove(&scope, &id);
            }
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "subnetpool", true);
            if let Some(scope) = new.address_scope_id {
                self.pools_by_scope.insert(scope, id);
            }
        }
        self.change_space(id, |space| space.set_pool(new.as_deref()));
        let scope = |pool: &Option<Arc<SubnetPool>>| {
            let pool = pool.as_ref()?;
            Some((pool.address_scope_id, pool.made_by_admin))
        };
        if scope(&old) != scope(&new) {
            self.view_scope_of(id);
        }
    }

    fn change_space(&mut self, pool: SubnetPoolId, change: impl FnOnce(&mut PoolSpace)) {
        let space = self.spaces.entry(pool).or_default();
        change(space);
        if space.is_empty() {
            self.spaces.remove(&pool);
        }
    }

    fn set_policy(&mut self, id: RbacPolicyId, row: Option<Row<RbacPolicy>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.policies.set(id, row);
        if let Some(old) = &old {
            self.count(&old.project_id, "rbac_policy", false);
            self.grants.remove(old);
        }
        if let Some(new) = &new {
            self.count(&new.project_id, "rbac_policy", true);
            self.grants.insert(new);
        }
    }

    /// The port of that key. A key that is deleted because the port has moved to another Ethernet
    /// address is nobody's any more.
    fn set_port(&mut self, key: (NetworkId, Mac), row: Option<Row<Port>>) {
        let id = match &row {
            Some(row) => row.value.id,
            None => match self.macs.get(&key) {
                Some(id) => *id,
                None => return,
            },
        };
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.ports.set(id, row);
        if let Some(old) = &old {
            self.index_port(old, false);
        }
        if let Some(new) = &new {
            self.index_port(new, true);
        }
        if [&old, &new]
            .into_iter()
            .flatten()
            .any(|p| p.device_owner == NAT44_OWNER)
        {
            self.nat44_changes += 1;
        }
        self.notice_port(old.as_ref(), new.as_ref());
        self.view_port(old.as_ref(), new.as_ref());
        self.view_router_ports(old.as_deref(), new.as_deref());
        self.view_floating_ips_of(id);
    }

    /// Prefixes are in use by their numbers.
    fn index_delegated(&mut self, id: PortId, delegated: DelegatedPrefix, there: bool) {
        let DelegatedPrefix { subnet_id, prefix } = delegated;
        let taken = self.addresses.entry(subnet_id).or_default();
        if there {
            taken.ranges.insert(prefix_number(prefix));
            taken.owners.insert(prefix.addr(), id);
        } else {
            taken.ranges.remove(prefix_number(prefix));
            taken.owners.remove(&prefix.addr());
            if taken.owners.is_empty() {
                self.addresses.remove(&subnet_id);
            }
        }
    }

    fn index_port(&mut self, port: &Port, there: bool) {
        let id = port.id;
        let project = port.standard.project_id.clone();
        let mac = (port.network_id, port.mac_address);
        self.count(&project, "port", there);
        for fixed in &port.fixed_ips {
            let addresses = self.addresses.entry(fixed.subnet_id).or_default();
            if there {
                addresses.ranges.insert(number(fixed.ip_address));
                addresses.owners.insert(fixed.ip_address, id);
                self.project_addresses.up(project.clone(), fixed.subnet_id);
            } else {
                addresses.ranges.remove(number(fixed.ip_address));
                addresses.owners.remove(&fixed.ip_address);
                if addresses.owners.is_empty() {
                    self.addresses.remove(&fixed.subnet_id);
                }
                self.project_addresses.down(&project, &fixed.subnet_id);
            }
        }
        for delegated in &port.delegated_prefixes {
            self.index_delegated(id, *delegated, there);
        }
        if there {
            self.macs.insert(mac, id);
            self.ports_by_network.insert(port.network_id, id);
            self.ports_by_project.insert(project, id);
            if !port.device_id.is_empty() {
                self.ports_by_device.insert(port.device_id.clone(), id);
            }
        } else {
            self.macs.remove(&mac);
            self.ports_by_network.remove(&port.network_id, &id);
            self.ports_by_project.remove(&project, &id);
            self.ports_by_device.remove(&port.device_id, &id);
        }
        self.layer3.index_port(port, there);
        self.qos.port(port, there);
        for group in &port.security_groups {
            if there {
                self.ports_by_group.insert(*group, id);
            } else {
                self.ports_by_group.remove(group, &id);
            }
        }
    }

    /// A network's subnets, in the order of their identifiers.
    pub fn subnets_of(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Subnet>> {
        let ids = self.subnets_by_network.get(&network);
        ids.filter_map(|id| self.subnets.get(id))
    }

    /// Who has an address of a subnet.
    pub fn owner(&self, subnet: SubnetId, address: IpAddr) -> Option<PortId> {
        self.addresses.get(&subnet)?.owners.get(&address).copied()
    }

    /// How many of a quota's things a project has.
    pub fn used(&self, project: &ProjectId, quota: &str) -> i64 {
        let count = if quota == hextet_api::resources::PUBLIC_IPV4.name {
            let theirs = self.project_addresses.of(project);
            theirs
                .filter(|(subnet, _)| self.is_public_ipv4(**subnet))
                .map(|(_, n)| n)
                .sum()
        } else {
            let found = self.usage.of(project).find(|(what, _)| **what == quota);
            found.map_or(0, |(_, n)| n)
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// How many of a quota's things a project may have; -1 for any number.
    pub fn limit(&self, project: &ProjectId, quota: hextet_api::describe::Quota) -> i64 {
        let theirs = self.quotas.get(project).and_then(|l| l.get(quota.name));
        theirs.copied().unwrap_or(quota.default)
    }

    /// Whether addresses of the subnet count against the quota `public_ipv4`.
    pub fn is_public_ipv4(&self, subnet: SubnetId) -> bool {
        self.subnets.get(&subnet).is_some_and(|s| {
            let shared = self.networks.get(&s.network_id).is_some_and(|n| n.shared)
                || self.grants.is_shared(s.network_id.0);
            let routed = self.domain_of(s.network_id) == RoutingDomain::Routed;
            shared && routed && s.nat44.is_none() && s.family() == hextet_types::Family::V4
        })
    }

    /// Among whom addresses of the network are its ports' own.
    pub fn domain_of(&self, network: NetworkId) -> RoutingDomain {
        RoutingDomain::of(self.networks.get(&network).map(AsRef::as_ref))
    }

    /// The store key of a port.
    pub fn port_key(port: &Port) -> bytes::Bytes {
        keys::port(port.network_id, port.mac_address)
    }
}
