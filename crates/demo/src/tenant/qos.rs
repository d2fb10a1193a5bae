//! QoS policies: that limits hold, for ports both ways, for floating IPs and for gateways, and that code points arrive.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_types::Family;
use serde_json::{Value, json};

use super::{Tenant, guest::Guest, outside::Outside};
use crate::{
    check::{expect, wait_for},
    fabric::INTERNET_V4,
    flow::{Arrived, Flow, Load, measure},
    probe::{Counter, send_udp},
    rest::text,
};

/// In bits a second, of what a port sends.
const EGRESS: u64 = 8_000_000;
/// In bits a second, of what a port gets.
const INGRESS: u64 = 12_000_000;
/// In packets a second.
const PACKETS: u64 = 1_000;
/// Expedited forwarding (RFC 3246).
const MARK: u8 = 46;
const PORT: u16 = 7_000;
/// Octets in a datagram; one more with its headers fits any of the networks.
const PAYLOAD: usize = 1_200;

/// A policy, made by an administrator for everybody.
struct Policy<'a> {
    t: &'a Tenant,
    id: String,
}

impl<'a> Policy<'a> {
    fn create(t: &'a Tenant, name: &str, rules: &[(&str, Value)]) -> Result<Policy<'a>> {
        let policy = json!({"name": name, "shared": true});
        let made = t.admin.request(
            "POST",
            "/networking/v2.0/qos/policies",
            Some(&json!({"policy": policy})),
        )?;
        let id = text(&made.body["policy"], "id")?;
        for (kind, rule) in rules {
            let path = format!("/networking/v2.0/qos/policies/{id}/{kind}s");
            let made = t
                .admin
                .request("POST", &path, Some(&json!({*kind: rule})))?;
            expect(
                made.status == 201,
                format!("make a {kind}: {} {}", made.status, made.body),
            )?;
        }
        Ok(Policy { t, id })
    }

    fn delete(self) -> Result<()> {
        let path = format!("/networking/v2.0/qos/policies/{}", self.id);
        let gone = self.t.admin.request("DELETE", &path, None)?;
        expect(
            gone.status == 204,
            format!("delete a policy: {} {}", gone.status, gone.body),
        )
    }
}

fn bandwidth(direction: &str, bits: u64) -> (&'static str, Value) {
    let rule = json!({"direction": direction, "max_kbps": bits / 1000});
    ("bandwidth_limit_rule", rule)
}

/// Within 10 %.
fn is_about(what: &str, seen: u64, limit: u64) -> Result<()> {
    expect(
        seen.abs_diff(limit) * 10 <= limit,
        format!("{what}: {seen} a second arrive, and the limit is {limit}"),
    )
}

/// Half as much again as may pass.
fn too_much(limit: u64) -> Load {
    let octets = u64::try_from(PAYLOAD).unwrap_or(u64::MAX) + 28;
    Load::Udp {
        payload: PAYLOAD,
        rate: limit * 3 / 2 / 8 / octets,
    }
}

fn flow<'a>(from: &'a Guest, to: &'a Guest, family: Family, port: u16) -> Result<Flow<'a>> {
    let at = SocketAddr::new(to.of(family)?, port);
    Ok(Flow {
        from: &from.place,
        to: &to.place,
        at,
        inside: at,
    })
}

/// Both at a time.
fn both(one: (Flow<'_>, Load), other: (Flow<'_>, Load)) -> Result<[Arrived; 2]> {
    thread::scope(|scope| {
        let beside = scope.spawn(move || measure(one.0, one.1));
        let second = measure(other.0, other.1)?;
        match beside.join() {
            Ok(first) => Ok([first?, second]),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What ports, floating IPs and gateways send and receive is limited as policies say.
pub fn limits(t: &Tenant, o: &Outside) -> Result<String> {
    let rules = [
        bandwidth("egress", EGRESS),
        bandwidth("ingress", INGRESS),
        ("dscp_marking_rule", json!({"dscp_mark": MARK})),
    ];
    let policy = Policy::create(t, "limited", &rules)?;
    let [limited, other] = [t.guest("red1")?, t.guest("red2")?];
    let set = |id: Option<&str>| -> Result<()> {
        let changed = json!({"qos_policy_id": id});
        let cloud = &t.projects[0].cloud;
        cloud.update("port", &limited.port, changed).map(drop)
    };
    set(Some(&policy.id))?;
    stands(t, limited.host, &[EGRESS / 8, INGRESS / 8])?;
    let looked = bandwidths(limited, other).and_then(|told| {
        marks(limited, other)?;
        Ok(told)
    });
    set(None)?;
    policy.delete()?;
    let told = looked?;
    let packets = packet_rate(t, limited, other)?;
    let translated = translated(t, o)?;
    Ok(format!(
        "{told}; {packets}; {translated}; code point {MARK} arrives"
    ))
}

/// A host's kernel has limiters with these rates, octets or packets a second, in some namespace.
fn stands(t: &Tenant, host: usize, rates: &[u64]) -> Result<()> {
    let host = t.hosts.get(host).context("no such host")?;
    let list =
        "for n in $(ip netns list | cut -d' ' -f1); do ip netns exec $n nft list limits; done";
    wait_for(Duration::from_secs(20), || {
        let limits = host.place.run(&["sh", "-c", list])?;
        let is_there = |rate: &u64| limits.contains(&format!("-{rate}-"));
        expect(
            rates.iter().all(is_there),
            format!("{} has no limits of {rates:?}:\n{limits}", host.name),
        )
    })
}

fn bandwidths(limited: &Guest, other: &Guest) -> Result<String> {
    let mut told = Vec::new();
    for family in Family::BOTH {
        let out = flow(limited, other, family, PORT)?;
        let back = flow(other, limited, family, PORT + 1)?;
        let loads = [
            ("UDP", too_much(EGRESS), too_much(INGRESS)),
            ("TCP", Load::Tcp, Load::Tcp),
        ];
        for (name, outward, inward) in loads {
            let [sent, got] = both((out, outward), (back, inward))?;
            is_about(
                &format!("{name} by {family} from the port"),
                sent.bits,
                EGRESS,
            )?;
            is_about(
                &format!("{name} by {family} to the port"),
                got.bits,
                INGRESS,
            )?;
            told.push(format!(
                "{name} by {family} {:.1} and {:.1}",
                mbit(sent.bits),
                mbit(got.bits)
            ));
        }
    }
    Ok(format!(
        "{} Mbit/s from and to a port with {:.0} and {:.0}",
        told.join(", "),
        mbit(EGRESS),
        mbit(INGRESS)
    ))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mbit(bits: u64) -> f64 {
    bits as f64 / 1e6
}

fn marks(limited: &Guest, other: &Guest) -> Result<()> {
    for family in Family::BOTH {
        let to = SocketAddr::new(other.of(family)?, PORT);
        let header = if to.is_ipv4() { "ip" } else { "ip6" };
        let of = |mark: &str| format!("{header} dscp {mark} udp dport {PORT}");
        let marked = Counter::place(&other.place, &of(&MARK.to_string()))?;
        let unmarked = Counter::place(&other.place, &of(&format!("!= {MARK}")))?;
        send_udp(&limited.place, limited.of(family)?, to, 20)?;
        let (marked, unmarked) = (marked.take()?, unmarked.take()?);
        expect(
            marked > 0 && unmarked == 0,
            format!(
                "{marked} datagrams with the code point arrive by {family}, {unmarked} without"
            ),
        )?;
    }
    Ok(())
}

fn packet_rate(t: &Tenant, limited: &Guest, other: &Guest) -> Result<String> {
    let rules = [(
        "packet_rate_limit_rule",
        json!({"max_kpps": PACKETS / 1000}),
    )];
    let policy = Policy::create(t, "few-packets", &rules)?;
    let set = |id: Option<&str>| -> Result<()> {
        let changed = json!({"qos_policy_id": id});
        t.projects[0]
            .cloud
            .update("network", &limited.network.id, changed)
            .map(drop)
    };
    set(Some(&policy.id))?;
    stands(t, limited.host, &[PACKETS])?;
    let load = Load::Udp {
        payload: 64,
        rate: PACKETS * 2,
    };
    let seen = flow(limited, other, Family::V6, PORT).and_then(|flow| measure(flow, load));
    set(None)?;
    policy.delete()?;
    let seen = seen?.packets;
    is_about("packets from a port of a network", seen, PACKETS)?;
    Ok(format!("{seen} packets a second of {PACKETS}"))
}

/// By a floating IP, and by the gateway's address.
fn translated(t: &Tenant, o: &Outside) -> Result<String> {
    let rules = [bandwidth("egress", EGRESS), bandwidth("ingress", INGRESS)];
    let policy = Policy::create(t, "translated", &rules)?;
    let (sharing, [_, guest]) = (o.shares_an_address(), o.public());
    let cloud = &t.projects[0].cloud;
    let ips = cloud.list("floatingip", &format!("port_id={}", guest.port))?;
    let ip = ips.first();
    let ip = ip.with_context(|| format!("{} has no floating IP", guest.name))?;
    let set = |id: Option<&str>| -> Result<()> {
        let limit = json!({"qos_policy_id": id});
        cloud.update("floatingip", &text(ip, "id")?, limit)?;
        let gateway = json!({"network_id": o.external(), "qos_policy_id": id});
        o.router()
            .update(json!({"external_gateway_info": gateway}))
            .map(drop)
    };
    let looked = set(Some(&policy.id)).and_then(|()| {
        let address: IpAddr = text(ip, "floating_ip_address")?.parse()?;
        super::outside::is_announced(t, address, guest.host)?;
        stands(t, guest.host, &[EGRESS / 8, INGRESS / 8])?;
        by_floating_ip(t, guest, address).and_then(|told| {
            let gateway = by_gateway(t, sharing)?;
            Ok(format!("{told}; {gateway}"))
        })
    });
    set(None)?;
    policy.delete()?;
    looked
}

fn by_floating_ip(t: &Tenant, guest: &Guest, address: IpAddr) -> Result<String> {
    let inside = guest.of(Family::V4)?;
    let to_guest = Flow {
        from: &t.internet,
        to: &guest.place,
        at: SocketAddr::new(address, PORT),
        inside: SocketAddr::new(inside, PORT),
    };
    let at = SocketAddr::new(INTERNET_V4.into(), PORT + 1);
    let from_guest = Flow {
        from: &guest.place,
        to: &t.internet,
        at,
        inside: at,
    };
    let [got, sent] = both(
        (to_guest, too_much(INGRESS)),
        (from_guest, too_much(EGRESS)),
    )?;
    is_about("to a floating IP", got.bits, INGRESS)?;
    is_about("from a floating IP", sent.bits, EGRESS)?;
    Ok(format!(
        "{:.1} and {:.1} by a floating IP",
        mbit(sent.bits),
        mbit(got.bits)
    ))
}

fn by_gateway(t: &Tenant, guest: &Guest) -> Result<String> {
    let at = SocketAddr::new(INTERNET_V4.into(), PORT + 2);
    let flow = Flow {
        from: &guest.place,
        to: &t.internet,
        at,
        inside: at,
    };
    let sent = measure(flow, too_much(EGRESS)).context("by the gateway")?;
    is_about("from a router's gateway", sent.bits, EGRESS)?;
    Ok(format!("{:.1} by the gateway", mbit(sent.bits)))
}
