//! `GET /v7/intent`: a host's intent, and from then on what changes in it.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State as Shared,
    http::{HeaderValue, header},
    response::Response,
};
use hextet_api::{agent::IntentMessage, error::ApiError};
use hextet_model::intent::Change;
use hextet_types::HostId;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{AgentError, Joined};
use crate::{app::App, cloud::StepGroup, state::hosts::Step};

/// Agents take a connection for dead after 30 s of silence.
const HEARTBEAT: Duration = Duration::from_secs(8);
/// Octets after which a piece of the answer is sent.
const PIECE: usize = 64 * 1024;

/// `GET /v7/intent`.
pub async fn intent(Shared(app): Shared<Arc<App>>, Joined(host): Joined) -> Response {
    let (revision, steps, changes) = app.cloud.listen(&host);
    info!(%host, revision, steps = steps.len(), "an agent follows its intent");
    let mut first = Vec::new();
    push(&mut first, &IntentMessage::Reset);
    if app.nova_metadata.is_some() {
        let change = Change::SetNovaMetadata(true);
        push(&mut first, &IntentMessage::Change(change));
    }
    let stopping = app.stopping.clone();
    let teller = Teller {
        app,
        host,
        steps: steps.into(),
        leads_to: Some(revision),
        changes,
        stopping,
    };
    let begin = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(first))]);
    let rest = futures::stream::unfold(teller, |mut teller| async {
        let piece = teller.next().await?;
        Some((Ok(piece), teller))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(begin, rest)));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `GET` of a former intent: who asks like this would take what is told for less, or for more, than it says.
///
/// # Errors
///
/// 426, always.
pub async fn too_old(Joined(host): Joined) -> Result<Response, AgentError> {
    warn!(%host, "the agent is older than this server, and gets no intent; install hextet anew there");
    let words = format!(
        "the agent of {host} is too old for this server, whose intent it would misunderstand: install the server's version of \
         hextet on the host; what runs goes on"
    );
    Err(ApiError::new(426, "AgentTooOld", words).into())
}

struct Teller {
    app: Arc<App>,
    host: HostId,
    /// Of the group that is being told.
    steps: VecDeque<Step>,
    /// The group's revision; none between groups.
    leads_to: Option<u64>,
    changes: mpsc::Receiver<StepGroup>,
    stopping: watch::Receiver<bool>,
}

impl Teller {
    /// The next octets; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.leads_to.is_none() {
            let (revision, steps) = self.wait().await?;
            self.steps = steps.into();
            self.leads_to = Some(revision);
        }
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            match self.steps.pop_front() {
                Some(step) => push(&mut piece, &IntentMessage::Change(step.to_change())),
                None => {
                    let revision = self.leads_to.take().unwrap_or_default();
                    push(&mut piece, &IntentMessage::Synced { revision });
                    break;
                }
            }
        }
        Some(Bytes::from(piece))
    }

    /// The next group; an empty one when there was none for a while.
    async fn wait(&mut self) -> Option<StepGroup> {
        let next = async {
            tokio::select! {
                group = self.changes.recv() => group,
                _ = self.stopping.wait_for(|stopping| *stopping) => None,
            }
        };
        if let Ok(group) = timeout(HEARTBEAT, next).await {
            if group.is_none() {
                info!(host = %self.host, "an agent's stream ends");
            }
            return group;
        }
        // Groups are handed on under the state's lock: what is up to this revision is there.
        let revision = self.app.cloud.state().revision;
        match self.changes.try_recv() {
            Ok(group) => Some(group),
            Err(mpsc::error::TryRecvError::Empty) => Some((revision, Vec::new())),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        }
    }
}

fn push(out: &mut Vec<u8>, message: &IntentMessage) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, message).is_err() {
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}
