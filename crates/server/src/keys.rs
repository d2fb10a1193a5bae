//! The store's keys: where each thing is kept, and which keys stand for a claim.
//!
//! A *claim* is a key that must not exist when it is made, so that two writers can never both have
//! what it stands for: an address of a subnet, an instance's place on the single-homed networks, a
//! project's default group, a name. A port's own key is the claim of its Ethernet address.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::Bytes;
use hextet_model::neutron::{Direction, RbacAction};
use hextet_types::{
    AddressGroupId, AddressScopeId, Family, FloatingIpId, HostId, Mac, MeteringLabelId,
    MeteringRuleId, NdpProxyId, NetworkId, PortForwardingId, PortId, ProjectId, QosPolicyId,
    RbacPolicyId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId, SubnetPoolId,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::metered::SumId;

/// What a key of a thing (not of a claim) names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A network.
    Network(NetworkId),
    /// A subnet.
    Subnet(SubnetId),
    /// A port, by its network and Ethernet address.
    Port(NetworkId, Mac),
    /// A port's binding on a host, beside the active one.
    Binding(PortId, HostId),
    /// Who has an address of a network that several may use.
    Holder(NetworkId, IpAddr),
    /// What multicast groups a port has joined.
    Joined(PortId),
    /// A security group.
    Group(SecurityGroupId),
    /// A rule of a security group.
    Rule(SecurityGroupRuleId),
    /// A subnet pool.
    SubnetPool(SubnetPoolId),
    /// An address scope.
    AddressScope(AddressScopeId),
    /// An address group.
    AddressGroup(AddressGroupId),
    /// An RBAC policy.
    RbacPolicy(RbacPolicyId),
    /// A router.
    Router(RouterId),
    /// Where a router translates.
    Gateway(RouterId),
    /// A floating IP.
    FloatingIp(FloatingIpId),
    /// A port forwarding.
    PortForwarding(PortForwardingId),
    /// An NDP proxy.
    NdpProxy(NdpProxyId),
    /// A QoS policy.
    QosPolicy(QosPolicyId),
    /// A metering label.
    MeteringLabel(MeteringLabelId),
    /// A rule of a metering label.
    MeteringRule(MeteringRuleId),
    /// What a metering label has counted.
    Metered(SumId),
    /// Limits of a project that differ from the defaults.
    Quota(ProjectId),
    /// A host that has joined.
    Host(HostId),
    /// A host's part in tunnels.
    Tunnel(HostId),
    /// A token with which a host may join, by its identifier.
    JoinToken(String),
    /// Something of the identity service: its table, and its identifier.
    Identity(IdentityTable, String),
}

/// The identity service's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityTable {
    /// Domains.
    Domain,
    /// Projects.
    Project,
    /// Users.
    User,
    /// Roles.
    Role,
    /// Who has which role where.
    Assignment,
    /// Application credentials.
    Credential,
    /// Tokens, by their hash.
    Token,
}

impl IdentityTable {
    const ALL: [(IdentityTable, &'static str); 7] = [
        (IdentityTable::Domain, "domain"),
        (IdentityTable::Project, "project"),
        (IdentityTable::User, "user"),
        (IdentityTable::Role, "role"),
        (IdentityTable::Assignment, "assignment"),
        (IdentityTable::Credential, "credential"),
        (IdentityTable::Token, "token"),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(table, _)| *table == self);
        found.map_or("", |(_, name)| name)
    }
}

impl Key {
    /// The thing that a key names; none for claims.
    pub fn parse(key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix('/')?;
        let (table, rest) = key.split_once('/')?;
        let last = || rest.rsplit('/').next().unwrap_or(rest);
        match table {
            "network" => rest.parse().ok().map(Key::Network),
            "subnet" => last().parse().ok().map(Key::Subnet),
            "port" => {
                let (network, mac) = rest.split_once('/')?;
                Some(Key::Port(network.parse().ok()?, mac.parse().ok()?))
            }
            "binding" => {
                let (port, host) = rest.split_once('/')?;
                Some(Key::Binding(port.parse().ok()?, host.parse().ok()?))
            }
            "holder" => {
                let (network, address) = rest.split_once('/')?;
                Some(Key::Holder(network.parse().ok()?, address.parse().ok()?))
            }
            "joined" => rest.parse().ok().map(Key::Joined),
            "security-group" => rest.parse().ok().map(Key::Group),
            "security-group-rule" => last().parse().ok().map(Key::Rule),
            "subnetpool" => rest.parse().ok().map(Key::SubnetPool),
            "address-scope" => rest.parse().ok().map(Key::AddressScope),
            "address-group" => rest.parse().ok().map(Key::AddressGroup),
            "rbac-policy" => rest.parse().ok().map(Key::RbacPolicy),
            "router" => rest.parse().ok().map(Key::Router),
            "gateway" => rest.parse().ok().map(Key::Gateway),
            "floating-ip" => rest.parse().ok().map(Key::FloatingIp),
            "port-forwarding" => last().parse().ok().map(Key::PortForwarding),
            "ndp-proxy" => rest.parse().ok().map(Key::NdpProxy),
            "qos-policy" => rest.parse().ok().map(Key::QosPolicy),
            "metering-label" => rest.parse().ok().map(Key::MeteringLabel),
            "metering-rule" => last().parse().ok().map(Key::MeteringRule),
            "metered" => sum_id(rest).map(Key::Metered),
            "quota" => Some(Key::Quota(ProjectId(rest.to_owned()))),
            "host" => rest.parse().ok().map(Key::Host),
            "tunnel" => rest.parse().ok().map(Key::Tunnel),
            "join-token" => Some(Key::JoinToken(rest.to_owned())),
            "identity" => {
                let (table, id) = rest.split_once('/')?;
                let found = IdentityTable::ALL.iter().find(|(_, name)| *name == table)?;
                Some(Key::Identity(found.0, id.to_owned()))
            }
            _ => None,
        }
    }
}

fn sum_id(text: &str) -> Option<SumId> {
    let mut parts = text.split('/');
    let id = SumId {
        label: parts.next()?.parse().ok()?,
        router: parts.next()?.parse().ok()?,
        direction: match parts.next()? {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return None,
        },
        host: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(id)
}

fn key(text: String) -> Bytes {
    Bytes::from(text)
}

/// A network.
pub fn network(id: NetworkId) -> Bytes {
    key(format!("/network/{id}"))
}

/// A network's subnets.
pub fn subnets_of(network: NetworkId) -> Bytes {
    key(format!("/subnet/{network}/"))
}

/// All subnets.
pub fn subnets() -> Bytes {
    Bytes::from_static(b"/subnet/")
}

/// A subnet.
pub fn subnet(network: NetworkId, id: SubnetId) -> Bytes {
    key(format!("/subnet/{network}/{id}"))
}

/// A network's ports.
pub fn ports_of(network: NetworkId) -> Bytes {
    key(format!("/port/{network}/"))
}

/// All ports.
pub fn ports() -> Bytes {
    Bytes::from_static(b"/port/")
}

/// A port, and the claim of its Ethernet address on its network.
pub fn port(network: NetworkId, mac: Mac) -> Bytes {
    key(format!("/port/{network}/{mac}"))
}

/// All bindings beside the active ones.
pub fn bindings() -> Bytes {
    Bytes::from_static(b"/binding/")
}

/// A port's bindings beside the active one.
pub fn bindings_of(port: PortId) -> Bytes {
    key(format!("/binding/{port}/"))
}

/// A port's binding on a host, beside the active one.
pub fn binding(port: PortId, host: &HostId) -> Bytes {
    key(format!("/binding/{port}/{host}"))
}

/// Who have addresses of a network that several may use.
pub fn holders_of(network: NetworkId) -> Bytes {
    key(format!("/holder/{network}/"))
}

/// Who has an address of a network that several may use.
pub fn holder(network: NetworkId, address: IpAddr) -> Bytes {
    key(format!("/holder/{network}/{address}"))
}

/// What multicast groups a port has joined.
pub fn joined(port: PortId) -> Bytes {
    key(format!("/joined/{port}"))
}

/// A subnet's addresses that are in use.
pub fn addresses_of(subnet: SubnetId) -> Bytes {
    key(format!("/address/{subnet}/"))
}

/// The claim of an address. Subnets of one routing domain never overlap, so this is once in it.
pub fn address(subnet: SubnetId, address: IpAddr) -> Bytes {
    key(format!("/address/{subnet}/{address}"))
}

/// The claim of an instance's place on the single-homed networks.
pub fn single_homed(project: &ProjectId, device: &str) -> Bytes {
    let digest = Sha256::new()
        .chain_update(&project.0)
        .chain_update([0])
        .chain_update(device)
        .finalize();
    key(format!("/single-homed/{}", hexadecimal(&digest)))
}

/// The claim of a port of a host's own addresses, which leads to one port.
pub fn exposed(host: &HostId, protocol: u8, port: u16) -> Bytes {
    key(format!("/exposed/{host}/{protocol}/{port}"))
}

/// The claim of being the network that a user gets who does not choose.
pub fn default_network() -> Bytes {
    Bytes::from_static(b"/default-network")
}

/// A security group.
pub fn group(id: SecurityGroupId) -> Bytes {
    key(format!("/security-group/{id}"))
}

/// The claim of a project's default group.
pub fn default_group(project: &ProjectId) -> Bytes {
    key(format!("/default-group/{project}"))
}

/// A security group's rules.
pub fn rules_of(group: SecurityGroupId) -> Bytes {
    key(format!("/security-group-rule/{group}/"))
}

/// All rules.
pub fn rules() -> Bytes {
    Bytes::from_static(b"/security-group-rule/")
}

/// A rule of a security group.
pub fn rule(group: SecurityGroupId, id: SecurityGroupRuleId) -> Bytes {
    key(format!("/security-group-rule/{group}/{id}"))
}

/// All subnet pools.
pub fn subnet_pools() -> Bytes {
    Bytes::from_static(b"/subnetpool/")
}

/// A subnet pool.
pub fn subnet_pool(id: SubnetPoolId) -> Bytes {
    key(format!("/subnetpool/{id}"))
}

/// What is allocated out of a pool.
pub fn allocations_of(pool: SubnetPoolId) -> Bytes {
    key(format!("/subnetpool-allocation/{pool}/"))
}

/// A subnet's allocation out of a pool.
pub fn allocation(pool: SubnetPoolId, subnet: SubnetId) -> Bytes {
    key(format!("/subnetpool-allocation/{pool}/{subnet}"))
}

/// The claim of being the pool of a family for those who do not choose.
pub fn default_subnet_pool(family: Family) -> Bytes {
    key(format!("/default-subnetpool/{family}"))
}

/// An address scope.
pub fn address_scope(id: AddressScopeId) -> Bytes {
    key(format!("/address-scope/{id}"))
}

/// An address group.
pub fn address_group(id: AddressGroupId) -> Bytes {
    key(format!("/address-group/{id}"))
}

/// An RBAC policy.
pub fn rbac_policy(id: RbacPolicyId) -> Bytes {
    key(format!("/rbac-policy/{id}"))
}

/// The claim of being the one policy that shares an object so with a project.
pub fn rbac_grant(object: Uuid, action: RbacAction, target: &ProjectId) -> Bytes {
    key(format!("/rbac-grant/{object}/{}/{target}", action.name()))
}

/// A router.
pub fn router(id: RouterId) -> Bytes {
    key(format!("/router/{id}"))
}

/// Where a router translates.
pub fn gateway(router: RouterId) -> Bytes {
    key(format!("/gateway/{router}"))
}

/// A floating IP.
pub fn floating_ip(id: FloatingIpId) -> Bytes {
    key(format!("/floating-ip/{id}"))
}

/// A floating IP's port forwardings.
pub fn forwardings_of(floating_ip: FloatingIpId) -> Bytes {
    key(format!("/port-forwarding/{floating_ip}/"))
}

/// A port forwarding of a floating IP.
pub fn port_forwarding(floating_ip: FloatingIpId, id: PortForwardingId) -> Bytes {
    key(format!("/port-forwarding/{floating_ip}/{id}"))
}

/// An NDP proxy.
pub fn ndp_proxy(id: NdpProxyId) -> Bytes {
    key(format!("/ndp-proxy/{id}"))
}

/// What depends on a port: written with whatever comes to depend on it, so that who changes the
/// port's addresses or deletes it notices.
pub fn port_uses(port: PortId) -> Bytes {
    key(format!("/port-use/{port}/"))
}

/// The claim of being the one floating IP of a network for one of a port's addresses.
pub fn association(port: PortId, network: NetworkId, fixed: Ipv4Addr) -> Bytes {
    key(format!("/port-use/{port}/floating-ip/{network}/{fixed}"))
}

/// That ports are forwarded to a port.
pub fn forwarded(port: PortId, id: PortForwardingId) -> Bytes {
    key(format!("/port-use/{port}/port-forwarding/{id}"))
}

/// The claim of being the one NDP proxy for one of a port's addresses.
pub fn proxied(port: PortId, address: Ipv6Addr) -> Bytes {
    key(format!("/port-use/{port}/ndp-proxy/{address}"))
}

/// What depends on a router's interfaces and gateways.
pub fn router_uses(router: RouterId) -> Bytes {
    key(format!("/router-use/{router}/"))
}

/// That something, by its identifier, depends on a router.
pub fn router_use(router: RouterId, what: Uuid) -> Bytes {
    key(format!("/router-use/{router}/{what}"))
}

/// A QoS policy.
pub fn qos_policy(id: QosPolicyId) -> Bytes {
    key(format!("/qos-policy/{id}"))
}

/// The claim of being the policy of a project's new networks.
pub fn default_qos_policy(project: &ProjectId) -> Bytes {
    key(format!("/default-qos-policy/{project}"))
}

/// What has a policy: written with whatever comes to have it, so that who deletes it notices.
pub fn qos_uses(policy: QosPolicyId) -> Bytes {
    key(format!("/qos-use/{policy}/"))
}

/// That something, by its identifier, has a policy; for a router, its port on the external network.
pub fn qos_use(policy: QosPolicyId, what: Uuid) -> Bytes {
    key(format!("/qos-use/{policy}/{what}"))
}

/// A metering label.
pub fn metering_label(id: MeteringLabelId) -> Bytes {
    key(format!("/metering-label/{id}"))
}

/// A metering label's rules.
pub fn metering_rules_of(label: MeteringLabelId) -> Bytes {
    key(format!("/metering-rule/{label}/"))
}

/// A rule of a metering label.
pub fn metering_rule(label: MeteringLabelId, id: MeteringRuleId) -> Bytes {
    key(format!("/metering-rule/{label}/{id}"))
}

/// What a metering label has counted.
pub fn metered(id: &SumId) -> Bytes {
    let direction = match id.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let SumId {
        label,
        router,
        host,
        ..
    } = id;
    key(format!("/metered/{label}/{router}/{direction}/{host}"))
}

/// Limits of a project.
pub fn quota(project: &ProjectId) -> Bytes {
    key(format!("/quota/{project}"))
}

/// A host that has joined.
pub fn host(host: &HostId) -> Bytes {
    key(format!("/host/{host}"))
}

/// A host's part in tunnels.
pub fn tunnel(host: &HostId) -> Bytes {
    key(format!("/tunnel/{host}"))
}

/// The claim of a host's number among all hosts; it is never given back.
pub fn tunnel_number(number: u32) -> Bytes {
    key(format!("/tunnel-number/{number}"))
}

/// The claim of an address of the underlay as a host's end of tunnels.
pub fn tunnel_address(address: IpAddr) -> Bytes {
    key(format!("/tunnel-address/{address}"))
}

/// The claim of a VXLAN segment.
pub fn segment(vni: u32) -> Bytes {
    key(format!("/segment/vxlan/{vni}"))
}

/// The claim of a physical network by the one that is it, untagged.
pub fn flat_network(physical: &str) -> Bytes {
    key(format!("/segment/flat/{physical}"))
}

/// The claim of the name that hosts give to a private network's namespace.
pub fn namespace(id: NetworkId) -> Bytes {
    key(format!("/namespace/{}", hextet_model::plan::namespace(id)))
}

/// The claim of a host's source addresses for a subnet with NAT44.
pub fn nat44(subnet: SubnetId, host: &HostId) -> Bytes {
    key(format!("/nat44/{subnet}/{host}"))
}

/// A join token, by its identifier.
pub fn join_token(id: &str) -> Bytes {
    key(format!("/join-token/{id}"))
}

/// The certificate authority for agents.
pub fn authority() -> Bytes {
    Bytes::from_static(b"/pki/authority")
}

/// Something of the identity service.
pub fn identity(table: IdentityTable, id: impl Display) -> Bytes {
    key(format!("/identity/{}/{id}", table.name()))
}

/// The claim of a name among a table's things in a domain.
pub fn identity_name(table: IdentityTable, domain: &str, name: &str) -> Bytes {
    let digest = Sha256::digest(name.to_lowercase());
    key(format!(
        "/identity-name/{}/{domain}/{}",
        table.name(),
        hexadecimal(&digest)
    ))
}

/// Octets as lower-case hexadecimal digits.
pub fn hexadecimal(octets: &[u8]) -> String {
    use std::fmt::Write;
    octets
        .iter()
        .fold(String::with_capacity(octets.len() * 2), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        })
}

#[cfg(test)]
mod tests;
