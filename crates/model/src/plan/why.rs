//! Why rules drop, as their comments say it: written by the planner, read by explanations.

/// The source is none that the port may use.
pub const SPOOFED: &str = "spoofed source";
/// Unspecified sources are for the agent, which sees them before netfilter does.
pub const FOR_AGENT: &str = "the agent has seen it";
/// An interface that is named like a port.
pub const UNKNOWN_PORT: &str = "a port that no plan knows";
/// A port where its eBPF program does not stand.
pub const NO_PROGRAM: &str = "a port without its program";
/// In no profile.
pub const NO_PROFILE: &str = "a port without a profile";
/// ICMP redirects.
pub const REDIRECT: &str = "redirects never pass";
/// Neighbour and router discovery that would be forwarded.
pub const DISCOVERY: &str = "neighbour discovery stays on its link";
/// DHCP messages that nobody asked for.
pub const DHCP: &str = "DHCP clients are served by the host";
/// Link-local sources that would be forwarded.
pub const LINK_LOCAL: &str = "link-local addresses stay on their link";
/// Connection tracking makes no sense of it.
pub const INVALID: &str = "belongs to no connection";
/// ICMP errors about other people's connections.
pub const FOREIGN: &str = "an error about a connection of others";
/// The host itself.
pub const HOST: &str = "the host's services are not for workloads";
/// The end of a profile.
pub const NOT_ALLOWED: &str = "no group allows it";
/// A port's limit.
pub const TOO_MANY: &str = "too many connections";
/// A QoS policy.
pub const TOO_FAST: &str = "more than its QoS policy allows";
/// What the host itself reports to others than its ports.
pub const TOO_MANY_ERRORS: &str = "too many errors of the host";
/// NAT44 without a source.
pub const NO_SOURCE: &str = "no source address to translate to";
/// Private addresses, from outside.
pub const PRIVATE: &str = "private addresses are not reached from outside";
/// What routers let neither out nor in.
pub const NOT_PUBLIC: &str = "not a public address of that router";
/// Tunnel packets that no host sent to us.
pub const UNKNOWN_ENDPOINT: &str = "a tunnel packet from nobody we know";
/// Tunnel packets from a host that speaks for a port of ours.
pub const LOCAL_SOURCE: &str = "a source that lives on this host came by a tunnel";
