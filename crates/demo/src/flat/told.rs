//! What workloads are told, and that what they say does not get around.

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::Node;

use super::Flat;
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach},
};

const SOON: Duration = Duration::from_secs(10);

/// Each workload has formed the address that the cloud says it has, out of the VLAN's prefix.
pub fn slaac(f: &Flat) -> Result<String> {
    for w in f.workloads() {
        let mac: hextet_types::Mac = w.mac.parse().context("a port's Ethernet address")?;
        let suffix = u128::from(mac.link_local()) & u128::from(u64::MAX);
        expect(
            u128::from(w.v6) & u128::from(u64::MAX) == suffix,
            format!("{} is not what {} makes of the prefix", w.v6, w.mac),
        )?;
        f.internet.reaches(IpAddr::V6(w.v6), 3)?;
        w.place.reaches(super::INTERNET_V6.into(), 3)?;
    }
    let all: Vec<String> = f.workloads().iter().map(|w| w.v6.to_string()).collect();
    Ok(format!(
        "{}: all reach the internet, and it them",
        all.join(", ")
    ))
}

/// What a router advertisement says, in the words of `rdisc6`.
fn advertised(place: &Node) -> Result<BTreeMap<String, String>> {
    let shown = wait_for(SOON, || {
        Ok(place.run(&["rdisc6", "-1", "-w", "2000", "eth0"])?)
    })?;
    let words = [
        "Stateful address conf.",
        "Stateful other conf.",
        "Router preference",
        "MTU",
        "Recursive DNS server",
        "DNS search list",
        "Prefix",
        "Valid time",
        "Pref. time",
    ];
    let mut said = BTreeMap::new();
    for line in shown.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim();
        if words.contains(&name) {
            said.entry(name.to_owned())
                .or_insert_with(|| value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    expect(said.len() >= 7, format!("rdisc6 shows too little: {shown}"))?;
    Ok(said)
}

/// The machine on the VLAN and a workload are told the same.
pub fn as_upstream(f: &Flat) -> Result<String> {
    let theirs = advertised(&f.old)?;
    let ours = advertised(&f.workload("vm1")?.place)?;
    expect(
        ours == theirs,
        format!("the router says {theirs:?}, a workload is told {ours:?}"),
    )?;
    let shown = [
        "Router preference",
        "Stateful other conf.",
        "MTU",
        "Recursive DNS server",
    ];
    let shown =
        shown.map(|name| format!("{name} {}", ours.get(name).map_or("none", String::as_str)));
    Ok(format!("as the VLAN's router has it: {}", shown.join("; ")))
}

/// A client that asks for nothing but configuration gets it.
pub fn dns_by_dhcpv6(f: &Flat) -> Result<String> {
    let vm = f.workload("vm1")?;
    let dir = f.lab.node_directory("vm1");
    let (told, script) = (dir.join("dns.told"), dir.join("dns.sh"));
    let text = format!(
        "#!/bin/sh\n[ -n \"$new_dhcp6_name_servers\" ] && echo \"$new_dhcp6_name_servers; $new_dhcp6_domain_search\" > {}\nexit 0\n",
        told.display()
    );
    std::fs::write(&script, text)?;
    vm.place.run(&["chmod", "700", &script.to_string_lossy()])?;
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (pid, leases, script) = (file("dns.pid"), file("dns.leases"), file("dns.sh"));
    vm.place.run(&[
        "dhclient", "-6", "-S", "-1", "-pf", &pid, "-lf", &leases, "-sf", &script, "eth0",
    ])?;
    let told = wait_for(SOON, || Ok(std::fs::read_to_string(&told)?))?;
    expect(
        told.contains("2001:db8:ffff::2 2001:db8:ffff::3"),
        format!("dhclient was told {told}"),
    )?;
    Ok(format!("dhclient -6 -S was told {}", told.trim()))
}

/// Nobody believes an address to be taken that is its own.
pub fn no_dadfailed(f: &Flat) -> Result<String> {
    let hosts = f.hosts.iter().map(|h| &h.place);
    let workloads = f.workloads().iter().map(|w| &w.place);
    let mut looked_at = 0;
    for place in hosts.chain(workloads).chain([&f.old, &f.router]) {
        let failed = place.run(&["ip", "-6", "addr", "show", "dadfailed"])?;
        expect(failed.is_empty(), format!("{}: {failed}", place.name()))?;
        looked_at += 1;
    }
    for w in f.workloads() {
        let addr = format!("{}/64", w.v6);
        let dad = "net.ipv6.conf.eth0.dad_transmits=1";
        w.place.run(&["sysctl", "-qw", dad])?;
        w.place.run(&["ip", "addr", "del", &addr, "dev", "eth0"])?;
        w.place.run(&["rdisc6", "-1", "eth0"])?;
        crate::clients::has(&w.place, w.v6.into())?;
        let failed = w.place.run(&["ip", "-6", "addr", "show", "dadfailed"])?;
        expect(failed.is_empty(), format!("{}: {failed}", w.name))?;
    }
    for host in &f.hosts {
        let shown = host
            .place
            .run(&["ip", "-6", "route", "show", "default", "dev", "vlan30"])?;
        expect(
            shown.contains("proto ra"),
            format!("{} has lost its own way out: {shown}", host.name),
        )?;
        let shown = host.place.run(&[
            "ip", "-6", "addr", "show", "dev", "vlan30", "scope", "global",
        ])?;
        expect(
            shown.contains("2001:db8:0:10:"),
            format!("{} has lost its own address: {shown}", host.name),
        )?;
    }
    Ok(format!(
        "none in {looked_at} places; the hosts, which forward now, have kept their own addresses and routes from the router"
    ))
}

/// Who wants a workload's address on the VLAN is told that it is taken.
pub fn dad_defended(f: &Flat) -> Result<String> {
    let vm = f.workload("vm1")?;
    let addr = format!("{}/64", vm.v6);
    f.old
        .run(&["sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=1"])?;
    f.old.run(&["ip", "addr", "add", &addr, "dev", "eth0"])?;
    let found = wait_for(SOON, || {
        let shown = f.old.run(&["ip", "-6", "addr", "show", "dadfailed"])?;
        expect(
            shown.contains(&vm.v6.to_string()),
            "duplicate address detection has found nothing",
        )
    });
    f.old.run(&["ip", "addr", "del", &addr, "dev", "eth0"])?;
    found?;
    f.internet.reaches(vm.v6.into(), 3)?;
    Ok(format!(
        "another machine that takes {} finds it taken",
        vm.v6
    ))
}

/// A workload that poses as a router is heard by nobody.
pub fn rogue(f: &Flat) -> Result<String> {
    let vm = f.workload("vm3")?;
    let heard = [
        &f.old,
        &f.workload("vm1")?.place,
        &f.workload("vm2")?.place,
        &f.router,
    ]
    .map(|place| {
        Counter::place(
            place,
            &format!("ether saddr {} icmpv6 type nd-router-advert", vm.mac),
        )
    });
    let dir = f.lab.node_directory("vm3");
    let conf = dir.join("rogue.conf");
    std::fs::write(
        &conf,
        "interface eth0 {\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  MaxRtrAdvInterval 4;\n  prefix 2001:db8:bad::/64 {};\n};\n",
    )?;
    let pid = dir.join("rogue.pid");
    let mut command = std::process::Command::new("radvd");
    command.args(["-n", "-d", "5", "-m", "stderr", "-u", "root", "-C"]);
    command.arg(&conf).arg("-p").arg(&pid);
    let process = f.lab.spawn(&vm.place, "rogue", &mut command)?;
    thread::sleep(Duration::from_secs(5));
    let runs = process.runs();
    process.kill();
    let log = process.log();
    expect(
        runs && log.contains("RA"),
        format!("radvd has sent nothing: {log}"),
    )?;
    for counter in heard {
        let counter = counter?;
        let count = counter.take()?;
        expect(
            count == 0,
            format!("{count} of its router advertisements were heard"),
        )?;
    }
    for place in [&f.old, &f.workload("vm1")?.place] {
        let shown = place.run(&["ip", "-6", "addr", "show"])?;
        expect(
            !shown.contains("2001:db8:bad:"),
            format!("{} believes it", place.name()),
        )?;
    }
    Ok(
        "vm3 runs radvd for five seconds; nobody on the VLAN or at another port hears it"
            .to_owned(),
    )
}
