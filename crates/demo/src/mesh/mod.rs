//! The mesh: two registries and nodes at sites that have little in common, on an internet of IPv4.

mod classes;
mod cloud;
mod direct;
mod failure;
mod gateway;
mod insight;
mod lan;
mod member;
mod quiet;
mod reach;
mod registry;
mod rules;
mod second;
mod uplinks;
mod wall;

use std::{
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use hextet_lab::{Lab, LabFile, LabGuard, Node, PingStream};

use crate::{
    check::{Checks, expect, wait_for},
    leftovers::Leftovers,
};
use member::Member;
use registry::Registry;

/// Each member, its groups, and as whom the internet sees it.
const MEMBERS: [(&str, &[&str], &[&str]); 8] = [
    ("p1", &[], &["192.0.2.10", "2001:db8:1::2"]),
    ("p2", &[], &["192.0.2.18", "2001:db8:2::2"]),
    ("n1", &["web"], &[NAT1]),
    ("n2", &["db"], &["198.51.100.10"]),
    ("l1", &["web"], &["198.51.100.18"]),
    ("l2", &[], &["198.51.100.18"]),
    ("two", &["db"], &["203.0.113.2", "203.0.113.10"]),
    (quiet::HERE, &[], &["198.51.100.34", "2001:db8:31::2"]),
];
/// The address of the first NAT, and the one that it gets later.
const NAT1: &str = "198.51.100.2";
const NAT1_LATER: &str = "198.51.100.3";
/// How long all pairs may take to find each other.
const MEETING: Duration = Duration::from_secs(60);
/// What a packet of the least MTU that IPv6 has leaves to an echo request (RFC 8200 §5).
const FULL: &str = "1232";
/// From one echo request of a stream to the next.
const INTERVAL: Duration = Duration::from_millis(10);

/// The lab with everything that runs in it.
pub struct Mesh {
    /// The namespaces, and the NATs' rules.
    pub lab: LabGuard,
    /// What is between the sites.
    pub internet: Node,
    /// The first registry.
    pub registry: Registry,
    /// The second one.
    pub second: Registry,
    /// An invitation that somebody has used.
    used: String,
    members: Vec<Member>,
    /// From the first program's start until all pairs met.
    met: Result<Duration>,
}

/// Builds it, checks it, and takes it away again.
///
/// # Errors
///
/// It can't be built.
pub fn run(checks: &mut Checks, program: &Path, labs: &Path, keep: bool) -> Result<()> {
    let before = Leftovers::look()?;
    let name = {
        let mut mesh = Mesh::build(checks, program, labs)?;
        mesh.check(checks, program);
        if keep {
            return mesh.keep(checks, program);
        }
        checks.narrate("Tearing it down.");
        mesh.lab.name().to_owned()
    };
    checks.look("nothing-left-behind", || before.compare(&name));
    Ok(())
}

impl Mesh {
    fn build(checks: &Checks, program: &Path, labs: &Path) -> Result<Mesh> {
        checks.narrate(
            "An internet of IPv4, three NATs, a firewall, eight sites' hosts and two registries: labs/mesh.toml",
        );
        let lab = Lab::up(LabFile::read(&labs.join("mesh.toml"))?)?.guard();
        let registry = Registry::first(&lab, program)?;
        let second = registry.second(&lab, program)?;
        checks.narrate("Each node joins with an invitation, and runs.");
        let mut members = Vec::new();
        let mut used = String::new();
        for (name, groups, outside) in MEMBERS {
            used = registry.invitation(groups)?;
            members.push(Member::join(&lab, program, (name, outside), &used)?);
        }
        let begin = Instant::now();
        for member in &mut members {
            member.start(&lab)?;
        }
        for member in &mut members {
            member.introduce()?;
        }
        let mut mesh = Mesh {
            internet: lab.node("internet")?,
            lab,
            registry,
            second,
            used,
            members,
            met: Ok(Duration::ZERO),
        };
        mesh.met = mesh.all_meet(MEETING).map(|()| begin.elapsed());
        checks.narrate(&format!("After {} s:", begin.elapsed().as_secs()));
        checks.show(&mesh.table());
        Ok(mesh)
    }

    fn check(&mut self, checks: &mut Checks, program: &Path) {
        let m = &*self;
        checks.narrate("Who reaches whom, and how:");
        checks.look("enrolled", || reach::enrolled(m));
        checks.look("all-pairs-v6", || reach::all_pairs(m));
        checks.look("nat-to-nat", || reach::nat_to_nat(m));
        checks.look("udp-blocked-site", || quiet::reached(m));
        checks.look("lan-without-tunnel", || lan::without_tunnel(m));
        checks.look("relay-shown", || reach::relay_shown(m));
        checks.look("roaming", || reach::roaming(m));
        checks.look("direct-route-fails-over", || direct::fails_over(m));
        checks.look("two-uplinks-sum", || uplinks::sum(m));
        checks.look("uplink-lost", || uplinks::lost(m));
        checks.look("class-routing", || classes::routing(m));
        checks.look("rules-deny", || rules::deny(m));
        checks.look("gateway", || gateway::out(m));
        checks.look("insight", || insight::shown(m));
        checks.narrate("What is broken, and what it costs:");
        checks.look("agent-killed", || failure::agent_killed(self));
        checks.look("node-lost-reroute", || failure::node_lost(self));
        checks.look("registry-down-new-tunnel", || {
            failure::registry_down_new_tunnel(self)
        });
        checks.look("registry-down-node-restart", || {
            failure::registry_down_node_restart(self)
        });
        checks.look("revoked-node-out", || failure::revoked_node_out(self));
        checks.look("second-registry", || second::takes_over(self));
        checks.look("cloud-over-mesh", || cloud::over_mesh(self, program));
    }

    /// All members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn member(&self, name: &str) -> Result<&Member> {
        let mut members = self.members.iter();
        members
            .find(|member| member.name == name)
            .with_context(|| format!("no member {name}"))
    }

    /// The same, to be changed.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn member_mut(&mut self, name: &str) -> Result<(&mut Member, &Lab)> {
        let mut members = self.members.iter_mut();
        let member = members.find(|member| member.name == name);
        let member = member.with_context(|| format!("no member {name}"))?;
        Ok((member, &self.lab))
    }

    /// The name of the member that has this number.
    pub fn name_of<'a>(&'a self, id: &'a str) -> &'a str {
        let mut members = self.members.iter();
        members
            .find(|member| member.id == id)
            .map_or(id, |member| member.name)
    }

    /// Waits until each member reaches each other with packets as large as they come.
    ///
    /// # Errors
    ///
    /// Some do not.
    pub fn all_meet(&self, limit: Duration) -> Result<()> {
        let all: Vec<&Member> = self.members.iter().collect();
        wait_for(limit, || {
            let silent = silent_pairs(&all)?;
            expect(
                silent.is_empty(),
                format!("no answer: {}", silent.join(", ")),
            )
        })
    }

    /// Streams of echo requests between members, a hundred a second each.
    ///
    /// # Errors
    ///
    /// `ping` can't be started.
    pub fn streams(&self, ways: &[(&str, &str)]) -> Result<Vec<PingStream>> {
        let start = |(from, to): &(&str, &str)| {
            let (from, to) = (self.member(from)?, self.member(to)?);
            let (log, target) = (format!("ping-{}", to.name), to.home.to_string());
            let stream = self.lab.ping_stream(&from.place, &log, &target, INTERVAL)?;
            anyhow::Ok(stream)
        };
        ways.iter().map(start).collect()
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["node", "number", "address", "reach", "tunnels with"]);
        for member in &self.members {
            let (reach, tunnels) = member.status().map_or_else(
                |_| Default::default(),
                |status| {
                    let carry = status.tunnels.iter().filter(|tunnel| tunnel.up);
                    let names: Vec<&str> = carry.map(|t| self.name_of(&t.node)).collect();
                    (status.reach.clone(), names.join(" "))
                },
            );
            let home = member.home.to_string();
            table.add_row([member.name, &member.id, &home, &reach, &tunnels]);
        }
        table.to_string()
    }

    fn keep(self, checks: &Checks, program: &Path) -> Result<()> {
        let lab = self.lab.name().to_owned();
        let program = program.display();
        let n1 = self.member("n1")?;
        checks.show(&format!(
            "\nIt goes on running. Look around:\n  \
             {program} lab list\n  \
             {program} mesh nodes --registry {}\n  \
             {program} mesh peers --socket {socket}\n  \
             {program} mesh routes --socket {socket}\n  \
             {program} lab exec {lab} n1 -- ping {}\n  \
             {program} lab exec {lab} internet -- tcpdump -ni nat1 udp\n\
             Take it away:\n  {program} lab down {lab}",
            self.registry.socket().display(),
            self.member("n2")?.home,
            socket = n1.socket().display(),
        ));
        std::mem::forget(self);
        Ok(())
    }
}

/// Each pair, one way, of which no echo reply comes: `p1 → n1`. All are asked at once.
///
/// # Errors
///
/// `ping` can't be run.
pub fn silent_pairs(members: &[&Member]) -> Result<Vec<String>> {
    let asked = |from: &Member| -> Result<Vec<String>> {
        let others = members.iter().filter(|to| to.home != from.home);
        let homes: Vec<String> = others.map(|to| to.home.to_string()).collect();
        let script = format!(
            "for to in {}; do (ping -n -q -c 1 -W 1 -s {FULL} $to > /dev/null || echo $to) & done; wait",
            homes.join(" ")
        );
        let silent = from.place.run(&["sh", "-c", &script])?;
        let name = |home: &str| {
            let home: IpAddr = home.parse().ok()?;
            let mut to = members.iter();
            to.find(|to| IpAddr::V6(to.home) == home).map(|to| to.name)
        };
        let to = silent.lines().map(|line| name(line).unwrap_or("?"));
        Ok(to.map(|to| format!("{} → {to}", from.name)).collect())
    };
    thread::scope(|scope| {
        let asking: Vec<_> = members
            .iter()
            .map(|from| scope.spawn(|| asked(from)))
            .collect();
        let answers = asking.into_iter().map(|asked| {
            asked
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        Ok(answers.collect::<Result<Vec<_>>>()?.concat())
    })
}
