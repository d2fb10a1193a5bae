//! The second registry, while the first one is lost.

use std::time::Duration;

use anyhow::Result;
use hextet_lab::Fault;

use super::{MEETING, Mesh, failure::out_everywhere};
use crate::check::{expect, wait_for};

/// How long certificates count that are to be renewed before one's eyes.
const SHORT: u32 = 15;
/// How long it takes a node at most to renew one of these.
const RENEWING: Duration = Duration::from_secs(60);
/// How long certificates count by default.
const LONG: u32 = 7 * 86_400;
/// How long a registry may take to hear of what it missed.
const HEARING: Duration = Duration::from_secs(10);

/// The first registry is killed and its machine is gone: the second one lets a node in, renews its certificate and revokes it. When the first is
/// back, it knows.
pub fn takes_over(m: &mut Mesh) -> Result<String> {
    let place = m.registry.place().to_owned();
    m.registry.kill()?;
    m.lab.break_link(&place, "wan", Fault::Silence)?;
    let seen = alone(m);
    m.lab.mend_link(&place, "wan")?;
    m.registry.start(&m.lab)?;
    let (id, seen) = seen?;
    wait_for(HEARING, || {
        let (here, there) = (m.registry.node(&id)?, m.second.node(&id)?);
        expect(
            here.revoked && here.serial == there.serial,
            "the first registry has not heard of what the second did",
        )
    })?;
    Ok(format!(
        "{seen}; the first one knows all of it when it is back"
    ))
}

fn alone(m: &mut Mesh) -> Result<(String, String)> {
    m.second.lifetime(SHORT)?;
    let invitation = m.second.invitation(&[])?;
    let (member, lab) = m.member_mut("l2")?;
    let before = (member.id.clone(), member.home);
    member.begin_anew(lab, &invitation)?;
    let (id, home) = (member.id.clone(), member.home);
    expect(
        id != before.0 && home != before.1,
        "the node is the one that was revoked",
    )?;
    m.second.lifetime(LONG)?;
    m.all_meet(MEETING)?;
    let renewed = wait_for(RENEWING, || {
        let node = m.second.node(&id)?;
        expect(node.serial > 1, "its certificate was not renewed")?;
        Ok(node.serial)
    })?;
    let within = out_everywhere(m, &m.second, m.member("l2")?)?;
    let seen = format!(
        "the first one lost, the second let a node in at {home} whom all others reached, renewed its certificate (serial {renewed}) and revoked it, out after {:.1} s",
        within.as_secs_f32()
    );
    Ok((id, seen))
}
