//! What servers ask Nova of themselves, by way of an agent: who may ask, and what becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::{fs, path::PathBuf};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use cloud::{Client, TestCloud, host::Host};
use hextet_api::agent::{MetadataAnswer, MetadataRequest};
use hextet_server::{NovaConfig, StoreKind};
use serde_json::{Value, json};

const SERVER: &str = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";

/// Tells what it was asked, and by whom.
async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if uri.path() == "/huge" {
        return vec![0_u8; 300_000].into_response();
    }
    if uri.path() == "/refused" {
        return (StatusCode::FORBIDDEN, "no").into_response();
    }
    let header = |name: &str| {
        let all = headers.get_all(name).iter();
        let all: Vec<&str> = all.map(|value| value.to_str().unwrap()).collect();
        all.join(",")
    };
    let told = json!({
        "asked": format!("{method} {uri} {}", String::from_utf8_lossy(&body)),
        "instance": header("x-instance-id"), "project": header("x-tenant-id"),
        "address": header("x-forwarded-for"), "signature": header("x-instance-id-signature"),
    });
    axum::Json(told).into_response()
}

struct World {
    cloud: TestCloud,
    admin: Client,
    network: Value,
    port: Value,
    secret: PathBuf,
}

impl World {
    async fn new() -> World {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let nova = Router::new().fallback(echo);
        tokio::spawn(async move { axum::serve(listener, nova).await });
        let cloud = TestCloud::start_with(StoreKind::Memory, move |config| {
            let file = config.data_dir.with_file_name("secret");
            fs::write(&file, "secret\n").unwrap();
            config.nova = Some(NovaConfig {
                url: url.clone(),
                events: false,
                auth_url: None,
                username: "nova".into(),
                password_file: file.clone(),
                project: "service".into(),
                user_domain_id: "default".into(),
                project_domain_id: "default".into(),
                metadata_url: Some(url),
                metadata_secret_file: Some(file),
                ca_file: None,
            });
        })
        .await;
        let secret = cloud.config.data_dir.with_file_name("secret");
        let admin = cloud.admin().await;
        let network = admin.network(json!({})).await;
        for cidr in ["10.0.0.0/24", "fd00:5::/64"] {
            admin.subnet(&network, cidr, json!({})).await;
        }
        let port = json!({"device_owner": "compute:nova", "device_id": SERVER, "binding:host_id": "h1",
            "fixed_ips": [{"ip_address": "10.0.0.7"}, {"ip_address": "fd00:5::7"}]});
        let port = admin.port(&network, port).await;
        World {
            cloud,
            admin,
            network,
            port,
            secret,
        }
    }
}

fn question(port: &Value, method: &str, target: &str, body: &str) -> MetadataRequest {
    MetadataRequest {
        port: port["id"].as_str().unwrap().parse().unwrap(),
        method: method.to_owned(),
        target: target.to_owned(),
        body: body.as_bytes().to_vec(),
    }
}

async fn ask(host: &Host, question: &MetadataRequest) -> MetadataAnswer {
    let (status, body) = host.post("/v1/metadata", question).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nova_is_asked_in_the_servers_name() {
    let w = World::new().await;
    let host = Host::joined(&w.cloud, "h1").await;
    let answer = ask(&host, &question(&w.port, "POST", "/a/b?c=d", "text")).await;
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (200, "application/json")
    );
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let expected = json!({
        "asked": "POST /a/b?c=d text", "instance": SERVER, "project": w.port["project_id"],
        "address": "10.0.0.7",
        "signature": "5fa9cc3718d39b153c2507a798ad9fc0755da841e66a49d66a5765f085e4d627",
    });
    assert_eq!(told, expected);
    let refused = ask(&host, &question(&w.port, "GET", "/refused", "")).await;
    assert_eq!((refused.status, refused.body), (403, b"no".to_vec()));
    let metrics = Client {
        address: w.cloud.server.addresses.metrics,
        token: None,
    };
    let counted = metrics.get("/metrics").await;
    let counted = counted.body.as_str().unwrap();
    for outcome in ["answered", "refused"] {
        let line = format!("hextet_server_nova_metadata_total{{outcome=\"{outcome}\"}} 1\n");
        assert!(counted.contains(&line), "{line} is not in {counted}");
    }
    // What nobody could keep, and what cannot be signed.
    assert_eq!(
        ask(&host, &question(&w.port, "GET", "/huge", ""))
            .await
            .status,
        504
    );
    fs::remove_file(&w.secret).unwrap();
    assert_eq!(
        ask(&host, &question(&w.port, "GET", "/", "")).await.status,
        502
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_ask_for_their_own_servers_alone() {
    let w = World::new().await;
    let [own, other] = [
        Host::joined(&w.cloud, "h1").await,
        Host::joined(&w.cloud, "h2").await,
    ];
    let asked = question(&w.port, "GET", "/", "");
    assert_eq!(other.post("/v1/metadata", &asked).await.0, 403);
    // One that is prepared to have it may.
    let path = format!(
        "/networking/v2.0/ports/{}/bindings",
        w.port["id"].as_str().unwrap()
    );
    let binding = json!({"binding": {"host": "h2"}});
    w.admin.post(&path, binding).await.ok(201);
    assert_eq!(ask(&other, &asked).await.status, 200);
    // A port of nobody's, or that there is not.
    let plain = json!({"binding:host_id": "h1"});
    let plain = w.admin.port(&w.network, plain).await;
    for port in [plain, json!({"id": "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"})] {
        let asked = question(&port, "GET", "/", "");
        assert_eq!(own.post("/v1/metadata", &asked).await.0, 404);
    }
    let long = "a".repeat(4_097);
    for (method, target, body) in [
        ("PUT", "/", ""),
        ("GET", "", ""),
        ("GET", "http://elsewhere/", ""),
        ("GET", "/a b", ""),
        ("GET", "/\u{7f}", ""),
        ("POST", "/", long.as_str()),
    ] {
        let asked = question(&w.port, method, target, body);
        assert_eq!(
            own.post("/v1/metadata", &asked).await.0,
            400,
            "{method} {target}"
        );
    }
}

/// Those that are told of themselves by their hosts, else.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_who_tells_servers() {
    let w = World::new().await;
    let host = Host::joined(&w.cloud, "h1").await;
    let mut stream = host.intent().await;
    stream
        .until("it is Nova", |intent| intent.nova_metadata)
        .await;
    let plain = TestCloud::start(StoreKind::Memory).await;
    let host = Host::joined(&plain, "h1").await;
    let mut stream = host.intent().await;
    stream
        .until("it is the host", |intent| !intent.nova_metadata)
        .await;
}
