//! How a node comes in: by a token, by an administrator, or because everybody may.

use hextet_mesh::{
    certificate::{Certificate, Class, NodeId, UnixTime},
    key::PublicKey,
    label::Label,
    request::Enrolment,
    signed::Signed,
    token::{Invitation, Secret},
};
use hextet_store::Op;
use hextet_types::Prefix;

use super::{Book, MAX_NODES, MAX_TOKENS, MAX_WAITING};
use crate::{
    authority::random,
    config::Strangers,
    error::{RegistryError, Result},
    message::Grant,
    record::{self, Node, Token, Waiting},
};

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in.
    Admitted(Box<Signed<Certificate>>),
    /// An administrator has to say so.
    Waiting,
}

impl Admission {
    fn with(certificate: Signed<Certificate>) -> Self {
        Admission::Admitted(Box::new(certificate))
    }
}

/// What somebody is let in as.
struct Entry {
    class: Class,
    groups: Vec<Label>,
}

impl Book {
    /// Makes a token.
    ///
    /// # Errors
    ///
    /// Too many count already, or the store fails.
    pub async fn invite(&mut self, grant: Grant, now: UnixTime) -> Result<Invitation> {
        self.check_in()?;
        if grant.class == Class::Registry && !self.holds_root() {
            return Err(RegistryError::NoRoot);
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(RegistryError::Full(format!("{MAX_TOKENS} tokens")));
        }
        let secret = Secret(random()?);
        let token = Token {
            not_after: now.plus(u64::from(grant.minutes) * 60),
            class: grant.class,
            groups: grant.groups,
            used_by: None,
        };
        let hash = secret.hash();
        let put = Op::put(record::token_key(&hash), token.write()?);
        self.write([put]).await?;
        self.tokens.insert(hash, token);
        Ok(Invitation {
            token: Some(secret),
            ..self.door()
        })
    }

    /// Where one asks without a token.
    pub fn door(&self) -> Invitation {
        Invitation {
            url: self.url.clone(),
            pin: self.authority.pin,
            token: None,
        }
    }

    /// Lets a node in. Whoever asks again with the same key gets the same certificate.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn enrol(&mut self, asked: Signed<Enrolment>, now: UnixTime) -> Result<Admission> {
        if !asked.is_by_its_key() {
            return Err(RegistryError::Unsigned);
        }
        self.check_in()?;
        match &asked.body.token {
            Some(secret) => self.enrol_by_token(&asked, secret.hash(), now).await,
            None => self.enrol_stranger(asked, now).await,
        }
    }

    async fn enrol_by_token(
        &mut self,
        asked: &Signed<Enrolment>,
        hash: [u8; 32],
        now: UnixTime,
    ) -> Result<Admission> {
        let token = self.tokens.get(&hash).filter(|t| now <= t.not_after);
        let mut token = token.cloned().ok_or(RegistryError::Token)?;
        if token.class == Class::Registry {
            return Err(RegistryError::TokenFor(
                "a registry: write it as `join` into the configuration of one",
            ));
        }
        let known = self.by_key.get(&asked.body.key).copied();
        if token.used_by.is_some() && token.used_by != known {
            return Err(RegistryError::Token);
        }
        if let Some(certificate) = self.standing(asked.body.key) {
            return Ok(Admission::with(certificate));
        }
        if token.used_by.is_some() {
            // It let this node in, which was revoked since.
            return Err(RegistryError::Token);
        }
        let entry = Entry {
            class: token.class,
            groups: token.groups.clone(),
        };
        let node = self.prepare(&asked.body, entry, now)?;
        token.used_by = Some(node.certificate.body.node);
        let used = Op::put(record::token_key(&hash), token.write()?);
        let certificate = self.admit(node, [used]).await?;
        self.tokens.insert(hash, token);
        Ok(Admission::with(certificate))
    }

    async fn enrol_stranger(
        &mut self,
        asked: Signed<Enrolment>,
        now: UnixTime,
    ) -> Result<Admission> {
        let key = asked.body.key;
        if let Some(certificate) = self.standing(key) {
            return Ok(Admission::with(certificate));
        }
        if let Some(node) = self.by_key.get(&key) {
            return Err(RegistryError::Revoked(*node));
        }
        match self.policy.strangers {
            Strangers::Refuse => Err(RegistryError::Closed),
            Strangers::Welcome => {
                let entry = Entry {
                    class: Class::Anonymous,
                    groups: Vec::new(),
                };
                let node = self.prepare(&asked.body, entry, now)?;
                Ok(Admission::with(self.admit(node, []).await?))
            }
            Strangers::Ask => {
                if !self.waiting.contains_key(&key) {
                    self.wait(asked, now).await?;
                }
                Ok(Admission::Waiting)
            }
        }
    }

    async fn wait(&mut self, asked: Signed<Enrolment>, now: UnixTime) -> Result<()> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(RegistryError::Full(format!("{MAX_WAITING} who wait")));
        }
        let key = asked.body.key;
        let waiting = Waiting {
            enrolment: asked,
            since: now,
        };
        let put = Op::put(record::waiting_key(key), waiting.write()?);
        self.write([put]).await?;
        self.waiting.insert(key, waiting);
        Ok(())
    }

    /// Lets somebody in who waits; the certificate is there when it asks again.
    ///
    /// # Errors
    ///
    /// Nobody waits with this key, or there is no room.
    pub async fn approve(&mut self, key: &str, now: UnixTime) -> Result<NodeId> {
        let key = self.who_waits(key)?;
        let waiting = self.waiting.get(&key).cloned();
        let waiting = waiting.ok_or_else(|| RegistryError::Unknown(key.to_string()))?;
        let entry = Entry {
            class: Class::Node,
            groups: Vec::new(),
        };
        let node = self.prepare(&waiting.enrolment.body, entry, now)?;
        let done = Op::delete(record::waiting_key(key));
        let certificate = self.admit(node, [done]).await?;
        self.waiting.remove(&key);
        Ok(certificate.body.node)
    }

    /// Sends somebody away who waits.
    ///
    /// # Errors
    ///
    /// Nobody waits with this key.
    pub async fn refuse(&mut self, key: &str) -> Result<()> {
        let key = self.who_waits(key)?;
        self.write([Op::delete(record::waiting_key(key))]).await?;
        self.waiting.remove(&key);
        Ok(())
    }

    fn who_waits(&self, text: &str) -> Result<PublicKey> {
        let found = self.waiting.keys().find(|key| key.to_string() == text);
        found
            .copied()
            .ok_or_else(|| RegistryError::Unknown(text.chars().take(64).collect()))
    }

    /// The certificate of a key that is in.
    fn standing(&self, key: PublicKey) -> Option<Signed<Certificate>> {
        let node = self.nodes.get(self.by_key.get(&key)?)?;
        let counts = !node.is_out() && self.issues(node.certificate.signer);
        counts.then(|| node.certificate.clone())
    }

    /// A node with addresses. One that was revoked keeps its number and addresses.
    fn prepare(&mut self, asked: &Enrolment, entry: Entry, now: UnixTime) -> Result<Node> {
        let class = match entry.class {
            Class::Node if asked.client => Class::Client,
            class => class,
        };
        let old = self
            .by_key
            .get(&asked.key)
            .and_then(|id| self.nodes.get(id));
        if let Some(old) = old.cloned() {
            let body = Certificate {
                class,
                groups: sorted(entry.groups),
                serial: next_serial(&old.certificate.body)?,
                ..old.certificate.body
            };
            return Ok(Node {
                certificate: self.sign(body, now)?,
                ..old
            });
        }
        if self.is_learning {
            return Err(RegistryError::Learning);
        }
        if now < self.settled_at {
            return Err(RegistryError::Settling(self.settled_at.since(now)));
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(RegistryError::Full(format!("{MAX_NODES} nodes")));
        }
        let node = self.draw_number()?;
        let (ipv6, ipv4) = self.give(&asked.communities)?;
        let body = Certificate {
            network: self.authority.network(),
            node,
            serial: 1,
            class,
            not_before: now,
            not_after: now,
            key: asked.key,
            community: asked.communities.first().cloned(),
            prefixes: vec![ipv6],
            ipv4,
            groups: sorted(entry.groups),
        };
        Ok(Node {
            certificate: self.sign(body, now)?,
            name: asked.name.clone(),
            revoked: None,
        })
    }

    fn give(&mut self, communities: &[Label]) -> Result<(Prefix, Option<Prefix>)> {
        let ipv6 = self
            .ipv6
            .allocate(communities, self.policy.plan.prefix_len)?;
        let len = self.policy.plan.ipv4_len;
        let ipv4 = self.ipv4.as_mut().map(|all| all.allocate(&[], len));
        match ipv4.transpose() {
            Ok(ipv4) => Ok((ipv6, ipv4)),
            Err(error) => {
                self.release(&[ipv6]);
                Err(error.into())
            }
        }
    }

    fn draw_number(&self) -> Result<NodeId> {
        loop {
            let node = NodeId(u64::from_be_bytes(random()?));
            if !self.nodes.contains_key(&node) {
                return Ok(node);
            }
        }
    }

    /// Signs a certificate that counts from now on.
    pub(super) fn sign(&self, body: Certificate, now: UnixTime) -> Result<Signed<Certificate>> {
        let lifetime = u64::from(self.trust.parameters().body.lifetime_secs);
        let body = Certificate {
            not_before: now,
            not_after: now.plus(lifetime),
            ..body
        };
        body.check()?;
        Ok(Signed::sign(body, &self.authority.issuing))
    }

    /// Writes a node; where that fails, new addresses are free again.
    pub(super) async fn admit(
        &mut self,
        node: Node,
        with: impl IntoIterator<Item = Op>,
    ) -> Result<Signed<Certificate>> {
        let certificate = node.certificate.clone();
        let put = Op::put(record::node_key(certificate.body.node), node.write()?);
        let ops = with.into_iter().chain([put]).collect::<Vec<_>>();
        if let Err(error) = self.write(ops).await {
            if !self.nodes.contains_key(&certificate.body.node) {
                let body = certificate.body;
                let prefixes: Vec<Prefix> = body.prefixes.into_iter().chain(body.ipv4).collect();
                self.release(&prefixes);
            }
            return Err(error);
        }
        self.remember(node);
        Ok(certificate)
    }
}

pub(super) fn next_serial(certificate: &Certificate) -> Result<u32> {
    let next = certificate.serial.checked_add(1);
    next.ok_or_else(|| RegistryError::Full(format!("{} certificates of this node", u32::MAX)))
}

fn sorted(mut groups: Vec<Label>) -> Vec<Label> {
    groups.sort();
    groups.dedup();
    groups
}
