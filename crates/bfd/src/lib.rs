//! Bidirectional Forwarding Detection: losing a neighbour is noticed within a fraction of a second.
//!
//! BFD in asynchronous mode (RFC 5880) over a single hop of IPv4 or IPv6 (RFC 5881), as a pure
//! engine: [`Engine::handle`] takes an [`Event`] and the time and returns [`Action`]s,
//! [`Engine::next_wakeup`] says when it wants to be called without an event. The crate has no
//! socket, no clock, no randomness, no lock and no task; the same seed and the same events give the
//! same actions, so that a run can be recorded and replayed.
//!
//! From the wire upwards: [`packet`] is the codec, [`session`] the state machine of one session,
//! [`engine`] holds the sessions of a host and finds the one that a packet is for, [`config`] is
//! what an operator may say. [`probe`] stands beside them: it watches kernels of hosts that are further away, with
//! ICMP echo, by the same rules.
//!
//! # What a driver does
//!
//! One task owns the one engine of a host; nobody else touches it.
//!
//! **Time.** It takes a monotonic clock's reading as [`Time`](hextet_types::Time), sleeps until
//! [`Engine::next_wakeup`] or the next input, and asks for the wake-up anew after each event. When
//! it wakes, it hands in all datagrams that wait in its sockets *before* [`Event::Timer`]: otherwise
//! a driver that did not get to run for a while takes its own sleep for the peer's. It runs with a
//! real-time or raised priority if it may.
//!
//! **Receiving.** It listens on UDP port [`CONTROL_PORT`], both families, and reads with each
//! datagram the interface (`IP_PKTINFO`, `IPV6_RECVPKTINFO`) and the TTL or hop limit (`IP_RECVTTL`,
//! `IPV6_RECVHOPLIMIT`). Both go into [`Event::Datagram`]; the engine refuses what did not come with
//! 255 (RFC 5881 §5), and the driver may have the kernel drop such packets before (`IP_MINTTL`,
//! `IPV6_MINHOPCOUNT`). The payload may be anything; 64 octets of buffer are enough.
//!
//! **Sending.** For [`Action::Send`] it uses one socket for each session, bound to one source port
//! out of [`SOURCE_PORTS`] for as long as the session lives (RFC 5881 §4), and to the interface; TTL
//! or hop limit [`HOP_LIMIT`]; for traffic class, network control (CS6) is usual. A failure to send
//! is logged and otherwise ignored: detection is the peer's business.
//!
//! **Links.** When an interface goes down or away, [`Event::LinkDown`]: its sessions end at once.
//! When it comes back there is nothing to tell; packets will.
//!
//! **Configuration.** [`Event::Watch`] and [`Event::Unwatch`] say what shall be, and may be repeated:
//! a reconciler sends them for the difference, or for everything. A session that is unwatched says
//! AdminDown for the peer's detection time, so the driver runs on for up to
//! [`MAX_LINGER`](engine::MAX_LINGER) before it ends, if the end is to be orderly.
//!
//! **Telling others.** [`Action::Changed`] goes to whoever relies on the path, with its
//! [`Verdict`](session::Verdict). [`Action::Refused`] is counted, and logged at a bounded rate.
//! [`Engine::status`] is for people: state, since when, why it last failed, what was negotiated.
//!
//! # Harmony with graceful restart
//!
//! BFD may run in the same process as the routing protocol, as hextet's does, and then falls silent
//! whenever that process restarts, while the kernel goes on forwarding. RFC 5882 §4.3 has the C bit
//! for this: clear, it says that BFD shares the fate of the control plane. Then a loss does not
//! prove a dead path, and a protocol with graceful restart should treat it as a restart:
//! [`Verdict::Undecided`](session::Verdict::Undecided). If the peer's C bit was set, a loss is the
//! path's: [`Verdict::Dead`](session::Verdict::Dead). An end that is switched off by an administrator
//! says AdminDown, which is no loss: [`Verdict::Withdrawn`](session::Verdict::Withdrawn). A planned
//! end of the agent should not disturb its peers' routes either, so it needs nothing but
//! [`Event::Unwatch`] for all.
//!
//! # What is not offered
//!
//! Demand mode of our own (the peer's is honoured), the Echo function (its interval in our packets
//! is zero), several hops (RFC 5883), and authentication: a packet with an authentication section is
//! decoded and refused (RFC 5880 §6.8.6), because the hop limit already keeps out who is not on the
//! link.

pub mod config;
pub mod engine;
pub mod packet;
pub mod probe;
mod random;
pub mod session;

use std::ops::RangeInclusive;

pub use config::{Config, Interval, Role};
pub use engine::{Action, Engine, Event, Peer, Refusal};

/// The UDP port that BFD Control packets of a single hop are sent to (RFC 5881 §4).
pub const CONTROL_PORT: u16 = 3784;

/// The UDP ports that they are sent from (RFC 5881 §4).
pub const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;

/// The TTL or hop limit that they are sent and must arrive with (RFC 5881 §5).
pub const HOP_LIMIT: u8 = 255;
