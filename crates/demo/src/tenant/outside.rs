//! Routers' way outside: public IPv6 out of a pool, address scopes, SNAT, floating IPs, port forwarding, NDP proxies.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_types::{Family, Prefix};
use serde_json::{Value, json};

use super::{
    Tenant,
    guest::Guest,
    project::{Network, Project},
    router::Router,
};
use crate::{
    check::{expect, wait_for},
    fabric::{INTERNET_V4, INTERNET_V6},
    probe::{Counter, Reach, tcp_passes, tcp_passes_by},
    rest::{addresses, text},
};

/// How long the fabric and the hosts may take to know of something new.
const KNOWN: Duration = Duration::from_secs(10);
/// How long an allowed connection may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a dropped one is waited for.
const SILENCE: Duration = Duration::from_millis(1500);
/// What moving a floating IP may cost.
const MOVE: Duration = Duration::from_secs(1);
/// A prefix chosen by hand: no pool has it, though the spines would have it announced to the internet.
const BY_HAND: &str = "2001:db8:130:1::/64";

/// A project's networks behind routers with gateways, and who is on them.
pub struct Outside {
    /// Of 10.2.0.0/24 and of a /64 out of a public pool: on two hosts.
    public: [Guest; 2],
    /// Of public IPv4 out of the external network's address scope.
    scoped: Guest,
    /// Of a prefix chosen by hand: on two hosts.
    manual: [Guest; 2],
    /// Of a /64 out of the public pool, behind a router with NDP proxies: on two hosts.
    proxied: [Guest; 2],
    router: Router,
    proxy_router: Router,
    external: String,
}

impl Outside {
    /// Makes all of it.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn build(t: &Tenant) -> Result<Outside> {
        let pools = [pool(t, 4)?, pool(t, 6)?];
        let external = external(
            t,
            "public",
            &[
                json!({"ip_version": 4, "subnetpool_id": pools[0], "prefixlen": 27}),
                json!({"ip_version": 6, "subnetpool_id": pools[1]}),
            ],
        )?;
        let project = &t.projects[0];
        let cloud = project.network("cloud", &["10.2.0.0/24"])?;
        project.subnet(&cloud, json!({"ip_version": 6, "subnetpool_id": pools[1]}))?;
        let scoped = project.network("scoped", &[])?;
        let of_scope = json!({"ip_version": 4, "subnetpool_id": pools[0], "prefixlen": 28});
        project.subnet(&scoped, of_scope)?;
        let manual = project.network("by-hand", &["10.3.0.0/24", BY_HAND])?;
        let router = gateway(t, project, "gate", &external, &[&cloud, &scoped, &manual])?;
        let proxied = project.network("proxied", &[])?;
        project.subnet(
            &proxied,
            json!({"ip_version": 6, "subnetpool_id": pools[1]}),
        )?;
        let proxy_router = gateway(t, project, "proxy", &external, &[&proxied])?;
        proxy_router.update(json!({"enable_ndp_proxy": true}))?;
        let start =
            |name, network: &Network, host| t.start(project, network, (name, host), &json!({}));
        Ok(Outside {
            public: [start("red5", &cloud, 0)?, start("red6", &cloud, 1)?],
            scoped: start("red7", &scoped, 2)?,
            manual: [start("red8", &manual, 0)?, start("red9", &manual, 1)?],
            proxied: [start("red10", &proxied, 0)?, start("red11", &proxied, 1)?],
            router,
            proxy_router,
            external,
        })
    }

    /// All that was made goes.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn delete(&self, t: &Tenant) -> Result<()> {
        for ip in t.projects[0].cloud.list("floatingip", "")? {
            let id = text(&ip, "id")?;
            let forwardings = ip["port_forwardings"].as_array().into_iter().flatten();
            for forwarding in forwardings {
                let path = format!("{id}/port_forwardings/{}", text(forwarding, "id")?);
                t.admin.delete("floatingip", &path)?;
            }
            t.admin.delete("floatingip", &id)?;
        }
        for proxy in t.projects[0].cloud.list("ndp_proxy", "")? {
            t.admin.delete("ndp_proxy", &text(&proxy, "id")?)?;
        }
        let guests = self.public.iter().chain(&self.manual).chain(&self.proxied);
        for guest in guests.chain([&self.scoped]) {
            guest.delete(&t.admin, &t.hosts[guest.host])?;
        }
        self.router.delete()?;
        self.proxy_router.delete()
    }

    /// Somebody without IPv4.
    pub fn of_v6_alone(&self) -> &Guest {
        let [guest, _] = &self.proxied;
        guest
    }

    /// Guests on two hosts, of IPv4 that is translated.
    pub fn public(&self) -> [&Guest; 2] {
        let [a, b] = &self.public;
        [a, b]
    }

    /// The router of those that share an address outside.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The external network.
    pub fn external(&self) -> &str {
        &self.external
    }

    /// Somebody, on h1, without an address outside of its own, to whom ports are forwarded.
    pub fn shares_an_address(&self) -> &Guest {
        let [guest, _] = &self.public;
        guest
    }

    /// An address and a port that are forwarded to its port 80.
    ///
    /// # Errors
    ///
    /// None is.
    pub fn forwarded(&self, t: &Tenant) -> Result<(IpAddr, u16)> {
        let ips = t.projects[0].cloud.list("floatingip", "")?;
        let with = |ip: &&Value| {
            ip["port_forwardings"]
                .as_array()
                .is_some_and(|f| !f.is_empty())
        };
        let ip = ips.iter().find(with).context("no ports are forwarded")?;
        Ok((text(ip, "floating_ip_address")?.parse()?, 8080))
    }

    /// Its address of IPv4.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn gateway_v4(&self) -> Result<IpAddr> {
        let router = self.router.show()?;
        let fixed = json!({"fixed_ips": router["external_gateway_info"]["external_fixed_ips"]});
        let v4 = addresses(&fixed)?.into_iter().find(IpAddr::is_ipv4);
        v4.context("the router has no IPv4 address outside")
    }
}

/// A pool in an address scope, both shared; gives the pool's id.
fn pool(t: &Tenant, version: u8) -> Result<String> {
    let scope =
        json!({"name": format!("public-v{version}"), "ip_version": version, "shared": true});
    let scope = text(&t.admin.create("address_scope", scope)?, "id")?;
    let (prefix, length) = match version {
        4 => ("198.51.100.0/25", 27),
        _ => ("2001:db8:110::/44", 64),
    };
    let pool = json!({
        "name": format!("public-v{version}"), "prefixes": [prefix], "default_prefixlen": length,
        "address_scope_id": scope, "shared": true,
    });
    text(&t.admin.create("subnetpool", pool)?, "id")
}

fn external(t: &Tenant, name: &str, subnets: &[Value]) -> Result<String> {
    let network = json!({
        "name": name, "router:external": true, "provider:network_type": "routed",
    });
    let network = text(&t.admin.create("network", network)?, "id")?;
    for subnet in subnets {
        let mut subnet = subnet.clone();
        subnet["network_id"] = json!(network);
        subnet["enable_dhcp"] = json!(false);
        t.admin.create("subnet", subnet)?;
    }
    Ok(network)
}

fn gateway(
    t: &Tenant,
    project: &Project,
    name: &str,
    external: &str,
    networks: &[&Network],
) -> Result<Router> {
    let router = Router::create(&project.cloud, name)?;
    router.update(json!({"external_gateway_info": {"network_id": external}}))?;
    for network in networks {
        router.attach(&t.subnets_of(project, network)?)?;
    }
    Ok(router)
}

/// By which host's link a spine sends to an address.
fn way_of(t: &Tenant, address: IpAddr) -> Result<Option<String>> {
    let prefix = Prefix::host(address).to_string();
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let words = ["ip", "-j", family, "route", "show", &prefix];
    let listed: Vec<Value> = serde_json::from_str(&t.spines[0].run(&words)?)?;
    let way = listed.first().and_then(|route| route["dev"].as_str());
    Ok(way.map(str::to_owned))
}

/// The spines send to an address by its host.
///
/// # Errors
///
/// They do not, in time.
pub fn is_announced(t: &Tenant, address: IpAddr, host: usize) -> Result<()> {
    let host = &t.hosts[host].name;
    wait_for(KNOWN, || {
        let way = way_of(t, address)?;
        expect(
            way.as_ref() == Some(host),
            format!("spine1 sends to {address} by {way:?}, and not by {host}"),
        )
    })
}

/// The internet reaches a guest by that address, and sees it under that.
///
/// # Errors
///
/// It does not.
pub fn is_reached_and_comes_as(t: &Tenant, guest: &Guest, address: IpAddr) -> Result<()> {
    t.internet.reaches(address, 10)?;
    comes_as(t, guest, address)
}

/// Somebody's echo requests come to the internet under that address.
fn comes_as(t: &Tenant, guest: &Guest, address: IpAddr) -> Result<()> {
    let (what, to): (String, IpAddr) = match address {
        IpAddr::V4(a) => (
            format!("ip saddr {a} icmp type echo-request"),
            INTERNET_V4.into(),
        ),
        IpAddr::V6(a) => (
            format!("ip6 saddr {a} icmpv6 type echo-request"),
            INTERNET_V6.into(),
        ),
    };
    let seen = Counter::place(&t.internet, &what)?;
    guest.reaches(t, to)?;
    let seen = seen.take()?;
    expect(
        seen > 0,
        format!("{} comes to the internet, but not as {address}", guest.name),
    )
}

/// Guests with an address out of a public pool are reached from the internet and reach it, without translation, straight
/// by their own hosts.
pub fn v6_public(t: &Tenant, o: &Outside) -> Result<String> {
    for guest in &o.public {
        let own = guest.of(Family::V6)?;
        is_announced(t, own, guest.host)?;
        is_reached_and_comes_as(t, guest, own)?;
        let at = SocketAddr::new(own, 80);
        let passes = tcp_passes(&t.internet, &guest.place, at, ANSWER)?;
        expect(passes, format!("no connection from the internet to {at}"))?;
    }
    Ok(format!(
        "{} on h1 and {} on h2 are reached from the internet, each by its own host, and come there as themselves",
        o.public[0].of(Family::V6)?,
        o.public[1].of(Family::V6)?
    ))
}

/// A prefix that somebody chose is reached within, and neither from outside nor outside from there, even by routes.
pub fn manual_v6(t: &Tenant, o: &Outside) -> Result<String> {
    let [a, b] = &o.manual;
    let (own, other) = (a.of(Family::V6)?, b.of(Family::V6)?);
    a.reaches(t, other)?;
    let leaked = Counter::place(&t.internet, &format!("ip6 saddr {BY_HAND}"))?;
    a.does_not_reach(t, INTERNET_V6.into())?;
    let route = [BY_HAND, "via", "fe80::ff:fe00:b1", "dev", "h1"];
    let back = [BY_HAND, "via", "fe80::ff:fe00:51", "dev", "spine1"];
    let change = |verb| -> Result<()> {
        let words = ["ip", "-6", "route", verb];
        t.spines[0].run(&[words.as_slice(), &route].concat())?;
        t.internet.run(&[words.as_slice(), &back].concat())?;
        Ok(())
    };
    change("add")?;
    let silent = t.internet.does_not_reach(own);
    change("del")?;
    silent?;
    let leaked = leaked.take()?;
    expect(
        leaked == 0,
        format!("{leaked} packets out of {BY_HAND} got to the internet"),
    )?;
    expect(
        way_of(t, own)?.is_none() && way_of(t, other)?.is_none(),
        "an address chosen by hand is announced",
    )?;
    Ok(format!(
        "{own} reaches {other} on the other host; the internet does not reach it, not even by routes, nor it the internet"
    ))
}

/// What has no public address comes to the internet as the router, by its gateway host; nobody comes in that way.
pub fn snat(t: &Tenant, o: &Outside) -> Result<String> {
    let outside = o.gateway_v4()?;
    let router = t.admin.show("router", &o.router.id)?;
    let host = text(&router, "hextet:gateway_host")?;
    let number = t.hosts.iter().position(|h| h.name == host);
    is_announced(
        t,
        outside,
        number.context("the gateway host is none of ours")?,
    )?;
    let leaked = Counter::place(&t.internet, "ip saddr 10.0.0.0/8")?;
    for guest in &o.public {
        comes_as(t, guest, outside)?;
        let at = SocketAddr::new(INTERNET_V4.into(), 80);
        let passes = tcp_passes(&guest.place, &t.internet, at, ANSWER)?;
        expect(passes, format!("no connection from {} to {at}", guest.name))?;
    }
    let leaked = leaked.take()?;
    expect(
        leaked == 0,
        format!("{leaked} packets with a private source got to the internet"),
    )?;
    let inside = o.public[0].of(Family::V4)?;
    t.internet.does_not_reach(inside)?;
    let at = SocketAddr::new(outside, 80);
    let inward = tcp_passes_by(
        &t.internet,
        &o.public[0].place,
        (at, SocketAddr::new(inside, 80)),
        SILENCE,
    );
    expect(
        !matches!(inward, Ok(true)),
        format!("a connection to {at} came to {inside}"),
    )?;
    Ok(format!(
        "guests on h1 and h2 come to the internet as {outside} by {host}; nothing private got there, nothing came in"
    ))
}

/// A floating IP leads to its port, which comes to the internet by it; also from within the network.
pub fn floating_ip(t: &Tenant, o: &Outside) -> Result<String> {
    let [guest, neighbour] = &o.public;
    let (_, address) = floating(t, o, Some(guest))?;
    is_announced(t, address, guest.host)?;
    is_reached_and_comes_as(t, guest, address)?;
    let ends = (
        SocketAddr::new(address, 80),
        SocketAddr::new(guest.of(Family::V4)?, 80),
    );
    for from in [&t.internet, &neighbour.place] {
        let passes = tcp_passes_by(from, &guest.place, ends, ANSWER)?;
        expect(
            passes,
            format!("no connection from {} to {address}", from.name()),
        )?;
    }
    Ok(format!(
        "{address} leads to {} on h1, from the internet and from {}; it comes to the internet by it",
        guest.of(Family::V4)?,
        neighbour.name
    ))
}

/// Its id and its address.
fn floating(t: &Tenant, o: &Outside, guest: Option<&Guest>) -> Result<(String, IpAddr)> {
    let mut asked = json!({"floating_network_id": o.external});
    if let Some(guest) = guest {
        asked["port_id"] = json!(guest.port);
    }
    let ip = t.projects[0].cloud.create("floatingip", asked)?;
    Ok((text(&ip, "id")?, text(&ip, "floating_ip_address")?.parse()?))
}

/// A floating IP moves to a port on another host while the internet pings it.
pub fn floating_ip_moves(t: &Tenant, o: &Outside) -> Result<String> {
    let [from, to] = &o.public;
    let ips = t.projects[0]
        .cloud
        .list("floatingip", &format!("port_id={}", from.port))?;
    let ip = ips.first().context("the port has no floating IP")?;
    let (id, address) = (text(ip, "id")?, text(ip, "floating_ip_address")?.parse()?);
    is_announced(t, address, from.host)?;
    let interval = Duration::from_millis(10);
    let stream = t
        .lab
        .ping_stream(&t.internet, "ping-floating", &address.to_string(), interval)?;
    thread::sleep(Duration::from_secs(1));
    let moved = json!({"port_id": to.port});
    t.projects[0].cloud.update("floatingip", &id, moved)?;
    is_announced(t, address, to.host)?;
    thread::sleep(Duration::from_secs(1));
    let report = stream.finish()?;
    comes_as(t, to, address)?;
    let gap = report.longest_gap;
    expect(
        gap <= MOVE,
        format!("{} ms without an answer", gap.as_millis()),
    )?;
    expect(
        report.received > 100,
        format!("only {} answers", report.received),
    )?;
    Ok(format!(
        "{address} from h1 to h2: {} ms without an answer, {} of {} echoes lost",
        gap.as_millis(),
        report.lost(),
        report.sent
    ))
}

/// Ports of a floating IP lead to ports of a guest: one to another, and a range; no others do.
pub fn port_forwarding(t: &Tenant, o: &Outside) -> Result<String> {
    let guest = &o.public[0];
    let (id, address) = floating(t, o, None)?;
    let inside = guest.of(Family::V4)?;
    let path = format!("/networking/v2.0/floatingips/{id}/port_forwardings");
    for ports in [
        json!({"external_port": 8080, "internal_port": 80}),
        json!({"external_port_range": "9000:9009", "internal_port_range": "9000:9009"}),
    ] {
        let mut forwarding = json!({
            "protocol": "tcp", "internal_port_id": guest.port, "internal_ip_address": inside,
        });
        for (key, value) in ports.as_object().into_iter().flatten() {
            forwarding[key] = value.clone();
        }
        let body = json!({"port_forwarding": forwarding});
        let answer = t.projects[0].cloud.request("POST", &path, Some(&body))?;
        expect(
            answer.status < 300,
            format!("{} {}", answer.status, answer.body),
        )?;
    }
    let ends = |from, to| (SocketAddr::new(address, from), SocketAddr::new(inside, to));
    for (from, to) in [(8080, 80), (9000, 9000), (9009, 9009)] {
        wait_for(KNOWN, || {
            let passes = tcp_passes_by(&t.internet, &guest.place, ends(from, to), SILENCE)?;
            expect(passes, format!("no connection to {address} port {from}"))
        })?;
    }
    for closed in [80, 8999, 9010] {
        let passes = tcp_passes_by(&t.internet, &guest.place, ends(closed, closed), SILENCE);
        expect(
            !matches!(passes, Ok(true)),
            format!("port {closed} of {address} leads inside"),
        )?;
    }
    Ok(format!(
        "TCP 8080 of {address} leads to 80 of {inside}, 9000 to 9009 to the same; 80, 8999 and 9010 nowhere"
    ))
}

/// By a router with NDP proxies those addresses alone are reached from outside that have one.
pub fn ndp_proxy(t: &Tenant, o: &Outside) -> Result<String> {
    let [guest, neighbour] = &o.proxied;
    let (address, other) = (guest.of(Family::V6)?, neighbour.of(Family::V6)?);
    guest.reaches(t, other)?;
    guest.does_not_reach(t, INTERNET_V6.into())?;
    let proxy = json!({
        "router_id": o.proxy_router.id, "port_id": guest.port, "ip_address": address,
    });
    t.projects[0].cloud.create("ndp_proxy", proxy)?;
    is_announced(t, address, guest.host)?;
    is_reached_and_comes_as(t, guest, address)?;
    neighbour.does_not_reach(t, INTERNET_V6.into())?;
    let way = way_of(t, other)?;
    expect(way.is_none(), format!("{other} is announced, too"))?;
    guest.place.reaches(other, 5)?;
    Ok(format!(
        "{address} is reached from the internet and reaches it once it has a proxy; {other} beside it is not"
    ))
}

/// Within the external network's address scope IPv4 is not translated, and is announced by the port's host.
pub fn address_scope(t: &Tenant, o: &Outside) -> Result<String> {
    let own = o.scoped.of(Family::V4)?;
    is_announced(t, own, o.scoped.host)?;
    is_reached_and_comes_as(t, &o.scoped, own)?;
    let private = o.public[0].of(Family::V4)?;
    o.scoped.reaches(t, private)?;
    Ok(format!(
        "{own} on h3 is in the external network's scope: reached from the internet, and comes there as itself"
    ))
}
