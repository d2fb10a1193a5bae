//! What a port's workload shall be told: data that a planner makes and compares, nothing else.
//!
//! A [`PortConfig`] can be anything until [`PortConfig::check`] has passed; the responder takes no
//! other. Every list has a bound, so that what a port costs is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Mac, Prefix};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    domain::DomainName,
    nd::{NdOption, Preference},
    options::ExtraOption,
};

/// Subnets of each family on one port.
pub const MAX_SUBNETS: usize = 16;
/// DNS servers of one subnet.
pub const MAX_DNS_SERVERS: usize = 8;
/// Routes of one IPv4 subnet, and routes in router advertisements.
pub const MAX_ROUTES: usize = 64;
/// Domains of the search list.
pub const MAX_SEARCH_DOMAINS: usize = 8;
/// Octets of the search list on the wire, so that it fits a packet.
pub const MAX_SEARCH_OCTETS: usize = 1_000;
/// IPv6 DNS servers that a port is told of; those of later subnets are left out.
pub const MAX_DNS_SERVERS_TOLD: usize = 16;
/// NTP servers.
pub const MAX_NTP_SERVERS: usize = 8;
/// Delegated prefixes.
pub const MAX_DELEGATIONS: usize = 8;
/// `extra_dhcp_opts`.
pub const MAX_EXTRA_OPTIONS: usize = 64;

/// The host's end of every port's link.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// By which address a DHCPv4 server calls itself on a subnet without a gateway.
pub const SERVER_WITHOUT_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

const fn link_local() -> Ipv6Addr {
    LINK_LOCAL
}

const fn valid_lifetime() -> u32 {
    2_592_000
}

const fn preferred_lifetime() -> u32 {
    604_800
}

const fn lease() -> u32 {
    86_400
}

/// All that one port's workload is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Ethernet address of the host's end.
    pub host_mac: Mac,
    /// The workload's Ethernet address; nobody else is answered.
    pub guest_mac: Mac,
    /// Link-local address of the host's end, from which advertisements and DHCPv6 come.
    #[serde(default = "link_local")]
    pub link_local: Ipv6Addr,
    /// The link's MTU in octets: at least 1,280 (RFC 8200 §5).
    pub mtu: u16,
    /// The workload's name, for DHCPv4 option 12.
    #[serde(default)]
    pub hostname: Option<DomainName>,
    /// Its domain; the first of the search list.
    #[serde(default)]
    pub dns_domain: Option<DomainName>,
    /// More domains to search.
    #[serde(default)]
    pub dns_search: Vec<DomainName>,
    /// NTP servers of both families.
    #[serde(default)]
    pub ntp_servers: Vec<IpAddr>,
    /// What router advertisements say beyond the subnets; none are sent where there is nothing here.
    #[serde(default)]
    pub advertise: Option<Advertise>,
    /// Its IPv6 subnets.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Subnet>,
    /// Prefixes for it to hand on, by DHCPv6 (RFC 8415 §6.3).
    #[serde(default)]
    pub delegated: Vec<Delegation>,
    /// Its IPv4 subnets; a DHCPv4 client that asks for none of the addresses gets the first.
    #[serde(default)]
    pub ipv4: Vec<Ipv4Subnet>,
    /// Seconds for which a client that can do without IPv4 may do so (RFC 8925, option 108).
    #[serde(default)]
    pub ipv6_only_wait_secs: Option<u32>,
    /// Neutron's `extra_dhcp_opts`.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<ExtraOption>,
}

/// What router advertisements say beyond the subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    /// We are a default router.
    pub default_router: bool,
    /// Compared with other routers, for the default route and all others.
    #[serde(default)]
    pub preference: Preference,
    /// More routes by way of us (RFC 4191 §2.3).
    #[serde(default)]
    pub routes: Vec<Prefix>,
    /// The prefix of the NAT64 translator (RFC 8781).
    #[serde(default)]
    pub pref64: Option<Prefix>,
}

/// How addresses of an IPv6 subnet come to the workload (Neutron's `ipv6_address_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// By somebody else, or by hand: the subnet is not spoken of.
    None,
    /// SLAAC, and nothing by DHCPv6.
    Slaac,
    /// SLAAC, and everything else by DHCPv6.
    Dhcpv6Stateless,
    /// DHCPv6.
    Dhcpv6Stateful,
}

/// An IPv6 subnet on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv6Subnet {
    /// Its prefix; of 64 bits where the mode has SLAAC.
    pub prefix: Prefix,
    /// How addresses come.
    pub mode: Ipv6Mode,
    /// The port's address in it; handed out in the stateful mode.
    #[serde(default)]
    pub address: Option<Ipv6Addr>,
    /// In order of preference.
    #[serde(default)]
    pub dns_servers: Vec<Ipv6Addr>,
    /// Whether its addresses are reached without us; on a point-to-point link they never are.
    #[serde(default)]
    pub on_link: bool,
    /// Whether the workload had better ask for a prefix of its own (RFC 9762).
    #[serde(default)]
    pub prefer_delegation: bool,
    /// Of prefix and address; not less than the preferred one.
    #[serde(default = "valid_lifetime")]
    pub valid_lifetime_secs: u32,
    /// Of prefix and address. A DHCPv6 client renews after half of it.
    #[serde(default = "preferred_lifetime")]
    pub preferred_lifetime_secs: u32,
}

impl Ipv6Subnet {
    /// A subnet with the lifetimes of RFC 4861 §6.2.1, off-link, without DNS servers.
    pub const fn new(prefix: Prefix, mode: Ipv6Mode, address: Option<Ipv6Addr>) -> Self {
        Ipv6Subnet {
            prefix,
            mode,
            address,
            dns_servers: Vec::new(),
            on_link: false,
            prefer_delegation: false,
            valid_lifetime_secs: valid_lifetime(),
            preferred_lifetime_secs: preferred_lifetime(),
        }
    }
}

/// A prefix for the workload to hand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The prefix.
    pub prefix: Prefix,
    /// Not less than the preferred one.
    #[serde(default = "valid_lifetime")]
    pub valid_lifetime_secs: u32,
    /// The client renews after half of it.
    #[serde(default = "preferred_lifetime")]
    pub preferred_lifetime_secs: u32,
}

impl Delegation {
    /// Of a prefix, for as long as other things last.
    pub fn new(prefix: Prefix) -> Delegation {
        Delegation {
            prefix,
            valid_lifetime_secs: valid_lifetime(),
            preferred_lifetime_secs: preferred_lifetime(),
        }
    }
}

/// An IPv4 subnet on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv4Subnet {
    /// The port's address in it.
    pub address: Ipv4Addr,
    /// Its prefix; clients are given its own mask.
    pub prefix: Prefix,
    /// The default router, which may lie outside the prefix; no default route without one.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// In order of preference.
    #[serde(default)]
    pub dns_servers: Vec<Ipv4Addr>,
    /// More routes (Neutron's `host_routes`).
    #[serde(default)]
    pub host_routes: Vec<HostRoute>,
    /// For how long a client may keep the address without asking again; at least 60.
    #[serde(default = "lease")]
    pub lease_secs: u32,
}

impl Ipv4Subnet {
    /// A subnet with a lease of a day, without gateway, DNS servers and routes.
    pub const fn new(address: Ipv4Addr, prefix: Prefix) -> Self {
        Ipv4Subnet {
            address,
            prefix,
            gateway: None,
            dns_servers: Vec::new(),
            host_routes: Vec::new(),
            lease_secs: lease(),
        }
    }

    /// The address by which the DHCPv4 server is known on it.
    pub fn server(&self) -> Ipv4Addr {
        self.gateway.unwrap_or(SERVER_WITHOUT_GATEWAY)
    }
}

/// A route that DHCPv4 clients are told (option 121).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRoute {
    /// Where to; IPv4.
    pub destination: Prefix,
    /// By way of; `0.0.0.0` is the link itself (RFC 3442).
    pub nexthop: Ipv4Addr,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A list is longer than its bound.
    #[error("a port has {given} {what}, {most} is the most: remove some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many.
        given: usize,
        /// Its bound.
        most: usize,
    },
    /// A MAC address that belongs to a group.
    #[error("{0} is the address of a group and cannot be a port's MAC address")]
    GroupMac(Mac),
    /// The host's end needs an address of fe80::/10.
    #[error("{0} is no link-local address: the host's end of a port needs one, as fe80::1")]
    LinkLocal(Ipv6Addr),
    /// Below what IPv6 needs.
    #[error("MTU {0} is too small: IPv6 needs 1280")]
    Mtu(u16),
    /// A prefix of the other family, or with a length that its use does not allow.
    #[error("prefix {prefix} cannot be used as {what}: {needed}")]
    Prefix {
        /// The prefix.
        prefix: Prefix,
        /// For this.
        what: &'static str,
        /// What is needed.
        needed: &'static str,
    },
    /// An address outside its subnet.
    #[error("address {address} is not in its subnet {prefix}")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        prefix: Prefix,
    },
    /// A lifetime that makes no sense.
    #[error("{prefix}: {problem}")]
    Lifetime {
        /// Of which prefix.
        prefix: Prefix,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two extra options with the same code and family.
    #[error("extra_dhcp_opts: option {code} for {family} is given twice: keep one of them")]
    Duplicate {
        /// The option.
        code: u16,
        /// Its family.
        family: Family,
    },
}

const SHORT_LIFETIME: &str = "the preferred lifetime is longer than the valid one: shorten it";
const SHORT_LEASE: &str = "a lease is at least 60 seconds";

impl PortConfig {
    /// Whether it can be used.
    ///
    /// # Errors
    ///
    /// What has to be changed first.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_bounds()?;
        for mac in [self.host_mac, self.guest_mac] {
            if mac.is_multicast() {
                return Err(ConfigError::GroupMac(mac));
            }
        }
        if !self.link_local.is_unicast_link_local() {
            return Err(ConfigError::LinkLocal(self.link_local));
        }
        if self.mtu < 1_280 {
            return Err(ConfigError::Mtu(self.mtu));
        }
        self.advertise.iter().try_for_each(Advertise::check)?;
        self.ipv6.iter().try_for_each(Ipv6Subnet::check)?;
        self.ipv4.iter().try_for_each(Ipv4Subnet::check)?;
        for d in &self.delegated {
            require(d.prefix, Family::V6, "a delegated prefix")?;
            check_lifetimes(d.prefix, d.preferred_lifetime_secs, d.valid_lifetime_secs)?;
        }
        self.check_extra_options()
    }

    /// DNS servers of all IPv6 subnets that are spoken of, each once, in order, at most
    /// [`MAX_DNS_SERVERS_TOLD`].
    pub fn dns_servers_v6(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        let spoken_of = || self.ipv6.iter().filter(|s| s.mode != Ipv6Mode::None);
        let all = move || spoken_of().flat_map(|s| s.dns_servers.iter().copied());
        all()
            .enumerate()
            .filter(move |(i, server)| !all().take(*i).any(|earlier| earlier == *server))
            .map(|(_, server)| server)
            .take(MAX_DNS_SERVERS_TOLD)
    }

    /// Its domain and the others to search, each once, in order.
    pub fn search_list(&self) -> Vec<DomainName> {
        let mut list: Vec<DomainName> = Vec::new();
        for domain in self.dns_domain.iter().chain(&self.dns_search) {
            if !list.contains(domain) {
                list.push(domain.clone());
            }
        }
        list
    }

    fn check_bounds(&self) -> Result<(), ConfigError> {
        let advertised = self.advertise.as_ref().map_or(0, |a| a.routes.len());
        let search_list = self.search_list();
        let search_octets = search_list.iter().map(DomainName::encoded_len).sum();
        for (what, given, most) in [
            ("IPv4 subnets", self.ipv4.len(), MAX_SUBNETS),
            ("IPv6 subnets", self.ipv6.len(), MAX_SUBNETS),
            ("search domains", self.dns_search.len(), MAX_SEARCH_DOMAINS),
            ("octets of search domains", search_octets, MAX_SEARCH_OCTETS),
            ("NTP servers", self.ntp_servers.len(), MAX_NTP_SERVERS),
            ("delegated prefixes", self.delegated.len(), MAX_DELEGATIONS),
            ("advertised routes", advertised, MAX_ROUTES),
            (
                "extra DHCP options",
                self.extra_dhcp_opts.len(),
                MAX_EXTRA_OPTIONS,
            ),
        ] {
            at_most(what, given, most)?;
        }
        for subnet in &self.ipv6 {
            at_most("DNS servers", subnet.dns_servers.len(), MAX_DNS_SERVERS)?;
        }
        for subnet in &self.ipv4 {
            at_most("DNS servers", subnet.dns_servers.len(), MAX_DNS_SERVERS)?;
            at_most("host routes", subnet.host_routes.len(), MAX_ROUTES)?;
        }
        Ok(())
    }

    fn check_extra_options(&self) -> Result<(), ConfigError> {
        for (i, option) in self.extra_dhcp_opts.iter().enumerate() {
            let (code, family) = (option.code(), option.family());
            let same = |o: &ExtraOption| o.code() == code && o.family() == family;
            if self.extra_dhcp_opts.iter().skip(i + 1).any(same) {
                return Err(ConfigError::Duplicate { code, family });
            }
        }
        Ok(())
    }
}

impl Advertise {
    fn check(&self) -> Result<(), ConfigError> {
        for route in &self.routes {
            require(*route, Family::V6, "an advertised route")?;
        }
        match self.pref64 {
            Some(prefix) if !NdOption::is_pref64_len(prefix.len()) => Err(ConfigError::Prefix {
                prefix,
                what: "the NAT64 prefix",
                needed: "its length is 96, 64, 56, 48, 40 or 32 (RFC 6052)",
            }),
            Some(prefix) => require(prefix, Family::V6, "the NAT64 prefix"),
            None => Ok(()),
        }
    }
}

impl Ipv6Subnet {
    fn check(&self) -> Result<(), ConfigError> {
        require(self.prefix, Family::V6, "an IPv6 subnet")?;
        let slaac = matches!(self.mode, Ipv6Mode::Slaac | Ipv6Mode::Dhcpv6Stateless);
        if slaac && self.prefix.len() != 64 {
            return Err(ConfigError::Prefix {
                prefix: self.prefix,
                what: "a SLAAC subnet",
                needed: "SLAAC needs 64 bits (RFC 4862 §5.5.3): use dhcpv6-stateful",
            });
        }
        if let Some(address) = self.address {
            inside(address.into(), self.prefix)?;
        }
        check_lifetimes(
            self.prefix,
            self.preferred_lifetime_secs,
            self.valid_lifetime_secs,
        )
    }
}

impl Ipv4Subnet {
    fn check(&self) -> Result<(), ConfigError> {
        require(self.prefix, Family::V4, "an IPv4 subnet")?;
        inside(self.address.into(), self.prefix)?;
        for route in &self.host_routes {
            require(route.destination, Family::V4, "a host route")?;
        }
        if self.lease_secs < 60 {
            return Err(ConfigError::Lifetime {
                prefix: self.prefix,
                problem: SHORT_LEASE,
            });
        }
        Ok(())
    }
}

fn at_most(what: &'static str, given: usize, most: usize) -> Result<(), ConfigError> {
    if given > most {
        return Err(ConfigError::TooMany { what, given, most });
    }
    Ok(())
}

fn require(prefix: Prefix, family: Family, what: &'static str) -> Result<(), ConfigError> {
    if prefix.family() == family {
        return Ok(());
    }
    let needed = match family {
        Family::V4 => "it has to be IPv4",
        Family::V6 => "it has to be IPv6",
    };
    Err(ConfigError::Prefix {
        prefix,
        what,
        needed,
    })
}

fn inside(address: IpAddr, prefix: Prefix) -> Result<(), ConfigError> {
    if prefix.contains(address) {
        Ok(())
    } else {
        Err(ConfigError::Outside { address, prefix })
    }
}

const fn check_lifetimes(prefix: Prefix, preferred: u32, valid: u32) -> Result<(), ConfigError> {
    if preferred > valid {
        return Err(ConfigError::Lifetime {
            prefix,
            problem: SHORT_LIFETIME,
        });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
