//! A prefix that the provider's router delegates by DHCPv6, rather than the link's own.

use std::{net::Ipv6Addr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_types::Prefix;

use super::{INTERNET_V4, INTERNET_V6, Single, failure::Machine};
use crate::{
    check::{expect, wait_for},
    probe::{finish, greeting, nothing_lost},
};

/// What Kea gives.
const DELEGATED: &str = "2001:db8:100::/56";
/// Of the delegated prefix, and nobody's.
const UNALLOCATED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0x77, 0, 0, 0, 1);
const SOON: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(10);

/// It says so before, takes it, and the provider's router needs no neighbour for a workload. The process killed, it is the same
/// prefix; at the end it goes back.
pub fn preferred(s: &Single) -> Result<String> {
    let vps = &s.vps3;
    let before = Machine::look(&vps.place)?;
    let said = vps.hextet(&["up", "--dry-run", "--background"])?;
    expect(
        said.contains(&format!("delegates {DELEGATED}")),
        format!("it is not said: {said}"),
    )?;
    vps.hextet(&["up", "--background"])?;
    let container = vps.container(&s.lab, "routed")?;
    let v6 = container.v6[0];
    let delegated: Prefix = DELEGATED.parse()?;
    expect(
        delegated.contains(v6.into()),
        format!("{v6} is not of {DELEGATED}"),
    )?;
    let said = greeting(&s.internet, container.at())?;
    expect(said.starts_with("routed"), said)?;
    vps.pings("routed", INTERNET_V6.into())?;
    vps.pings("routed", INTERNET_V4.into())?;
    let neighbours = s
        .provider
        .run(&["ip", "-6", "neigh", "show", "dev", "line"])?;
    expect(
        !neighbours.contains("2001:db8:100:"),
        format!("the provider has neighbours: {neighbours}"),
    )?;
    no_loop(s)?;
    killed(s, v6)?;
    container.end()?;
    vps.hextet(&["down"])?;
    let is_back = || {
        let routes = s
            .provider
            .run(&["ip", "-6", "route", "show", "dev", "line"])?;
        expect(
            !routes.contains(DELEGATED),
            format!("still routed: {routes}"),
        )
    };
    wait_for(SOON, is_back)?;
    before.is_again(&vps.place)?;
    Ok(format!(
        "{DELEGATED} by DHCPv6 from Kea; {v6} is routed, no neighbour of the provider's; killed, and up again with the same; \
         given back at the end"
    ))
}

/// What is nobody's ends on the host: it does not go back to the router, and there and back again.
fn no_loop(s: &Single) -> Result<()> {
    let to = UNALLOCATED.to_string();
    let ping = ["ping", "-c", "1", "-W", "1", "-n", to.as_str()];
    let said = s.internet.output(&ping)?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    expect(
        !said.contains("exceeded"),
        format!("what is nobody's goes back and forth: {said}"),
    )
}

fn killed(s: &Single, addr: Ipv6Addr) -> Result<()> {
    let vps = &s.vps3;
    let stream = s
        .lab
        .ping_stream(&s.internet, "ping-routed", &addr.to_string(), INTERVAL)?;
    vps.kill()?;
    thread::sleep(Duration::from_secs(2));
    vps.hextet(&["up", "--background"])?;
    wait_for(SOON, || {
        let (v6, _) = vps.addresses("routed")?;
        let same = v6.first().context("no address")?;
        expect(*same == addr, format!("{same} instead of {addr}"))
    })?;
    thread::sleep(Duration::from_secs(2));
    nothing_lost(&finish(vec![stream])?)
}
