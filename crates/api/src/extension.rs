//! Extensions: what a client may count on, by alias. Listed is only what works.

use serde_json::{Value, json};

use crate::resources;

/// An extension of the networking API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What clients look for.
    pub alias: &'static str,
    /// For people.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
}

const fn ext(alias: &'static str, name: &'static str, description: &'static str) -> Extension {
    Extension {
        alias,
        name,
        description,
    }
}

/// What lists, tags, revisions and quotas bring for every resource.
const GENERAL: &[&str] = &[
    "pagination",
    "sorting",
    "sort-key-validation",
    "filter-validation",
    "empty-string-filtering",
    "project-id",
    "standard-attr-revisions",
    "revision-if-match",
    "standard-attr-timestamp",
    "standard-attr-description",
    "standard-attr-tag",
    "tag-creation",
    "quotas",
    "quota_details",
    "quota-check-limit",
];

/// Everything that has a name and a text; sorted by alias.
const KNOWN: &[Extension] = &[
    ext(
        "aap-reject-multicast",
        "Allowed address pairs reject multicast",
        "Multicast addresses are refused in allowed address pairs",
    ),
    ext(
        "address-group",
        "Address group",
        "Prefixes that rules name together",
    ),
    ext(
        "address-scope",
        "Address scope",
        "Where prefixes mean the same to everybody",
    ),
    ext("agent", "agent", "Hosts and whether their agents are alive"),
    ext("agent_sort_key", "Agents Sort Key", "Agents can be sorted"),
    ext(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "More source addresses for a port",
    ),
    ext(
        "availability_zone",
        "Availability Zone",
        "Availability zones of networks and agents",
    ),
    ext(
        "availability_zone_filter",
        "Availability Zone Filter Extension",
        "Availability zones can be filtered",
    ),
    ext(
        "binding",
        "Port Binding",
        "Where a port is plugged, and how",
    ),
    ext(
        "binding-extended",
        "Port Bindings Extended",
        "Ports prepared for several hosts, and plugged on one of them",
    ),
    ext(
        "default-subnetpools",
        "Default Subnetpools",
        "A pool of each family for those who do not choose",
    ),
    ext(
        "ecmp_routes",
        "ECMP Routes extension",
        "Several next hops of one destination",
    ),
    ext(
        "empty-string-filtering",
        "Empty String Filtering Extension",
        "Lists can be filtered by empty texts",
    ),
    ext(
        "enable-default-route-bfd",
        "Enable BFD for default routes",
        "Default routes' next hops are watched",
    ),
    ext(
        "enable-default-route-ecmp",
        "Enable ECMP for default routes",
        "The default routes of all gateways are used",
    ),
    ext(
        "expose-port-forwarding-in-fip",
        "Expose Floating IP port forwardings",
        "Floating IPs show their port forwardings",
    ),
    ext(
        "ext-gw-mode",
        "Neutron L3 Configurable external gateway mode",
        "Gateways with and without SNAT",
    ),
    ext(
        "external-gateway-multihoming",
        "Neutron L3 External Gateway Multihoming",
        "Several gateways of one router",
    ),
    ext(
        "external-net",
        "Neutron external network",
        "The router:external attribute of networks",
    ),
    ext(
        "extra_dhcp_opt",
        "Neutron Extra DHCP options",
        "More DHCP options for a port",
    ),
    ext(
        "extraroute",
        "Neutron Extra Route",
        "More routes of a router",
    ),
    ext(
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "Routes are added and taken away by themselves",
    ),
    ext(
        "filter-validation",
        "Filter parameters validation",
        "Unknown filters are refused",
    ),
    ext(
        "fip-port-details",
        "Floating IP Port Details Extension",
        "Floating IPs show what they stand for",
    ),
    ext(
        "floating-ip-port-forwarding",
        "Floating IP Port Forwarding",
        "Ports of a floating IP lead to ports",
    ),
    ext(
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding new attribute description",
        "Port forwardings have descriptions",
    ),
    ext(
        "floating-ip-port-forwarding-detail",
        "Floating IP port forwarding detail",
        "Floating IPs show their port forwardings' identifiers",
    ),
    ext(
        "floating-ip-port-forwarding-port-ranges",
        "Floating IP Port Forwarding support port ranges",
        "Port forwardings of ranges",
    ),
    ext(
        "hextet",
        "hextet",
        "Routed networks: hextet:single_homed, hextet:nat44, hextet:gateway_host, the quota public_ipv4, ports on the default network",
    ),
    ext(
        "ip-substring-filtering",
        "IP address substring filtering",
        "Ports by a part of their addresses",
    ),
    ext(
        "ip_allocation",
        "IP Allocation",
        "When a port gets its addresses",
    ),
    ext(
        "l2_adjacency",
        "L2 Adjacency",
        "Whether a network's ports share a link; ours never do",
    ),
    ext(
        "l3-ext-ndp-proxy",
        "L3 NDP proxy extension for router",
        "Whether NDP proxies may be made of a router",
    ),
    ext(
        "l3-ndp-proxy",
        "L3 NDP Proxy",
        "Single IPv6 addresses are reachable by way of a router",
    ),
    ext(
        "metering",
        "Neutron Metering",
        "Labels that count what passes between routers and the outside",
    ),
    ext(
        "metering_source_and_destination_fields",
        "Neutron Metering with source and destination filtering",
        "Rules of metering labels that name sources and destinations",
    ),
    ext("net-mtu", "Network MTU", "A network's MTU"),
    ext(
        "net-mtu-writable",
        "Network MTU (writable)",
        "A network's MTU can be set",
    ),
    ext(
        "network-ip-availability",
        "Network IP Availability",
        "Addresses in use, by network and subnet",
    ),
    ext(
        "network_availability_zone",
        "Network Availability Zone",
        "Availability zones of networks",
    ),
    ext("pagination", "Pagination support", "Lists come in pages"),
    ext(
        "port-mac-address-regenerate",
        "Port MAC address regenerate",
        "A null mac_address makes a new one",
    ),
    ext(
        "port-security",
        "Port Security",
        "Source checks can be switched off",
    ),
    ext(
        "port-security-groups-filtering",
        "Port filtering on security groups",
        "Ports by their security groups",
    ),
    ext(
        "project-id",
        "project_id field enabled",
        "The attribute project_id beside tenant_id",
    ),
    ext("provider", "Provider Network", "How a network is built"),
    ext(
        "qos",
        "Quality of Service",
        "Policies that limit and mark what ports send and receive",
    ),
    ext(
        "qos-bw-limit-direction",
        "Direction for QoS bandwidth limit rule",
        "Bandwidth limits of both directions",
    ),
    ext(
        "qos-default",
        "QoS default policy",
        "A project's policy for its new networks",
    ),
    ext("qos-fip", "Floating IP QoS", "Policies of floating IPs"),
    ext(
        "qos-gateway-ip",
        "Gateway IP QoS",
        "Policies of routers' gateways",
    ),
    ext(
        "qos-port-network-policy",
        "QoS port network policy",
        "Ports show their networks' policies",
    ),
    ext(
        "qos-pps",
        "QoS packet rate limit",
        "Limits of packets a second",
    ),
    ext(
        "qos-rule-type-details",
        "Details of QoS rule types",
        "What can be said in a rule of a type",
    ),
    ext(
        "qos-rule-type-filter",
        "QoS rule type filter",
        "All types of rules, or those that are served",
    ),
    ext(
        "qos-rules-alias",
        "Ability to modify QoS rules without policy id",
        "Rules by their identifiers alone",
    ),
    ext(
        "quota-check-limit",
        "Quota engine limit check",
        "A limit below what is in use can be refused",
    ),
    ext(
        "quota_details",
        "Quota details management support",
        "Limits with what is in use",
    ),
    ext("quotas", "Quota management support", "Limits by project"),
    ext(
        "rbac-address-group",
        "Add address_group type to RBAC",
        "Address groups can be shared with projects",
    ),
    ext(
        "rbac-address-scope",
        "Add address_scope type to RBAC",
        "Address scopes can be shared with projects",
    ),
    ext(
        "rbac-policies",
        "RBAC Policies",
        "Networks can be shared with projects",
    ),
    ext(
        "rbac-security-groups",
        "Add security_group type to network RBAC",
        "Security groups can be shared with projects",
    ),
    ext(
        "rbac-subnetpool",
        "Add subnetpool type to RBAC",
        "Subnet pools can be shared with projects",
    ),
    ext(
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "Changes only of the revision that the client has seen",
    ),
    ext("router", "Neutron L3 Router", "Routers and floating IPs"),
    ext(
        "router-enable-snat",
        "Router enable SNAT",
        "Members see whether their routers translate",
    ),
    ext(
        "router_availability_zone",
        "Router Availability Zone",
        "Availability zones of routers",
    ),
    ext(
        "security-group",
        "security-group",
        "The security groups extension",
    ),
    ext(
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "A rule's prefix in canonical form",
    ),
    ext(
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Rules that name address groups",
    ),
    ext(
        "security-groups-rules-belongs-to-default-sg",
        "Security group rule belongs to the project's default security group",
        "Whether a rule's group is the project's default one",
    ),
    ext(
        "security-groups-shared-filtering",
        "Security group filtering on the shared field",
        "Groups by whether they are shared",
    ),
    ext(
        "sort-key-validation",
        "Sort key validation",
        "Unknown sort keys are refused",
    ),
    ext("sorting", "Sorting support", "Lists can be sorted"),
    ext(
        "standard-attr-description",
        "standard-attr-description",
        "Descriptions",
    ),
    ext(
        "standard-attr-revisions",
        "Resource revision numbers",
        "A number that grows with each change",
    ),
    ext(
        "standard-attr-tag",
        "Tag support for resources with standard attribute",
        "Tags",
    ),
    ext(
        "standard-attr-timestamp",
        "Resource timestamps",
        "When a resource was made and changed",
    ),
    ext(
        "stateful-security-group",
        "Stateful security group",
        "Groups with and without connection tracking",
    ),
    ext(
        "subnet-external-network",
        "Subnet belongs to an external network",
        "Whether a subnet's network is external",
    ),
    ext(
        "subnet-service-types",
        "Subnet service types",
        "Subnets for ports of some owners alone",
    ),
    ext(
        "subnet_allocation",
        "Subnet Allocation",
        "Subnets get their prefixes out of pools",
    ),
    ext(
        "subnet_onboard",
        "Subnet Onboard",
        "Subnets that are there are taken into a pool",
    ),
    ext(
        "subnetpool-prefix-ops",
        "Subnet Pool Prefix Operations",
        "Prefixes are added to and taken from a pool",
    ),
    ext(
        "tag-creation",
        "Tag support for creation",
        "Tags in the request that creates",
    ),
    ext(
        "tag-ports-during-bulk-creation",
        "Tag Ports During Bulk Creation",
        "Tags in bulk requests for ports",
    ),
];

/// What the API can do already and hosts do not: not listed, so that no client counts on it.
const NOT_SERVED_YET: &[&str] = &["enable-default-route-bfd"];

fn waits(alias: &str) -> bool {
    NOT_SERVED_YET.contains(&alias)
}

const UPDATED: &str = "2026-11-21T00:00:00-00:00";

/// The aliases of all resources and of what is general, sorted.
pub fn served() -> impl Iterator<Item = &'static Extension> {
    let known = KNOWN.iter().filter(|e| !waits(e.alias));
    known.filter(|e| {
        GENERAL.contains(&e.alias) || resources::ALL.iter().any(|r| r.aliases.contains(&e.alias))
    })
}

/// An item of `GET /v2.0/extensions`.
pub fn show(extension: &Extension) -> Value {
    json!({
        "alias": extension.alias,
        "name": extension.name,
        "description": extension.description,
        "updated": UPDATED,
        "links": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_of_a_resource_has_a_text_and_is_served_or_waits() {
        let served: Vec<_> = served().map(|e| e.alias).collect();
        for alias in resources::ALL.iter().flat_map(|r| r.aliases).chain(GENERAL) {
            assert_eq!(served.contains(alias), !waits(alias), "{alias}");
            assert!(KNOWN.iter().any(|e| e.alias == *alias), "{alias}");
        }
        assert_eq!(served.len() + NOT_SERVED_YET.len(), KNOWN.len());
        assert!(KNOWN.is_sorted_by_key(|e| e.alias));
    }
}
