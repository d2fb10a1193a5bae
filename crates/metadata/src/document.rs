//! The tree of documents: OpenStack's below `/openstack`, and EC2's, which OpenStack serves too.
//!
//! Every version has the same documents: clients take the newest that they know.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_types::{Mac, Prefix};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Versions of OpenStack's tree; clients look for theirs in the list.
const OPENSTACK_VERSIONS: [&str; 13] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2024-04-04",
    "2025-04-04",
    "2025-10-04",
    "latest",
];
/// Versions of EC2's.
const EC2_VERSIONS: [&str; 11] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2021-03-23",
    "latest",
];

/// What a port's workload is told of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Names the workload, for ever.
    pub instance_id: String,
    /// Whose it is.
    pub project_id: String,
    /// A host name, whole; or empty.
    pub hostname: String,
    /// By name, in OpenSSH's form.
    pub public_keys: BTreeMap<String, String>,
    /// What its owner says besides.
    pub meta: BTreeMap<String, String>,
    /// What its owner has it run first; none of it is looked at.
    pub user_data: Option<Vec<u8>>,
    /// As in the API.
    pub availability_zone: String,
    /// Its interface.
    pub link: Link,
    /// Nova tells it of itself: nothing else here counts.
    pub by_nova: bool,
}

/// An interface of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The port's identifier.
    pub port_id: String,
    /// The name of its device on the host.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The largest packet, in octets.
    pub mtu: u16,
    /// The identifier of its network.
    pub network_id: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Of resolvers.
    pub dns_servers: Vec<IpAddr>,
}

/// How an address is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// It is to be set.
    Static,
    /// By DHCPv4, or DHCPv6.
    Dhcp,
    /// From router advertisements.
    Slaac,
    /// Likewise, and more by DHCPv6.
    Dhcpv6Stateless,
}

/// One address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Its subnet.
    pub subnet: Prefix,
    /// How it is had.
    pub source: Source,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
    /// Destinations with their next hops.
    pub routes: Vec<(Prefix, IpAddr)>,
}

/// A document as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// A media type.
    pub content_type: &'static str,
    /// Its octets.
    pub body: Vec<u8>,
}

impl Document {
    pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
    pub(crate) const OCTETS: &str = "application/octet-stream";

    pub(crate) fn text(text: &str) -> Document {
        Document {
            content_type: Self::TEXT,
            body: text.as_bytes().to_vec(),
        }
    }

    fn json(value: &Value) -> Document {
        Document {
            content_type: "application/json",
            body: value.to_string().into_bytes(),
        }
    }

    fn list<'a>(entries: impl IntoIterator<Item = &'a str>) -> Document {
        let entries: Vec<&str> = entries.into_iter().collect();
        Document::text(&entries.join("\n"))
    }
}

/// A workload's documents.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a>(pub &'a Facts);

impl Tree<'_> {
    /// The document at a path; slashes at its end, or in a row, mean nothing.
    pub fn get(&self, path: &str) -> Option<Document> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => Some(Document::list(EC2_VERSIONS)),
            ["openstack"] => Some(Document::list(OPENSTACK_VERSIONS)),
            ["openstack", version, rest @ ..] if OPENSTACK_VERSIONS.contains(version) => {
                self.openstack(rest)
            }
            [version, rest @ ..] if EC2_VERSIONS.contains(version) => self.ec2(rest),
            _ => None,
        }
    }

    fn openstack(&self, parts: &[&str]) -> Option<Document> {
        let [name] = parts else {
            let names = [
                "meta_data.json",
                "network_data.json",
                "user_data",
                "vendor_data.json",
                "vendor_data2.json",
            ];
            let has = |name: &&str| *name != "user_data" || self.0.user_data.is_some();
            let listed = names.into_iter().filter(has);
            return parts.is_empty().then(|| Document::list(listed));
        };
        match *name {
            "meta_data.json" => Some(Document::json(&self.meta_data())),
            "network_data.json" => Some(Document::json(&network_data(&self.0.link))),
            "vendor_data.json" | "vendor_data2.json" => Some(Document::json(&json!({}))),
            "user_data" => self.user_data(),
            _ => None,
        }
    }

    fn user_data(&self) -> Option<Document> {
        let body = self.0.user_data.clone()?;
        Some(Document {
            content_type: Document::OCTETS,
            body,
        })
    }

    fn meta_data(&self) -> Value {
        let facts = self.0;
        let keys = facts.public_keys.iter();
        let keys: Vec<Value> = keys
            .map(|(name, data)| json!({"name": name, "type": "ssh", "data": data}))
            .collect();
        let mut value = json!({
            "uuid": facts.instance_id,
            "name": facts.hostname.split('.').next().unwrap_or_default(),
            "hostname": facts.hostname,
            "project_id": facts.project_id,
            "availability_zone": facts.availability_zone,
            "launch_index": 0,
            "devices": [],
            "meta": facts.meta,
        });
        if let (false, Some(object)) = (keys.is_empty(), value.as_object_mut()) {
            object.insert("keys".to_owned(), keys.into());
            object.insert("public_keys".to_owned(), json!(facts.public_keys));
        }
        value
    }

    fn ec2(&self, parts: &[&str]) -> Option<Document> {
        match parts {
            [] if self.0.user_data.is_some() => Some(Document::list(["meta-data/", "user-data"])),
            [] => Some(Document::list(["meta-data/"])),
            ["user-data"] => self.user_data(),
            ["meta-data", rest @ ..] => find(&self.ec2_meta_data(), rest),
            _ => None,
        }
    }

    fn ec2_meta_data(&self) -> Value {
        let facts = self.0;
        let short = facts.hostname.split('.').next().unwrap_or_default();
        let first = |v4: bool| {
            let addresses = facts.link.addresses.iter().map(|a| a.address);
            let mut of_family = addresses.filter(|address| address.is_ipv4() == v4);
            of_family.next().map_or_else(String::new, |a| a.to_string())
        };
        let mut tree = json!({
            "hostname": facts.hostname,
            "instance-id": facts.instance_id,
            "local-hostname": facts.hostname,
            "local-ipv4": first(true),
            "mac": facts.link.mac.to_string(),
            "placement": {"availability-zone": facts.availability_zone},
            "public-hostname": facts.hostname,
            "ipv6": first(false),
            "name": short,
        });
        if let Some(object) = tree.as_object_mut() {
            object.retain(|_, value| value.as_str() != Some(""));
            if !facts.public_keys.is_empty() {
                object.insert("public-keys".to_owned(), public_keys(&facts.public_keys));
            }
        }
        tree
    }
}

/// `0=name` leads to `0/openssh-key`.
fn public_keys(keys: &BTreeMap<String, String>) -> Value {
    let keys = keys.iter().enumerate();
    let keys: Map<String, Value> = keys
        .map(|(n, (name, data))| (format!("{n}={name}"), json!({"openssh-key": data})))
        .collect();
    Value::Object(keys)
}

/// The list of a directory, or a leaf.
fn find(tree: &Value, path: &[&str]) -> Option<Document> {
    let Some((name, rest)) = path.split_first() else {
        return match tree {
            Value::Object(entries) => {
                let entries = entries.iter().map(|(name, value)| {
                    let directory = value.is_object() && !name.contains('=');
                    format!("{name}{}", if directory { "/" } else { "" })
                });
                let entries: Vec<String> = entries.collect();
                Some(Document::list(entries.iter().map(String::as_str)))
            }
            leaf => leaf.as_str().map(Document::text),
        };
    };
    let entries = tree.as_object()?;
    let named = |entry: &str| entry.split('=').next() == Some(name);
    let entry = entries.iter().find(|(entry, _)| named(entry));
    find(entry?.1, rest)
}

/// Nova's `network_data.json`.
fn network_data(link: &Link) -> Value {
    let networks = link.addresses.iter().enumerate().map(|(n, address)| {
        let routes = address.routes.iter();
        let mut routes: Vec<Value> = routes
            .map(|(destination, gateway)| route(*destination, *gateway))
            .collect();
        let everything = Prefix::default_route(address.subnet.family());
        routes.extend(address.gateway.map(|gateway| route(everything, gateway)));
        let mut network = json!({
            "id": format!("network{n}"),
            "type": network_type(address),
            "link": link.name,
            "network_id": link.network_id,
        });
        if let (Source::Static, Some(object)) = (address.source, network.as_object_mut()) {
            object.insert("ip_address".to_owned(), json!(address.address));
            object.insert("netmask".to_owned(), json!(netmask(address.subnet)));
            object.insert("routes".to_owned(), routes.into());
        }
        network
    });
    let services = link.dns_servers.iter();
    let services = services.map(|server| json!({"type": "dns", "address": server}));
    json!({
        "links": [{
            "id": link.name,
            "vif_id": link.port_id,
            "type": "phy",
            "mtu": link.mtu,
            "ethernet_mac_address": link.mac.to_string(),
        }],
        "networks": networks.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
    })
}

fn route(destination: Prefix, gateway: IpAddr) -> Value {
    json!({
        "network": destination.addr(),
        "netmask": netmask(destination),
        "gateway": gateway,
    })
}

/// All ones as far as the prefix goes.
fn netmask(prefix: Prefix) -> IpAddr {
    let len = u32::from(prefix.len());
    match prefix.addr() {
        IpAddr::V4(_) => IpAddr::from(u32::MAX.checked_shl(32 - len).unwrap_or(0).to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from(u128::MAX.checked_shl(128 - len).unwrap_or(0).to_be_bytes()),
    }
}

fn network_type(address: &Address) -> &'static str {
    match (address.address.is_ipv4(), address.source) {
        (true, Source::Static) => "ipv4",
        (true, _) => "ipv4_dhcp",
        (false, Source::Static) => "ipv6",
        (false, Source::Dhcp) => "ipv6_dhcpv6-stateful",
        (false, Source::Slaac) => "ipv6_slaac",
        (false, Source::Dhcpv6Stateless) => "ipv6_dhcpv6-stateless",
    }
}

#[cfg(test)]
mod tests;
