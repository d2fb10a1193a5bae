//! Two nodes with routes to each other that are none of the mesh's, and what happens when those fail.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::PingStream;

use super::{
    Mesh,
    member::Member,
    reach::{LOOKED, REROUTE, pings},
};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, finish},
};

/// How long the node may take to find such a route, and until it is good again.
const FOUND: Duration = Duration::from_secs(20);
/// Echo requests of which each has to be seen on the wire.
const SEEN: u64 = 10;

/// The wire is used while it carries; when it does not, though its ends see nothing, and when it is cut, the mesh takes over.
pub fn fails_over(m: &Mesh) -> Result<String> {
    let (p1, p2) = (m.member("p1")?, m.member("p2")?);
    for (from, to, next) in [(p1, p2, "fe80::b"), (p2, p1, "fe80::a")] {
        let prefixes = to.status()?.prefixes;
        let prefix = prefixes.first().context("no prefix")?;
        let words = format!("-6 route add {prefix} via {next} dev wire metric 100");
        let route: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        from.place.run(&route)?;
    }
    both_show(p1, p2, true)?;
    carries(p1, p2, true)?;

    let streams = both_ways(m)?;
    silence(p2, true)?;
    both_show(p1, p2, false)?;
    carries(p1, p2, false)?;
    let silent = longest(streams)?;

    let streams = both_ways(m)?;
    silence(p2, false)?;
    both_show(p1, p2, true)?;
    carries(p1, p2, true)?;
    let back = longest(streams)?;

    let streams = both_ways(m)?;
    p1.place.run(&["ip", "link", "set", "wire", "down"])?;
    let cut = longest(streams)?;
    p1.place.run(&["ip", "link", "set", "wire", "up"])?;
    Ok(format!(
        "p1 and p2 by a wire of their own; it falls silent: the mesh carries after {} ms; it is good again: it carries, {} ms without an answer; it is cut: {} ms",
        silent.as_millis(),
        back.as_millis(),
        cut.as_millis(),
    ))
}

fn both_ways(m: &Mesh) -> Result<Vec<PingStream>> {
    let streams = m.streams(&[("p1", "p2"), ("p2", "p1")])?;
    thread::sleep(LOOKED);
    Ok(streams)
}

/// The longest time without an answer, which has a limit.
fn longest(streams: Vec<PingStream>) -> Result<Duration> {
    thread::sleep(LOOKED);
    let gaps = finish(streams)?
        .into_iter()
        .map(|report| report.longest_gap);
    let gap = gaps.max().unwrap_or_default();
    expect(
        gap <= REROUTE,
        format!("{} ms without an answer", gap.as_millis()),
    )?;
    Ok(gap)
}

/// What the nodes say of their one direct route.
fn both_show(one: &Member, other: &Member, good: bool) -> Result<()> {
    let shows = |member: &Member| -> Result<()> {
        let direct = member.status()?.direct;
        expect(
            direct.iter().map(|route| route.good).eq([good]),
            format!("{} shows {direct:?}", member.name),
        )
    };
    wait_for(FOUND, || shows(one).and_then(|()| shows(other)))
}

/// Packets are seen on the wire, or not.
fn carries(from: &Member, to: &Member, does: bool) -> Result<()> {
    let what = format!("iifname wire ip6 saddr {} ip6 daddr {}", from.home, to.home);
    let counter = Counter::place(&to.place, &what)?;
    pings(from, to)?;
    let seen = counter.take()?;
    // The node asks by itself, too.
    expect(
        (seen >= SEEN) == does,
        format!("{seen} packets were seen on the wire"),
    )
}

/// Nothing that comes by the wire arrives, and nothing leaves by it; its ends see no difference.
fn silence(at: &Member, does: bool) -> Result<()> {
    let words = match does {
        true => {
            "table netdev silence { chain in { type filter hook ingress device wire priority 0; policy drop; }; chain out { type filter hook egress device wire priority 0; policy drop; }; }"
        }
        false => "delete table netdev silence",
    };
    at.place.run(&["nft", words])?;
    Ok(())
}
