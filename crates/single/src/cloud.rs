//! The cloud's own API, as the administrator of this host.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::places::Places;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client with a token.
#[derive(Clone, Debug)]
pub struct Cloud {
    http: Agent,
    url: String,
    token: String,
}

impl Cloud {
    /// Logs in with what the server wrote at its first start.
    ///
    /// # Errors
    ///
    /// Nobody answers there.
    pub fn open(places: &Places) -> Result<Cloud> {
        let path = places.clouds_yaml();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("read {}: is hextet up on this host?", path.display()))?;
        let field = |name: &str| {
            let lines = text.lines();
            let mut fields = lines.filter_map(|line| line.trim().split_once(": "));
            let found = fields.find(|(key, _)| *key == name);
            found.with_context(|| format!("{} has no '{name}'", path.display()))
        };
        let (_, auth_url) = field("auth_url")?;
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": field("username")?.1, "domain": domain, "password": field("password")?.1}}},
            "scope": {"project": {"name": field("project_name")?.1, "domain": domain}},
        }});
        let http: Agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build()
            .into();
        let root = auth_url
            .trim_end_matches("/v3")
            .trim_end_matches("/identity");
        let answer = http
            .post(format!("{root}/identity/v3/auth/tokens"))
            .send_json(&body)
            .context("log in to the server of this host; 'hextet up' starts it")?;
        let token = answer.headers().get("x-subject-token");
        let token = token.context("the server refuses its own administrator")?;
        Ok(Cloud {
            url: format!("{root}/networking/v2.0"),
            token: token.to_str()?.to_owned(),
            http,
        })
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.url))
            .header("x-auth-token", &self.token)
            .header("content-type", "application/json")
            .body(body.to_owned())?;
        let mut answer = self
            .http
            .run(request)
            .with_context(|| format!("ask the server of this host: {method} {path}"))?;
        let text = answer.body_mut().read_to_string()?;
        let body = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&text)?,
        };
        Ok((answer.status().as_u16(), body))
    }

    /// All of a kind (`ports`), of those that the query names (`name=web`, or empty).
    ///
    /// # Errors
    ///
    /// The server refuses; with its words.
    pub fn list(&self, kinds: &str, query: &str) -> Result<Vec<Value>> {
        let (status, body) = self.request("GET", &format!("{kinds}?{query}"), "")?;
        match body[kinds.replace('-', "_")].as_array() {
            Some(all) if status < 300 => Ok(all.clone()),
            _ => bail!("{}", words(&body)),
        }
    }

    /// Makes one of a kind (`ports`, `port`).
    ///
    /// # Errors
    ///
    /// The server refuses; with its words.
    pub fn create(&self, (kinds, kind): (&str, &str), attributes: &Value) -> Result<Value> {
        let body = json!({kind: attributes}).to_string();
        taken(kind, self.request("POST", kinds, &body)?)
    }

    /// Changes one.
    ///
    /// # Errors
    ///
    /// The server refuses; with its words.
    pub fn update(&self, (kinds, kind): (&str, &str), id: &str, change: &Value) -> Result<Value> {
        let body = json!({kind: change}).to_string();
        taken(kind, self.request("PUT", &format!("{kinds}/{id}"), &body)?)
    }

    /// Deletes one.
    ///
    /// # Errors
    ///
    /// The server refuses; with its words.
    pub fn delete(&self, kinds: &str, id: &str) -> Result<()> {
        let (status, body) = self.request("DELETE", &format!("{kinds}/{id}"), "")?;
        match status {
            404 | ..300 => Ok(()),
            _ => bail!("{}", words(&body)),
        }
    }

    /// A port by its name.
    ///
    /// # Errors
    ///
    /// There is none, or several.
    pub fn port(&self, name: &str) -> Result<Value> {
        match &self.find_ports(name)?[..] {
            [port] => Ok(port.clone()),
            [] => bail!(
                "no workload is called {name}; start one: hextet run --name {name} -- COMMAND"
            ),
            several => bail!("{} ports are called {name}: rename one", several.len()),
        }
    }

    /// The ports of that name.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn find_ports(&self, name: &str) -> Result<Vec<Value>> {
        self.list("ports", &format!("name={name}"))
    }
}

/// A text of a resource; empty, where there is none.
pub(crate) fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

fn taken(kind: &str, (status, body): (u16, Value)) -> Result<Value> {
    match body.get(kind) {
        Some(value) if status < 300 => Ok(value.clone()),
        _ => bail!("{}", words(&body)),
    }
}

/// What the server says of a refusal (Neutron's errors).
fn words(body: &Value) -> String {
    let said = body["NeutronError"]["message"].as_str();
    said.map_or_else(|| body.to_string(), str::to_owned)
}
