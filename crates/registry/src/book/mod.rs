//! What a registry knows, in memory beside its store.
//!
//! One task at a time changes it. What changes is on the disk before it is here, and here before it is answered; who is cut off in between
//! asks again and gets the same.

mod admin;
mod changes;
mod enrol;
mod pull;
mod registries;
mod renew;
#[cfg(test)]
mod sisters;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use hextet_mesh::{
    allocator::{Allocator, Share},
    certificate::{Certificate, Class, NodeId, UnixTime},
    gossip,
    key::PublicKey,
    letter::Known,
    parameters::{Parameters, RegistryAt, Tunnels},
    revocation::Revocations,
    rules::Rules,
    signed::Signed,
    token::RegistryUrl,
    trust::Trust,
};
use hextet_store::{KeyRange, KeyValue, Op, Store, Txn};
use hextet_types::Prefix;
use rustls::ServerConfig;
use tokio::sync::watch;

pub use enrol::Admission;

use self::changes::Changes;
use crate::{
    authority::{self, Authority, Stored},
    config::{Config, Strangers},
    error::{RegistryError, Result},
    message::{Blob, Network},
    plan::{Plan, share},
    record::{self, Node, Token, Waiting},
};

/// Nodes of one network.
pub const MAX_NODES: usize = 100_000;
/// Tokens that count.
pub const MAX_TOKENS: usize = 10_000;
/// Requests that wait for an approval.
pub const MAX_WAITING: usize = 1_000;

const LIFETIME_SECS: u32 = 7 * 86_400;
const GRACE_SECS: u32 = 7 * 86_400;
const HELLO_SECS: u16 = 4;
const TUNNELS: Tunnels = Tunnels {
    random: 6,
    nearest: 1,
    gain: 2,
    most: 32,
};

/// What the configuration decides.
#[derive(Clone, Debug)]
struct Policy {
    plan: Plan,
    strangers: Strangers,
    settle_secs: u64,
}

/// What others wait to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// A digest of what [`Book::network`] tells.
    pub known: Known,
    /// The newest change of whatever another registry would be told.
    pub changes: u64,
}

/// The registry's knowledge.
#[derive(Debug)]
pub struct Book {
    store: Arc<dyn Store>,
    authority: Authority,
    url: RegistryUrl,
    trust: Trust,
    news: watch::Sender<News>,
    changes: Changes,
    policy: Policy,
    ipv6: Allocator,
    ipv4: Option<Allocator>,
    nodes: BTreeMap<NodeId, Node>,
    by_key: BTreeMap<PublicKey, NodeId>,
    tokens: BTreeMap<[u8; 32], Token>,
    waiting: BTreeMap<PublicKey, Waiting>,
    /// There were nodes before this registry that it has not heard of.
    is_learning: bool,
    /// Nobody new before this.
    settled_at: UnixTime,
    /// Until then certificates count that a backup may not know.
    lost_until: UnixTime,
}

impl Book {
    /// Reads the store; makes keys and a network where it is empty. Answers TLS, too, whose key the store holds.
    ///
    /// # Errors
    ///
    /// The store fails or is damaged, or the configuration is of another network.
    pub async fn open(
        store: Arc<dyn Store>,
        config: &Config,
        now: UnixTime,
    ) -> Result<(Book, Arc<ServerConfig>)> {
        let url = config.url()?;
        if get(&*store, record::AUTHORITY).await?.is_none() {
            found(&*store, config, &url, now).await?;
        }
        let stored: Stored = record::parse(&need(&*store, record::AUTHORITY).await?)?;
        let authority = Authority::open(&stored)?;
        let trust = read_trust(&*store, &authority).await?;
        let network = trust.parameters().body.clone();
        let plan = match get(&*store, record::PLAN).await? {
            Some(kv) => record::parse(&kv)?,
            None => Plan::of(config),
        };
        let share = share(&network, authority.pin);
        let (ipv6, ipv4) = allocators(&network, &plan, share)?;
        let restored: Option<u64> = match get(&*store, record::RESTORED).await? {
            Some(kv) => Some(record::parse(&kv)?),
            None => None,
        };
        let is_learning = get(&*store, record::LEARNING).await?.is_some();
        let mut book = Book {
            store,
            authority,
            url,
            news: watch::Sender::new(News {
                known: gossip::known(&trust),
                changes: 0,
            }),
            changes: Changes::new(u64::from_be_bytes(authority::random()?)),
            trust,
            policy: Policy {
                plan,
                strangers: config.strangers,
                settle_secs: config.settle_secs,
            },
            ipv6,
            ipv4,
            nodes: BTreeMap::new(),
            by_key: BTreeMap::new(),
            tokens: BTreeMap::new(),
            waiting: BTreeMap::new(),
            is_learning,
            settled_at: UnixTime::default(),
            lost_until: UnixTime::default(),
        };
        if let Some(restored) = restored {
            book.settle(UnixTime(restored));
        }
        book.check(config)?;
        book.read().await?;
        Ok((book, stored.tls()?))
    }

    /// What a configuration says of prefixes counts at the first start alone; it must not say something else later.
    fn check(&self, config: &Config) -> Result<()> {
        let network = &self.trust.parameters().body;
        let other = |asked: Option<Prefix>, is: Option<Prefix>| asked.filter(|_| asked != is);
        let other = other(config.prefix, Some(network.prefix)).or(other(config.ipv4, network.ipv4));
        match other {
            Some(other) => Err(RegistryError::Setup(format!(
                "the configuration names {other}, but this network was made with {}: its nodes have addresses there",
                network.prefix
            ))),
            None => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<()> {
        for kv in scan(&*self.store, record::NODES).await? {
            let node = Node::read(&kv)?;
            let taken = self.take(&node.certificate.body);
            taken.map_err(|e| RegistryError::Damaged(e.to_string()))?;
            self.remember(node);
        }
        for kv in scan(&*self.store, record::TOKENS).await? {
            self.tokens
                .insert(record::token_hash(&kv.key)?, Token::read(&kv)?);
        }
        for kv in scan(&*self.store, record::WAITING).await? {
            let waiting = Waiting::read(&kv)?;
            self.waiting.insert(waiting.enrolment.body.key, waiting);
        }
        Ok(())
    }

    fn remember(&mut self, node: Node) {
        let body = &node.certificate.body;
        // Where two registries let one key in at the same time, both keep the same.
        let first = self.by_key.entry(body.key).or_insert(body.node);
        *first = body.node.min(*first);
        self.changes.mark(body.node);
        self.nodes.insert(body.node, node);
        self.tell_changes();
    }

    /// Since then there may be nodes that this registry does not know.
    fn settle(&mut self, since: UnixTime) {
        let network = &self.trust.parameters().body;
        let longest = u64::from(network.lifetime_secs) + u64::from(network.grace_secs);
        self.settled_at = since.plus(self.policy.settle_secs);
        self.lost_until = since.plus(longest);
    }

    fn set_share(&mut self) {
        let share = share(&self.trust.parameters().body, self.authority.pin);
        self.ipv6.set_share(share);
        self.ipv4.iter_mut().for_each(|all| all.set_share(share));
    }

    fn allocators(&self, plan: &Plan) -> Result<(Allocator, Option<Allocator>)> {
        let network = &self.trust.parameters().body;
        allocators(network, plan, share(network, self.authority.pin))
    }

    /// Marks all addresses of a certificate as taken, or none.
    fn take(&mut self, certificate: &Certificate) -> Result<()> {
        let mut done = Vec::new();
        for prefix in certificate.prefixes.iter().chain(&certificate.ipv4) {
            if let Err(error) = self.allocator(*prefix)?.take(*prefix) {
                self.release(&done);
                return Err(error.into());
            }
            done.push(*prefix);
        }
        Ok(())
    }

    fn release(&mut self, prefixes: &[Prefix]) {
        for prefix in prefixes {
            // What was never taken need not be given back.
            let _ = self
                .allocator(*prefix)
                .map(|allocator| allocator.release(*prefix));
        }
    }

    fn allocator(&mut self, prefix: Prefix) -> Result<&mut Allocator> {
        match prefix.family() {
            hextet_types::Family::V6 => Ok(&mut self.ipv6),
            hextet_types::Family::V4 => self
                .ipv4
                .as_mut()
                .ok_or_else(|| RegistryError::Invalid("this network has no IPv4".into())),
        }
    }

    async fn write(&self, ops: impl IntoIterator<Item = Op>) -> Result<()> {
        self.store.txn(Txn::of(ops)).await?;
        Ok(())
    }

    /// What everybody may know.
    pub fn network(&self) -> Network {
        Network {
            root: Blob(self.authority.root().0.to_vec()),
            parameters: Blob::of(self.trust.parameters()),
            revocations: self.trust.revocations().map(Blob::of).collect(),
            certificate: None,
        }
    }

    /// Changes whenever something does that others are told of.
    pub fn news(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Parameters or revocations have changed.
    fn tell_news(&mut self) {
        self.changes.tick();
        self.news.send_replace(News {
            known: gossip::known(&self.trust),
            changes: self.changes.last(),
        });
    }

    fn tell_changes(&self) {
        let changes = self.changes.last();
        self.news.send_modify(|news| news.changes = changes);
    }

    /// The store, for a backup.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Forgets tokens whose time is over, and, once their certificates have ended for everybody, nodes that were revoked or came in as anonymous; their
    /// addresses are free then. Those of others stay theirs.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn sweep(&mut self, now: UnixTime) -> Result<()> {
        let over: Vec<_> = self
            .tokens
            .iter()
            .filter_map(|(hash, token)| (token.not_after < now).then_some(*hash))
            .collect();
        let grace = u64::from(self.trust.parameters().body.grace_secs);
        let gone: Vec<Node> = self
            .nodes
            .values()
            .filter(|node| node.is_out() || node.certificate.body.class == Class::Anonymous)
            .filter(|node| node.certificate.body.not_after.plus(grace) < now)
            .cloned()
            .collect();
        if over.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let tokens = over.iter().map(|hash| Op::delete(record::token_key(hash)));
        let nodes = gone
            .iter()
            .map(|node| Op::delete(record::node_key(node.certificate.body.node)));
        // A transaction has a bound; what is left goes with the next sweep.
        let ops: Vec<Op> = tokens.chain(nodes).collect();
        for some in ops.chunks(1_000) {
            self.write(some.to_vec()).await?;
        }
        self.tokens.retain(|hash, _| !over.contains(hash));
        for node in gone {
            let body = node.certificate.body;
            let prefixes: Vec<Prefix> = body.prefixes.into_iter().chain(body.ipv4).collect();
            self.release(&prefixes);
            self.nodes.remove(&body.node);
            self.changes.forget(body.node);
            if self.by_key.get(&body.key) == Some(&body.node) {
                self.by_key.remove(&body.key);
            }
        }
        Ok(())
    }
}

async fn found(store: &dyn Store, config: &Config, url: &RegistryUrl, now: UnixTime) -> Result<()> {
    let stored = Stored::of_first(url)?;
    let authority = Authority::open(&stored)?;
    let prefix = match config.prefix {
        Some(prefix) => prefix,
        None => authority::draw_prefix()?,
    };
    let parameters = Parameters {
        network: authority.network(),
        version: 1,
        issuers: authority.issuers(now)?,
        prefix,
        ipv4: config.ipv4,
        registries: vec![RegistryAt {
            url: url.clone(),
            pin: authority.pin,
        }],
        lifetime_secs: LIFETIME_SECS,
        grace_secs: GRACE_SECS,
        hello_secs: HELLO_SECS,
        tunnels: TUNNELS,
        rules: Rules::default(),
    };
    parameters.check()?;
    // Before anything is written: a configuration that can't work leaves no network behind.
    let plan = Plan::of(config);
    let mut trial = Allocator::new(prefix, &plan.communities()?, Share::Whole)?;
    trial.allocate(&[], plan.prefix_len)?;
    let list = Revocations::new(authority.network(), 1, Vec::new());
    let list = list.ok_or_else(|| RegistryError::Setup("make a list of revocations".into()))?;
    let parameters = Signed::sign(parameters, &authority.issuing);
    let list = Signed::sign(list, &authority.issuing);
    store
        .txn(Txn::of([
            Op::put(record::AUTHORITY, record::json(&stored)?),
            Op::put(record::PARAMETERS, parameters.encode()),
            Op::put(record::REVOCATIONS, list.encode()),
        ]))
        .await?;
    Ok(())
}

async fn read_trust(store: &dyn Store, authority: &Authority) -> Result<Trust> {
    let damaged = |e: &dyn std::fmt::Display| RegistryError::Damaged(e.to_string());
    let parameters = need(store, record::PARAMETERS).await?;
    let parameters = Signed::decode(&parameters.value).map_err(|e| damaged(&e))?;
    let mut trust = Trust::new(authority.root(), parameters).map_err(|e| damaged(&e))?;
    let list = need(store, record::REVOCATIONS).await?;
    let list = Signed::decode(&list.value).map_err(|e| damaged(&e))?;
    trust.offer_revocations(list).map_err(|e| damaged(&e))?;
    for kv in scan(store, record::LISTS).await? {
        let list = Signed::decode(&kv.value).map_err(|e| damaged(&e))?;
        // Its signer may have been taken out since.
        let _ = trust.offer_revocations(list);
    }
    Ok(trust)
}

fn allocators(
    network: &Parameters,
    plan: &Plan,
    share: Share,
) -> Result<(Allocator, Option<Allocator>)> {
    let ipv6 = Allocator::new(network.prefix, &plan.communities()?, share)?;
    let ipv4 = network.ipv4.map(|p| Allocator::new(p, &[], share));
    Ok((ipv6, ipv4.transpose()?))
}

async fn get(store: &dyn Store, key: &'static str) -> Result<Option<KeyValue>> {
    Ok(store.get(Bytes::from_static(key.as_bytes())).await?)
}

async fn need(store: &dyn Store, key: &'static str) -> Result<KeyValue> {
    get(store, key)
        .await?
        .ok_or_else(|| RegistryError::Damaged(format!("{key} is gone")))
}

async fn scan(store: &dyn Store, under: &'static str) -> Result<Vec<KeyValue>> {
    let mut scan = store
        .scan(KeyRange::prefix(Bytes::from_static(under.as_bytes())))
        .await?;
    let mut all = Vec::new();
    loop {
        let some = scan.next().await?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}
