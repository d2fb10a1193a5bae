//! Why a tunnel is opened, drained or closed, with the figures that decided it.

use std::{fmt, time::Duration};

use super::{
    event::{Kind, Node, Refusal},
    gain::Gain,
};

/// Why. Printed for operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// There was no tunnel at all.
    Entry,
    /// No route leads to it: either it is dead, or the mesh is in pieces.
    Rejoin,
    /// A walk ended there.
    Random {
        /// Random links before.
        have: usize,
        /// Random links that there shall be.
        want: usize,
    },
    /// The other side asked for it.
    Granted {
        /// What for.
        kind: Kind,
    },
    /// An earlier run of this node made it.
    Adopted {
        /// What for.
        kind: Kind,
    },
    /// Nearer than all others.
    Near {
        /// Its round trip.
        round_trip: Duration,
        /// That of the nearest so far.
        before: Option<Duration>,
    },
    /// It shortens paths.
    Gain {
        /// By so much.
        gain: Gain,
        /// What is lost with the tunnel that it replaces.
        instead: Option<(Node, Gain)>,
    },
    /// Another one does more.
    Replaced {
        /// Which.
        by: Node,
    },
    /// There are enough links by walks.
    Settled {
        /// Random links.
        have: usize,
    },
    /// The other side is about to close it.
    PeerDrains,
    /// No route uses it any more.
    Drained,
    /// Routes still use it.
    Needed {
        /// How many.
        routes: usize,
    },
    /// The other side keeps it after all.
    PeerResumes,
    /// The other side does not want it.
    Refused(Refusal),
    /// It is on the same network segment.
    Beside,
    /// It did not come up.
    TimedOut,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Entry => write!(f, "the way into the mesh: there was no tunnel"),
            Reason::Rejoin => write!(f, "no route led there"),
            Reason::Random { have, want } => {
                write!(
                    f,
                    "a random walk ended there: {have} of {want} random links before"
                )
            }
            Reason::Granted { kind } => write!(f, "it asked for one ({kind})"),
            Reason::Adopted { kind } => write!(f, "it stood before this node began anew ({kind})"),
            Reason::Near {
                round_trip,
                before: None,
            } => write!(f, "the nearest: {}", Millis(*round_trip)),
            Reason::Near {
                round_trip,
                before: Some(before),
            } => write!(
                f,
                "nearer than all: {}, before {}",
                Millis(*round_trip),
                Millis(*before)
            ),
            Reason::Gain {
                gain,
                instead: None,
            } => write!(f, "shortens paths by {gain}"),
            Reason::Gain {
                gain,
                instead: Some((node, loss)),
            } => write!(f, "shortens paths by {gain}; node {node} did by {loss}"),
            Reason::Replaced { by } => write!(f, "node {by} does more"),
            Reason::Settled { have } => write!(f, "{have} random links are enough"),
            Reason::PeerDrains => write!(f, "the other side is about to close it"),
            Reason::Drained => write!(f, "no route uses it"),
            Reason::Needed { routes } => write!(f, "{routes} routes have no other way"),
            Reason::PeerResumes => write!(f, "the other side keeps it"),
            Reason::Refused(refusal) => write!(f, "refused: {refusal}"),
            Reason::Beside => write!(f, "it is reached without a tunnel, on the same network"),
            Reason::TimedOut => write!(f, "it did not come up in time"),
        }
    }
}

/// A time in milliseconds with one decimal.
pub(super) struct Millis(pub(super) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1000.0)
    }
}
