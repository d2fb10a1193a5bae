//! What became of the frames of a port, in numbers, for metrics.

use std::ops::AddAssign;

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Each one, in the order of their declaration.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// Its name in metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)*
                }
            }
        }
    };
}

labelled! {
    /// What was done for a workload.
    Done {
        /// A router advertisement was sent, solicited or not.
        RouterAdvertisement = "router_advertisement",
        /// A DHCPOFFER was sent.
        Dhcpv4Offer = "dhcpv4_offer",
        /// A DHCPACK was sent.
        Dhcpv4Ack = "dhcpv4_ack",
        /// A DHCPNAK was sent: the client had an address that is not the port's.
        Dhcpv4Nak = "dhcpv4_nak",
        /// A DHCPRELEASE was noted; it needs no answer.
        Dhcpv4Release = "dhcpv4_release",
        /// A DHCPDECLINE was noted: the client believes that somebody else has its address.
        Dhcpv4Decline = "dhcpv4_decline",
        /// An Advertise was sent.
        Dhcpv6Advertise = "dhcpv6_advertise",
        /// A Reply was sent.
        Dhcpv6Reply = "dhcpv6_reply",
        /// A Reply to a Decline was sent: the client believes that somebody else has its address.
        Dhcpv6Decline = "dhcpv6_decline",
    }
}

labelled! {
    /// Why a frame was not answered.
    Reason {
        /// It ends before its headers say so.
        Truncated = "truncated",
        /// It has a VLAN tag.
        VlanTag = "vlan_tag",
        /// It is neither a router solicitation nor for a DHCP server.
        NotARequest = "not_a_request",
        /// Its IP header is none.
        IpHeader = "ip_header",
        /// It is a fragment (RFC 6980 §5 for neighbour discovery; no DHCP client needs any).
        Fragment = "fragment",
        /// It has too many extension headers, or one out of place.
        ExtensionHeader = "extension_header",
        /// A checksum is wrong.
        Checksum = "checksum",
        /// A router solicitation did not come with hop limit 255 (RFC 4861 §6.1.1).
        HopLimit = "hop_limit",
        /// A message is not as its RFC has it.
        Malformed = "malformed",
        /// Its Ethernet source, or a DHCPv4 client's hardware address, is not the port's.
        ForeignMac = "foreign_mac",
        /// It is for another router or server.
        NotForUs = "not_for_us",
        /// Its IPv6 source is not an address that such a message may come from.
        Source = "source",
        /// The port asks more often than it is answered.
        RateLimited = "rate_limited",
        /// The port's configuration has nothing to answer with.
        NotOffered = "not_offered",
        /// It came by way of a relay.
        Relayed = "relayed",
        /// A message that only servers send, or none that we know.
        UnexpectedMessage = "unexpected_message",
        /// The client has chosen another server.
        OtherServer = "other_server",
        /// A DHCPv6 message without the Client Identifier that it needs (RFC 8415 §16).
        NoClientId = "no_client_id",
        /// A DHCPv6 message without the Server Identifier that it needs (RFC 8415 §16).
        NoServerId = "no_server_id",
        /// A DHCPv6 message with a Server Identifier that it may not have (RFC 8415 §16).
        UnexpectedServerId = "unexpected_server_id",
        /// An Information-request with an identity association (RFC 8415 §16.12).
        UnexpectedIa = "unexpected_ia",
        /// A DHCPv6 message that has to go to all servers went to one (RFC 8415 §18.4).
        Unicast = "unicast",
        /// The interface does not belong to a port that is configured.
        UnknownPort = "unknown_port",
    }
}

/// Numbers since the port was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    done: [u64; Done::ALL.len()],
    dropped: [u64; Reason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            done: [0; Done::ALL.len()],
            dropped: [0; Reason::ALL.len()],
        }
    }
}

impl Counters {
    /// How often this was done.
    pub fn done(&self, done: Done) -> u64 {
        self.done.get(done as usize).copied().unwrap_or(0)
    }

    /// How many frames were dropped for this reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    pub(crate) fn count_done(&mut self, done: Done) {
        if let Some(count) = self.done.get_mut(done as usize) {
            *count += 1;
        }
    }

    pub(crate) fn count_dropped(&mut self, reason: Reason) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

impl AddAssign<&Counters> for Counters {
    fn add_assign(&mut self, other: &Counters) {
        let pairs = self.done.iter_mut().zip(&other.done);
        for (to, from) in pairs.chain(self.dropped.iter_mut().zip(&other.dropped)) {
            *to += from;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct_and_each_has_its_number() {
        let labels: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for (i, reason) in Reason::ALL.iter().enumerate() {
            let mut counters = Counters::default();
            counters.count_dropped(*reason);
            assert_eq!(counters.dropped[i], 1);
            assert_eq!(counters.dropped(*reason), 1);
        }
        for (i, done) in Done::ALL.iter().enumerate() {
            let mut counters = Counters::default();
            counters.count_done(*done);
            let mut sum = counters.clone();
            sum += &counters;
            assert_eq!((sum.done[i], sum.done(*done)), (2, 2));
        }
    }
}
