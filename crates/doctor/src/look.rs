//! Seeing: the host by netlink and sysctls, rules of others by `nft`, routers by asking them.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_autoconf::{
    frame::{self, Envelope},
    nd::{NdOption, RouterSolicitation},
    ra::RouterAdvertisement,
};
use hextet_kernel::{
    host::{self, Host, OwnAddress},
    links::Found,
    packet::PacketSocket,
    sysctl,
};
use hextet_types::{Family, IfName, Mac};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Finding, firewall,
    observation::{Address, Answered, ByRouter, Link, Neighbours, Observations, Router, Said},
};

/// How long routers have to answer (RFC 4861 §10: up to half a second, and the last one three seconds ago).
const LISTENING: Duration = Duration::from_millis(3_500);
const BETWEEN: Duration = Duration::from_millis(20);
const ECHO: Duration = Duration::from_secs(1);
const ECHOES: u16 = 3;
const LEAST_MTU: u32 = 1_280;
/// What is kept of what is heard.
const MAX_ROUTERS: usize = 16;
const MAX_PREFIXES: usize = 32;
const MAX_FRAME: usize = 2_048;
const MAX_ECHO: usize = 65_536;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const TO_ALL_ROUTERS: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 2]);

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// This link alone; otherwise all that are up but ports.
    pub link: Option<IfName>,
    /// Addresses that are asked whether they answer.
    pub addresses: Vec<IpAddr>,
}

/// Looks at the host in the caller's namespace.
///
/// # Errors
///
/// There is no such link, or the kernel can't be asked: that takes root.
pub fn look(asked: &Asked) -> Result<Observations> {
    let host = host::look()?;
    let links = chosen(&host, asked)?;
    let heard = listen(&links, &host)?;
    let addresses = asked.addresses.iter();
    let answers = addresses.map(|addr| ask(&host, *addr));
    let answers = answers.collect::<Result<_>>()?;
    Ok(Observations {
        links: links
            .iter()
            .map(|link| seen(link, &host, heard.get(&link.index)))
            .collect(),
        chains: rules()?,
        neighbours: neighbours()?,
        asked: answers,
    })
}

fn chosen<'a>(host: &'a Host, asked: &Asked) -> Result<Vec<&'a Found>> {
    let is_meant = |link: &&Found| match &asked.link {
        Some(name) => link.name == *name,
        None => link.up && link.mac.is_some() && !link.name.as_str().starts_with("tap"),
    };
    let links: Vec<&Found> = host.links.iter().filter(is_meant).collect();
    match (&asked.link, links.is_empty()) {
        (Some(name), true) => {
            bail!("there is no link {name}: 'ip link' shows those that there are")
        }
        _ => Ok(links),
    }
}

fn seen(link: &Found, host: &Host, routers: Option<&Vec<Router>>) -> Link {
    let setting = |version: u8, name: &str| {
        let path = format!("net/ipv{version}/conf/{}/{name}", link.name);
        sysctl::read(&path).ok().and_then(|text| text.parse().ok())
    };
    let v6 = |name| setting(6, name).unwrap_or(0);
    let all: u32 = sysctl::read("net/ipv4/conf/all/rp_filter")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let defaults = |family| {
        let of_link = host.routes.iter().filter(|r| r.link == link.index);
        let mut defaults = of_link.filter(move |r| r.prefix.is_default());
        defaults.find(move |r| r.prefix.family() == family)
    };
    Link {
        name: link.name.clone(),
        mtu: link.mtu,
        addresses: host
            .addresses
            .iter()
            .filter(|a| a.index == link.index && !is_link_local(a))
            .map(address)
            .collect(),
        default_v6: defaults(Family::V6).map(|route| ByRouter(route.by_router)),
        default_v4: defaults(Family::V4).is_some(),
        forwarding: v6("forwarding"),
        accept_ra: v6("accept_ra"),
        disable_ipv6: v6("disable_ipv6"),
        rp_filter: setting(4, "rp_filter").unwrap_or(0).max(all),
        routers: routers.cloned(),
    }
}

fn is_link_local(own: &OwnAddress) -> bool {
    let IpAddr::V6(addr) = own.addr else {
        return false;
    };
    addr.is_unicast_link_local() && !own.standing.duplicate
}

fn address(own: &OwnAddress) -> Address {
    Address {
        addr: own.addr,
        prefix_len: own.prefix_len,
        duplicate: own.standing.duplicate,
        by_hand: own.standing.permanent,
    }
}

/// Asks the routers of all links at once.
fn listen(links: &[&Found], host: &Host) -> Result<BTreeMap<u32, Vec<Router>>> {
    let mut heard = BTreeMap::new();
    let mut sockets = Vec::new();
    for link in links.iter().filter(|link| link.up) {
        let Some(mac) = link.mac else {
            continue;
        };
        let socket = PacketSocket::of_routers(link.index)?;
        if let Some(frame) = solicitation(mac, own_link_local(host, link.index)) {
            // A link without a carrier takes nothing, and hears nothing.
            let _ = socket.send(link.index, &frame);
        }
        heard.insert(link.index, Vec::new());
        sockets.push((link.index, socket));
    }
    let end = Instant::now() + LISTENING;
    while Instant::now() < end && !sockets.is_empty() {
        for (index, socket) in &sockets {
            let routers = heard.entry(*index).or_default();
            receive(socket, routers)?;
        }
        sleep(BETWEEN);
    }
    Ok(heard)
}

fn own_link_local(host: &Host, link: u32) -> Option<Ipv6Addr> {
    let own = host.addresses.iter().filter(|a| a.index == link);
    let sound = own.filter(|a| !a.standing.tentative && !a.standing.duplicate);
    let mut local = sound.filter_map(|a| match a.addr {
        IpAddr::V6(addr) if addr.is_unicast_link_local() => Some(addr),
        _ => None,
    });
    local.next()
}

fn solicitation(mac: Mac, link_local: Option<Ipv6Addr>) -> Option<Vec<u8>> {
    let envelope = Envelope {
        source_mac: mac,
        destination_mac: TO_ALL_ROUTERS,
        source: link_local.unwrap_or(Ipv6Addr::UNSPECIFIED),
        destination: ALL_ROUTERS,
    };
    let options = match link_local {
        Some(_) => vec![NdOption::SourceLinkLayer(mac)],
        None => Vec::new(),
    };
    envelope.neighbour_discovery(&RouterSolicitation { options }.encode())
}

fn receive(socket: &PacketSocket, routers: &mut Vec<Router>) -> Result<()> {
    let mut buffer = [0; MAX_FRAME];
    loop {
        match socket.recv(&mut buffer) {
            Ok((_, octets)) => {
                let Some(router) = router(buffer.get(..octets).unwrap_or_default()) else {
                    continue;
                };
                let known = routers.iter().position(|r| r.addr == router.addr);
                match known {
                    Some(at) => routers[at] = router,
                    None if routers.len() < MAX_ROUTERS => routers.push(router),
                    None => {}
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("hear routers"),
        }
    }
}

fn router(frame: &[u8]) -> Option<Router> {
    let (envelope, message) = frame::neighbour_discovery(frame).ok()?;
    let said = RouterAdvertisement::decode(message).ok()?;
    let mut router = Router {
        addr: envelope.source,
        mac: Some(envelope.source_mac),
        lifetime_secs: said.router_lifetime_secs,
        managed: said.managed,
        other: said.other,
        mtu: None,
        prefixes: Vec::new(),
    };
    for option in said.options {
        match option {
            NdOption::Mtu(mtu) => router.mtu = Some(mtu),
            NdOption::Prefix(p) if router.prefixes.len() < MAX_PREFIXES => {
                router.prefixes.push(Said {
                    prefix: p.prefix,
                    autonomous: p.autonomous,
                    on_link: p.on_link,
                    valid_secs: p.valid_lifetime_secs,
                    preferred_secs: p.preferred_lifetime_secs,
                });
            }
            _ => {}
        }
    }
    Some(router)
}

/// What rules of others drop of workloads' packets.
///
/// # Errors
///
/// They can't be listed.
pub fn rules_of_others() -> Result<Vec<Finding>> {
    Ok(firewall::findings(&rules()?))
}

/// Without `nft` nobody has such rules, or they can't be seen.
fn rules() -> Result<Vec<crate::observation::Chain>> {
    let listed = match Command::new("nft").args(["-j", "list", "ruleset"]).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.context("run nft")?,
    };
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        bail!("nft -j list ruleset: {}", said.trim());
    }
    let listed = serde_json::from_slice(&listed.stdout).context("understand what nft lists")?;
    Ok(firewall::read(&listed))
}

fn neighbours() -> Result<Vec<Neighbours>> {
    let all = host::neighbours()?;
    let mut tables = Vec::new();
    for (version, is_v6) in [(4, false), (6, true)] {
        let path = format!("net/ipv{version}/neigh/default/gc_thresh3");
        // Namespaces other than the first share its limits, and don't see them.
        let Some(room) = sysctl::read(&path).ok().and_then(|text| text.parse().ok()) else {
            continue;
        };
        let held = all.iter().filter(|(_, addr, _)| addr.is_ipv6() == is_v6);
        tables.push(Neighbours {
            version,
            held: held.count(),
            room,
        });
    }
    Ok(tables)
}

/// Small echo requests, and such as fill the link.
fn ask(host: &Host, addr: IpAddr) -> Result<Answered> {
    let routes = host.routes.iter().filter(|r| r.prefix.contains(addr));
    let route = routes.max_by_key(|r| (r.prefix.len(), std::cmp::Reverse(r.metric)));
    let route = route.with_context(|| format!("there is no route to {addr}"))?;
    let link = host.link(route.link).context("the route's link has gone")?;
    let header = if addr.is_ipv6() { 40 } else { 20 };
    let small = echo(addr, LEAST_MTU - header)?;
    let large = echo(addr, link.mtu.max(LEAST_MTU) - header)?;
    let known = host::neighbours()?;
    let is_there = |(index, of, mac): &(u32, IpAddr, Option<Mac>)| {
        *index == link.index && *of == addr && mac.is_some()
    };
    let is_own = host.addresses.iter().any(|own| own.addr == addr);
    Ok(Answered {
        addr,
        link: link.name.clone(),
        mtu: link.mtu,
        unresolved: route.gateway.is_none() && !is_own && !known.iter().any(is_there),
        small,
        large,
    })
}

/// Whether one of some echo requests is answered, whose ICMP message has so many octets (RFC 4443 §4.1, RFC 792).
fn echo(addr: IpAddr, octets: u32) -> Result<bool> {
    let (domain, protocol, request, reply, skipped) = match addr {
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).context("open a raw socket")?;
    socket.set_read_timeout(Some(ECHO))?;
    if socket.connect(&SocketAddr::new(addr, 0).into()).is_err() {
        return Ok(false);
    }
    let identifier = std::process::id().to_be_bytes();
    let mut message = vec![0; usize::try_from(octets)?];
    message[0] = request;
    message[4..6].copy_from_slice(&identifier[2..]);
    for number in 0..ECHOES {
        message[6..8].copy_from_slice(&number.to_be_bytes());
        if addr.is_ipv4() {
            message[2..4].fill(0);
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        // Refused for now: nobody is there, or it is too large as is known already, and goes in fragments next time.
        if socket.write(&message).is_err() {
            sleep(BETWEEN);
            continue;
        }
        let end = Instant::now() + ECHO;
        let mut buffer = vec![0; MAX_ECHO];
        while Instant::now() < end {
            let Ok(n) = socket.read(&mut buffer) else {
                break;
            };
            let answer = buffer.get(skipped..n).unwrap_or_default();
            let is_ours = answer.first() == Some(&reply) && answer.get(4..6) == message.get(4..6);
            if is_ours && answer.len() == message.len() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(pair[0]) << 8 | u32::from(low)
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
