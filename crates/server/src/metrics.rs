//! What is counted, and `/metrics`.

use std::sync::Arc;

use axum::{
    extract::State as Shared,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use hextet_model::neutron::Direction;

use crate::{app::App, networking::metering::sums, state::State};

/// A kind of change.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Change {
    resource: &'static str,
    operation: &'static str,
}

/// An outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A kind of thing.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Thing {
    kind: &'static str,
}

/// A kind of answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    status: u16,
}

/// Of which metering label, and which way.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Meter {
    label: String,
    direction: &'static str,
}

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    changes: Family<Change, Counter>,
    logins: Family<Outcome, Counter>,
    requests: Family<Answer, Counter>,
    seconds: Histogram,
    things: Family<Thing, Gauge>,
    revision: Gauge,
    nova_events: Family<Outcome, Counter>,
    nova_waiting: Gauge,
    nova_metadata: Family<Outcome, Counter>,
    metered_packets: Family<Meter, Counter>,
    metered_octets: Family<Meter, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hextet_server");
        let (changes, logins) = (Family::default(), Family::default());
        let (requests, things) = (Family::default(), Family::default());
        let bounds = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
        let (seconds, revision) = (Histogram::new(bounds), Gauge::default());
        registry.register(
            "changes",
            "Resources changed through the API",
            Family::clone(&changes),
        );
        registry.register("logins", "Tokens asked for", Family::clone(&logins));
        registry.register("requests", "Requests answered", Family::clone(&requests));
        registry.register("request_seconds", "Time to an answer", seconds.clone());
        registry.register("things", "Things that there are", Family::clone(&things));
        registry.register(
            "revision",
            "The store's revision that the server stands at",
            revision.clone(),
        );
        let (nova_events, nova_waiting) = (Family::default(), Gauge::default());
        registry.register(
            "nova_events",
            "What became of events for Nova; an event that is tried again counts each time",
            Family::clone(&nova_events),
        );
        registry.register(
            "nova_events_waiting",
            "Events that Nova has not taken yet",
            nova_waiting.clone(),
        );
        let nova_metadata = Family::default();
        registry.register(
            "nova_metadata",
            "What became of questions that servers ask Nova of themselves",
            Family::clone(&nova_metadata),
        );
        let (metered_packets, metered_octets) = (Family::default(), Family::default());
        registry.register(
            "metered_packets",
            "What metering labels have counted, all routers and hosts together",
            Family::clone(&metered_packets),
        );
        registry.register(
            "metered_octets",
            "What metering labels have counted, from IP headers on",
            Family::clone(&metered_octets),
        );
        Metrics {
            registry,
            changes,
            logins,
            requests,
            seconds,
            things,
            revision,
            nova_events,
            nova_waiting,
            nova_metadata,
            metered_packets,
            metered_octets,
        }
    }
}

impl Metrics {
    /// Resources were changed.
    pub fn changed(&self, resource: &'static str, operation: &'static str, count: usize) {
        let change = Change {
            resource,
            operation,
        };
        self.changes.get_or_create(&change).inc_by(count as u64);
    }

    /// Somebody asked for a token.
    pub fn logged_in(&self, succeeded: bool) {
        let outcome = if succeeded { "issued" } else { "refused" };
        self.logins.get_or_create(&Outcome { outcome }).inc();
    }

    /// What became of an event for Nova.
    pub fn told_nova(&self, outcome: &'static str) {
        self.nova_events.get_or_create(&Outcome { outcome }).inc();
    }

    /// What became of a server's question to Nova.
    pub fn asked_nova(&self, outcome: &'static str) {
        self.nova_metadata.get_or_create(&Outcome { outcome }).inc();
    }

    /// How many events Nova has not taken yet.
    pub fn nova_waits(&self, count: usize) {
        self.nova_waiting
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A request was answered.
    pub fn answered(&self, method: &axum::http::Method, status: u16, seconds: f64) {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
        let method = known
            .into_iter()
            .find(|m| *m == method.as_str())
            .unwrap_or("other");
        self.requests
            .get_or_create(&Answer { method, status })
            .inc();
        self.seconds.observe(seconds);
    }

    /// The sums as they stand.
    fn meter(&self, state: &State) {
        self.metered_packets.clear();
        self.metered_octets.clear();
        for metered in sums::all(state) {
            let meter = Meter {
                label: metered.metering_label_id.to_string(),
                direction: match metered.direction {
                    Direction::Ingress => "ingress",
                    Direction::Egress => "egress",
                },
            };
            self.metered_packets
                .get_or_create(&meter)
                .inc_by(metered.packets);
            self.metered_octets
                .get_or_create(&meter)
                .inc_by(metered.octets);
        }
    }

    fn look(&self, app: &App) {
        let state = app.cloud.state();
        let counts = [
            ("networks", state.networks.len()),
            ("subnets", state.subnets.len()),
            ("ports", state.ports.len()),
            ("security_groups", state.groups.len()),
            ("security_group_rules", state.rules.len()),
            ("hosts", state.hosts.len()),
            ("hosts_alive", app.live.fresh()),
            ("tokens", state.identity.tokens.len()),
        ];
        for (kind, count) in counts {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.things.get_or_create(&Thing { kind }).set(count);
        }
        self.meter(&state);
        self.revision
            .set(i64::try_from(state.revision).unwrap_or(i64::MAX));
    }
}

/// `GET /metrics`.
pub async fn metrics(Shared(app): Shared<Arc<App>>) -> Response {
    app.metrics.look(&app);
    let mut text = String::new();
    if encode(&mut text, &app.metrics.registry).is_err() {
        return crate::http::answer::empty(500);
    }
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
