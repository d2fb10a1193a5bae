//! Neutron's `extra_dhcp_opts`: an option by name or number, its value as text, and a family.
//!
//! Names and value syntax are dnsmasq's, because that is what Neutron's users have learnt. A value is
//! checked when it is parsed, so that a port never has an option that cannot be sent. An empty value
//! takes an option away that would be sent otherwise.

mod name;
mod value;

use std::net::Ipv4Addr;

use hextet_types::Family;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use name::Kind;
pub(crate) use value::encode_route;

/// Pseudo option (255, the end mark, as in dnsmasq): the `siaddr` of DHCPv4 answers.
const SERVER_IP_ADDRESS: u16 = 255;

/// One of a port's `extra_dhcp_opts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct ExtraOption {
    text: Text,
    family: Family,
    code: u16,
    data: Vec<u8>,
}

/// As Neutron has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    opt_name: String,
    opt_value: String,
    ip_version: u8,
}

/// Why an extra option cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExtraOptionError {
    /// Neither 4 nor 6.
    #[error("extra_dhcp_opts: ip_version {0} is neither 4 nor 6")]
    IpVersion(u8),
    /// Neither a name that is known nor a number.
    #[error(
        "extra_dhcp_opts: '{name}' is no {family} DHCP option: use its name as in \
         `dnsmasq --help dhcp{six}`, or its number",
        six = if *.family == Family::V6 { "6" } else { "" }
    )]
    Name {
        /// As given.
        name: String,
        /// For this family.
        family: Family,
    },
    /// An option that the protocol itself uses.
    #[error(
        "extra_dhcp_opts: {family} DHCP option {code} ({name}) is the protocol's own: remove it"
    )]
    Protocol {
        /// As given.
        name: String,
        /// Its number.
        code: u16,
        /// For this family.
        family: Family,
    },
    /// A value that is not of the option's type.
    #[error("extra_dhcp_opts: '{value}' is no value for {name}: it needs {needed}")]
    Value {
        /// The option as given.
        name: String,
        /// As given.
        value: String,
        /// What its type looks like.
        needed: &'static str,
    },
    /// More than an answer has room for.
    #[error("extra_dhcp_opts: the value of {name} has {len} octets, 255 is the most: shorten it")]
    TooLong {
        /// The option as given.
        name: String,
        /// Its octets.
        len: usize,
    },
}

impl ExtraOption {
    /// The option that Neutron's three attributes describe.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for the one who gave it.
    pub fn parse(
        opt_name: &str,
        opt_value: &str,
        ip_version: u8,
    ) -> Result<Self, ExtraOptionError> {
        let family = match ip_version {
            4 => Family::V4,
            6 => Family::V6,
            other => return Err(ExtraOptionError::IpVersion(other)),
        };
        let (code, kind) = name::find(opt_name, family).ok_or_else(|| ExtraOptionError::Name {
            name: opt_name.to_owned(),
            family,
        })?;
        if kind == Kind::Protocol {
            return Err(ExtraOptionError::Protocol {
                name: opt_name.to_owned(),
                code,
                family,
            });
        }
        let wrong = |needed| ExtraOptionError::Value {
            name: opt_name.to_owned(),
            value: opt_value.to_owned(),
            needed,
        };
        let data = value::encode(kind, opt_value.trim(), family).map_err(wrong)?;
        if data.len() > 255 {
            return Err(ExtraOptionError::TooLong {
                name: opt_name.to_owned(),
                len: data.len(),
            });
        }
        Ok(ExtraOption {
            text: Text {
                opt_name: opt_name.to_owned(),
                opt_value: opt_value.to_owned(),
                ip_version,
            },
            family,
            code,
            data,
        })
    }

    /// For which family's DHCP it is.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Its number in that DHCP.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// What is sent behind code and length; nothing takes the option away.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The `siaddr` of DHCPv4 answers, if it is the one that says it.
    pub(crate) fn next_server(&self) -> Option<Ipv4Addr> {
        let octets = self.data.first_chunk::<4>()?;
        (self.family == Family::V4 && self.code == SERVER_IP_ADDRESS)
            .then(|| Ipv4Addr::from(*octets))
    }
}

impl TryFrom<Text> for ExtraOption {
    type Error = ExtraOptionError;

    fn try_from(text: Text) -> Result<Self, ExtraOptionError> {
        ExtraOption::parse(&text.opt_name, &text.opt_value, text.ip_version)
    }
}

impl From<ExtraOption> for Text {
    fn from(option: ExtraOption) -> Text {
        option.text
    }
}

#[cfg(test)]
mod tests;
