//! Tells Nova what happens to the ports of its servers (`os-server-external-events`): that an interface is plugged,
//! for each interface anew; that addresses change; that a port is deleted. And asks it, as one of them, what that is to be
//! told of itself.
//!
//! What is plugged is known from agents' reports alone, and not written anywhere: after a start of the server,
//! agents report everything, and Nova is told of all of it again, which it takes.

mod client;
mod http;
mod metadata;
mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hextet_api::agent::{PortState, StatusReport};
use hextet_model::neutron::Port;
use hextet_types::{HostId, PortId, Time};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use self::{
    client::Client,
    queue::{Answer, Fate, Kind, Queue},
};
pub use self::{http::ClientError, metadata::Metadata, queue::Event};
use crate::{
    config::NovaConfig,
    metrics::Metrics,
    state::{
        State,
        notices::{Notice, What},
    },
};

/// Events that wait to be queued; beyond it new ones are lost.
const CHANNEL: usize = 10_000;

/// Where events come in; without Nova they are nobody's business.
#[derive(Debug, Default)]
pub struct Notifier {
    news: Option<mpsc::Sender<Event>>,
    /// The link of each port that was reported to pass packets, by host: 0 where the agent does not tell it.
    plugs: Mutex<HashMap<HostId, BTreeMap<PortId, u32>>>,
}

impl Notifier {
    /// One that somebody listens to.
    pub fn new() -> (Notifier, Option<mpsc::Receiver<Event>>) {
        let (news, events) = mpsc::channel(CHANNEL);
        let notifier = Notifier {
            news: Some(news),
            plugs: Mutex::default(),
        };
        (notifier, Some(events))
    }

    /// One that nobody listens to.
    pub fn off() -> (Notifier, Option<mpsc::Receiver<Event>>) {
        (Notifier::default(), None)
    }

    /// An agent says how its host's ports fare. Each interface that comes to pass packets is news, on the port's
    /// own host and on those that are prepared for it.
    pub fn report(&self, state: &State, host: &HostId, report: &StatusReport) {
        if self.news.is_none() {
            return;
        }
        let lives_here = |id: &PortId| {
            let port = state.ports.get(id);
            port.filter(|port| lives_on(state, port, host))
        };
        let plugged = {
            let mut hosts = self.plugs.lock().unwrap_or_else(PoisonError::into_inner);
            let known = hosts.entry(host.clone()).or_default();
            known.retain(|id, _| lives_here(id).is_some());
            plugged(known, report, |id| lives_here(id).is_some())
        };
        for port in plugged.iter().filter_map(lives_here) {
            self.tell(event(port, Kind::Plugged));
        }
    }

    /// A host is gone.
    pub fn forget(&self, host: &HostId) {
        let mut hosts = self.plugs.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.remove(host);
    }

    /// What the state says has happened.
    pub fn tell_all(&self, state: &State, notices: &[Notice]) {
        for Notice { port, what } in notices {
            let kind = match what {
                What::Deleted => Kind::Deleted,
                What::Readdressed => Kind::Changed,
                What::Left(host) => {
                    self.unplug(state, port.id, host);
                    continue;
                }
                // An interface that a failed migration has left there was told before anybody waited for it.
                What::Awaited(host) if self.has(host, port.id) => Kind::Plugged,
                What::Awaited(_) => continue,
            };
            self.tell(event(port, kind));
        }
    }

    fn has(&self, host: &HostId, port: PortId) -> bool {
        let hosts = self.plugs.lock().unwrap_or_else(PoisonError::into_inner);
        hosts
            .get(host)
            .is_some_and(|known| known.contains_key(&port))
    }

    /// What is plugged when the port is bound there again is news, also where the interface has stayed.
    fn unplug(&self, state: &State, port: PortId, host: &HostId) {
        let now = state.ports.get(&port);
        if now.is_some_and(|port| lives_on(state, port, host)) {
            return;
        }
        let mut hosts = self.plugs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get_mut(host) {
            known.remove(&port);
        }
    }

    fn tell(&self, event: Option<Event>) {
        if let (Some(news), Some(event)) = (&self.news, event)
            && news.try_send(event).is_err()
        {
            warn!(?event, "too many events for Nova; this one is lost");
        }
    }
}

/// The event of a server's port; others' are nobody's business.
fn event(port: &Port, kind: Kind) -> Option<Event> {
    Some(Event {
        server: port.server()?,
        port: port.id,
        kind,
    })
}

/// Whether a port is bound to a host, or prepared there.
pub fn lives_on(state: &State, port: &Port, host: &HostId) -> bool {
    port.binding.host_id.as_ref() == Some(host) || state.bindings.row(port.id, host).is_some()
}

/// Takes in a report; answers which ports have an interface that they did not have.
fn plugged(
    known: &mut BTreeMap<PortId, u32>,
    report: &StatusReport,
    lives_here: impl Fn(&PortId) -> bool,
) -> Vec<PortId> {
    if report.complete {
        known.retain(|id, _| report.ports.contains_key(id));
    }
    let mut news = Vec::new();
    for (id, state) in report.ports.iter().filter(|(id, _)| lives_here(id)) {
        let link = report.plugs.get(id).copied().unwrap_or_default();
        match state {
            PortState::Active if known.insert(*id, link) != Some(link) => news.push(*id),
            PortState::Active => {}
            PortState::Down { .. } => drop(known.remove(id)),
        }
    }
    news
}

/// Tells Nova, for ever.
///
/// # Errors
///
/// The configuration names what cannot be used.
pub async fn run(
    config: NovaConfig,
    own_identity: &str,
    mut events: mpsc::Receiver<Event>,
    metrics: &Metrics,
) -> Result<(), ClientError> {
    let mut client = Client::new(config, own_identity)?;
    let origin = Instant::now();
    let now = || Time::ZERO + origin.elapsed();
    let mut queue = Queue::default();
    let mut trouble = String::new();
    loop {
        let wait = match queue.next_wakeup() {
            Some(due) => due - now(),
            None => Duration::MAX,
        };
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return Ok(()); };
                take(&mut queue, event, now(), metrics);
            }
            () = tokio::time::sleep(wait) => {}
        }
        while let Ok(event) = events.try_recv() {
            take(&mut queue, event, now(), metrics);
        }
        let batch = queue.batch(now());
        if !batch.is_empty() {
            let answers = client.tell(&batch).await;
            note(&mut trouble, answers.as_ref().err());
            queue.answered(answers.is_ok(), now());
            let answers = answers.unwrap_or_default();
            settle(&mut queue, &batch, &answers, now(), metrics);
        }
        metrics.nova_waits(queue.len());
    }
}

fn take(queue: &mut Queue, event: Event, now: Time, metrics: &Metrics) {
    if !queue.push(event, now) {
        warn!(?event, "too much waits for Nova; an event is lost");
        metrics.told_nova("lost");
    }
}

/// Says what is wrong once, and when it is not any more.
fn note(trouble: &mut String, error: Option<&ClientError>) {
    let words = error.map(ToString::to_string).unwrap_or_default();
    match (words.is_empty(), words == *trouble) {
        (_, true) => {}
        (true, false) => info!("Nova takes events again"),
        (false, false) => warn!(error = words, "tell Nova of events; trying again"),
    }
    *trouble = words;
}

fn settle(queue: &mut Queue, batch: &[Event], answers: &[Answer], now: Time, metrics: &Metrics) {
    for (at, event) in batch.iter().enumerate() {
        let answer = answers.get(at).copied().unwrap_or(Answer::Silence);
        let outcome = match queue.answer(*event, answer, now) {
            Fate::Delivered => {
                debug!(?event, "told to Nova");
                "delivered"
            }
            Fate::Waits => "retried",
            Fate::GivenUp => {
                warn!(?event, ?answer, "Nova does not take the event; given up");
                "refused"
            }
        };
        metrics.told_nova(outcome);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn report(complete: bool, ports: &[(u128, Option<u32>)]) -> StatusReport {
        let id = |n: u128| PortId(Uuid::from_u128(n));
        let state = |link: &Option<u32>| match link {
            Some(_) => PortState::Active,
            None => PortState::Down {
                reason: "no link".to_owned(),
            },
        };
        let plugs = ports
            .iter()
            .filter_map(|(n, link)| Some((id(*n), (*link)?)));
        StatusReport {
            complete,
            ports: ports.iter().map(|(n, l)| (id(*n), state(l))).collect(),
            plugs: plugs.filter(|(_, link)| *link != 0).collect(),
            ..StatusReport::default()
        }
    }

    /// Whether all of it is reported, what is, and which ports were plugged by it.
    type Step = (bool, &'static [(u128, Option<u32>)], &'static [u128]);

    #[test]
    fn each_interface_is_news_once() {
        let mut known = BTreeMap::new();
        let steps: [Step; 8] = [
            (true, &[(1, Some(7)), (2, None)], &[1]),
            (false, &[(1, Some(7))], &[]),
            (false, &[(2, Some(8))], &[2]),
            (false, &[(1, Some(9))], &[1]),
            (false, &[(1, None)], &[]),
            (false, &[(1, Some(9))], &[1]),
            (true, &[(1, Some(9))], &[]),
            (true, &[(1, Some(9)), (2, Some(8)), (3, Some(0))], &[2, 3]),
        ];
        for (complete, ports, wanted) in steps {
            let news = plugged(&mut known, &report(complete, ports), |_| true);
            let news: Vec<u128> = news.iter().map(|id| id.0.as_u128()).collect();
            assert_eq!(news, wanted, "{ports:?}");
        }
    }
}
