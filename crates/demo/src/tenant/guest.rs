//! Guests: ports of projects, bound by the administrator as Nova does it, with something plugged into them.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use hextet_lab::{Lab, Node};
use hextet_types::{Family, Mac, Prefix};
use serde_json::{Value, json};

use super::{
    Tenant,
    project::{Network, Project},
};
use crate::{
    clients,
    hypervisor::Hypervisor,
    probe::Reach,
    rest::{Cloud, addresses, text},
};

/// A port and who is behind it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// For people; also the node's name.
    pub name: String,
    /// The port's id.
    pub port: String,
    /// The network.
    pub network: Network,
    /// Which of the hypervisors it is on, counted from 0.
    pub host: usize,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where its commands run.
    pub place: Node,
}

impl Guest {
    /// Makes a port, binds and plugs it, and waits until the clients have configured it.
    ///
    /// # Errors
    ///
    /// The cloud refuses, or an address does not come.
    pub fn start(
        (lab, admin, hosts): (&Lab, &Cloud, &[Hypervisor]),
        (project, network): (&Project, &Network),
        (name, host): (&str, usize),
        attributes: &Value,
    ) -> Result<Guest> {
        let on = hosts.get(host).context("no such host")?;
        let mut asked = json!({
            "name": name, "network_id": network.id, "security_groups": [project.open],
        });
        for (key, value) in attributes.as_object().into_iter().flatten() {
            asked[key] = value.clone();
        }
        let port = text(&project.cloud.create("port", asked)?, "id")?;
        let binding = json!({
            "binding:host_id": on.name, "device_id": name, "device_owner": "compute:nova",
        });
        let port = admin.update("port", &port, binding)?;
        if port["binding:vif_type"] == json!("binding_failed") {
            bail!("{name} can't be bound to {}", on.name);
        }
        let guest = Guest {
            name: name.to_owned(),
            port: text(&port, "id")?,
            network: network.clone(),
            host,
            mac: text(&port, "mac_address")?.parse()?,
            addresses: addresses(&port)?,
            place: lab.node(name)?,
        };
        guest.plug(on)?;
        guest
            .configure(&lab.node_directory(name))
            .with_context(|| format!("the clients of {name}"))?;
        Ok(guest)
    }

    /// Its link is as wide as an image's would be that knows of no tunnels: so what it uses later, it was told.
    fn plug(&self, host: &Hypervisor) -> Result<()> {
        host.hextet(&["port", "attach", &self.port, "--netns", self.place.netns()])?;
        self.place
            .run(&["ip", "link", "set", "eth0", "mtu", "1500"])?;
        Ok(())
    }

    /// Runs the clients that its addresses need, and waits.
    ///
    /// # Errors
    ///
    /// An address does not come.
    pub fn configure(&self, state: &Path) -> Result<()> {
        if self.of(Family::V4).is_ok() {
            clients::dhclient(&self.place, Family::V4, state)?;
        }
        self.addresses
            .iter()
            .try_for_each(|address| clients::has(&self.place, *address))
    }

    /// Its address of that family.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn of(&self, family: Family) -> Result<IpAddr> {
        let mut all = self.addresses.iter();
        let found = all.find(|a| Family::of(**a) == family);
        found
            .copied()
            .with_context(|| format!("{} has no {family} address", self.name))
    }

    /// Its address in that prefix.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn within(&self, prefix: &str) -> Result<IpAddr> {
        let prefix: Prefix = prefix.parse()?;
        let mut all = self.addresses.iter();
        let found = all.find(|address| prefix.contains(**address));
        found
            .copied()
            .with_context(|| format!("{} has no address in {prefix}", self.name))
    }

    /// Its network's name.
    ///
    /// # Errors
    ///
    /// The cloud knows none such.
    pub fn network_name(&self, t: &Tenant) -> Result<String> {
        text(&t.admin.show("network", &self.network.id)?, "name")
    }

    /// What the host says of an echo request to that address is what becomes of it, as far as that host goes.
    ///
    /// # Errors
    ///
    /// It says something else.
    pub fn explains(&self, t: &Tenant, to: IpAddr, passes: bool) -> Result<()> {
        let echo_request = if to.is_ipv4() { "8" } else { "128" };
        let to = to.to_string();
        let words = [
            "explain",
            "--from",
            &self.port,
            "--to",
            &to,
            "--icmp",
            echo_request,
        ];
        let host = t.hosts.get(self.host).context("no such host")?;
        let (said, delivered) = host.hextet_says(&words)?;
        if delivered != passes {
            bail!(
                "hextet explain on {} of {} to {to}:\n{said}",
                host.name,
                self.name
            );
        }
        Ok(())
    }

    /// It gets answers from that address, as its host explains.
    ///
    /// # Errors
    ///
    /// It gets none, or the host explains otherwise.
    pub fn reaches(&self, t: &Tenant, to: IpAddr) -> Result<()> {
        self.place.reaches(to, 10)?;
        self.explains(t, to, true)
    }

    /// It gets no answers from that address, as its host explains.
    ///
    /// # Errors
    ///
    /// It gets some, or the host explains otherwise.
    pub fn does_not_reach(&self, t: &Tenant, to: IpAddr) -> Result<()> {
        self.place.does_not_reach(to)?;
        self.explains(t, to, false)
    }

    /// Takes the port away; what was plugged goes, too.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn delete(&self, admin: &Cloud, host: &Hypervisor) -> Result<()> {
        admin.delete("port", &self.port)?;
        host.hextet(&["port", "detach", &self.port]).map(drop)
    }
}
