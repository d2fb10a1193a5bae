//! The cloud's REST API over one connection that is kept.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

const NETWORKING: &str = "/networking/v2.0";

/// A client with a token.
pub struct Client {
    http: Agent,
    url: String,
    token: String,
}

impl Client {
    /// Logs in with the `clouds.yaml` that the server wrote at its first start.
    ///
    /// # Errors
    ///
    /// The file is not there yet, or nobody answers.
    pub fn administrator(url: &str, clouds_yaml: &Path) -> Result<Client> {
        let text = fs::read_to_string(clouds_yaml)
            .with_context(|| format!("read {}", clouds_yaml.display()))?;
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .with_context(|| format!("{} has no '{name}'", clouds_yaml.display()))
        };
        let (user, password) = (field("username")?, field("password")?);
        Client::login(url, &user, &password, &field("project_name")?)
    }

    /// Logs in by password.
    ///
    /// # Errors
    ///
    /// Nobody answers, or the login is refused.
    pub fn login(url: &str, user: &str, password: &str, project: &str) -> Result<Client> {
        let domain = json!({"id": "default"});
        let user = json!({"name": user, "password": password, "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let http: Agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build()
            .into();
        let mut answer = http
            .post(format!("{url}/identity/v3/auth/tokens"))
            .send_json(&body)
            .with_context(|| format!("log in at {url}"))?;
        let token = answer.headers().get("x-subject-token").cloned();
        let said = answer.body_mut().read_to_string().unwrap_or_default();
        let token = token.with_context(|| format!("the login was refused: {said}"))?;
        Ok(Client {
            http,
            url: url.to_owned(),
            token: token.to_str().context("the token is no text")?.to_owned(),
        })
    }

    /// Makes a project with a member in it, lets it have any number of ports, and logs the member in.
    /// Gives the project's id.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn project(&self, name: &str) -> Result<(String, Client)> {
        let made = |kind: &str, attributes: Value| -> Result<String> {
            let path = format!("/identity/v3/{kind}s");
            let answer = self.send("POST", &path, &json!({ kind: attributes }))?;
            text(&answer[kind], "id")
        };
        let password = "of no account outside a bench";
        let project = made("project", json!({"name": name}))?;
        let user = made("user", json!({"name": name, "password": password}))?;
        let roles = self.send("GET", "/identity/v3/roles?name=member", &Value::Null)?;
        let role = text(&roles["roles"][0], "id")?;
        let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
        self.send("PUT", &path, &Value::Null)?;
        let path = format!("{NETWORKING}/quotas/{project}");
        self.send("PUT", &path, &json!({"quota": {"port": -1}}))?;
        let member = Client::login(&self.url, name, password, name)?;
        Ok((project, member))
    }

    /// Makes a network or a subnet, and gives its id.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn create(&self, resource: &str, attributes: Value) -> Result<String> {
        let path = format!("{NETWORKING}/{resource}s");
        let answer = self.send("POST", &path, &json!({ resource: attributes }))?;
        text(&answer[resource], "id")
    }

    /// Makes ports in one request.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn create_ports(&self, ports: &[Value]) -> Result<()> {
        let path = format!("{NETWORKING}/ports");
        self.send("POST", &path, &json!({"ports": ports})).map(drop)
    }

    /// Deletes a port.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn delete_port(&self, id: &str) -> Result<()> {
        let path = format!("{NETWORKING}/ports/{id}");
        self.send("DELETE", &path, &Value::Null).map(drop)
    }

    /// How many ports a list has.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn count_ports(&self, query: &str) -> Result<usize> {
        let path = format!("{NETWORKING}/ports{query}");
        let answer = self.send("GET", &path, &Value::Null)?;
        let ports = answer["ports"].as_array();
        ports
            .map(Vec::len)
            .with_context(|| format!("{path} gives no ports"))
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let what = format!("{method} {path}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("x-auth-token", &self.token)
            .header("content-type", "application/json")
            .body(body)?;
        let mut answer = self.http.run(request).with_context(|| what.clone())?;
        let status = answer.status().as_u16();
        let reader = answer.body_mut().with_config().limit(64 << 20);
        let said = reader.read_to_string().with_context(|| what.clone())?;
        if status >= 300 {
            bail!("{what}: the cloud says {status}: {said}");
        }
        if said.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| format!("the answer to {what}"))
    }
}

fn text(value: &Value, name: &str) -> Result<String> {
    let found = value[name].as_str().map(str::to_owned);
    found.with_context(|| format!("no text '{name}' in {value}"))
}
