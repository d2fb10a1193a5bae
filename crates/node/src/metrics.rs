//! `/metrics`, in the OpenMetrics text format, and `/map`, the whole mesh as a page.
//!
//! A scrape asks the node how it stands, so nothing here has to be kept up to date in between. There is a series for each strand of a tunnel,
//! of which a node has few, and none for each node or address that it knows.

use std::{net::SocketAddr, sync::atomic::AtomicU64};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hextet_types::Way;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    control::Asked,
    map::{self, Map},
    status::{Status, Tunnel},
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Seconds = Gauge<f64, AtomicU64>;

/// Listens there.
///
/// # Errors
///
/// It can't.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("listen for scrapes of /metrics on {address}"))
}

/// Answers as long as it is polled.
///
/// # Errors
///
/// Never, so far: `axum` goes on after failures to accept.
pub async fn serve(listener: TcpListener, asked: mpsc::Sender<Asked>) -> Result<()> {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/map", get(show))
        .route("/map.svg", get(draw))
        .with_state(asked);
    let served = axum::serve(listener, router).await;
    served.context("answer scrapes of /metrics")
}

async fn scrape(State(asked): State<mpsc::Sender<Asked>>) -> Response {
    answer(gather(&asked).await, CONTENT_TYPE)
}

async fn show(State(asked): State<mpsc::Sender<Asked>>) -> Response {
    picture(&asked, "text/html; charset=utf-8", map::page).await
}

async fn draw(State(asked): State<mpsc::Sender<Asked>>) -> Response {
    picture(&asked, "image/svg+xml", map::svg).await
}

/// Drawing takes a moment, in which nobody else is to wait.
async fn picture(
    asked: &mpsc::Sender<Asked>,
    kind: &'static str,
    draw: fn(&Map) -> String,
) -> Response {
    let drawn = async {
        let (sender, answer) = oneshot::channel();
        let sent = asked.try_send(Asked::Map(sender));
        sent.context("the node is busy")?;
        let map = answer.await.context("the node has ended")?;
        Ok(tokio::task::spawn_blocking(move || draw(&map)).await?)
    };
    answer(drawn.await, kind)
}

fn answer(text: Result<String>, kind: &'static str) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

async fn gather(asked: &mpsc::Sender<Asked>) -> Result<String> {
    let (sender, answer) = oneshot::channel();
    let sent = asked.try_send(Asked::Status(sender));
    sent.context("the node is busy")?;
    render(&answer.await.context("the node has ended")?)
}

fn render(status: &Status) -> Result<String> {
    let mut registry = Registry::with_prefix("hextet_mesh");
    register_node(&mut registry, status);
    register_routes(&mut registry, status);
    register_tunnels(&mut registry, &status.tunnels);
    let mut text = String::new();
    encode(&mut text, &registry).context("encode the metrics")?;
    Ok(text)
}

fn register_node(registry: &mut Registry, status: &Status) {
    let figures = [
        (
            "certificate_expiry_timestamp_seconds",
            "When the certificate ends, in seconds since 1970",
            status.certificate.not_after,
        ),
        (
            "parameters_version",
            "Version of the network's parameters that the node has",
            status.parameters,
        ),
        (
            "known_nodes",
            "Other nodes that the node knows",
            status.contacts as u64,
        ),
        (
            "lan_neighbours",
            "Nodes on the same networks to which packets go without tunnels",
            status.lan.len() as u64,
        ),
        (
            "revoked_certificates",
            "Certificates that count no more, as the registries say",
            status.revoked as u64,
        ),
        (
            "resuming",
            "Whether routes of an earlier run stand until it is known which are still good",
            status.resuming.into(),
        ),
    ];
    for (name, help, figure) in figures {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(figure);
        registry.register(name, help, gauge);
    }
    let refused = Counter::<u64, AtomicU64>::default();
    refused.inc_by(status.refused);
    registry.register(
        "letters_refused",
        "Letters of others that were not believed",
        refused,
    );
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectLabels {
    state: &'static str,
}

fn register_routes(registry: &mut Registry, status: &Status) {
    let known = Family::<RouteLabels, Gauge>::default();
    let chosen = Family::<RouteLabels, Gauge>::default();
    for route in &status.routes {
        let labels = RouteLabels {
            class: route.class.clone(),
        };
        known.get_or_create(&labels).inc();
        chosen
            .get_or_create(&labels)
            .inc_by(i64::from(route.chosen));
    }
    registry.register(
        "routes_known",
        "Routes that Babel knows, for packets of a class",
        known,
    );
    registry.register(
        "routes_chosen",
        "Routes that Babel has chosen, for packets of a class",
        chosen,
    );
    let direct = Family::<DirectLabels, Gauge>::default();
    for (state, good) in [("good", true), ("failed", false)] {
        let count = status.direct.iter().filter(|d| d.good == good).count();
        let gauge = direct.get_or_create(&DirectLabels { state });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register(
        "direct_routes",
        "Routes of the host to other nodes that are watched",
        direct,
    );
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TunnelLabels {
    node: String,
    strand: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    node: String,
    strand: u8,
    interface: String,
    kind: String,
    stage: String,
    way: &'static str,
}

fn labels(tunnel: &Tunnel) -> TunnelLabels {
    TunnelLabels {
        node: tunnel.node.clone(),
        strand: tunnel.strand,
    }
}

fn register_tunnels(registry: &mut Registry, tunnels: &[Tunnel]) {
    let info = Family::<InfoLabels, Gauge>::default();
    let up = Family::<TunnelLabels, Gauge>::default();
    let routes = Family::<TunnelLabels, Gauge>::default();
    let mtu = Family::<TunnelLabels, Gauge>::default();
    let round_trip = Family::<TunnelLabels, Seconds>::default();
    for tunnel in tunnels {
        let labels = labels(tunnel);
        info.get_or_create(&InfoLabels {
            node: tunnel.node.clone(),
            strand: tunnel.strand,
            interface: tunnel.interface.clone(),
            kind: tunnel.kind.clone(),
            stage: tunnel.stage.clone(),
            way: match tunnel.endpoint {
                Some(Way::Udp(_)) => "udp",
                Some(Way::Tls(_)) => "tls",
                None => "",
            },
        })
        .set(1);
        up.get_or_create(&labels).set(tunnel.up.into());
        let count = i64::try_from(tunnel.routes).unwrap_or(i64::MAX);
        routes.get_or_create(&labels).set(count);
        if let Some(octets) = tunnel.mtu {
            mtu.get_or_create(&labels).set(octets.into());
        }
        if let Some(millis) = tunnel.round_trip_ms {
            round_trip.get_or_create(&labels).set(millis / 1_000.0);
        }
    }
    registry.register("tunnel", "What a tunnel is, by its labels", info);
    registry.register("tunnel_up", "Whether a tunnel carries packets", up);
    registry.register(
        "tunnel_routes",
        "Destinations that are reached by a tunnel",
        routes,
    );
    registry.register("tunnel_mtu_bytes", "MTU of a tunnel's interface", mtu);
    registry.register(
        "tunnel_round_trip_seconds",
        "The least of the last round trips through a tunnel",
        round_trip,
    );
    register_counts(registry, tunnels);
}

fn register_counts(registry: &mut Registry, tunnels: &[Tunnel]) {
    type Figure = fn(&Tunnel) -> u64;
    let figures: [(&str, &str, Figure); 4] = [
        (
            "tunnel_lost",
            "Packets of a tunnel that could not be sent, or that its interface did not take",
            |tunnel| tunnel.lost,
        ),
        (
            "tunnel_refused",
            "Datagrams that were not the other end's, or came twice",
            |tunnel| tunnel.refused,
        ),
        (
            "tunnel_sent_bytes",
            "Octets of packets that were sent through a tunnel",
            |tunnel| tunnel.octets_out,
        ),
        (
            "tunnel_received_bytes",
            "Octets of packets that came through a tunnel",
            |tunnel| tunnel.octets_in,
        ),
    ];
    for (name, help, figure) in figures {
        let family = Family::<TunnelLabels, Counter<u64, AtomicU64>>::default();
        for tunnel in tunnels {
            family.get_or_create(&labels(tunnel)).inc_by(figure(tunnel));
        }
        registry.register(name, help, family);
    }
}

#[cfg(test)]
mod tests;
