//! Peers come, go and say things: from a session to the tables.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Action, Code, ConfigError, DownReason, Endpoint, Families, MAX_PEERS, Negotiated, Notification,
    Path, PathAttributes, Peer, PeerConfig, PeerKey, Session, Source, SourceId, Speaker, State, Up,
};
use crate::{
    config::BfdMode,
    packet::{Afi, Message, NextHop, Parsed, Reach, RefreshKind, RouteRefresh},
    policy::Changes,
    rib::{ByFamily, Hop, SourceKind},
    session::Settings,
};
use hextet_types::{Asn, Family, Prefix};

impl Speaker {
    pub(super) fn configure(&mut self, config: PeerConfig) {
        if let Err(error) = config.check(self.config.asn) {
            self.actions.push(Action::Refused(error));
            return;
        }
        match self.names.get(&config.peer).copied() {
            Some(id) => self.reconfigure(id, config),
            None => self.add(config),
        }
    }

    fn add(&mut self, config: PeerConfig) {
        if self.names.len() >= MAX_PEERS {
            let error = ConfigError::TooMany(config.peer);
            self.actions.push(Action::Refused(error));
            return;
        }
        let free = self.peers.iter().skip(1).position(Option::is_none);
        let at = free.map_or(self.peers.len(), |at| at + 1);
        let Ok(number) = u16::try_from(at) else {
            return;
        };
        if at == self.peers.len() {
            self.peers.push(None);
            self.sources.push(None);
        }
        let id = SourceId(number);
        let settings = Settings {
            local_as: self.config.asn,
            router_id: self.config.router_id,
            restart_time_secs: self.config.restart_time_secs,
            restarting: self.deferral.is_some(),
            forwarding: self.config.restarting,
            config: Arc::new(config),
        };
        self.names.insert(settings.config.peer.clone(), id);
        if let Some(slot) = self.peers.get_mut(at) {
            *slot = Some(Peer {
                session: Session::new(settings),
                up: None,
                group: None,
                out: ByFamily::default(),
                accepted: ByFamily::default(),
                stale: ByFamily::default(),
                long_lived: None,
                complete: Families::NONE,
            });
        }
        self.drive(id, |s, step| s.start(step));
    }

    fn reconfigure(&mut self, id: SourceId, config: PeerConfig) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let old = Arc::clone(&peer.session.settings.config);
        if *old == config {
            return;
        }
        let new = Arc::new(config);
        peer.session.settings.config = Arc::clone(&new);
        if let Some(text) = &new.shutdown {
            let text = Notification::with_communication(Code::ADMIN_SHUTDOWN, text);
            self.drive(id, |s, step| s.stop(&s.hard(text), step));
            return self.purge_all(id);
        }
        let soft = PeerConfig {
            import: Arc::clone(&new.import),
            export: Arc::clone(&new.export),
            families: new.families.clone(),
            next_hop_self: new.next_hop_self,
            max_prefixes_rest: new.max_prefixes_rest,
            ..PeerConfig::clone(&old)
        };
        let refreshable = |p: &Peer| p.up.as_ref().is_some_and(|u| u.negotiated.route_refresh);
        let import_changed = old.import != new.import;
        let able = !import_changed || self.peer(id).is_some_and(refreshable);
        let same_families = old.family_set() == new.family_set();
        let up = self.peer(id).is_some_and(|p| p.up.is_some());
        if up && soft == *new && able && same_families {
            if import_changed {
                self.ask_for_refresh(id);
            }
            self.regroup(id);
            return self.check_limits(id);
        }
        let changed = Notification::new(Code::CONFIGURATION);
        self.drive(id, |s, step| {
            s.stop(&changed, step);
            s.start(step);
        });
    }

    fn ask_for_refresh(&mut self, id: SourceId) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let families = peer.up.as_ref().map(|u| u.negotiated.families);
        for family in families.unwrap_or_default().iter() {
            self.send_message(
                id,
                &Message::RouteRefresh(RouteRefresh {
                    family: Afi::unicast(family),
                    kind: Some(RefreshKind::Request),
                }),
            );
        }
    }

    pub(super) fn remove(&mut self, key: &PeerKey) {
        let Some(id) = self.names.get(key).copied() else {
            return;
        };
        let gone = Notification::new(Code::PEER_DECONFIGURED);
        self.drive(id, |s, step| s.stop(&s.hard(gone), step));
        self.purge_all(id);
        self.leave_group(id);
        self.names.remove(key);
        self.forget_memos();
        if let Some(slot) = self.peers.get_mut(id.index()) {
            *slot = None;
        }
        if let Some(slot) = self.sources.get_mut(id.index()) {
            *slot = None;
        }
    }

    pub(super) fn on_up(&mut self, id: SourceId, negotiated: Negotiated, endpoint: Endpoint) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let config = Arc::clone(&peer.session.settings.config);
        let source = source_of(&negotiated, &endpoint, &config);
        peer.complete = Families::NONE;
        peer.long_lived = negotiated.long_lived;
        peer.up = Some(Up {
            negotiated,
            endpoint,
        });
        self.forget_memos();
        if let Some(slot) = self.sources.get_mut(id.index())
            && slot.as_ref() != Some(&source)
        {
            *slot = Some(source);
            for family in Family::BOTH {
                self.tables.get_mut(family).touch(id);
            }
        }
        let peer = config.peer.clone();
        self.actions.push(Action::SessionUp { peer });
        self.stale_after_up(id);
        self.join_group(id);
    }

    pub(super) fn on_down(&mut self, id: SourceId, reason: DownReason, keep: bool) {
        self.leave_group(id);
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(up) = peer.up.take() else {
            return;
        };
        let restart = up.negotiated.restart.filter(|_| keep);
        let peer = peer.session.settings.config.peer.clone();
        self.actions.push(Action::SessionDown {
            peer,
            reason,
            routes_kept: restart.is_some_and(|r| !r.families.is_empty()),
        });
        for family in Family::BOTH {
            match restart {
                Some(restart) if restart.families.contains(family) => {
                    self.keep_stale(id, family, restart.time);
                }
                _ => self.purge(id, family),
            }
        }
    }

    pub(super) fn on_update(&mut self, id: SourceId, parsed: Parsed) {
        if self.peer(id).is_none_or(|p| p.up.is_none()) {
            return;
        }
        if let Some((family, _)) = parsed.disabled {
            self.purge(id, family);
        }
        let update = parsed.update;
        for prefix in update.withdrawn {
            let family = prefix.family();
            if self.tables.get_mut(family).remove(prefix, id) {
                self.count(id, family, |n| n.saturating_sub(1));
            }
        }
        for reach in update.reach {
            self.import(id, reach);
        }
        if let Some(family) = update.end_of_rib {
            self.on_end_of_rib(id, family);
        }
        self.check_limits(id);
    }

    fn count(&mut self, id: SourceId, family: Family, change: impl FnOnce(usize) -> usize) {
        if let Some(peer) = self.peer_mut(id) {
            let count = peer.accepted.get_mut(family);
            *count = change(*count);
        }
    }

    /// Takes what the policy accepts; what it does not takes the earlier path away, too.
    fn import(&mut self, id: SourceId, reach: Reach) {
        let Some(peer) = self.peers.get(id.index()).and_then(Option::as_ref) else {
            return;
        };
        let config = Arc::clone(&peer.session.settings.config);
        let eligible = self.is_eligible(peer, &config, &reach.attributes);
        let original = self.interner.intern(reach.attributes);
        let mut changed: Option<(Changes, Arc<PathAttributes>)> = None;
        // By reference: a copy that is read at once would wait for the table's writes before it.
        for prefix in &reach.prefixes {
            let family = prefix.family();
            let decision = config.import.decide(*prefix, &original);
            let Some(changes) = decision.filter(|_| eligible && !is_martian(prefix)) else {
                if self.tables.get_mut(family).remove(*prefix, id) {
                    self.count(id, family, |n| n.saturating_sub(1));
                }
                continue;
            };
            let attributes = match &changed {
                _ if changes == Changes::NONE => Arc::clone(&original),
                Some((known, attributes)) if *known == changes => Arc::clone(attributes),
                _ => {
                    let mut attributes = PathAttributes::clone(&original);
                    for change in config.import.changes(changes) {
                        change.apply(&mut attributes, self.config.asn);
                    }
                    let attributes = self.interner.intern(attributes);
                    changed = Some((changes, Arc::clone(&attributes)));
                    attributes
                }
            };
            let table = self.tables.get_mut(family);
            if table.insert(prefix, Path::new(attributes, id)) {
                self.count(id, family, |n| n + 1);
            }
        }
    }

    /// RFC 4271 §9.1.2, §5.1.3, §6.3; RFC 4456 §8.
    fn is_eligible(&self, peer: &Peer, config: &PeerConfig, attributes: &PathAttributes) -> bool {
        let Some(up) = &peer.up else {
            return false;
        };
        let rare = attributes.rare();
        let own = |next_hop: &NextHop| {
            let addr = next_hop.addr();
            addr == up.endpoint.local
                || config.own.v4.map(IpAddr::V4) == Some(addr)
                || config.own.v6.map(IpAddr::V6) == Some(addr)
        };
        let wrong_first = !up.negotiated.internal
            && config.enforce_first_as
            && attributes.as_path.first() != Some(up.negotiated.remote_as);
        let interface = interface(&up.endpoint, config);
        !(attributes.as_path.contains(self.config.asn)
            || wrong_first
            || rare.originator_id == Some(self.config.router_id)
            || rare.cluster_list.contains(&self.config.cluster())
            || own(&attributes.next_hop)
            || !Hop::is_reachable(&attributes.next_hop, interface))
    }

    pub(super) fn check_limits(&mut self, id: SourceId) {
        for family in Family::BOTH {
            let Some(peer) = self.peer(id) else {
                return;
            };
            let config = &peer.session.settings.config;
            let Some(limit) = config.max_prefixes(family) else {
                continue;
            };
            if peer.up.is_some() && *peer.accepted.get(family) > limit as usize {
                self.drive(id, |s, step| s.too_many_prefixes(family, limit, step));
                return self.purge_all(id);
            }
        }
    }

    pub(super) fn purge_all(&mut self, id: SourceId) {
        for family in Family::BOTH {
            self.purge(id, family);
        }
    }

    pub(super) fn bfd_down(&mut self, key: &PeerKey, control_plane_independent: bool) {
        let Some(id) = self.names.get(key).copied() else {
            return;
        };
        let Some(peer) = self.peer(id) else {
            return;
        };
        let mode = peer.session.settings.config.bfd;
        let restart = peer
            .up
            .as_ref()
            .is_some_and(|u| u.negotiated.restart.is_some());
        let gone = mode == BfdMode::Strict || control_plane_independent;
        let down = Notification::new(Code::BFD_DOWN);
        match (mode, peer.session.state()) {
            (BfdMode::Off, _) => (),
            // RFC 5882 §4.3.1, also while the peer restarts.
            (_, State::Established) if gone => {
                self.drive(id, |s, step| s.stop(&s.hard(down), step));
                self.purge_all(id);
            }
            _ if gone => self.purge_all(id),
            // RFC 5882 §4.3.2.
            (_, State::Established) if !restart => self.drive(id, |s, step| s.stop(&down, step)),
            _ => {
                self.drive(id, |s, step| s.lose(step));
                self.suspect(id, true);
            }
        }
    }

    pub(super) fn bfd_up(&mut self, key: &PeerKey) {
        if let Some(id) = self.names.get(key).copied() {
            self.suspect(id, false);
            self.drive(id, |s, step| s.hurry(step));
        }
    }

    fn suspect(&mut self, id: SourceId, suspect: bool) {
        let source = self.sources.get_mut(id.index()).and_then(Option::as_mut);
        if let Some(source) = source
            && source.suspect != suspect
        {
            source.suspect = suspect;
            for family in Family::BOTH {
                self.tables.get_mut(family).touch(id);
            }
        }
    }

    pub(super) fn send_message(&mut self, id: SourceId, message: &Message) {
        let octets = message.encode();
        self.drive(id, |s, step| s.send(octets, step));
    }

    /// How long a restart of a peer may take, whatever it asks for.
    pub(super) fn longest_restart(&self) -> Duration {
        self.config.stale_path_time
    }
}

/// Prefixes that no peer has anything to say about: multicast, loopback and link-local IPv6. They are
/// ignored (RFC 4271 §6.3).
fn is_martian(prefix: &Prefix) -> bool {
    let addr = prefix.addr();
    let special = match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local() && prefix.len() >= 10,
    };
    let whole = match prefix.family() {
        Family::V4 => 4,
        Family::V6 => 8,
    };
    special
        || addr.is_multicast() && prefix.len() >= whole
        || addr.is_loopback() && prefix.len() >= 8
}

pub(super) fn interface<'a>(
    endpoint: &'a Endpoint,
    config: &'a PeerConfig,
) -> Option<&'a hextet_types::IfName> {
    config.peer.interface().or(endpoint.interface.as_ref())
}

fn source_of(negotiated: &Negotiated, endpoint: &Endpoint, config: &PeerConfig) -> Source {
    let asn: Asn = negotiated.remote_as;
    Source {
        kind: if negotiated.internal {
            SourceKind::Internal {
                client: config.reflector_client,
            }
        } else {
            SourceKind::External
        },
        asn,
        identifier: negotiated.remote_id,
        address: endpoint.remote,
        interface: interface(endpoint, config).cloned(),
        suspect: false,
    }
}
