//! Bring your own IP: a customer's prefixes on an external network of its own, and ports directly on that.

use anyhow::Result;
use hextet_types::Family;
use serde_json::json;

use super::{Tenant, outside, project::Network};
use crate::{check::expect, rest::text};

/// Not in anybody's pool; the spines' neighbours take them from us.
const OWN: [&str; 2] = ["198.51.100.224/28", "2001:db8:1c0::/64"];

/// The operator makes the customer an external network with the customer's prefixes, and onboards its subnets into the
/// customer's pool; the customer's ports on it are reached from the internet, and nobody else gets one.
pub fn inbound(t: &Tenant) -> Result<String> {
    let [stranger, customer] = &t.projects[..] else {
        anyhow::bail!("two projects");
    };
    let network = json!({
        "name": "own", "project_id": customer.id, "router:external": true,
        "provider:network_type": "routed",
    });
    let network = t.admin.create("network", network)?;
    let network = Network {
        id: text(&network, "id")?,
        mtu: network["mtu"].as_u64().unwrap_or_default(),
    };
    for (version, cidr) in [(4, OWN[0]), (6, OWN[1])] {
        let mut subnet = json!({
            "network_id": network.id, "project_id": customer.id, "ip_version": version, "cidr": cidr,
        });
        if version == 6 {
            subnet["ipv6_ra_mode"] = json!("slaac");
            subnet["ipv6_address_mode"] = json!("slaac");
        }
        let subnet = text(&t.admin.create("subnet", subnet)?, "id")?;
        // The pool begins with a prefix that nothing is in.
        let first = if version == 6 {
            "2001:db8:1c1::/64"
        } else {
            "198.51.100.240/28"
        };
        let pool = json!({
            "name": format!("own-v{version}"), "project_id": customer.id, "prefixes": [first],
        });
        let pool = text(&t.admin.create("subnetpool", pool)?, "id")?;
        let path = format!("{pool}/onboard_network_subnets");
        t.admin
            .update("subnetpool", &path, json!({"network_id": network.id}))?;
        let onboarded = t.admin.show("subnet", &subnet)?;
        expect(
            onboarded["subnetpool_id"] == json!(pool),
            format!("{cidr} was not onboarded: {onboarded}"),
        )?;
    }
    let guest = t.start(customer, &network, ("own1", 2), &json!({}))?;
    let looked = Family::BOTH.into_iter().try_for_each(|family| {
        let own = guest.of(family)?;
        outside::is_announced(t, own, guest.host)?;
        outside::is_reached_and_comes_as(t, &guest, own)
    });
    let refused = stranger
        .cloud
        .create("port", json!({"network_id": network.id}));
    guest.delete(&t.admin, &t.hosts[guest.host])?;
    looked?;
    expect(refused.is_err(), "another project gets a port on it, too")?;
    Ok(format!(
        "{} and {} on h3, out of the customer's prefixes: onboarded, announced, reached from the internet",
        guest.of(Family::V4)?,
        guest.of(Family::V6)?
    ))
}
