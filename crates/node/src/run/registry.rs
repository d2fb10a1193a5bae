//! What is asked of a registry, while everything else goes on: who is there, and the next certificate.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use hextet_mesh::{
    certificate::{Certificate, UnixTime},
    key::SigningKey,
    node::Event,
    parameters::RegistryAt,
    signed::Signed,
    topology::Reach,
    trust::Trust,
};
use hextet_registry::{
    client::{self, ClientError, Joined, Presented},
    clock::now as wall,
};
use hextet_types::Way;
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, info, warn};

use super::Runner;

/// From one wait for news to the next; to that after the registry was away; where others wait instead.
const SOON: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);
/// Answers that wait.
const ANSWERS: usize = 8;

/// What a registry said, and which one.
#[derive(Debug)]
pub(super) enum Answer {
    /// Who is there.
    Others(Result<(RegistryAt, Box<Presented>), ClientError>),
    /// What is new.
    News(Result<Box<Presented>, ClientError>),
    /// The next certificate.
    Renewed(Result<(RegistryAt, Box<Joined>), ClientError>),
}

/// Asks in the background, one question of each kind at a time.
pub(super) struct Asker {
    key: Arc<SigningKey>,
    answers: mpsc::Sender<Answer>,
    /// Who answered last is asked first.
    last: Option<RegistryAt>,
    is_asking: bool,
    is_renewing: bool,
    is_listening: bool,
}

impl Asker {
    pub(super) fn new(key: SigningKey) -> (Asker, mpsc::Receiver<Answer>) {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let asker = Asker {
            key: Arc::new(key),
            answers,
            last: None,
            is_asking: false,
            is_renewing: false,
            is_listening: false,
        };
        (asker, answered)
    }

    /// The one that was asked last is away: the next one is asked first.
    fn turn(&mut self, trust: &Trust) {
        let all = &trust.parameters().body.registries;
        let last = all.iter().position(|r| Some(r) == self.last.as_ref());
        let next = last.map_or(0, |at| at + 1);
        self.last = all.get(next).or_else(|| all.first()).cloned();
    }

    fn order(&self, trust: &Trust) -> Vec<RegistryAt> {
        let mut all = trust.parameters().body.registries.clone();
        all.sort_by_key(|registry| Some(registry) != self.last.as_ref());
        all
    }
}

/// Who it is that asks.
struct Who {
    key: Arc<SigningKey>,
    certificate: Signed<Certificate>,
    trust: Trust,
    at: UnixTime,
}

impl Runner {
    fn who(&self) -> Who {
        Who {
            key: Arc::clone(&self.registry.key),
            certificate: self.node.certificate().clone(),
            trust: self.node.trust().clone(),
            at: wall(),
        }
    }

    pub(super) fn ask_registry(&mut self) {
        if std::mem::replace(&mut self.registry.is_asking, true) {
            return;
        }
        let candidates = self.reachable();
        let (who, registries) = (self.who(), self.registry.order(self.node.trust()));
        let answers = self.registry.answers.clone();
        tokio::spawn(async move {
            let answer = present(&who, registries, candidates).await;
            let _ = answers.send(Answer::Others(answer)).await;
        });
    }

    /// Waits for news at the registry that answered last, after a while: a revocation is to be everywhere in seconds.
    fn listen(&self, after: Duration) {
        let Some(registry) = self.registry.last.clone() else {
            return;
        };
        let (who, known) = (self.who(), self.node.known());
        let (answers, candidates) = (self.registry.answers.clone(), self.reachable());
        tokio::spawn(async move {
            sleep(after).await;
            let asked = client::present(
                &registry,
                &who.key,
                &who.certificate,
                who.trust.root(),
                candidates,
                Some(known),
                wall(),
            );
            let answer = asked.await.map(Box::new);
            let _ = answers.send(Answer::News(answer)).await;
        });
    }

    /// Where anybody can reach this node, if anybody can.
    fn reachable(&self) -> Vec<Way> {
        let card = self.node.card();
        match card.reach {
            Reach::Public => card.candidates,
            Reach::Punchable | Reach::Closed => Vec::new(),
        }
    }

    /// At a third of its time left.
    pub(super) fn renew_if_due(&mut self) {
        let body = &self.node.certificate().body;
        let lifetime = body.not_after.0.saturating_sub(body.not_before.0);
        let due = body.not_after.0.saturating_sub(lifetime / 3);
        if wall().0 < due || std::mem::replace(&mut self.registry.is_renewing, true) {
            return;
        }
        let (who, registries) = (self.who(), self.registry.order(self.node.trust()));
        let answers = self.registry.answers.clone();
        tokio::spawn(async move {
            let answer = renew(&who, registries).await;
            let _ = answers.send(Answer::Renewed(answer)).await;
        });
    }

    pub(super) async fn registry_answers(&mut self, answer: Answer) -> Result<()> {
        match answer {
            Answer::Others(answer) => {
                self.registry.is_asking = false;
                match answer {
                    Ok((registry, presented)) => {
                        self.registry.last = Some(registry);
                        self.tell(Event::Trust(Box::new(presented.trust))).await?;
                        self.tell(Event::Introduced(presented.others)).await?;
                        if !std::mem::replace(&mut self.registry.is_listening, true) {
                            self.listen(Duration::ZERO);
                        }
                    }
                    Err(error) => warn!(%error, "ask a registry who is there"),
                }
            }
            Answer::News(answer) => {
                let after = match answer {
                    Ok(presented) => {
                        let again = match presented.waited {
                            true => SOON,
                            false => LATER,
                        };
                        self.tell(Event::Trust(Box::new(presented.trust))).await?;
                        again
                    }
                    Err(error) => {
                        debug!(%error, "wait for news at a registry");
                        self.registry.turn(self.node.trust());
                        AWAY
                    }
                };
                self.listen(after);
            }
            Answer::Renewed(answer) => {
                self.registry.is_renewing = false;
                match answer {
                    Ok((registry, joined)) => {
                        self.registry.last = Some(registry);
                        self.renewed(*joined).await?;
                    }
                    Err(error) => warn!(%error, "renew the certificate"),
                }
            }
        }
        Ok(())
    }

    async fn renewed(&mut self, joined: Joined) -> Result<()> {
        self.tell(Event::Trust(Box::new(joined.trust))).await?;
        let Some(certificate) = joined.certificate else {
            return Ok(());
        };
        let (before, body) = (&self.node.certificate().body, &certificate.body);
        info!(
            serial = body.serial,
            not_after = body.not_after.0,
            "the certificate is renewed"
        );
        if (&before.prefixes, before.ipv4) != (&body.prefixes, body.ipv4) {
            warn!("this node's prefixes are others now: start it anew");
        }
        self.tell(Event::Renewed(Box::new(certificate))).await?;
        let kept = self
            .memory
            .keep_identity(self.node.trust(), self.node.certificate());
        if let Err(error) = kept {
            warn!("{error:#}");
        }
        Ok(())
    }
}

/// The first registry that answers; what the last one said, if none does.
async fn present(
    who: &Who,
    registries: Vec<RegistryAt>,
    candidates: Vec<Way>,
) -> Result<(RegistryAt, Box<Presented>), ClientError> {
    let mut refused = nobody();
    for registry in registries {
        let root = who.trust.root();
        let asked = client::present(
            &registry,
            &who.key,
            &who.certificate,
            root,
            candidates.clone(),
            None,
            who.at,
        );
        match asked.await {
            Ok(presented) => return Ok((registry, Box::new(presented))),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

async fn renew(
    who: &Who,
    registries: Vec<RegistryAt>,
) -> Result<(RegistryAt, Box<Joined>), ClientError> {
    let mut refused = nobody();
    for registry in registries {
        let root = who.trust.root();
        match client::renew(&registry, &who.key, &who.certificate, root, who.at).await {
            Ok(joined) => return Ok((registry, Box::new(joined))),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn nobody() -> ClientError {
    ClientError::Unreachable {
        whom: "a registry".to_owned(),
        why: "the network's parameters name none".to_owned(),
    }
}
