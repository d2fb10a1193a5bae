//! A server that runs, and a client that asks it by HTTP whatever a fuzz target thinks of.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hextet_server::{Server, ServerConfig, StoreKind};
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

/// A server that is there for good, and who administers it.
pub struct Running {
    address: SocketAddr,
    user: Value,
    project: Value,
}

/// What a target's octets ask: the first three say which method, collection and item; then comes the query up
/// to a zero octet, then the body. In both, `@0` is what was last made, up to `@7`.
pub struct Asked<'a> {
    /// `GET`, `POST` …
    pub method: &'static str,
    collection: &'static str,
    item: u8,
    query: &'a [u8],
    /// As it goes out.
    pub body: &'a [u8],
}

impl<'a> Asked<'a> {
    /// Out of a target's octets, if they are enough.
    pub fn read(input: &'a [u8]) -> Option<Asked<'a>> {
        let [method, collection, item, rest @ ..] = input else {
            return None;
        };
        let mut parts = rest.splitn(2, |octet| *octet == 0);
        Some(Asked {
            method: METHODS[usize::from(*method) % METHODS.len()],
            collection: COLLECTIONS[usize::from(*collection) % COLLECTIONS.len()],
            item: *item,
            query: parts.next().unwrap_or_default(),
            body: parts.next().unwrap_or_default(),
        })
    }
}

/// Runs it on threads of its own, for good; members may make subnets in these prefixes.
pub fn start(member_prefixes: &[&str]) -> Running {
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
        member_prefixes: member_prefixes.iter().flat_map(|p| p.parse()).collect(),
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
    Running {
        address,
        user,
        project,
    }
}

/// Somebody who is logged in, over one connection.
pub struct Client {
    server: SocketAddr,
    stream: BufReader<TcpStream>,
    token: String,
    items: Vec<String>,
}

impl Client {
    fn connect(server: SocketAddr) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(server).unwrap_or_else(|error| panic!("{error}"));
        let limit = Some(Duration::from_secs(10));
        let _ = (stream.set_read_timeout(limit), stream.set_nodelay(true));
        BufReader::new(stream)
    }

    /// The administrator.
    pub fn admin(running: &Running) -> Client {
        Client::login(running, &running.user, &running.project)
    }

    /// Whoever this is.
    pub fn login(running: &Running, user: &Value, project: &Value) -> Client {
        let mut client = Client {
            server: running.address,
            stream: Client::connect(running.address),
            token: String::new(),
            items: Vec::new(),
        };
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": project}}).to_string();
        let (status, answer) = client.ask("POST", COLLECTIONS[10], b"", body.as_bytes());
        assert_eq!(status, 201, "{answer}");
        client
    }

    /// Asks what a target thinks of, and remembers what came of it.
    pub fn try_out(&mut self, asked: &Asked<'_>) -> (u16, Value) {
        let path = self.path(asked.collection, asked.item);
        let (query, body) = (self.fill_in(asked.query), self.fill_in(asked.body));
        let (status, answer) = self.ask(asked.method, &path, &query, &body);
        assert!(status < 500, "{} {path}: {status} {answer}", asked.method);
        self.keep(&answer);
        (status, answer)
    }

    /// Makes something that has to be there.
    pub fn make(&mut self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, b"", body.to_string().as_bytes());
        assert_eq!(status, 201, "{path} {body}: {answer}");
        let made = answer.as_object().and_then(|o| o.values().next());
        made.cloned().unwrap_or_default()
    }

    /// Requests may be about this from now on, as long as nothing newer takes its place.
    pub fn know(&mut self, item: &Value) {
        self.keep(&json!({"item": item}));
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

    /// `@0` to `@7` are the identifiers of what was last made: no target would guess them.
    fn fill_in(&self, octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(octets.len());
        let mut rest = octets;
        while let [octet, more @ ..] = rest {
            let known = match more {
                [n @ b'0'..=b'7', ..] if *octet == b'@' => self.items.get(usize::from(n - b'0')),
                _ => None,
            };
            match known {
                Some(id) => out.extend_from_slice(id.as_bytes()),
                None => out.push(*octet),
            }
            rest = more.get(usize::from(known.is_some())..).unwrap_or_default();
        }
        out
    }

    fn keep(&mut self, answer: &Value) {
        let made = answer.as_object().and_then(|object| object.values().next());
        if let Some(id) = made.and_then(|made| made["id"].as_str()) {
            self.items.retain(|known| known != id);
            self.items.insert(0, id.to_owned());
            self.items.truncate(KEPT);
        }
    }

    /// Asks, and gives status and body.
    pub fn ask(&mut self, method: &str, path: &str, query: &[u8], body: &[u8]) -> (u16, Value) {
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
            self.stream = Client::connect(self.server);
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
