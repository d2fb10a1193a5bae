//! A server that runs on ports of its own, and clients that talk to it over real sockets.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod host;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_server::{RunningServer, Server, ServerConfig, StoreKind};
use hextet_store::{MemoryStore, Store};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};

/// For anything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server with its directory.
pub struct TestCloud {
    pub server: RunningServer,
    pub config: ServerConfig,
    pub directory: TempDir,
}

/// A configuration on ports that the kernel chooses, with all files in the directory.
pub fn config(directory: &TempDir, store: StoreKind) -> ServerConfig {
    let loopback: SocketAddr = "[::1]:0".parse().unwrap();
    ServerConfig {
        listen: loopback,
        agents: loopback,
        metrics: loopback,
        data_dir: directory.path().join("data"),
        store,
        clouds_yaml: Some(directory.path().join("clouds.yaml")),
        admin_socket: directory.path().join("server.sock"),
        member_prefixes: ["10.0.0.0/8", "192.168.0.0/16", "2001:db8::/32", "fd00::/8"]
            .map(|prefix| prefix.parse().unwrap())
            .to_vec(),
        ..ServerConfig::default()
    }
}

impl TestCloud {
    pub async fn start(store: StoreKind) -> TestCloud {
        TestCloud::start_with(store, |_| {}).await
    }

    /// With something else in its configuration.
    pub async fn start_with(store: StoreKind, change: impl FnOnce(&mut ServerConfig)) -> TestCloud {
        let directory = TempDir::new().unwrap();
        let mut config = config(&directory, store);
        change(&mut config);
        let server = Server::start(config.clone()).await.unwrap();
        TestCloud {
            server,
            config,
            directory,
        }
    }

    /// On a store that others can reach, too.
    pub async fn start_shared() -> (TestCloud, Arc<dyn Store>) {
        let directory = TempDir::new().unwrap();
        let config = config(&directory, StoreKind::Memory);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let server = Server::start_on(config.clone(), Arc::clone(&store))
            .await
            .unwrap();
        (
            TestCloud {
                server,
                config,
                directory,
            },
            store,
        )
    }

    pub fn clouds_yaml(&self) -> PathBuf {
        self.config.clouds_file()
    }

    /// The administrator's password out of `clouds.yaml`.
    pub fn password(&self) -> String {
        let text = std::fs::read_to_string(self.clouds_yaml()).unwrap();
        let line = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("password: "));
        line.unwrap().to_owned()
    }

    pub fn anybody(&self) -> Client {
        Client {
            address: self.server.addresses.clients,
            token: None,
        }
    }

    pub async fn admin(&self) -> Client {
        self.anybody()
            .login("admin", &self.password(), "admin")
            .await
    }

    /// A project with a user of that role; logs in as it.
    pub async fn project(&self, name: &str, role: &str) -> (Client, String) {
        let admin = self.admin().await;
        let body = json!({"project": {"name": name, "domain_id": "default"}});
        let project =
            admin.post("/identity/v3/projects", body).await.ok(201)["project"]["id"].clone();
        let project = project.as_str().unwrap().to_owned();
        let client = self.user(&admin, name, &project, name, role).await;
        (client, project)
    }

    /// A user of that role in a project; logs in as it.
    pub async fn user(
        &self,
        admin: &Client,
        user: &str,
        project: &str,
        project_name: &str,
        role: &str,
    ) -> Client {
        let body = json!({"user": {"name": user, "password": "a password"}});
        let made = admin.post("/identity/v3/users", body).await.ok(201);
        let id = made["user"]["id"].as_str().unwrap().to_owned();
        let roles = admin
            .get(&format!("/identity/v3/roles?name={role}"))
            .await
            .ok(200);
        let role = roles["roles"][0]["id"].as_str().unwrap();
        let path = format!("/identity/v3/projects/{project}/users/{id}/roles/{role}");
        admin.send("PUT", &path, None).await.ok(204);
        self.anybody().login(user, "a password", project_name).await
    }
}

/// A client with or without a token; a connection for each request.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub what: String,
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.what, self.body);
        self.body
    }

    /// The message of a refusal that must have this status and type.
    #[track_caller]
    pub fn refused(self, status: u16, kind: &str) -> String {
        let error = &self.body["NeutronError"];
        let got = (self.status, error["type"].as_str().unwrap_or_default());
        assert_eq!(got, (status, kind), "{}: {}", self.what, self.body);
        error["message"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub async fn login(&self, user: &str, password: &str, project: &str) -> Client {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let answer = self.post("/identity/v3/auth/tokens", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let token = answer.headers["x-subject-token"]
            .to_str()
            .unwrap()
            .to_owned();
        Client {
            token: Some(token),
            ..self.clone()
        }
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let work = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(driver);
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", self.address.to_string())
                .header("content-type", "application/json");
            if let Some(token) = &self.token {
                request = request.header("x-auth-token", token);
            }
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let body = body.map(|b| b.to_string()).unwrap_or_default();
            let request = request.body(Full::new(Bytes::from(body))).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: serde_json::from_slice(&body)
                    .unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))),
                what: format!("{method} {path}"),
            }
        };
        timeout(PATIENCE, work)
            .await
            .unwrap_or_else(|_| panic!("{method} {path}: no answer"))
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.request(method, path, &[], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// Asks to make a resource of the networking API.
    pub async fn try_create(&self, path: &str, resource: &str, attributes: Value) -> Answer {
        self.post(
            &format!("/networking/v2.0/{path}"),
            json!({resource: attributes}),
        )
        .await
    }

    /// Makes a resource of the networking API.
    pub async fn create(&self, path: &str, resource: &str, attributes: Value) -> Value {
        self.try_create(path, resource, attributes).await.ok(201)[resource].clone()
    }

    pub async fn network(&self, attributes: Value) -> Value {
        self.create("networks", "network", attributes).await
    }

    pub async fn subnet(&self, network: &Value, cidr: &str, mut attributes: Value) -> Value {
        attributes["network_id"] = network["id"].clone();
        attributes["cidr"] = json!(cidr);
        attributes["ip_version"] = json!(if cidr.contains(':') { 6 } else { 4 });
        self.create("subnets", "subnet", attributes).await
    }

    pub async fn try_port(&self, network: &Value, mut attributes: Value) -> Answer {
        attributes["network_id"] = network["id"].clone();
        self.try_create("ports", "port", attributes).await
    }

    pub async fn port(&self, network: &Value, attributes: Value) -> Value {
        self.try_port(network, attributes).await.ok(201)["port"].clone()
    }

    pub async fn update(
        &self,
        path: &str,
        resource: &str,
        id: &Value,
        attributes: Value,
    ) -> Answer {
        let path = format!("/networking/v2.0/{path}/{}", id.as_str().unwrap());
        self.send("PUT", &path, Some(json!({resource: attributes})))
            .await
    }

    pub async fn delete(&self, path: &str, id: &Value) -> Answer {
        self.send(
            "DELETE",
            &format!("/networking/v2.0/{path}/{}", id.as_str().unwrap()),
            None,
        )
        .await
    }

    pub async fn show(&self, path: &str, id: &Value) -> Answer {
        self.get(&format!("/networking/v2.0/{path}/{}", id.as_str().unwrap()))
            .await
    }
}

/// SLAAC in both its attributes.
pub fn slaac() -> Value {
    json!({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"})
}

/// A port's addresses, sorted.
pub fn addresses(port: &Value) -> Vec<String> {
    let fixed = port["fixed_ips"].as_array().unwrap();
    let mut all: Vec<_> = fixed
        .iter()
        .map(|f| f["ip_address"].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    all
}
