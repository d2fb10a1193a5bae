//! A node with two uplinks, and what they carry together.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::Fault;

use super::{
    MEETING, Mesh,
    member::Member,
    reach::{LOOKED, REROUTE},
};
use crate::{
    check::{expect, wait_for},
    flow::{self, Flow, Load},
    probe::finish,
};

/// Who has them.
pub const HERE: &str = "two";
/// What its configuration says.
pub const CONFIG: &str = "uplinks = [\"isp1\", \"isp2\"]\n";
/// Connections at once.
const FLOWS: u16 = 12;
/// The first of their ports.
const PORT: u16 = 5_001;

/// Many connections get what both uplinks carry, in each direction.
pub fn sum(m: &Mesh) -> Result<String> {
    let two = m.member(HERE)?;
    let other = wait_for(MEETING, || peer(m, 2))?;
    m.lab.break_link(HERE, "isp2", Fault::Silence)?;
    wait_for(MEETING, || shares(two, other, 1))?;
    let one = both_ways(two, other);
    m.lab.mend_link(HERE, "isp2")?;
    wait_for(MEETING, || shares(two, other, 2))?;
    let (up, down) = one?;
    let (up_sum, down_sum) = both_ways(two, other)?;
    let (more_up, more_down) = (up_sum / up, down_sum / down);
    let told = format!(
        "{FLOWS} connections of two with {}: {up:.1} Mbit/s out and {down:.1} in by one uplink, {up_sum:.1} ({more_up:.2} times) and {down_sum:.1} ({more_down:.2} times) by both",
        other.name
    );
    expect(more_up >= 1.7 && more_down >= 1.7, told.clone())?;
    Ok(told)
}

/// One uplink falls silent under many flows, and comes back.
pub fn lost(m: &Mesh) -> Result<String> {
    let two = m.member(HERE)?;
    let other = wait_for(MEETING, || peer(m, 2))?;
    let others = m.members().iter().filter(|member| member.name != HERE);
    let pairs: Vec<(&str, &str)> = others
        .flat_map(|member| [(HERE, member.name), (member.name, HERE)])
        .collect();
    let mut told = Vec::new();
    for uplink in ["isp1", "isp2"] {
        let streams = m.streams(&pairs)?;
        thread::sleep(LOOKED);
        m.lab.break_link(HERE, uplink, Fault::Silence)?;
        thread::sleep(LOOKED);
        let gap = longest(finish(streams)?);
        let streams = m.streams(&pairs)?;
        m.lab.mend_link(HERE, uplink)?;
        wait_for(MEETING, || shares(two, other, 2))?;
        thread::sleep(LOOKED);
        let back = longest(finish(streams)?);
        expect(
            gap.max(back) <= REROUTE,
            format!("{uplink}: {gap:?} without an answer, {back:?} when it came back"),
        )?;
        told.push(format!(
            "{uplink} silent: {} ms at most, and {} ms when it was back",
            gap.as_millis(),
            back.as_millis()
        ));
    }
    Ok(format!(
        "{} flows without an answer, {}",
        pairs.len(),
        told.join("; ")
    ))
}

fn longest(reports: Vec<hextet_lab::PingReport>) -> Duration {
    let gaps = reports.into_iter().map(|report| report.longest_gap);
    gaps.max().unwrap_or_default()
}

/// Somebody that anybody can reach, with whom it has a tunnel of so many strands.
fn peer(m: &Mesh, strands: usize) -> Result<&Member> {
    let two = m.member(HERE)?;
    let mut public = ["p1", "p2"].into_iter().map(|name| m.member(name));
    let found = public.find_map(|member| {
        let member = member.ok()?;
        shares(two, member, strands).ok().map(|()| member)
    });
    found.with_context(|| format!("two has no tunnel of {strands} strands with p1 or p2"))
}

/// The kernels of both send by so many strands.
fn shares(one: &Member, other: &Member, strands: usize) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let home = to.home.to_string();
        let shown = from
            .place
            .run(&["ip", "-6", "route", "show", "match", &home])?;
        let hops = shown.matches("dev hxm").count();
        expect(
            hops == strands,
            format!("{} sends to {} by {hops}: {shown}", from.name, to.name),
        )?;
    }
    Ok(())
}

/// What many connections get in Mbit/s, out and in.
fn both_ways(one: &Member, other: &Member) -> Result<(f64, f64)> {
    Ok((together(one, other)?, together(other, one)?))
}

fn together(from: &Member, to: &Member) -> Result<f64> {
    let arrived: Result<Vec<u64>> = thread::scope(|scope| {
        let flows: Vec<_> = (0..FLOWS)
            .map(|nth| {
                let at = SocketAddr::from((to.home, PORT + nth));
                let flow = Flow {
                    from: &from.place,
                    to: &to.place,
                    at,
                    inside: at,
                };
                scope.spawn(move || flow::measure(flow, Load::Tcp))
            })
            .collect();
        let ended = flows.into_iter().map(|flow| match flow.join() {
            Ok(arrived) => Ok(arrived?.bits),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    });
    Ok(arrived?.into_iter().sum::<u64>() as f64 / 1e6)
}
