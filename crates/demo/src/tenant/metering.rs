//! Metering: what passes between a router and the outside is counted once, on whichever host it passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_types::Family;
use serde_json::{Value, json};

use super::{Tenant, guest::Guest, outside::Outside};
use crate::{
    check::{expect, wait_for},
    fabric::{INTERNET_V4, INTERNET_V6},
    flow::{Flow, exchange, header},
    rest::text,
};

const PORT: u16 = 7_100;
/// Octets in a datagram.
const PAYLOAD: usize = 500;
/// Datagrams each way, of each flow.
const COUNT: usize = 300;
/// Counters are read every ten seconds; an agent that starts reads them at once.
const TOLD: Duration = Duration::from_secs(40);

/// By direction: packets and octets.
type Sums = BTreeMap<String, [u64; 2]>;

/// A label, with its rules.
struct Label<'a> {
    t: &'a Tenant,
    id: String,
}

impl<'a> Label<'a> {
    /// Of a project: all that passes, but for an address inside.
    fn create(t: &'a Tenant, name: &str, project: &str, without: Option<IpAddr>) -> Result<Self> {
        let label = json!({"name": name, "project_id": project});
        let id = text(&t.admin.create("metering_label", label)?, "id")?;
        let label = Label { t, id };
        for (direction, end) in [
            ("egress", "source_ip_prefix"),
            ("ingress", "destination_ip_prefix"),
        ] {
            for all in ["0.0.0.0/0", "::/0"] {
                label.rule(json!({"direction": direction, end: all}))?;
            }
            if let Some(addr) = without {
                let excluded = addr.to_string();
                label.rule(json!({"direction": direction, end: excluded, "excluded": true}))?;
            }
        }
        Ok(label)
    }

    fn rule(&self, mut rule: Value) -> Result<()> {
        rule["metering_label_id"] = json!(self.id);
        self.t.admin.create("metering_label_rule", rule).map(drop)
    }

    /// Of all hosts; and which of them have counted.
    fn sums(&self) -> Result<(Sums, BTreeSet<String>)> {
        let query = format!("metering_label_id={}", self.id);
        let mut sums = Sums::new();
        let mut hosts = BTreeSet::new();
        for row in self.t.admin.list("metering_label_sum", &query)? {
            let sum = sums.entry(text(&row, "direction")?).or_default();
            for (sum, name) in sum.iter_mut().zip(["packets", "octets"]) {
                *sum += row[name].as_u64().context("no number")?;
            }
            hosts.insert(text(&row, "host")?);
        }
        Ok((sums, hosts))
    }

    /// As many both ways as have been sent.
    fn wait_for(&self, sent: [u64; 2]) -> Result<BTreeSet<String>> {
        wait_for(TOLD, || {
            let (sums, hosts) = self.sums()?;
            for direction in ["egress", "ingress"] {
                let sum = sums.get(direction).copied().unwrap_or_default();
                expect(
                    sum == sent,
                    format!(
                        "{direction}: {sum:?} packets and octets are counted, and {sent:?} were sent: {sums:?}"
                    ),
                )?;
            }
            Ok(hosts)
        })
    }

    fn delete(self) -> Result<()> {
        self.t.admin.delete("metering_label", &self.id)
    }
}

/// By SNAT, by a floating IP and by public IPv6, from two hosts and to them.
fn flows<'a>(t: &'a Tenant, o: &'a Outside, floating: IpAddr) -> Result<[Flow<'a>; 4]> {
    let [sharing, owner] = o.public();
    let out = |from: &'a Guest, to: IpAddr, port| {
        let at = SocketAddr::new(to, port);
        Flow {
            from: &from.place,
            to: &t.internet,
            at,
            inside: at,
        }
    };
    let inward = |to: &'a Guest, at: IpAddr, port| -> Result<Flow<'a>> {
        let inside = to.of(if at.is_ipv4() { Family::V4 } else { Family::V6 })?;
        Ok(Flow {
            from: &t.internet,
            to: &to.place,
            at: SocketAddr::new(at, port),
            inside: SocketAddr::new(inside, port),
        })
    };
    Ok([
        out(sharing, INTERNET_V4.into(), PORT),
        inward(owner, floating, PORT + 1)?,
        out(sharing, INTERNET_V6.into(), PORT + 2),
        inward(owner, owner.of(Family::V6)?, PORT + 3)?,
    ])
}

/// Packets and octets each way.
fn volume(flows: &[Flow<'_>]) -> Result<[u64; 2]> {
    let mut sum = [0, 0];
    for flow in flows {
        let count = u64::try_from(COUNT)?;
        sum[0] += count;
        sum[1] += count * (u64::try_from(PAYLOAD)? + header(flow.at.ip()));
    }
    Ok(sum)
}

fn times(n: u64, sum: [u64; 2]) -> [u64; 2] {
    sum.map(|one| n * one)
}

fn run_all(flows: &[Flow<'_>]) -> Result<()> {
    flows
        .iter()
        .try_for_each(|flow| exchange(*flow, PAYLOAD, COUNT))
}

/// The sums are what was sent, also while an agent is killed and begins anew, and what is excluded is left out.
pub fn adds_up(t: &mut Tenant, o: &Outside) -> Result<String> {
    let [_, owner] = o.public();
    let cloud = &t.projects[0].cloud;
    let ips = cloud.list("floatingip", &format!("port_id={}", owner.port))?;
    let ip = ips.first().context("nobody has a floating IP")?;
    let floating: IpAddr = text(ip, "floating_ip_address")?.parse()?;
    super::outside::is_announced(t, floating, owner.host)?;
    let (project, inside) = (t.projects[0].id.clone(), owner.of(Family::V4)?);
    let ids = {
        let all = Label::create(t, "all", &project, None)?;
        let some = Label::create(t, "some", &project, Some(inside))?;
        [all.id, some.id]
    };
    let told = while_an_agent_is_away(t, o, floating, &ids);
    for id in ids {
        Label { t, id }.delete()?;
    }
    told
}

fn labels<'a>(t: &'a Tenant, ids: &[String; 2]) -> [Label<'a>; 2] {
    ids.clone().map(|id| Label { t, id })
}

fn while_an_agent_is_away(
    t: &mut Tenant,
    o: &Outside,
    floating: IpAddr,
    ids: &[String; 2],
) -> Result<String> {
    for host in &mut t.hosts {
        host.wait_until_settled()?;
    }
    let sent = round(t, o, floating, (1, ids))?;
    let [_, owner] = o.public();
    let away = owner.host;
    t.hosts[away].kill_agent()?;
    run_all(&flows(t, o, floating)?)?;
    t.hosts[away].start_agent(&t.lab)?;
    t.hosts[away].wait_until_settled()?;
    waited(t, o, floating, (2, ids))?;
    let hosts = round(t, o, floating, (3, ids))?.1;
    let [packets, octets] = times(3, sent.0);
    Ok(format!(
        "{packets} datagrams each way, {octets} octets, by SNAT, a floating IP and public IPv6: counted once each on {}, \
         {} agent killed meanwhile; what is excluded is left out",
        hosts.into_iter().collect::<Vec<_>>().join(" and "),
        t.hosts[away].name
    ))
}

/// All flows once more; what one round is, and who has counted.
fn round(
    t: &Tenant,
    o: &Outside,
    floating: IpAddr,
    (rounds, ids): (u64, &[String; 2]),
) -> Result<([u64; 2], BTreeSet<String>)> {
    run_all(&flows(t, o, floating)?)?;
    waited(t, o, floating, (rounds, ids))
}

fn waited(
    t: &Tenant,
    o: &Outside,
    floating: IpAddr,
    (rounds, ids): (u64, &[String; 2]),
) -> Result<([u64; 2], BTreeSet<String>)> {
    let flows = flows(t, o, floating)?;
    let [all, some] = labels(t, ids);
    let sent = volume(&flows)?;
    let hosts = all.wait_for(times(rounds, sent)).context("all")?;
    expect(
        hosts.len() > 1,
        format!("only {hosts:?} have counted, though guests are on two"),
    )?;
    let excluded: Vec<Flow<'_>> = flows
        .iter()
        .copied()
        .filter(|flow| flow.at.ip() == floating)
        .collect();
    let left_out = volume(&excluded)?;
    let rest = [sent[0] - left_out[0], sent[1] - left_out[1]];
    some.wait_for(times(rounds, rest))
        .context("without the floating IP's port")?;
    Ok((sent, hosts))
}
