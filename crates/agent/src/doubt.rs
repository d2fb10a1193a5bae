//! When this host does not know whether its routers still translate here: they may have moved while it was cut off.
//!
//! What a gateway host announces for its routers is held back from when the last BGP peer is lost, and from a start
//! into a kernel that holds nothing of a former run, until the server was heard of since; but not for longer than
//! [`PATIENCE`] once a peer is there, because what runs goes on without a server, too. No clock of its own.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use hextet_model::intent::Intent;
use hextet_types::{HostId, Prefix};

/// How long the server is waited for when peers are there.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Whether what a gateway host announces is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is announced.
    None,
    /// It is not; there are no peers.
    Alone,
    /// It is not, at the latest until then.
    Until(Instant),
}

impl Doubt {
    /// Whether there is any.
    pub fn is_any(self) -> bool {
        self != Doubt::None
    }

    /// Some peer is there now, or none.
    pub fn peers(self, there: bool, now: Instant) -> Doubt {
        match (self, there) {
            (_, false) => Doubt::Alone,
            (Doubt::Alone, true) => Doubt::Until(now + PATIENCE),
            (same, true) => same,
        }
    }

    /// When [`Doubt::expire`] is to be called.
    pub fn due(self) -> Option<Instant> {
        match self {
            Doubt::Until(due) => Some(due),
            Doubt::None | Doubt::Alone => None,
        }
    }

    /// Time goes on.
    pub fn expire(self, now: Instant) -> Doubt {
        match self {
            Doubt::Until(due) if due <= now => Doubt::None,
            same => same,
        }
    }
}

/// What is announced because routers translate on this host.
pub fn announced_for_routers(intent: &Intent, host: &HostId) -> BTreeSet<Prefix> {
    let here = intent.routers.values().filter(|router| {
        let gateway = router.gateway_host.as_ref();
        gateway.is_some_and(|gateway| gateway.host == *host)
    });
    let fixed = here.flat_map(|router| router.gateways.values().flat_map(|g| &g.fixed_ips));
    let forwarded = intent.port_forwardings.values();
    let forwarded = forwarded.map(|f| IpAddr::V4(f.floating_ip_address));
    let all = fixed.map(|f| f.ip_address).chain(forwarded);
    all.map(Prefix::host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_last_peer_and_ends_with_the_server_or_patience() {
        let now = Instant::now();
        let later = now + PATIENCE;
        let alone = Doubt::None.peers(false, now);
        for (doubt, expected) in [
            (Doubt::None.peers(true, now), Doubt::None),
            (alone, Doubt::Alone),
            (alone.expire(later), Doubt::Alone),
            (alone.peers(true, now), Doubt::Until(later)),
            (
                alone.peers(true, now).peers(true, later),
                Doubt::Until(later),
            ),
            (alone.peers(true, now).peers(false, later), Doubt::Alone),
            (alone.peers(true, now).expire(now), Doubt::Until(later)),
            (alone.peers(true, now).expire(later), Doubt::None),
        ] {
            assert_eq!(doubt, expected);
            assert_eq!(doubt.is_any(), expected != Doubt::None);
            assert_eq!(doubt.due().is_some(), matches!(expected, Doubt::Until(_)));
        }
    }
}
