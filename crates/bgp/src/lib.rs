//! BGP-4 as an engine without I/O: codec, sessions, routes, policy, and the [`Speaker`] around them.
//!
//! One speaker serves IPv4 and IPv6 over each session: RFC 4271 with multiprotocol routes (4760),
//! four-octet AS numbers (6793), route refresh (2918, 7313), graceful restart (4724, 8538), long-lived
//! graceful restart (9494), IPv6 next hops for IPv4 (8950), long messages (8654) and long optional
//! parameters (9072), revised error handling (7606), route reflection (4456), communities (1997, 8092),
//! shutdown communication (9003) and the send hold timer (9687).
//!
//! # Driving it
//!
//! One task owns a [`Speaker`]. It calls [`Speaker::handle`] for everything that happens and does the
//! [`Action`]s in the order in which they come; when [`Speaker::next_wakeup`] has passed it hands in
//! [`Event::Timer`]. Time is the driver's own monotonic clock as [`hextet_types::Time`].
//!
//! - **Outgoing connections.** [`Action::Connect`]: open a socket to port 179 of `remote` (with
//!   `interface` as the scope of a link-local address), set `ttl` ([`config::TtlPolicy::Security`]: send
//!   with 255, and `IP_MINTTL`/`IPV6_MINHOPCOUNT` of 255 less the hops) and `md5` (`TCP_MD5SIG`) before
//!   connecting. Then [`Event::Opened`] with both addresses, or [`Event::Closed`].
//! - **Incoming connections.** Listen on port 179 of both families, with a TCP MD5 key for each peer that
//!   has one. [`Speaker::peer_for`] says whose a connection is (close it if nobody's, before any octet
//!   is read), so that its TTL options can be set; take an id from [`Speaker::new_connection`], then
//!   [`Event::Accepted`].
//! - **Octets.** Read at most [`speaker::READ_SIZE`] for one [`Event::Received`]. Write what
//!   [`Action::Send`] brings in order, and report [`Event::Written`] as the socket takes it: that is the
//!   back-pressure. Hand in what was received before an overdue [`Event::Timer`], or a busy driver
//!   lets hold timers expire.
//! - **Closing.** After [`Action::Close`] the id is forgotten; write what was sent before, as far as the
//!   socket takes it at once (it ends in a NOTIFICATION), and close. The socket's own end is
//!   [`Event::Closed`].
//! - **Routes.** [`Action::Routes`] says what the kernel should have; our own announcements are never in
//!   it. An IPv4 route may have an IPv6 next hop, a link-local one has its interface. A [`speaker`] is
//!   the whole truth for what it says: a prefix that it has not named has no route from it.
//! - **Restarts.** Set [`config::SpeakerConfig::restarting`] if the kernel still forwards by routes of an
//!   earlier run; keep those until [`Action::SelectionComplete`], then let go what was not named since. To
//!   restart the program without loss, just end it: peers see the connections close and help. To leave
//!   for good, set [`config::PeerConfig::shutdown`] and write what comes out.
//! - **Unnumbered peers** ([`config::PeerKey::Interface`]): report the neighbour's link-local address by
//!   [`Event::Neighbour`], for instance from its router advertisements. Either side may know first.
//! - **BFD**: [`Event::BfdDown`] and [`Event::BfdUp`]; see [`config::BfdMode`].
//! - **Aggregates** ([`config::SpeakerConfig::aggregates`]): the driver installs a discard route for each.
//!
//! # Bounds
//!
//! Peers ([`config::MAX_PEERS`]), next hops ([`config::MAX_PATHS`]), policy rules
//! ([`policy::MAX_RULES`]), octets waiting to be read as a message (65,535) or to be written
//! ([`config::SpeakerConfig::write_limit`] and one batch of 4,096 prefixes). Routes are bounded by
//! [`config::FamilyConfig::max_prefixes`], which has no default: set it for peers that are not yours.
//!
//! Deviations: there is no MinRouteAdvertisementIntervalTimer (RFC 4271 §9.2.1.1); changes go out as soon
//! as the connection takes them, and a prefix that changes while it waits is told once. Whether a next
//! hop can be reached (§9.1.2.1) is the driver's and the kernel's to know. Paths that a policy rejects are
//! not kept; a changed import policy asks the peer to tell all again, and resets the session where the
//! peer cannot.

pub mod config;
mod jitter;
pub mod packet;
pub mod policy;
mod rib;
pub mod session;
pub mod speaker;

pub use rib::Hop;
pub use speaker::{Action, Event, RouteChange, Speaker};
