use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::status::{Direct, Route, Shown};

fn tunnel(node: &str, endpoint: Option<&str>) -> Tunnel {
    Tunnel {
        node: node.to_owned(),
        strand: 1,
        interface: "hxm\"\\\n7".to_owned(),
        kind: "near".to_owned(),
        ours: true,
        stage: "up".to_owned(),
        up: endpoint.is_some(),
        round_trip_ms: endpoint.map(|_| 12.5),
        endpoint: endpoint.map(|way| way.parse().unwrap()),
        reason: String::new(),
        octets_out: 1 << 60,
        octets_in: 7,
        lost: 11,
        refused: 13,
        mtu: endpoint.map(|_| 1_420),
        routes: 3,
    }
}

fn route(class: &str, chosen: bool) -> Route {
    Route {
        to: "fd00::/64".parse().unwrap(),
        from: None,
        class: class.to_owned(),
        via: None,
        metric: 96,
        chosen,
        feasible: true,
    }
}

fn status() -> Status {
    Status {
        node: "a".to_owned(),
        network: "b".to_owned(),
        home: None,
        prefixes: Vec::new(),
        reach: "public".to_owned(),
        candidates: Vec::new(),
        nodes: Vec::new(),
        contacts: 5,
        certificate: Shown {
            serial: 1,
            not_after: 1_795_000_000,
            groups: Vec::new(),
        },
        parameters: 4,
        resuming: true,
        refused: 9,
        revoked: 2,
        tunnels: vec![
            tunnel("c", Some("tls:192.0.2.1:443")),
            tunnel("d", Some("[2001:db8::1]:6698")),
            tunnel("e", None),
        ],
        lan: Vec::new(),
        direct: vec![Direct {
            to: "10.0.0.0/24".parse().unwrap(),
            interface: None,
            good: false,
        }],
        routes: vec![
            route("latency", true),
            route("latency", false),
            route("throughput", true),
        ],
    }
}

/// Labels as they are written, which must be quoted and escaped, and what follows them.
fn labels_of(text: &str) -> (Vec<(String, String)>, &str) {
    let mut labels = Vec::new();
    let mut rest = text.strip_prefix('{').unwrap();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c == '_' || c.is_ascii_lowercase()));
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('"' | '\\') => escaped,
                    other => panic!("\\{other}"),
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, rest.strip_prefix('}').unwrap()),
        }
    }
}

type Series = (String, Vec<(String, String)>);

/// OpenMetrics, strictly: each family is described and typed before its samples, none comes twice, all end with `# EOF`.
fn parse(text: &str) -> BTreeMap<Series, f64> {
    let mut samples = BTreeMap::new();
    let mut types = BTreeMap::new();
    let (mut described, mut family) = (Vec::new(), String::new());
    let lines = text.strip_suffix("# EOF\n").expect("an end");
    for line in lines.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !described.contains(&name.to_owned()));
            described.push(name.to_owned());
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(described.contains(&name.to_owned()), "{line}");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None);
            name.clone_into(&mut family);
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.starts_with('{') {
            true => labels_of(rest),
            false => (Vec::new(), rest),
        };
        let suffix = name.strip_prefix(&*family).expect("of the family above");
        let counter = types.get(&family).unwrap() == "counter";
        assert_eq!(suffix, if counter { "_total" } else { "" }, "{line}");
        let value = value.strip_prefix(' ').unwrap().parse().unwrap();
        let series = (name.to_owned(), labels);
        assert_eq!(samples.insert(series, value), None, "{line}");
    }
    samples
}

fn value(samples: &BTreeMap<Series, f64>, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let wanted = wanted
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let name = format!("hextet_mesh_{name}");
    samples.get(&(name, wanted.collect())).copied()
}

async fn get_of(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn each_figure_is_there_once_and_is_what_the_node_says() {
    let samples = parse(&render(&status()).unwrap());
    let is = |name: &str, labels: &[(&str, &str)], wanted: f64| {
        assert_eq!(
            value(&samples, name, labels),
            Some(wanted),
            "{name} {labels:?}"
        );
    };
    is("known_nodes", &[], 5.0);
    is("resuming", &[], 1.0);
    is("letters_refused_total", &[], 9.0);
    is("revoked_certificates", &[], 2.0);
    is("certificate_expiry_timestamp_seconds", &[], 1_795_000_000.0);
    is("routes_known", &[("class", "latency")], 2.0);
    is("routes_chosen", &[("class", "latency")], 1.0);
    is("routes_chosen", &[("class", "throughput")], 1.0);
    is("direct_routes", &[("state", "failed")], 1.0);
    is("direct_routes", &[("state", "good")], 0.0);
    let c = [("node", "c"), ("strand", "1")];
    is("tunnel_up", &c, 1.0);
    is("tunnel_sent_bytes_total", &c, 2_f64.powi(60));
    is("tunnel_received_bytes_total", &c, 7.0);
    is("tunnel_lost_total", &c, 11.0);
    is("tunnel_refused_total", &c, 13.0);
    is("tunnel_mtu_bytes", &c, 1_420.0);
    is("tunnel_round_trip_seconds", &c, 0.012_5);
    let e = [("node", "e"), ("strand", "1")];
    is("tunnel_up", &e, 0.0);
    // What is not known is not zero.
    assert_eq!(value(&samples, "tunnel_mtu_bytes", &e), None);
    assert_eq!(value(&samples, "tunnel_round_trip_seconds", &e), None);
    for (node, way) in [("c", "tls"), ("d", "udp"), ("e", "")] {
        let mut labels = vec![("node", node), ("strand", "1")];
        labels.extend([("interface", "hxm\"\\\n7"), ("kind", "near")]);
        labels.extend([("stage", "up"), ("way", way)]);
        is("tunnel", &labels, 1.0);
    }
}

#[tokio::test]
async fn scrapes_are_answered_in_both_families_until_the_node_ends() {
    let (asked, mut asking) = mpsc::channel(1);
    let mut addresses = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = bind(address.parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(bind(address).await.is_err(), "somebody listens there");
        addresses.push(address);
        tokio::spawn(serve(listener, asked.clone()));
    }
    for address in &addresses {
        let answers = async {
            let Some(Asked::Status(answer)) = asking.recv().await else {
                panic!("how it stands");
            };
            answer.send(status()).unwrap();
        };
        let (answer, ()) = tokio::join!(get_of(*address, "/metrics"), answers);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(CONTENT_TYPE), "{answer}");
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        // Series of one family come in any order.
        assert_eq!(parse(text), parse(&render(&status()).unwrap()));
        let other = get_of(*address, "/").await;
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    }
    drop(asking);
    let answer = get_of(addresses[0], "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}
