//! The cloud's REST API, as its administrator uses it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use hextet_lab::Node;
use serde_json::{Value, json};
use ureq::Agent;

/// A client with the administrator's token; its connections begin at one node.
pub struct Cloud {
    place: Node,
    http: Agent,
    url: String,
    token: String,
}

impl Cloud {
    /// Logs in with the `clouds.yaml` that the server wrote at its first start.
    ///
    /// # Errors
    ///
    /// The file is not there yet, or nobody answers.
    pub fn login(place: &Node, url: &str, clouds_yaml: &Path) -> Result<Cloud> {
        let text = fs::read_to_string(clouds_yaml)
            .with_context(|| format!("read {}", clouds_yaml.display()))?;
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .with_context(|| format!("{} has no '{name}'", clouds_yaml.display()))
        };
        let domain = json!({"id": "default"});
        let user =
            json!({"name": field("username")?, "password": field("password")?, "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": field("project_name")?, "domain": domain}},
        }});
        let http: Agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build()
            .into();
        let token = place.enter(|| {
            let answer = http
                .post(format!("{url}/identity/v3/auth/tokens"))
                .send_json(&body)?;
            let token = answer.headers().get("x-subject-token");
            let token = token.context("the login was refused")?;
            anyhow::Ok(token.to_str().context("the token is no text")?.to_owned())
        })??;
        Ok(Cloud {
            place: place.clone(),
            http,
            url: url.to_owned(),
            token,
        })
    }

    /// Makes a resource and gives it.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn create(&self, resource: &str, attributes: Value) -> Result<Value> {
        let path = collection(resource);
        self.send("POST", &path, &json!({resource: attributes}))?
            .get_mut(resource)
            .map(Value::take)
            .with_context(|| format!("the answer has no {resource}"))
    }

    /// Makes ports in one request and gives them.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn create_ports(&self, ports: &[Value]) -> Result<Vec<Value>> {
        let mut answer = self.send("POST", &collection("port"), &json!({"ports": ports}))?;
        match answer.get_mut("ports").map(Value::take) {
            Some(Value::Array(ports)) => Ok(ports),
            _ => bail!("the answer has no ports"),
        }
    }

    /// Changes a port.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn update_port(&self, id: &str, attributes: Value) -> Result<()> {
        let path = format!("{}/{id}", collection("port"));
        self.send("PUT", &path, &json!({"port": attributes}))
            .map(drop)
    }

    /// A port as it stands.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn port(&self, id: &str) -> Result<Value> {
        let path = format!("{}/{id}", collection("port"));
        let mut answer = self.send("GET", &path, &Value::Null)?;
        Ok(answer["port"].take())
    }

    /// Deletes a resource.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn delete(&self, resource: &str, id: &str) -> Result<()> {
        let path = format!("{}/{id}", collection(resource));
        self.send("DELETE", &path, &Value::Null).map(drop)
    }

    /// Lets a project have as many of everything as the bench needs.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn lift_quotas(&self, project: &str) -> Result<()> {
        let path = format!("/networking/v2.0/quotas/{project}");
        let all = json!({"quota": {"port": -1, "security_group_rule": -1}});
        self.send("PUT", &path, &all).map(drop)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let exchange = || -> Result<(u16, String)> {
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
            let mut answer = self.http.run(request)?;
            let status = answer.status().as_u16();
            let reader = answer.body_mut().with_config().limit(64 << 20);
            Ok((status, reader.read_to_string()?))
        };
        let (status, text) = self
            .place
            .enter(exchange)?
            .with_context(|| format!("{method} {path}"))?;
        if status >= 300 {
            bail!("{method} {path}: the cloud says {status}: {text}");
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("the answer to {method} {path}"))
    }
}

fn collection(resource: &str) -> String {
    format!("/networking/v2.0/{}s", resource.replace('_', "-"))
}

/// A text attribute.
///
/// # Errors
///
/// It is not there, or no text.
pub fn text(value: &Value, name: &str) -> Result<String> {
    value[name]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no text '{name}' in {value}"))
}
