//! Port forwardings of floating IPs.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Resource};

const PORT: Kind = Kind::Int(1, 65535);

/// `/v2.0/floatingips/FLOATINGIP/port_forwardings`.
pub const PORT_FORWARDING: Resource = Resource {
    name: "port_forwarding",
    collection: "port_forwardings",
    path: "floatingips/{floatingip_id}/port_forwardings",
    summary: "Ports of a floating IP that lead to a port.",
    standard: &[
        ID,
        PROJECT.read_by(Access::Nobody).unlisted(),
        TENANT.read_by(Access::Nobody).unlisted(),
        Attribute::optional("description", Kind::Text(255), Default::Text("")),
    ],
    attributes: &[
        Attribute {
            put: Access::Owner,
            ..Attribute::required("protocol", Kind::Choice(&["tcp", "udp", "sctp", "dccp"]))
        },
        Attribute::optional("external_port", PORT, Default::Null),
        Attribute::optional("external_port_range", Kind::PortRange, Default::Null),
        Attribute {
            put: Access::Owner,
            ..Attribute::required("internal_port_id", Kind::Uuid)
        },
        Attribute::optional("internal_ip_address", Kind::Ip, Default::Null),
        Attribute::optional("internal_port", PORT, Default::Null),
        Attribute::optional("internal_port_range", Kind::PortRange, Default::Null),
    ],
    operations: Operations::OWNER,
    tagged: false,
    quota: None,
    not_found: (
        "PortForwardingNotFound",
        "Port Forwarding ",
        " could not be found.",
    ),
    aliases: &[
        "floating-ip-port-forwarding",
        "floating-ip-port-forwarding-description",
        "floating-ip-port-forwarding-detail",
        "floating-ip-port-forwarding-port-ranges",
        "expose-port-forwarding-in-fip",
    ],
};
