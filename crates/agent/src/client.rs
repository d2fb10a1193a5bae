//! The agent's side of the conversation with the server: HTTP/1.1 over mutual TLS.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use hextet_api::agent::{
    Heard, INTENT, IntentMessage, Memberships, MetadataAnswer, MetadataRequest, Metered,
    SERVER_NAME, StatusReport,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// For reaching the server, and for each request's answer to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Without a line for this long an intent stream counts as dead; the server sends one every ten seconds.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);
/// The longest line of an intent stream, and the longest answer otherwise.
const MAX_LINE: usize = 4 << 20;

/// What became of a report of what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The server has taken it.
    All,
    /// All but what changes too often.
    TooOften,
}

/// A connection to the server's listener for agents.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
}

/// Opens a connection; the server has to show a certificate for [`SERVER_NAME`].
///
/// # Errors
///
/// Nobody answers at the address, or the TLS handshake fails.
pub async fn connect(server: &str, tls: Arc<ClientConfig>) -> Result<Connection> {
    let open = async {
        let tcp = TcpStream::connect(server).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME)?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        anyhow::Ok(Connection { sender })
    };
    timeout(PATIENCE, open)
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()))
        .with_context(|| format!("connect to the server at {server}"))
}

impl Connection {
    /// Posts JSON, and reads JSON.
    ///
    /// # Errors
    ///
    /// The server refuses (with its own words), or the connection breaks.
    pub async fn post<A: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A> {
        let answer = self.send("POST", path, serde_json::to_vec(body)?).await?;
        let body = read_all(answer).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("understand the answer to POST {path}"))
    }

    /// Reports the state of this host's ports.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn report(&mut self, report: &StatusReport) -> Result<()> {
        let answer = self
            .send("POST", "/v1/status", serde_json::to_vec(report)?)
            .await?;
        read_all(answer).await.map(drop)
    }

    /// Reports whose workloads were heard.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn heard(&mut self, heard: &Heard) -> Result<Told> {
        self.tell("/v1/heard", serde_json::to_vec(heard)?).await
    }

    async fn tell(&mut self, path: &str, body: Vec<u8>) -> Result<Told> {
        let answer = self.ask("POST", path, body).await?;
        let told = match answer.status() {
            StatusCode::TOO_MANY_REQUESTS => Told::TooOften,
            status if status.is_success() => Told::All,
            _ => return refuse("POST", path, answer).await,
        };
        read_all(answer).await.map(|_| told)
    }

    /// Reports what multicast groups ports have joined.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn joined(&mut self, memberships: &Memberships) -> Result<Told> {
        self.tell("/v1/joined", serde_json::to_vec(memberships)?)
            .await
    }

    /// Reports what was metered.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn metered(&mut self, metered: &Metered) -> Result<()> {
        let answer = self
            .send("POST", "/v1/metered", serde_json::to_vec(metered)?)
            .await?;
        read_all(answer).await.map(drop)
    }

    /// Has Nova answer a workload.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn metadata(&mut self, request: &MetadataRequest) -> Result<MetadataAnswer> {
        self.post("/v1/metadata", request).await
    }

    /// Begins the intent stream.
    ///
    /// # Errors
    ///
    /// As [`Connection::post`].
    pub async fn intent(mut self) -> Result<IntentStream> {
        let answer = self.send("GET", INTENT, Vec::new()).await?;
        Ok(IntentStream {
            body: answer.into_body(),
            buffer: BytesMut::new(),
            scanned: 0,
            _sender: self.sender,
        })
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let answer = self.ask(method, path, body).await?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            refuse(method, path, answer).await
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", SERVER_NAME)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        timeout(PATIENCE, answer)
            .await
            .with_context(|| format!("{method} {path}: no answer within {} s", PATIENCE.as_secs()))?
            .with_context(|| format!("{method} {path}"))
    }
}

async fn refuse<T>(method: &str, path: &str, answer: Response<Incoming>) -> Result<T> {
    let status: StatusCode = answer.status();
    let words = read_all(answer).await.unwrap_or_default();
    bail!(
        "{method} {path}: the server says {status}: {}",
        String::from_utf8_lossy(&words)
    )
}

async fn read_all(answer: Response<Incoming>) -> Result<Bytes> {
    let body = timeout(
        PATIENCE,
        Limited::new(answer.into_body(), MAX_LINE).collect(),
    )
    .await?;
    Ok(body
        .map_err(|e| anyhow::anyhow!(e))
        .context("read the server's answer")?
        .to_bytes())
}

/// The lines of an intent stream.
pub struct IntentStream {
    body: Incoming,
    buffer: BytesMut,
    /// Octets of `buffer` that hold no line end.
    scanned: usize,
    _sender: http1::SendRequest<Full<Bytes>>,
}

impl IntentStream {
    /// The next message.
    ///
    /// # Errors
    ///
    /// The stream ends, stays silent for too long, or says something that is no message.
    pub async fn next(&mut self) -> Result<IntentMessage> {
        loop {
            if let Some(line) = self.take_line() {
                return serde_json::from_slice(&line)
                    .context("understand a line of the intent stream");
            }
            if self.buffer.len() > MAX_LINE {
                bail!("a line of the intent stream is longer than {MAX_LINE} octets");
            }
            let frame = timeout(STREAM_PATIENCE, self.body.frame())
                .await
                .context("the intent stream has been silent for 30 s")?
                .context("the server ended the intent stream")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match self
            .buffer
            .iter()
            .skip(self.scanned)
            .position(|b| *b == b'\n')
        {
            Some(at) => {
                let line = self.buffer.split_to(self.scanned + at + 1);
                self.scanned = 0;
                Some(line)
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }
}
