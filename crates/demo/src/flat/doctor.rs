//! `hextet doctor`: nothing on a healthy segment, and each of many faults that are planted.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::Node;
use serde_json::Value;

use super::{Flat, INTERNET_V6};
use crate::check::{expect, wait_for};

const SOON: Duration = Duration::from_secs(10);
const ROGUE: &str = "interface v30 {\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  MaxRtrAdvInterval 4;\n  \
    prefix 2001:db8:bad::/80 {};\n};\n";

/// The codes of what is found on a place.
fn found(f: &Flat, program: &Path, place: &Node, words: &[&str]) -> Result<Vec<String>> {
    let program = program.to_string_lossy();
    let all = [&[&program, "doctor", "--json"], words].concat();
    let output = place.output(&all)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found: Vec<Value> = serde_json::from_str(&said)
        .with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))?;
    expect(
        output.status.success() == found.is_empty(),
        format!("{} with {said}", output.status),
    )?;
    let whole = |finding: &Value| {
        ["evidence", "remedy", "subject"]
            .iter()
            .all(|part| finding[part].as_str().is_some_and(|text| !text.is_empty()))
    };
    expect(found.iter().all(whole), format!("{}: {said}", f.lab.name()))?;
    let codes = found.iter().filter_map(|f| f["code"].as_str());
    Ok(codes.map(str::to_owned).collect())
}

/// Each fault is planted, found, and taken away; in the end nothing is found again.
pub fn finds(f: &Flat, program: &Path) -> Result<String> {
    let vm = f.workload("vm1")?;
    let (old, h1) = (&f.old, &f.hosts[0].place);
    let ask = [
        "--ask",
        &vm.v6.to_string(),
        "--ask",
        &INTERNET_V6.to_string(),
    ];
    let healthy = || -> Result<()> {
        for (place, ask) in [(old, &ask[..]), (h1, &ask[2..])] {
            let codes = found(f, program, place, ask)?;
            expect(
                codes.is_empty(),
                format!("{} is well, but: {codes:?}", place.name()),
            )?;
        }
        Ok(())
    };
    healthy()?;
    let mut planted = Vec::new();
    let mut finds = |place: &Node, words: &[&str], code: &str| -> Result<()> {
        let codes = found(f, program, place, words)?;
        planted.push(code.to_owned());
        expect(
            codes.iter().any(|c| c == code),
            format!("{code} on {}, but found: {codes:?}", place.name()),
        )
    };
    duplicate(f, |place| finds(place, &[], "duplicate-address"))?;
    rogue(f, |place| {
        finds(place, &[], "two-routers-disagree")?;
        finds(place, &[], "wrong-flags")
    })?;
    let forward = |value: &str| old.set_sysctl("net.ipv6.conf.eth0.forwarding", value);
    forward("1")?;
    let outcome = finds(old, &[], "forwarding-with-accept-ra");
    forward("0")?;
    outcome?;
    let foreign =
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }";
    with_rules(h1, "ip filter", foreign, || {
        finds(h1, &[], "foreign-firewall")
    })?;
    let deaf = "table inet deaf { chain input { type filter hook input priority 0; icmpv6 type echo-request drop; }; }";
    with_rules(old, "inet deaf", deaf, || {
        finds(old, &[], "filtered-icmpv6")
    })?;
    let nobody = std::net::Ipv6Addr::from(u128::from(vm.v6) ^ 0xff).to_string();
    finds(old, &["--ask", &nobody], "silent-proxy")?;
    let hole = "table inet hole { chain forward { type filter hook forward priority 0; meta length > 1400 drop; }; }";
    with_rules(&f.router, "inet hole", hole, || {
        finds(old, &ask[2..], "mtu-hole")
    })?;
    wait_for(SOON, healthy)?;
    Ok(format!(
        "on a machine and a hypervisor nothing; then {}, each with its evidence and its remedy; then nothing again",
        planted.join(", ")
    ))
}

fn duplicate(f: &Flat, finds: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let addr = format!("{}/64", f.workload("vm1")?.v6);
    f.old.set_sysctl("net.ipv6.conf.eth0.dad_transmits", "1")?;
    f.old.run(&["ip", "addr", "add", &addr, "dev", "eth0"])?;
    let failed = wait_for(SOON, || {
        let shown = f.old.run(&["ip", "-6", "addr", "show", "dadfailed"])?;
        expect(
            !shown.is_empty(),
            "duplicate address detection has found nothing",
        )
    });
    let outcome = failed.and_then(|()| finds(&f.old));
    f.old.run(&["ip", "addr", "del", &addr, "dev", "eth0"])?;
    outcome
}

/// Somebody on the VLAN poses as a router: by the switch itself, since ports of workloads can't.
fn rogue(f: &Flat, finds: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let (switch, directory) = (f.lab.node("switch")?, f.lab.node_directory("switch"));
    let conf = directory.join("rogue.conf");
    fs::write(&conf, ROGUE).context("write rogue.conf")?;
    switch.run(&["ip", "addr", "add", "fe80::bad/64", "dev", "v30", "nodad"])?;
    switch.set_sysctl("net.ipv6.conf.v30.forwarding", "1")?;
    let mut command = Command::new("radvd");
    command
        .args(["-n", "-m", "stderr", "-u", "root", "-C"])
        .arg(&conf);
    command.arg("-p").arg(directory.join("rogue.pid"));
    let radvd = f.lab.spawn(&switch, "rogue", &mut command)?;
    std::thread::sleep(Duration::from_secs(1));
    let outcome = match radvd.runs() {
        true => finds(&f.old),
        false => Err(anyhow::anyhow!("radvd has ended: {}", radvd.log())),
    };
    // With its last words it takes back what it said.
    radvd.terminate(SOON);
    switch.run(&["ip", "addr", "del", "fe80::bad/64", "dev", "v30"])?;
    outcome
}

fn with_rules(
    place: &Node,
    table: &str,
    rules: &str,
    finds: impl FnOnce() -> Result<()>,
) -> Result<()> {
    place.run(&["nft", rules])?;
    let outcome = finds();
    let words: Vec<&str> = table.split(' ').collect();
    place.run(&[&["nft", "delete", "table"], &words[..]].concat())?;
    outcome
}
