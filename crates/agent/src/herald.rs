//! Tells the server what workloads have said on their links, at once, and again as long as it cannot be told.
//!
//! Who says so too often waits alone: what others have said is told meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use hextet_api::agent::Heard;
use hextet_types::PortId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use crate::{
    client::{self, Connection, Told},
    identity::Identity,
};

/// What waits to be told; more is heard again.
pub const QUEUE: usize = 1_024;
/// Ports in one report, and that wait for the next attempt; and addresses of each, as the server has it.
const MAX_PORTS: usize = 1_000;
const MAX_ADDRESSES: usize = 64;
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts before what was heard is too old.
const ATTEMPTS: u32 = 5;

/// A port, and the addresses that it has said it has.
pub type News = (PortId, BTreeSet<IpAddr>);
type Ports = BTreeMap<PortId, BTreeSet<IpAddr>>;

/// Runs until nobody hears anything any more.
pub async fn run(server: String, identity: Identity, mut news: mpsc::Receiver<News>) {
    let mut herald = Herald {
        server,
        identity,
        connection: None,
        late: Late::default(),
    };
    loop {
        let due = herald.late.due_at();
        tokio::select! {
            first = news.recv() => {
                let Some(first) = first else { return };
                let mut ports = Ports::new();
                gather(&mut ports, first);
                while ports.len() < MAX_PORTS
                    && let Ok(more) = news.try_recv()
                {
                    gather(&mut ports, more);
                }
                let ports = herald.late.keep_back(ports);
                herald.tell_of(ports).await;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let ports = herald.late.due(Instant::now());
                herald.tell_of(ports).await;
            }
        }
    }
}

fn gather(ports: &mut Ports, (port, addresses): News) {
    let all = ports.entry(port).or_default();
    let room = MAX_ADDRESSES.saturating_sub(all.len());
    all.extend(addresses.into_iter().take(room));
}

struct Herald {
    server: String,
    identity: Identity,
    connection: Option<Connection>,
    late: Late,
}

impl Herald {
    /// All at once, and one by one if the server leaves some of it: it does not say of which ports.
    async fn tell_of(&mut self, ports: Ports) {
        if ports.is_empty() {
            return;
        }
        match self.tell(ports.clone()).await {
            Ok(Told::TooOften) if ports.len() > 1 => {
                for (port, addresses) in ports {
                    let one = Ports::from([(port, addresses)]);
                    let told = self.tell(one.clone()).await;
                    self.note(one, told);
                }
            }
            told => self.note(ports, told),
        }
    }

    fn note(&mut self, ports: Ports, told: Result<Told>) {
        let why = match told {
            Ok(Told::All) => return self.late.told(&ports),
            Ok(Told::TooOften) => "it changes too often".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        debug!(why, ?ports, "what was heard is told once more");
        for port in self.late.failed(ports, Instant::now()) {
            warn!(%port, why, "the server does not take what was heard");
        }
    }

    /// By the connection that there is, or else by a new one.
    async fn tell(&mut self, ports: Ports) -> Result<Told> {
        let heard = Heard { ports };
        if let Some(mut open) = self.connection.take()
            && let Ok(told) = open.heard(&heard).await
        {
            self.connection = Some(open);
            return Ok(told);
        }
        let mut new = client::connect(&self.server, self.identity.tls()?).await?;
        let told = new.heard(&heard).await?;
        self.connection = Some(new);
        Ok(told)
    }
}

/// What the server was not told, or left as it is.
#[derive(Debug, Default)]
struct Late(BTreeMap<PortId, Waiting>);

#[derive(Debug)]
struct Waiting {
    addresses: BTreeSet<IpAddr>,
    attempts: u32,
    due: Instant,
}

impl Late {
    /// Takes in the news of ports that wait anyway; gives those of all others.
    fn keep_back(&mut self, news: Ports) -> Ports {
        let mut others = Ports::new();
        for (port, mut addresses) in news {
            match self.0.get_mut(&port) {
                Some(waiting) => {
                    addresses.append(&mut waiting.addresses);
                    waiting.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
                }
                None => drop(others.insert(port, addresses)),
            }
        }
        others
    }

    fn due_at(&self) -> Option<Instant> {
        self.0.values().map(|waiting| waiting.due).min()
    }

    fn due(&self, now: Instant) -> Ports {
        let due = self.0.iter().filter(|(_, waiting)| waiting.due <= now);
        due.map(|(port, waiting)| (*port, waiting.addresses.clone()))
            .collect()
    }

    fn told(&mut self, ports: &Ports) {
        self.0.retain(|port, _| !ports.contains_key(port));
    }

    /// Gives the ports of which it was tried for the last time.
    fn failed(&mut self, ports: Ports, now: Instant) -> Vec<PortId> {
        let mut given_up = Vec::new();
        for (port, addresses) in ports {
            let attempts = self.0.remove(&port).map_or(0, |waiting| waiting.attempts) + 1;
            if attempts >= ATTEMPTS || self.0.len() >= MAX_PORTS {
                given_up.push(port);
                continue;
            }
            let waiting = Waiting {
                addresses,
                attempts,
                due: now + RETRY,
            };
            self.0.insert(port, waiting);
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn port(n: usize) -> PortId {
        PortId(Uuid::from_u128(n as u128))
    }

    fn said(n: usize, last: u8) -> Ports {
        Ports::from([(port(n), BTreeSet::from([[10, 0, 0, last].into()]))])
    }

    #[test]
    fn who_waits_does_so_alone_and_with_all_that_it_says_meanwhile() {
        let (mut late, now) = (Late::default(), Instant::now());
        assert!(late.failed(said(1, 1), now).is_empty());
        let mut news = said(1, 2);
        news.extend(said(2, 3));
        assert_eq!(late.keep_back(news), said(2, 3));
        assert_eq!(late.due(now), Ports::new());
        assert_eq!(late.due_at(), Some(now + RETRY));
        let due = late.due(now + RETRY);
        assert_eq!(due[&port(1)].len(), 2, "{due:?}");
        late.told(&due);
        assert_eq!(late.due_at(), None);
        assert_eq!(late.keep_back(said(1, 4)), said(1, 4));
    }

    #[test]
    fn attempts_and_what_waits_are_bounded() {
        let (mut late, now) = (Late::default(), Instant::now());
        for _ in 1..ATTEMPTS {
            assert!(late.failed(said(1, 1), now).is_empty());
        }
        assert_eq!(late.failed(said(1, 1), now), [port(1)]);
        assert_eq!(late.due_at(), None);
        for n in 0..MAX_PORTS {
            assert!(late.failed(said(n, 1), now).is_empty());
        }
        assert_eq!(late.failed(said(MAX_PORTS, 1), now), [port(MAX_PORTS)]);
        let many = (0..=255).map(|last| [10, 0, 0, last].into()).collect();
        assert!(late.keep_back([(port(1), many)].into()).is_empty());
        assert_eq!(late.due(now + RETRY)[&port(1)].len(), MAX_ADDRESSES);
    }
}
