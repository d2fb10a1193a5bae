//! Keeps an intent stream open and hands on what it brings, group by group.
//!
//! While the server is away nothing is handed on, so that what runs goes on running; after its return
//! the whole intent comes as one snapshot.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hextet_api::agent::IntentMessage;
use hextet_model::intent::{Change, Intent};
use rand::Rng;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tracing::{info, warn};

use crate::{client, identity::Identity};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// Changes in one group; a server that sends more is not ours.
const MAX_GROUP: usize = 1_000_000;

/// What the stream brought.
#[derive(Debug)]
pub enum Update {
    /// The whole intent, as it stands at this revision.
    Whole(Box<Intent>, u64),
    /// One group of changes, which lead to this revision.
    Group(Vec<Change>, u64),
    /// Nothing new.
    StillAt(u64),
}

/// Runs until the receiver is gone. `reach` says that the server may be within reach again: then a connection that has
/// been silent is not waited for.
pub async fn run(
    server: String,
    identity: Identity,
    updates: mpsc::Sender<Update>,
    reach: Arc<Notify>,
) {
    let mut retry = FIRST_RETRY;
    while !updates.is_closed() {
        let followed = tokio::select! {
            followed = follow(&server, &identity, &updates, &mut retry) => followed,
            () = reach.notified() => {
                info!("a way to the server may be new: asking for the intent anew");
                retry = FIRST_RETRY;
                continue;
            }
        };
        match followed {
            Ok(()) => return,
            Err(error) => warn!(
                error = format!("{error:#}"),
                "no intent from the server; what runs goes on"
            ),
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::select! {
            () = sleep(retry.mul_f64(jitter)) => {}
            () = reach.notified() => retry = FIRST_RETRY,
        }
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn follow(
    server: &str,
    identity: &Identity,
    updates: &mpsc::Sender<Update>,
    retry: &mut Duration,
) -> Result<()> {
    let mut stream = client::connect(server, identity.tls()?)
        .await?
        .intent()
        .await?;
    info!(server, "following the intent");
    let mut group = Group::default();
    loop {
        if let Some(update) = group.take(stream.next().await?)? {
            *retry = FIRST_RETRY;
            if updates.send(update).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The group that is being received.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    whole: Option<Box<Intent>>,
}

impl Group {
    fn take(&mut self, message: IntentMessage) -> Result<Option<Update>> {
        match message {
            IntentMessage::Reset => {
                self.changes.clear();
                self.whole = Some(Box::default());
            }
            IntentMessage::Change(change) => match &mut self.whole {
                Some(intent) => intent.apply(change),
                None => self.changes.push(change),
            },
            IntentMessage::Synced { revision } => {
                let changes = std::mem::take(&mut self.changes);
                return Ok(Some(match self.whole.take() {
                    Some(intent) => Update::Whole(intent, revision),
                    None if changes.is_empty() => Update::StillAt(revision),
                    None => Update::Group(changes, revision),
                }));
            }
        }
        (self.changes.len() <= MAX_GROUP)
            .then_some(None)
            .with_context(|| format!("a group of more than {MAX_GROUP} changes"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hextet_model::intent::RoutingDomain;
    use hextet_types::SecurityGroupId;
    use uuid::Uuid;

    use super::*;

    fn change() -> Change {
        Change::AddMembers(
            SecurityGroupId(Uuid::nil()),
            RoutingDomain::Routed,
            BTreeSet::from([[10, 0, 0, 1].into()]),
        )
    }

    #[test]
    fn a_group_is_handed_on_only_when_it_is_whole() {
        let mut group = Group::default();
        assert!(
            group
                .take(IntentMessage::Change(change()))
                .unwrap()
                .is_none()
        );
        let synced = IntentMessage::Synced { revision: 5 };
        assert!(
            matches!(group.take(synced.clone()).unwrap(), Some(Update::Group(c, 5)) if c.len() == 1)
        );
        assert!(matches!(
            group.take(synced).unwrap(),
            Some(Update::StillAt(5))
        ));
    }

    #[test]
    fn a_reset_makes_the_next_group_a_snapshot() {
        let mut group = Group::default();
        group.take(IntentMessage::Change(change())).unwrap();
        group.take(IntentMessage::Reset).unwrap();
        group.take(IntentMessage::Change(change())).unwrap();
        let update = group.take(IntentMessage::Synced { revision: 6 }).unwrap();
        assert!(matches!(update, Some(Update::Whole(intent, 6)) if intent.members.len() == 1));
    }
}
