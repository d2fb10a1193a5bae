//! What configures a workload on its port: router advertisements, DHCPv4, DHCPv6.
//!
//! A port is a point-to-point link with one workload on it and a fixed set of addresses, so every
//! question has one right answer, which follows from the port's configuration. [`Responder`] takes
//! frames and the time and returns frames: no socket, no clock, no randomness, no lock, no task. There
//! is no lease database: what a workload was told stays true after a restart, and on another host.
//!
//! From the wire upwards: [`frame`] tells requests from everything else and makes the frames of
//! answers; [`nd`], [`ra`], [`dhcpv4`] and [`dhcpv6`] are the protocols; [`config`] and [`options`] are
//! what a planner says; [`responder`] holds the ports of a host. The other side of an uplink is heard by [`upstream`], and asked for
//! prefixes by [`delegation`].
//!
//! Neighbour solicitations and ARP are answered by the kernel, by an eBPF program on the port; their
//! codecs are in [`nd`] for those who need them elsewhere.
//!
//! # What a driver does
//!
//! One task owns the one responder of a network namespace; nobody else touches it.
//!
//! **Receiving.** One packet socket for all ports (`AF_PACKET`, `SOCK_RAW`), with a filter that passes
//! ICMPv6 type 133 and UDP to ports 67 and 547, behind extension headers too. It must not pass what the
//! host itself sends (`PACKET_OUTGOING`), and not what had a VLAN tag, which the kernel strips before
//! it hands the frame over (`PACKET_AUXDATA`). Checksums may be unfinished, as they are on veth and
//! TAP: [`frame`] knows them.
//!
//! **Sending.** [`Action::Send`] goes out of the same socket, with the mark that admits it to a port, or
//! past the qdisc and its programs (`PACKET_QDISC_BYPASS`), because no rule lets it pass. A failure to
//! send is counted and otherwise ignored: clients ask again.
//!
//! **Time.** It sleeps until [`Responder::next_wakeup`] or the next frame, and asks for the wake-up anew
//! after each event. It hands in waiting frames before [`Event::Timer`].
//!
//! **Configuration.** [`Responder::set_port`] and [`Responder::remove_port`] say what shall be, and may
//! be repeated. Ending the driver sends nothing: workloads keep their router for 2½ hours
//! ([`ra::ROUTER_LIFETIME_SECS`]). [`Event::Cease`] is for a host that hands its ports to another
//! router while they stay where they are.
//!
//! # Why DHCP has codecs of its own here
//!
//! A server for hostile clients wants little of a message: a handful of options, octets for the rest.
//! `dhcproto` types every option; the version at hand panics on some malformed ones, stops reading at
//! the first, sorts what it writes (clients ask for an order), and has the wrong number for option 108.
//! It judges what we write, in tests.

pub mod config;
pub mod counters;
pub mod delegation;
pub mod dhcpv4;
pub mod dhcpv6;
mod domain;
pub mod frame;
pub mod nd;
pub mod options;
pub mod ra;
mod random;
mod reader;
pub mod responder;
#[cfg(test)]
mod samples;
mod schedule;
pub mod upstream;

pub use config::{ConfigError, PortConfig};
pub use counters::{Counters, Done, Reason};
pub use dhcpv6::Duid;
pub use domain::{DomainName, DomainNameError};
pub use options::{ExtraOption, ExtraOptionError};
pub use responder::{Action, Event, PortKey, Responder, SetPortError};
pub use upstream::Upstream;
