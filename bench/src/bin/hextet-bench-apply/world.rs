//! The lab, the server in it, and the ports that it is told of.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_lab::{Lab, LabFile, LabGuard, Node};
use serde_json::{Value, json};

use crate::rest::{Cloud, text};

const CLIENTS: &str = "[fd00:10::100]:9796";
/// Where agents find the server.
pub const AGENTS: &str = "[fd00:10::100]:9797";
const STARTING: Duration = Duration::from_secs(20);
/// Ports made by one request.
const BULK: usize = 500;

const LAB: &str = r#"
name = "apply"
description = "one host with many ports"
[node.cloud]
[node.host]
[node.one]
[node.two]
[node.guests]
[[link]]
a = { node = "host", dev = "mgmt", addresses = ["fd00:10::1/64"] }
b = { node = "cloud", dev = "mgmt", addresses = ["fd00:10::100/64"] }
"#;

/// The lab with its server.
pub struct World {
    /// Its namespaces and processes, which end with it.
    pub lab: LabGuard,
    program: PathBuf,
    config: PathBuf,
    /// The server's client.
    pub cloud: Cloud,
    /// The network of all ports.
    pub network: String,
    /// Its IPv6 subnet.
    pub subnet_v6: String,
    /// The group of all ports.
    pub group: String,
}

/// A port with a namespace behind it.
#[derive(Clone)]
pub struct Workload {
    /// Where its programs run.
    pub place: Node,
    /// The port, as the cloud describes it.
    port: Value,
    /// Its addresses.
    pub v4: Ipv4Addr,
    /// See above.
    pub v6: Ipv6Addr,
}

impl World {
    /// Makes the namespaces, starts the server, and makes the network and the group of all ports.
    ///
    /// # Errors
    ///
    /// Something can't be made (this needs root).
    pub fn new(program: &Path) -> Result<World> {
        let name = format!("apply{}", std::process::id());
        let lab = Lab::up(LabFile::parse(LAB, Path::new("apply"))?.named(&name)?)?.guard();
        let place = lab.node("cloud")?;
        let dir = lab.node_directory("cloud");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (config, clouds_yaml) = (dir.join("server.toml"), dir.join("clouds.yaml"));
        let settings = format!(
            "listen = \"{CLIENTS}\"\nagents = \"{AGENTS}\"\ndata_dir = \"{0}/data\"\n\
             clouds_yaml = \"{0}/clouds.yaml\"\nadmin_socket = \"{0}/server.sock\"\n",
            dir.display()
        );
        fs::write(&config, settings).with_context(|| format!("write {}", config.display()))?;
        let mut command = Command::new(program);
        command.arg("server").arg("--config").arg(&config);
        let server = lab.spawn(&place, "server", &mut command)?;
        let url = format!("http://{CLIENTS}");
        let cloud = wait_for(STARTING, || {
            if !server.runs() {
                bail!("the server has ended:\n{}", server.log());
            }
            Cloud::login(&place, &url, &clouds_yaml)
        })?;
        let routed = json!({"name": "all", "provider:network_type": "routed"});
        let made = cloud.create("network", routed)?;
        let network = text(&made, "id")?;
        cloud.lift_quotas(&text(&made, "project_id")?)?;
        let v6 = json!({"network_id": network, "ip_version": 6, "cidr": "2001:db8:100::/64"});
        let subnet_v6 = text(&cloud.create("subnet", v6)?, "id")?;
        let v4 = json!({"network_id": network, "ip_version": 4, "cidr": "10.10.0.0/16"});
        cloud.create("subnet", v4)?;
        let group = text(
            &cloud.create("security_group", json!({"name": "all"}))?,
            "id",
        )?;
        Ok(World {
            lab,
            program: program.to_owned(),
            config,
            cloud,
            network,
            subnet_v6,
            group,
        })
    }

    /// A one-time token for the host.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn join_token(&self) -> Result<String> {
        let (program, config) = (
            self.program.to_string_lossy(),
            self.config.to_string_lossy(),
        );
        let words = ["server", "join-token", "--host", "host", "--config"];
        let mut all = vec![program.as_ref()];
        all.extend(words);
        all.push(config.as_ref());
        Ok(self.lab.node("cloud")?.run(&all)?.trim().to_owned())
    }

    /// What a port of the group of all says of itself, on that host or on none yet.
    pub fn port(&self, host: Option<&str>) -> Value {
        let mut port = json!({
            "network_id": self.network,
            "device_owner": "compute:nova",
            "security_groups": [self.group],
        });
        if let Some(host) = host {
            port["binding:host_id"] = json!(host);
        }
        port
    }

    /// Makes so many ports on the host.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn create_ports(&self, count: usize) -> Result<Vec<Value>> {
        let mut ports = Vec::with_capacity(count);
        while ports.len() < count {
            let now = BULK.min(count - ports.len());
            ports.extend(
                self.cloud
                    .create_ports(&vec![self.port(Some("host")); now])?,
            );
        }
        Ok(ports)
    }

    /// Allows UDP to a range of ports into a group; gives the rule's id.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn allow(
        &self,
        group: &str,
        ethertype: &str,
        ports: (u16, u16),
        remote: Option<&str>,
    ) -> Result<String> {
        let rule = json!({
            "security_group_id": group, "direction": "ingress", "ethertype": ethertype,
            "protocol": "udp", "port_range_min": ports.0, "port_range_max": ports.1,
            "remote_group_id": remote,
        });
        text(&self.cloud.create("security_group_rule", rule)?, "id")
    }

    /// Puts a namespace behind a port, with the port's addresses, before any agent comes.
    ///
    /// # Errors
    ///
    /// The links can't be made.
    pub fn plug(&self, node: &str, port: &Value) -> Result<Workload> {
        let place = self.lab.node(node)?;
        let (host, link) = (self.lab.node("host")?, link_of(port)?);
        let peer = [
            "ip",
            "link",
            "add",
            &link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            place.netns(),
        ];
        host.run(&peer)?;
        host.run(&["ip", "link", "set", &link, "up"])?;
        let (v4, v6) = addresses(port)?;
        let batch = format!(
            "link set lo up\nlink set eth0 address {}\nlink set eth0 up\n\
             address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad\n\
             route add 10.10.0.1 dev eth0\nroute add default via 10.10.0.1\n\
             route add default via fe80::1 dev eth0\n",
            text(port, "mac_address")?
        );
        let file = self.lab.node_directory(node).with_extension("batch");
        fs::write(&file, batch).with_context(|| format!("write {}", file.display()))?;
        place.run(&["ip", "-batch", &file.to_string_lossy()])?;
        Ok(Workload {
            place,
            port: port.clone(),
            v4,
            v6,
        })
    }
}

impl Workload {
    /// The address of that family.
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// The port's id.
    ///
    /// # Errors
    ///
    /// The cloud told none.
    pub fn id(&self) -> Result<String> {
        text(&self.port, "id")
    }
}

fn addresses(port: &Value) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let fixed = port["fixed_ips"].as_array().context("no fixed_ips")?;
    let (mut v4, mut v6) = (None, None);
    for address in fixed {
        match text(address, "ip_address")?.parse()? {
            IpAddr::V4(address) => v4 = Some(address),
            IpAddr::V6(address) => v6 = Some(address),
        }
    }
    Ok((
        v4.context("no IPv4 address")?,
        v6.context("no IPv6 address")?,
    ))
}

/// The name of a port's link, as Nova makes it.
///
/// # Errors
///
/// The port has no id.
pub fn link_of(port: &Value) -> Result<String> {
    let id = text(port, "id")?;
    Ok(format!("tap{}", id.get(..11).context("a short id")?))
}

/// Tries until it works; gives the last failure after `limit`.
///
/// # Errors
///
/// It never worked.
pub fn wait_for<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() >= limit => {
                return Err(error.context(format!("still so after {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
