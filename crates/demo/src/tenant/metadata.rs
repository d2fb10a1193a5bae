//! What workloads are told of themselves, at the addresses where stock images ask.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Tenant, guest::Guest, outside::Outside};
use crate::{
    check::{expect, wait_for},
    rest::Cloud,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
/// How long a change may take to be told, and an answer to come.
const TOLD: Duration = Duration::from_secs(10);

/// Guests with the same addresses in two projects, and one with IPv6 alone, are each told of themselves.
pub fn both_families(t: &Tenant, o: &Outside) -> Result<String> {
    let [red, blue] = &t.projects[..] else {
        bail!("two projects");
    };
    let v6_alone = o.of_v6_alone();
    let asking = [
        (&red.cloud, t.guest("red1")?),
        (&blue.cloud, t.guest("blue1")?),
        (&red.cloud, v6_alone),
    ];
    for (cloud, guest) in asking {
        describe(cloud, guest)?;
    }
    for (_, guest) in asking {
        let v4 = guest.addresses.iter().any(IpAddr::is_ipv4).then_some(V4);
        let global = v4.into_iter().chain([V6]);
        let on_link = SocketAddrV6::new(LINK_LOCAL, 80, 0, zone(guest)?);
        let all = global.map(|addr| SocketAddr::new(addr, 80));
        for at in all.chain([SocketAddr::V6(on_link)]) {
            wait_for(TOLD, || is_told_of_itself(guest, at))
                .with_context(|| format!("{} asks at {at}", guest.name))?;
        }
    }
    Ok(format!(
        "red1 and blue1 with the same addresses, and {} with IPv6 alone: each its own name, key and user data, at \
         {V4}, {LINK_LOCAL} and {V6}",
        v6_alone.name
    ))
}

/// As its owner says.
fn describe(cloud: &Cloud, guest: &Guest) -> Result<()> {
    let metadata = json!({
        "hostname": host_name(guest),
        "public_keys": {"owner": key(guest)},
        // "#!/bin/sh"
        "user_data": "IyEvYmluL3No",
    });
    let changed = json!({"hextet:metadata": metadata});
    cloud.update("port", &guest.port, changed).map(drop)
}

fn host_name(guest: &Guest) -> String {
    format!("{}.example.org", guest.name)
}

fn key(guest: &Guest) -> String {
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 {}", guest.name)
}

fn is_told_of_itself(guest: &Guest, at: SocketAddr) -> Result<()> {
    let name = get(guest, at, "/latest/meta-data/hostname")?;
    expect(
        name.trim() == host_name(guest),
        format!("it is told to be {name}"),
    )?;
    let all: Value = serde_json::from_str(&get(guest, at, "/openstack/latest/meta_data.json")?)?;
    expect(
        all["public_keys"]["owner"] == json!(key(guest)),
        format!("its keys are {}", all["public_keys"]),
    )?;
    let script = get(guest, at, "/openstack/latest/user_data")?;
    expect(script == "#!/bin/sh", format!("its user data are {script}"))
}

/// The number of the guest's link.
fn zone(guest: &Guest) -> Result<u32> {
    let shown = guest.place.run(&["ip", "-j", "link", "show", "eth0"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let index = shown[0]["ifindex"]
        .as_u64()
        .context("a link without index")?;
    Ok(u32::try_from(index)?)
}

fn get(guest: &Guest, at: SocketAddr, path: &str) -> Result<String> {
    let answer = guest.place.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, TOLD)?;
        stream.set_read_timeout(Some(TOLD))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: metadata\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("{path}: {answer}"),
    }
}
