//! Who reaches whom.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use serde_json::Value;

use super::{INTERNET_V4, INTERNET_V6, Single, VPS_V4};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach, greeting},
};

/// A scan's addresses.
const SCANNED: u32 = 100_000;
/// As whom the internet asks.
const ASKS_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ASKS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const SOON: Duration = Duration::from_secs(10);
/// A part of the provider's /64.
const CUT: &str = "2001:db8:0:1::c:0/112";

/// The address that a machine has from the provider's router.
pub fn own_address(place: &Node) -> Result<Ipv6Addr> {
    wait_for(SOON, || {
        let tentative = place.run(&["ip", "-6", "addr", "show", "tentative"])?;
        expect(tentative.is_empty(), "an address is tentative still")?;
        let words = [
            "ip",
            "-j",
            "-6",
            "addr",
            "show",
            "dev",
            "eth0",
            "scope",
            "global",
            "-tentative",
        ];
        let shown: Vec<Value> = serde_json::from_str(&place.run(&words)?)?;
        let all = shown.iter().flat_map(|l| l["addr_info"].as_array());
        let mut all = all.flatten().filter_map(|a| a["local"].as_str());
        let first = all.next().context("no global address yet")?;
        Ok(first.parse()?)
    })
}

/// Somebody outside reaches each workload.
pub fn inbound(s: &Single) -> Result<String> {
    for c in &s.containers {
        let said = greeting(&s.internet, c.at())?;
        let right = format!("{} {ASKS_V6}", c.name);
        expect(said == right, format!("{} says {said}", c.at()))?;
        s.internet.reaches(c.v6[0].into(), 3)?;
    }
    Ok(format!(
        "{} workloads answer at their own addresses of the link's prefix, and see who asks",
        s.containers.len()
    ))
}

/// Workloads reach outside, and each other.
pub fn outbound(s: &Single) -> Result<String> {
    let counter = Counter::place(&s.internet, &format!("ip6 saddr {}", s.web().v6[0]))?;
    s.vps.pings("web", INTERNET_V6.into())?;
    let seen = counter.take()?;
    expect(seen > 0, "the internet has not seen its address")?;
    let other = &s.containers[1];
    s.vps.pings("web", other.v6[0].into())?;
    s.vps.pings("web", other.v4.into())?;
    Ok("with its own address as the source; and another workload by both families".to_owned())
}

/// Private IPv4 leaves with the machine's own address.
pub fn nat(s: &Single) -> Result<String> {
    let at = SocketAddr::from((INTERNET_V4, 7_777));
    let listener = s.internet.enter(|| {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        anyhow::Ok(socket)
    })??;
    let say = format!("echo hextet > /dev/udp/{}/{}", at.ip(), at.port());
    s.vps.inside("web", &["bash", "-c", &say])?;
    let (_, from) = listener.recv_from(&mut [0; 16]).context("nothing came")?;
    expect(
        from.ip() == IpAddr::from(VPS_V4),
        format!("seen as {}", from.ip()),
    )?;
    s.vps.pings("web", INTERNET_V4.into())?;
    Ok(format!("{} is seen outside as {VPS_V4}", s.web().v4))
}

/// Ports of the machine lead to workloads, and no longer once that is taken back.
pub fn exposed(s: &Single) -> Result<String> {
    s.vps.hextet(&["expose", "web", "8080", "--to", "80"])?;
    s.vps.hextet(&["expose", "db", "8081", "--to", "80"])?;
    let at = |port| SocketAddr::from((VPS_V4, port));
    for (port, name) in [(8080, "web"), (8081, "db")] {
        let said = wait_for(SOON, || greeting(&s.internet, at(port)))?;
        let right = format!("{name} ::ffff:{ASKS_V4}");
        expect(said == right, format!("{} says {said}", at(port)))?;
    }
    let refused = s.vps.hextet(&["expose", "db", "8080"]);
    let refused = refused.err().context("a port leads to two workloads")?;
    expect(
        refused.to_string().contains("8080"),
        format!("refused by {refused:#}"),
    )?;
    s.vps.hextet(&["expose", "web", "8080", "--remove"])?;
    wait_for(SOON, || {
        let said = greeting(&s.internet, at(8080));
        expect(said.is_err(), "8080 still leads to web")
    })?;
    Ok(format!(
        "{VPS_V4}:8080 leads to web, :8081 to db, who see who asks; 8080 for db, too, is refused; taken back: closed"
    ))
}

/// Nobody answers for what is nobody's.
pub fn silent(s: &Single) -> Result<String> {
    let nobody = Ipv6Addr::from(u128::from(s.web().v6[0]) + 1);
    // The target is behind eight octets (RFC 4861 §4.4).
    let target = u128::from(nobody);
    let answers = format!("icmpv6 type nd-neighbor-advert @th,64,128 {target:#x}");
    let counter = Counter::place(&s.provider, &answers)?;
    s.internet.does_not_reach(nobody.into())?;
    let seen = counter.take()?;
    expect(seen == 0, format!("{seen} answers for {nobody}"))?;
    Ok(format!("{nobody}: no neighbour advertisement, no echo"))
}

/// Who wants a workload's address on the link is told that it is taken.
pub fn dad_defended(s: &Single) -> Result<String> {
    let (other, wanted) = (&s.vps2.place, s.web().v6[0]);
    let addr = format!("{wanted}/64");
    other.run(&["sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=1"])?;
    other.run(&["ip", "addr", "add", &addr, "dev", "eth0"])?;
    let found = wait_for(SOON, || {
        let shown = other.run(&["ip", "-6", "addr", "show", "dadfailed"])?;
        expect(
            shown.contains(&wanted.to_string()),
            "duplicate address detection has found nothing",
        )
    });
    other.run(&["ip", "addr", "del", &addr, "dev", "eth0"])?;
    found?;
    s.internet.reaches(wanted.into(), 3)?;
    Ok(format!(
        "another machine that takes {wanted} finds it taken"
    ))
}

/// Somebody outside tries addresses of the link's prefix, one after the other.
pub fn scan(s: &Single) -> Result<String> {
    let base = u128::from(s.web().v6[0]) & !0xffff_ffff;
    s.internet.enter(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        for n in 0..SCANNED {
            let to = SocketAddr::from((Ipv6Addr::from(base | u128::from(n)), 9));
            let _ = socket.send_to(b"", to);
        }
        anyhow::Ok(())
    })??;
    let held = |place: &Node, dev: &str| -> Result<usize> {
        let shown = place.run(&["ip", "-j", "-6", "neigh", "show", "dev", dev])?;
        let shown: Vec<Value> = serde_json::from_str(&shown)?;
        Ok(shown.iter().filter(|n| n["lladdr"].is_string()).count())
    };
    let (outside, own) = (held(&s.provider, "lan")?, held(&s.vps.place, "eth0")?);
    // Of each machine its link-local and its global address; of vps2 one more.
    let allocated = s.containers.len() + 5;
    expect(
        outside <= allocated,
        format!(
            "the provider's router holds {outside} neighbours, {allocated} addresses are there"
        ),
    )?;
    expect(own <= 4, format!("the machine holds {own} neighbours"))?;
    for c in &s.containers {
        s.internet.reaches(c.v6[0].into(), 3)?;
    }
    Ok(format!(
        "{SCANNED} addresses tried from outside: the provider's router holds {outside} neighbours that answered, of {allocated} \
         that are there"
    ))
}

/// A part of the /64 is enough: on a machine whose addresses are set by hand.
pub fn cut(s: &Single) -> Result<String> {
    let vps = &s.vps2;
    let before = super::failure::Machine::look(&vps.place)?;
    let wrong = vps.hextet(&["up", "--background", "--prefix", "2001:db8:0:9::/112"]);
    let wrong = wrong.err().context("a prefix of somebody else is taken")?;
    expect(
        format!("{wrong:#}").contains("2001:db8:0:1::/64"),
        format!("refused by {wrong:#}"),
    )?;
    vps.hextet(&["up", "--background", "--prefix", CUT])?;
    let container = vps.container(&s.lab, "small")?;
    let v6 = container.v6[0];
    let is_inside = u128::from(v6) >> 16
        == u128::from_be_bytes([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x0c, 0, 0,
        ]) >> 16;
    expect(is_inside, format!("{v6} is not of {CUT}"))?;
    let said = greeting(&s.internet, container.at())?;
    expect(said.starts_with("small"), said)?;
    vps.pings("small", INTERNET_V6.into())?;
    vps.pings("small", INTERNET_V4.into())?;
    vps.pings("small", s.web().v6[0].into())?;
    container.end()?;
    vps.hextet(&["down"])?;
    before.is_again(&vps.place)?;
    Ok(format!(
        "{v6} of {CUT}: reached from outside, and reaches outside and the neighbour's workload; a prefix of others is refused"
    ))
}
