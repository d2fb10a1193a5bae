//! The map of the whole mesh, for whoever asks.
//!
//! What always holds: all nodes are asked once for all who ask at the same time, and not again for who asks within [`FRESH`].

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use anyhow::Result;
use hextet_mesh::{
    certificate::NodeId,
    letter::Neighbour,
    node::{Event, home_of},
};
use hextet_types::Time;
use tokio::sync::oneshot;

use super::Runner;
use crate::map::{self, Map};

/// For so long a map is new enough.
const FRESH: Duration = Duration::from_secs(3);

/// Who asks, and the last one.
#[derive(Debug, Default)]
pub(super) struct Maps {
    waiting: Vec<oneshot::Sender<Map>>,
    last: Option<(Time, Map)>,
}

impl Runner {
    pub(super) async fn ask_for_map(&mut self, answer: oneshot::Sender<Map>) -> Result<()> {
        let last = self.maps.last.as_ref();
        let fresh = last.filter(|(at, _)| self.clock.now() < *at + FRESH);
        if let Some((_, map)) = fresh {
            // Who has hung up meanwhile does not get it.
            let _ = answer.send(map.clone());
            return Ok(());
        }
        self.maps.waiting.push(answer);
        self.tell(Event::Survey).await
    }

    pub(super) fn surveyed(&mut self, found: &BTreeMap<NodeId, Vec<Neighbour>>) {
        let own = &self.node.certificate().body;
        let others = self.node.certificates();
        let homes: BTreeMap<NodeId, Ipv6Addr> = std::iter::once(own)
            .chain(others)
            .filter_map(|body| Some((body.node, home_of(*body.prefixes.first()?)?)))
            .collect();
        let map = map::map(own.node, found, &homes);
        for waiting in self.maps.waiting.drain(..) {
            let _ = waiting.send(map.clone());
        }
        self.maps.last = Some((self.clock.now(), map));
    }
}
