//! Nova's and Keystone's API, as far as events need it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    http::{ClientError, Http, Outgoing, Response, secret},
    queue::{Answer, Event},
};
use crate::config::NovaConfig;

/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read, in octets.
const MAX_ANSWER: usize = 1 << 20;

/// A client with a token, once it has asked for one.
pub struct Client {
    config: NovaConfig,
    auth_url: String,
    http: Http,
    token: Option<String>,
}

/// What Nova answers to several events, in their order.
#[derive(Deserialize)]
struct Verdicts {
    events: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    code: u16,
}

impl Client {
    /// A client that asks this identity service unless the configuration names another.
    ///
    /// # Errors
    ///
    /// HTTPS is asked for, and the authorities cannot be read.
    pub fn new(config: NovaConfig, own_identity: &str) -> Result<Client, ClientError> {
        let auth_url = config.auth_url.as_deref().unwrap_or(own_identity);
        let auth_url = auth_url.trim_end_matches('/').to_owned();
        let http = Http::new(
            &[&config.url, &auth_url],
            config.ca_file.as_deref(),
            PATIENCE,
            MAX_ANSWER,
        )?;
        Ok(Client {
            config,
            auth_url,
            http,
            token: None,
        })
    }

    /// Tells Nova of events; answers what it says to each.
    ///
    /// # Errors
    ///
    /// It does not answer, or has trouble of its own.
    pub async fn tell(&mut self, events: &[Event]) -> Result<Vec<Answer>, ClientError> {
        let bodies: Vec<Value> = events.iter().map(body).collect();
        let body = json!({"events": bodies});
        let url = self.config.events_url();
        let fresh = self.token.is_none();
        let mut response = self.post_with_token(&url, &body).await?;
        if response.status == 401 && !fresh {
            self.token = None;
            response = self.post_with_token(&url, &body).await?;
        }
        let all = |answer| Ok(vec![answer; events.len()]);
        match response.status {
            200 | 207 => match serde_json::from_slice::<Verdicts>(&response.body) {
                Ok(verdicts) if verdicts.events.len() == events.len() => {
                    Ok(verdicts.events.iter().map(|v| answer(v.code)).collect())
                }
                _ if response.status == 200 => all(Answer::Taken),
                _ => all(Answer::Unknown),
            },
            404 | 422 => all(Answer::Unknown),
            400 => all(Answer::Refused),
            status => {
                if status == 401 || status == 403 {
                    self.token = None;
                }
                let words = String::from_utf8_lossy(&response.body);
                Err(ClientError::Status {
                    url,
                    status,
                    words: words.chars().take(200).collect(),
                })
            }
        }
    }

    async fn post_with_token(&mut self, url: &str, body: &Value) -> Result<Response, ClientError> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.authenticate().await?,
        };
        let response = self.post(url, Some(&token), body).await?;
        self.token = Some(token);
        Ok(response)
    }

    /// Keystone's API v3, by password.
    async fn authenticate(&self) -> Result<String, ClientError> {
        let config = &self.config;
        let password = secret(&config.password_file, "nova.password_file").await?;
        let user = json!({"name": config.username, "password": password,
            "domain": {"id": config.user_domain_id}});
        let project = json!({"name": config.project, "domain": {"id": config.project_domain_id}});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project}}});
        let url = format!("{}/auth/tokens", self.auth_url);
        let response = self.post(&url, None, &body).await?;
        let token = response.headers.get("x-subject-token");
        let token = token.and_then(|t| t.to_str().ok());
        match token.filter(|_| response.status == 201) {
            Some(token) => Ok(token.to_owned()),
            None => Err(ClientError::NoToken {
                url,
                user: config.username.clone(),
                project: config.project.clone(),
                status: response.status,
            }),
        }
    }

    async fn post(
        &self,
        url: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Response, ClientError> {
        let json = || "application/json".to_owned();
        let mut headers = vec![("content-type", json()), ("accept", json())];
        headers.extend(token.map(|token| ("x-auth-token", token.to_owned())));
        let outgoing = Outgoing {
            method: "POST",
            url,
            headers,
            body: body.to_string().into_bytes(),
        };
        self.http.send(outgoing).await
    }
}

/// As Nova takes it. Never `failed`: Nova would give the server up, whatever comes later.
fn body(event: &Event) -> Value {
    json!({
        "name": event.kind,
        "server_uuid": event.server,
        "tag": event.port,
        "status": "completed",
    })
}

fn answer(code: u16) -> Answer {
    match code {
        200..=299 => Answer::Taken,
        404 | 422 => Answer::Unknown,
        500.. => Answer::Silence,
        _ => Answer::Refused,
    }
}
