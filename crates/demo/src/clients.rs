//! The clients by which workloads configure themselves: real ones, out of the box.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use hextet_types::Family;

use crate::check::{expect, wait_for};

/// How long a client, or the kernel, may take to have an address.
const CONFIGURED: Duration = Duration::from_secs(20);

/// Asks by DHCP of that family once, and goes on in the background; `state` is for its files.
///
/// # Errors
///
/// It gets no answer.
pub fn dhclient(place: &Node, family: Family, state: &Path) -> Result<()> {
    let flag = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let file = |kind: &str| -> Result<String> {
        let path: PathBuf = state.join(format!("dhclient{flag}.{kind}"));
        path.to_str()
            .map(str::to_owned)
            .context("a path that is no text")
    };
    fs::write(file("conf")?, "timeout 20;\n")?;
    let (pid, leases, conf) = (file("pid")?, file("leases")?, file("conf")?);
    let script = file("script")?;
    let words = [
        "dhclient", flag, "-1", "-cf", &conf, "-pf", &pid, "-lf", &leases, "-sf", &script, "eth0",
    ];
    fs::write(&script, DHCLIENT_SCRIPT)?;
    make_executable(Path::new(&script))?;
    Ok(place.run(&words).map(drop)?)
}

/// Waits until it has the address and may use it.
///
/// # Errors
///
/// It has not, in time.
pub fn has(place: &Node, address: IpAddr) -> Result<()> {
    wait_for(CONFIGURED, || {
        let shown = place.run(&["ip", "-o", "addr", "show", "dev", "eth0"])?;
        let needle = format!(" {address}/");
        let line = shown.lines().find(|l| l.contains(&needle));
        expect(
            line.is_some_and(|l| !l.contains("tentative")),
            format!("{} has no usable {address}", place.name()),
        )
    })
}

/// What dhclient runs: sets the address and the routes, and nothing of the machine around it.
const DHCLIENT_SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
    ip link set "$interface" mtu "${new_interface_mtu:-1500}"
    ip -4 addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    for router in $new_routers; do
        ip -4 route replace "$router" dev "$interface" scope link
        ip -4 route replace default via "$router" dev "$interface"
    done ;;
BOUND6|RENEW6|REBIND6)
    ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
PREINIT)
    ip link set "$interface" up ;;
PREINIT6)
    ip link set "$interface" up
    for try in $(seq 100); do
        ip -6 -o addr show dev "$interface" scope link -tentative | grep -q fe80 && break
        sleep 0.1
    done ;;
esac
exit 0
"#;

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("make {} executable", path.display()))
}
