//! What nodes ask, over HTTPS. Bodies are small, and nobody asks too often.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Extension, State as Shared},
    routing::{get, post},
};
use hextet_mesh::{
    certificate::{Certificate, Class, NodeId},
    key::PublicKey,
    letter::{Known, Presence},
    request::{Accession, Pull},
};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    authority::random,
    book::{Admission, Book, News},
    clock::now,
    error::{RegistryError, Result},
    listener::Peer,
    mail::{Mailer, mailbox},
    message::{
        Blob, EnrolRequest, Grant, InviteRequest, Network, PresenceAnswer, PresenceRequest,
        RenewRequest,
    },
    pace::{Pace, source},
    presence::Present,
    sisters::Heard,
    told::{AccessionAnswer, AccessionRequest, PullAnswer, PullRequest},
};

/// Octets of a request's body: a list of revocations fits.
const MAX_BODY: usize = 96 * 1024;
/// How long an invitation counts that somebody asked for by mail.
const MAIL_MINUTES: u32 = 24 * 60;

/// How long news are waited for.
const LISTENING: Duration = Duration::from_secs(20);
/// Who may wait for news at once. They tell all others.
const MAX_LISTENING: usize = 64;

/// The registry, for all who ask.
#[derive(Debug)]
pub struct App {
    /// One writer at a time.
    pub book: Arc<Mutex<Book>>,
    /// Sends invitations.
    pub mailer: Option<Mailer>,
    enrolments: Pace<IpAddr>,
    renewals: Pace<IpAddr>,
    renewing: Pace<PublicKey>,
    presences: Pace<IpAddr>,
    presenting: Pace<PublicKey>,
    present: StdMutex<Present>,
    /// How the other registries stand.
    pub heard: Arc<Heard>,
    /// Who waits for news.
    listening: StdMutex<BTreeSet<NodeId>>,
    mails: Pace<IpAddr>,
    mailboxes: Pace<String>,
}

impl App {
    /// Nobody has asked yet.
    pub fn new(book: Book, mailer: Option<Mailer>) -> Arc<Self> {
        let secs = Duration::from_secs;
        Arc::new(App {
            book: Arc::new(Mutex::new(book)),
            mailer,
            enrolments: Pace::new(20, secs(6)),
            renewals: Pace::new(100, secs(1)),
            renewing: Pace::new(5, secs(60)),
            presences: Pace::new(100, secs(1)),
            presenting: Pace::new(20, secs(2)),
            present: StdMutex::default(),
            heard: Arc::default(),
            listening: StdMutex::default(),
            mails: Pace::new(5, secs(60)),
            mailboxes: Pace::new(3, secs(8 * 3_600)),
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs to its end whatever becomes of the client: what is written to the store has to come into memory, too.
pub async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(|e| RegistryError::Setup(format!("a request's task: {e}")))?
}

/// All that nodes may ask.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/mesh/v1/network", get(network))
        .route("/mesh/v1/enrol", post(enrol))
        .route("/mesh/v1/renew", post(renew))
        .route("/mesh/v1/presence", post(presence))
        .route("/mesh/v1/revocations", post(revocations))
        .route("/mesh/v1/invite", post(invite))
        .route("/mesh/v1/accede", post(accede))
        .route("/mesh/v1/pull", post(pull))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

async fn network(Shared(app): Shared<Arc<App>>) -> Json<Network> {
    Json(app.book.lock().await.network())
}

fn check(pace: &Pace<IpAddr>, peer: Peer) -> Result<()> {
    match pace.admit(source(peer.0.ip())) {
        true => Ok(()),
        false => Err(RegistryError::Pace),
    }
}

async fn enrol(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<EnrolRequest>,
) -> Result<Json<Network>> {
    check(&app.enrolments, peer)?;
    let enrolment = request.enrolment.read()?;
    whole(async move {
        let mut book = app.book.lock().await;
        let certificate = match book.enrol(enrolment, now()).await? {
            Admission::Admitted(certificate) => Some(certificate),
            Admission::Waiting => None,
        };
        if let Some(certificate) = &certificate {
            info!(node = %certificate.body.node, peer = %peer.0, "a node is in");
        }
        Ok(Json(Network {
            certificate: certificate.as_deref().map(Blob::of),
            ..book.network()
        }))
    })
    .await
}

async fn renew(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<Network>> {
    check(&app.renewals, peer)?;
    let (renewal, newest) = (
        request.renewal.read()?,
        request.certificate.read::<Certificate>()?,
    );
    if !renewal.is_by(&newest.body.key) {
        return Err(RegistryError::Unsigned);
    }
    if !app.renewing.admit(newest.body.key) {
        return Err(RegistryError::Pace);
    }
    whole(async move {
        let mut book = app.book.lock().await;
        let certificate = book.renew(&renewal, &newest, now()).await?;
        Ok(Json(Network {
            certificate: Some(Blob::of(&certificate)),
            ..book.network()
        }))
    })
    .await
}

async fn presence(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<PresenceRequest>,
) -> Result<Json<PresenceAnswer>> {
    check(&app.presences, peer)?;
    let certificate = request.certificate.read::<Certificate>()?;
    let presence = request.presence.read::<Presence>()?;
    let (says, is) = (&presence.body, &certificate.body);
    if !presence.is_by(&is.key) || (says.network, says.node) != (is.network, is.node) {
        return Err(RegistryError::Unsigned);
    }
    let heard = now();
    let book = app.book.lock().await;
    book.vouch(&certificate, says.at, heard)?;
    // Only who is in has a place in mind: keys alone are made for nothing.
    if !app.presenting.admit(is.key) {
        return Err(RegistryError::Pace);
    }
    let news = book.news();
    drop(book);
    // Others hear of it while it waits.
    app.present().says(says, peer.0.ip(), heard);
    let waited = match request.known {
        Some(known) => listen(&app, says.node, news, Known(known)).await,
        None => false,
    };
    let network = app.book.lock().await.network();
    let first = NodeId(u64::from_be_bytes(random()?));
    let others = app.present().others(says.node, first, peer.0.ip(), now());
    Ok(Json(PresenceAnswer {
        network,
        others,
        waited,
    }))
}

/// Waits until there is something that the node does not know, if there is a place for one more who waits; says whether there was.
async fn listen(app: &App, node: NodeId, mut news: watch::Receiver<News>, known: Known) -> bool {
    let Some(_place) = Place::take(app, node) else {
        return false;
    };
    let _ = timeout(LISTENING, news.wait_for(|now| now.known != known)).await;
    true
}

/// Of one who waits for news.
struct Place<'a>(&'a App, NodeId);

impl Place<'_> {
    fn take(app: &App, node: NodeId) -> Option<Place<'_>> {
        let mut all = app.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let free = all.len() < MAX_LISTENING && all.insert(node);
        free.then_some(Place(app, node))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = (self.0.listening.lock()).unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.1);
    }
}

/// A node hands back a list that this registry signed and may have lost.
async fn revocations(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(list): Json<Blob>,
) -> Result<Json<bool>> {
    check(&app.enrolments, peer)?;
    let list = list.read()?;
    whole(async move { Ok(Json(app.book.lock().await.learn_revocations(list).await?)) }).await
}

/// A registry asks to be one of the network's.
async fn accede(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<AccessionRequest>,
) -> Result<Json<AccessionAnswer>> {
    check(&app.enrolments, peer)?;
    let accession = request.accession.read::<Accession>()?;
    whole(async move {
        let mut book = app.book.lock().await;
        book.accede(&accession, now()).await?;
        info!(registry = %accession.body.at.url, peer = %peer.0, "another registry is in");
        Ok(Json(AccessionAnswer {
            network: book.network(),
            plan: book.plan().clone(),
        }))
    })
    .await
}

/// Another registry asks what is new; the answer waits until something is.
async fn pull(
    Shared(app): Shared<Arc<App>>,
    Json(request): Json<PullRequest>,
) -> Result<Json<PullAnswer>> {
    let (pull, parameters) = (request.pull.read::<Pull>()?, request.parameters.read()?);
    let (asked, asking) = (pull.body, Arc::clone(&app));
    let (answer, mut news) = whole(async move {
        let mut book = asking.book.lock().await;
        book.hear(&pull, parameters, now()).await?;
        Ok((book.tell(&asked), book.news()))
    })
    .await?;
    if (answer.run, answer.upto) != (asked.run, asked.heard) {
        return Ok(Json(answer));
    }
    let _ = timeout(LISTENING, news.wait_for(|now| now.changes != asked.heard)).await;
    Ok(Json(app.book.lock().await.tell(&asked)))
}

/// Whether mail was sent is not told: addresses are nobody's business.
async fn invite(
    Shared(app): Shared<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<InviteRequest>,
) -> Result<Json<()>> {
    check(&app.mails, peer)?;
    let email = request.email;
    mailbox(&email)?;
    let Some(mailer) = app.mailer.clone().filter(|mailer| mailer.invites(&email)) else {
        return Ok(Json(()));
    };
    if !app.mailboxes.admit(email.to_lowercase()) {
        return Ok(Json(()));
    }
    tokio::spawn(async move {
        let grant = Grant {
            class: Class::Node,
            groups: Vec::new(),
            minutes: MAIL_MINUTES,
        };
        let invitation = app.book.lock().await.invite(grant, now()).await;
        let sent = match invitation {
            Ok(invitation) => mailer.send(&email, &invitation).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            warn!(%error, "an invitation was not sent");
        }
    });
    Ok(Json(()))
}
