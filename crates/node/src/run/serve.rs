//! What the node does for another program on this host ([`Served`]).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use hextet_babel::{
    number::Metric,
    packet::{Class, Destination},
};
use hextet_mesh::node::home_of;
use hextet_types::Prefix;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Runner;
use crate::{
    babel::Order,
    control::Asked,
    served::{Served, Serving},
};

impl Runner {
    pub(super) async fn asked(&mut self, asked: Asked) -> Result<()> {
        match asked {
            // Who has hung up meanwhile does not get it.
            Asked::Status(answer) => drop(answer.send(self.status())),
            Asked::Map(answer) => self.ask_for_map(answer).await?,
            Asked::Serve(served, answer) => drop(answer.send(self.serve(served).await)),
        }
        Ok(())
    }

    async fn serve(&mut self, served: Served) -> Result<watch::Receiver<Serving>> {
        served.check()?;
        if served != self.served {
            info!(
                announce = served.announce.len(),
                accept = served.accept.len(),
                "another program has this node serve it"
            );
            // First it is remembered: what was announced once is announced after a restart.
            self.memory.keep_served(&served)?;
            let before = std::mem::replace(&mut self.served, served);
            self.announce(&before.announce).await?;
            self.ways.accept(&self.served.accept);
        }
        self.serving()?;
        let serving = self.serving.as_ref();
        Ok(serving.context("no address")?.subscribe())
    }

    /// What was announced before, and is not any more, is withdrawn.
    async fn announce(&self, before: &BTreeSet<Prefix>) -> Result<()> {
        let own = self.own_prefixes();
        let now = &self.served.announce;
        for prefix in before.difference(now).filter(|p| !own.contains(*p)) {
            self.both_classes(*prefix, Order::Withdraw).await?;
        }
        let originate = |to| Order::Originate(to, Metric::ZERO);
        for prefix in now.difference(before).filter(|p| !own.contains(*p)) {
            self.both_classes(*prefix, originate).await?;
        }
        Ok(())
    }

    async fn both_classes(
        &self,
        prefix: Prefix,
        order: impl Fn(Destination) -> Order,
    ) -> Result<()> {
        for class in [Class::Latency, Class::Throughput] {
            let to = Destination::of(prefix).in_class(class);
            self.order(order(to)).await?;
        }
        Ok(())
    }

    fn own_prefixes(&self) -> BTreeSet<Prefix> {
        let body = &self.node.certificate().body;
        let own = body.prefixes.iter().chain(&body.ipv4);
        own.chain(&self.config.announce).copied().collect()
    }

    /// Those who listen hear of it if something is different.
    pub(super) fn serving(&mut self) -> Result<()> {
        let home = self.node.certificate().body.prefixes.first().copied();
        let home = home.and_then(home_of).context("no address")?;
        let serving = Serving {
            home,
            is_connected: (self.babel.links.iter()).any(|link| !link.neighbours.is_empty()),
        };
        match &self.serving {
            Some(standing) => drop(standing.send_if_modified(|told| {
                let is_news = *told != serving;
                *told = serving;
                is_news
            })),
            None => self.serving = Some(watch::Sender::new(serving)),
        }
        Ok(())
    }

    pub(super) fn tell_serving(&mut self) {
        if self.serving.is_some()
            && let Err(error) = self.serving()
        {
            warn!("{error:#}");
        }
    }
}
