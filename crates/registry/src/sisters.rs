//! Keeps a registry up to date with the others of its network: each asks each other one what is new, and waits for the answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use hextet_mesh::{certificate::UnixTime, parameters::RegistryAt, request::Pull, signed::Signed};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    book::Book,
    client,
    clock::now,
    error::{RegistryError, Result},
    message::Blob,
    told::{PullAnswer, PullRequest},
};

/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// After an answer, so that many changes go together.
const TOGETHER: Duration = Duration::from_millis(200);
/// Everything is told anew that often: what could not be taken at first may be by then.
const ANEW: Duration = Duration::from_secs(3_600);

/// When others were heard last, and why they are not.
#[derive(Debug, Default)]
pub struct Heard(StdMutex<BTreeMap<RegistryAt, State>>);

/// How another one stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When it answered last.
    pub heard: Option<UnixTime>,
    /// Why it does not answer.
    pub away: Option<String>,
}

impl Heard {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RegistryAt, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How one stands.
    pub fn of(&self, registry: &RegistryAt) -> State {
        self.all().get(registry).cloned().unwrap_or_default()
    }

    fn is_there(&self, registry: &RegistryAt) {
        let state = State {
            heard: Some(now()),
            away: None,
        };
        let before = self.all().insert(registry.clone(), state);
        if before.is_none_or(|before| before.away.is_some()) {
            info!(registry = %registry.url, "another registry is heard");
        }
    }

    fn is_away(&self, registry: &RegistryAt, error: &RegistryError) {
        let mut all = self.all();
        let state = all.entry(registry.clone()).or_default();
        if state.away.replace(error.to_string()).is_none() {
            warn!(registry = %registry.url, %error, "another registry is not heard; it is asked again every 2 s");
        }
    }
}

/// Asks all others, for ever.
pub async fn follow(book: Arc<Mutex<Book>>, heard: Arc<Heard>) {
    let mut news = book.lock().await.news();
    loop {
        let others = book.lock().await.others();
        heard.all().retain(|registry, _| others.contains(registry));
        let mut asking = JoinSet::new();
        for registry in others.clone() {
            asking.spawn(ask(Arc::clone(&book), Arc::clone(&heard), registry));
        }
        while book.lock().await.others() == others {
            if news.changed().await.is_err() {
                return;
            }
        }
        asking.abort_all();
    }
}

async fn ask(book: Arc<Mutex<Book>>, heard: Arc<Heard>, registry: RegistryAt) {
    let mut place = Place::new();
    loop {
        if place.since.elapsed() > ANEW {
            place = Place::new();
        }
        match pull(&book, &registry, &mut place).await {
            Ok(more) => {
                heard.is_there(&registry);
                if !more {
                    sleep(TOGETHER).await;
                }
            }
            Err(error) => {
                heard.is_away(&registry, &error);
                sleep(AGAIN).await;
            }
        }
    }
}

/// Up to where the other one has told everything.
struct Place {
    run: u64,
    heard: u64,
    since: Instant,
}

impl Place {
    fn new() -> Place {
        Place {
            run: 0,
            heard: 0,
            since: Instant::now(),
        }
    }
}

/// Says whether there is more.
async fn pull(book: &Arc<Mutex<Book>>, registry: &RegistryAt, place: &mut Place) -> Result<bool> {
    let request = book.lock().await.ask(place.run, place.heard, now());
    let answer = client::ask(registry, "/mesh/v1/pull", Some(&request)).await;
    let answer: PullAnswer = answer.map_err(|e| RegistryError::Setup(e.to_string()))?;
    let (run, upto, more) = (answer.run, answer.upto, answer.more);
    let told = answer.read()?;
    let book = Arc::clone(book);
    // To its end even where this task is told to stop: what is written has to come into memory, too.
    let adopting = tokio::spawn(async move { book.lock().await.adopt(told, !more, now()).await });
    let adopted = adopting.await;
    adopted.map_err(|e| RegistryError::Setup(e.to_string()))??;
    (place.run, place.heard) = (run, upto);
    Ok(more)
}

impl Book {
    /// What another registry is asked.
    pub fn ask(&self, run: u64, heard: u64, at: UnixTime) -> PullRequest {
        let pull = Pull {
            network: self.network_id(),
            at,
            run,
            heard,
        };
        PullRequest {
            pull: Blob::of(&Signed::sign(pull, self.issuing())),
            parameters: Blob::of(self.parameters_signed()),
        }
    }
}
