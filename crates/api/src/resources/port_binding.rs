//! Bindings of ports on hosts.

use super::PROJECT;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Resource};

/// `/v2.0/ports/PORT/bindings`.
pub const PORT_BINDING: Resource = Resource {
    name: "binding",
    collection: "bindings",
    path: "ports/{port_id}/bindings",
    summary: "A host that a port is plugged on (ACTIVE), or is prepared for (INACTIVE).",
    standard: &[],
    attributes: &[
        Attribute::required("host", Kind::Text(253)),
        Attribute::shown("vif_type", Kind::Text(16)),
        Attribute::shown("vif_details", Kind::Object),
        Attribute::optional(
            "vnic_type",
            Kind::Choice(&["normal"]),
            Default::Text("normal"),
        ),
        Attribute::optional("profile", Kind::Object, Default::EmptyObject).or_null(),
        Attribute::shown("status", Kind::Text(16)),
        PROJECT,
    ],
    operations: Operations {
        read: Access::Admin,
        create: Access::Admin,
        update: Access::Admin,
        delete: Access::Admin,
    },
    tagged: false,
    quota: None,
    not_found: (
        "PortBindingNotFound",
        "Binding for host ",
        " could not be found.",
    ),
    aliases: &["binding-extended"],
};
