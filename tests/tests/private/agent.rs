//! An agent without a server, in a process of its own; it is told intents in lines of JSON.

use std::{
    env,
    io::{BufRead as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Stdio},
};

use hextet_agent::{
    Update,
    config::AgentConfig,
    report::{ExplainRequest, Explained, Status},
};
use hextet_model::intent::{Change, Intent};
use tempfile::TempDir;

use super::host::{Host, wait_for};

const CONFIG: &str = "HEXTET_PRIVATE_CONFIG";
const LEAVE: &str = "HEXTET_PRIVATE_LEAVE";

/// An agent on a host; killed with its handle.
pub struct Agent {
    child: Child,
    directory: PathBuf,
}

/// What agents of one host keep from one to the next.
pub struct Home {
    directory: TempDir,
    name: String,
}

impl Home {
    pub fn new(name: &str) -> Home {
        let home = Home {
            directory: TempDir::new().unwrap(),
            name: name.to_owned(),
        };
        let path = home.directory.path().display();
        let text = format!(
            "server = '127.0.0.1:1'\nstate_dir = '{path}/state'\ncontrol_socket = '{path}/control'\n\
             [host]\nhost = '{name}'\nuplinks = ['up0']\n"
        );
        std::fs::write(home.config(), text).unwrap();
        home
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// Starts an agent; it works from what the last one was told.
    pub fn start(&self, host: &Host) -> Agent {
        let log = self.directory.path().join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = host
            .command(env::current_exe().unwrap().to_str().unwrap())
            .args(["--exact", "agent::process", "--nocapture"])
            .env(CONFIG, self.config())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut agent = Agent {
            child,
            directory: self.directory.path().to_owned(),
        };
        wait_for("the agent answers", || {
            let ended = agent.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}: {}", self.name, agent.log());
            agent.ask("GET /status", "").is_some()
        });
        agent
    }

    /// Has all removed that agents made.
    pub fn leave(&self, host: &Host) {
        let status = host
            .command(env::current_exe().unwrap().to_str().unwrap())
            .args(["--exact", "agent::process", "--nocapture"])
            .env(CONFIG, self.config())
            .env(LEAVE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{} leaves", self.name);
    }
}

impl Agent {
    /// Tells it an intent, and waits until it works from that.
    pub fn tell(&mut self, revision: u64, intent: &Intent) {
        let changes: Vec<Change> = intent.as_changes().collect();
        let line = serde_json::to_string(&(revision, changes)).unwrap();
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        wait_for("the agent has taken the intent", || {
            self.status().revision == revision
        });
    }

    pub fn status(&self) -> Status {
        let answer = self.ask("GET /status", "");
        let answer = answer.unwrap_or_else(|| panic!("it does not answer: {}", self.log()));
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    pub fn explain(&self, request: &ExplainRequest) -> Explained {
        let body = serde_json::to_string(request).unwrap();
        let answer = self.ask("POST /explain", &body).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    /// Waits until all its ports pass packets and nothing is left to be written.
    pub fn settles(&self) {
        let mut last = None;
        let mut stands = || {
            let status = self.status();
            let down = status.ports.iter().filter_map(|p| p.down.clone()).next();
            let stands = down.is_none() && status.kernel.failed.is_empty();
            last = Some((down, status.kernel.failed));
            stands && self.ask("GET /plan", "").as_deref() == Some("[]")
        };
        let end = std::time::Instant::now() + super::host::LIMIT;
        while !stands() {
            assert!(
                std::time::Instant::now() < end,
                "{:?}\nplan: {:?}\n{}",
                last,
                self.ask("GET /plan", ""),
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn ask(&self, line: &str, body: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.directory.join("control")).ok()?;
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{line}: {answer}");
        Some(body.to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// The agent itself, when this program is started as one.
#[test]
fn process() {
    let Some(config) = env::var_os(CONFIG) else {
        return;
    };
    let text = std::fs::read_to_string(config).unwrap();
    let config: AgentConfig = toml::from_str(&text).unwrap();
    if env::var_os(LEAVE).is_some() {
        hextet_agent::leave(&config).unwrap();
        return;
    }
    tracing_subscriber::fmt().with_ansi(false).init();
    let (updates, told) = tokio::sync::mpsc::channel(8);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let (revision, changes): (u64, Vec<Change>) =
                serde_json::from_str(&line.unwrap()).unwrap();
            let mut intent = Intent::default();
            changes.into_iter().for_each(|change| intent.apply(change));
            let update = Update::Whole(Box::new(intent), revision);
            updates.blocking_send(update).unwrap();
        }
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(hextet_agent::run_told(config, told))
        .unwrap();
}
