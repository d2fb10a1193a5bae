//! Tells the server what multicast groups ports have joined: of each port the whole, at once, and again as long as it cannot be
//! told. Of what is said meanwhile only the last is told. Whether the server keeps it is seen by who says it: they say it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use hextet_api::agent::Memberships;
use hextet_types::PortId;
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::{
    client::{self, Connection, Told},
    identity::Identity,
};

/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Between two reports: what workloads join together is told together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What is said of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// All groups that it has joined.
    pub groups: BTreeSet<IpAddr>,
    /// Another for each saying, so that the same may be said again.
    pub number: u64,
}

/// Ports of which something is said.
pub type Ports = BTreeMap<PortId, Saying>;

/// The numbers of what has been told.
type Numbers = BTreeMap<PortId, u64>;

/// Runs until nobody hears anything any more.
pub async fn run(server: String, identity: Identity, mut joined: watch::Receiver<Ports>) {
    let mut told = Numbers::new();
    let mut caller = Caller {
        server,
        identity,
        connection: None,
    };
    while joined.changed().await.is_ok() {
        loop {
            let all = joined.borrow_and_update().clone();
            told.retain(|port, _| all.contains_key(port));
            let news = news(&all, &told);
            if news.is_empty() {
                break;
            }
            let numbers = numbers(&news);
            match caller.tell(news).await {
                Ok(Told::All) => {
                    told.extend(numbers);
                    sleep(TOGETHER).await;
                }
                // It does not say of which; what it has taken changes nothing once more.
                Ok(Told::TooOften) => sleep(RETRY).await,
                Err(error) => {
                    debug!(error = format!("{error:#}"), "groups are told once more");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// What is not told yet, as much as one report holds.
fn news(all: &Ports, told: &Numbers) -> Ports {
    let news = all
        .iter()
        .filter(|(port, saying)| told.get(port) != Some(&saying.number));
    let news = news.map(|(port, saying)| (*port, saying.clone()));
    news.take(Memberships::MAX_PORTS).collect()
}

fn numbers(news: &Ports) -> Numbers {
    let all = news.iter();
    all.map(|(port, saying)| (*port, saying.number)).collect()
}

struct Caller {
    server: String,
    identity: Identity,
    connection: Option<Connection>,
}

impl Caller {
    /// By the connection that there is, or else by a new one.
    async fn tell(&mut self, ports: Ports) -> Result<Told> {
        let ports = ports.into_iter();
        let memberships = Memberships {
            ports: ports.map(|(port, saying)| (port, saying.groups)).collect(),
        };
        if let Some(mut open) = self.connection.take()
            && let Ok(outcome) = open.joined(&memberships).await
        {
            self.connection = Some(open);
            return Ok(outcome);
        }
        let mut new = client::connect(&self.server, self.identity.tls()?).await?;
        let outcome = new.joined(&memberships).await?;
        self.connection = Some(new);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ports(all: std::ops::Range<usize>, number: u64) -> Ports {
        let port = |n: usize| PortId(Uuid::from_u128(n as u128));
        let groups = BTreeSet::from([[239, 0, 0, 1].into()]);
        let saying = Saying { groups, number };
        all.map(|n| (port(n), saying.clone())).collect()
    }

    #[test]
    fn what_is_not_told_yet_is_told_in_reports_of_bounded_length() {
        let all = ports(0..Memberships::MAX_PORTS + 5, 1);
        let mut told = Numbers::new();
        let first = news(&all, &told);
        assert_eq!(first.len(), Memberships::MAX_PORTS);
        told.extend(numbers(&first));
        assert_eq!(news(&all, &told).len(), 5);
        told.extend(numbers(&news(&all, &told)));
        assert_eq!(news(&all, &told), Ports::new());
        let mut again = all.clone();
        again.extend(ports(7..8, 2));
        assert_eq!(
            news(&again, &told),
            ports(7..8, 2),
            "the same, but said again"
        );
    }
}
