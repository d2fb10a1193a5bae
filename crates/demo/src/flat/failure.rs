//! What is broken or moved.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::PingStream;
use serde_json::json;

use super::Flat;
use crate::{
    check::{expect, wait_for},
    probe::{Reach, finish, nothing_lost},
};

const INTERVAL: Duration = Duration::from_millis(10);
const AWAY: Duration = Duration::from_secs(10);
/// Between a workload's arrival on another host and the first answer from there.
const MOVED: Duration = Duration::from_secs(1);

fn streams(f: &Flat) -> Result<Vec<PingStream>> {
    let each = f.workloads().iter().map(|w| {
        let log = format!("ping-{}", w.name);
        Ok(f.lab
            .ping_stream(&f.internet, &log, &w.v6.to_string(), INTERVAL)?)
    });
    each.collect()
}

/// With all agents dead, flows go on, and neighbours that were forgotten are found anew.
pub fn killed(f: &mut Flat) -> Result<String> {
    let streams = streams(f)?;
    thread::sleep(Duration::from_secs(1));
    for host in &mut f.hosts {
        host.kill_agent()?;
    }
    thread::sleep(AWAY / 2);
    let running = finish(streams)?;
    nothing_lost(&running)?;
    f.router.run(&["ip", "neigh", "flush", "all"])?;
    f.old.run(&["ip", "neigh", "flush", "all"])?;
    for w in f.workloads() {
        f.internet.reaches(w.v6.into(), 2)?;
        f.old.reaches(w.v6.into(), 2)?;
        w.place.reaches(super::INTERNET_V4.into(), 2)?;
    }
    let streams = self::streams(f)?;
    for host in &mut f.hosts {
        host.start_agent(&f.lab)?;
        host.wait_until_settled()?;
    }
    thread::sleep(Duration::from_secs(2));
    let back = finish(streams)?;
    nothing_lost(&back)?;
    let sent: u64 = running.iter().chain(&back).map(|r| r.sent).sum();
    Ok(format!(
        "both agents killed, and back: 0 of {sent} echoes lost; meanwhile the router and a machine found all workloads anew"
    ))
}

/// A workload comes up on another host: who knew where it was learns where it is.
pub fn moved(f: &mut Flat) -> Result<String> {
    let vm = f.workload("vm3")?.clone();
    f.old.reaches(vm.v6.into(), 3)?;
    let stream = f
        .lab
        .ping_stream(&f.old, "ping-moved", &vm.v6.to_string(), INTERVAL)?;
    thread::sleep(Duration::from_secs(1));
    f.hosts[0].hextet(&["port", "detach", &vm.port])?;
    f.cloud
        .update("port", &vm.port, json!({"binding:host_id": "h2"}))?;
    vm.plug(&f.hosts[1])?;
    vm.configure(
        crate::workload::Clients::SlaacAndDhcpv4,
        &f.lab.node_directory("vm3"),
    )?;
    let answered = std::time::Instant::now();
    wait_for(AWAY, || f.old.reaches(vm.v6.into(), 1))?;
    let after = answered.elapsed();
    let report = stream.finish()?;
    expect(
        after <= MOVED,
        format!("a machine on the VLAN reached it {after:?} after it was there"),
    )?;
    let shown = f
        .old
        .run(&["ip", "-6", "neigh", "show", &vm.v6.to_string()])?;
    expect(
        shown.contains("02:00:00:00:00:b2"),
        format!("the machine believes it elsewhere: {shown}"),
    )?;
    Ok(format!(
        "vm3 is plugged on h2 instead of h1: {} of {} echoes lost on the way; who knew it on h1 learns of h2 at once",
        report.lost(),
        report.sent
    ))
}

/// The router says that it is none any more, and comes back.
pub fn router_lost(f: &mut Flat) -> Result<String> {
    let by_router = |host: &str| -> Result<bool> {
        let host = f.hosts.iter().find(|h| h.name == host).context("a host")?;
        let shown = host.place.run(&["ip", "-6", "route", "show"])?;
        let own = shown
            .lines()
            .find(|line| line.starts_with("default from 2001:db8:0:10::/64"));
        Ok(own.is_some_and(|line| line.contains("via fe80::")))
    };
    expect(
        by_router("h1")?,
        "h1 does not go by the router's own address",
    )?;
    let radvd = f.lab.process("router/radvd")?;
    expect(
        radvd.terminate(Duration::from_secs(5)),
        "radvd does not end",
    )?;
    wait_for(AWAY, || {
        expect(!by_router("h1")?, "h1 still goes by a router that is none")
    })?;
    for w in f.workloads() {
        f.internet.reaches(w.v6.into(), 3)?;
    }
    f.lab.start("router/radvd")?;
    wait_for(AWAY, || {
        expect(by_router("h1")?, "h1 does not go by the router again")
    })?;
    let streams = streams(f)?;
    thread::sleep(Duration::from_secs(2));
    nothing_lost(&finish(streams)?)?;
    Ok("radvd ends, and with it the router's advertisements: the way is that of the subnet's gateway; it is back: \
        its own again"
        .to_owned())
}
