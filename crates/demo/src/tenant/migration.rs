//! A running machine goes to another host, driven as Nova does it: its TAPs are made beforehand as Nova makes them, the port gets a second
//! binding, QEMU migrates, and only then the binding is activated.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use hextet_lab::{
    PingReport,
    guest::{Guest as Machine, GuestSpec, Kernel},
};
use hextet_types::{Family, IfName, Mac};
use serde_json::{Value, json};

use super::{Tenant, guest::Guest};
use crate::{
    check::{expect, wait_for},
    rest::{addresses, text},
};

/// An emulated machine on a busy one.
const BOOT: Duration = Duration::from_secs(90);
const MIGRATION: Duration = Duration::from_secs(90);
/// How long a host may take to prepare a port.
const PREPARED: Duration = Duration::from_secs(20);
/// How long after the end of a migration Nova activates the binding.
const NOVA: Duration = Duration::from_millis(1500);
/// What may be lost beyond the machine's own pause.
const BEYOND: Duration = Duration::from_millis(100);
/// From which host to which, counted from 0; it is watched from the third.
const WAY: [usize; 2] = [0, 1];
const WATCHER: (&str, usize) = ("watcher1", 2);

/// The machine's port.
struct Port {
    id: String,
    tap: IfName,
    /// Of the TAP itself, as whoever makes it is told.
    host_mac: Mac,
    mtu: u16,
    spec: GuestSpec,
    addresses: Vec<std::net::IpAddr>,
}

/// Pings from a third host lose no more than the machine's own pause explains.
pub fn live(t: &Tenant) -> Result<String> {
    let (project, network) = (&t.projects[0], t.network(0)?);
    let watcher = t.start(project, network, WATCHER, &json!({}))?;
    let port = make_port(t)?;
    let seen = migrate(t, &port, &watcher);
    t.admin.delete("port", &port.id)?;
    for host in WAY {
        unplug(t, host, &port.tap);
    }
    watcher.delete(&t.admin, &t.hosts[watcher.host])?;
    seen
}

fn make_port(t: &Tenant) -> Result<Port> {
    let project = &t.projects[0];
    let asked = json!({
        "name": "mover", "network_id": t.network(0)?.id, "security_groups": [project.open],
    });
    let id = text(&project.cloud.create("port", asked)?, "id")?;
    let binding = json!({
        "binding:host_id": t.hosts[WAY[0]].name, "device_id": "mover", "device_owner": "compute:nova",
    });
    let port = t.admin.update("port", &id, binding)?;
    let tap = IfName::for_port(id.parse()?);
    let mac = text(&port, "mac_address")?.parse()?;
    let mtu = t.admin.show("network", &t.network(0)?.id)?["mtu"].as_u64();
    Ok(Port {
        host_mac: text(&port["binding:vif_details"], "mac_address")?.parse()?,
        mtu: u16::try_from(mtu.context("a network has an MTU")?)?,
        spec: GuestSpec::new("mover", tap.clone(), mac),
        addresses: addresses(&port)?,
        id,
        tap,
    })
}

fn migrate(t: &Tenant, port: &Port, watcher: &Guest) -> Result<String> {
    let [from, to] = WAY.map(|host| t.hosts[host].name.as_str());
    let kernel = Kernel::find_or_fetch()?;
    plug(t, WAY[0], port)?;
    is_prepared(t, WAY[0], port)?;
    let machine = t.lab.boot(from, &kernel, &port.spec)?;
    machine.wait_ready(BOOT)?;
    let ways = port.addresses.iter().map(|address| (watcher, *address));
    let streams = t.streams(ways)?;
    thread::sleep(Duration::from_secs(1));

    let bindings = format!("/networking/v2.0/ports/{}/bindings", port.id);
    let binding = json!({"binding": {"host": to, "vnic_type": "normal", "profile": {}}});
    ask(t, "POST", &bindings, Some(&binding))?;
    let profile = json!({"binding:profile": {"migrating_to": to}});
    t.admin.update("port", &port.id, profile)?;
    plug(t, WAY[1], port)?;
    is_prepared(t, WAY[1], port)?;
    let arriving: Machine = t.lab.receive(to, &kernel, &port.spec)?;
    let migration = machine.migrate(&arriving, MIGRATION)?;
    thread::sleep(NOVA);
    ask(
        t,
        "PUT",
        &format!("{bindings}/{to}/activate"),
        Some(&json!({})),
    )?;
    ask(t, "DELETE", &format!("{bindings}/{from}"), None)?;
    unplug(t, WAY[0], &port.tap);
    thread::sleep(Duration::from_secs(2));

    let reports: Vec<PingReport> = crate::probe::finish(streams)?;
    let shown = t.admin.show("port", &port.id)?;
    expect(
        shown["binding:host_id"] == json!(to),
        format!("the port is on {}", shown["binding:host_id"]),
    )?;
    let (status, said) = arriving.run("cat /proc/uptime", BOOT)?;
    expect(status == 0, format!("the machine does not run on: {said}"))?;
    arriving.process().kill();
    let pause = migration.paused;
    let mut words = Vec::new();
    for (address, report) in port.addresses.iter().zip(&reports) {
        let gap = report.longest_gap;
        expect(
            report.received > 200,
            format!("only {} answers of {address}", report.received),
        )?;
        expect(
            gap <= pause + BEYOND,
            format!(
                "{address}: {} ms without an answer, and the machine's pause took {} ms",
                gap.as_millis(),
                pause.as_millis()
            ),
        )?;
        let family = Family::of(*address);
        words.push(format!(
            "{} ms by {family} ({} of {} lost)",
            gap.as_millis(),
            report.lost(),
            report.sent
        ));
    }
    Ok(format!(
        "a VM from {from} to {to}, paused by QEMU for {} ms: no answer for {}",
        pause.as_millis(),
        words.join(", ")
    ))
}

fn plug(t: &Tenant, host: usize, port: &Port) -> Result<()> {
    let place = &t.hosts.get(host).context("no such host")?.place;
    Ok(place.plug(&port.tap, port.host_mac, port.mtu)?)
}

/// One that is gone is no matter.
fn unplug(t: &Tenant, host: usize, tap: &IfName) {
    if let Some(host) = t.hosts.get(host) {
        drop(host.place.unplug(tap));
    }
}

/// The host has all of the port's links and rules.
fn is_prepared(t: &Tenant, host: usize, port: &Port) -> Result<()> {
    let host = t.hosts.get(host).context("no such host")?;
    wait_for(PREPARED, || {
        let status = host.status()?;
        let mut ports = status["ports"].as_array().into_iter().flatten();
        let found = ports.find(|p| p["id"] == json!(port.id));
        let Some(found) = found else {
            bail!("{} does not know the port", host.name);
        };
        expect(
            found["down"] == Value::Null,
            format!("{}: {}", host.name, found["down"]),
        )
    })
}

fn ask(t: &Tenant, method: &str, path: &str, body: Option<&Value>) -> Result<()> {
    let answer = t.admin.request(method, path, body)?;
    expect(
        answer.status < 300,
        format!("{method} {path}: {} {}", answer.status, answer.body),
    )
}
