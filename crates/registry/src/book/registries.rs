//! The registries of one network: how another one comes in, and how one is taken out.

use hextet_mesh::{
    certificate::{Class, NodeId, UnixTime},
    issuers::{Issuer, MAX_KEYS},
    key::{NetworkId, SigningKey},
    parameters::{Parameters, RegistryAt},
    request::Accession,
    signed::Signed,
    token::RegistryUrl,
};
use hextet_store::Op;

use super::{Book, admin::newer};
use crate::{
    authority::issuer,
    error::{RegistryError, Result},
    plan::Plan,
    record,
};

/// Registries of one network at a time: what is free has two halves.
const MAX_REGISTRIES: usize = 2;

impl Book {
    /// The network.
    pub fn network_id(&self) -> NetworkId {
        self.authority.network()
    }

    /// Our issuing key.
    pub fn issuing(&self) -> &SigningKey {
        &self.authority.issuing
    }

    /// The newest parameters.
    pub fn parameters_signed(&self) -> &Signed<Parameters> {
        self.trust.parameters()
    }

    /// Whether the network's root key is here.
    pub fn holds_root(&self) -> bool {
        self.authority.holds_root()
    }

    /// How addresses are cut.
    pub fn plan(&self) -> &Plan {
        &self.policy.plan
    }

    /// All registries of the network, and whether each is this one.
    pub fn registries(&self) -> impl Iterator<Item = (&RegistryAt, bool)> {
        let all = &self.trust.parameters().body.registries;
        all.iter()
            .map(|registry| (registry, registry.pin == self.authority.pin))
    }

    /// All others.
    pub fn others(&self) -> Vec<RegistryAt> {
        let others = self.registries().filter(|(_, is_this)| !is_this);
        others.map(|(registry, _)| registry.clone()).collect()
    }

    /// Who was taken out says nothing any more that anybody would believe.
    pub(super) fn check_in(&self) -> Result<()> {
        match self.registries().any(|(_, is_this)| is_this) {
            true => Ok(()),
            false => Err(RegistryError::Out(
                (self.others().iter().map(|other| other.url.to_string()))
                    .collect::<Vec<_>>()
                    .join(" or "),
            )),
        }
    }

    /// Makes a registry one of the network's. Whoever asks again with the same key gets the same.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn accede(&mut self, asked: &Signed<Accession>, now: UnixTime) -> Result<()> {
        let Accession { token, key, at } = &asked.body;
        if !asked.is_by_its_key() {
            return Err(RegistryError::Unsigned);
        }
        let hash = token.hash();
        let token = self.tokens.get(&hash).filter(|t| now <= t.not_after);
        let mut token = token.cloned().ok_or(RegistryError::Token)?;
        if token.class != Class::Registry {
            return Err(RegistryError::TokenFor(
                "a node: take it to `hextet mesh join`",
            ));
        }
        let bearer = NodeId(u64::from_be_bytes(key.id().0));
        let old = &self.trust.parameters().body;
        let is_in = old.registries.contains(at) && old.issuers.body.find(key.id()).is_some();
        match token.used_by {
            Some(used_by) if used_by == bearer && is_in => return Ok(()),
            Some(_) => return Err(RegistryError::Token),
            None => {}
        }
        let new = self.with(issuer(*key, now), at, now)?;
        token.used_by = Some(bearer);
        let used = Op::put(record::token_key(&hash), token.write()?);
        self.set_parameters(new, [used]).await?;
        self.tokens.insert(hash, token);
        Ok(())
    }

    /// Parameters with one more registry.
    fn with(&self, key: Issuer, at: &RegistryAt, now: UnixTime) -> Result<Signed<Parameters>> {
        self.check_in()?;
        let old = &self.trust.parameters().body;
        if old.registries.iter().any(|r| r.url == at.url) {
            return Err(RegistryError::Invalid(format!(
                "there is a registry at {} already, with another key: if it is lost, take it out first (hextet mesh registry-remove {})",
                at.url, at.url
            )));
        }
        if old.registries.len() >= MAX_REGISTRIES {
            return Err(RegistryError::Full(format!(
                "{MAX_REGISTRIES} registries: take out the one that is lost (hextet mesh registry-remove URL)"
            )));
        }
        let longest = u64::from(old.lifetime_secs) + u64::from(old.grace_secs);
        let matters = |old: &&Issuer| now <= old.not_after.plus(longest);
        let keys = old.issuers.body.keys().iter().filter(matters).copied();
        let keys: Vec<Issuer> = keys.chain([key]).collect();
        if keys.len() > MAX_KEYS {
            return Err(RegistryError::Full(format!(
                "{MAX_KEYS} keys whose certificates count: that of a registry that was taken out does until these have ended"
            )));
        }
        let mut registries = old.registries.clone();
        registries.push(at.clone());
        registries.sort();
        let version = old.issuers.body.version.saturating_add(1);
        let new = Parameters {
            version: newer(old.version, now),
            issuers: self.authority.name(version, keys)?,
            registries,
            ..old.clone()
        };
        new.check()?;
        Ok(Signed::sign(new, &self.authority.issuing))
    }

    /// Takes a registry out, whether it is there or not. Says whether its key is closed: what it signs from now on counts no more. With `distrust`
    /// what it signed before counts no more either.
    ///
    /// # Errors
    ///
    /// There is none at that URL, it is this one, or it takes the root's key, which is not here.
    pub async fn remove(
        &mut self,
        url: &RegistryUrl,
        distrust: bool,
        now: UnixTime,
    ) -> Result<bool> {
        self.check_in()?;
        let known = self.registries().find(|(registry, _)| registry.url == *url);
        match known {
            None => return Err(RegistryError::Unknown(url.to_string())),
            Some((_, true)) => {
                return Err(RegistryError::Invalid(
                    "this is the registry that is asked: ask the other one".into(),
                ));
            }
            Some((_, false)) => {}
        }
        let can_close = self.authority.holds_root();
        if distrust && !can_close {
            return Err(RegistryError::NoRoot);
        }
        let old = &self.trust.parameters().body;
        let issuers = match can_close {
            true => {
                let keys = old.issuers.body.keys().iter();
                let keys = keys.filter_map(|key| self.closed(*key, distrust, now));
                let version = old.issuers.body.version.saturating_add(1);
                self.authority.name(version, keys.collect())?
            }
            false => old.issuers.clone(),
        };
        let new = Parameters {
            version: newer(old.version, now),
            issuers,
            registries: (old.registries.iter().filter(|r| r.url != *url))
                .cloned()
                .collect(),
            ..old.clone()
        };
        new.check()?;
        let new = Signed::sign(new, &self.authority.issuing);
        // It may have let nodes in that we never heard of: they show their certificates when they renew.
        let settling = Op::put(record::RESTORED, record::json(&now.0)?);
        self.set_parameters(new, [settling]).await?;
        self.settle(now);
        Ok(can_close)
    }

    /// As there are two registries at most, every key but ours is the other one's, or of one that was before it.
    fn closed(&self, key: Issuer, distrust: bool, now: UnixTime) -> Option<Issuer> {
        if key.key == self.authority.issuing.public() {
            return Some(key);
        }
        let not_after = key.not_after.min(now).max(key.not_before);
        (!distrust).then_some(Issuer { not_after, ..key })
    }

    /// Writes new parameters, and what goes with them.
    pub(super) async fn set_parameters(
        &mut self,
        signed: Signed<Parameters>,
        with: impl IntoIterator<Item = Op>,
    ) -> Result<()> {
        let mut trust = self.trust.clone();
        if !trust.offer_parameters(signed.clone())? {
            return Ok(());
        }
        let put = Op::put(record::PARAMETERS, signed.encode());
        self.write([put].into_iter().chain(with)).await?;
        self.trust = trust;
        self.set_share();
        self.tell_news();
        Ok(())
    }
}
