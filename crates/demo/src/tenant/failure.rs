//! What is broken on purpose, and what it costs.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_lab::PingStream;
use hextet_types::Family;

use super::Tenant;
use crate::probe::{Reach, finish, nothing_lost};

/// Longer than the BGP hold time, by which the underlay would be lost.
const WITHOUT_AGENTS: Duration = Duration::from_secs(40);

fn streams(t: &Tenant) -> Result<Vec<PingStream>> {
    let (red, blue) = (t.guest("red1")?, t.guest("blue2")?);
    let (to_red, to_blue) = (t.guest("red2")?, t.guest("blue1")?);
    let mut ways = Vec::new();
    for family in Family::BOTH {
        ways.push((red, to_red.of(family)?));
        ways.push((blue, to_blue.of(family)?));
    }
    t.streams(ways)
}

/// The agents of h1 and h2 are killed, stay away, and return; nobody notices.
pub fn agent_killed(t: &mut Tenant) -> Result<String> {
    let streams = streams(t)?;
    for host in &mut t.hosts[..2] {
        host.kill_agent()?;
    }
    let begin = Instant::now();
    for [from, to] in [["red1", "red2"], ["red2", "red1"], ["blue1", "blue2"]] {
        let (from, to) = (t.guest(from)?, t.guest(to)?);
        from.place.run(&["ip", "neigh", "flush", "dev", "eth0"])?;
        for family in Family::BOTH {
            let what = || format!("a new flow of {} by {family}", from.name);
            from.place.reaches(to.of(family)?, 2).with_context(what)?;
        }
    }
    thread::sleep(WITHOUT_AGENTS.saturating_sub(begin.elapsed()));
    for host in &mut t.hosts[..2] {
        host.start_agent(&t.lab)?;
        host.wait_until_settled()?;
    }
    thread::sleep(Duration::from_secs(2));
    let reports = finish(streams)?;
    nothing_lost(&reports)?;
    let sent: u64 = reports.iter().map(|r| r.sent).sum();
    Ok(format!(
        "both hosts' agents away for {} s, and back: 0 of {sent} echoes lost; new flows and neighbours worked",
        WITHOUT_AGENTS.as_secs()
    ))
}

/// The server is killed and returns, and an agent begins without it; nobody notices.
pub fn server_down(t: &mut Tenant) -> Result<String> {
    let streams = streams(t)?;
    t.server.kill()?;
    thread::sleep(Duration::from_secs(3));
    t.hosts[0].kill_agent()?;
    t.hosts[0].start_agent(&t.lab)?;
    thread::sleep(Duration::from_secs(3));
    let (from, to) = (t.guest("red1")?, t.guest("red2")?);
    for family in Family::BOTH {
        let what = || format!("after an agent began without a server, by {family}");
        from.place.reaches(to.of(family)?, 2).with_context(what)?;
    }
    t.server.start(&t.lab)?;
    t.admin = t.server.login()?;
    for host in &mut t.hosts {
        host.wait_until_settled()?;
    }
    let reports = finish(streams)?;
    nothing_lost(&reports)?;
    let sent: u64 = reports.iter().map(|r| r.sent).sum();
    Ok(format!(
        "server killed and back, an agent restarted meanwhile: 0 of {sent} echoes lost"
    ))
}
