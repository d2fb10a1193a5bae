//! `/metrics`, in the OpenMetrics text format.
//!
//! A scrape gathers everything anew, so nothing here has to be kept up to date in between.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{atomic::AtomicU64, mpsc::SyncSender},
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    reconciler::{Input, Question, Standpoint},
    report::PortStatus,
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens and answers until the process ends.
///
/// # Errors
///
/// The address can't be listened on.
pub async fn serve(address: SocketAddr, reconciler: SyncSender<Input>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen for scrapes of /metrics on {address}"))?;
    let router = Router::new()
        .route("/metrics", get(scrape))
        .with_state(reconciler);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn scrape(State(reconciler): State<SyncSender<Input>>) -> Response {
    match gather(&reconciler).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

async fn gather(reconciler: &SyncSender<Input>) -> Result<String> {
    let (sender, answer) = oneshot::channel();
    reconciler
        .try_send(Input::Ask(Question::Status(sender)))
        .context("the reconciler is busy")?;
    let standpoint = answer.await.context("the reconciler has ended")?;
    // The namespace's own view: /proc/net is that of the main thread, which is in it, too.
    let table = fs::read_to_string("/proc/net/dev").context("read /proc/net/dev")?;
    render(&standpoint, &links(&table))
}

/// What a link has counted; received and sent as the host sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinkCounters {
    received_octets: u64,
    received_packets: u64,
    received_dropped: u64,
    sent_octets: u64,
    sent_packets: u64,
    sent_dropped: u64,
}

/// Reads `/proc/net/dev`: a name, eight figures of what was received, eight of what was sent.
fn links(table: &str) -> BTreeMap<&str, LinkCounters> {
    let line = |line| -> Option<(&str, LinkCounters)> {
        let (name, figures) = str::split_once(line, ':')?;
        let figures: Vec<u64> = figures
            .split_whitespace()
            .map_while(|figure| figure.parse().ok())
            .collect();
        let counters = LinkCounters {
            received_octets: *figures.first()?,
            received_packets: *figures.get(1)?,
            received_dropped: *figures.get(3)?,
            sent_octets: *figures.get(8)?,
            sent_packets: *figures.get(9)?,
            sent_dropped: *figures.get(11)?,
        };
        Some((name.trim(), counters))
    };
    table.lines().filter_map(line).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: String,
    network: String,
    interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

fn render(standpoint: &Standpoint, links: &BTreeMap<&str, LinkCounters>) -> Result<String> {
    let mut registry = Registry::with_prefix("hextet_agent");
    register_ports(&mut registry, &standpoint.ports, links);
    register_kernel(&mut registry, standpoint);
    let mut text = String::new();
    encode(&mut text, &registry).context("encode the metrics")?;
    Ok(text)
}

/// Seen from the workload, as operators think of it: what the host received, the workload sent.
fn register_ports(
    registry: &mut Registry,
    ports: &[PortStatus],
    links: &BTreeMap<&str, LinkCounters>,
) {
    type Figure = fn(&LinkCounters) -> u64;
    let figures: [(&str, &str, Figure); 6] = [
        ("port_sent_bytes", "Octets that the workload sent", |c| {
            c.received_octets
        }),
        ("port_sent_packets", "Packets that the workload sent", |c| {
            c.received_packets
        }),
        (
            "port_sent_dropped",
            "Packets of the workload that the interface dropped",
            |c| c.received_dropped,
        ),
        (
            "port_received_bytes",
            "Octets that the workload was sent",
            |c| c.sent_octets,
        ),
        (
            "port_received_packets",
            "Packets that the workload was sent",
            |c| c.sent_packets,
        ),
        (
            "port_received_dropped",
            "Packets to the workload that the interface dropped",
            |c| c.sent_dropped,
        ),
    ];
    for (name, help, figure) in figures {
        let family = Family::<PortLabels, Counter<u64, AtomicU64>>::default();
        for port in ports {
            let Some(counters) = links.get(port.link.as_str()) else {
                continue;
            };
            family.get_or_create(&labels(port)).inc_by(figure(counters));
        }
        registry.register(name, help, family);
    }
    let states = Family::<StateLabels, Gauge>::default();
    for (state, down) in [("ACTIVE", false), ("DOWN", true)] {
        let count = ports.iter().filter(|p| p.down.is_some() == down).count();
        states
            .get_or_create(&StateLabels { state })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("ports", "Ports bound to this host, by status", states);
}

fn labels(port: &PortStatus) -> PortLabels {
    PortLabels {
        port: port.id.to_string(),
        network: port.network.to_string(),
        interface: port.link.to_string(),
    }
}

fn register_kernel(registry: &mut Registry, standpoint: &Standpoint) {
    let kernel = &standpoint.kernel;
    let gauge = |value: usize| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let counter = |value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        counter
    };
    registry.register(
        "objects",
        "Objects that have to stand in the kernel",
        gauge(kernel.objects),
    );
    registry.register(
        "failed",
        "Objects that could not be written",
        gauge(kernel.failed.len()),
    );
    registry.register("writes", "Writes to the kernel", counter(kernel.writes));
    registry.register(
        "mended",
        "Writes that mended what others had changed",
        counter(kernel.mended),
    );
    registry.register(
        "intent_revision",
        "Revision of the intent that the kernel stands at",
        gauge(usize::try_from(standpoint.revision).unwrap_or(usize::MAX)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
tap0a1b2c3d-4e: 111 11 0 3 0 0 0 0 222 22 0 4 0 0 0 0
";

    #[test]
    fn reads_the_kernel_s_table() {
        let links = links(TABLE);
        let expected = LinkCounters {
            received_octets: 111,
            received_packets: 11,
            received_dropped: 3,
            sent_octets: 222,
            sent_packets: 22,
            sent_dropped: 4,
        };
        assert_eq!(links.get("tap0a1b2c3d-4e"), Some(&expected));
        assert_eq!(links.len(), 2);
    }

    #[test]
    fn a_scrape_names_ports_and_counts_from_their_side() {
        let port = PortStatus {
            id: "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".parse().unwrap(),
            name: String::new(),
            network: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            network_name: "IPv6".to_owned(),
            link: "tap0a1b2c3d-4e".parse().unwrap(),
            mac: "fa:16:3e:00:00:01".parse().unwrap(),
            mtu: 1500,
            addresses: Vec::new(),
            delegated: Vec::new(),
            down: None,
        };
        let standpoint = Standpoint {
            revision: 9,
            kernel: crate::report::KernelStatus {
                writes: 5,
                ..Default::default()
            },
            ports: vec![port],
            routers: Vec::new(),
            server_heard: None,
        };
        let text = render(&standpoint, &links(TABLE)).unwrap();
        let sent = text
            .lines()
            .find(|l| l.starts_with("hextet_agent_port_sent_packets_total{"))
            .unwrap();
        assert!(
            sent.contains("interface=\"tap0a1b2c3d-4e\"") && sent.ends_with(" 11"),
            "{sent}"
        );
        assert!(
            text.contains("hextet_agent_ports{state=\"ACTIVE\"} 1"),
            "{text}"
        );
        assert!(text.contains("hextet_agent_writes_total 5"), "{text}");
    }
}
