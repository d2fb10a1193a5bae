//! How datagrams get to somebody.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where somebody is heard, and by what: `192.0.2.1:6697` by UDP, `tls:192.0.2.1:443` by a stream of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Way {
    /// Datagrams as they are.
    Udp(SocketAddr),
    /// Datagrams one behind the other in a stream, where nothing else is let through.
    Tls(SocketAddr),
}

/// A text that is no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to anybody: ADDRESS:PORT or tls:ADDRESS:PORT")]
pub struct WayError(String);

const TLS: &str = "tls:";

impl Way {
    /// Where that is, by whatever.
    pub const fn address(self) -> SocketAddr {
        match self {
            Way::Udp(address) | Way::Tls(address) => address,
        }
    }

    /// The address, if it is of UDP.
    pub const fn udp(self) -> Option<SocketAddr> {
        match self {
            Way::Udp(address) => Some(address),
            Way::Tls(_) => None,
        }
    }

    /// The address, if a stream leads there.
    pub const fn tls(self) -> Option<SocketAddr> {
        match self {
            Way::Udp(_) => None,
            Way::Tls(address) => Some(address),
        }
    }
}

impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Way {
        Way::Udp(address)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Udp(address) => address.fmt(f),
            Way::Tls(address) => write!(f, "{TLS}{address}"),
        }
    }
}

impl FromStr for Way {
    type Err = WayError;

    fn from_str(text: &str) -> Result<Way, WayError> {
        let way = match text.strip_prefix(TLS) {
            Some(address) => address.parse().map(Way::Tls),
            None => text.parse().map(Way::Udp),
        };
        way.map_err(|_| WayError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Way {
    type Error = WayError;

    fn try_from(text: String) -> Result<Way, WayError> {
        text.parse()
    }
}

impl From<Way> for String {
    fn from(way: Way) -> String {
        way.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_as_it_was_written_and_nothing_else_is() {
        for text in [
            "192.0.2.1:6697",
            "[2001:db8::1]:6697",
            "tls:192.0.2.1:443",
            "tls:[2001:db8::1]:443",
        ] {
            let way: Way = text.parse().unwrap();
            assert_eq!(way.to_string(), text);
            assert_eq!(way.tls().is_some(), text.starts_with(TLS));
            assert_ne!(way.tls().is_some(), way.udp().is_some());
            let json = serde_json::to_string(&way).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Way>(&json).unwrap(), way);
        }
        for text in [
            "",
            "tls:",
            "tls:tls:192.0.2.1:1",
            "TLS:192.0.2.1:1",
            "tls:192.0.2.1",
        ] {
            assert!(text.parse::<Way>().is_err(), "{text}");
        }
    }
}
