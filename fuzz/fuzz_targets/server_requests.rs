//! Requests of an administrator, by HTTP, to a server that runs: each is answered, and never with 500.
//!
//! The first three octets say which method, collection and item; then comes the query up to a zero octet, then
//! the body. What a request made stays, as far as quotas let it.

#![no_main]

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

use hextet_server::{Server, ServerConfig, StoreKind};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
const COLLECTIONS: [&str; 20] = [
    "/networking/v2.0/networks",
    "/networking/v2.0/subnets",
    "/networking/v2.0/ports",
    "/networking/v2.0/security-groups",
    "/networking/v2.0/security-group-rules",
    "/networking/v2.0/quotas",
    "/networking/v2.0/agents",
    "/networking/v2.0/extensions",
    "/networking/v2.0/availability_zones",
    "/networking/v2.0/network-ip-availabilities",
    "/identity/v3/auth/tokens",
    "/identity/v3/domains",
    "/identity/v3/projects",
    "/identity/v3/users",
    "/identity/v3/roles",
    "/identity/v3/role_assignments",
    "/identity/v3/services",
    "/identity/v3/endpoints",
    "/identity/v3/users/0/application_credentials",
    "/",
];
/// Items of a collection that requests are about: those that were last made.
const KEPT: usize = 8;

thread_local! {
    static CLIENT: RefCell<Client> = RefCell::new(Client::login());
}

static SERVER: LazyLock<(SocketAddr, Value)> = LazyLock::new(start);

fuzz_target!(|input: &[u8]| {
    let [method, collection, item, rest @ ..] = input else {
        return;
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let collection = COLLECTIONS[usize::from(*collection) % COLLECTIONS.len()];
    let mut parts = rest.splitn(2, |octet| *octet == 0);
    let query = parts.next().unwrap_or_default();
    let body = parts.next().unwrap_or_default();
    CLIENT.with_borrow_mut(|client| {
        let path = client.path(collection, *item);
        let (status, answer) = client.ask(method, &path, query, body);
        assert!(status < 500, "{method} {path}: {status} {answer}");
        client.keep(&answer);
    });
});

/// Runs it on threads of its own, for good; gives where it listens, and a body that logs in.
fn start() -> (SocketAddr, Value) {
    let folder = tempfile::tempdir()
        .unwrap_or_else(|error| panic!("a folder: {error}"))
        .keep();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ServerConfig {
        listen: loopback,
        agents: loopback,
        metrics: loopback,
        store: StoreKind::Memory,
        admin_socket: folder.join("admin.sock"),
        clouds_yaml: Some(folder.join("clouds.yaml")),
        data_dir: folder.clone(),
        ..ServerConfig::default()
    };
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
        runtime.block_on(async {
            let server = Server::start(config).await;
            let mut server = server.unwrap_or_else(|error| panic!("{error}"));
            let _ = sender.send(server.addresses.clients);
            panic!("the server ended: {:?}", server.failed().await);
        })
    });
    let Ok(address) = address.recv() else {
        panic!("no server")
    };
    let clouds = std::fs::read_to_string(folder.join("clouds.yaml"));
    let clouds = clouds.unwrap_or_else(|error| panic!("clouds.yaml: {error}"));
    let value = |key: &str| {
        let line = clouds
            .lines()
            .find_map(|line| line.trim().strip_prefix(key));
        line.map(|value| value.trim_matches([':', ' ', '"', '\'']).to_owned())
    };
    let _ = std::fs::remove_dir_all(folder);
    let user = json!({"name": value("username"), "password": value("password"), "domain": {"id": "default"}});
    let project = json!({"project": {"name": value("project_name"), "domain": {"id": "default"}}});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    (
        address,
        json!({"auth": {"identity": identity, "scope": project}}),
    )
}

struct Client {
    stream: BufReader<TcpStream>,
    token: String,
    items: Vec<String>,
}

impl Client {
    fn connect() -> BufReader<TcpStream> {
        let stream = TcpStream::connect(SERVER.0).unwrap_or_else(|error| panic!("{error}"));
        let limit = Some(Duration::from_secs(10));
        let _ = (stream.set_read_timeout(limit), stream.set_nodelay(true));
        BufReader::new(stream)
    }

    fn login() -> Client {
        let mut client = Client {
            stream: Client::connect(),
            token: String::new(),
            items: Vec::new(),
        };
        let body = SERVER.1.to_string();
        let (status, answer) = client.ask("POST", COLLECTIONS[10], b"", body.as_bytes());
        assert_eq!(status, 201, "{answer}");
        client
    }

    fn path(&self, collection: &str, item: u8) -> String {
        let id = self.items.get(usize::from(item >> 3) % KEPT);
        let id = id.map_or("0", String::as_str);
        match item & 7 {
            0..=2 => collection.to_owned(),
            3 | 4 => format!("{collection}/{id}"),
            5 => format!("{collection}/{id}/tags"),
            6 => format!("{collection}/{id}/tags/blue"),
            _ => format!("{collection}/{id}/password"),
        }
    }

    fn keep(&mut self, answer: &Value) {
        let made = answer.as_object().and_then(|object| object.values().next());
        if let Some(id) = made.and_then(|made| made["id"].as_str()) {
            self.items.insert(0, id.to_owned());
            self.items.truncate(KEPT);
        }
    }

    fn ask(&mut self, method: &str, path: &str, query: &[u8], body: &[u8]) -> (u16, Value) {
        let query: String = query
            .iter()
            .map(|octet| char::from(*octet))
            .filter(|c| c.is_ascii_graphic() && *c != '#')
            .collect();
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: fuzz\r\nX-Auth-Token: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        // A connection that the server has closed meanwhile is made anew, once.
        let first = self.converse(method, &request);
        first.unwrap_or_else(|_| {
            self.stream = Client::connect();
            let second = self.converse(method, &request);
            second.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
        })
    }

    fn converse(&mut self, method: &str, request: &[u8]) -> std::io::Result<(u16, Value)> {
        self.stream.get_mut().write_all(request)?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .unwrap_or(0);
            }
            let Some((name, value)) = text.split_once(": ") else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("x-subject-token") && self.token.is_empty() {
                self.token = value.to_owned();
            }
        }
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
