//! Somebody who changes the cloud without a pause, at random: ports, groups, rules, networks, and TAPs that
//! come and go on the host with no regard to what the cloud knows of them.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hextet_types::{IfName, PortId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use crate::{
    client::Client,
    client_of,
    host::{NAME, Parts},
};

/// More of a kind are not made.
const MOST: usize = 24;
/// While the server is away.
const PAUSE: Duration = Duration::from_millis(20);

/// A port that nobody touches, and who is behind it.
pub struct Workload {
    /// The port.
    pub port: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node of its namespace.
    pub place: &'static str,
}

/// What is made first, and left alone.
pub struct Foundation {
    /// Two that reach each other, and one that nobody reaches.
    pub workloads: [Workload; 3],
    networks: Vec<String>,
}

impl Foundation {
    /// Makes it.
    pub fn lay(cloud: &Client) -> Foundation {
        let network = |name: &str| {
            let attributes = json!({"name": name, "provider:network_type": "routed"});
            id(&cloud.create("network", &attributes).unwrap())
        };
        let subnet = |network: &str, mut attributes: Value| {
            attributes["network_id"] = json!(network);
            id(&cloud.create("subnet", &attributes).unwrap())
        };
        let (pool, dual, private) = (network("pool"), network("dual"), network("private"));
        let source = json!({"ip_version": 4, "cidr": "203.0.113.0/27", "gateway_ip": null, "enable_dhcp": false});
        let source = subnet(&pool, source);
        subnet(
            &dual,
            json!({"ip_version": 6, "cidr": "2001:db8:101::/64", "ipv6_ra_mode": "dhcpv6-stateful",
            "ipv6_address_mode": "dhcpv6-stateful"}),
        );
        subnet(&dual, json!({"ip_version": 4, "cidr": "198.51.100.0/24"}));
        subnet(
            &private,
            json!({"ip_version": 6, "cidr": "2001:db8:100::/64", "ipv6_ra_mode": "slaac",
            "ipv6_address_mode": "slaac"}),
        );
        subnet(
            &private,
            json!({"ip_version": 4, "cidr": "10.10.0.0/16", "hextet:nat44": {
            "pool_subnet_id": source, "addresses_per_host": 1, "max_connections_per_port": 1000}}),
        );
        let group = |name: &str, open: bool| {
            let group = id(&cloud
                .create("security_group", &json!({"name": name}))
                .unwrap());
            for family in ["IPv4", "IPv6"].into_iter().filter(|_| open) {
                let rule = json!({"security_group_id": group, "direction": "ingress",
                    "ethertype": family, "protocol": "icmp"});
                cloud.create("security_group_rule", &rule).unwrap();
            }
            group
        };
        let (open, closed) = (group("open", true), group("closed", false));
        let workload = |place, group: &str| {
            let port = json!({"network_id": dual, "name": place, "binding:host_id": NAME,
                "security_groups": [group]});
            let port = cloud.create("port", &port).unwrap();
            let fixed_ips = port["fixed_ips"].as_array().unwrap();
            let address = |fixed: &Value| fixed["ip_address"].as_str().unwrap().parse().unwrap();
            Workload {
                port: id(&port),
                addresses: fixed_ips.iter().map(address).collect(),
                place,
            }
        };
        let workloads = [
            workload("w1", &open),
            workload("w2", &open),
            workload("w3", &closed),
        ];
        Foundation {
            workloads,
            networks: vec![dual, private],
        }
    }
}

/// The one who changes it.
pub struct Operator {
    parts: Parts,
    networks: Vec<String>,
    rng: StdRng,
    cloud: Option<Client>,
    ports: Vec<String>,
    groups: Vec<String>,
    rules: Vec<String>,
    taps: Vec<String>,
    changes: usize,
}

impl Operator {
    /// Has made nothing yet.
    pub fn new(parts: Parts, foundation: &Foundation, seed: u64) -> Operator {
        Operator {
            parts,
            networks: foundation.networks.clone(),
            rng: StdRng::seed_from_u64(seed),
            cloud: None,
            ports: Vec::new(),
            groups: Vec::new(),
            rules: Vec::new(),
            taps: Vec::new(),
            changes: 0,
        }
    }

    /// Changes it until that is over; gives how often. What the server refuses, or is not there to hear,
    /// is no change.
    pub fn run(mut self, over: &AtomicBool) -> usize {
        while !over.load(Ordering::Relaxed) {
            let step = self.step();
            match step {
                Ok(()) => self.changes += 1,
                Err(_) if self.cloud.is_none() => thread::sleep(PAUSE),
                Err(error) if error.downcast_ref::<ureq::Error>().is_some() => thread::sleep(PAUSE),
                Err(_) => {}
            }
        }
        self.changes
    }

    fn step(&mut self) -> Result<()> {
        let cloud = match &self.cloud {
            Some(cloud) => cloud.clone(),
            None => {
                let cloud = client_of(&self.parts.place, &self.parts.clouds_yaml)?;
                self.cloud.insert(cloud).clone()
            }
        };
        match self.rng.random_range(0..20) {
            0..4 => self.make_port(&cloud),
            4..6 => self.delete_port(&cloud),
            6..9 => self.change_port(&cloud),
            9..11 => self.make_group(&cloud),
            11 => self.delete_group(&cloud),
            12..15 => self.make_rule(&cloud),
            15..17 => self.delete_rule(&cloud),
            17 => self.change_network(&cloud),
            18 => self.make_tap(),
            _ => self.remove_tap(),
        }
    }

    fn groups_at_random(&mut self) -> Vec<String> {
        let count = self.rng.random_range(0..4);
        let some = self.groups.choose_multiple(&mut self.rng, count);
        some.cloned().collect()
    }

    fn make_port(&mut self, cloud: &Client) -> Result<()> {
        if self.ports.len() >= MOST {
            return self.delete_port(cloud);
        }
        let host = ["h1", "h1", "h1", "elsewhere"].choose(&mut self.rng);
        let network = self.networks.choose(&mut self.rng);
        let mut port = json!({"network_id": network, "binding:host_id": host});
        port["security_groups"] = json!(self.groups_at_random());
        let port = cloud.create("port", &port)?;
        self.ports.push(id(&port));
        if self.rng.random_bool(0.7) {
            let name = tap(&id(&port));
            self.add_tap(&name)?;
        }
        Ok(())
    }

    fn delete_port(&mut self, cloud: &Client) -> Result<()> {
        let port = take(&mut self.rng, &mut self.ports)?;
        cloud.delete("port", &port)
    }

    fn change_port(&mut self, cloud: &Client) -> Result<()> {
        let port = self.ports.choose(&mut self.rng).context("no port")?.clone();
        let change = match self.rng.random_range(0..5) {
            0 => json!({"admin_state_up": self.rng.random::<bool>()}),
            1 => json!({"allowed_address_pairs": [
                {"ip_address": format!("2001:db8:200:{:x}::/64", self.rng.random_range(0..9))},
                {"ip_address": format!("192.0.2.{}", self.rng.random_range(9..19))}]}),
            2 => json!({"allowed_address_pairs": []}),
            3 => {
                let host = ["h1", "elsewhere"].choose(&mut self.rng);
                json!({"binding:host_id": host})
            }
            _ => json!({"security_groups": self.groups_at_random()}),
        };
        cloud.update("port", &port, &change)
    }

    fn make_group(&mut self, cloud: &Client) -> Result<()> {
        if self.groups.len() >= MOST {
            return self.delete_group(cloud);
        }
        let stateful = self.rng.random_bool(0.8);
        let group = cloud.create(
            "security_group",
            &json!({"name": "some", "stateful": stateful}),
        )?;
        self.groups.push(id(&group));
        Ok(())
    }

    fn delete_group(&mut self, cloud: &Client) -> Result<()> {
        let group = take(&mut self.rng, &mut self.groups)?;
        let deleted = cloud.delete("security_group", &group);
        if deleted.is_err() {
            self.groups.push(group);
        }
        deleted
    }

    fn make_rule(&mut self, cloud: &Client) -> Result<()> {
        let group = self.groups.choose(&mut self.rng).context("no group")?;
        let mut rule = json!({"security_group_id": group});
        let family = ["IPv4", "IPv6"].choose(&mut self.rng).context("two")?;
        rule["ethertype"] = json!(family);
        let direction = ["ingress", "egress"].choose(&mut self.rng);
        rule["direction"] = json!(direction);
        if self.rng.random() {
            let first = self.rng.random_range(1..60_000);
            let protocol = ["tcp", "udp"].choose(&mut self.rng);
            rule["protocol"] = json!(protocol);
            rule["port_range_min"] = json!(first);
            rule["port_range_max"] = json!(first + self.rng.random_range(0..2_000));
        }
        match self.rng.random_range(0..3) {
            0 => rule["remote_group_id"] = json!(self.groups.choose(&mut self.rng)),
            1 if *family == "IPv4" => {
                let length = self.rng.random_range(8..=32);
                rule["remote_ip_prefix"] = json!(format!("{}/{length}", "192.0.2.7"));
            }
            _ => {}
        }
        let rule = cloud.create("security_group_rule", &rule)?;
        self.rules.push(id(&rule));
        Ok(())
    }

    fn delete_rule(&mut self, cloud: &Client) -> Result<()> {
        let rule = take(&mut self.rng, &mut self.rules)?;
        cloud.delete("security_group_rule", &rule)
    }

    /// Of the network that the untouched are not on.
    fn change_network(&mut self, cloud: &Client) -> Result<()> {
        let network = self.networks.last().context("two")?.clone();
        let mtu = self.rng.random_range(1_280..=1_500);
        cloud.update("network", &network, &json!({"mtu": mtu}))
    }

    fn make_tap(&mut self) -> Result<()> {
        let port = self.ports.choose(&mut self.rng).context("no port")?;
        let name = tap(port);
        self.add_tap(&name)
    }

    fn add_tap(&mut self, name: &str) -> Result<()> {
        let words = ["ip", "tuntap", "add", name, "mode", "tap"];
        self.parts.place.run(&words)?;
        self.taps.push(name.to_owned());
        Ok(())
    }

    fn remove_tap(&mut self) -> Result<()> {
        let name = take(&mut self.rng, &mut self.taps)?;
        self.parts.place.run(&["ip", "link", "delete", &name])?;
        Ok(())
    }
}

fn take(rng: &mut StdRng, of: &mut Vec<String>) -> Result<String> {
    let at = rng.random_range(0..of.len().max(1));
    (at < of.len()).then(|| of.swap_remove(at)).context("none")
}

/// The name of a port's link on its host.
pub fn tap(port: &str) -> String {
    let port: PortId = port.parse().unwrap();
    IfName::for_port(port).to_string()
}

fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}
