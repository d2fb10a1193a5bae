//! Floating IPs.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/floatingips`.
pub const FLOATING_IP: Resource = Resource {
    name: "floatingip",
    collection: "floatingips",
    path: "floatingips",
    summary: "An address of an external network that stands for one of a port.",
    standard: &[
        ID,
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(255), Default::Text("")),
        Attribute::optional("tags", Kind::Tags, Default::EmptyList).fixed(),
        Attribute::shown("revision_number", Kind::Int(0, i64::MAX)),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("updated_at", Kind::Moment),
    ],
    attributes: &[
        Attribute::required("floating_network_id", Kind::Uuid),
        Attribute::optional("floating_ip_address", Kind::Ip, Default::Null)
            .set_by(Access::Admin)
            .fixed(),
        Attribute::optional("subnet_id", Kind::Uuid, Default::Null)
            .fixed()
            .read_by(Access::Nobody)
            .unlisted(),
        Attribute::optional("port_id", Kind::Uuid, Default::Null),
        Attribute::optional("fixed_ip_address", Kind::Ip, Default::Null),
        Attribute::optional("qos_policy_id", Kind::Uuid, Default::Null),
        Attribute::shown("router_id", Kind::Uuid),
        Attribute::shown("status", Kind::Text(16)),
        Attribute::shown("port_details", Kind::Object),
        Attribute::shown("port_forwardings", Kind::List),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "floatingip",
        default: 50,
    }),
    not_found: ("FloatingIPNotFound", "Floating IP ", " could not be found"),
    aliases: &["router", "fip-port-details", "qos-fip"],
};
