//! What another registry of the network is told, and what is taken from it. Its word counts as much as ours: either issues certificates.

use hextet_mesh::{
    certificate::UnixTime, parameters::Parameters, request::Pull, signed::Signed, trust::Refusal,
};
use hextet_store::Op;
use hextet_types::Prefix;
use tracing::warn;

use super::{Book, MAX_NODES};
use crate::{
    book::renew::SKEW_SECS,
    error::{RegistryError, Result},
    plan::Plan,
    record::{self, Node},
    told::{MAX_NODES_TOLD, NodeTold, PullAnswer, Told},
};

impl Book {
    /// Whether another registry of the network asks. Its parameters are taken first: we may be restored from a backup that does not know it.
    ///
    /// # Errors
    ///
    /// Nobody asks whose key issues here, or a clock is wrong.
    pub async fn hear(
        &mut self,
        asked: &Signed<Pull>,
        parameters: Signed<Parameters>,
        now: UnixTime,
    ) -> Result<()> {
        self.set_parameters(parameters, []).await?;
        if asked.body.network != self.authority.network() {
            return Err(Refusal::Network(asked.body.network).into());
        }
        let issuers = &self.trust.parameters().body.issuers.body;
        let issuer = issuers.find(asked.signer);
        let issuer = issuer.ok_or(Refusal::Signer(asked.signer))?;
        if !asked.is_by(&issuer.key) {
            return Err(RegistryError::Unsigned);
        }
        let off = asked.body.at.since(now).max(now.since(asked.body.at));
        match off > SKEW_SECS {
            true => Err(RegistryError::Clock(off)),
            false => Ok(()),
        }
    }

    /// The newest change.
    pub fn changes(&self) -> u64 {
        self.changes.last()
    }

    /// What another registry has not heard of, or a part of it.
    pub fn tell(&self, pull: &Pull) -> PullAnswer {
        let page = self.changes.after(pull.run, pull.heard, MAX_NODES_TOLD);
        let nodes = page.nodes.iter().filter_map(|id| self.nodes.get(id));
        PullAnswer {
            network: self.network(),
            plan: self.holds_root().then(|| self.plan().clone()),
            run: page.run,
            upto: page.upto,
            more: page.more,
            nodes: nodes.map(NodeTold::of).collect(),
        }
    }

    /// Takes what another registry told; `is_all` where there is no more behind it.
    ///
    /// # Errors
    ///
    /// It does not hold, or the store fails; what was taken before that is no harm.
    pub async fn adopt(&mut self, told: Told, is_all: bool, now: UnixTime) -> Result<()> {
        self.set_parameters(told.parameters, []).await?;
        if let Some(plan) = told.plan.filter(|_| !self.holds_root()) {
            self.follow_plan(plan).await?;
        }
        self.adopt_nodes(told.nodes, now).await?;
        for list in told.revocations {
            self.learn_revocations(list).await?;
        }
        // Its list says the same as long as it is there.
        if let Err(error) = self.repeat_revocations(now).await {
            warn!(%error, "what another registry revoked is not in our own list");
        }
        if is_all && self.is_learning {
            self.write([Op::delete(record::LEARNING)]).await?;
            self.is_learning = false;
        }
        Ok(())
    }

    async fn follow_plan(&mut self, plan: Plan) -> Result<()> {
        if plan == self.policy.plan {
            return Ok(());
        }
        let network = self.trust.parameters().body.clone();
        let (mut ipv6, mut ipv4) = self.allocators(&plan)?;
        let given = self.nodes.values().map(|node| &node.certificate.body);
        for prefix in given.flat_map(|body| body.prefixes.iter().chain(&body.ipv4)) {
            match (network.prefix.covers(*prefix), &mut ipv4) {
                (true, _) => ipv6.take(*prefix)?,
                (false, Some(ipv4)) => ipv4.take(*prefix)?,
                (false, None) => {}
            }
        }
        self.write([Op::put(record::PLAN, record::json(&plan)?)])
            .await?;
        (self.ipv6, self.ipv4, self.policy.plan) = (ipv6, ipv4, plan);
        Ok(())
    }

    /// All in one step: a page is written at once.
    async fn adopt_nodes(&mut self, told: Vec<Node>, now: UnixTime) -> Result<()> {
        let (mut new, mut taken) = (Vec::new(), Vec::new());
        for node in told {
            let id = node.certificate.body.node;
            match self.merge(node, now, &mut taken).await {
                Ok(Some(node)) => new.push(node),
                Ok(None) => {}
                // Of others all the same: one that can't be must not keep them away.
                Err(error) => warn!(node = %id, %error, "another registry's node was not taken"),
            }
        }
        let puts = new.iter().map(|node| {
            let key = record::node_key(node.certificate.body.node);
            Ok(Op::put(key, node.write()?))
        });
        let puts = puts.collect::<Result<Vec<_>>>();
        let written = match puts {
            Ok(puts) if puts.is_empty() => return Ok(()),
            Ok(puts) => self.write(puts).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => new.into_iter().for_each(|node| self.remember(node)),
            Err(_) => self.release(&taken),
        }
        written
    }

    /// What we know and what was told, if that is more; marks new addresses as taken.
    async fn merge(
        &mut self,
        told: Node,
        now: UnixTime,
        taken: &mut Vec<Prefix>,
    ) -> Result<Option<Node>> {
        let body = &told.certificate.body;
        body.check()?;
        if body.network != self.authority.network() {
            return Err(Refusal::Network(body.network).into());
        }
        let Some(known) = self.nodes.get(&body.node) else {
            if self.nodes.len() >= MAX_NODES {
                return Err(RegistryError::Full(format!("{MAX_NODES} nodes")));
            }
            if self.take(body).is_err() {
                // The other one may have given it anew where we have not yet swept.
                self.sweep(now).await?;
                self.take(body)?;
            }
            taken.extend(body.prefixes.iter().chain(&body.ipv4));
            return Ok(Some(told));
        };
        let is = &known.certificate.body;
        if (is.key, &is.prefixes, is.ipv4) != (body.key, &body.prefixes, body.ipv4) {
            return Err(RegistryError::Invalid(
                "it has another key or other addresses than here".into(),
            ));
        }
        let certificate = match body.serial > is.serial {
            true => told.certificate,
            false => known.certificate.clone(),
        };
        let merged = Node {
            certificate,
            name: known.name.clone().or(told.name),
            revoked: known.revoked.max(told.revoked),
        };
        Ok((merged != *known).then_some(merged))
    }
}
