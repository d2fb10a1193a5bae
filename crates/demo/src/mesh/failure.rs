//! What is broken on purpose, and what it costs.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use hextet_lab::{Fault, Lab};

use super::{
    MEETING, Mesh,
    member::Member,
    reach::{LOOKED, REROUTE, relay_between},
    registry::Registry,
    silent_pairs,
    wall::Wall,
};
use crate::{
    check::{expect, wait_for},
    probe::{finish, nothing_lost},
};

/// How long a node's program stays away.
const AWAY: Duration = Duration::from_secs(20);
/// How long a revoked node may be talked to.
const OUT: Duration = Duration::from_secs(10);
/// How long a node may take that begins again.
const RETURN: Duration = Duration::from_secs(30);

/// The program of p1 is killed, stays away, and returns; nobody notices.
pub fn agent_killed(m: &mut Mesh) -> Result<String> {
    let streams = m.streams(&[("p1", "n1"), ("n2", "p1")])?;
    let tunnels = m.member("p1")?.tunnels_pid()?;
    let (p1, lab) = m.member_mut("p1")?;
    p1.kill()?;
    thread::sleep(AWAY);
    p1.start(lab)?;
    p1.introduce()?;
    thread::sleep(AWAY);
    let lost = finish(streams)?;
    nothing_lost(&lost)?;
    expect(
        m.member("p1")?.tunnels_pid()? == tunnels,
        "the process for tunnels is another",
    )?;
    let sent: u64 = lost.iter().map(|report| report.sent).sum();
    Ok(format!(
        "p1's program killed, away for {} s, back: 0 of {sent} echoes lost; process {tunnels} held the tunnels",
        AWAY.as_secs()
    ))
}

/// A node by which packets of others go is cut off; they find another way, and it comes back.
pub fn node_lost(m: &Mesh) -> Result<String> {
    let (p1, p2) = (m.member("p1")?, m.member("p2")?);
    let wall = Wall::between(&m.internet, p1, p2)?;
    let relay = wait_for(MEETING, || relay_between(m, p1, p2))?;
    let streams = m.streams(&[("p1", "p2")])?;
    thread::sleep(LOOKED);
    cut_off(&m.lab, relay, true)?;
    thread::sleep(LOOKED);
    let then = relay_between(m, p1, p2);
    let lost = finish(streams)?;
    cut_off(&m.lab, relay, false)?;
    let begin = Instant::now();
    m.all_meet(MEETING)?;
    let back = begin.elapsed();
    drop(wall);
    let then = then?;
    expect(then.id != relay.id, "packets go by a node that is gone")?;
    let gap = lost.iter().map(|report| report.longest_gap).max();
    let gap = gap.unwrap_or_default();
    expect(
        gap <= REROUTE,
        format!("{} ms without an answer", gap.as_millis()),
    )?;
    Ok(format!(
        "{} was lost, {} took over within {} ms; {} was back with all others after {:.1} s",
        relay.name,
        then.name,
        gap.as_millis(),
        relay.name,
        back.as_secs_f32()
    ))
}

/// All that a member has outside falls silent, or speaks again.
fn cut_off(lab: &Lab, member: &Member, off: bool) -> Result<()> {
    let uplinks = ["wan", "eth0", "isp1", "isp2"];
    for dev in uplinks {
        if lab.file().link_of(member.name, dev).is_none() {
            continue;
        }
        match off {
            true => lab.break_link(member.name, dev, Fault::Silence)?,
            false => lab.mend_link(member.name, dev)?,
        }
    }
    Ok(())
}

/// Without a registry a node makes its tunnels anew, all of which were lost.
pub fn registry_down_new_tunnel(m: &mut Mesh) -> Result<String> {
    without_registry(m, |m| {
        let n1 = m.member("n1")?;
        let lost = n1.tunnels_pid()?;
        n1.kill_tunnels()?;
        let begin = Instant::now();
        m.all_meet(RETURN)?;
        let took = begin.elapsed();
        expect(n1.tunnels_pid()? != lost, "the tunnels are those of before")?;
        let carry = n1.status()?.tunnels.into_iter().filter(|tunnel| tunnel.up);
        Ok(format!(
            "registry killed, n1's process for tunnels killed: {} new tunnels, all pairs again after {:.1} s",
            carry.count(),
            took.as_secs_f32()
        ))
    })
}

/// Without a registry a node that has lost everything but its files finds the others again.
pub fn registry_down_node_restart(m: &mut Mesh) -> Result<String> {
    without_registry(m, |m| {
        let (n2, lab) = m.member_mut("n2")?;
        n2.kill_all()?;
        n2.start(lab)?;
        let begin = Instant::now();
        n2.introduce()?;
        m.all_meet(RETURN)?;
        Ok(format!(
            "registry killed, n2 and its tunnels killed: all pairs again {:.1} s after its start",
            begin.elapsed().as_secs_f32()
        ))
    })
}

fn without_registry(
    m: &mut Mesh,
    look: impl FnOnce(&mut Mesh) -> Result<String>,
) -> Result<String> {
    m.registry.kill()?;
    let seen = look(m);
    m.registry.start(&m.lab)?;
    seen
}

/// A node that the registry revokes is out everywhere.
pub fn revoked_node_out(m: &Mesh) -> Result<String> {
    let within = out_everywhere(m, &m.registry, m.member("l2")?)?;
    Ok(format!(
        "l2 was revoked: after {:.1} s no node had a tunnel or a way to it; all others reach each other",
        within.as_secs_f32()
    ))
}

/// Revokes a node; says when it was out everywhere.
pub fn out_everywhere(m: &Mesh, registry: &Registry, revoked: &Member) -> Result<Duration> {
    let others = || m.members().iter().filter(|other| other.id != revoked.id);
    registry.revoke(&revoked.id)?;
    let begin = Instant::now();
    wait_for(OUT, || {
        for other in others() {
            let status = other.status()?;
            let mut tunnels = status.tunnels.iter();
            expect(
                !tunnels.any(|tunnel| tunnel.node == revoked.id),
                format!("{} has a tunnel with it", other.name),
            )?;
            expect(
                status.next_to(revoked).is_err(),
                format!("{} has a way to it", other.name),
            )?;
        }
        Ok(())
    })?;
    let within = begin.elapsed();
    for other in others() {
        let ways = silent_pairs(&[other, revoked])?;
        expect(
            ways.len() == 2,
            format!("{} and {}: silent are {ways:?}", revoked.name, other.name),
        )?;
    }
    let rest: Vec<&Member> = others().collect();
    let silent = silent_pairs(&rest)?;
    expect(silent.is_empty(), format!("no answer: {silent:?}"))?;
    Ok(within)
}
