//! What can be done with resources besides creating, changing and deleting them.

use super::{ADDRESS_GROUP, PORT_BINDING, ROUTER, SUBNET_POOL};
use crate::describe::{Action, Resource};

const fn of_router(
    path: &'static str,
    summary: &'static str,
    body: &'static [(&'static str, &'static str)],
) -> Action {
    of(&ROUTER, path, summary, body)
}

const fn of(
    resource: &'static Resource,
    path: &'static str,
    summary: &'static str,
    body: &'static [(&'static str, &'static str)],
) -> Action {
    Action {
        resource,
        path,
        summary,
        body,
    }
}

const INTERFACE: &[(&str, &str)] = &[("subnet_id", "string"), ("port_id", "string")];
const INSIDE: &[(&str, &str)] = &[("router", "object")];
const ADDRESSES: &[(&str, &str)] = &[("addresses", "array")];
const PREFIXES: &[(&str, &str)] = &[("prefixes", "array")];

/// All of them.
pub const ACTIONS: &[Action] = &[
    of_router(
        "routers/{id}/add_router_interface",
        "Puts a router on a subnet, or on a port's subnets.",
        INTERFACE,
    ),
    of_router(
        "routers/{id}/remove_router_interface",
        "Takes a router off a subnet, or its port away.",
        INTERFACE,
    ),
    of_router(
        "routers/{id}/add_extraroutes",
        "Adds routes beside those that are there.",
        INSIDE,
    ),
    of_router(
        "routers/{id}/remove_extraroutes",
        "Takes routes away, where they are there.",
        INSIDE,
    ),
    of_router(
        "routers/{id}/add_external_gateways",
        "Adds gateways beside those that are there.",
        INSIDE,
    ),
    of_router(
        "routers/{id}/update_external_gateways",
        "Makes these the router's gateways, the first one its compatible one.",
        INSIDE,
    ),
    of_router(
        "routers/{id}/remove_external_gateways",
        "Takes gateways away.",
        INSIDE,
    ),
    of(
        &PORT_BINDING,
        "ports/{port_id}/bindings/{id}/activate",
        "Plugs a port on a host that is prepared for it; the other one becomes INACTIVE.",
        &[],
    ),
    of(
        &SUBNET_POOL,
        "subnetpools/{id}/add_prefixes",
        "Adds prefixes to a pool.",
        PREFIXES,
    ),
    of(
        &SUBNET_POOL,
        "subnetpools/{id}/remove_prefixes",
        "Takes prefixes away from a pool that no subnet is out of.",
        PREFIXES,
    ),
    of(
        &SUBNET_POOL,
        "subnetpools/{id}/onboard_network_subnets",
        "Takes a network's subnets into a pool.",
        &[("network_id", "string")],
    ),
    of(
        &ADDRESS_GROUP,
        "address-groups/{id}/add_addresses",
        "Adds prefixes to an address group.",
        ADDRESSES,
    ),
    of(
        &ADDRESS_GROUP,
        "address-groups/{id}/remove_addresses",
        "Takes prefixes away from an address group.",
        ADDRESSES,
    ),
];
