//! Who may talk to whom, by groups.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};

use super::{MEETING, Mesh, member::Member};
use crate::{
    check::{expect, wait_for},
    probe::tcp_passes,
};

/// Everybody may ping; whoever is `web` may begin to talk to `db`, at one port.
const RULES: &str = "default = \"deny\"\n\
    [[rule]]\nprotocol = \"icmp\"\naction = \"allow\"\n\
    [[rule]]\nfrom = [\"web\"]\nto = [\"db\"]\nprotocol = \"tcp\"\nports = [\"5432\"]\naction = \"allow\"\n";
/// Everybody may do everything.
const NONE: &str = "default = \"allow\"\n";
const PORT: u16 = 5432;
/// Another, of which no rule speaks.
const OTHER_PORT: u16 = 5433;
/// How long new rules may take to each node.
const SPREAD: Duration = Duration::from_secs(20);
/// How long somebody who may not talk is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rules are made while the mesh runs, hold at the receivers, and are taken back.
pub fn deny(m: &Mesh) -> Result<String> {
    m.registry.rule(RULES)?;
    let seen = hold(m);
    m.registry.rule(NONE)?;
    let (p1, n2) = (m.member("p1")?, m.member("n2")?);
    let free = wait_for(SPREAD, || talks(p1, n2, OTHER_PORT, true));
    let seen = seen?;
    free.context("after the rules were taken back")?;
    Ok(seen)
}

fn hold(m: &Mesh) -> Result<String> {
    let ways = [
        ("p1", "n2", PORT, false),
        ("n1", "n2", PORT, true),
        ("l1", "two", PORT, true),
        ("n1", "n2", OTHER_PORT, false),
        ("n2", "n1", PORT, false),
        ("p1", "p2", PORT, false),
    ];
    for (from, to, port, may) in ways {
        let (from, to) = (m.member(from)?, m.member(to)?);
        wait_for(SPREAD, || talks(from, to, port, may))?;
    }
    // What the rules say of others has changed nothing, and nobody is shut out for good.
    for (from, to, port, may) in ways {
        talks(m.member(from)?, m.member(to)?, port, may)?;
    }
    m.all_meet(MEETING)?;
    Ok(format!(
        "web talks to db at port {PORT}: n1 to n2 and l1 to two; not p1 to n2, n1 to n2 at {OTHER_PORT}, n2 to n1, p1 to p2; all ping all"
    ))
}

fn talks(from: &Member, to: &Member, port: u16, may: bool) -> Result<()> {
    let at = SocketAddr::from((to.home, port));
    let passes = match tcp_passes(&from.place, &to.place, at, PATIENCE) {
        Err(error) if is_prohibited(&error) => false,
        passes => passes?,
    };
    expect(
        passes == may,
        format!(
            "{} {} to {} at port {port}",
            from.name,
            if may { "can't talk" } else { "talks" },
            to.name
        ),
    )
}

/// The receiver has said so (ICMPv6 1.1, RFC 4443 §3.1).
fn is_prohibited(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}
