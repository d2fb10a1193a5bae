//! What administrators see and change.

use hextet_mesh::{
    certificate::{NodeId, UnixTime},
    label::Label,
    parameters::{Parameters, Tunnels},
    revocation::{MAX_ENTRIES, Revocations},
    signed::Signed,
};
use hextet_store::Op;

use super::Book;
use crate::{
    error::{RegistryError, Result},
    message::{NodeShown, Nodes, ParametersShown, WaitingShown},
    record::{self, Node},
    rules::RulesShown,
};

impl Book {
    /// All nodes, and all who wait.
    pub fn nodes(&self) -> Nodes {
        Nodes {
            nodes: self.nodes.values().map(show).collect(),
            waiting: self
                .waiting
                .iter()
                .map(|(key, waiting)| WaitingShown {
                    key: key.to_string(),
                    name: waiting.enrolment.body.name.as_ref().map(Label::to_string),
                    since: waiting.since.0,
                })
                .collect(),
        }
    }

    /// Revokes all certificates that a node has so far.
    ///
    /// # Errors
    ///
    /// There is no such node, or the list is full.
    pub async fn revoke(&mut self, id: NodeId, now: UnixTime) -> Result<()> {
        self.check_in()?;
        let node = self.nodes.get(&id).cloned();
        let node = node.ok_or_else(|| RegistryError::Unknown(id.to_string()))?;
        if node.is_out() {
            return Ok(());
        }
        let node = Node {
            revoked: Some(node.certificate.body.serial),
            ..node
        };
        let list = self.list_with(&node, now)?;
        self.write([
            Op::put(record::node_key(id), node.write()?),
            Op::put(record::REVOCATIONS, list.encode()),
        ])
        .await?;
        self.trust.offer_revocations(list)?;
        self.tell_news();
        self.remember(node);
        Ok(())
    }

    /// Takes what other registries revoked into our own list, too: theirs ends with them.
    pub(super) async fn repeat_revocations(&mut self, now: UnixTime) -> Result<()> {
        let issuer = self.authority.issuing.public().id();
        let ours = self.trust.revocations().find(|l| l.signer == issuer);
        let is_ours = |id, last| ours.is_some_and(|list| list.body.names(id, last));
        let grace = u64::from(self.trust.parameters().body.grace_secs);
        let missing = self.nodes.values().find(|node| {
            let body = &node.certificate.body;
            let counts = now <= body.not_after.plus(grace);
            counts && node.revoked.is_some_and(|last| !is_ours(body.node, last))
        });
        let Some(missing) = missing else {
            return Ok(());
        };
        let list = self.list_with(missing, now)?;
        self.write([Op::put(record::REVOCATIONS, list.encode())])
            .await?;
        self.trust.offer_revocations(list)?;
        self.tell_news();
        Ok(())
    }

    /// The next list: what was in the last one and still matters, and this node.
    fn list_with(&self, revoked: &Node, now: UnixTime) -> Result<Signed<Revocations>> {
        let network = &self.trust.parameters().body;
        // A certificate that counts now may have a serial up to the newest one, which ends last.
        let over = |node: &Node| {
            let end = node.certificate.body.not_after;
            end.plus(u64::from(network.grace_secs)) < now
        };
        let last = |node: &Node| Some((node.certificate.body.node, node.revoked?));
        let others = self.nodes.values().filter(|node| !over(node));
        let issuer = self.authority.issuing.public().id();
        let mut lists = self.trust.revocations();
        let old = lists.find(|list| list.signer == issuer).map(|l| &l.body);
        // Of nodes that a backup doesn't know there is nothing but the list.
        let unknown = old.map_or(&[][..], Revocations::entries).iter();
        let unknown = unknown
            .filter(|(node, _)| now < self.lost_until && !self.nodes.contains_key(node))
            .copied();
        let known = others.chain([revoked]).filter_map(last);
        let entries = known.chain(unknown).collect();
        let version = newer(old.map_or(0, |list| list.version), now);
        let list = Revocations::new(network.network, version, entries);
        let list = list.ok_or_else(|| RegistryError::Full(format!("{MAX_ENTRIES} revocations")))?;
        Ok(Signed::sign(list, &self.authority.issuing))
    }

    /// Takes a list that is newer than what we have of its signer: another registry's, or our own, made after the backup that we were restored
    /// from. Says whether it was.
    ///
    /// # Errors
    ///
    /// No registry of the network signed it, or the store fails.
    pub async fn learn_revocations(&mut self, list: Signed<Revocations>) -> Result<bool> {
        let mut trust = self.trust.clone();
        if !trust.offer_revocations(list.clone())? {
            return Ok(false);
        }
        let at = match list.signer == self.authority.issuing.public().id() {
            true => record::REVOCATIONS.to_owned(),
            false => record::list_key(list.signer),
        };
        let mut ops = vec![Op::put(at, list.encode())];
        let mut out = Vec::new();
        for &(id, last) in list.body.entries() {
            let Some(node) = self.nodes.get(&id).filter(|n| n.revoked < Some(last)) else {
                continue;
            };
            let revoked = Some(last);
            let node = Node {
                revoked,
                ..node.clone()
            };
            // The list is what counts; of more nodes than fit into one step the rest is learned from the next.
            if ops.len() < 2_000 {
                ops.push(Op::put(record::node_key(id), node.write()?));
                out.push(node);
            }
        }
        self.write(ops).await?;
        self.trust = trust;
        self.tell_news();
        out.into_iter().for_each(|node| self.remember(node));
        Ok(true)
    }

    /// The parameters.
    pub fn parameters(&self) -> ParametersShown {
        let p = &self.trust.parameters().body;
        ParametersShown {
            network: Some(p.network.to_string()),
            version: Some(p.version),
            prefix: Some(p.prefix.to_string()),
            ipv4: p.ipv4.map(|prefix| prefix.to_string()),
            lifetime_secs: Some(p.lifetime_secs),
            grace_secs: Some(p.grace_secs),
            hello_secs: Some(p.hello_secs),
            random: Some(p.tunnels.random),
            nearest: Some(p.tunnels.nearest),
            gain: Some(p.tunnels.gain),
            most: Some(p.tunnels.most),
            rules: (!p.rules.is_none()).then(|| RulesShown::of(&p.rules)),
        }
    }

    /// Signs new parameters, if something is to be different.
    ///
    /// # Errors
    ///
    /// A value that can't be.
    pub async fn change_parameters(
        &mut self,
        asked: &ParametersShown,
        now: UnixTime,
    ) -> Result<()> {
        self.check_in()?;
        let old = &self.trust.parameters().body;
        let t = old.tunnels;
        let rules = asked.rules.as_ref().map(RulesShown::read).transpose();
        let rules = rules.map_err(|e| RegistryError::Invalid(e.to_string()))?;
        let new = Parameters {
            lifetime_secs: asked.lifetime_secs.unwrap_or(old.lifetime_secs),
            grace_secs: asked.grace_secs.unwrap_or(old.grace_secs),
            hello_secs: asked.hello_secs.unwrap_or(old.hello_secs),
            tunnels: Tunnels {
                random: asked.random.unwrap_or(t.random),
                nearest: asked.nearest.unwrap_or(t.nearest),
                gain: asked.gain.unwrap_or(t.gain),
                most: asked.most.unwrap_or(t.most),
            },
            rules: rules.unwrap_or_else(|| old.rules.clone()),
            ..old.clone()
        };
        if old.changes(&new).is_empty() {
            return Ok(());
        }
        new.check()?;
        let version = newer(old.version, now);
        let signed = Signed::sign(Parameters { version, ..new }, &self.authority.issuing);
        self.set_parameters(signed, []).await
    }
}

/// Counts on by the clock, so that a registry restored from a backup is ahead of what it said after that.
pub(super) fn newer(version: u64, now: UnixTime) -> u64 {
    version.saturating_add(1).max(now.0)
}

fn show(node: &Node) -> NodeShown {
    let body = &node.certificate.body;
    NodeShown {
        node: body.node.to_string(),
        name: node.name.as_ref().map(Label::to_string),
        class: body.class.to_string(),
        prefixes: body
            .prefixes
            .iter()
            .chain(&body.ipv4)
            .map(ToString::to_string)
            .collect(),
        community: body.community.as_ref().map(Label::to_string),
        groups: body.groups.iter().map(Label::to_string).collect(),
        serial: body.serial,
        not_after: body.not_after.0,
        revoked: node.is_out(),
    }
}
