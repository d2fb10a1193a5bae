//! What the cloud's operator makes on its first day.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::rest::{Cloud, text};

/// `IPv6`: public IPv6, private IPv4 behind NAT on each host. `dualStack`: public both. By name, their ids.
///
/// # Errors
///
/// The cloud refuses.
pub fn create_networks(cloud: &Cloud) -> Result<BTreeMap<String, String>> {
    let nat = network(cloud, json!({"name": "nat-pool"}))?;
    let pool = subnet(
        cloud,
        &nat,
        json!({"ip_version": 4, "cidr": "203.0.113.0/27",
        "gateway_ip": null, "enable_dhcp": false}),
    )?;
    let shared = |name: &str, default: bool| json!({"name": name, "shared": true, "is_default": default, "hextet:single_homed": true});
    let ipv6 = network(cloud, shared("IPv6", true))?;
    subnet(
        cloud,
        &ipv6,
        json!({"ip_version": 6, "cidr": "2001:db8:100::/64",
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}),
    )?;
    subnet(
        cloud,
        &ipv6,
        json!({"ip_version": 4, "cidr": "10.10.0.0/16", "hextet:nat44": {
        "pool_subnet_id": pool, "addresses_per_host": 1, "max_connections_per_port": 1000}}),
    )?;
    let dual_stack = network(cloud, shared("dualStack", false))?;
    subnet(
        cloud,
        &dual_stack,
        json!({"ip_version": 6, "cidr": "2001:db8:101::/64",
        "ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}),
    )?;
    subnet(
        cloud,
        &dual_stack,
        json!({"ip_version": 4, "cidr": "198.51.100.0/24"}),
    )?;
    Ok(BTreeMap::from([
        ("IPv6".to_owned(), ipv6),
        ("dualStack".to_owned(), dual_stack),
    ]))
}

fn network(cloud: &Cloud, mut attributes: Value) -> Result<String> {
    attributes["provider:network_type"] = json!("routed");
    text(&cloud.create("network", attributes)?, "id")
}

fn subnet(cloud: &Cloud, network: &str, mut attributes: Value) -> Result<String> {
    attributes["network_id"] = json!(network);
    text(&cloud.create("subnet", attributes)?, "id")
}

/// `ping`: ICMP. `web`: ICMP and TCP 80. `db`: TCP 5432 from `web` alone. `vm`: ICMP and TCP 7.
///
/// # Errors
///
/// The cloud refuses.
pub fn create_groups(cloud: &Cloud) -> Result<BTreeMap<String, String>> {
    let mut groups = BTreeMap::new();
    for (name, port) in [
        ("ping", None),
        ("web", Some(80)),
        ("vm", Some(7)),
        ("db", None),
    ] {
        let group = text(
            &cloud.create("security_group", json!({"name": name}))?,
            "id",
        )?;
        for ethertype in ["IPv4", "IPv6"] {
            if name != "db" {
                rule(cloud, &group, ethertype, json!({"protocol": "icmp"}))?;
            }
            if let Some(port) = port {
                let range =
                    json!({"protocol": "tcp", "port_range_min": port, "port_range_max": port});
                rule(cloud, &group, ethertype, range)?;
            }
        }
        groups.insert(name.to_owned(), group);
    }
    let (db, web) = (&groups["db"], &groups["web"]);
    for ethertype in ["IPv4", "IPv6"] {
        rule(
            cloud,
            db,
            ethertype,
            json!({"protocol": "tcp", "port_range_min": 5432,
            "port_range_max": 5432, "remote_group_id": web}),
        )?;
    }
    Ok(groups)
}

fn rule(cloud: &Cloud, group: &str, ethertype: &str, mut attributes: Value) -> Result<()> {
    attributes["security_group_id"] = json!(group);
    attributes["direction"] = json!("ingress");
    attributes["ethertype"] = json!(ethertype);
    cloud.create("security_group_rule", attributes).map(drop)
}
