//! The provider changes its prefix (RFC 9096).

use std::{fs, net::Ipv6Addr, thread, time::Duration};

use anyhow::{Context, Result};

use super::{INTERNET_V6, Single, vps::PORT};
use crate::{
    check::{expect, wait_for},
    probe::{Reach, finish, greeting, nothing_lost},
};

const SOON: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(10);
/// The new prefix, and the old one on its way out.
const BOTH: &str = "interface lan {\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  MaxRtrAdvInterval 4;\n  \
    prefix 2001:db8:0:2::/64 { AdvOnLink on; AdvAutonomous on; };\n  \
    prefix 2001:db8:0:1::/64 { AdvOnLink on; AdvAutonomous on; AdvPreferredLifetime 0; AdvValidLifetime 7200; };\n};\n";

/// Workloads get addresses of the new prefix and use them for what is new; what was open by the old one goes on.
pub fn renumbered(s: &Single) -> Result<String> {
    let old = s.web().v6[0];
    let stream = s
        .lab
        .ping_stream(&s.internet, "ping-old", &old.to_string(), INTERVAL)?;
    let conf = s.lab.node_directory("provider").join("radvd.conf");
    fs::write(&conf, BOTH).with_context(|| format!("write {}", conf.display()))?;
    let radvd = s.lab.process("provider/radvd")?;
    s.provider
        .run(&["kill", "-HUP", &radvd.pid().to_string()])?;
    let is_new = |a: &&Ipv6Addr| a.segments()[3] == 2;
    let new = wait_for(SOON, || {
        let (v6, _) = s.vps.addresses("web")?;
        let new = v6.iter().find(is_new).copied();
        new.context("the port has no address of the new prefix")
    })?;
    wait_for(SOON, || {
        let shown = s
            .vps
            .inside("web", &["ip", "-6", "addr", "show", "dev", "eth0"])?;
        let lines = |addr: Ipv6Addr| shown.lines().find(|l| l.contains(&format!("{addr}/")));
        let was = lines(old).context("the old address is gone at once")?;
        expect(was.contains("deprecated"), format!("not deprecated: {was}"))?;
        let is = lines(new).context("the new address is not there")?;
        expect(!is.contains("deprecated"), format!("deprecated: {is}"))
    })?;
    for addr in [old, new] {
        let said = wait_for(SOON, || greeting(&s.internet, (addr, PORT).into()))?;
        expect(said.starts_with("web"), said)?;
    }
    let route = ["ip", "-6", "route", "get", &INTERNET_V6.to_string()];
    let chosen = s.vps.inside("web", &route)?;
    expect(
        chosen.contains(&format!("src {new}")),
        format!("what is new leaves by {chosen}"),
    )?;
    s.vps.pings("web", INTERNET_V6.into())?;
    s.internet.reaches(new.into(), 3)?;
    thread::sleep(Duration::from_secs(2));
    nothing_lost(&finish(vec![stream])?)?;
    Ok(format!(
        "{old} is deprecated and goes on, {new} is there and is used for what is new: 0 echoes lost"
    ))
}
