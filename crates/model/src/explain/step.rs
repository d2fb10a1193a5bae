//! What happens to a packet, in words.

use std::{fmt, net::IpAddr};

use hextet_types::{HostId, IfName, Mac, Prefix, RouterId, SecurityGroupId, SecurityGroupRuleId};
use serde::{Deserialize, Serialize};

use crate::{
    plan::why,
    state::{ChainName, Hook, NatRange},
};

/// A stretch of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It comes in by this link; none for what the host itself sends.
    Arrives(Option<IfName>),
    /// It is handed to its port in this network namespace: the private network's.
    Enters(String),
    /// It comes to a router, in this network namespace of its own.
    Router {
        /// The router.
        id: RouterId,
        /// Its name, or empty.
        name: String,
        /// The namespace.
        netns: String,
    },
    /// The router has an extra route for it.
    ExtraRoute {
        /// For these destinations.
        destination: Prefix,
        /// By way of these; of several, one.
        nexthops: Vec<IpAddr>,
    },
    /// Its sender has asked for a next hop.
    NextHop {
        /// The next hop.
        via: IpAddr,
        /// Whose Ethernet address was the answer; none where it was the gateway's.
        mac: Option<Mac>,
    },
    /// A copy of it goes to one who shares addresses with its sender.
    Copied {
        /// By this link.
        link: IfName,
        /// To that host, whose business the receivers there are; none for a port here.
        host: Option<HostId>,
    },
    /// Here the way begins of the copy for one who has joined the group that it is for.
    Cast {
        /// Whom it goes to.
        listener: IpAddr,
    },
    /// A rule decides.
    Rule(RuleStep),
    /// A route leads on.
    Route {
        /// The route; none where the uplink is taken for want of any.
        prefix: Option<Prefix>,
        /// By this link; none for a black hole.
        link: Option<IfName>,
    },
    /// Its source becomes one of these.
    Translates(NatRange),
    /// Its destination becomes this.
    Redirects {
        /// The address.
        to: IpAddr,
        /// The port, where it becomes another.
        port: Option<u16>,
    },
    /// Where it goes is the router's gateway host, which translates it.
    GatewayHost,
    /// It goes over VXLAN to another host.
    Tunnels {
        /// The network's number on the wire (RFC 7348 §5).
        vni: u32,
        /// Where the host is.
        to: IpAddr,
        /// The host, where it is known by name.
        #[serde(default)]
        host: Option<HostId>,
    },
}

/// A rule that ends a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStep {
    /// On this hook.
    pub hook: Hook,
    /// In this chain.
    pub chain: ChainName,
    /// The rule in the nft language.
    pub rule: String,
    /// The group, where it is one that allows the packet.
    #[serde(default)]
    pub group: Option<SecurityGroupId>,
    /// The group's rules that allow it.
    #[serde(default)]
    pub group_rules: Vec<SecurityGroupRuleId>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A workload gets it, by this link.
    Delivered {
        /// The port's interface.
        link: IfName,
    },
    /// It goes out to the fabric.
    Leaves {
        /// By this link, where one is known.
        link: Option<IfName>,
        /// With a source out of these.
        translated: Option<NatRange>,
    },
    /// The host itself gets it.
    Host,
    /// A router itself gets it.
    Router(RouterId),
    /// Nobody gets it.
    Dropped(Reason),
}

/// Why a packet is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The link is down, or nobody's.
    LinkDown,
    /// The port's edge lets no neighbour discovery and no group membership through.
    Edge,
    /// The source is none that the port may use.
    Spoofed,
    /// It has no source, and is for the agent alone.
    ForAgent,
    /// An interface that is named like a port and that no plan knows.
    UnknownPort,
    /// The port's program does not stand.
    NoProgram,
    /// Its source was not checked: our rules are gone, or were not there yet.
    Unchecked,
    /// No rule admitted it to the port, or from a port to the host.
    NotAdmitted,
    /// A redirect.
    Redirect,
    /// Neighbour discovery on its way elsewhere.
    Discovery,
    /// For a DHCP client that has not asked.
    DhcpClient,
    /// A link-local source on its way elsewhere.
    LinkLocal,
    /// It belongs to no connection.
    Invalid,
    /// An ICMP error about packets that were never for its sender.
    ForeignError,
    /// The host's services are not for workloads.
    HostService,
    /// No group of the sending port allows it.
    EgressNotAllowed,
    /// No group of the receiving port allows it.
    IngressNotAllowed,
    /// It comes from outside the cloud and goes to a private address.
    Private,
    /// An ICMP error of the host, which has sent as many as it may.
    TooManyErrors,
    /// The host has no source address to translate to.
    NoNatSource,
    /// Its source is no public address of the router that it comes from, or its destination none of the one that it
    /// comes to.
    NotPublic,
    /// A tunnel packet that no known host sent to this one.
    UnknownEndpoint,
    /// It came by a tunnel with a source that lives here.
    LocalSource,
    /// The route is a black hole.
    Blackhole,
    /// There is no route.
    NoRoute,
    /// It goes round in circles until its hops are spent.
    Loop,
    /// A rule that this list does not know, by its comment.
    Other(String),
}

impl Reason {
    /// The reason of a rule that drops, by its chain and comment.
    pub(super) fn of_rule(chain: &ChainName, comment: Option<&str>) -> Reason {
        match comment.unwrap_or_default() {
            why::SPOOFED => Reason::Spoofed,
            why::FOR_AGENT => Reason::ForAgent,
            why::UNKNOWN_PORT => Reason::UnknownPort,
            why::NO_PROGRAM => Reason::NoProgram,
            why::NO_PROFILE => Reason::NotAdmitted,
            why::REDIRECT => Reason::Redirect,
            why::DISCOVERY => Reason::Discovery,
            why::DHCP => Reason::DhcpClient,
            why::LINK_LOCAL => Reason::LinkLocal,
            why::INVALID => Reason::Invalid,
            why::FOREIGN => Reason::ForeignError,
            why::HOST => Reason::HostService,
            why::NOT_ALLOWED if chain.0.starts_with("pe-") => Reason::EgressNotAllowed,
            why::NOT_ALLOWED => Reason::IngressNotAllowed,
            why::PRIVATE => Reason::Private,
            why::TOO_MANY_ERRORS => Reason::TooManyErrors,
            why::NO_SOURCE => Reason::NoNatSource,
            why::NOT_PUBLIC => Reason::NotPublic,
            why::UNKNOWN_ENDPOINT => Reason::UnknownEndpoint,
            why::LOCAL_SOURCE => Reason::LocalSource,
            other => Reason::Other(other.to_owned()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Reason::LinkDown => "the port's link is down",
            Reason::Edge => "discovery and group membership stay at the port",
            Reason::Spoofed => "the port may not use that source",
            Reason::ForAgent => "without a source it is for the agent alone",
            Reason::UnknownPort => why::UNKNOWN_PORT,
            Reason::NoProgram => why::NO_PROGRAM,
            Reason::Unchecked => "its source was not checked",
            Reason::NotAdmitted => "nothing admitted it",
            Reason::Redirect => why::REDIRECT,
            Reason::Discovery => why::DISCOVERY,
            Reason::DhcpClient => why::DHCP,
            Reason::LinkLocal => why::LINK_LOCAL,
            Reason::Invalid => "it belongs to no connection",
            Reason::ForeignError => why::FOREIGN,
            Reason::HostService => why::HOST,
            Reason::EgressNotAllowed => "no security group of the sending port allows it",
            Reason::IngressNotAllowed => "no security group of the receiving port allows it",
            Reason::Private => why::PRIVATE,
            Reason::TooManyErrors => why::TOO_MANY_ERRORS,
            Reason::NoNatSource => "the host has no source address to translate to",
            Reason::NotPublic => why::NOT_PUBLIC,
            Reason::UnknownEndpoint => why::UNKNOWN_ENDPOINT,
            Reason::LocalSource => why::LOCAL_SOURCE,
            Reason::Blackhole => "nobody in the cloud has that address",
            Reason::NoRoute => "there is no route",
            Reason::Loop => "it goes round in circles until its hops are spent",
            Reason::Other(text) => text,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Delivered { link } => write!(f, "delivered by {link}"),
            Outcome::Leaves { link, translated } => {
                match link {
                    Some(link) => write!(f, "leaves by {link}")?,
                    None => f.write_str("leaves by an uplink")?,
                }
                translated
                    .iter()
                    .try_for_each(|range| write!(f, " as {}", Range(range)))
            }
            Outcome::Host => f.write_str("reaches the host itself"),
            Outcome::Router(id) => write!(f, "reaches router {id} itself"),
            Outcome::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

struct Range<'a>(&'a NatRange);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NatRange { first, last } = self.0;
        if *self.0 == NatRange::OF_LINK {
            return f.write_str("the host's own address on the link");
        }
        match first == last {
            true => write!(f, "{first}"),
            false => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::NextHop {
                via,
                mac: Some(mac),
            } => write!(f, "next hop {via} has its own Ethernet address here, {mac}"),
            Step::NextHop { via, mac: None } => {
                write!(f, "for next hop {via} the gateway answers")
            }
            Step::Copied {
                link,
                host: Some(host),
            } => write!(
                f,
                "copied by {link} to host {host}, for those who share there"
            ),
            Step::Cast { listener } => write!(f, "a copy for {listener}, who has joined the group"),
            Step::Copied { link, host: None } => write!(f, "copied to {link}"),
            Step::Arrives(Some(link)) => write!(f, "arrives by {link}"),
            Step::Arrives(None) => f.write_str("comes from the host itself or an uplink"),
            Step::Enters(netns) => write!(f, "enters network namespace {netns}"),
            Step::Router { id, name, netns } => {
                f.write_str("enters router ")?;
                if !name.is_empty() {
                    write!(f, "{name}, ")?;
                }
                write!(f, "{id}, in network namespace {netns}")
            }
            Step::ExtraRoute {
                destination,
                nexthops,
            } => {
                write!(f, "extra route {destination} of the router")?;
                let mut word = " by way of ";
                for hop in nexthops {
                    write!(f, "{word}{hop}")?;
                    word = " or ";
                }
                Ok(())
            }
            Step::Rule(step) => step.fmt(f),
            Step::Route { prefix, link } => {
                match prefix {
                    Some(prefix) => write!(f, "route {prefix}")?,
                    None => f.write_str("no route of ours")?,
                }
                match link {
                    Some(link) => write!(f, " by {link}"),
                    None if prefix.is_some() => f.write_str(" drops"),
                    None => f.write_str(", by an uplink"),
                }
            }
            Step::Translates(range) => write!(f, "source becomes {}", Range(range)),
            Step::Redirects { to, port: None } => write!(f, "destination becomes {to}"),
            Step::Redirects {
                to,
                port: Some(port),
            } => write!(f, "destination becomes {to} port {port}"),
            Step::GatewayHost => {
                f.write_str("that is the router's gateway host, which translates it")
            }
            Step::Tunnels { vni, to, host } => match host {
                Some(host) => write!(f, "over VXLAN {vni} to host {host} ({to})"),
                None => write!(f, "over VXLAN {vni} to {to}"),
            },
        }
    }
}

impl fmt::Display for RuleStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {}: {}", self.chain, self.rule)?;
        if let Some(group) = self.group {
            write!(f, " (security group {group}")?;
            for rule in &self.group_rules {
                write!(f, ", rule {rule}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
