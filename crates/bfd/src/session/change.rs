//! What happened to a session, and what a routing protocol may conclude from it.

use std::fmt;

use hextet_types::Time;

use crate::packet::{Diagnostic, State};

/// Why a session changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The three-way handshake went on (RFC 5880 §6.2).
    Handshake,
    /// The peer was not heard for the detection time (RFC 5880 §6.8.4).
    DetectionTimeExpired,
    /// The peer says Down, with its diagnostic.
    NeighborDown(Diagnostic),
    /// The peer says AdminDown.
    NeighborAdminDown,
    /// Our driver knows that the path is down: its interface lost the carrier, or is gone.
    PathDown,
    /// We were switched off.
    Disabled,
    /// We were switched on.
    Enabled,
}

impl Reason {
    /// What our packets say of it (RFC 5880 §4.1).
    pub const fn diagnostic(self) -> Diagnostic {
        match self {
            Reason::Handshake | Reason::Enabled => Diagnostic::NONE,
            Reason::DetectionTimeExpired => Diagnostic::CONTROL_DETECTION_TIME_EXPIRED,
            Reason::NeighborDown(_) | Reason::NeighborAdminDown => {
                Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN
            }
            Reason::PathDown => Diagnostic::PATH_DOWN,
            Reason::Disabled => Diagnostic::ADMINISTRATIVELY_DOWN,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Handshake => f.write_str("both ends agree"),
            Reason::DetectionTimeExpired => f.write_str("no packet came for the detection time"),
            Reason::NeighborDown(diagnostic) => write!(f, "the peer says Down ({diagnostic})"),
            Reason::NeighborAdminDown => f.write_str("the peer was switched off (AdminDown)"),
            Reason::PathDown => f.write_str("the interface is down"),
            Reason::Disabled => f.write_str("switched off here"),
            Reason::Enabled => f.write_str("switched on here"),
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Time,
    /// The state before.
    pub from: State,
    /// The state since then.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// Whether our own packets said that our BFD does not share the fate of our control plane (C).
    pub control_plane_independent: bool,
    /// Whether the peer's last packet said so.
    pub peer_control_plane_independent: bool,
}

/// What a change says about the path, to a routing protocol that may be in the midst of a graceful
/// restart (RFC 5882 §3.2 and §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The path works in both directions.
    Alive,
    /// The path does not forward: routes over it go at once, and a graceful restart ends.
    Dead,
    /// The path is dead, or the peer's control plane is away while its kernel goes on forwarding;
    /// BFD can't tell. Without graceful restart: as `Dead`. With it: the peer may be restarting, so
    /// its routes become stale and, where there are others, are not used.
    Undecided,
    /// One end was switched off: nothing about the path, so nothing to do (RFC 5880 §3.2).
    Withdrawn,
}

impl Change {
    /// What it says about the path; `None` if the session neither came Up nor was Up.
    pub fn verdict(&self) -> Option<Verdict> {
        let dead_if = |dead| {
            if dead {
                Verdict::Dead
            } else {
                Verdict::Undecided
            }
        };
        match (self.from, self.to, self.reason) {
            (_, State::Up, _) => Some(Verdict::Alive),
            (State::Up, _, reason) => Some(match reason {
                Reason::PathDown => Verdict::Dead,
                Reason::DetectionTimeExpired => dead_if(self.peer_control_plane_independent),
                Reason::NeighborDown(diagnostic) => {
                    dead_if(self.neighbor_lost_the_path(diagnostic))
                }
                Reason::NeighborAdminDown
                | Reason::Disabled
                | Reason::Enabled
                | Reason::Handshake => Verdict::Withdrawn,
            }),
            _ => None,
        }
    }

    /// A peer that merely misses our packets proves a dead path only if our packets would have gone
    /// on without our control plane.
    fn neighbor_lost_the_path(&self, diagnostic: Diagnostic) -> bool {
        match diagnostic {
            Diagnostic::FORWARDING_PLANE_RESET | Diagnostic::PATH_DOWN => true,
            Diagnostic::CONTROL_DETECTION_TIME_EXPIRED => self.control_plane_independent,
            _ => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.from, self.to, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason::*, State::*, Verdict::*, *};

    const MISSED: Reason = NeighborDown(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);

    #[track_caller]
    fn assert_verdict(from: State, to: State, reason: Reason, c: [bool; 2], is: Option<Verdict>) {
        let [control_plane_independent, peer_control_plane_independent] = c;
        let change = Change {
            at: Time::ZERO,
            from,
            to,
            reason,
            control_plane_independent,
            peer_control_plane_independent,
        };
        assert_eq!(change.verdict(), is, "{change}");
    }

    #[test]
    fn only_coming_up_and_ceasing_to_be_up_say_anything() {
        for c in [[false; 2], [true; 2]] {
            assert_verdict(Init, Up, Handshake, c, Some(Alive));
            assert_verdict(Down, Up, Handshake, c, Some(Alive));
            assert_verdict(Down, Init, Handshake, c, None);
            assert_verdict(Init, Down, DetectionTimeExpired, c, None);
            assert_verdict(Init, Down, PathDown, c, None);
            assert_verdict(AdminDown, Down, Enabled, c, None);
        }
    }

    #[test]
    fn a_loss_is_the_path_s_only_if_no_restart_explains_it() {
        let reset = NeighborDown(Diagnostic::FORWARDING_PLANE_RESET);
        // Reason; the verdict with no C bit, with ours, with the peer's.
        let table = [
            (DetectionTimeExpired, [Undecided, Undecided, Dead]),
            (MISSED, [Undecided, Dead, Undecided]),
            (NeighborDown(Diagnostic::NONE), [Undecided; 3]),
            (reset, [Dead; 3]),
            (NeighborDown(Diagnostic::PATH_DOWN), [Dead; 3]),
            (PathDown, [Dead; 3]),
            (NeighborAdminDown, [Withdrawn; 3]),
            (Disabled, [Withdrawn; 3]),
        ];
        for (reason, [none, ours, peers]) in table {
            let to = if reason == Disabled { AdminDown } else { Down };
            assert_verdict(Up, to, reason, [false, false], Some(none));
            assert_verdict(Up, to, reason, [true, false], Some(ours));
            assert_verdict(Up, to, reason, [false, true], Some(peers));
        }
    }
}
