//! Router advertisements: the message (RFC 4861 §4.2), and what one says on a port.
//!
//! [`RouterAdvertisement::of_port`] is a function of the port's configuration alone. When and to whom
//! it is sent is decided in [`responder`](crate::responder).

use std::{net::Ipv6Addr, time::Duration};

use hextet_types::Prefix;

use crate::{
    config::{Ipv6Mode, PortConfig},
    nd::{
        self, NdError, NdOption, Preference, PrefixInformation, ROUTER_ADVERTISEMENT,
        RouteInformation,
    },
};

/// How long hosts keep us as a default router: the most that RFC 4861 §6.2.1 allows, so that an agent
/// that is away for a while hurts nobody. Routes, DNS servers and search lists live as long.
pub const ROUTER_LIFETIME_SECS: u16 = 9_000;
/// Between two unsolicited ones, at most: the most that RFC 4861 §6.2.1 allows.
pub const MAX_INTERVAL: Duration = Duration::from_secs(1_800);
/// Between two unsolicited ones, at least (RFC 4861 §6.2.1: a third of the most).
pub const MIN_INTERVAL: Duration = Duration::from_secs(600);
/// Between the first ones after a change (`MAX_INITIAL_RTR_ADVERT_INTERVAL`).
pub const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// So many in quick order after a change (`MAX_INITIAL_RTR_ADVERTISEMENTS`).
pub const INITIAL_COUNT: u8 = 3;
/// Between two to all nodes (`MIN_DELAY_BETWEEN_RAS`).
pub const MIN_DELAY: Duration = Duration::from_secs(3);

/// Octets of one message, so that it fits the smallest IPv6 MTU.
const MAX_MESSAGE: usize = 1_280 - 40;

const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;

/// A router advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// For packets that the host sends; 0 says nothing.
    pub hop_limit: u8,
    /// M: addresses by DHCPv6.
    pub managed: bool,
    /// O: other configuration by DHCPv6.
    pub other: bool,
    /// Compared with other default routers (RFC 4191 §2.2).
    pub preference: Preference,
    /// 0: no default router.
    pub router_lifetime_secs: u16,
    /// How long a neighbour counts as reachable; 0 says nothing.
    pub reachable_time_millis: u32,
    /// Between solicitations; 0 says nothing.
    pub retrans_timer_millis: u32,
    /// In the order of the message.
    pub options: Vec<NdOption>,
}

impl RouterAdvertisement {
    /// What a port is told; `None` where it is told nothing.
    pub fn of_port(config: &PortConfig) -> Option<Self> {
        let advertise = config.advertise.as_ref()?;
        let modes = |mode| config.ipv6.iter().any(|s| s.mode == mode);
        let stateful = modes(Ipv6Mode::Dhcpv6Stateful);
        let default_router = advertise.default_router;
        Some(RouterAdvertisement {
            hop_limit: 64,
            managed: stateful,
            other: stateful || modes(Ipv6Mode::Dhcpv6Stateless),
            // RFC 4191 §2.2: medium where we are no default router.
            preference: if default_router {
                advertise.preference
            } else {
                Preference::Medium
            },
            router_lifetime_secs: if default_router {
                ROUTER_LIFETIME_SECS
            } else {
                0
            },
            reachable_time_millis: 0,
            retrans_timer_millis: 0,
            options: options_of_port(config),
        })
    }

    /// Reads an ICMPv6 message, type and checksum field included; the checksum is not looked at.
    ///
    /// # Errors
    ///
    /// It is none, or malformed.
    pub fn decode(message: &[u8]) -> Result<Self, NdError> {
        let mut body = nd::open(message, ROUTER_ADVERTISEMENT)?;
        let [hop_limit, flags] = body.array().ok_or(NdError::Truncated)?;
        let router_lifetime_secs = body.u16().ok_or(NdError::Truncated)?;
        let reachable_time_millis = body.u32().ok_or(NdError::Truncated)?;
        let retrans_timer_millis = body.u32().ok_or(NdError::Truncated)?;
        Ok(RouterAdvertisement {
            hop_limit,
            managed: flags & MANAGED != 0,
            other: flags & OTHER != 0,
            // RFC 4191 §2.2: the reserved value counts as medium.
            preference: Preference::from_bits(flags).unwrap_or_default(),
            router_lifetime_secs,
            reachable_time_millis,
            retrans_timer_millis,
            options: NdOption::decode_all(body)?,
        })
    }

    /// Writes the ICMPv6 message, with zero for a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.header();
        for option in &self.options {
            option.encode(&mut out);
        }
        out
    }

    /// The same in as many messages as are needed to fit the smallest IPv6 MTU (RFC 4861 §6.2.3);
    /// at least one.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut message = self.header();
        for option in &self.options {
            let mut octets = Vec::new();
            option.encode(&mut octets);
            if message.len() + octets.len() > MAX_MESSAGE {
                messages.push(std::mem::replace(&mut message, self.header()));
            }
            message.append(&mut octets);
        }
        messages.push(message);
        messages
    }

    /// What `old` said for a while to come and this does not say any more, as options that take it
    /// back.
    pub fn withdrawals(&self, old: &RouterAdvertisement) -> Vec<NdOption> {
        let said = |option: &NdOption| self.subjects().any(|subject| subject == subject_of(option));
        old.apart()
            .filter(|option| !said(option))
            .filter_map(|option| option.withdrawn())
            .collect()
    }

    /// The last one (RFC 4861 §6.2.5): no default router any more, everything else taken back.
    pub fn ceased(&self) -> RouterAdvertisement {
        RouterAdvertisement {
            router_lifetime_secs: 0,
            preference: Preference::Medium,
            options: self
                .options
                .iter()
                .map(|option| option.withdrawn().unwrap_or_else(|| option.clone()))
                .collect(),
            ..self.clone()
        }
    }

    fn header(&self) -> Vec<u8> {
        let flags = if self.managed { MANAGED } else { 0 }
            | if self.other { OTHER } else { 0 }
            | self.preference.bits();
        let mut out = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, self.hop_limit, flags];
        out.extend_from_slice(&self.router_lifetime_secs.to_be_bytes());
        out.extend_from_slice(&self.reachable_time_millis.to_be_bytes());
        out.extend_from_slice(&self.retrans_timer_millis.to_be_bytes());
        out
    }

    /// Options with one DNS server or domain each.
    pub(crate) fn apart(&self) -> impl Iterator<Item = NdOption> + '_ {
        self.options.iter().flat_map(|option| match option {
            NdOption::Rdnss {
                lifetime_secs,
                servers,
            } => servers
                .iter()
                .map(|server| NdOption::Rdnss {
                    lifetime_secs: *lifetime_secs,
                    servers: vec![*server],
                })
                .collect(),
            NdOption::Dnssl {
                lifetime_secs,
                domains,
            } => domains
                .iter()
                .map(|domain| NdOption::Dnssl {
                    lifetime_secs: *lifetime_secs,
                    domains: vec![domain.clone()],
                })
                .collect(),
            option => vec![option.clone()],
        })
    }

    fn subjects(&self) -> impl Iterator<Item = NdOption> + '_ {
        self.apart().map(|option| subject_of(&option))
    }
}

/// The option without all that may change while it is about the same thing.
pub(crate) fn subject_of(option: &NdOption) -> NdOption {
    let mut subject = option.withdrawn().unwrap_or_else(|| option.clone());
    match &mut subject {
        NdOption::Prefix(p) => {
            // A prefix that is no longer for addresses is taken back as one for addresses.
            p.on_link = false;
            p.prefer_delegation = false;
        }
        NdOption::Route(r) => r.preference = Preference::Medium,
        _ => {}
    }
    subject
}

fn options_of_port(config: &PortConfig) -> Vec<NdOption> {
    let mut options = vec![
        NdOption::SourceLinkLayer(config.host_mac),
        NdOption::Mtu(u32::from(config.mtu)),
    ];
    options.extend(prefixes(config).map(NdOption::Prefix));
    options.extend(routes(config).map(NdOption::Route));
    let lifetime_secs = u32::from(ROUTER_LIFETIME_SECS);
    let servers: Vec<Ipv6Addr> = config.dns_servers_v6().collect();
    if !servers.is_empty() {
        options.push(NdOption::Rdnss {
            lifetime_secs,
            servers,
        });
    }
    let domains = config.search_list();
    if !domains.is_empty() {
        options.push(NdOption::Dnssl {
            lifetime_secs,
            domains,
        });
    }
    let pref64 = config.advertise.as_ref().and_then(|a| a.pref64);
    options.extend(pref64.map(|prefix| NdOption::Pref64 {
        lifetime_secs: ROUTER_LIFETIME_SECS,
        prefix,
    }));
    options
}

fn prefixes(config: &PortConfig) -> impl Iterator<Item = PrefixInformation> + '_ {
    config
        .ipv6
        .iter()
        .filter(|subnet| subnet.mode != Ipv6Mode::None)
        .map(|subnet| PrefixInformation {
            prefix: subnet.prefix,
            on_link: subnet.on_link,
            autonomous: subnet.mode != Ipv6Mode::Dhcpv6Stateful,
            prefer_delegation: subnet.prefer_delegation,
            valid_lifetime_secs: subnet.valid_lifetime_secs,
            preferred_lifetime_secs: subnet.preferred_lifetime_secs,
        })
}

fn routes(config: &PortConfig) -> impl Iterator<Item = RouteInformation> + '_ {
    let advertise = config.advertise.iter();
    advertise.flat_map(|advertise| {
        advertise
            .routes
            .iter()
            .map(|prefix: &Prefix| RouteInformation {
                prefix: *prefix,
                preference: advertise.preference,
                lifetime_secs: u32::from(ROUTER_LIFETIME_SECS),
            })
    })
}

#[cfg(test)]
mod tests;
