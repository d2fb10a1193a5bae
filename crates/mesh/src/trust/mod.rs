//! Judges certificates, parameters and revocations by a network's root key, and says why one is refused.
//!
//! What is newer is never given up for what is older. Lists of a key that issues no more go with it, and so do its certificates.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    certificate::{Certificate, NodeId, UnixTime},
    issuers::{Issuer, Issuers},
    key::{KeyId, NetworkId, PublicKey},
    parameters::Parameters,
    revocation::Revocations,
    signed::Signed,
};

#[cfg(test)]
pub(crate) mod tests;

/// Clocks of nodes may be behind by so much.
pub const SKEW_SECS: u64 = 300;

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Of another network.
    #[error("it is of network {0}, not of ours")]
    Network(NetworkId),
    /// The root did not sign the issuers.
    #[error("the root did not sign who issues certificates")]
    Issuers,
    /// Signed by nobody who may.
    #[error("its signer {0} issues no certificates here")]
    Signer(KeyId),
    /// The signature doesn't hold.
    #[error("its signature by {0} does not hold")]
    Signature(KeyId),
    /// Begun outside of its issuer's span.
    #[error("it begins when its issuer did not issue")]
    IssuerSpan,
    /// It has not begun.
    #[error("it counts in {0} s")]
    Early(u64),
    /// Its end and the grace behind it are over.
    #[error("it ended {0} s ago, and so did its grace")]
    Late(u64),
    /// A list names it.
    #[error("node {0}'s certificates up to serial {1} are revoked")]
    Revoked(NodeId, u32),
    /// It claims addresses outside of the network.
    #[error("it claims addresses outside of the network")]
    Prefix,
    /// Fields that can't be so.
    #[error("a field has a value that it can't have")]
    Malformed,
}

/// How a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In full.
    Current,
    /// Its end is past; it counts since registries may be out of reach.
    Grace,
}

/// What a node, or a registry, knows for certain of its network.
#[derive(Clone, Debug)]
pub struct Trust {
    root: PublicKey,
    parameters: Signed<Parameters>,
    revocations: BTreeMap<KeyId, Signed<Revocations>>,
}

impl Trust {
    /// Starts from a root, which is believed, and parameters, which are judged by it.
    ///
    /// # Errors
    ///
    /// The root, or who it names, did not sign these.
    pub fn new(root: PublicKey, parameters: Signed<Parameters>) -> Result<Self, Refusal> {
        judge(&root, &parameters)?;
        Ok(Trust {
            root,
            parameters,
            revocations: BTreeMap::new(),
        })
    }

    /// The root.
    pub fn root(&self) -> PublicKey {
        self.root
    }

    /// The newest parameters.
    pub fn parameters(&self) -> &Signed<Parameters> {
        &self.parameters
    }

    /// The newest list of each issuing key.
    pub fn revocations(&self) -> impl Iterator<Item = &Signed<Revocations>> {
        self.revocations.values()
    }

    /// Takes parameters if they are newer; says whether they were. Of two with one version all nodes keep the same.
    ///
    /// # Errors
    ///
    /// They are not ours, or not signed by who may.
    pub fn offer_parameters(&mut self, offered: Signed<Parameters>) -> Result<bool, Refusal> {
        judge(&self.root, &offered)?;
        let newer = order(&offered) > order(&self.parameters);
        if newer {
            self.parameters = offered;
            let issuers = &self.parameters.body.issuers.body;
            self.revocations
                .retain(|signer, _| issuers.find(*signer).is_some());
        }
        Ok(newer)
    }

    /// Takes a list if it is newer than what its signer said before; says whether it was.
    ///
    /// # Errors
    ///
    /// It is not ours, or not signed by who may.
    pub fn offer_revocations(&mut self, offered: Signed<Revocations>) -> Result<bool, Refusal> {
        self.check_network(offered.body.network)?;
        let issuer = self.issuer(offered.signer)?;
        if !offered.is_by(&issuer.key) {
            return Err(Refusal::Signature(offered.signer));
        }
        let rank = |list: &Signed<Revocations>| (list.body.version, list.signature);
        let held = self.revocations.get(&offered.signer);
        let newer = held.is_none_or(|held| rank(&offered) > rank(held));
        if newer {
            self.revocations.insert(offered.signer, offered);
        }
        Ok(newer)
    }

    /// Whether a certificate counts now, and how.
    ///
    /// # Errors
    ///
    /// Why it doesn't. What is cheap is asked first; the signature last.
    pub fn verify(
        &self,
        certificate: &Signed<Certificate>,
        now: UnixTime,
    ) -> Result<Standing, Refusal> {
        let standing = self.stands(certificate, now)?;
        let issuer = self.issuer(certificate.signer)?;
        match certificate.is_by(&issuer.key) {
            true => Ok(standing),
            false => Err(Refusal::Signature(certificate.signer)),
        }
    }

    /// Whether a certificate that was verified before still counts, and how: all but its signature is judged again.
    ///
    /// # Errors
    ///
    /// Why it counts no more.
    pub fn stands(
        &self,
        certificate: &Signed<Certificate>,
        now: UnixTime,
    ) -> Result<Standing, Refusal> {
        let body = &certificate.body;
        body.check().map_err(|_| Refusal::Malformed)?;
        self.check_network(body.network)?;
        let issuer = self.issuer(certificate.signer)?;
        if !(issuer.not_before..=issuer.not_after).contains(&body.not_before) {
            return Err(Refusal::IssuerSpan);
        }
        self.check_prefixes(body)?;
        let standing = self.check_time(body, now)?;
        if let Some(last) = self.revoked_up_to(body.node, body.serial) {
            return Err(Refusal::Revoked(body.node, last));
        }
        Ok(standing)
    }

    fn check_network(&self, network: NetworkId) -> Result<(), Refusal> {
        match network == self.parameters.body.network {
            true => Ok(()),
            false => Err(Refusal::Network(network)),
        }
    }

    fn issuer(&self, id: KeyId) -> Result<&Issuer, Refusal> {
        let issuers = &self.parameters.body.issuers.body;
        issuers.find(id).ok_or(Refusal::Signer(id))
    }

    fn check_prefixes(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let network = &self.parameters.body;
        let ipv6 = certificate
            .prefixes
            .iter()
            .all(|p| network.prefix.covers(*p));
        let ipv4 = certificate
            .ipv4
            .is_none_or(|p| network.ipv4.is_some_and(|n| n.covers(p)));
        match ipv6 && ipv4 {
            true => Ok(()),
            false => Err(Refusal::Prefix),
        }
    }

    fn check_time(&self, certificate: &Certificate, now: UnixTime) -> Result<Standing, Refusal> {
        let grace = u64::from(self.parameters.body.grace_secs);
        let early = certificate.not_before.since(now.plus(SKEW_SECS));
        let late = now.since(certificate.not_after);
        match (early, late) {
            (1.., _) => Err(Refusal::Early(certificate.not_before.since(now))),
            (_, 0) => Ok(Standing::Current),
            (_, late) if late <= grace => Ok(Standing::Grace),
            (_, late) => Err(Refusal::Late(late)),
        }
    }

    fn revoked_up_to(&self, node: NodeId, serial: u32) -> Option<u32> {
        let mut lists = self.revocations.values();
        lists
            .any(|list| list.body.names(node, serial))
            .then_some(serial)
    }
}

/// Whoever takes a key out of the issuers must not be outrun by that key's higher version.
fn order(parameters: &Signed<Parameters>) -> (u32, u64, &[u8]) {
    let body = &parameters.body;
    (
        body.issuers.body.version,
        body.version,
        &parameters.signature,
    )
}

fn judge(root: &PublicKey, parameters: &Signed<Parameters>) -> Result<(), Refusal> {
    let body = &parameters.body;
    body.check().map_err(|_| Refusal::Malformed)?;
    if body.network != NetworkId::of(root) {
        return Err(Refusal::Network(body.network));
    }
    let issuers: &Signed<Issuers> = &body.issuers;
    if !issuers.is_by(root) {
        return Err(Refusal::Issuers);
    }
    let signer = parameters.signer;
    let issuer = issuers.body.find(signer).ok_or(Refusal::Signer(signer))?;
    match parameters.is_by(&issuer.key) {
        true => Ok(()),
        false => Err(Refusal::Signature(signer)),
    }
}
