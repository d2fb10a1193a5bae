//! The cloud's API, as its administrator uses it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use hextet_lab::Node;
use serde_json::{Value, json};
use ureq::Agent;

/// Where the server listens.
pub const CLIENTS: &str = "[::1]:9796";

/// A client with a token, which outlives the server.
#[derive(Clone)]
pub struct Client {
    place: Node,
    token: String,
}

impl Client {
    /// Logs in with what the server's first start wrote.
    pub fn login(place: &Node, clouds_yaml: &Path) -> Result<Client> {
        let text = fs::read_to_string(clouds_yaml).context("read clouds.yaml")?;
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.trim().split_once(':'));
            let value = fields.find(|(key, _)| *key == name).map(|(_, value)| value);
            let value = value.with_context(|| format!("clouds.yaml has no {name}"))?;
            anyhow::Ok(value.trim().trim_matches(['"', '\'']).to_owned())
        };
        let domain = json!({"id": "default"});
        let user =
            json!({"name": field("username")?, "domain": domain, "password": field("password")?});
        let scope = json!({"project": {"name": field("project_name")?, "domain": domain}});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let token = place.enter(|| {
            let url = format!("http://{CLIENTS}/identity/v3/auth/tokens");
            let answer = http().post(url).send_json(&body)?;
            let token = answer.headers().get("x-subject-token").context("refused")?;
            anyhow::Ok(token.to_str()?.to_owned())
        })??;
        Ok(Client {
            place: place.clone(),
            token,
        })
    }

    /// What the server says, if it does; an error also when it refuses.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.place.enter(|| {
            let body = match body {
                Value::Null => String::new(),
                body => body.to_string(),
            };
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("http://{CLIENTS}/networking/v2.0/{path}"))
                .header("x-auth-token", &self.token)
                .header("content-type", "application/json")
                .body(body)?;
            let mut answer = http().run(request)?;
            let status = answer.status().as_u16();
            let text = answer.body_mut().read_to_string()?;
            if status >= 300 {
                bail!("{method} {path}: {status} {text}");
            }
            Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
        })?
    }

    /// Makes a resource.
    pub fn create(&self, resource: &str, attributes: &Value) -> Result<Value> {
        let path = format!("{}s", resource.replace('_', "-"));
        let answer = self.request("POST", &path, &json!({resource: attributes}))?;
        Ok(answer[resource].clone())
    }

    /// Changes a resource.
    pub fn update(&self, resource: &str, id: &str, attributes: &Value) -> Result<()> {
        let path = format!("{}s/{id}", resource.replace('_', "-"));
        self.request("PUT", &path, &json!({resource: attributes}))
            .map(drop)
    }

    /// Deletes a resource.
    pub fn delete(&self, resource: &str, id: &str) -> Result<()> {
        let path = format!("{}s/{id}", resource.replace('_', "-"));
        self.request("DELETE", &path, &Value::Null).map(drop)
    }

    /// All of a kind.
    pub fn list(&self, resource: &str) -> Result<Vec<Value>> {
        let path = format!("{}s", resource.replace('_', "-"));
        let answer = self.request("GET", &path, &Value::Null)?;
        let list = answer[format!("{resource}s")].as_array().cloned();
        list.with_context(|| format!("no list of {resource}s in {answer}"))
    }
}

fn http() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into()
}
