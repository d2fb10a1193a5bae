//! hextet as a BGP and BFD speaker: the agent's drivers in a process of their own.
//!
//! Parent and child talk over a UNIX socket, in lines of JSON: what is to be announced one way, what was
//! learned the other.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use hextet_agent::{
    bgp::{self, Announcements, Drain, Learned},
    clock::Clock,
    config::BgpConfig,
};
use hextet_model::state::{Announcement, Scope};
use hextet_types::Prefix;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::fabric::{ASN, Fabric, LIMIT, wait_for};

const CONFIG: &str = "HEXTET_INTEROP_CONFIG";
const SOCKET: &str = "HEXTET_INTEROP_SOCKET";
const RESTARTING: &str = "HEXTET_INTEROP_RESTARTING";

/// What the child is told.
#[derive(Serialize, Deserialize)]
enum Said {
    Announce(Vec<(Prefix, Announcement)>),
    Drain(Drain),
}

/// What the child tells.
#[derive(Serialize, Deserialize)]
enum Told {
    /// Routes with their next hops, written `ADDRESS%INTERFACE`.
    Routes(Vec<(Prefix, Vec<String>)>),
    Complete,
    Bgp(Value),
    /// By `ADDRESS%INTERFACE`.
    Bfd(BTreeMap<String, String>),
}

/// What a speaker has learned so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub routes: BTreeMap<Prefix, Vec<String>>,
    /// Each change of a route, with when we heard of it.
    pub changes: Vec<(Instant, Prefix, Vec<String>)>,
    pub complete: bool,
    pub bgp: Value,
    pub bfd: BTreeMap<String, String>,
    /// How often that changed.
    pub bfd_changes: usize,
    ended: bool,
}

impl Seen {
    /// The next hops of a route; none where there is no route.
    pub fn hops(&self, prefix: &str) -> &[String] {
        self.routes
            .get(&prefix.parse::<Prefix>().unwrap())
            .map_or(&[], Vec::as_slice)
    }

    /// What the status says of a peer, by its address.
    pub fn peer(&self, address: &str) -> &Value {
        let peers = self.bgp["peers"].as_array().map_or(&[][..], Vec::as_slice);
        peers
            .iter()
            .find(|peer| peer["address"] == address)
            .unwrap_or(&Value::Null)
    }

    /// Whether a session of BFD is up, by `ADDRESS%INTERFACE`.
    pub fn bfd_is_up(&self, session: &str) -> bool {
        self.bfd.get(session).is_some_and(|state| state == "Up")
    }

    pub fn established(&self, address: &str) -> bool {
        self.peer(address)["state"] == "established"
    }
}

/// A running speaker; killed with its handle.
pub struct Speaker {
    child: Child,
    socket: UnixStream,
    shared: Arc<(Mutex<Seen>, Condvar)>,
    name: String,
}

impl Speaker {
    /// Starts one on a host, with `[[peers]]` of its configuration, and what it announces.
    pub fn start(fabric: &Fabric, host: &str, peers: &str, announce: &[&str]) -> Speaker {
        Speaker::spawn(fabric, host, peers, announce, false)
    }

    /// Starts one again, after an earlier one was killed: what the kernel forwards is still there.
    pub fn restart(fabric: &Fabric, host: &str, peers: &str, announce: &[&str]) -> Speaker {
        Speaker::spawn(fabric, host, peers, announce, true)
    }

    fn spawn(
        fabric: &Fabric,
        host: &str,
        peers: &str,
        announce: &[&str],
        restarting: bool,
    ) -> Speaker {
        let router_id = fabric.router_id(host);
        let text = format!(
            "asn = {ASN}\nrouter_id = '{router_id}'\nhold_time_secs = 9\nrestart_time_secs = 60\n{peers}"
        );
        let config = fabric.write(host, "speaker.toml", &text);
        let path = fabric.path(host, "speaker.sock");
        drop(fs::remove_file(&path));
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "speaker::process", "--ignored", "--nocapture"])
            .env(CONFIG, config)
            .env(SOCKET, path)
            .env(RESTARTING, restarting.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = fabric.node(host).spawn(&mut command).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let shared = Arc::new((Mutex::default(), Condvar::new()));
        let (from, to) = (socket.try_clone().unwrap(), Arc::clone(&shared));
        thread::spawn(move || listen(from, &to));
        let mut speaker = Speaker {
            child,
            socket,
            shared,
            name: host.to_owned(),
        };
        speaker.announce(announce);
        speaker
    }

    /// Announces these in the place of what was.
    pub fn announce(&mut self, prefixes: &[&str]) {
        let global = Announcement {
            scope: Scope::Global,
        };
        let all = prefixes.iter().map(|p| (p.parse().unwrap(), global));
        self.say(&Said::Announce(all.collect()));
    }

    /// Takes the host out of service, or back.
    pub fn drain(&mut self, drain: Drain) {
        self.say(&Said::Drain(drain));
    }

    fn say(&mut self, said: &Said) {
        let line = serde_json::to_string(said).unwrap();
        writeln!(self.socket, "{line}").unwrap();
    }

    /// Waits until it has seen that; gives something of it.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let (seen, changed) = &*self.shared;
        let end = Instant::now() + LIMIT;
        let mut seen = seen.lock().unwrap();
        loop {
            if let Some(found) = look(&seen) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || seen.ended {
                let saw = format!("{:#?}\n{:#}\n{:?}", seen.routes, seen.bgp, seen.bfd);
                drop(seen);
                panic!(
                    "{}: within {} s: {what}; saw {saw}",
                    self.name,
                    LIMIT.as_secs()
                );
            }
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) {
        self.wait(what, |seen| condition(seen).then_some(()));
    }

    /// Waits until a route has exactly these next hops, in any order.
    #[track_caller]
    pub fn wait_route(&self, prefix: &str, hops: &[&str]) {
        let mut expected: Vec<String> = hops.iter().map(|hop| (*hop).to_owned()).collect();
        expected.sort();
        self.wait_until(&format!("{prefix} by {expected:?}"), |seen| {
            seen.hops(prefix) == expected
        });
    }

    /// Looks once.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.0.lock().unwrap())
    }

    /// When a route first had next hops without this one, after that moment.
    #[track_caller]
    pub fn time_to_lose(&self, since: Instant, prefix: &str, hop: &str) -> Duration {
        let prefix: Prefix = prefix.parse().unwrap();
        self.wait(&format!("{prefix} not by {hop}"), |seen| {
            let lost = |(at, p, hops): &&(Instant, Prefix, Vec<String>)| {
                *at >= since && *p == prefix && !hops.iter().any(|h| h == hop)
            };
            seen.changes.iter().find(lost).map(|(at, ..)| *at - since)
        })
    }

    /// Ends it as `systemctl stop` does.
    pub fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let mut status = None;
        wait_for("the speaker ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn listen(socket: UnixStream, shared: &(Mutex<Seen>, Condvar)) {
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { break };
        let at = Instant::now();
        let mut seen = shared.0.lock().unwrap();
        match serde_json::from_str(&line).unwrap() {
            Told::Routes(routes) => {
                for (prefix, hops) in routes {
                    seen.changes.push((at, prefix, hops.clone()));
                    if hops.is_empty() {
                        seen.routes.remove(&prefix);
                    } else {
                        seen.routes.insert(prefix, hops);
                    }
                }
            }
            Told::Complete => seen.complete = true,
            Told::Bgp(status) => seen.bgp = status,
            Told::Bfd(sessions) => {
                seen.bfd = sessions;
                seen.bfd_changes += 1;
            }
        }
        shared.1.notify_all();
    }
    shared.0.lock().unwrap().ended = true;
    shared.1.notify_all();
}

/// What a `[[peers]]` entry of the configuration says.
pub struct Peer {
    pub name: String,
    pub address: String,
    pub interface: String,
    /// More lines.
    pub more: String,
}

impl Peer {
    /// The host at the other end of a link, by its link-local address.
    pub fn link_local(fabric: &Fabric, other: &str) -> Peer {
        Peer {
            name: other.to_owned(),
            address: fabric.link_local(other),
            interface: other.to_owned(),
            more: format!("asn = {ASN}\n"),
        }
    }

    /// Adds lines to it.
    pub fn with(mut self, lines: &str) -> Peer {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }
}

/// The configuration's text for peers.
pub fn peers(peers: impl IntoIterator<Item = Peer>) -> String {
    let text = |Peer {
                    name,
                    address,
                    interface,
                    more,
                }| {
        format!(
            "[[peers]]\nname = '{name}'\naddress = '{address}'\ninterface = '{interface}'\n{more}"
        )
    };
    peers.into_iter().map(text).collect()
}

/// The speaker's process: not a test, but what the tests start.
#[test]
#[ignore = "the speakers of the other tests"]
fn process() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter())
        .init();
    let text = fs::read_to_string(env::var(CONFIG).expect("started by a test")).unwrap();
    let config: BgpConfig = toml::from_str(&text).unwrap();
    let restarting = env::var(RESTARTING).unwrap() == "true";
    let socket = UnixStream::connect(env::var(SOCKET).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (announce, announcements) = watch::channel(Announcements::new());
    let (drain, drained) = watch::channel(Drain::No);
    let mut lines = BufReader::new(socket.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let obey = move |line: String| match serde_json::from_str(&line).unwrap() {
        Said::Announce(all) => drop(announce.send_replace(all.into_iter().collect())),
        Said::Drain(state) => {
            drain.send_replace(state);
        }
    };
    obey(lines.next().expect("announcements to begin with"));
    // Ends when the parent does.
    thread::spawn(move || lines.for_each(obey));
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let clock = Clock::start();
        let mut handle = bgp::start(&config, clock, restarting, announcements, drained).unwrap();
        tokio::select! {
            () = tell_all(&mut handle, socket) => {}
            _ = terminate.recv() => handle.end.come().await,
        }
    });
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into())
}

async fn tell_all(handle: &mut bgp::Handle, mut socket: UnixStream) {
    let mut tell =
        |told: &Told| writeln!(socket, "{}", serde_json::to_string(told).unwrap()).is_ok();
    let mut sessions = handle.sessions.clone();
    let going_on = loop {
        let told = tokio::select! {
            learned = handle.learned.recv() => match learned {
                Some(Learned::Routes(changes)) => Told::Routes(
                    changes.iter().map(|c| (c.prefix, c.next_hops.iter().map(hop_text).collect())).collect(),
                ),
                Some(Learned::Complete) => Told::Complete,
                None => break false,
            },
            Ok(()) = handle.status.changed() => {
                let status = handle.status.borrow_and_update().clone();
                Told::Bgp(serde_json::to_value(status.as_deref()).unwrap())
            }
            Some(all) = next_sessions(&mut sessions) => Told::Bfd(all),
        };
        if !tell(&told) {
            break true;
        }
    };
    assert!(going_on, "the driver ended by itself");
}

fn hop_text(hop: &hextet_bgp::Hop) -> String {
    match &hop.interface {
        Some(interface) => format!("{}%{interface}", hop.addr),
        None => hop.addr.to_string(),
    }
}

async fn next_sessions(
    sessions: &mut Option<watch::Receiver<Arc<hextet_agent::bfd::Sessions>>>,
) -> Option<BTreeMap<String, String>> {
    let Some(sessions) = sessions else {
        return std::future::pending().await;
    };
    sessions.changed().await.ok()?;
    let all = sessions.borrow_and_update().clone();
    Some(
        all.iter()
            .map(|((interface, address), s)| (format!("{address}%{interface}"), s.clone()))
            .collect(),
    )
}

/// The configuration that `docs/bgp.md` shows is one.
#[test]
fn the_documented_configuration_is_read() {
    let documented: toml::Table = toml::from_str(crate::fabric::documented("toml")).unwrap();
    let config: BgpConfig = documented["bgp"].clone().try_into().unwrap();
    assert!(config.peers[0].bfd);
    assert_eq!(config.restart_time_secs, 600);
}
