//! Two nodes on one network, between which packets go as they are.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Context, Result};

use super::{Mesh, member::Member, reach::pings};
use crate::{
    check::{expect, wait_for},
    probe::Counter,
};

/// Who is on it.
pub const HERE: [&str; 2] = ["l1", "l2"];
/// What their configuration says.
pub const CONFIG: &str = "lan.eth0 = \"bare\"\n";
/// How long a tunnel that stood before may take to go.
const LEAVING: Duration = Duration::from_secs(60);
/// Echo requests of which each has to be seen on its way.
const SEEN: u64 = 10;

/// They have no tunnel with each other, and their packets are seen on the network with the addresses of the mesh.
pub fn without_tunnel(m: &Mesh) -> Result<String> {
    let [one, other] = HERE.map(|name| m.member(name));
    let (one, other) = (one?, other?);
    wait_for(LEAVING, || {
        alone(one, other)?;
        alone(other, one)
    })?;
    let (there, back) = (
        seen(other, one.home, other.home)?,
        seen(one, other.home, one.home)?,
    );
    pings(one, other)?;
    let (there, back) = (there.take()?, back.take()?);
    expect(
        there >= SEEN && back >= SEEN,
        format!("of {SEEN} echoes {there} and {back} packets were seen as they are"),
    )?;
    let beside = one.status()?.lan;
    let beside = beside.iter().find(|beside| beside.node == other.id);
    let beside = beside.with_context(|| format!("{} shows nobody on its network", one.name))?;
    let round_trip = beside.round_trip_ms.unwrap_or_default();
    Ok(format!(
        "{} and {} have no tunnel with each other; of {SEEN} echoes {there} and {back} packets were seen on {} as they are, {round_trip:.1} ms away",
        one.name,
        other.name,
        beside.interface.as_deref().unwrap_or("?"),
    ))
}

fn alone(from: &Member, to: &Member) -> Result<()> {
    let status = from.status()?;
    let mut tunnels = status.tunnels.iter();
    expect(
        !tunnels.any(|tunnel| tunnel.node == to.id),
        format!("{} has a tunnel with {}", from.name, to.name),
    )?;
    expect(
        status.next_to(to)? == to.id,
        format!("{} reaches {} by somebody else", from.name, to.name),
    )
}

/// Packets of the mesh that come by the network itself.
fn seen(at: &Member, from: Ipv6Addr, to: Ipv6Addr) -> Result<Counter<'_>> {
    Counter::place(
        &at.place,
        &format!("iifname eth0 ip6 saddr {from} ip6 daddr {to}"),
    )
}
