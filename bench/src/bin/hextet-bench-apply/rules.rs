//! A rule of the group of all comes and goes, under a full connection table.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use hextet_bench::{
    report::{Goal, Row},
    sample::Samples,
};

use crate::{
    AGENT_CPU, Options,
    host::Host,
    probe::{FRESH, LASTING, Probe},
    world::{Workload, World},
};

/// How long a flow that fills the table stays there, in seconds; and what the kernel's default is.
const LONG: &str = "3600";
const DEFAULT: &str = "30";
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(200);

/// Allows and forbids, each family in turn, and tells how long after the API's answer that held.
///
/// # Errors
///
/// The table can't be filled, or a change has no effect.
pub fn change(
    world: &World,
    host: &Host,
    (one, two): (&Workload, &Workload),
    options: &Options,
) -> Result<Vec<Row>> {
    let probe = Probe::new(one, two)?;
    let flows = fill(host, &probe, options.flows)?;
    let (mut fresh, mut cut) = (Samples::default(), Samples::default());
    let millis = |d: Duration| d.as_secs_f64() * 1000.0;
    let before = host.agent_cpu()?;
    for round in 0..options.changes.div_ceil(2) {
        let (v6, ethertype) = [(true, "IPv6"), (false, "IPv4")][round % 2];
        let allow = || world.allow(&world.group, ethertype, (FRESH, LASTING), None);
        let (rule, effect) = probe.allowed(v6, allow).context("after a rule was added")?;
        fresh.push(millis(effect.fresh));
        thread::sleep(PAUSE);
        let forbid = || world.cloud.delete("security_group_rule", &rule);
        let ((), effect) = probe
            .forbidden(v6, forbid)
            .context("after a rule was deleted")?;
        fresh.push(millis(effect.fresh));
        cut.extend(effect.lasting.map(millis));
        thread::sleep(PAUSE);
    }
    let used = millis(host.agent_cpu()? - before) / fresh.len() as f64;
    let left = count(host)?;
    ensure!(
        left >= options.flows,
        "only {left} flows are left in the table"
    );
    let row = |case: &str, samples: &Samples, most| {
        let note = format!(
            "{} changes of the group of all ports, median {samples}; {flows} flows in the table",
            samples.len()
        );
        Row::single(case, "p99", "ms", samples.quantile(0.99))
            .goal(Goal::AtMost(most))
            .note(note)
    };
    Ok(vec![
        row("rule for new flows", &fresh, 20.0),
        row("forbidden flow cut", &cut, 1000.0),
        Row::single("a change of a rule", AGENT_CPU, "ms", used)
            .note("with all flows checked against it"),
    ])
}

fn fill(host: &Host, probe: &Probe, wanted: usize) -> Result<usize> {
    let timeout = |seconds: &str| {
        let name = "net.netfilter.nf_conntrack_udp_timeout";
        host.place.set_sysctl(name, seconds)
    };
    timeout(LONG)?;
    for _ in 0..5 {
        probe.fill(wanted)?;
        if count(host)? >= wanted {
            break;
        }
    }
    timeout(DEFAULT)?;
    let flows = count(host)?;
    ensure!(flows >= wanted, "only {flows} flows came into the table");
    Ok(flows)
}

fn count(host: &Host) -> Result<usize> {
    let text = host.place.sysctl("net.netfilter.nf_conntrack_count")?;
    text.trim().parse().context("read the number of flows")
}
