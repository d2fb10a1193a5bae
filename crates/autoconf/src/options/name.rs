//! Options by name (as dnsmasq writes them) and number, with the type of their values
//! (RFC 2132 and its successors; RFC 8415 §21 and the registry behind it).

use hextet_types::Family;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not for anybody to set.
    Protocol,
    /// One address.
    Address,
    /// Addresses, with commas.
    Addresses,
    /// Pairs of IPv4 addresses, with commas.
    AddressPairs,
    /// A number of one octet.
    U8,
    /// A number of two octets.
    U16,
    /// A number of four octets.
    U32,
    /// A number of four octets, with a sign.
    I32,
    /// A time in seconds, or with `m`, `h`, `d`, `w`, or `infinite`.
    Seconds,
    /// Text as it is.
    Text,
    /// Domain names, with commas, as labels (RFC 1035 §3.1).
    Domains,
    /// Destinations and routers in turn, with commas (RFC 3442).
    Routes,
    /// Addresses or domain names as suboptions (RFC 5908).
    Ntp,
    /// Texts, with commas, each with its length before it (RFC 5970 §3.2).
    Params,
    /// Octets, addresses, a number or text, whichever it looks like (as dnsmasq does).
    Any,
}

use Kind::{
    Address, AddressPairs, Addresses, Any, Domains, I32, Ntp, Params, Protocol, Routes, Seconds,
    Text, U8, U16, U32,
};

const V4: &[(&str, u16, Kind)] = &[
    ("netmask", 1, Address),
    ("time-offset", 2, I32),
    ("router", 3, Addresses),
    ("time-server", 4, Addresses),
    ("dns-server", 6, Addresses),
    ("log-server", 7, Addresses),
    ("lpr-server", 9, Addresses),
    ("hostname", 12, Text),
    ("boot-file-size", 13, U16),
    ("domain-name", 15, Text),
    ("swap-server", 16, Address),
    ("root-path", 17, Text),
    ("extension-path", 18, Text),
    ("ip-forward-enable", 19, U8),
    ("non-local-source-routing", 20, U8),
    ("policy-filter", 21, AddressPairs),
    ("max-datagram-reassembly", 22, U16),
    ("default-ttl", 23, U8),
    ("mtu", 26, U16),
    ("all-subnets-local", 27, U8),
    ("broadcast", 28, Address),
    ("router-discovery", 31, U8),
    ("router-solicitation", 32, Address),
    ("static-route", 33, AddressPairs),
    ("trailer-encapsulation", 34, U8),
    ("arp-timeout", 35, U32),
    ("ethernet-encap", 36, U8),
    ("tcp-ttl", 37, U8),
    ("tcp-keepalive", 38, U32),
    ("nis-domain", 40, Text),
    ("nis-server", 41, Addresses),
    ("ntp-server", 42, Addresses),
    ("vendor-encap", 43, Any),
    ("netbios-ns", 44, Addresses),
    ("netbios-dd", 45, Addresses),
    ("netbios-nodetype", 46, U8),
    ("netbios-scope", 47, Text),
    ("x-windows-fs", 48, Addresses),
    ("x-windows-dm", 49, Addresses),
    ("requested-address", 50, Protocol),
    ("lease-time", 51, Seconds),
    ("option-overload", 52, Protocol),
    ("message-type", 53, Protocol),
    ("server-identifier", 54, Protocol),
    ("parameter-request", 55, Protocol),
    ("message", 56, Protocol),
    ("max-message-size", 57, Protocol),
    ("T1", 58, Seconds),
    ("T2", 59, Seconds),
    ("vendor-class", 60, Text),
    ("client-id", 61, Protocol),
    ("nis+-domain", 64, Text),
    ("nis+-server", 65, Addresses),
    ("tftp-server", 66, Text),
    ("bootfile-name", 67, Text),
    ("mobile-ip-home", 68, Addresses),
    ("smtp-server", 69, Addresses),
    ("pop3-server", 70, Addresses),
    ("nntp-server", 71, Addresses),
    ("irc-server", 74, Addresses),
    ("user-class", 77, Text),
    ("rapid-commit", 80, Protocol),
    ("FQDN", 81, Protocol),
    ("agent-id", 82, Protocol),
    ("client-arch", 93, Protocol),
    ("client-interface-id", 94, Protocol),
    ("client-machine-id", 97, Protocol),
    ("posix-timezone", 100, Text),
    ("tzdb-timezone", 101, Text),
    ("ipv6-only", 108, U32),
    ("captive-portal", 114, Text),
    ("subnet-select", 118, Protocol),
    ("domain-search", 119, Domains),
    ("sip-server", 120, Any),
    ("classless-static-route", 121, Routes),
    ("vendor-id-encap", 125, Any),
    ("tftp-server-address", 150, Addresses),
    ("path-prefix", 210, Text),
    ("reboot-time", 211, U32),
    ("ms-classless-static-route", 249, Routes),
    ("wpad", 252, Text),
    ("server-ip-address", 255, Address),
];

const V6: &[(&str, u16, Kind)] = &[
    ("client-id", 1, Protocol),
    ("server-id", 2, Protocol),
    ("ia-na", 3, Protocol),
    ("ia-ta", 4, Protocol),
    ("iaaddr", 5, Protocol),
    ("oro", 6, Protocol),
    ("preference", 7, Protocol),
    ("elapsed-time", 8, Protocol),
    ("relay-msg", 9, Protocol),
    ("auth", 11, Protocol),
    ("unicast", 12, Protocol),
    ("status", 13, Protocol),
    ("rapid-commit", 14, Protocol),
    ("user-class", 15, Protocol),
    ("vendor-class", 16, Protocol),
    ("vendor-opts", 17, Any),
    ("interface-id", 18, Protocol),
    ("reconf-msg", 19, Protocol),
    ("reconf-accept", 20, Protocol),
    ("sip-server-domain", 21, Domains),
    ("sip-server", 22, Addresses),
    ("dns-server", 23, Addresses),
    ("domain-search", 24, Domains),
    ("ia-pd", 25, Protocol),
    ("iaprefix", 26, Protocol),
    ("nis-server", 27, Addresses),
    ("nis+-server", 28, Addresses),
    ("nis-domain", 29, Domains),
    ("nis+-domain", 30, Domains),
    ("sntp-server", 31, Addresses),
    ("information-refresh-time", 32, Seconds),
    ("FQDN", 39, Protocol),
    ("posix-timezone", 41, Text),
    ("tzdb-timezone", 42, Text),
    ("ntp-server", 56, Ntp),
    ("bootfile-url", 59, Text),
    ("bootfile-param", 60, Params),
    ("sol-max-rt", 82, U32),
    ("inf-max-rt", 83, U32),
    ("captive-portal", 103, Text),
];

/// The option's number and type. A number that is not in the table takes a value of any type.
pub(super) fn find(name: &str, family: Family) -> Option<(u16, Kind)> {
    let (table, most) = match family {
        Family::V4 => (V4, 254),
        Family::V6 => (V6, u16::MAX),
    };
    if let Ok(code) = name.parse::<u16>() {
        let known = table.iter().find(|(_, c, _)| *c == code && code <= most);
        let kind = known.map_or(Any, |(_, _, kind)| *kind);
        return (1..=most).contains(&code).then_some((code, kind));
    }
    table
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(name))
        .map(|(_, code, kind)| (*code, *kind))
}
