//! A site through whose firewall no UDP passes.

use anyhow::{Context, Result};
use hextet_types::Way;

use super::{MEETING, Mesh, silent_pairs};
use crate::{
    check::{expect, wait_for},
    probe::Counter,
};

/// Who is there.
pub const HERE: &str = "quiet";

/// It reaches all and all reach it, by streams alone.
pub fn reached(m: &Mesh) -> Result<String> {
    let quiet = m.member(HERE)?;
    let tunnels = wait_for(MEETING, || {
        let carry = quiet
            .status()?
            .tunnels
            .into_iter()
            .filter(|tunnel| tunnel.up);
        let carry: Vec<_> = carry.collect();
        expect(!carry.is_empty(), "quiet has no tunnel")?;
        Ok(carry)
    })?;
    let inside = m.lab.node("fw")?;
    // Of either direction, behind the rule that drops it.
    let passed = Counter::place(&quiet.place, "iifname eth0 meta l4proto udp")?;
    let tried = Counter::place(&inside, "iifname lan meta l4proto udp")?;
    wait_for(MEETING, || {
        let others = m.members().iter().filter(|other| other.name != HERE);
        for other in others {
            let silent = silent_pairs(&[quiet, other])?;
            expect(silent.is_empty(), format!("no answer: {silent:?}"))?;
        }
        Ok(())
    })?;
    let (passed, tried) = (passed.take()?, tried.take()?);
    expect(
        passed == 0,
        format!("{passed} datagrams of UDP came to quiet"),
    )?;
    let mut by = Vec::new();
    for tunnel in &tunnels {
        let endpoint = tunnel.endpoint.context("a tunnel without an endpoint")?;
        expect(
            matches!(endpoint, Way::Tls(_)),
            format!("quiet has a tunnel by {endpoint}"),
        )?;
        by.push(format!("{} at {endpoint}", m.name_of(&tunnel.node)));
    }
    Ok(format!(
        "quiet and all others reach each other by {}; none of UDP came through the firewall, {tried} datagrams were tried",
        by.join(", ")
    ))
}
