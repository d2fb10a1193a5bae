//! The next certificate of a node that is in; and what a restored registry learns from certificates that it signed after its backup.

use hextet_mesh::{
    certificate::{Certificate, UnixTime},
    key::KeyId,
    request::Renewal,
    signed::Signed,
    trust::Refusal,
};

use super::{Book, MAX_NODES, enrol::next_serial};
use crate::{
    error::{RegistryError, Result},
    record::Node,
};

/// How far a node's clock may be off.
pub(super) const SKEW_SECS: u64 = 300;

impl Book {
    /// Issues the next certificate: for the same key, with the same addresses. Who lost the answer to the last request gets that one again.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn renew(
        &mut self,
        asked: &Signed<Renewal>,
        newest: &Signed<Certificate>,
        now: UnixTime,
    ) -> Result<Signed<Certificate>> {
        let Renewal {
            network,
            node: id,
            serial,
            at,
        } = asked.body;
        if network != self.authority.network() {
            return Err(Refusal::Network(network).into());
        }
        if newest.body.node != id || newest.body.serial != serial {
            return Err(RegistryError::Invalid(
                "the renewal is of another certificate".into(),
            ));
        }
        let off = at.since(now).max(now.since(at));
        if off > SKEW_SECS {
            return Err(RegistryError::Clock(off));
        }
        if !asked.is_by(&newest.body.key) {
            return Err(RegistryError::Unsigned);
        }
        self.check_in()?;
        if !self.issues(newest.signer) {
            return Err(Refusal::Signer(newest.signer).into());
        }
        self.learn(newest, now).await?;
        let node = self.nodes.get(&id).cloned();
        let node = node.ok_or_else(|| RegistryError::Unknown(id.to_string()))?;
        let body = &node.certificate.body;
        if body.key != newest.body.key {
            return Err(RegistryError::Unsigned);
        }
        if node.is_out() {
            return Err(RegistryError::Revoked(id));
        }
        match body.serial.checked_sub(serial) {
            Some(0) => {}
            Some(1) if node.revoked.is_none_or(|last| serial > last) => {
                return Ok(node.certificate);
            }
            _ => {
                return Err(RegistryError::Serial {
                    node: id,
                    newest: body.serial,
                    asked: serial,
                });
            }
        }
        let next = Certificate {
            serial: next_serial(body)?,
            ..body.clone()
        };
        let certificate = self.sign(next, now)?;
        let node = Node {
            certificate,
            ..node
        };
        self.admit(node, []).await
    }

    /// Whether a node with that certificate is in, and says something now.
    ///
    /// # Errors
    ///
    /// The certificate counts no more, or a clock is wrong.
    pub fn vouch(
        &self,
        certificate: &Signed<Certificate>,
        at: UnixTime,
        now: UnixTime,
    ) -> Result<()> {
        let off = at.since(now).max(now.since(at));
        if off > SKEW_SECS {
            return Err(RegistryError::Clock(off));
        }
        self.trust.verify(certificate, now)?;
        Ok(())
    }

    /// Takes a certificate as a fact that we signed and know nothing of, or that is newer than what we know. Says whether it was.
    ///
    /// # Errors
    ///
    /// It doesn't count, or somebody else has its addresses by now.
    pub async fn learn(&mut self, newest: &Signed<Certificate>, now: UnixTime) -> Result<bool> {
        let body = &newest.body;
        let known = self.nodes.get(&body.node).cloned();
        if let Some(known) = &known
            && body.serial <= known.certificate.body.serial
        {
            return Ok(false);
        }
        self.trust.verify(newest, now)?;
        if let Some(known) = known {
            let same = |c: &Certificate| (c.key, c.prefixes.clone(), c.ipv4);
            if same(&known.certificate.body) != same(body) {
                return Err(RegistryError::Invalid(
                    "the certificate has another key or other addresses than the node".into(),
                ));
            }
            let node = Node {
                certificate: newest.clone(),
                ..known
            };
            self.admit(node, []).await?;
            return Ok(true);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(RegistryError::Full(format!("{MAX_NODES} nodes")));
        }
        self.take(body)?;
        let node = Node {
            certificate: newest.clone(),
            name: None,
            revoked: None,
        };
        self.admit(node, []).await?;
        Ok(true)
    }

    /// Whether certificates that this key signed count.
    pub(super) fn issues(&self, signer: KeyId) -> bool {
        let issuers = &self.trust.parameters().body.issuers.body;
        issuers.find(signer).is_some()
    }
}
