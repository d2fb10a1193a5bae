//! Who reaches whom.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use serde_json::Value;

use super::{Flat, INTERNET_V4};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach},
};

/// A scan's addresses.
const SCANNED: u32 = 100_000;

/// Workloads on other hosts, on the same host, and machines on the VLAN reach each other, by both families where they
/// have both.
pub fn on_the_link(f: &Flat) -> Result<String> {
    let mut pairs = 0;
    for a in f.workloads() {
        for b in f.workloads().iter().filter(|b| b.name != a.name) {
            a.place.reaches(b.v6.into(), 3)?;
            a.place.reaches(b.v4.into(), 3)?;
            pairs += 1;
        }
    }
    let old = global_address(&f.old)?;
    for w in f.workloads() {
        f.old.reaches(w.v6.into(), 3)?;
        w.place.reaches(old.into(), 3)?;
    }
    Ok(format!(
        "{pairs} ways between workloads, by both families; {old}, a machine on the VLAN, and each workload"
    ))
}

/// The address that a machine has made itself.
pub fn global_address(place: &Node) -> Result<Ipv6Addr> {
    wait_for(Duration::from_secs(10), || {
        let shown = place.run(&[
            "ip",
            "-j",
            "-6",
            "addr",
            "show",
            "scope",
            "global",
            "-tentative",
        ])?;
        let shown: Vec<Value> = serde_json::from_str(&shown)?;
        let addresses = shown
            .iter()
            .flat_map(|l| l["addr_info"].as_array().into_iter().flatten());
        let mut local = addresses.filter_map(|a| a["local"].as_str()?.parse().ok());
        local.next().context("no global address yet")
    })
}

/// Private IPv4 leaves with its own host's address.
pub fn nat(f: &Flat) -> Result<String> {
    let mut seen = Vec::new();
    for (name, own) in [("vm1", "203.0.113.11"), ("vm2", "203.0.113.12")] {
        let vm = f.workload(name)?;
        let source = source_seen(f, &vm.place)?;
        expect(
            source.to_string() == own,
            format!("{name} is seen outside as {source}, its host is {own}"),
        )?;
        vm.place.reaches(INTERNET_V4.into(), 3)?;
        seen.push(format!("{name} on {} is seen as {source}", vm.host));
    }
    Ok(seen.join(", "))
}

/// As whom the internet sees a place.
fn source_seen(f: &Flat, place: &Node) -> Result<IpAddr> {
    let at = SocketAddr::from((INTERNET_V4, 7_777));
    let listener = f.internet.enter(|| {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        anyhow::Ok(socket)
    })??;
    place.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..3 {
            socket.send_to(b"hextet", at)?;
        }
        anyhow::Ok(())
    })??;
    let (_, from) = listener.recv_from(&mut [0; 16]).context("nothing came")?;
    Ok(from.ip())
}

/// IPv6 goes by one VLAN, IPv4 by the other.
pub fn v4_elsewhere(f: &Flat) -> Result<String> {
    let vm = f.workload("vm1")?;
    let shown = f.hosts[0]
        .place
        .run(&["ip", "-4", "-o", "addr", "show", "dev", "vlan30"])?;
    expect(shown.is_empty(), format!("h1 has IPv4 on vlan30: {shown}"))?;
    let v4 = Counter::place(&f.router, "iifname vlan20 ip protocol icmp")?;
    let v6 = Counter::place(&f.router, "iifname vlan30 icmpv6 type echo-request")?;
    vm.place.reaches(INTERNET_V4.into(), 3)?;
    vm.place.reaches(super::INTERNET_V6.into(), 3)?;
    let (v4, v6) = (v4.take()?, v6.take()?);
    expect(
        v4 > 0 && v6 > 0,
        format!("the router saw {v4} packets of IPv4 on vlan20 and {v6} of IPv6 on vlan30"),
    )?;
    Ok("vm1's IPv6 leaves by vlan30, where hosts have no IPv4, and its IPv4 by vlan20".to_owned())
}

/// Somebody outside tries addresses of the VLAN's prefix, one after the other.
pub fn scan(f: &Flat) -> Result<String> {
    let base = u128::from(f.workload("vm1")?.v6) & !0xffff_ffff;
    f.internet.enter(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        for n in 0..SCANNED {
            let to = SocketAddr::from((Ipv6Addr::from(base | u128::from(n)), 9));
            let _ = socket.send_to(b"", to);
        }
        anyhow::Ok(())
    })??;
    let shown = f
        .router
        .run(&["ip", "-j", "-6", "neigh", "show", "dev", "vlan30"])?;
    let shown: Vec<Value> = serde_json::from_str(&shown)?;
    let resolved = shown.iter().filter(|n| n["lladdr"].is_string()).count();
    // Of each host and machine its link-local and its global address.
    let allocated = f.workloads().len() + 2 * (f.hosts.len() + 1);
    expect(
        resolved <= allocated,
        format!("the router holds {resolved} neighbours, {allocated} addresses are there"),
    )?;
    for host in &f.hosts {
        let shown = host
            .place
            .run(&["ip", "-j", "-6", "neigh", "show", "dev", "vlan30"])?;
        let shown: Vec<Value> = serde_json::from_str(&shown)?;
        expect(
            shown.len() <= 20,
            format!("{} holds {} neighbours", host.name, shown.len()),
        )?;
    }
    for w in f.workloads() {
        f.internet.reaches(w.v6.into(), 3)?;
    }
    Ok(format!(
        "{SCANNED} addresses tried from outside: the router holds {resolved} neighbours that answered, of {allocated} that are there"
    ))
}
