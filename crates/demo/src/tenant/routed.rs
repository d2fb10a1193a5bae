//! Routers between private networks.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_types::Family;
use serde_json::json;

use super::{Tenant, guest::Guest, router::Router};
use crate::{
    check::expect,
    probe::{Counter, Reach, finish, nothing_lost, tcp_passes},
    rest::{addresses, text},
};

/// How long an allowed connection may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a router comes and goes while packets are counted.
const ATTACHMENTS: usize = 3;
/// Less than what tunnels carry: what comes from a network with more, the router has to refuse.
const NARROW: u64 = 1300;

/// The subnets of both networks behind the two routers of a third, and those that one of them has besides.
const SAME: [&str; 2] = ["10.7.0.0/24", "fd00:7::/64"];
const OWN: [&str; 2] = ["10.7.1.0/24", "fd00:71::/64"];

/// The second network of the first project, with its guests on two hosts, and the router between both.
pub struct Routed {
    subnets: Vec<String>,
    router: Router,
    near: Guest,
    far: Guest,
}

impl Routed {
    /// Makes all of it; the router is on no network.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn build(t: &Tenant) -> Result<Routed> {
        let project = &t.projects[0];
        let second = project.network("second", &[])?;
        let narrow = json!({"mtu": NARROW});
        project.cloud.update("network", &second.id, narrow)?;
        let mut subnets = t.subnets_of(project, &t.guest("red1")?.network)?;
        for cidr in ["10.0.1.0/24", "fd00:2::/64"] {
            subnets.push(project.subnet(&second, json!({"cidr": cidr}))?);
        }
        let start = |name, host| t.start(project, &second, (name, host), &json!({}));
        Ok(Routed {
            subnets,
            router: Router::create(&project.cloud, "edge")?,
            near: start("red3", 0)?,
            far: start("red4", 2)?,
        })
    }

    /// All that was made goes.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn delete(&self, t: &Tenant) -> Result<()> {
        self.router.delete()?;
        for guest in [&self.near, &self.far] {
            guest.delete(&t.admin, &t.hosts[guest.host])?;
        }
        Ok(())
    }
}

/// From one network to the other on the same host and on another, both families, both directions; the other project's
/// guest with the same address has no such way, and hears nothing.
pub fn between_subnets(t: &Tenant, r: &Routed) -> Result<String> {
    let (red, blue) = (t.guest("red1")?, t.guest("blue1")?);
    for family in Family::BOTH {
        red.does_not_reach(t, r.near.of(family)?)?;
    }
    r.router.attach(&r.subnets)?;
    for family in Family::BOTH {
        for [from, to] in [[red, &r.near], [red, &r.far], [&r.far, red], [&r.near, red]] {
            from.reaches(t, to.of(family)?)?;
            let at = SocketAddr::new(to.of(family)?, 80);
            let passes = tcp_passes(&from.place, &to.place, at, ANSWER)?;
            expect(passes, format!("no connection from {} to {at}", from.name))?;
        }
        too_big(red, &r.far, family)?;
        blue.does_not_reach(t, r.near.of(family)?)?;
    }
    Ok(format!(
        "{} and {} by router edge, on one host and on two, both families; what is too big for {NARROW} octets it \
         reports, and then it fits",
        red.network_name(t)?,
        r.far.network_name(t)?
    ))
}

/// What is too big for the other network, the router reports; from then on the sender knows.
fn too_big(from: &Guest, to: &Guest, family: Family) -> Result<()> {
    let at = to.of(family)?;
    let icmp = match family {
        Family::V4 => "icmp type destination-unreachable icmp code frag-needed",
        Family::V6 => "icmpv6 type packet-too-big",
    };
    let reports = Counter::place(&from.place, icmp)?;
    let (octets, text) = ((NARROW + 20).to_string(), at.to_string());
    let words = [
        "ping", "-n", "-c", "2", "-W", "1", "-M", "do", "-s", &octets, &text,
    ];
    let passed = from.place.output(&words)?.status.success();
    expect(
        !passed,
        format!("{octets} octets of data to {at} pass whole"),
    )?;
    let reports = reports.take()?;
    expect(
        reports > 0,
        format!("nobody reports what is too big for {at}"),
    )?;
    let known = from.place.run(&["ip", "route", "get", &text])?;
    expect(
        known.contains(&format!("mtu {NARROW}")),
        format!("the sender's way to {at} is {known}"),
    )?;
    let words = ["ping", "-n", "-c", "2", "-W", "2", "-s", &octets, &text];
    let passed = from.place.output(&words)?.status.success();
    expect(
        passed,
        format!("{octets} octets of data to {at} do not pass in pieces"),
    )
}

/// A router is put on a network and taken off, again and again; who talks within the network notices nothing.
pub fn attach_no_loss(t: &Tenant, r: &Routed) -> Result<String> {
    let (a, b) = (t.guest("red1")?, t.guest("red2")?);
    let mut ways = Vec::new();
    for family in Family::BOTH {
        ways.push((a, b.of(family)?));
        ways.push((b, a.of(family)?));
    }
    let streams = t.streams(ways)?;
    for _ in 0..ATTACHMENTS {
        thread::sleep(Duration::from_millis(700));
        r.router.detach(&r.subnets)?;
        thread::sleep(Duration::from_millis(700));
        r.router.attach(&r.subnets)?;
        for family in Family::BOTH {
            a.place.reaches(r.far.of(family)?, 10)?;
        }
    }
    let reports = finish(streams)?;
    nothing_lost(&reports)?;
    let sent: u64 = reports.iter().map(|r| r.sent).sum();
    Ok(format!(
        "detached and attached {ATTACHMENTS} times: 0 of {sent} echoes within the network lost"
    ))
}

/// A network on two routers: behind each is one with the same subnets. What the first leads to is reached, and what of
/// the second is its own; who has the same address behind the other hears nothing of either.
pub fn two_routers_overlap(t: &Tenant) -> Result<String> {
    let project = &t.projects[1];
    let (left, right) = (
        project.network("left", &SAME)?,
        project.network("right", &SAME)?,
    );
    let middle = project.network("middle", &["10.8.0.0/24", "fd00:8::/64"])?;
    for cidr in OWN {
        project.subnet(&right, json!({"cidr": cidr}))?;
    }
    let first = Router::create(&project.cloud, "first")?;
    first.attach(&t.subnets_of(project, &left)?)?;
    first.attach(&t.subnets_of(project, &middle)?)?;
    let second = Router::create(&project.cloud, "second")?;
    second.attach(&t.subnets_of(project, &right)?)?;
    let port = json!({"network_id": middle.id, "fixed_ips": [{"ip_address": "10.8.0.2"}]});
    let port = project.cloud.create("port", port)?;
    second.attach_port(&text(&port, "id")?)?;
    for nexthop in addresses(&port)? {
        let nth = usize::from(nexthop.is_ipv6());
        let subnets = t.subnets_of(project, &middle)?;
        let subnet = subnets.get(nth).context("middle has both families")?;
        let routes = json!({"host_routes": [{"destination": OWN[nth], "nexthop": nexthop}]});
        project.cloud.update("subnet", subnet, routes)?;
    }
    let mac =
        json!({"mac_address": "02:00:00:00:10:07", "fixed_ips": [{"ip_address": "10.7.0.7"}]});
    let twins = [
        t.start(project, &left, ("left1", 0), &mac)?,
        t.start(project, &right, ("right1", 0), &mac)?,
    ];
    let own = json!({"fixed_ips": [{"ip_address": "10.7.1.9"}]});
    let guests = [
        t.start(project, &middle, ("middle1", 1), &json!({}))?,
        t.start(project, &right, ("right2", 2), &own)?,
    ];
    let looked = look_at_both([&twins[0], &twins[1]], [&guests[0], &guests[1]]);
    for guest in twins.iter().chain(&guests) {
        guest.delete(&t.admin, &t.hosts[guest.host])?;
    }
    first.delete()?;
    second.delete()?;
    looked
}

fn look_at_both([left, right]: [&Guest; 2], [middle, own]: [&Guest; 2]) -> Result<String> {
    for family in Family::BOTH {
        let nth = usize::from(family == Family::V6);
        let same = left.within(SAME[nth])?;
        expect(right.within(SAME[nth])? == same, "the addresses differ")?;
        middle
            .place
            .reaches(own.within(OWN[nth])?, 10)
            .context("by the second router")?;
        // By default it might use its other address, which is the left's, too.
        let (source, to) = (
            own.within(OWN[nth])?.to_string(),
            middle.of(family)?.to_string(),
        );
        let words = ["ping", "-n", "-c", "2", "-W", "2", "-I", &source, &to];
        let passed = own.place.output(&words)?.status.success();
        expect(
            passed,
            format!("{source} gets no answer of {to} by the second router"),
        )?;
        let ping = match family {
            Family::V4 => "icmp type echo-request",
            Family::V6 => "icmpv6 type echo-request",
        };
        let (heard, astray) = (
            Counter::place(&left.place, ping)?,
            Counter::place(&right.place, ping)?,
        );
        middle
            .place
            .reaches(same, 10)
            .context("by the first router")?;
        left.place
            .reaches(middle.of(family)?, 10)
            .context("by the first router")?;
        let (heard, astray) = (heard.take()?, astray.take()?);
        expect(
            heard > 0 && astray == 0,
            format!("{heard} requests to {same} came to the left, {astray} to the right"),
        )?;
        // The same address behind the other router is answered by nobody's leave but its own network's.
        own.place
            .reaches(same, 10)
            .context("within the right network")?;
    }
    Ok(format!(
        "10.8.0.0/24 is on two routers, behind both of which is {}: the first's is reached, and what the second has alone",
        left.of(Family::V4)?
    ))
}
