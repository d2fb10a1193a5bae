//! What clients can learn about hosts and capacity.

use super::ID;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Resource};

const ADMIN: Operations = Operations {
    read: Access::Admin,
    create: Access::Nobody,
    update: Access::Admin,
    delete: Access::Admin,
};

/// `/v2.0/agents`.
pub const AGENT: Resource = Resource {
    name: "agent",
    collection: "agents",
    path: "agents",
    summary: "A host that has joined; deleting it takes its certificate's power.",
    standard: &[ID],
    attributes: &[
        Attribute::shown("agent_type", Kind::Text(255)),
        Attribute::shown("binary", Kind::Text(255)),
        Attribute::shown("host", Kind::Text(255)),
        Attribute::shown("topic", Kind::Text(255)),
        Attribute::shown("availability_zone", Kind::Text(255)),
        Attribute::shown("alive", Kind::Bool),
        Attribute {
            put: Access::Admin,
            ..Attribute::shown("admin_state_up", Kind::Bool)
        },
        Attribute {
            put: Access::Admin,
            ..Attribute::shown("description", Kind::Text(255))
        },
        Attribute::shown("configurations", Kind::Object),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("started_at", Kind::Moment),
        Attribute::shown("heartbeat_timestamp", Kind::Moment),
        Attribute::shown("resources_synced", Kind::Bool),
    ],
    operations: ADMIN,
    tagged: false,
    quota: None,
    not_found: ("AgentNotFound", "Agent ", " could not be found."),
    aliases: &["agent", "agent_sort_key"],
};

/// `/v2.0/availability_zones`.
pub const AVAILABILITY_ZONE: Resource = Resource {
    name: "availability_zone",
    collection: "availability_zones",
    path: "availability_zones",
    summary: "A set of hosts that can be asked for; today there is one.",
    standard: &[],
    attributes: &[
        Attribute::shown("name", Kind::Text(255)),
        Attribute::shown("resource", Kind::Text(255)),
        Attribute::shown("state", Kind::Text(255)),
    ],
    operations: Operations {
        read: Access::Anyone,
        create: Access::Nobody,
        update: Access::Nobody,
        delete: Access::Nobody,
    },
    tagged: false,
    quota: None,
    not_found: (
        "AvailabilityZoneNotFound",
        "Availability zone ",
        " could not be found.",
    ),
    aliases: &["availability_zone", "availability_zone_filter"],
};

/// `/v2.0/network-ip-availabilities`.
pub const NETWORK_IP_AVAILABILITY: Resource = Resource {
    name: "network_ip_availability",
    collection: "network_ip_availabilities",
    path: "network-ip-availabilities",
    summary: "How many addresses a network has, and how many of them are in use.",
    standard: &[],
    attributes: &[
        Attribute::shown("network_id", Kind::Uuid),
        Attribute::shown("network_name", Kind::Text(255)),
        Attribute::shown("project_id", Kind::Text(255)),
        Attribute::shown("tenant_id", Kind::Text(255)),
        Attribute {
            filter: true,
            default: Default::Chosen,
            ..Attribute::shown("ip_version", Kind::Int(4, 6))
        },
        Attribute::shown("total_ips", Kind::Int(0, i64::MAX)).unlisted(),
        Attribute::shown("used_ips", Kind::Int(0, i64::MAX)).unlisted(),
        Attribute::shown("subnet_ip_availability", Kind::List),
    ],
    operations: Operations {
        read: Access::Admin,
        create: Access::Nobody,
        update: Access::Nobody,
        delete: Access::Nobody,
    },
    tagged: false,
    quota: None,
    not_found: ("NetworkNotFound", "Network ", " could not be found."),
    aliases: &["network-ip-availability"],
};
