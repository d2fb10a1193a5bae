//! Events for Nova: against an HTTP server that answers as Nova was seen to answer, and this server's own identity
//! service.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use cloud::{Client, TestCloud, host::Host};
use hextet_api::agent::{PortState, StatusReport};
use hextet_server::{NovaConfig, Server, StoreKind};
use hextet_types::PortId;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

const SERVER: &str = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";

/// What the next request is answered; none for 200.
#[derive(Clone, Debug)]
enum Next {
    /// A status for all, without a word about any.
    Status(u16),
    /// 207, with a code for each of its events.
    Codes(u16),
    /// Nothing for longer than anybody waits.
    Nothing,
}

#[derive(Clone)]
struct Recorder {
    plan: Arc<Mutex<VecDeque<Next>>>,
    heard: mpsc::UnboundedSender<(Option<String>, Vec<Value>)>,
}

/// Stands for Nova.
struct Nova {
    recorder: Recorder,
    heard: mpsc::UnboundedReceiver<(Option<String>, Vec<Value>)>,
    url: String,
}

async fn events(
    State(recorder): State<Recorder>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let events = body["events"].as_array().unwrap().clone();
    let token = headers.get("x-auth-token");
    let token = token.map(|t| t.to_str().unwrap().to_owned());
    let next = recorder.plan.lock().unwrap().pop_front();
    recorder.heard.send((token, events.clone())).unwrap();
    let verdicts = |code: u16| {
        let all = events.into_iter().map(|mut event| {
            event["code"] = json!(code);
            event
        });
        Json(json!({"events": all.collect::<Vec<_>>()}))
    };
    match next {
        None => verdicts(200).into_response(),
        Some(Next::Codes(code)) => (StatusCode::MULTI_STATUS, verdicts(code)).into_response(),
        Some(Next::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Next::Nothing) => {
            sleep(Duration::from_secs(3600)).await;
            StatusCode::OK.into_response()
        }
    }
}

impl Nova {
    async fn start() -> Nova {
        let (sender, heard) = mpsc::unbounded_channel();
        let recorder = Recorder {
            plan: Arc::default(),
            heard: sender,
        };
        let path = "/v2.1/os-server-external-events";
        let router = Router::new()
            .route(path, post(events))
            .with_state(recorder.clone());
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let url = format!("http://{}/v2.1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Nova {
            recorder,
            heard,
            url,
        }
    }

    fn plan(&self, next: &[Next]) {
        self.recorder.plan.lock().unwrap().extend(next.to_vec());
    }

    /// The next request's events: names and ports.
    async fn next(&mut self) -> Vec<(String, String)> {
        let (token, events) = timeout(cloud::PATIENCE, self.heard.recv())
            .await
            .expect("Nova is told nothing")
            .unwrap();
        assert!(token.is_some_and(|t| !t.is_empty()));
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let each = events.iter().map(|event| {
            assert_eq!(event["server_uuid"], SERVER);
            assert_eq!(event["status"], "completed");
            (text(&event["name"]), text(&event["tag"]))
        });
        each.collect()
    }
}

struct World {
    cloud: TestCloud,
    admin: Client,
    nova: Nova,
    network: Value,
    port: Value,
}

fn report(port: &Value, link: Option<u32>) -> StatusReport {
    let id: PortId = port["id"].as_str().unwrap().parse().unwrap();
    let state = match link {
        Some(_) => PortState::Active,
        None => PortState::Down {
            reason: "no interface".to_owned(),
        },
    };
    StatusReport {
        ports: [(id, state)].into(),
        plugs: link.map(|link| (id, link)).into_iter().collect(),
        ..StatusReport::default()
    }
}

impl World {
    /// A server's port on h1, which Nova has not been told of.
    async fn new() -> World {
        let nova = Nova::start().await;
        let url = nova.url.clone();
        let cloud = TestCloud::start_with(StoreKind::Redb, move |config| {
            let password_file = config.data_dir.with_file_name("password");
            std::fs::write(&password_file, "a password\n").unwrap();
            config.nova = Some(NovaConfig {
                url,
                events: true,
                auth_url: None,
                username: "nova".into(),
                password_file,
                project: "service".into(),
                user_domain_id: "default".into(),
                project_domain_id: "default".into(),
                metadata_url: None,
                metadata_secret_file: None,
                ca_file: None,
            });
        })
        .await;
        let admin = cloud.admin().await;
        let projects = admin.get("/identity/v3/projects?name=service").await;
        let project = projects.ok(200)["projects"][0]["id"].clone();
        let project = project.as_str().unwrap();
        cloud
            .user(&admin, "nova", project, "service", "admin")
            .await;
        let network = admin.network(json!({})).await;
        admin.subnet(&network, "10.0.0.0/24", json!({})).await;
        let port =
            json!({"device_owner": "compute:nova", "device_id": SERVER, "binding:host_id": "h1"});
        let port = admin.port(&network, port).await;
        World {
            cloud,
            admin,
            nova,
            network,
            port,
        }
    }

    fn event(&self, name: &str) -> Vec<(String, String)> {
        let port = self.port["id"].as_str().unwrap();
        vec![(name.to_owned(), port.to_owned())]
    }

    async fn reports(&self, host: &Host, link: Option<u32>) {
        let report = report(&self.port, link);
        assert_eq!(host.post("/v1/status", &report).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_plug_on_any_host_is_told() {
    let mut w = World::new().await;
    let h1 = Host::joined(&w.cloud, "h1").await;
    let h2 = Host::joined(&w.cloud, "h2").await;
    let plugged = w.event("network-vif-plugged");
    w.reports(&h1, Some(7)).await;
    assert_eq!(w.nova.next().await, plugged);
    // The same again is no news, and what is somebody else's is nobody's business; another interface is.
    w.reports(&h1, Some(7)).await;
    let other = w
        .admin
        .port(&w.network, json!({"binding:host_id": "h1"}))
        .await;
    let said = h1.post("/v1/status", &report(&other, Some(5))).await;
    assert_eq!(said.0, 204);
    w.reports(&h2, Some(7)).await;
    w.reports(&h1, Some(8)).await;
    assert_eq!(w.nova.next().await, plugged);
    // So is one on a host that is prepared.
    let path = format!(
        "/networking/v2.0/ports/{}/bindings",
        w.port["id"].as_str().unwrap()
    );
    w.admin
        .post(&path, json!({"binding": {"host": "h2"}}))
        .await
        .ok(201);
    w.reports(&h2, Some(3)).await;
    assert_eq!(w.nova.next().await, plugged);
    // A migration that failed has left the interface there, and the next one waits for it again.
    let deleted = w.admin.send("DELETE", &format!("{path}/h2"), None).await;
    deleted.ok(204);
    w.admin
        .post(&path, json!({"binding": {"host": "h2"}}))
        .await
        .ok(201);
    w.reports(&h2, Some(3)).await;
    assert_eq!(w.nova.next().await, plugged);
    // Nova begins to wait between that and this; where nothing is plugged, there is nothing to tell.
    for host in ["h3", "h2"] {
        let profile = json!({"binding:profile": {"migrating_to": host}});
        w.admin
            .update("ports", "port", &w.port["id"], profile)
            .await
            .ok(200);
    }
    assert_eq!(w.nova.next().await, plugged);
    // Likewise a port that was bound nowhere for a while.
    for host in [json!(null), json!("h1")] {
        let binding = json!({"binding:host_id": host});
        w.admin
            .update("ports", "port", &w.port["id"], binding)
            .await
            .ok(200);
    }
    w.reports(&h1, Some(8)).await;
    assert_eq!(w.nova.next().await, plugged);

    let fixed = json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]});
    w.admin
        .update("ports", "port", &w.port["id"], fixed)
        .await
        .ok(200);
    assert_eq!(w.nova.next().await, w.event("network-changed"));
    w.admin.delete("ports", &w.port["id"]).await.ok(204);
    assert_eq!(w.nova.next().await, w.event("network-vif-deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nova_does_not_take_is_told_again() {
    let mut w = World::new().await;
    let h1 = Host::joined(&w.cloud, "h1").await;
    let plugged = w.event("network-vif-plugged");
    let trouble = [
        Next::Codes(422),
        Next::Status(404),
        Next::Status(401),
        Next::Status(500),
    ];
    w.nova.plan(&trouble);
    w.reports(&h1, Some(7)).await;
    for _ in 0..=trouble.len() {
        assert_eq!(w.nova.next().await, plugged);
    }
    // What it refuses for good is not; what comes meanwhile goes together.
    w.nova.plan(&[Next::Codes(400), Next::Nothing]);
    w.reports(&h1, Some(8)).await;
    assert_eq!(w.nova.next().await, plugged);
    let fixed = json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]});
    w.admin
        .update("ports", "port", &w.port["id"], fixed)
        .await
        .ok(200);
    assert_eq!(w.nova.next().await, w.event("network-changed"));
    w.reports(&h1, Some(9)).await;
    let mut both = [plugged, w.event("network-changed")].concat();
    let mut told = w.nova.next().await;
    while told.len() < 2 {
        told.extend(w.nova.next().await);
    }
    told.sort();
    both.sort();
    assert_eq!(told, both);
}

/// What a former server knew and Nova perhaps does not.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_all_that_is_plugged_is_told() {
    let mut w = World::new().await;
    let h1 = Host::joined(&w.cloud, "h1").await;
    w.reports(&h1, Some(7)).await;
    let plugged = w.event("network-vif-plugged");
    assert_eq!(w.nova.next().await, plugged);
    let World {
        cloud,
        port,
        mut nova,
        ..
    } = w;
    let TestCloud {
        server,
        config,
        directory,
    } = cloud;
    server.stop().await.unwrap();
    let server = Server::start(config.clone()).await.unwrap();
    let h1 = Host {
        address: server.addresses.agents,
        ..h1
    };
    let everything = StatusReport {
        complete: true,
        ..report(&port, Some(7))
    };
    assert_eq!(h1.post("/v1/status", &everything).await.0, 204);
    assert_eq!(nova.next().await, plugged);
    server.stop().await.unwrap();
    drop(directory);
}
