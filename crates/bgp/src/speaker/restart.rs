//! Graceful restart (RFC 4724, 8538), long-lived graceful restart (RFC 9494) and enhanced refresh
//! (RFC 7313): paths that a peer has not confirmed yet, and a speaker that has just restarted.

use std::time::Duration;

use hextet_types::{Family, Time};

use super::{Action, Peer, SourceId, Speaker};
use crate::{
    packet::{Community, Message, RefreshKind, RouteRefresh},
    session::State,
};

/// The paths of a peer in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stale {
    /// All are the peer's last word.
    #[default]
    None,
    /// The peer is away; stale paths are used as before until then.
    Restarting(Time),
    /// The peer is away for long; stale paths are used last until then.
    LongLived(Time),
    /// The peer is telling all again; what it has not confirmed by then goes.
    Confirming(Time),
}

impl Stale {
    const fn deadline(self) -> Option<Time> {
        match self {
            Stale::None => None,
            Stale::Restarting(at) | Stale::LongLived(at) | Stale::Confirming(at) => Some(at),
        }
    }
}

impl Peer {
    pub(super) fn stale_deadlines(&self) -> impl Iterator<Item = Time> {
        Family::BOTH
            .into_iter()
            .filter_map(|f| self.stale.get(f).deadline())
    }

    /// Nothing more is to be waited for from this peer before routes are selected (RFC 4724 §4.1).
    fn has_told_all(&self) -> bool {
        if self.session.settings.config.shutdown.is_some() {
            return true;
        }
        let Some(up) = &self.up else {
            return false;
        };
        match up.negotiated.restart {
            // It sends no End-of-RIB, or waits for ours.
            None => true,
            Some(restart) if restart.restarting => true,
            Some(_) => up
                .negotiated
                .families
                .iter()
                .all(|f| self.complete.contains(f)),
        }
    }
}

impl Speaker {
    fn set_stale(&mut self, id: SourceId, family: Family, stale: Stale) {
        if let Some(peer) = self.peer_mut(id) {
            *peer.stale.get_mut(family) = stale;
        }
    }

    fn remove_where(
        &mut self,
        id: SourceId,
        family: Family,
        which: impl Fn(&crate::rib::Path) -> bool,
    ) {
        let gone = self.tables.get_mut(family).remove_where(id, which);
        if let Some(peer) = self.peer_mut(id) {
            let count = peer.accepted.get_mut(family);
            *count = count.saturating_sub(gone);
        }
    }

    /// All paths of a peer go.
    pub(super) fn purge(&mut self, id: SourceId, family: Family) {
        self.set_stale(id, family, Stale::None);
        if self.peer(id).is_some_and(|p| *p.accepted.get(family) > 0) {
            self.remove_where(id, family, |_| true);
        }
    }

    /// What the peer has not confirmed goes.
    fn purge_stale(&mut self, id: SourceId, family: Family) {
        self.set_stale(id, family, Stale::None);
        self.remove_where(id, family, crate::rib::Path::is_stale);
    }

    /// The session went down, and the peer's paths stay for now. What was stale before goes: a peer
    /// that restarts again and again does not keep paths forever (RFC 4724 §4.2).
    pub(super) fn keep_stale(&mut self, id: SourceId, family: Family, time: Duration) {
        if self
            .peer(id)
            .is_some_and(|p| *p.stale.get(family) != Stale::None)
        {
            self.remove_where(id, family, crate::rib::Path::is_stale);
        }
        self.tables.get_mut(family).mark_stale(id);
        let until = self.now + time.min(self.longest_restart());
        self.set_stale(id, family, Stale::Restarting(until));
        self.stale_timers(id);
    }

    pub(super) fn stale_timers(&mut self, id: SourceId) {
        for family in Family::BOTH {
            let Some(peer) = self.peer(id) else {
                return;
            };
            let stale = *peer.stale.get(family);
            if stale.deadline().is_none_or(|at| at > self.now) {
                continue;
            }
            let long_lived = peer
                .long_lived
                .filter(|l| l.families.contains(family))
                .map(|l| l.time(family))
                .filter(|time| !time.is_zero());
            match (stale, long_lived) {
                (Stale::Restarting(_), Some(time)) => {
                    self.remove_where(id, family, |p| {
                        p.attributes.has_community(Community::NO_LLGR)
                    });
                    self.tables.get_mut(family).mark_long_lived(id);
                    self.set_stale(id, family, Stale::LongLived(self.now + time));
                }
                (Stale::Restarting(_) | Stale::LongLived(_), _) => self.purge(id, family),
                (Stale::Confirming(_), _) => self.purge_stale(id, family),
                (Stale::None, _) => (),
            }
        }
    }

    /// The session is up again: stale paths wait for their confirmation where the peer says that it
    /// has kept forwarding, and go where it does not (RFC 4724 §4.2, RFC 9494 §4.2).
    pub(super) fn stale_after_up(&mut self, id: SourceId) {
        let confirm_by = self.now + self.config.stale_path_time;
        for family in Family::BOTH {
            let Some(peer) = self.peer(id) else {
                return;
            };
            let long_lived = matches!(peer.stale.get(family), Stale::LongLived(_));
            if *peer.stale.get(family) == Stale::None {
                continue;
            }
            let Some(up) = &peer.up else {
                return;
            };
            let restart = up.negotiated.restart.unwrap_or_default();
            let later = up.negotiated.long_lived.unwrap_or_default();
            let kept = restart.forwarding.contains(family)
                || long_lived && later.forwarding.contains(family);
            if kept && up.negotiated.families.contains(family) {
                self.set_stale(id, family, Stale::Confirming(confirm_by));
            } else {
                self.purge(id, family);
            }
        }
    }

    pub(super) fn on_end_of_rib(&mut self, id: SourceId, family: Family) {
        if let Some(peer) = self.peer_mut(id) {
            peer.complete.insert(family);
        }
        if self.confirming(id, family) {
            self.purge_stale(id, family);
        }
    }

    fn confirming(&self, id: SourceId, family: Family) -> bool {
        let stale = self.peer(id).map(|p| *p.stale.get(family));
        matches!(stale, Some(Stale::Confirming(_)))
    }

    pub(super) fn on_refresh(&mut self, id: SourceId, refresh: RouteRefresh) {
        let Some(up) = self.peer(id).and_then(|p| p.up.as_ref()) else {
            return;
        };
        let negotiated = |f: &Family| up.negotiated.families.contains(*f);
        let Some(family) = refresh.family.family().filter(negotiated) else {
            return;
        };
        let enhanced = up.negotiated.enhanced_refresh;
        match refresh.kind {
            Some(RefreshKind::Request) => {
                if enhanced {
                    let kind = Some(RefreshKind::Begin);
                    self.send_message(id, &Message::RouteRefresh(RouteRefresh { kind, ..refresh }));
                }
                self.tell_again(id, family, enhanced);
            }
            Some(RefreshKind::Begin) if enhanced => {
                self.tables.get_mut(family).mark_stale(id);
                let until = self.now + self.config.stale_path_time;
                self.set_stale(id, family, Stale::Confirming(until));
            }
            Some(RefreshKind::End) if enhanced && self.confirming(id, family) => {
                self.purge_stale(id, family);
            }
            _ => (),
        }
    }

    /// After a restart: selects once everybody has told all, or the time for it is over.
    pub(super) fn end_deferral_when_due(&mut self) {
        let Some(until) = self.deferral else {
            return;
        };
        let all = !self.names.is_empty() && self.peers.iter().flatten().all(Peer::has_told_all);
        if until > self.now && !all {
            return;
        }
        self.deferral = None;
        for peer in self.peers.iter_mut().flatten() {
            peer.session.settings.restarting = false;
        }
        while self.has_work() {
            self.select_routes();
        }
        self.actions.push(Action::SelectionComplete);
    }

    /// Whether a restart of ours still waits for peers.
    pub fn is_deferring(&self) -> bool {
        self.deferral.is_some()
    }

    /// Sessions that are up.
    pub fn established(&self) -> usize {
        let up = |p: &&Peer| p.session.state() == State::Established;
        self.peers.iter().flatten().filter(up).count()
    }
}
