//! What is broken, restarted or taken away.

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::Node;
use serde_json::Value;

use super::{INTERNET_V4, INTERNET_V6, Single};
use crate::{
    check::{expect, wait_for},
    probe::{Reach, finish, greeting, nothing_lost},
};

const INTERVAL: Duration = Duration::from_millis(10);
const AWAY: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(20);

/// What a machine's kernel holds that somebody could have changed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine(BTreeMap<&'static str, Vec<String>>);

const LOOKED_AT: [(&str, &[&str]); 8] = [
    ("links", &["ip", "-br", "link"]),
    ("addresses", &["ip", "-br", "addr"]),
    (
        "IPv4 routes",
        &["ip", "-4", "route", "show", "table", "all"],
    ),
    (
        "IPv6 routes",
        &["ip", "-6", "route", "show", "table", "all"],
    ),
    ("IPv4 rules", &["ip", "-4", "rule"]),
    ("IPv6 rules", &["ip", "-6", "rule"]),
    ("rule set", &["nft", "-s", "list", "ruleset"]),
    ("namespaces", &["ip", "netns"]),
];

impl Machine {
    /// Looks.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub fn look(place: &Node) -> Result<Machine> {
        let mut seen = BTreeMap::new();
        for (what, words) in LOOKED_AT {
            let lines = place.run(words)?;
            seen.insert(what, lines.lines().map(timeless).collect());
        }
        // What the kernel counts itself, and links that come and go, are nobody's setting.
        let settings = place.run(&["sh", "-c", "sysctl -a 2>/dev/null"])?;
        let is_setting = |line: &&str| {
            line.starts_with("net.") && !line.contains("_count =") && !line.contains(".neigh.tap")
        };
        let settings = settings.lines().filter(is_setting);
        seen.insert("sysctls", settings.map(str::to_owned).collect());
        Ok(Machine(seen))
    }

    /// The machine is the same again.
    ///
    /// # Errors
    ///
    /// Something differs.
    pub fn is_again(&self, place: &Node) -> Result<()> {
        wait_for(Duration::from_secs(5), || {
            let now = Machine::look(place)?;
            for (what, was) in &self.0 {
                let is = &now.0[what];
                let gone = was.iter().find(|line| !is.contains(line));
                let come = is.iter().find(|line| !was.contains(line));
                expect(
                    gone.is_none() && come.is_none(),
                    format!("{what}: {gone:?} is gone, {come:?} has come"),
                )?;
            }
            Ok(())
        })
    }
}

/// A line without what changes by itself, each second.
fn timeless(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "expires" => drop(words.next()),
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// With the process dead, flows go on, and neighbours that were forgotten are found anew.
pub fn killed(s: &Single) -> Result<String> {
    let streams = || -> Result<Vec<_>> {
        let each = s.containers.iter().map(|c| {
            let log = format!("ping-{}", c.name);
            let to = c.v6[0].to_string();
            Ok(s.lab.ping_stream(&s.internet, &log, &to, INTERVAL)?)
        });
        each.collect()
    };
    let running = streams()?;
    thread::sleep(Duration::from_secs(1));
    s.vps.kill()?;
    thread::sleep(AWAY);
    let running = finish(running)?;
    nothing_lost(&running)?;
    for place in [&s.provider, &s.vps.place] {
        place.run(&["ip", "neigh", "flush", "all"])?;
    }
    for c in &s.containers {
        s.internet.reaches(c.v6[0].into(), 2)?;
        s.vps.pings(&c.name, INTERNET_V4.into())?;
        s.vps.pings(&c.name, INTERNET_V6.into())?;
    }
    let coming = streams()?;
    s.vps.hextet(&["up", "--background"])?;
    thread::sleep(Duration::from_secs(2));
    let back = finish(coming)?;
    nothing_lost(&back)?;
    let sent: u64 = running.iter().chain(&back).map(|r| r.sent).sum();
    Ok(format!(
        "killed, and up again: 0 of {sent} echoes lost; meanwhile the provider's router found all workloads anew"
    ))
}

/// The machine goes off and on: what the kernel had is gone, files are there; what the unit does is done, and workloads start
/// anew.
pub fn reboot(s: &mut Single) -> Result<String> {
    let before: Vec<(String, Vec<_>)> = s
        .containers
        .iter()
        .map(|c| Ok((c.name.clone(), s.vps.addresses(&c.name)?.0)))
        .collect::<Result<_>>()?;
    s.vps.kill()?;
    for c in s.containers.drain(..) {
        c.kill();
    }
    let place = &s.vps.place;
    for (name, _) in &before {
        let ended = format!("ip netns pids {name} | xargs -r kill -9; ip netns del {name}");
        place.run(&["sh", "-c", &ended])?;
    }
    place.run(&["nft", "flush", "ruleset"])?;
    place.run(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])?;
    place.run(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
    place.run(&[
        "sh",
        "-c",
        "ip -6 route flush proto 104; ip route flush proto 104",
    ])?;
    s.vps.start(&s.lab, "unit", &["up", "--foreground"])?;
    wait_for(SOON, || s.vps.hextet(&["status"]))?;
    for (name, was) in &before {
        let container = s.vps.container(&s.lab, name)?;
        expect(
            container.v6.iter().all(|a| was.contains(a)),
            format!("{name} had {was:?}, and has {:?}", container.v6),
        )?;
        s.containers.push(container);
    }
    for c in &s.containers {
        let said = greeting(&s.internet, c.at())?;
        expect(said.starts_with(&c.name), said)?;
    }
    let said = wait_for(SOON, || greeting(&s.internet, (super::VPS_V4, 8081).into()))?;
    expect(said.starts_with("db"), said)?;
    Ok(
        "workloads have the addresses again that they had, and ports of the machine lead to them"
            .to_owned(),
    )
}

/// Everything is put back, while workloads run.
pub fn down(s: &mut Single) -> Result<String> {
    let addresses: Vec<IpAddr> = s.containers.iter().map(|c| c.v6[0].into()).collect();
    s.vps.hextet(&["down"])?;
    s.containers.clear();
    let own = |m: &Machine| m.0["addresses"].clone();
    // The provider has changed its prefix, of which the machine has an address since.
    let mut before = s.before.clone();
    let now = Machine::look(&s.vps.place)?;
    for (what, was) in &mut before.0 {
        let news = now.0[what].iter().filter(|l| l.contains("2001:db8:0:2:"));
        was.extend(news.cloned());
    }
    if own(&now) != own(&before) {
        let has = own(&now).into_iter().filter(|l| l.starts_with("eth0"));
        before.0.insert(
            "addresses",
            own(&before)
                .into_iter()
                .filter(|l| !l.starts_with("eth0"))
                .chain(has)
                .collect(),
        );
    }
    before.is_again(&s.vps.place)?;
    for addr in addresses {
        s.internet.does_not_reach(addr)?;
    }
    let left = s
        .vps
        .place
        .run(&["tc", "filter", "show", "dev", "eth0", "ingress"])?;
    expect(left.is_empty(), format!("left: {left}"))?;
    let neighbours = s.vps.place.run(&["ip", "-j", "neigh", "show", "proxy"])?;
    let neighbours: Vec<Value> = serde_json::from_str(&neighbours).context("proxies")?;
    expect(neighbours.is_empty(), format!("left: {neighbours:?}"))?;
    s.vps
        .place
        .run(&["ping", "-c", "1", "-W", "2", &INTERNET_V6.to_string()])?;
    Ok("links, addresses, routes, rules, sysctls, namespaces are what they were; the machine itself reaches outside".to_owned())
}
