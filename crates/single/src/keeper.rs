//! Keeps the cloud's networks as the uplink has its prefixes: a new one is there as soon as the host has it, and one goes when
//! the host's addresses in it have ended, if there is another (RFC 9096).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_kernel::host;
use hextet_types::Prefix;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::{
    cloud::{Cloud, text},
    delegation::Delegation,
    network::{self, Network, OPEN},
    places::Places,
    sites,
    uplink::{Asked, Uplink},
};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// For the networks to be made at first.
const PATIENCE: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_millis(20);

/// Looks after the networks for as long as the process lives.
pub fn run(places: &Places, asked: &Asked) {
    let mut before: Option<Uplink> = None;
    let mut cloud: Option<Cloud> = None;
    let mut delegation = asked.delegation().then(|| Delegation::open(places));
    let mut complaint = String::new();
    loop {
        match once(
            places,
            asked,
            &mut delegation,
            (before.as_ref(), &mut cloud),
        ) {
            Ok(now) => {
                before = Some(now);
                complaint.clear();
            }
            Err(error) => {
                cloud = None;
                let error = format!("{error:#}");
                if error != complaint {
                    warn!(error, "the networks can't follow the uplink; trying again");
                    complaint = error;
                }
            }
        }
        listen(delegation.as_mut());
    }
}

/// Until it is time to look again.
fn listen(delegation: Option<&mut Delegation>) {
    let Some(delegation) = delegation else {
        return thread::sleep(LOOK);
    };
    if let Err(error) = delegation.listen(LOOK) {
        warn!(
            error = format!("{error:#}"),
            "DHCPv6 servers can't be listened to; trying again"
        );
        thread::sleep(LOOK);
    }
}

/// Asks the server about networks only if something has changed.
fn once(
    places: &Places,
    asked: &Asked,
    delegation: &mut Option<Delegation>,
    (before, cloud): (Option<&Uplink>, &mut Option<Cloud>),
) -> Result<Uplink> {
    let host = host::look()?;
    let delegated = match delegation {
        Some(delegation) => {
            delegation.follow(&host, asked)?;
            delegation.prefixes()
        }
        None => &[],
    };
    let now = Uplink::understand(&host, asked, delegated)?;
    let cloud = match cloud {
        Some(cloud) => cloud,
        none => none.insert(Cloud::open(places)?),
    };
    if before.is_none_or(|before| differs(before, &now)) {
        keep(cloud, &now)?;
    }
    sites::keep(places, cloud)?;
    Ok(now)
}

fn differs(a: &Uplink, b: &Uplink) -> bool {
    (&a.on_link, &a.routed, a.v4.is_some()) != (&b.on_link, &b.routed, b.v4.is_some())
}

/// Waits until the networks are there.
///
/// # Errors
///
/// They are not, in time.
pub fn wait(places: &Places, uplink: &Uplink) -> Result<()> {
    let cloud = Cloud::open(places)?;
    let end = Instant::now() + PATIENCE;
    for network in network::wanted(uplink) {
        let subnets = network.v6.len() + usize::from(network.v4.is_some());
        let query = format!("name={}", network.name);
        loop {
            let found = cloud.list("networks", &query)?;
            let has = found.first().and_then(|n| n["subnets"].as_array());
            if has.is_some_and(|has| has.len() >= subnets) {
                break;
            }
            if Instant::now() > end {
                bail!(
                    "network {} does not come to be; {} may say why",
                    network.name,
                    places.log().display()
                );
            }
            thread::sleep(BETWEEN);
        }
    }
    Ok(())
}

/// Makes what lacks, and takes away what is over.
fn keep(cloud: &Cloud, uplink: &Uplink) -> Result<()> {
    keep_group(cloud)?;
    for network in network::wanted(uplink) {
        keep_network(cloud, &network).with_context(|| format!("network {}", network.name))?;
    }
    Ok(())
}

fn keep_group(cloud: &Cloud) -> Result<()> {
    let found = cloud.list("security-groups", &format!("name={OPEN}"))?;
    let group = match found.into_iter().next() {
        Some(group) => group,
        None => {
            let of = json!({"name": OPEN, "description": "anybody may reach these workloads"});
            cloud.create(("security-groups", "security_group"), &of)?
        }
    };
    let id = text(&group, "id");
    let rules = cloud.list(
        "security-group-rules",
        &format!("security_group_id={id}&direction=ingress"),
    )?;
    for ethertype in ["IPv6", "IPv4"] {
        if !rules.iter().any(|rule| rule["ethertype"] == ethertype) {
            let rule =
                json!({"security_group_id": id, "direction": "ingress", "ethertype": ethertype});
            cloud.create(("security-group-rules", "security_group_rule"), &rule)?;
        }
    }
    Ok(())
}

fn keep_network(cloud: &Cloud, wanted: &Network) -> Result<()> {
    let found = cloud.list("networks", &format!("name={}", wanted.name))?;
    let network = match found.into_iter().next() {
        Some(network) => network,
        None => {
            info!(network = wanted.name, "made");
            cloud.create(("networks", "network"), &wanted.attributes)?
        }
    };
    let id = text(&network, "id");
    let subnets = cloud.list("subnets", &format!("network_id={id}"))?;
    let has = |prefix: Prefix| subnets.iter().any(|s| s["cidr"] == prefix.to_string());
    for (prefix, attributes) in wanted.v6.iter().filter(|(prefix, _)| !has(*prefix)) {
        info!(network = wanted.name, %prefix, "the uplink has a prefix");
        create_subnet(cloud, id, attributes)?;
    }
    if let Some(v4) = &wanted.v4
        && !subnets.iter().any(|s| s["ip_version"] == 4)
    {
        create_subnet(cloud, id, v4)?;
    }
    let is_over = |subnet: &&Value| {
        subnet["ip_version"] == 6
            && !wanted.v6.is_empty()
            && !wanted
                .v6
                .iter()
                .any(|(prefix, _)| subnet["cidr"] == prefix.to_string())
    };
    for subnet in subnets.iter().filter(is_over) {
        info!(
            network = wanted.name,
            prefix = text(subnet, "cidr"),
            "the uplink has lost a prefix"
        );
        cloud.delete("subnets", text(subnet, "id"))?;
    }
    Ok(())
}

fn create_subnet(cloud: &Cloud, network: &str, attributes: &Value) -> Result<()> {
    let mut attributes = attributes.clone();
    attributes["network_id"] = json!(network);
    cloud.create(("subnets", "subnet"), &attributes).map(drop)
}
