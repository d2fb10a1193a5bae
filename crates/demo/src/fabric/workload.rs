//! Workloads: a port, something plugged into it, and the clients that configure it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use serde_json::{Value, json};

use super::hypervisor::Hypervisor;
use crate::{
    check::{expect, wait_for},
    rest::Cloud,
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
            Clients::SlaacAndDhcpv4 => self.dhclient("-4", state)?,
            Clients::Dhcpv6AndDhcpv4 => {
                self.dhclient("-4", state)?;
                self.dhclient("-6", state)?;
            }
            Clients::Static => self.by_hand()?,
        }
        self.has(IpAddr::V6(self.v6))?;
        self.has(IpAddr::V4(self.v4))
    }

    fn dhclient(&self, family: &str, state: &Path) -> Result<()> {
        let file = |kind: &str| -> Result<String> {
            let path: PathBuf = state.join(format!("{}{family}.{kind}", self.name));
            path.to_str()
                .map(str::to_owned)
                .context("a path that is no text")
        };
        fs::write(file("conf")?, "timeout 20;\n")?;
        let (pid, leases, conf) = (file("pid")?, file("leases")?, file("conf")?);
        let words = [
            "dhclient", family, "-1", "-cf", &conf, "-pf", &pid, "-lf", &leases, "-sf", SCRIPT,
            "eth0",
        ];
        fs::write(SCRIPT, DHCLIENT_SCRIPT)?;
        make_executable(Path::new(SCRIPT))?;
        Ok(self.place.run(&words).map(drop)?)
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

    fn has(&self, address: IpAddr) -> Result<()> {
        wait_for(Duration::from_secs(20), || {
            let shown = self
                .place
                .run(&["ip", "-o", "addr", "show", "dev", "eth0"])?;
            let needle = format!(" {address}/");
            let line = shown.lines().find(|l| l.contains(&needle));
            expect(
                line.is_some_and(|l| !l.contains("tentative")),
                format!("{} has no usable {address}", self.name),
            )
        })
    }
}

const SCRIPT: &str = "/run/hextet-demo-dhclient-script";

/// What dhclient runs: sets the address and the routes, and nothing of the machine around it.
const DHCLIENT_SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
    ip link set "$interface" mtu "${new_interface_mtu:-1500}"
    ip -4 addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    for router in $new_routers; do
        ip -4 route replace "$router" dev "$interface" scope link
        ip -4 route replace default via "$router" dev "$interface"
    done ;;
BOUND6|RENEW6|REBIND6)
    ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
PREINIT)
    ip link set "$interface" up ;;
PREINIT6)
    ip link set "$interface" up
    for try in $(seq 100); do
        ip -6 -o addr show dev "$interface" scope link -tentative | grep -q fe80 && break
        sleep 0.1
    done ;;
esac
exit 0
"#;

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("make {} executable", path.display()))
}

fn addresses(port: &Value) -> Result<Vec<IpAddr>> {
    let fixed = port["fixed_ips"]
        .as_array()
        .context("the port has no fixed_ips")?;
    fixed
        .iter()
        .map(|f| Ok(text(f, "ip_address")?.parse()?))
        .collect()
}

/// A text attribute.
///
/// # Errors
///
/// It is not there, or no text.
pub fn text(value: &Value, name: &str) -> Result<String> {
    value[name]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no text '{name}' in {value}"))
}
