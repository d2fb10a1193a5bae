//! Workloads: a port, something plugged into it, and the clients that configure it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use hextet_types::Family;
use serde_json::json;

use crate::{
    clients,
    hypervisor::Hypervisor,
    rest::{Cloud, addresses, text},
};

/// A port and who is behind it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For people.
    pub name: String,
    /// The port's id.
    pub port: String,
    /// The name of the network.
    pub network: String,
    /// The host that it is on.
    pub host: String,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: String,
    /// Where its commands run.
    pub place: Node,
}

/// How a workload gets its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The kernel's SLAAC, and dhclient for IPv4.
    SlaacAndDhcpv4,
    /// dhclient for both.
    Dhcpv6AndDhcpv4,
    /// By hand: a static /64 and /24, as an old image has it.
    Static,
}

impl Workload {
    /// Makes a port on that network, bound to that host.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn create(
        cloud: &Cloud,
        place: Node,
        name: &str,
        network: (&str, &str),
        host: &Hypervisor,
        groups: &[&str],
    ) -> Result<Workload> {
        let mut attributes = json!({
            "name": name,
            "network_id": network.1,
            "device_id": name,
            "device_owner": "compute:nova",
            "binding:host_id": host.name,
        });
        if !groups.is_empty() {
            attributes["security_groups"] = json!(groups);
        }
        let port = cloud.create("port", attributes)?;
        let addresses = addresses(&port)?;
        let v6 = addresses.iter().find_map(|a| match a {
            IpAddr::V6(a) => Some(*a),
            IpAddr::V4(_) => None,
        });
        let v4 = addresses.iter().find_map(|a| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        });
        Ok(Workload {
            name: name.to_owned(),
            port: text(&port, "id")?,
            network: network.0.to_owned(),
            host: host.name.clone(),
            v6: v6.context("the port has no IPv6 address")?,
            v4: v4.context("the port has no IPv4 address")?,
            mac: text(&port, "mac_address")?,
            place,
        })
    }

    /// Plugs the port into its namespace.
    ///
    /// # Errors
    ///
    /// The agent does not get the port going.
    pub fn plug(&self, host: &Hypervisor) -> Result<()> {
        host.hextet(&["port", "attach", &self.port, "--netns", self.place.netns()])
            .map(drop)
    }

    /// Runs the clients and waits until the addresses are there.
    ///
    /// # Errors
    ///
    /// They are not there in time.
    pub fn configure(&self, clients: Clients, state: &Path) -> Result<()> {
        match clients {
            Clients::SlaacAndDhcpv4 => clients::dhclient(&self.place, Family::V4, state)?,
            Clients::Dhcpv6AndDhcpv4 => {
                for family in Family::BOTH {
                    clients::dhclient(&self.place, family, state)?;
                }
            }
            Clients::Static => self.by_hand()?,
        }
        clients::has(&self.place, IpAddr::V6(self.v6))?;
        clients::has(&self.place, IpAddr::V4(self.v4))
    }

    fn by_hand(&self) -> Result<()> {
        let (v6, v4) = (format!("{}/64", self.v6), format!("{}/24", self.v4));
        let gateway = Ipv4Addr::from(u32::from(self.v4) & 0xffff_ff00 | 1).to_string();
        self.place
            .run(&["ip", "addr", "replace", &v6, "dev", "eth0", "nodad"])?;
        self.place
            .run(&["ip", "addr", "replace", &v4, "dev", "eth0"])?;
        self.place
            .run(&["ip", "route", "replace", "default", "via", &gateway])?;
        self.place.run(&[
            "ip", "-6", "route", "replace", "default", "via", "fe80::1", "dev", "eth0",
        ])?;
        Ok(())
    }
}
