//! A guest that routes for its neighbours: without port security, with a prefix of each family behind it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use hextet_types::Family;
use serde_json::json;

use super::{Tenant, guest::Guest};
use crate::{
    check::{expect, wait_for},
    probe::{Counter, Reach},
};

/// What is behind it: the prefix, and an address in it that it has for its own.
const BEHIND: [(Family, &str, &str); 2] = [
    (Family::V4, "192.168.77.0/24", "192.168.77.1"),
    (Family::V6, "fd77::/64", "fd77::1"),
];
/// A host is told of a port on another, and a guest's own kernel asks again, within this time.
const SETTLED: Duration = Duration::from_secs(20);

/// A guest on the same host and one on another get to what is behind it by naming it as their next hop; both hear from there
/// what nobody else sends.
pub fn guest_router(t: &Tenant) -> Result<String> {
    let red = &t.projects[0];
    let (near, far) = (t.guest("red1")?, t.guest("red2")?);
    let without = json!({"port_security_enabled": false, "security_groups": []});
    let appliance = t.start(red, &near.network, ("hop1", near.host), &without)?;
    let outcome = serves(&appliance, [near, far]);
    for guest in [near, far] {
        forget(guest)?;
    }
    appliance.delete(&t.admin, &t.hosts[appliance.host])?;
    outcome?;
    Ok(format!(
        "{} on h{} routes for {} beside it and {} on another host: {} and {} answer by way of it",
        appliance.name,
        appliance.host + 1,
        near.name,
        far.name,
        BEHIND[0].2,
        BEHIND[1].2,
    ))
}

fn serves(appliance: &Guest, guests: [&Guest; 2]) -> Result<()> {
    for (family, _, address) in BEHIND {
        let own = format!("{address}/{}", family.bits());
        appliance
            .place
            .run(&["ip", "addr", "add", &own, "dev", "lo"])?;
    }
    for guest in guests {
        for (family, prefix, address) in BEHIND {
            let to: IpAddr = address.parse()?;
            let via = appliance.of(family)?.to_string();
            guest.place.run(&[
                "ip", "route", "replace", prefix, "via", &via, "dev", "eth0", "onlink",
            ])?;
            let seen = Counter::place(
                &appliance.place,
                &format!("{} daddr {address}", word(family)),
            )?;
            wait_for(SETTLED, || guest.place.reaches(to, 1))
                .with_context(|| format!("{} does not reach {to} by way of {via}", guest.name))?;
            let seen = seen.take()?;
            expect(seen > 0, format!("{to} answers, but not by {via}"))?;
            guest.place.reaches(appliance.of(family)?, 5)?;
            appliance.place.reaches(guest.of(family)?, 5)?;
        }
    }
    Ok(())
}

/// Its routes, as far as they are there.
fn forget(guest: &Guest) -> Result<()> {
    for (_, prefix, _) in BEHIND {
        guest.place.output(&["ip", "route", "del", prefix])?;
    }
    Ok(())
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
