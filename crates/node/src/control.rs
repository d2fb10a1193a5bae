//! Where others on this host talk to a node: a Unix socket, lines of JSON.
//!
//! Who asks for the status, or for the map, gets it, and the connection ends. Who has the node serve something ([`Served`]) hears what that came to, and again
//! whenever it is different, as long as it listens.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    map::Map,
    served::{Served, Serving},
    status::Status,
};

/// Octets of an answer at most.
const MAX_ANSWER: u64 = 256 << 20;
/// Octets of a request at most.
const MAX_REQUEST: u64 = 8 << 20;
/// Who may be connected at once.
const MAX_CONNECTED: usize = 64;
/// How long somebody may take to say what he wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How it stands.
    Status,
    /// Who is next to whom in the whole mesh: all nodes are asked, which takes up to a few seconds.
    Map,
    /// It serves this from now on, and nothing that was served before.
    Serve(Served),
}

/// What the node is asked by those who are connected.
#[derive(Debug)]
pub enum Asked {
    /// How it stands.
    Status(oneshot::Sender<Status>),
    /// The whole mesh.
    Map(oneshot::Sender<Map>),
    /// To serve this; the answer says how that stands from then on.
    Serve(Served, oneshot::Sender<Result<watch::Receiver<Serving>>>),
}

/// What comes back to [`Request::Serve`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Serving(Serving),
    Refused(String),
}

/// Listens; what a node that was killed left there is in the way.
///
/// # Errors
///
/// Another node listens there, or the path can't be used.
pub async fn bind(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen at {}", path.display());
    if UnixStream::connect(path).await.is_ok() {
        return Err(anyhow!("another node runs on this host").context(what()));
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(what)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(what)?;
    Ok(listener)
}

/// Hands on what is asked, until nobody takes it any more.
pub async fn listen(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTED));
    while !asked.is_closed() {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            // Whoever hangs up before the answer does not get it.
            let _ = talk(stream, asked).await;
            drop(place);
        });
    }
}

async fn talk(stream: UnixStream, asked: mpsc::Sender<Asked>) -> Result<()> {
    let (input, mut output) = stream.into_split();
    let mut lines = Lines::new(input);
    let first = timeout(PATIENCE, lines.next::<Request>()).await??;
    let mut request = first.context("nothing was asked")?;
    loop {
        let (answer, answered) = oneshot::channel();
        match request {
            Request::Status => {
                let (answer, answered) = oneshot::channel();
                asked.send(Asked::Status(answer)).await?;
                return write(&mut output, &answered.await?).await;
            }
            Request::Map => {
                let (answer, answered) = oneshot::channel();
                asked.send(Asked::Map(answer)).await?;
                return write(&mut output, &answered.await?).await;
            }
            Request::Serve(served) => asked.send(Asked::Serve(served, answer)).await?,
        }
        let mut standing = match answered.await? {
            Ok(standing) => standing,
            Err(error) => {
                return write(&mut output, &Answer::Refused(format!("{error:#}"))).await;
            }
        };
        request = loop {
            let serving = *standing.borrow_and_update();
            write(&mut output, &Answer::Serving(serving)).await?;
            tokio::select! {
                changed = standing.changed() => changed?,
                next = lines.next() => match next? {
                    Some(request) => break request,
                    None => return Ok(()),
                },
            }
        };
    }
}

/// Lines of JSON, none too long. What came of a line that was not yet read to its end is kept.
struct Lines {
    input: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Lines {
    fn new(input: OwnedReadHalf) -> Lines {
        Lines {
            input: BufReader::new(input),
            line: Vec::new(),
        }
    }

    async fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>> {
        let left = MAX_REQUEST.saturating_sub(self.line.len() as u64);
        let mut input = (&mut self.input).take(left);
        input.read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            anyhow::ensure!(self.line.is_empty(), "a line that does not end");
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

async fn write(output: &mut OwnedWriteHalf, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(output.write_all(&line).await?)
}

async fn connect(path: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(path).await;
    stream.with_context(|| {
        format!(
            "no node of a mesh answers at {}: is `hextet mesh run` running on this host, with that `socket`?",
            path.display()
        )
    })
}

/// Asks the node at this socket how it stands.
///
/// # Errors
///
/// None runs.
pub async fn ask(path: &Path) -> Result<Status> {
    question(path, &Request::Status).await
}

/// Has the node at this socket ask all others who is next to whom.
///
/// # Errors
///
/// None runs.
pub async fn map(path: &Path) -> Result<Map> {
    question(path, &Request::Map).await
}

async fn question<A: DeserializeOwned>(path: &Path, request: &Request) -> Result<A> {
    let stream = connect(path).await.context("--socket names another")?;
    let (input, mut output) = stream.into_split();
    write(&mut output, request).await?;
    let mut text = Vec::new();
    input.take(MAX_ANSWER).read_to_end(&mut text).await?;
    serde_json::from_slice(&text).context("understand the node's answer")
}

/// A node that serves something, as long as one listens to it. What it was told last holds after that, too.
pub struct Service {
    lines: Lines,
    output: OwnedWriteHalf,
}

impl Service {
    /// Of the node at this socket.
    ///
    /// # Errors
    ///
    /// None runs.
    pub async fn connect(path: &Path) -> Result<Service> {
        let (input, output) = connect(path).await?.into_split();
        Ok(Service {
            lines: Lines::new(input),
            output,
        })
    }

    /// Has it serve this.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub async fn serve(&mut self, served: Served) -> Result<()> {
        write(&mut self.output, &Request::Serve(served)).await
    }

    /// How that stands, once it is different from what was heard last. May be given up and asked again.
    ///
    /// # Errors
    ///
    /// It is gone, or refuses.
    pub async fn next(&mut self) -> Result<Serving> {
        match self.lines.next().await?.context("the node has ended")? {
            Answer::Serving(serving) => Ok(serving),
            Answer::Refused(why) => Err(anyhow!(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const HOME: Ipv6Addr = Ipv6Addr::LOCALHOST;

    fn serving(is_connected: bool) -> Serving {
        Serving {
            home: HOME,
            is_connected,
        }
    }

    #[tokio::test]
    async fn who_serves_is_heard_until_one_hangs_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (asked, mut asking) = mpsc::channel(1);
        tokio::spawn(listen(bind(&path).await.unwrap(), asked));
        assert!(bind(&path).await.is_err(), "somebody listens there");
        let mut service = Service::connect(&path).await.unwrap();
        let standing = watch::Sender::new(serving(false));
        for number in 1..=3 {
            let served = Served {
                announce: [format!("2001:db8::{number}/128").parse().unwrap()].into(),
                accept: ["2001:db8::/32".parse().unwrap()].into(),
            };
            service.serve(served.clone()).await.unwrap();
            let Some(Asked::Serve(heard, answer)) = asking.recv().await else {
                panic!("to serve");
            };
            assert_eq!(heard, served);
            answer.send(Ok(standing.subscribe())).unwrap();
            assert_eq!(service.next().await.unwrap(), *standing.borrow());
            let is_connected = !standing.borrow().is_connected;
            standing.send_replace(serving(is_connected));
            assert_eq!(service.next().await.unwrap(), serving(is_connected));
        }
        service.serve(Served::default()).await.unwrap();
        let Some(Asked::Serve(_, answer)) = asking.recv().await else {
            panic!("to serve");
        };
        answer.send(Err(anyhow!("too much of it"))).unwrap();
        let refused = service.next().await.unwrap_err().to_string();
        assert_eq!(refused, "too much of it");
    }

    #[tokio::test]
    async fn a_line_without_an_end_and_nonsense_end_a_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (asked, _asking) = mpsc::channel(1);
        tokio::spawn(listen(bind(&path).await.unwrap(), asked));
        for octets in [&b"\"status\""[..], b"{]\n", b"\"stat\"\n", b"\n", b""] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(octets).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"");
        }
    }
}
