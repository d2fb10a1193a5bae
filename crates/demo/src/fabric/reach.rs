//! Who reaches whom: the checks of a cloud where nothing is broken.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Fabric, INTERNET_V4, INTERNET_V6, PRIVATE_V4};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach, send_udp, tcp_passes},
};

/// How long a dropped connection is waited for.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long an allowed one may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Every workload answers the internet by IPv6.
pub fn v6_inbound(f: &Fabric) -> Result<String> {
    for workload in f.plugged() {
        f.internet.reaches(IpAddr::V6(workload.v6), 3)?;
    }
    Ok(format!(
        "the internet reaches {} workloads by IPv6",
        f.plugged().count()
    ))
}

/// Workloads reach the internet by IPv6.
pub fn v6_outbound(f: &Fabric) -> Result<String> {
    for workload in f.plugged() {
        workload.place.reaches(INTERNET_V6.into(), 3)?;
    }
    Ok(format!(
        "{} workloads reach {INTERNET_V6}",
        f.plugged().count()
    ))
}

/// A guest with a static /64 and /24 reaches others of its subnets, on other hosts.
pub fn static_peer(f: &Fabric) -> Result<String> {
    let (guest, peer) = (f.workload("static")?, f.workload("web2")?);
    guest.place.reaches(peer.v6.into(), 3)?;
    guest.place.reaches(peer.v4.into(), 3)?;
    Ok(format!(
        "{} reaches {} and {}, which it believes to be on its link",
        guest.v6, peer.v6, peer.v4
    ))
}

/// Private IPv4 addresses are not reached from outside, even by one who has a route.
pub fn private_no_inbound(f: &Fabric) -> Result<String> {
    let private = f.workload("web1")?.v4.into();
    f.internet.does_not_reach(private)?;
    let spine = &f.spines[0];
    let route = format!("{private}/32");
    let via = ["via", "inet6", "fe80::ff:fe00:51", "dev", "spine1"];
    f.internet
        .run(&[["ip", "route", "add", &route].as_slice(), &via].concat())?;
    let silent = f.internet.does_not_reach(private);
    f.internet.run(&["ip", "route", "del", &route])?;
    silent?;
    Ok(format!(
        "{private} does not answer the internet, not even with a route by way of {}",
        spine.name()
    ))
}

/// Private IPv4 goes out through its host's translator.
pub fn private_nat_outbound(f: &Fabric) -> Result<String> {
    for name in ["web1", "web2"] {
        f.workload(name)?.place.reaches(INTERNET_V4.into(), 3)?;
    }
    Ok(format!(
        "web1 and web2 reach {INTERNET_V4} by NAT44 on h1 and h2"
    ))
}

/// Private and public IPv4 inside the cloud reach each other without translation.
pub fn private_between(f: &Fabric) -> Result<String> {
    let (web1, web2, public) = (
        f.workload("web1")?,
        f.workload("web2")?,
        f.workload("public1")?,
    );
    web1.place.reaches(web2.v4.into(), 3)?;
    let counter = Counter::place(&public.place, &format!("ip saddr {}", web1.v4))?;
    web1.place.reaches(public.v4.into(), 3)?;
    let seen = counter.take()?;
    expect(
        seen > 0,
        format!(
            "{} saw web1 under another address than {}",
            public.name, web1.v4
        ),
    )?;
    Ok(format!(
        "{} reaches {} and {} under its own address",
        web1.v4, web2.v4, public.v4
    ))
}

/// No packet with a private source gets to the internet, whatever it is for.
pub fn private_not_leaked(f: &Fabric) -> Result<String> {
    let leaked = Counter::place(&f.internet, &format!("ip saddr {PRIVATE_V4}"))?;
    let all = Counter::place(&f.internet, &format!("ip daddr {INTERNET_V4}"))?;
    for name in ["web1", "web2"] {
        let web = f.workload(name)?;
        send_udp(
            &web.place,
            web.v4.into(),
            SocketAddr::from((INTERNET_V4, 4000)),
            20,
        )?;
        for unallocated in ["198.51.100.250", "10.10.255.250"] {
            send_udp(
                &web.place,
                web.v4.into(),
                SocketAddr::new(unallocated.parse()?, 4000),
                20,
            )?;
        }
    }
    let (leaked, all) = (leaked.take()?, all.take()?);
    expect(
        all >= 40,
        format!("only {all} of 40 translated datagrams arrived"),
    )?;
    expect(
        leaked == 0,
        format!("{leaked} packets with a private source got to the internet"),
    )?;
    Ok(format!(
        "{all} translated datagrams arrived, none with a source in {PRIVATE_V4}"
    ))
}

/// Public IPv4 answers the internet.
pub fn public_inbound(f: &Fabric) -> Result<String> {
    for name in ["public1", "public2"] {
        f.internet.reaches(f.workload(name)?.v4.into(), 3)?;
    }
    Ok("public1 and public2 answer the internet by IPv4".to_owned())
}

/// A second port of one instance is refused, with the reason.
pub fn two_networks(f: &Fabric) -> Result<String> {
    let body = json!({"port": {"network_id": f.network("dualStack")?, "device_id": "web1"}});
    let answer = f
        .cloud
        .request("POST", "/networking/v2.0/ports", Some(&body))?;
    expect(
        answer.status == 409,
        format!("{} {}", answer.status, answer.body),
    )?;
    let message = answer.body["NeutronError"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    expect(
        message.contains("IPv6") && message.contains("dualStack"),
        format!("the message does not name the networks: {message}"),
    )?;
    Ok(format!("409: {message}"))
}

/// The spines learned a /128 and a /32 for each workload, and no others.
pub fn routes_on_spines(f: &Fabric) -> Result<String> {
    let vm = f.vm.iter().map(|vm| &vm.workload);
    let mut wanted: Vec<String> = f
        .plugged()
        .chain(vm)
        .flat_map(|w| [format!("{}/128", w.v6), format!("{}/32", w.v4)])
        .collect();
    wanted.sort();
    for spine in 0..f.spines.len() {
        wait_for(Duration::from_secs(10), || {
            let learned = f.workload_routes(spine)?;
            expect(
                learned == wanted,
                format!("spine has {learned:?}, and not {wanted:?}"),
            )
        })?;
    }
    Ok(format!(
        "{} host routes on each spine, one for each address",
        wanted.len()
    ))
}

/// What no rule allows does not get through.
pub fn group_denies(f: &Fabric) -> Result<String> {
    let (web, public) = (f.workload("web1")?, f.workload("public1")?);
    let closed = [
        (web, IpAddr::V6(web.v6)),
        (public, IpAddr::V6(public.v6)),
        (public, IpAddr::V4(public.v4)),
    ];
    for (workload, address) in closed {
        let at = SocketAddr::new(address, 8080);
        let passes = tcp_passes(&f.internet, &workload.place, at, SILENCE)?;
        expect(
            !passes,
            format!("TCP 8080 on {address} passes, although no rule allows it"),
        )?;
    }
    Ok("TCP 8080 is dropped, by IPv6 and IPv4".to_owned())
}

/// What a rule allows gets through; and the same packet, once a rule is there.
pub fn group_allows(f: &Fabric) -> Result<String> {
    let public = f.workload("public1")?;
    for address in [IpAddr::V6(public.v6), IpAddr::V4(public.v4)] {
        let at = |port| SocketAddr::new(address, port);
        expect(
            tcp_passes(&f.internet, &public.place, at(80), ANSWER)?,
            format!("TCP 80 on {address} does not pass"),
        )?;
        let ethertype = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        let rule = f.cloud.create("security_group_rule", json!({
            "security_group_id": f.group("web")?, "direction": "ingress", "ethertype": ethertype,
            "protocol": "tcp", "port_range_min": 8000, "port_range_max": 8100,
        }))?;
        let opened = wait_for(ANSWER, || {
            let passes = tcp_passes(&f.internet, &public.place, at(8080), SILENCE)?;
            expect(
                passes,
                format!("TCP 8080 on {address} stays shut after its rule was made"),
            )
        });
        f.cloud
            .delete("security_group_rule", rule["id"].as_str().context("no id")?)?;
        opened?;
        wait_for(ANSWER, || {
            let passes = tcp_passes(&f.internet, &public.place, at(8080), SILENCE)?;
            expect(
                !passes,
                format!("TCP 8080 on {address} stays open after its rule is gone"),
            )
        })?;
    }
    Ok("TCP 80 passes; TCP 8080 while its rule stands, by IPv6 and IPv4".to_owned())
}

/// A rule with a remote group admits its members and nobody else.
pub fn remote_group(f: &Fabric) -> Result<String> {
    let (db, member, other) = (
        f.workload("db")?,
        f.workload("web2")?,
        f.workload("static")?,
    );
    for address in [IpAddr::V6(db.v6), IpAddr::V4(db.v4)] {
        let at = SocketAddr::new(address, 5432);
        expect(
            tcp_passes(&member.place, &db.place, at, ANSWER)?,
            format!("a member can't reach {at}"),
        )?;
        expect(
            !tcp_passes(&other.place, &db.place, at, SILENCE)?,
            format!("a stranger reaches {at}"),
        )?;
    }
    Ok("db admits TCP 5432 from the group web alone, by IPv6 and IPv4".to_owned())
}

/// A workload can't send from an address that is not its own.
pub fn spoofed(f: &Fabric) -> Result<String> {
    let (liar, victim) = (f.workload("public1")?, f.workload("public2")?);
    for (own, stolen, to, length) in [
        (
            IpAddr::V6(liar.v6),
            IpAddr::V6(victim.v6),
            IpAddr::V6(INTERNET_V6),
            128,
        ),
        (
            IpAddr::V4(liar.v4),
            IpAddr::V4(victim.v4),
            IpAddr::V4(INTERNET_V4),
            32,
        ),
    ] {
        let family = if length == 128 { "ip6" } else { "ip" };
        let honest = Counter::place(&f.internet, &format!("{family} saddr {own} udp dport 4001"))?;
        let forged = Counter::place(
            &f.internet,
            &format!("{family} saddr {stolen} udp dport 4001"),
        )?;
        let address = format!("{stolen}/{length}");
        liar.place
            .run(&["ip", "addr", "add", &address, "dev", "lo"])?;
        let sent = send_udp(&liar.place, stolen, SocketAddr::new(to, 4001), 20)
            .and_then(|()| send_udp(&liar.place, own, SocketAddr::new(to, 4001), 20));
        liar.place
            .run(&["ip", "addr", "del", &address, "dev", "lo"])?;
        sent?;
        let (honest, forged) = (honest.take()?, forged.take()?);
        expect(
            honest == 20,
            format!("{honest} of 20 honest datagrams arrived"),
        )?;
        expect(
            forged == 0,
            format!("{forged} datagrams under {stolen} arrived"),
        )?;
    }
    Ok("20 of 20 datagrams under its own address arrive, 0 of 20 under another's, by both families".to_owned())
}
