//! A registry to ask, and nodes that ask it.

use std::{
    fmt::Write,
    future::Future,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use hextet_mesh::{
    certificate::Certificate, key::SigningKey, label::Label, request::Enrolment, signed::Signed,
    token::Invitation,
};
use hextet_registry::{
    Registry,
    client::{self, About, ClientError, Joined},
    clock::now,
    config::Config,
    message::{Named, Nodes, ParametersShown, TokenAnswer, TokenRequest},
};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A place for a registry; not running yet.
pub struct Place {
    pub directory: TempDir,
    pub at: SocketAddr,
    pub more: String,
}

/// One that runs.
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

impl Place {
    /// `more` are further lines of the configuration.
    pub fn new(more: &str) -> Self {
        Self::at("[::1]:0", more)
    }

    /// On an address of loopback.
    pub fn at(address: &str, more: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Place {
            directory: TempDir::new().unwrap(),
            at: listener.local_addr().unwrap(),
            more: more.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let at = self.at;
        writeln!(text, "url = 'https://{at}'\nlisten = '{at}'").unwrap();
        writeln!(text, "store = {:?}", self.path("store")).unwrap();
        writeln!(text, "socket = {:?}", self.path("socket")).unwrap();
        text + &self.more
    }

    pub fn config(&self) -> Config {
        Config::parse(&self.text()).unwrap()
    }

    pub async fn run(&self) -> Running {
        let registry = Registry::open(&self.config()).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(registry.run(async {
            stopped.await.unwrap();
        }));
        Running { stop, task }
    }

    pub async fn ask<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> A {
        self.try_ask(path, Some(body)).await.unwrap()
    }

    pub async fn look<A: DeserializeOwned>(&self, path: &str) -> A {
        self.try_ask(path, None::<&()>).await.unwrap()
    }

    pub async fn try_ask<A: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, ClientError> {
        let answer = client::ask_admin(&self.path("socket"), path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    pub async fn invite(&self, groups: &[&str]) -> Invitation {
        let request = TokenRequest {
            class: "node".into(),
            groups: groups.iter().map(ToString::to_string).collect(),
            minutes: 5,
            email: None,
        };
        let answer: TokenAnswer = self.ask("/token", &request).await;
        answer.invitation.parse().unwrap()
    }

    pub async fn door(&self) -> Invitation {
        let answer: TokenAnswer = self.look("/door").await;
        answer.invitation.parse().unwrap()
    }

    pub async fn revoke(&self, certificate: &Signed<Certificate>) {
        let name = certificate.body.node.to_string();
        self.ask("/revoke", &Named { name }).await
    }

    pub async fn nodes(&self) -> Nodes {
        self.look("/nodes").await
    }

    pub async fn parameters(&self) -> ParametersShown {
        self.look("/parameters").await
    }
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

pub async fn join(invitation: &Invitation, seed: u8) -> Result<Joined, ClientError> {
    client::join(invitation, &key(seed), About::default(), now()).await
}

pub async fn joined(invitation: &Invitation, seed: u8) -> Signed<Certificate> {
    let joined = join(invitation, seed).await.unwrap();
    joined.certificate.expect("nobody has to approve")
}

pub async fn renew(
    door: &Invitation,
    seed: u8,
    newest: &Signed<Certificate>,
) -> Result<Joined, ClientError> {
    let root = join(door, seed).await.map(|j| j.trust.root());
    // Who is out learned the root when it was in.
    let root = match root {
        Ok(root) => root,
        Err(_) => root_of(door).await,
    };
    client::renew(door, &key(seed), newest, root, now()).await
}

pub async fn root_of(door: &Invitation) -> hextet_mesh::key::PublicKey {
    let network: hextet_registry::message::Network =
        client::ask(door, "/mesh/v1/network", None::<&()>)
            .await
            .unwrap();
    hextet_mesh::key::PublicKey(network.root.0.try_into().unwrap())
}

pub fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn enrolment(token: &Invitation, seed: u8, name: &str) -> Enrolment {
    Enrolment {
        token: token.token.clone(),
        key: key(seed).public(),
        name: Some(name.parse::<Label>().unwrap()),
        communities: Vec::new(),
        client: false,
    }
}
