//! What is broken on purpose, and what it costs.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Fabric, INTERNET_V4, INTERNET_V6};
use crate::{
    check::{expect, wait_for},
    probe::{Reach, finish, nothing_lost},
};

/// Longer than the BGP hold time.
const WITHOUT_AGENT: Duration = Duration::from_secs(60);
/// What a spine's loss may cost.
const REROUTE: Duration = Duration::from_secs(1);
/// Where the kernel tells of a change.
const NOTIFIED: Duration = Duration::from_secs(1);
/// Our table without what packets fill it with, in a fixed order.
const TABLE: &str = "nft -s -t list table inet hextet | sort; \
    for set in ports link-locals uplinks; do \
    nft list set inet hextet $set | tr -s ',{} \\t' '\\n' | sort; done";
/// Where it does not.
const UNNOTIFIED: Duration = Duration::from_secs(65);

/// The agent of h1 is killed, stays away, and returns; nobody notices.
pub fn agent_killed(f: &mut Fabric) -> Result<String> {
    let streams = f.streams_to("public1")?;
    let pid = f.hosts[0].kill_agent()?;
    let begin = Instant::now();
    f.workload("public1")?
        .place
        .reaches(INTERNET_V6.into(), 1)
        .context("a new flow by IPv6")?;
    f.workload("public1")?
        .place
        .reaches(INTERNET_V4.into(), 1)
        .context("a new flow by IPv4")?;
    new_neighbour(f)?;
    thread::sleep(WITHOUT_AGENT.saturating_sub(begin.elapsed()));
    f.hosts[0].start_agent(&f.lab)?;
    f.hosts[0].wait_until_settled()?;
    thread::sleep(Duration::from_secs(2));
    let losses = finish(streams)?;
    nothing_lost(&losses)?;
    let sent: u64 = losses.iter().map(|l| l.sent).sum();
    Ok(format!(
        "agent {pid} killed, away for {} s, back: 0 of {sent} echoes lost; new flows and neighbours worked",
        WITHOUT_AGENT.as_secs()
    ))
}

/// A workload that forgets its neighbours finds them again without an agent.
fn new_neighbour(f: &Fabric) -> Result<()> {
    let web = f.workload("web1")?;
    web.place.run(&["ip", "neigh", "flush", "dev", "eth0"])?;
    web.place
        .reaches(INTERNET_V6.into(), 2)
        .context("after its IPv6 neighbours were flushed")?;
    web.place
        .reaches(INTERNET_V4.into(), 2)
        .context("after its IPv4 neighbours were flushed")
}

/// The server is killed and returns; nobody notices.
pub fn server_down(f: &mut Fabric) -> Result<String> {
    let streams = f.streams_to("public1")?;
    f.server.kill()?;
    thread::sleep(Duration::from_secs(5));
    f.hosts[1].kill_agent()?;
    f.hosts[1].start_agent(&f.lab)?;
    f.workload("web2")?
        .place
        .reaches(INTERNET_V6.into(), 3)
        .context("after an agent began without a server")?;
    f.server.start(&f.lab)?;
    f.hosts[1].wait_until_settled()?;
    let losses = finish(streams)?;
    nothing_lost(&losses)?;
    let sent: u64 = losses.iter().map(|l| l.sent).sum();
    Ok(format!(
        "server killed and back, an agent restarted meanwhile: 0 of {sent} echoes lost"
    ))
}

/// A spine is lost in three ways; each time the other takes over.
pub fn spine_lost(f: &mut Fabric) -> Result<String> {
    let mut told = Vec::new();
    for way in [SpineLoss::Killed, SpineLoss::LinkDown, SpineLoss::Silent] {
        let streams = f.streams_to_all()?;
        thread::sleep(Duration::from_secs(1));
        f.lose_spine(way)?;
        thread::sleep(Duration::from_secs(4));
        let during = finish(streams)?;
        f.restore_spine(way)?;
        let worst = during
            .iter()
            .map(|l| l.longest_gap)
            .max()
            .unwrap_or_default();
        expect(
            worst <= REROUTE,
            format!("{way:?}: {} ms without an answer", worst.as_millis()),
        )?;
        told.push(format!("{way:?} {} ms", worst.as_millis()));
    }
    Ok(told.join(", "))
}

/// How a spine gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpineLoss {
    /// Its routing process is killed.
    Killed,
    /// Its links go down.
    LinkDown,
    /// It drops everything and says nothing.
    Silent,
}

/// What is ours in the kernel is removed by hand, and comes back.
pub fn tamper(f: &Fabric) -> Result<String> {
    let (host, web) = (&f.hosts[0].place, f.workload("web1")?);
    let link = format!("tap{}", web.port.get(..11).unwrap_or(&web.port));
    let (v6, v4) = (web.v6.to_string(), web.v4.to_string());
    let forwarding = "/proc/sys/net/ipv4/ip_forward";
    let tamperings: [(&[&str], &[&str], Duration); 4] = [
        (
            &["nft", "delete", "table", "inet", "hextet"],
            &["sh", "-c", TABLE],
            NOTIFIED,
        ),
        (
            &["ip", "-6", "route", "del", &v6],
            &["ip", "-6", "route", "show", &v6],
            NOTIFIED,
        ),
        (
            &["ip", "neigh", "del", &v4, "dev", &link],
            &["ip", "neigh", "show", &v4, "dev", &link],
            NOTIFIED,
        ),
        (
            &["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"],
            &["cat", forwarding],
            UNNOTIFIED,
        ),
    ];
    let mut told = Vec::new();
    for ((tampering, show, limit), what) in
        tamperings
            .into_iter()
            .zip(["nft table", "route", "neighbour", "sysctl"])
    {
        let stood = host.run(show)?;
        expect(
            !stood.trim().is_empty(),
            format!("the {what} was not there to begin with"),
        )?;
        host.run(tampering)?;
        let begin = Instant::now();
        wait_for(limit, || {
            let stands = host.output(show)?;
            expect(
                String::from_utf8_lossy(&stands.stdout) == stood,
                format!("the {what} is not as it was"),
            )
        })?;
        told.push(format!("{what} {} ms", begin.elapsed().as_millis()));
    }
    Ok(format!("mended: {}", told.join(", ")))
}

/// While the rule set is flushed and no agent is there, no packet passes a port.
pub fn flush_fails_closed(f: &mut Fabric) -> Result<String> {
    f.hosts[0].kill_agent()?;
    f.hosts[0].place.run(&["nft", "flush", "ruleset"])?;
    let closed = (|| {
        let public = f.workload("public1")?;
        for address in [IpAddr::V6(public.v6), IpAddr::V4(public.v4)] {
            f.internet.does_not_reach(address)?;
        }
        public.place.does_not_reach(INTERNET_V6.into())?;
        public.place.does_not_reach(INTERNET_V4.into())?;
        let neighbour = f.workload("web1")?;
        neighbour.place.does_not_reach(public.v6.into())
    })();
    f.hosts[0].start_agent(&f.lab)?;
    f.hosts[0].wait_until_settled()?;
    closed?;
    let public = f.workload("public1")?;
    f.internet
        .reaches(public.v6.into(), 5)
        .context("after the agent's return")?;
    f.internet
        .reaches(public.v4.into(), 5)
        .context("after the agent's return")?;
    Ok("flushed without an agent: nothing passed in or out; back with the agent".to_owned())
}
