//! Packets that are many, and packets that are in a hurry, between the same two nodes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Mesh, member::Member, reach::pings};
use crate::{
    check::expect,
    flow::{self, Flow, Load},
    probe::Counter,
};

/// What the straight way carries.
const NARROW: f64 = 5.0;
/// Which connections are many: those to that port.
const PORT: u16 = 5_001;
/// How long it may take until they have found their way.
const FOUND: Duration = Duration::from_secs(60);
/// Echo requests of which each has to be seen on its way.
const SEEN: u64 = 10;

/// The straight way is made narrow: connections with much to carry go by others, all else goes on as before.
pub fn routing(m: &Mesh) -> Result<String> {
    let (p1, p2) = (m.member("p1")?, m.member("p2")?);
    narrow(p1, p2, true)?;
    mark(p1, true)?;
    let seen = by_two_ways(m, p1, p2);
    mark(p1, false)?;
    narrow(p1, p2, false)?;
    seen
}

fn by_two_ways(m: &Mesh, p1: &Member, p2: &Member) -> Result<String> {
    let begin = Instant::now();
    let (mut first, mut last);
    let mut rates = Vec::new();
    let by = loop {
        last = stream(p1, p2, PORT)?;
        rates.push(format!("{last:.1}"));
        first = p1.status()?;
        let by = first.next_in("throughput", p2)?;
        if by != p2.id && last > 2.0 * NARROW {
            break m.name_of(by).to_owned();
        }
        if begin.elapsed() > FOUND {
            bail!("many packets go by {by}, at {} Mbit/s", rates.join(", "));
        }
    };
    expect(
        first.next_to(p2)? == p2.id,
        "what is in a hurry does not go straight",
    )?;
    let what = format!(
        "ip6 saddr {} ip6 daddr {} icmpv6 type echo-request iifname hxm{}",
        p1.home,
        p2.home,
        end_of(&p1.id)
    );
    let counter = Counter::place(&p2.place, &what)?;
    pings(p1, p2)?;
    let seen = counter.take()?;
    expect(
        seen >= SEEN,
        format!("of {SEEN} echoes {seen} came straight"),
    )?;
    let straight = stream(p1, p2, PORT + 1)?;
    expect(
        straight < 1.2 * NARROW,
        format!("{straight:.1} Mbit/s went straight, where {NARROW} go"),
    )?;
    Ok(format!(
        "p1 to p2 straight at {NARROW} Mbit/s: a stream with AF11 got {} Mbit/s, by {by} in the end; one without {straight:.1}, and {seen} of {SEEN} echoes straight",
        rates.join(", ")
    ))
}

/// The digits that an interface has.
fn end_of(id: &str) -> &str {
    id.get(id.len().saturating_sub(12)..).unwrap_or(id)
}

fn stream(from: &Member, to: &Member, port: u16) -> Result<f64> {
    let at = SocketAddr::from((to.home, port));
    let flow = Flow {
        from: &from.place,
        to: &to.place,
        at,
        inside: at,
    };
    Ok(flow::measure(flow, Load::Tcp)?.bits as f64 / 1e6)
}

/// Connections to the port have the code point AF11 where they begin.
fn mark(at: &Member, does: bool) -> Result<()> {
    let words = match does {
        true => format!(
            "table inet bulk {{ chain out {{ type filter hook output priority -200; tcp dport {PORT} ip6 dscp set af11; }}; }}"
        ),
        false => "delete table inet bulk".to_owned(),
    };
    at.place.run(&["nft", &words])?;
    Ok(())
}

/// So little goes from one to the other without anybody between them.
fn narrow(from: &Member, to: &Member, does: bool) -> Result<()> {
    if !does {
        from.place
            .run(&["tc", "qdisc", "del", "dev", "wan", "root"])?;
        return Ok(());
    }
    let mut script = format!(
        "tc qdisc add dev wan root handle 1: htb default 1; \
         tc class add dev wan parent 1: classid 1:1 htb rate 10gbit quantum 60000; \
         tc class add dev wan parent 1: classid 1:3 htb rate {NARROW}mbit; \
         tc qdisc add dev wan parent 1:3 pfifo limit 30"
    );
    for address in &to.outside {
        let (protocol, what) = match address.is_ipv4() {
            true => ("ip", "ip"),
            false => ("ipv6", "ip6"),
        };
        script += &format!(
            "; tc filter add dev wan parent 1: protocol {protocol} u32 match {what} dst {address} flowid 1:3"
        );
    }
    from.place.run(&["sh", "-ec", &script])?;
    Ok(())
}
