//! The way out of the mesh, by nodes that lead others there.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_types::{Family, Prefix};

use super::{INTERVAL, MEETING, Mesh, member::Member, reach::LOOKED};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach as _, finish},
};

/// Who leads others out, by which addresses, and by whom its own packets leave.
const LEAD: [(&str, [&str; 2], &str); 2] = [
    ("p1", ["2001:db8:1::2", "192.0.2.10"], "2001:db8:1::1"),
    ("p2", ["2001:db8:2::2", "192.0.2.18"], "2001:db8:2::1"),
];
/// Who leaves by them; of IPv6 it has nothing else.
const LEAVES: &str = "n1";
/// Outside of the mesh.
const WORLD: [&str; 2] = ["2001:db8:30::1", "198.51.100.25"];
/// Echo requests of which each has to be seen out there.
const SEEN: u64 = 10;

/// What the configuration of a node says of that.
pub fn config(name: &str) -> &'static str {
    match name {
        LEAVES => "default = true\n",
        name if LEAD.iter().any(|(leads, ..)| *leads == name) => "gateway = true\n",
        _ => "",
    }
}

/// A node without IPv6 of its own reaches the world by the mesh, of both families; another takes over when the gateway has no way any more.
pub fn out(m: &Mesh) -> Result<String> {
    let (n1, n2) = (m.member(LEAVES)?, m.member("n2")?);
    let [v6, v4] = WORLD;
    wait_for(MEETING, || reaches(n1, v6))?;
    let own = n1.status()?.ipv4()?;
    let seen = echoes(m, 0, |_| reaches(n1, v6))?;
    let seen_v4 = echoes(m, 1, |_| {
        let asked = ["ping", "-c", "1", "-W", "2", "-I", &own, v4];
        n1.place.run(&asked).map(drop).map_err(Into::into)
    })?;
    // Whoever has not said that it wants that leaves as ever: not at all.
    expect(reaches(n2, v6).is_err(), "n2 reaches the world, too")?;
    inside(n1, n2, &own)?;
    let gap = taken_over(m, n1)?;
    Ok(format!(
        "{LEAVES} reaches {v6} by {seen}, and {v4} from {own} by {seen_v4}; without its own way the gateway gives way to the other within {} ms",
        gap.as_millis()
    ))
}

fn reaches(from: &Member, to: &str) -> Result<()> {
    let to: IpAddr = to.parse()?;
    from.place.reaches(to, 2)
}

/// By whom they were seen to leave; nobody outside sees the mesh's own addresses.
fn echoes(m: &Mesh, family: usize, ping: impl Fn(u64) -> Result<()>) -> Result<&'static str> {
    let kind = ["ip6 saddr", "ip saddr"];
    let kind = kind.get(family).context("two families")?;
    let mut counters = Vec::new();
    for (name, addresses, _) in LEAD {
        let address = addresses.get(family).context("two families")?;
        let what = format!("iifname {name} {kind} {address} meta l4proto {{ icmp, icmpv6 }}");
        counters.push((name, Counter::place(&m.internet, &what)?));
    }
    (0..SEEN).try_for_each(ping)?;
    let mut by = Vec::new();
    for (name, counter) in counters {
        by.push((counter.take()?, name));
    }
    let (seen, name) = by.into_iter().max().context("two gateways")?;
    expect(
        seen >= SEEN,
        format!("of {SEEN} echoes {seen} were seen to leave by {name}"),
    )?;
    Ok(name)
}

/// IPv4 between nodes.
fn inside(from: &Member, to: &Member, own: &str) -> Result<()> {
    let other = to.status()?.ipv4()?;
    for _ in 0..SEEN {
        let asked = ["ping", "-c", "1", "-W", "2", "-I", own, &other];
        from.place.run(&asked)?;
    }
    Ok(())
}

/// The longest time without an answer.
fn taken_over(m: &Mesh, from: &Member) -> Result<Duration> {
    let by = wait_for(MEETING, || gateway_of(m, from))?;
    let (_, _, next) = LEAD.iter().find(|(name, ..)| *name == by).context(by)?;
    let at = m.member(by)?;
    let [world, _] = WORLD;
    let stream = m
        .lab
        .ping_stream(&from.place, "ping-world", world, INTERVAL)?;
    thread::sleep(LOOKED);
    let words = ["ip", "-6", "route", "del", "default", "via", next];
    at.place.run(&words)?;
    let other = wait_for(MEETING, || {
        let now = gateway_of(m, from)?;
        expect(now != by, format!("{by} is still the way out"))?;
        reaches(from, world)
    });
    let words = ["ip", "-6", "route", "add", "default", "via", next];
    at.place.run(&words)?;
    other?;
    let reports = finish(vec![stream])?;
    let gaps = reports.into_iter().map(|report| report.longest_gap);
    Ok(gaps.max().unwrap_or_default())
}

/// By whom what is for the world goes, of IPv6, as the node says.
fn gateway_of(m: &Mesh, from: &Member) -> Result<&'static str> {
    let status = from.status()?;
    let mut routes = status.routes.iter();
    let all = Prefix::default_route(Family::V6);
    let out = routes.find(|route| route.chosen && route.to == all);
    let hop = out.and_then(|route| route.via.as_ref()?.node.as_deref());
    let name = m.name_of(hop.context("no way out")?).to_owned();
    let mut leads = LEAD.iter().map(|(name, ..)| *name);
    leads
        .find(|lead| *lead == name)
        .with_context(|| format!("the way out begins with {name}"))
}
