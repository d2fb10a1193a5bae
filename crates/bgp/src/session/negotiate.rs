//! Our OPEN, and what two OPENs agree on.

use std::{net::Ipv4Addr, time::Duration};

use hextet_types::{Asn, Family};

use super::Settings;
use crate::{
    config::RestartMode,
    packet::{
        Afi, Capability, Code, Context, Encoding, ExtendedNextHop, Families, GracefulRestart,
        LongLivedFamily, Notification, Open, RestartFamily,
    },
};

/// What the peer says of its restarts, as far as we help with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRestart {
    /// It has just restarted.
    pub restarting: bool,
    /// Both sides treat a NOTIFICATION as a restart (RFC 8538).
    pub notification: bool,
    /// How long a restart may take.
    pub time: Duration,
    /// Of which families it wants its routes kept.
    pub families: Families,
    /// Of which it has kept forwarding.
    pub forwarding: Families,
}

/// Long-lived graceful restart (RFC 9494).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLived {
    /// Of which families it wants stale routes kept.
    pub families: Families,
    /// Of which it has kept forwarding.
    pub forwarding: Families,
    /// For how long, by family: IPv4, IPv6.
    pub times: [Duration; 2],
}

impl LongLived {
    /// How long stale routes of a family are kept.
    pub const fn time(&self, family: Family) -> Duration {
        let [v4, v6] = self.times;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// What a session has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub remote_as: Asn,
    /// The peer's BGP identifier.
    pub remote_id: Ipv4Addr,
    /// The peer is in our AS.
    pub internal: bool,
    /// The lesser of the two; zero for none.
    pub hold_time: Duration,
    /// Families of both.
    pub families: Families,
    /// RFC 6793.
    pub four_octet_as: bool,
    /// RFC 8654.
    pub extended_messages: bool,
    /// RFC 2918.
    pub route_refresh: bool,
    /// RFC 7313.
    pub enhanced_refresh: bool,
    /// RFC 8950, IPv6 next hops of IPv4 prefixes.
    pub extended_next_hop: bool,
    /// RFC 4724; `None` where one of the two has none.
    pub restart: Option<PeerRestart>,
    /// RFC 9494; `None` where one of the two has none.
    pub long_lived: Option<LongLived>,
}

impl Negotiated {
    /// How its UPDATEs read.
    pub const fn context(&self) -> Context {
        Context {
            four_octet_as: self.four_octet_as,
            internal: self.internal,
            families: self.families,
            extended_next_hop: self.extended_next_hop,
        }
    }

    /// How UPDATEs for it are written.
    pub const fn encoding(&self) -> Encoding {
        Encoding {
            four_octet_as: self.four_octet_as,
            extended: self.extended_messages,
        }
    }
}

/// Our OPEN (RFC 4271 §4.2).
pub(super) fn local_open(settings: &Settings) -> Open {
    let config = &settings.config;
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .map(|f| Capability::Multiprotocol(Afi::unicast(f.family)))
        .collect();
    capabilities.push(Capability::RouteRefresh);
    if config.extended_next_hop && config.family_set().contains(Family::V4) {
        capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Afi::unicast(Family::V4),
            next_hop_afi: Afi::unicast(Family::V6).afi,
        }]));
    }
    if config.extended_messages {
        capabilities.push(Capability::ExtendedMessage);
    }
    if config.restart != RestartMode::Off {
        capabilities.push(Capability::GracefulRestart(local_restart(settings)));
    }
    capabilities.push(Capability::FourOctetAs(settings.local_as));
    capabilities.push(Capability::EnhancedRouteRefresh);
    if config.restart != RestartMode::Off && config.long_lived_secs > 0 {
        let family = |f: Family| LongLivedFamily {
            family: Afi::unicast(f),
            forwarding: settings.forwarding,
            stale_secs: config.long_lived_secs,
        };
        let families = config.family_set().iter().map(family).collect();
        capabilities.push(Capability::LongLived(families));
    }
    Open {
        my_as: Open::two_octets(settings.local_as),
        hold_time_secs: config.hold_time_secs,
        identifier: settings.router_id,
        capabilities,
    }
}

/// A helper that does not ask for help lists no family (RFC 4724 §3).
fn local_restart(settings: &Settings) -> GracefulRestart {
    let family = |family: Family| RestartFamily {
        family: Afi::unicast(family),
        forwarding: settings.forwarding,
    };
    let families = match settings.config.restart {
        RestartMode::Full => settings.config.family_set().iter().map(family).collect(),
        RestartMode::Off | RestartMode::Helper => Vec::new(),
    };
    GracefulRestart {
        restarting: settings.restarting,
        notification: true,
        time_secs: settings.restart_time_secs,
        families,
    }
}

/// Checks the peer's OPEN against the configuration (RFC 4271 §6.2) and puts both together.
pub(super) fn negotiate(settings: &Settings, open: &Open) -> Result<Negotiated, Notification> {
    let config = &settings.config;
    let remote_as = open.asn();
    let internal = remote_as == settings.local_as;
    if !config.remote_as.admits(remote_as, settings.local_as) {
        return Err(Notification::new(Code::OPEN_PEER_AS));
    }
    if internal && open.identifier == settings.router_id {
        return Err(Notification::new(Code::OPEN_BGP_ID));
    }
    let has = |capability: &Capability| open.capabilities.contains(capability);
    let families = remote_families(open).intersection(config.family_set());
    if families.is_empty() {
        return Err(no_family_in_common(settings));
    }
    let four = |c: &Capability| matches!(c, Capability::FourOctetAs(_));
    let hold_time = config.hold_time_secs.min(open.hold_time_secs);
    let restart = match config.restart {
        RestartMode::Off => None,
        RestartMode::Helper | RestartMode::Full => remote_restart(open),
    };
    Ok(Negotiated {
        remote_as,
        remote_id: open.identifier,
        internal,
        hold_time: Duration::from_secs(u64::from(hold_time)),
        families,
        four_octet_as: open.capabilities.iter().any(four),
        extended_messages: config.extended_messages && has(&Capability::ExtendedMessage),
        route_refresh: has(&Capability::RouteRefresh),
        enhanced_refresh: has(&Capability::EnhancedRouteRefresh),
        extended_next_hop: config.extended_next_hop && remote_extended_next_hop(open),
        restart,
        long_lived: restart.and_then(|_| remote_long_lived(settings, open)),
    })
}

fn no_family_in_common(settings: &Settings) -> Notification {
    let mut data = Vec::new();
    for family in settings.config.family_set().iter() {
        let afi = Afi::unicast(family);
        let [high, low] = afi.afi.to_be_bytes();
        data.extend_from_slice(&[1, 4, high, low, 0, afi.safi]);
    }
    Notification::with_data(Code::OPEN_CAPABILITY, &data)
}

/// Who does not speak of families has IPv4 (RFC 4760 §8).
fn remote_families(open: &Open) -> Families {
    let mut said = false;
    let mut families = Families::NONE;
    for capability in &open.capabilities {
        if let Capability::Multiprotocol(afi) = capability {
            said = true;
            if let Some(family) = afi.family() {
                families.insert(family);
            }
        }
    }
    if !said {
        families.insert(Family::V4);
    }
    families
}

fn remote_extended_next_hop(open: &Open) -> bool {
    let wanted = ExtendedNextHop {
        family: Afi::unicast(Family::V4),
        next_hop_afi: Afi::unicast(Family::V6).afi,
    };
    open.capabilities
        .iter()
        .any(|c| matches!(c, Capability::ExtendedNextHop(list) if list.contains(&wanted)))
}

/// The last of several counts (RFC 4724 §3).
fn remote_restart(open: &Open) -> Option<PeerRestart> {
    let said = open.capabilities.iter().rev().find_map(|c| match c {
        Capability::GracefulRestart(said) => Some(said),
        _ => None,
    })?;
    let of = |f: &RestartFamily| f.family.family();
    let forwarding = said.families.iter().filter(|f| f.forwarding);
    Some(PeerRestart {
        restarting: said.restarting,
        notification: said.notification,
        time: Duration::from_secs(u64::from(said.time_secs)),
        families: said.families.iter().filter_map(of).collect(),
        forwarding: forwarding.filter_map(of).collect(),
    })
}

/// Stale routes are kept for as long as both sides allow.
fn remote_long_lived(settings: &Settings, open: &Open) -> Option<LongLived> {
    let ours = settings.config.long_lived_secs;
    if ours == 0 {
        return None;
    }
    let said = open.capabilities.iter().rev().find_map(|c| match c {
        Capability::LongLived(said) => Some(said),
        _ => None,
    })?;
    let mut agreed = LongLived::default();
    for entry in said {
        let Some(family) = entry.family.family() else {
            continue;
        };
        let time = Duration::from_secs(u64::from(entry.stale_secs.min(ours)));
        let [v4, v6] = &mut agreed.times;
        match family {
            Family::V4 => *v4 = time,
            Family::V6 => *v6 = time,
        }
        agreed.families.insert(family);
        if entry.forwarding {
            agreed.forwarding.insert(family);
        }
    }
    Some(agreed)
}
