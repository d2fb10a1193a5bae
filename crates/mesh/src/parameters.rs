//! What holds for a whole network, signed by a key that the root named: one blob, a newer one replaces it.
//!
//! All of it applies while nodes run, but for the network's own prefixes, since a node's addresses lie in them.

use hextet_types::{
    Family, Prefix,
    octets::{Reader, put_u16, put_u32},
};

use crate::{
    issuers::Issuers,
    key::{Domain, NetworkId, SIGNATURE_LEN},
    rules::Rules,
    signed::{Body, Malformed, Signed},
    token::{Invitation, Pin, RegistryUrl, URL_MAX_LEN},
    wire::{self, Field},
};

/// Registries of one network.
pub const MAX_REGISTRIES: usize = 4;

/// Where a registry listens, and the key that it shows there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryAt {
    /// Where.
    pub url: RegistryUrl,
    /// Its key's hash.
    pub pin: Pin,
}

impl RegistryAt {
    /// Octets of the longest.
    pub(crate) const MAX_LEN: usize = 1 + URL_MAX_LEN + 32;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        wire::put_text(out, self.url.as_str());
        out.extend_from_slice(&self.pin.0);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let url = wire::text(reader, "a registry's URL", URL_MAX_LEN)?;
        let url = url
            .parse()
            .map_err(|_| Malformed::Value("a registry's URL"))?;
        let pin = Pin(reader.array().need("a registry's key")?);
        Ok(RegistryAt { url, pin })
    }
}

impl From<&RegistryAt> for RegistryAt {
    fn from(registry: &RegistryAt) -> RegistryAt {
        registry.clone()
    }
}

impl From<&Invitation> for RegistryAt {
    fn from(invitation: &Invitation) -> RegistryAt {
        RegistryAt {
            url: invitation.url.clone(),
            pin: invitation.pin,
        }
    }
}

/// How many tunnels of each kind a node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// By chance.
    pub random: u8,
    /// To the nearest.
    pub nearest: u8,
    /// Where they shorten paths.
    pub gain: u8,
    /// In all, those that others asked for included.
    pub most: u8,
}

/// The parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Of this network.
    pub network: NetworkId,
    /// A newer one replaces it.
    pub version: u64,
    /// Who issues certificates, and signs this.
    pub issuers: Signed<Issuers>,
    /// All IPv6 addresses of nodes lie in it.
    pub prefix: Prefix,
    /// All IPv4 addresses of nodes lie in it.
    pub ipv4: Option<Prefix>,
    /// Ascending.
    pub registries: Vec<RegistryAt>,
    /// How long a certificate counts.
    pub lifetime_secs: u32,
    /// How much longer one counts that could not be renewed.
    pub grace_secs: u32,
    /// Between Hellos to a neighbour.
    pub hello_secs: u16,
    /// Choice of tunnels.
    pub tunnels: Tunnels,
    /// Who may talk to whom.
    pub rules: Rules,
}

/// What is different in newer parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Who issues certificates.
    Issuers,
    /// Where addresses lie.
    Prefixes,
    /// Where registries are.
    Registries,
    /// How long certificates count.
    Lifetimes,
    /// How often Hellos are sent.
    Hello,
    /// How tunnels are chosen.
    Tunnels,
    /// Who may talk to whom.
    Rules,
}

impl Change {
    /// Whether a node has to start anew for it.
    pub const fn takes_restart(self) -> bool {
        matches!(self, Change::Prefixes)
    }
}

impl Parameters {
    /// What is different in `newer`.
    pub fn changes(&self, newer: &Parameters) -> Vec<Change> {
        let differ = [
            (Change::Issuers, self.issuers != newer.issuers),
            (
                Change::Prefixes,
                (self.prefix, self.ipv4) != (newer.prefix, newer.ipv4),
            ),
            (Change::Registries, self.registries != newer.registries),
            (
                Change::Lifetimes,
                (self.lifetime_secs, self.grace_secs) != (newer.lifetime_secs, newer.grace_secs),
            ),
            (Change::Hello, self.hello_secs != newer.hello_secs),
            (Change::Tunnels, self.tunnels != newer.tunnels),
            (Change::Rules, self.rules != newer.rules),
        ];
        differ
            .into_iter()
            .filter_map(|(change, differs)| differs.then_some(change))
            .collect()
    }

    /// Checks the bounds of each field.
    ///
    /// # Errors
    ///
    /// The first that doesn't hold.
    pub fn check(&self) -> Result<(), Malformed> {
        let registries = self.registries.len();
        let tunnels = self.tunnels;
        let made = [tunnels.random, tunnels.nearest, tunnels.gain];
        let made: u32 = made.into_iter().map(u32::from).sum();
        let checks = [
            (
                self.issuers.body.network == self.network,
                "the network of the issuers",
            ),
            (self.prefix.family() == Family::V6, "the network's prefix"),
            (
                self.ipv4.is_none_or(|p| p.family() == Family::V4),
                "the network's IPv4 prefix",
            ),
            (
                (1..=MAX_REGISTRIES).contains(&registries),
                "the number of registries",
            ),
            (wire::ascends(&self.registries), "the order of registries"),
            (self.lifetime_secs > 0, "the lifetime of certificates"),
            (self.hello_secs > 0, "the time between Hellos"),
            (
                tunnels.random > 0 && made <= u32::from(tunnels.most),
                "the number of tunnels",
            ),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Malformed::Value(what)),
            None => self.rules.check(),
        }
    }
}

impl Body for Parameters {
    const DOMAIN: Domain = Domain::Parameters;
    const MAX_LEN: usize = 1
        + 18
        + Issuers::MAX_LEN
        + 17
        + 6
        + 1
        + MAX_REGISTRIES * RegistryAt::MAX_LEN
        + 14
        + Rules::MAX_LEN
        + TAIL_LEN;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        out.extend_from_slice(&self.version.to_be_bytes());
        let issuers = self.issuers.encode();
        put_u16(out, u16::try_from(issuers.len()).unwrap_or(u16::MAX));
        out.extend_from_slice(&issuers);
        wire::put_prefix(out, self.prefix);
        wire::put_count(out, usize::from(self.ipv4.is_some()));
        self.ipv4
            .iter()
            .for_each(|prefix| wire::put_prefix(out, *prefix));
        wire::put_count(out, self.registries.len());
        self.registries
            .iter()
            .for_each(|registry| registry.put(out));
        put_u32(out, self.lifetime_secs);
        put_u32(out, self.grace_secs);
        put_u16(out, self.hello_secs);
        let Tunnels {
            random,
            nearest,
            gain,
            most,
        } = self.tunnels;
        out.extend_from_slice(&[random, nearest, gain, most]);
        if !self.rules.is_none() {
            self.rules.put(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = NetworkId(wire::u64_of(reader, "the network")?);
        let version = wire::u64_of(reader, "the version of the parameters")?;
        let len = usize::from(reader.u16().need("the issuers")?);
        let issuers = Signed::decode(reader.take(len).need("the issuers")?)?;
        let prefix = wire::prefix(reader, Family::V6, "the network's prefix")?;
        let ipv4 = match wire::count(reader, "the network's IPv4 prefix", 0, 1)? {
            0 => None,
            _ => Some(wire::prefix(
                reader,
                Family::V4,
                "the network's IPv4 prefix",
            )?),
        };
        let count = wire::count(reader, "the number of registries", 1, MAX_REGISTRIES)?;
        let mut registries = Vec::with_capacity(count);
        for _ in 0..count {
            registries.push(RegistryAt::read(reader)?);
        }
        let parameters = Parameters {
            network,
            version,
            issuers,
            prefix,
            ipv4,
            registries,
            lifetime_secs: reader.u32().need("the lifetime of certificates")?,
            grace_secs: reader.u32().need("the grace of certificates")?,
            hello_secs: reader.u16().need("the time between Hellos")?,
            tunnels: {
                let [random, nearest, gain, most] = reader.array().need("the tunnels")?;
                Tunnels {
                    random,
                    nearest,
                    gain,
                    most,
                }
            },
            rules: rules(reader)?,
        };
        parameters.check()?;
        Ok(parameters)
    }
}

/// What follows every body: the signer and the signature.
const TAIL_LEN: usize = 8 + SIGNATURE_LEN;

/// Those that say nothing are not written at all.
fn rules(reader: &mut Reader<'_>) -> Result<Rules, Malformed> {
    if reader.len() <= TAIL_LEN {
        return Ok(Rules::default());
    }
    let rules = Rules::read(reader)?;
    match rules.is_none() {
        true => Err(Malformed::Value("the rules")),
        false => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::tests::Authority;

    #[test]
    fn only_prefixes_take_a_restart() {
        let authority = Authority::new(1);
        let old = authority.parameters(1);
        assert_eq!(old.changes(&old), []);
        let mut new = old.clone();
        new.version = 2;
        new.hello_secs += 1;
        new.grace_secs = 0;
        new.tunnels.gain += 1;
        let changes = old.changes(&new);
        assert_eq!(changes, [Change::Lifetimes, Change::Hello, Change::Tunnels]);
        assert!(!changes.into_iter().any(Change::takes_restart));
        new.prefix = "2001:db8:8000::/33".parse().unwrap();
        assert!(old.changes(&new).into_iter().any(Change::takes_restart));
    }

    #[test]
    fn what_does_not_hold_is_not_read() {
        let authority = Authority::new(1);
        let good = authority.parameters(1);
        let spoil: [fn(&mut Parameters); 5] = [
            |p| p.tunnels.most = 1,
            |p| p.hello_secs = 0,
            |p| p.lifetime_secs = 0,
            |p| p.network.0 += 1,
            |p| p.registries.push(p.registries[0].clone()),
        ];
        let read = |p: Parameters| {
            Signed::<Parameters>::decode(&Signed::sign(p, &authority.issuing).encode())
        };
        assert_eq!(read(good.clone()).unwrap().body, good);
        for spoil in spoil {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(matches!(read(bad), Err(Malformed::Value(_))));
        }
    }
}
