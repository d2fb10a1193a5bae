//! The cloud's REST API, as a client on the management network sees it.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use hextet_lab::Node;
use serde_json::{Value, json};
use ureq::Agent;

/// A client with a token.
#[derive(Clone, Debug)]
pub struct Cloud {
    place: Node,
    url: String,
    token: String,
}

/// An answer: its status and its JSON.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when there is none.
    pub body: Value,
}

/// Who one is to the cloud.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The project to work in.
    pub project: String,
}

impl Login {
    /// The administrator, out of the `clouds.yaml` that the server wrote at its first start.
    ///
    /// # Errors
    ///
    /// The file is missing or lacks the password.
    pub fn from_clouds_yaml(path: &Path) -> Result<Login> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .with_context(|| format!("{} has no '{name}'", path.display()))
        };
        Ok(Login {
            user: field("username")?,
            password: field("password")?,
            project: field("project_name")?,
        })
    }
}

impl Cloud {
    /// Logs in by password, from that place.
    ///
    /// # Errors
    ///
    /// Nobody answers at `url`, or the login is refused.
    pub fn login(place: &Node, url: &str, login: &Login) -> Result<Cloud> {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": login.user, "domain": domain, "password": login.password}}},
            "scope": {"project": {"name": login.project, "domain": domain}},
        }});
        let token = place.enter(|| {
            let answer = http()
                .post(format!("{url}/identity/v3/auth/tokens"))
                .send_json(&body)?;
            let token = answer
                .headers()
                .get("x-subject-token")
                .map(|v| v.to_str().map(str::to_owned));
            token
                .context("the login was refused")?
                .context("the token is no text")
        })??;
        Ok(Cloud {
            place: place.clone(),
            url: url.to_owned(),
            token,
        })
    }

    /// Sends a request and gives its answer, whatever its status.
    ///
    /// # Errors
    ///
    /// There is no answer, or it is no JSON.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let what = format!("{method} {path}");
        self.place
            .enter(|| {
                let request = ureq::http::Request::builder()
                    .method(method)
                    .uri(format!("{}{path}", self.url))
                    .header("x-auth-token", &self.token)
                    .header("content-type", "application/json")
                    .body(body.map(Value::to_string).unwrap_or_default())?;
                let mut answer = http().run(request)?;
                let status = answer.status().as_u16();
                let text = answer.body_mut().read_to_string()?;
                let body = if text.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(&text)?
                };
                anyhow::Ok(Answer { status, body })
            })?
            .context(what)
    }

    /// Makes a resource: `create("network", json!({"name": "a"}))` gives the network.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn create(&self, resource: &str, attributes: Value) -> Result<Value> {
        let path = format!("/networking/v2.0/{}", plural(resource));
        let answer = self.request("POST", &path, Some(&json!({resource: attributes})))?;
        take(resource, answer).with_context(|| format!("create a {resource} of {attributes}"))
    }

    /// Changes a resource, and gives it as it is then; `id` may go on with an action: `ID/add_router_interface`.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn update(&self, resource: &str, id: &str, attributes: Value) -> Result<Value> {
        let path = format!("/networking/v2.0/{}/{id}", plural(resource));
        let body = match id.contains('/') {
            true => attributes.clone(),
            false => json!({resource: attributes}),
        };
        let answer = self.request("PUT", &path, Some(&body))?;
        let what = || format!("change {resource} {id} to {attributes}");
        match id.contains('/') && answer.status < 300 {
            true => Ok(answer.body),
            false => take(resource, answer).with_context(what),
        }
    }

    /// Shows a resource.
    ///
    /// # Errors
    ///
    /// There is none such.
    pub fn show(&self, resource: &str, id: &str) -> Result<Value> {
        let path = format!("/networking/v2.0/{}/{id}", plural(resource));
        take(resource, self.request("GET", &path, None)?)
            .with_context(|| format!("show {resource} {id}"))
    }

    /// All resources of a kind that the caller sees, of those that the query names (`name=a&status=DOWN`, or empty).
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn list(&self, resource: &str, query: &str) -> Result<Vec<Value>> {
        let path = format!("/networking/v2.0/{}?{query}", plural(resource));
        let answer = self.request("GET", &path, None)?;
        let key = format!("{resource}s").replace("ys", "ies");
        match answer.body[&key].as_array() {
            Some(all) if answer.status < 300 => Ok(all.clone()),
            _ => bail!("list {key}: {} {}", answer.status, answer.body),
        }
    }

    /// Deletes a resource.
    ///
    /// # Errors
    ///
    /// The cloud refuses; with its words.
    pub fn delete(&self, resource: &str, id: &str) -> Result<()> {
        let path = format!("/networking/v2.0/{}/{id}", plural(resource));
        let answer = self.request("DELETE", &path, None)?;
        if answer.status >= 300 {
            bail!("delete {resource} {id}: {} {}", answer.status, answer.body);
        }
        Ok(())
    }
}

/// A port's addresses.
///
/// # Errors
///
/// It is no port.
pub fn addresses(port: &Value) -> Result<Vec<IpAddr>> {
    let fixed = port["fixed_ips"]
        .as_array()
        .context("the port has no fixed_ips")?;
    fixed
        .iter()
        .map(|f| Ok(text(f, "ip_address")?.parse()?))
        .collect()
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

fn plural(resource: &str) -> String {
    match resource {
        "ndp_proxy" => "ndp_proxies".to_owned(),
        metering if metering.starts_with("metering_") => {
            format!("metering/{}s", metering.replace('_', "-"))
        }
        _ => format!("{}s", resource.replace('_', "-")),
    }
}

fn take(resource: &str, answer: Answer) -> Result<Value> {
    match answer.body.get(resource) {
        Some(value) if answer.status < 300 => Ok(value.clone()),
        _ => bail!("the cloud says {}: {}", answer.status, answer.body),
    }
}

fn http() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(20)))
        .http_status_as_error(false)
        .build()
        .into()
}
