//! Who reaches whom, and by which way.

use std::{collections::BTreeSet, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    INTERVAL, MEETING, MEMBERS, Mesh, NAT1, NAT1_LATER,
    member::{Member, Status},
    wall::Wall,
};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach, finish},
};

/// How long two nodes may take until they have a tunnel with each other.
const TUNNEL: Duration = Duration::from_secs(60);
/// What another address outside may cost.
const ROAMED: Duration = Duration::from_secs(2);
/// What the loss of a way may cost.
pub const REROUTE: Duration = Duration::from_secs(1);
/// How long it is looked at a flow before and after something happens.
pub const LOOKED: Duration = Duration::from_secs(3);
/// Echo requests of which each has to be seen on its way.
const SEEN: u64 = 10;

/// The registry has let each in, with a prefix of its own; an invitation counts once.
pub fn enrolled(m: &Mesh) -> Result<String> {
    let listed = m.registry.nodes()?;
    expect(
        listed.len() == MEMBERS.len(),
        format!("the registry lists {} nodes", listed.len()),
    )?;
    let mut prefixes = BTreeSet::new();
    for node in &listed {
        let member = m.member(node.name.as_deref().unwrap_or_default())?;
        let status = member.status()?;
        expect(
            (&status.node, &status.prefixes) == (&node.node, &node.prefixes),
            format!("{} is {status:?}, and listed as {node:?}", member.name),
        )?;
        expect(!node.revoked, format!("{} is revoked", member.name))?;
        prefixes.extend(node.prefixes.iter().cloned());
    }
    expect(
        prefixes.len() == 2 * listed.len(),
        format!("they share prefixes: {prefixes:?}"),
    )?;
    let place = m.lab.node_directory("p1").join("twice");
    let place = place.to_string_lossy();
    let again = m
        .member("p1")?
        .hextet(&["join", &m.used, "--directory", &place]);
    expect(again.is_err(), "an invitation let in two")?;
    Ok(format!(
        "{} nodes, each with a prefix of its own and an address of IPv4; a used invitation was refused",
        listed.len()
    ))
}

/// Each reaches each other.
pub fn all_pairs(m: &Mesh) -> Result<String> {
    let met = match &m.met {
        Ok(met) => met,
        Err(error) => bail!("{error:#}"),
    };
    m.all_meet(MEETING)?;
    let pairs = m.members().len() * (m.members().len() - 1);
    Ok(format!(
        "{pairs} ways by IPv6, with packets of 1,280 octets; from cold to all of them {:.1} s",
        met.as_secs_f32()
    ))
}

/// Two behind NATs have a tunnel, and what it carries goes from NAT to NAT.
pub fn nat_to_nat(m: &Mesh) -> Result<String> {
    let (n1, n2) = wait_for(TUNNEL, || direct_pair(m))?;
    let between = |from: &Member, to: &Member| {
        let (from, to) = (from.outside[0], to.outside[0]);
        let what = format!("ip saddr {from} ip daddr {to} meta l4proto udp");
        Counter::place(&m.internet, &what)
    };
    let (there, back) = (between(n1, n2)?, between(n2, n1)?);
    pings(n1, n2)?;
    let (there, back) = (there.take()?, back.take()?);
    expect(
        there >= SEEN && back >= SEEN,
        format!("of {SEEN} echoes {there} and {back} packets were seen between the NATs"),
    )?;
    let (seen_there, seen_here) = (n2.status()?, n1.status()?);
    let (one, other) = (
        seen_there.tunnel_to(n1)?.endpoint,
        seen_here.tunnel_to(n2)?.endpoint,
    );
    let (one, other) = (one.context("no endpoint")?, other.context("no endpoint")?);
    Ok(format!(
        "{} at {one} ↔ {} at {other}; of {SEEN} echoes {there} and {back} packets were seen between them",
        n1.name, n2.name
    ))
}

/// Two behind different NATs with a tunnel between them: which, is up to the nodes.
fn direct_pair(m: &Mesh) -> Result<(&Member, &Member)> {
    let behind = ["n1", "n2", "l1", "l2"].map(|name| m.member(name));
    let behind = behind.into_iter().collect::<Result<Vec<_>>>()?;
    for from in &behind {
        let status = from.status()?;
        let mut others = behind.iter().filter(|to| to.outside != from.outside);
        if let Some(to) = others.find(|to| direct(&status, to).is_ok()) {
            direct(&to.status()?, from)?;
            return Ok((from, to));
        }
    }
    bail!("no two nodes behind different NATs have a tunnel with each other")
}

/// Packets to that node leave by a tunnel that ends where it is.
fn direct(status: &Status, to: &Member) -> Result<()> {
    let endpoint = status.tunnel_to(to)?.endpoint;
    expect(
        endpoint.is_some_and(|at| to.outside.contains(&at.address().ip())),
        format!("the tunnel to {} ends at {endpoint:?}", to.name),
    )?;
    expect(
        status.next_to(to)? == to.id,
        format!("packets to {} go elsewhere", to.name),
    )
}

/// Echo requests from one to the other, each of which is answered.
///
/// # Errors
///
/// One is not.
pub fn pings(from: &Member, to: &Member) -> Result<()> {
    for _ in 0..SEEN {
        from.place.reaches(to.home.into(), 2)?;
    }
    Ok(())
}

/// Where two can't hear each other a third stands between them, and everybody sees who.
pub fn relay_shown(m: &Mesh) -> Result<String> {
    let (p1, p2) = (m.member("p1")?, m.member("p2")?);
    let streams = m.streams(&[("p1", "p2")])?;
    thread::sleep(LOOKED);
    let wall = Wall::between(&m.internet, p1, p2)?;
    thread::sleep(LOOKED);
    let lost = finish(streams)?;
    let relay = wait_for(MEETING, || relay_between(m, p1, p2))?;
    let what = format!("ip6 saddr {} ip6 daddr {}", p1.home, p2.home);
    let seen = Counter::place(&relay.place, &what)?;
    pings(p1, p2)?;
    let seen = seen.take()?;
    drop(wall);
    expect(
        seen >= SEEN,
        format!("{} saw {seen} packets of {SEEN} echoes", relay.name),
    )?;
    let gap = lost.iter().map(|report| report.longest_gap).max();
    let gap = gap.unwrap_or_default();
    expect(
        gap <= REROUTE,
        format!("{} ms without an answer", gap.as_millis()),
    )?;
    Ok(format!(
        "p1 and p2 can't hear each other: {} relays (its status and {seen} packets there say so); found within {} ms",
        relay.name,
        gap.as_millis()
    ))
}

/// The member by which packets go from one to another, both of which say so.
///
/// # Errors
///
/// They go directly, or nowhere.
pub fn relay_between<'a>(m: &'a Mesh, from: &Member, to: &Member) -> Result<&'a Member> {
    let status = from.status()?;
    let by = status.next_to(to)?;
    expect(
        by != to.id,
        format!("packets from {} to {} go directly", from.name, to.name),
    )?;
    from.place.reaches(to.home.into(), 3)?;
    m.member(m.name_of(by))
}

/// A NAT gets another address outside, in the middle of flows through it.
pub fn roaming(m: &Mesh) -> Result<String> {
    let streams = m.streams(&[("n1", "p1"), ("n1", "n2")])?;
    let back = m.streams(&[("p1", "n1"), ("n2", "n1")])?;
    thread::sleep(LOOKED);
    move_nat(m, NAT1, NAT1_LATER)?;
    let moved = wait_for(MEETING, || ends_at(m, NAT1_LATER));
    thread::sleep(LOOKED);
    let lost = finish(streams.into_iter().chain(back).collect())?;
    move_nat(m, NAT1_LATER, NAT1)?;
    wait_for(MEETING, || ends_at(m, NAT1))?;
    m.all_meet(MEETING)?;
    moved?;
    let gap = lost.iter().map(|report| report.longest_gap).max();
    let gap = gap.unwrap_or_default();
    expect(
        gap <= ROAMED,
        format!("{} ms without an answer", gap.as_millis()),
    )?;
    let count: u64 = lost.iter().map(hextet_lab::PingReport::lost).sum();
    Ok(format!(
        "nat1's address outside changed from {NAT1} to {NAT1_LATER}: four flows go on after {} ms at most, {count} echoes ({} ms each) lost",
        gap.as_millis(),
        INTERVAL.as_millis()
    ))
}

fn move_nat(m: &Mesh, from: &str, to: &str) -> Result<()> {
    let nat = m.lab.node("nat1")?;
    let script = format!(
        "ip addr del {from}/29 dev wan; ip addr add {to}/29 dev wan; ip route add default via 198.51.100.1"
    );
    nat.run(&["sh", "-c", &script]).map(drop)?;
    Ok(())
}

/// p1's tunnel to n1 ends there.
fn ends_at(m: &Mesh, outside: &str) -> Result<()> {
    let (p1, n1) = (m.member("p1")?, m.member("n1")?);
    let endpoint = p1.status()?.tunnel_to(n1)?.endpoint;
    let outside: IpAddr = outside.parse()?;
    expect(
        endpoint.is_some_and(|at| at.address().ip() == outside),
        format!("p1's tunnel to n1 ends at {endpoint:?}"),
    )
}
