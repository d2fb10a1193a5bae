//! Ports of the host's own IPv4 addresses that lead to workloads.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cloud::{Cloud, text};

/// The attribute of ports.
const EXPOSED: &str = "hextet:exposed";

/// One exposed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// `tcp`, `udp`, `sctp` or `dccp`.
    pub protocol: String,
    /// Of the host.
    pub external_port: u16,
    /// Of the workload.
    pub internal_port: u16,
}

/// A row of what is exposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exposed {
    /// The workload.
    pub name: String,
    /// What leads to it.
    #[serde(flatten)]
    pub exposure: Exposure,
}

/// Opens a port of the host.
///
/// # Errors
///
/// There is no such workload, or the port leads elsewhere.
pub fn open(cloud: &Cloud, name: &str, exposure: Exposure) -> Result<()> {
    let port = cloud.port(name)?;
    let mut all = of(&port)?;
    let same = |e: &Exposure| {
        (&e.protocol, e.external_port) == (&exposure.protocol, exposure.external_port)
    };
    all.retain(|e| !same(e));
    all.push(exposure);
    set(cloud, &port, &all)
}

/// Closes one again.
///
/// # Errors
///
/// There is no such workload, or the port does not lead to it.
pub fn close(cloud: &Cloud, name: &str, protocol: &str, external_port: u16) -> Result<()> {
    let port = cloud.port(name)?;
    let mut all = of(&port)?;
    let before = all.len();
    all.retain(|e| (e.protocol.as_str(), e.external_port) != (protocol, external_port));
    if all.len() == before {
        bail!(
            "{protocol} port {external_port} does not lead to {name}: 'hextet expose' lists those that do"
        );
    }
    set(cloud, &port, &all)
}

/// All of this host.
///
/// # Errors
///
/// The server does not answer.
pub fn list(cloud: &Cloud) -> Result<Vec<Exposed>> {
    let mut rows = Vec::new();
    for port in cloud.list("ports", "")? {
        for exposure in of(&port)? {
            let name = text(&port, "name").to_owned();
            rows.push(Exposed { name, exposure });
        }
    }
    rows.sort_by_key(|row| (row.exposure.external_port, row.exposure.protocol.clone()));
    Ok(rows)
}

fn of(port: &Value) -> Result<Vec<Exposure>> {
    match &port[EXPOSED] {
        Value::Null => Ok(Vec::new()),
        all => Ok(serde_json::from_value(all.clone())?),
    }
}

fn set(cloud: &Cloud, port: &Value, all: &[Exposure]) -> Result<()> {
    let change = json!({EXPOSED: all});
    cloud
        .update(("ports", "port"), text(port, "id"), &change)
        .map(drop)
}
