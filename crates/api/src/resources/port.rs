//! Ports.

use super::STANDARD;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/ports`.
pub const PORT: Resource = Resource {
    name: "port",
    collection: "ports",
    path: "ports",
    summary: "A workload's place on a network: its Ethernet address, its addresses, its policy.",
    standard: STANDARD,
    attributes: &[
        // Deviation: may be absent when exactly one shared network is the default one.
        Attribute::optional("network_id", Kind::Uuid, Default::Chosen).fixed(),
        Attribute::optional("admin_state_up", Kind::Bool, Default::Bool(true)),
        Attribute::shown("status", Kind::Text(16)),
        Attribute::optional("mac_address", Kind::Mac, Default::Chosen)
            .or_null()
            .set_by(Access::NetworkOwner),
        Attribute::optional("fixed_ips", Kind::FixedIps, Default::Chosen).filtered(),
        Attribute::optional("device_id", Kind::Text(255), Default::Text("")),
        Attribute::optional("device_owner", Kind::Text(255), Default::Text("")),
        Attribute::optional("security_groups", Kind::Uuids, Default::Chosen)
            .or_null()
            .filtered(),
        Attribute::optional("port_security_enabled", Kind::Bool, Default::Chosen)
            .set_by(Access::NetworkOwner),
        Attribute::optional(
            "allowed_address_pairs",
            Kind::AddressPairs,
            Default::EmptyList,
        )
        .set_by(Access::NetworkOwner),
        Attribute::optional("extra_dhcp_opts", Kind::DhcpOptions, Default::EmptyList),
        Attribute::optional("dns_name", Kind::Domain(63), Default::Text("")),
        Attribute::optional("hextet:metadata", Kind::Metadata, Default::Null).or_null(),
        // Ports of the host are the operator's to give away.
        Attribute::optional("hextet:exposed", Kind::Exposed, Default::EmptyList)
            .or_null()
            .set_by(Access::Admin),
        Attribute::shown("hextet:delegated_prefixes", Kind::List),
        Attribute::optional("qos_policy_id", Kind::Uuid, Default::Null),
        Attribute::shown("qos_network_policy_id", Kind::Uuid),
        Attribute::optional("binding:host_id", Kind::Text(253), Default::Text(""))
            .or_null()
            .set_by(Access::Admin)
            .read_by(Access::Admin),
        Attribute::optional("binding:profile", Kind::Object, Default::EmptyObject)
            .set_by(Access::Admin)
            .read_by(Access::Admin),
        Attribute::optional(
            "binding:vnic_type",
            Kind::Choice(&["normal"]),
            Default::Text("normal"),
        ),
        Attribute::shown("binding:vif_type", Kind::Text(16)).read_by(Access::Admin),
        Attribute::shown("binding:vif_details", Kind::Object).read_by(Access::Admin),
        Attribute::shown("ip_allocation", Kind::Text(16)),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "port",
        default: 500,
    }),
    not_found: ("PortNotFound", "Port ", " could not be found."),
    aliases: &[
        "binding",
        "extra_dhcp_opt",
        "port-security",
        "allowed-address-pairs",
        "aap-reject-multicast",
        "port-mac-address-regenerate",
        "port-security-groups-filtering",
        "ip-substring-filtering",
        "ip_allocation",
        "qos-port-network-policy",
        "tag-ports-during-bulk-creation",
    ],
};
