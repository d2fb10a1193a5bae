//! A prefix that the provider's router delegates by DHCPv6, rather than the link's own.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hextet_types::Prefix;

use super::{INTERNET_V4, INTERNET_V6, Single, failure::Machine};
use crate::{
    check::{expect, wait_for},
    probe::{Reach, finish, greeting, nothing_lost},
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

/// A workload asks for a prefix and has containers of its own in it, with no proxy anywhere: they are reached, and reach others.
pub fn to_workload(s: &Single) -> Result<String> {
    let vps = &s.vps3;
    vps.hextet(&["up", "--background"])?;
    let host = vps.container(&s.lab, "host")?;
    let prefix = ask(s, "host")?;
    let delegated: Prefix = DELEGATED.parse()?;
    expect(
        prefix.len() == 64 && delegated.covers(prefix) && !prefix.contains(host.v6[0].into()),
        format!("{prefix} of {DELEGATED} for {}", host.v6[0]),
    )?;
    let shown = vps.hextet(&["port", "list", "--json"])?;
    expect(
        shown.contains(&prefix.to_string()),
        format!("{prefix} is not shown: {shown}"),
    )?;
    let inner = inner(s, "host", prefix)?;
    s.internet.reaches(inner.into(), 3)?;
    let from_inner = |to: IpAddr| {
        let to = to.to_string();
        vps.inside("inner", &["ping", "-c", "1", "-W", "1", "-n", to.as_str()])
    };
    wait_for(SOON, || from_inner(INTERNET_V6.into()))?;
    let other = vps.container(&s.lab, "other")?;
    wait_for(SOON, || from_inner(other.v6[0].into()))?;
    // Nobody else may use it.
    let stolen = ["ip", "addr", "add", &format!("{inner}/128"), "dev", "lo"];
    vps.inside("other", &stolen)?;
    let to = INTERNET_V6.to_string();
    let as_other = [
        "ping",
        "-c",
        "1",
        "-W",
        "1",
        "-n",
        "-I",
        &inner.to_string(),
        &to,
    ];
    expect(
        vps.inside("other", &as_other).is_err(),
        "another workload sends from it",
    )?;
    vps.place.run(&["ip", "netns", "del", "inner"])?;
    host.end()?;
    other.end()?;
    vps.hextet(&["down"])?;
    Ok(format!(
        "dhclient has {prefix} of {DELEGATED}; {inner}, a container in there, is reached from outside and reaches outside and its \
         neighbours, which can't send from there"
    ))
}

/// What dhclient gets.
fn ask(s: &Single, name: &str) -> Result<Prefix> {
    let directory = s.lab.node_directory("vps3");
    let file = |what: &str| directory.join(what).to_string_lossy().into_owned();
    let (script, got) = (file("got.sh"), file("prefix"));
    fs::write(
        &script,
        format!("#!/bin/sh\n[ -z \"$new_ip6_prefix\" ] || echo \"$new_ip6_prefix\" > {got}\n"),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let (leases, pid) = (file("dhclient.leases"), file("dhclient.pid"));
    let common = ["-lf", &leases, "-pf", &pid];
    let start = [
        &["dhclient", "-6", "-P", "-1", "-sf", &script][..],
        &common,
        &["eth0"],
    ];
    s.vps3.inside(name, &start.concat())?;
    let text = wait_for(SOON, || Ok(fs::read_to_string(&got)?))?;
    s.vps3.inside(
        name,
        &[&["dhclient", "-6", "-x"][..], &common, &["eth0"]].concat(),
    )?;
    text.trim()
        .parse()
        .with_context(|| format!("dhclient got {text}"))
}

/// A container inside a workload, as its owner makes one by hand.
fn inner(s: &Single, host: &str, prefix: Prefix) -> Result<Ipv6Addr> {
    let IpAddr::V6(first) = prefix.addr() else {
        bail!("{prefix} is not IPv6");
    };
    let nth = |n: u128| Ipv6Addr::from(u128::from(first) + n);
    let (gateway, addr) = (nth(1), nth(2));
    let run = |words: &str| s.vps3.place.run(&words.split(' ').collect::<Vec<_>>());
    // Who forwards goes on hearing its router (RFC 4861 leaves that to the host).
    for setting in ["eth0.accept_ra=2", "all.forwarding=1"] {
        s.vps3.inside(
            host,
            &["sysctl", "-qw", &format!("net.ipv6.conf.{setting}")],
        )?;
    }
    run("ip netns add inner")?;
    run(&format!(
        "ip -n {host} link add in0 type veth peer name eth0 netns inner"
    ))?;
    run(&format!("ip -n {host} addr add {gateway}/64 dev in0 nodad"))?;
    run(&format!("ip -n {host} link set in0 up"))?;
    run(&format!("ip -n inner addr add {addr}/64 dev eth0 nodad"))?;
    run("ip -n inner link set eth0 up")?;
    run(&format!("ip -n inner route add default via {gateway}"))?;
    Ok(addr)
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
