//! How somebody is let in: `https://HOST:PORT#TOKEN.HASH`. The hash is of the registry's key, so that no third party vouches for it; the
//! token counts once. Without a token (`#.HASH`) it is where one asks to be let in.

use std::{fmt, net::IpAddr, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use thiserror::Error;

/// Octets in the longest URL.
pub const URL_MAX_LEN: usize = 128;
/// Octets of a token.
pub const SECRET_LEN: usize = 24;
/// The port of a URL that names none.
pub const DEFAULT_PORT: u16 = 443;

/// What is wrong with an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadInvitation {
    /// The part before `#`.
    #[error(
        "a registry's URL is https://HOST or https://HOST:PORT, of at most {URL_MAX_LEN} octets"
    )]
    Url,
    /// The token.
    #[error("the token between '#' and '.' is damaged: copy it as a whole")]
    Token,
    /// The hash.
    #[error("the hash behind '.' is damaged: copy the invitation as a whole")]
    Hash,
}

/// SHA-256 of a registry's key, as its certificate has it (SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a key in DER.
    pub fn of(key_info: &[u8]) -> Self {
        Pin(sha256(key_info))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = BadInvitation;

    fn from_str(text: &str) -> Result<Self, BadInvitation> {
        octets(text).map(Pin).ok_or(BadInvitation::Hash)
    }
}

/// A token. It is a secret, and not printed but by [`Secret::text`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_LEN]);

impl Secret {
    /// To be handed to whom it is for.
    pub fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What a registry keeps of it.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a registry listens; checked, and written in one way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryUrl {
    text: String,
    host: String,
    port: u16,
}

impl RegistryUrl {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for RegistryUrl {
    type Err = BadInvitation;

    fn from_str(text: &str) -> Result<Self, BadInvitation> {
        let bad = BadInvitation::Url;
        let authority = text.strip_prefix("https://").ok_or(bad)?;
        if text.len() > URL_MAX_LEN {
            return Err(bad);
        }
        let (host, rest) = match authority.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or(bad)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let address = host.parse::<IpAddr>();
        let named =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let good = match authority.starts_with('[') {
            true => matches!(address, Ok(IpAddr::V6(_))),
            false => !host.is_empty() && host.bytes().all(named),
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => digits.parse::<u16>().map_err(|_| bad)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return Err(bad),
        };
        let once = rest.is_empty() || rest == format!(":{port}");
        if !good || !once || port == 0 {
            return Err(bad);
        }
        Ok(RegistryUrl {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where to ask, what to know it by, and what to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The registry.
    pub url: RegistryUrl,
    /// The hash of its key.
    pub pin: Pin,
    /// Counts once; without it somebody has to approve, or the registry lets everybody in.
    pub token: Option<Secret>,
}

impl Invitation {
    /// As it is handed over; it holds the token.
    pub fn text(&self) -> String {
        let token = self.token.as_ref().map(Secret::text).unwrap_or_default();
        format!("{}#{token}.{}", self.url, self.pin)
    }
}

impl FromStr for Invitation {
    type Err = BadInvitation;

    fn from_str(text: &str) -> Result<Self, BadInvitation> {
        let (url, fragment) = text.split_once('#').ok_or(BadInvitation::Url)?;
        let (token, hash) = fragment.split_once('.').ok_or(BadInvitation::Hash)?;
        let token = match token {
            "" => None,
            token => Some(Secret(octets(token).ok_or(BadInvitation::Token)?)),
        };
        Ok(Invitation {
            url: url.parse()?,
            pin: hash.parse()?,
            token,
        })
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, octets);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Four characters hold three octets; longer is wrong whatever it holds.
    if text.len() > N.div_ceil(3) * 4 {
        return None;
    }
    let octets = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    octets.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_a_url() {
        let good = [
            ("https://registry.example", "registry.example", 443),
            ("https://registry.example:8443", "registry.example", 8443),
            ("https://192.0.2.1:1", "192.0.2.1", 1),
            ("https://[2001:db8::1]:65535", "2001:db8::1", 65535),
            ("https://[2001:db8::1]", "2001:db8::1", 443),
        ];
        for (text, host, port) in good {
            let url: RegistryUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port));
        }
        let long = format!("https://{}", "a".repeat(121));
        let bad = [
            "",
            "http://a",
            "https://",
            "https://a/",
            "https://a:0",
            "https://a:65536",
            "https://a:",
            "https://a:01",
            "https://a:+1",
            "https://A",
            "https://[::1",
            "https://[192.0.2.1]",
            "https://[::1]1",
            "https://::1",
            "https://a@b",
            "https://a b",
            &long,
        ];
        for text in bad {
            assert_eq!(
                text.parse::<RegistryUrl>(),
                Err(BadInvitation::Url),
                "{text}"
            );
        }
    }

    #[test]
    fn a_damaged_invitation_says_what_is_damaged() {
        let whole = Invitation {
            url: "https://registry.example".parse().unwrap(),
            pin: Pin([3; 32]),
            token: Some(Secret([5; SECRET_LEN])),
        };
        let text = whole.text();
        assert!(text.starts_with("https://registry.example#BQUF"), "{text}");
        assert_eq!(text.parse(), Ok(whole));
        let cut = &text[..text.len() - 1];
        assert_eq!(cut.parse::<Invitation>(), Err(BadInvitation::Hash));
        let cut = text.replacen("#B", "#", 1);
        assert_eq!(cut.parse::<Invitation>(), Err(BadInvitation::Token));
        assert_eq!("https://a".parse::<Invitation>(), Err(BadInvitation::Url));
    }

    #[test]
    fn a_token_is_not_printed() {
        let secret = Secret([0x41; SECRET_LEN]);
        let printed = format!("{secret:?}");
        assert!(
            !printed.contains(&secret.text()) && !printed.contains("65"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(pin: [u8; 32], token: Option<[u8; SECRET_LEN]>, port in 1u16..) {
            let url = format!("https://[2001:db8::1]:{port}").parse().unwrap();
            let invitation = Invitation { url, pin: Pin(pin), token: token.map(Secret) };
            prop_assert_eq!(invitation.text().parse(), Ok(invitation));
        }

        #[test]
        fn one_text_for_each_invitation(text in "https://[a-z\\[\\]:0-9.]{1,12}#[A-Za-z0-9_-]{0,33}\\.[A-Za-z0-9_-]{42,44}") {
            if let Ok(invitation) = text.parse::<Invitation>() {
                prop_assert_eq!(invitation.text(), text);
            }
        }
    }
}
