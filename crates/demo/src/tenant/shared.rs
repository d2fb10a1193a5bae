//! Two guests on two hosts share an address of each family by VRRP, with port security on: keepalived runs in both, and
//! an unbound port keeps the addresses for them.

use std::{
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_lab::{Node, PingReport, PingStream, Process};
use hextet_types::{Family, Mac};
use serde_json::{Value, json};

use super::{Tenant, guest::Guest, outside::Outside};
use crate::{
    check::{expect, wait_for},
    clients,
    probe::{Reach, finish},
    rest::{addresses, text},
};

/// How often a master says so.
const ADVERT: Duration = Duration::from_millis(200);
/// Of the one that is master while it can be, and of the other.
const PRIORITIES: [u8; 2] = [150, 100];
/// What it may take, beyond what VRRP itself takes, until the other serves.
const BEYOND: Duration = Duration::from_millis(300);
/// Between two packets of a stream.
const EVERY: Duration = Duration::from_millis(10);
/// How long a guest may take to be master, or to be it no longer.
const SETTLED: Duration = Duration::from_secs(20);
/// How long nobody else may be master while an agent is away.
const WITHOUT_AGENT: Duration = Duration::from_secs(5);
/// And how long when they have just begun.
const TOGETHER: Duration = Duration::from_secs(2);
/// The virtual routers' numbers (VRID), IPv4 first.
const ROUTERS: [u8; 2] = [51, 61];
/// Those of `Tenant`'s places that share, and one that looks on, each with its host.
const SHARERS: [(&str, usize); 2] = [("share1", 0), ("share2", 1)];
const WATCHER: (&str, usize) = ("watcher2", 2);

/// How long VRRP itself takes to notice that a master is gone (RFC 5798 §6.1: Master_Down_Interval).
fn master_down(priority: u8) -> Duration {
    3 * ADVERT + ADVERT * (256 - u32::from(priority)) / 256
}

/// The Ethernet address of a virtual router (RFC 5798 §7.3).
fn virtual_mac(family: Family) -> Mac {
    let [v4, v6] = ROUTERS;
    match family {
        Family::V4 => Mac::new([0, 0, 0x5e, 0, 1, v4]),
        Family::V6 => Mac::new([0, 0, 0x5e, 0, 2, v6]),
    }
}

/// By which Ethernet address a guest has what is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Its own.
    Own,
    /// The virtual router's (keepalived's `use_vmac`).
    Virtual,
}

/// Whose packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Those of a guest on a third host.
    Inside,
    /// The internet's, too.
    Anywhere,
}

/// A guest that shares, and its keepalived while that runs.
struct Sharer {
    guest: Guest,
    priority: u8,
    keepalived: Option<Arc<Process>>,
    gateway: String,
}

/// All that takes part.
struct Shared {
    sharers: [Sharer; 2],
    watcher: Guest,
    /// Who keeps the addresses, by its port's id.
    keeper: String,
    addresses: Vec<IpAddr>,
    floating: (String, IpAddr),
}

/// The master goes: the other serves in time, for those on a third host and for the internet, with each of the two ways to
/// have the addresses. Likewise while the agent of its host is away, but for the internet: what that agent has announced
/// stands until it is back.
pub fn by_vrrp(t: &mut Tenant, o: &Outside) -> Result<String> {
    let mut shared = Shared::start(t, o)?;
    let seen = shared.follow(t).map_err(|error| {
        let said = shared.last_words();
        error.context(said)
    });
    let deleted = shared.delete(t);
    let seen = seen?;
    deleted?;
    Ok(seen)
}

impl Shared {
    fn start(t: &Tenant, o: &Outside) -> Result<Shared> {
        let project = &t.projects[0];
        let network = &o.public()[0].network;
        let keeper = json!({"name": "shared", "network_id": network.id});
        let keeper = project.cloud.create("port", keeper)?;
        let addresses = addresses(&keeper)?;
        let keeper = text(&keeper, "id")?;
        let asked = json!({"floating_network_id": o.external(), "port_id": keeper});
        let floating = project.cloud.create("floatingip", asked)?;
        let floating = (
            text(&floating, "id")?,
            text(&floating, "floating_ip_address")?.parse()?,
        );
        let start = |at| t.start(project, network, at, &json!({}));
        let sharers = [start(SHARERS[0])?, start(SHARERS[1])?];
        for guest in &sharers {
            let pairs = json!({"allowed_address_pairs": pairs(guest, &addresses)?});
            project.cloud.update("port", &guest.port, pairs)?;
        }
        let sharer = |(guest, priority): (Guest, u8)| -> Result<Sharer> {
            Ok(Sharer {
                gateway: default_gateway(&guest.place)?,
                guest,
                priority,
                keepalived: None,
            })
        };
        let [first, second] = sharers;
        let [high, low] = PRIORITIES;
        Ok(Shared {
            sharers: [sharer((first, high))?, sharer((second, low))?],
            watcher: start(WATCHER)?,
            keeper,
            addresses,
            floating,
        })
    }

    fn follow(&mut self, t: &mut Tenant) -> Result<String> {
        self.share(t, By::Own)?;
        self.nobody_else(t)?;
        let away = self.lose_master(t, From::Inside);
        let away = away.context("while the agent of its host is away")?;
        let host = self.sharers[0].guest.host;
        t.hosts[host].start_agent(&t.lab)?;
        t.hosts[host].wait_until_settled()?;
        let back = self
            .bring_back(t, By::Own)
            .context("the first comes back")?;
        let there = self.lose_master(t, From::Anywhere);
        let there = there.context("the master goes")?;
        self.stop();
        self.sharers[0].reconnect(&self.addresses)?;
        self.share(t, By::Virtual).context("with use_vmac")?;
        let by_virtual = self.lose_master(t, From::Anywhere);
        let by_virtual = by_virtual.context("the master goes, with use_vmac")?;
        let [v4, v6] = [Family::V4, Family::V6].map(|family| self.of(family));
        Ok(format!(
            "{} and {} from {} to {}, of which VRRP takes {} ms: no answer for {}; with its host's agent away, which made no second \
             master: {}; with use_vmac: {}; when the first came back: {}",
            v4?,
            v6?,
            self.sharers[0].guest.name,
            self.sharers[1].guest.name,
            master_down(PRIORITIES[1]).as_millis(),
            there,
            away,
            by_virtual,
            back,
        ))
    }

    fn of(&self, family: Family) -> Result<IpAddr> {
        let mut all = self.addresses.iter();
        let found = all.find(|a| Family::of(**a) == family);
        found.copied().context("an address of each family")
    }

    /// Both begin; the first is the master, and everybody gets there.
    fn share(&mut self, t: &Tenant, by: By) -> Result<()> {
        let addresses = self.addresses.clone();
        for sharer in &mut self.sharers {
            sharer.begin(t, &addresses, by)?;
        }
        self.is_master(0)?;
        self.stays_alone(TOGETHER)?;
        for (from, to) in self.ways(t, From::Anywhere)? {
            wait_for(SETTLED, || from.reaches(to, 1))?;
        }
        Ok(())
    }

    /// One has all addresses, and the other none.
    fn is_master(&self, wanted: usize) -> Result<()> {
        wait_for(SETTLED, || {
            for (nth, sharer) in self.sharers.iter().enumerate() {
                let has = sharer.has(&self.addresses)?;
                let right = has.iter().all(|has| *has == (nth == wanted));
                expect(right, format!("{} has {has:?}", sharer.guest.name))?;
            }
            Ok(())
        })
    }

    /// For so long the first alone is master, of both families.
    fn stays_alone(&self, time: Duration) -> Result<()> {
        let [_, second] = &self.sharers;
        let before = second.promotions();
        let begin = Instant::now();
        while begin.elapsed() < time {
            let has = second.has(&self.addresses)?;
            expect(
                has == [false; 2] && second.promotions() == before,
                format!("there is a second master, which has {has:?}"),
            )?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Who sends where.
    fn ways<'a>(&'a self, t: &'a Tenant, from: From) -> Result<Vec<(&'a Node, IpAddr)>> {
        let outside = [self.floating.1, self.of(Family::V6)?];
        let outside = outside.map(|to| (&t.internet, to)).into_iter();
        let outside = outside.filter(|_| from == From::Anywhere);
        let inside = self.addresses.iter().map(|to| (&self.watcher.place, *to));
        Ok(inside.chain(outside).collect())
    }

    fn streams(&self, t: &Tenant, from: From) -> Result<Vec<PingStream>> {
        let start = |(from, to): (&Node, IpAddr)| {
            let log = format!("ping-shared-{to}").replace([':', '.'], "-");
            Ok(t.lab.ping_stream(from, &log, &to.to_string(), EVERY)?)
        };
        self.ways(t, from)?.into_iter().map(start).collect()
    }

    /// The agent of the master's host is killed, and stays away: the other never is master, and nothing is lost.
    fn nobody_else(&self, t: &mut Tenant) -> Result<()> {
        let streams = self.streams(t, From::Anywhere)?;
        t.hosts[self.sharers[0].guest.host].kill_agent()?;
        self.stays_alone(WITHOUT_AGENT)?;
        let reports = finish(streams)?;
        crate::probe::nothing_lost(&reports).context("while an agent is away")
    }

    /// The master is killed and cut off; the other serves in time.
    fn lose_master(&mut self, t: &Tenant, from: From) -> Result<String> {
        let streams = self.streams(t, from)?;
        thread::sleep(Duration::from_secs(1));
        self.sharers[0].die()?;
        let [_, second] = &self.sharers;
        wait_for(SETTLED, || {
            let has = second.has(&self.addresses)?;
            expect(has == [true; 2], format!("the other has {has:?}"))
        })?;
        thread::sleep(Duration::from_secs(2));
        let reports = finish(streams)?;
        let limit = master_down(second.priority) + BEYOND;
        judge(&self.ways(t, from)?, &reports, limit)
    }

    /// The first comes back, and is the master again.
    fn bring_back(&mut self, t: &Tenant, by: By) -> Result<String> {
        self.sharers[0].reconnect(&self.addresses)?;
        let streams = self.streams(t, From::Anywhere)?;
        thread::sleep(Duration::from_secs(1));
        let addresses = self.addresses.clone();
        self.sharers[0].begin(t, &addresses, by)?;
        self.is_master(0)?;
        thread::sleep(Duration::from_secs(2));
        let reports = finish(streams)?;
        judge(&self.ways(t, From::Anywhere)?, &reports, BEYOND)
    }

    fn stop(&mut self) {
        for sharer in &mut self.sharers {
            if let Some(keepalived) = sharer.keepalived.take() {
                keepalived.terminate(Duration::from_secs(5));
            }
        }
    }

    fn last_words(&self) -> String {
        let said = self.sharers.iter().map(|sharer| {
            let log = sharer.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(12)..);
            let last = last.unwrap_or_default().join("\n");
            format!("keepalived in {}:\n{last}\n", sharer.guest.name)
        });
        said.collect()
    }

    fn delete(mut self, t: &mut Tenant) -> Result<()> {
        self.stop();
        for host in &mut t.hosts {
            host.keep_agent(&t.lab)?;
        }
        let cloud = &t.projects[0].cloud;
        cloud.delete("floatingip", &self.floating.0)?;
        let sharers = self.sharers.iter().map(|sharer| &sharer.guest);
        for guest in sharers.chain([&self.watcher]) {
            guest.delete(&t.admin, &t.hosts[guest.host])?;
        }
        cloud.delete("port", &self.keeper)
    }
}

impl Sharer {
    /// Starts keepalived.
    fn begin(&mut self, t: &Tenant, shared: &[IpAddr], by: By) -> Result<()> {
        let directory = t.lab.node_directory(&self.guest.name);
        let [conf, pid, child] = ["conf", "pid", "child"].map(|end| file(&directory, end));
        let instances = shared.iter().map(|address| self.instance(*address, by));
        let text = format!(
            "global_defs {{\n vrrp_version 3\n}}\n{}",
            instances.collect::<String>()
        );
        std::fs::write(&conf, text).with_context(|| format!("write {}", conf.display()))?;
        for left in [&pid, &child] {
            drop(std::fs::remove_file(left));
        }
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]);
        command.arg(conf).arg("--pid").arg(pid);
        command.arg("--vrrp_pid").arg(child);
        let place = &self.guest.place;
        self.keepalived = Some(t.lab.spawn(place, "keepalived", &mut command)?);
        Ok(())
    }

    fn instance(&self, address: IpAddr, by: By) -> String {
        let family = Family::of(address);
        let router = ROUTERS[usize::from(family == Family::V6)];
        let vmac = match by {
            By::Own => String::new(),
            By::Virtual => format!(" use_vmac vmac{router}\n"),
        };
        format!(
            "vrrp_instance {family} {{\n state BACKUP\n interface eth0\n virtual_router_id {router}\n priority {}\n \
             advert_int {}\n{vmac} virtual_ipaddress {{\n  {address}/{}\n }}\n}}\n",
            self.priority,
            ADVERT.as_secs_f32(),
            family.bits()
        )
    }

    /// Which of the addresses it has.
    fn has(&self, shared: &[IpAddr]) -> Result<Vec<bool>> {
        let shown = self.guest.place.run(&["ip", "-o", "addr", "show"])?;
        let has = |address: &IpAddr| {
            let needle = format!(" {address}/{} ", Family::of(*address).bits());
            shown.contains(&needle)
        };
        Ok(shared.iter().map(has).collect())
    }

    fn log(&self) -> String {
        self.keepalived
            .as_ref()
            .map(|k| k.log())
            .unwrap_or_default()
    }

    /// How often it has become master so far, of either family.
    fn promotions(&self) -> usize {
        self.log().matches("Entering MASTER STATE").count()
    }

    /// Both of its processes are killed before they can say anything, and its link goes.
    fn die(&mut self) -> Result<()> {
        let keepalived = self.keepalived.take().context("keepalived does not run")?;
        let children = format!(
            "kill -9 {0} $(pgrep -P {0}); ip link set eth0 down",
            keepalived.pid()
        );
        self.guest.place.run(&["sh", "-c", &children])?;
        expect(keepalived.kill(), "keepalived outlives kill -9")
    }

    /// Its link comes back, with what a link that was down has lost; what the dead keepalived left goes.
    fn reconnect(&self, shared: &[IpAddr]) -> Result<()> {
        let place = &self.guest.place;
        for router in ROUTERS {
            place.output(&["ip", "link", "del", &format!("vmac{router}")])?;
        }
        for address in shared {
            let bits = Family::of(*address).bits();
            let left = format!("{address}/{bits}");
            place.output(&["ip", "addr", "del", &left, "dev", "eth0"])?;
        }
        place.run(&["ip", "link", "set", "eth0", "up"])?;
        let via = self.gateway.as_str();
        place.run(&[
            "ip", "route", "replace", via, "dev", "eth0", "scope", "link",
        ])?;
        place.run(&[
            "ip", "route", "replace", "default", "via", via, "dev", "eth0",
        ])?;
        let mut own = self.guest.addresses.iter();
        own.try_for_each(|address| clients::has(place, *address))
    }
}

/// No answer for longer than that is a failure, and so is none at the end.
fn judge(ways: &[(&Node, IpAddr)], reports: &[PingReport], limit: Duration) -> Result<String> {
    let mut words = Vec::new();
    for ((from, to), report) in ways.iter().zip(reports) {
        let gap = report.longest_gap;
        let lost = EVERY * u32::try_from(report.lost())?;
        expect(
            report.received > 100 && gap <= limit && lost <= limit,
            format!(
                "{} had no answer from {to} for {} ms, where {} were allowed ({} of {} answered)",
                from.name(),
                gap.as_millis(),
                limit.as_millis(),
                report.received,
                report.sent
            ),
        )?;
        words.push(gap.as_millis().to_string());
    }
    Ok(format!("{} ms", words.join("/")))
}

/// What one that shares may have and send besides its own: the addresses under its own Ethernet address; under a virtual
/// router's those, and that by which it speaks of them, its own or of IPv6 its link-local one.
fn pairs(guest: &Guest, shared: &[IpAddr]) -> Result<Vec<Value>> {
    let mut pairs = Vec::new();
    for address in shared {
        let family = Family::of(*address);
        let mac = virtual_mac(family).to_string();
        let own = match family {
            Family::V4 => guest.of(family)?,
            Family::V6 => IpAddr::V6(guest.mac.link_local()),
        };
        pairs.push(json!({"ip_address": address}));
        pairs.push(json!({"ip_address": address, "mac_address": mac}));
        pairs.push(json!({"ip_address": own, "mac_address": mac}));
    }
    Ok(pairs)
}

fn default_gateway(place: &Node) -> Result<String> {
    let routes = place.run(&["ip", "-4", "-j", "route", "show", "default"])?;
    let routes: Vec<Value> = serde_json::from_str(&routes)?;
    let route = routes.first().context("no default route")?;
    text(route, "gateway")
}

fn file(directory: &std::path::Path, end: &str) -> PathBuf {
    directory.join(format!("keepalived.{end}"))
}
