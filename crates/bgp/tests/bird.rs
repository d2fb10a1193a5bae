//! A session with BIRD 2 over loopback: capabilities, both families, withdrawals, graceful restart.
//!
//! Needs the program `bird` (Debian: `bird2`), hence ignored by default:
//! `cargo test -p hextet-bgp --test bird -- --ignored`.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hextet_bgp::{
    Action, Event, Hop, Speaker,
    config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig},
    packet::Community,
    policy::{LocalRoute, Policy},
    session::{ConnId, Endpoint},
    speaker::READ_SIZE,
};
use hextet_types::{Asn, Prefix, Time};

type Failure = Box<dyn Error>;

const BIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const PORT: u16 = 17_931;
const PATIENCE: Duration = Duration::from_secs(20);

struct Bird {
    child: Child,
    dir: PathBuf,
}

impl Bird {
    fn start(dir: &Path, statics: &str) -> Result<Self, Failure> {
        fs::create_dir_all(dir)?;
        let config = format!(
            "router id 10.0.0.1;
             protocol device {{}}
             protocol static {{ ipv4; route 198.51.100.0/24 blackhole {{ bgp_community.add((64513,5)); }}; {statics} }}
             protocol static {{ ipv6; route 2001:db8:77::/48 blackhole; }}
             protocol bgp hextet {{
               local {BIRD} port {PORT} as 4200000001; neighbor 127.0.0.2 as 64512; multihop; passive;
               graceful restart on; long lived graceful restart on; enable extended messages;
               ipv4 {{ import all; export filter {{ bgp_med = 7; accept; }}; next hop address 192.0.2.200; extended next hop; }};
               ipv6 {{ import all; export all; next hop address 2001:db8::1; }};
             }}"
        );
        fs::write(dir.join("bird.conf"), config)?;
        let child = Command::new("bird")
            .arg("-f")
            .args(["-c", "bird.conf", "-s", "ctl", "-P", "pid"])
            .current_dir(dir)
            .stderr(Stdio::null())
            .spawn()?;
        let bird = Bird {
            child,
            dir: dir.to_owned(),
        };
        let start = Instant::now();
        while bird.ask("show status").is_err() {
            if start.elapsed() > PATIENCE {
                return Err("BIRD does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(bird)
    }

    fn ask(&self, question: &str) -> Result<String, Failure> {
        let output = Command::new("birdc")
            .args(["-s", "ctl"])
            .args(question.split(' '))
            .current_dir(&self.dir)
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        if output.status.success() {
            Ok(text)
        } else {
            Err(text.into())
        }
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The smallest driver: one connection, nothing but blocking calls with short limits.
struct Driver {
    speaker: Speaker,
    stream: Option<(ConnId, TcpStream)>,
    begun: Instant,
    fib: BTreeMap<Prefix, Vec<Hop>>,
    downs: Vec<(String, bool)>,
}

impl Driver {
    fn new() -> Self {
        let mut config = SpeakerConfig::new(Asn(64512), Ipv4Addr::new(10, 0, 0, 2), 1);
        config.restart_time_secs = 60;
        Driver {
            speaker: Speaker::new(config, Time::ZERO),
            stream: None,
            begun: Instant::now(),
            fib: BTreeMap::new(),
            downs: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        let now = Time::ZERO + self.begun.elapsed();
        let mut later = Vec::new();
        for action in self.speaker.handle(event, now) {
            match action {
                Action::Connect { conn, remote, .. } => {
                    later.push(self.connect(conn, remote)?);
                }
                Action::Close { .. } => self.stream = None,
                Action::Send { conn, octets } => {
                    if let Some((_, stream)) = &mut self.stream
                        && stream.write_all(&octets).is_ok()
                    {
                        let octets = octets.len();
                        later.push(Event::Written { conn, octets });
                    }
                }
                Action::Routes(changes) => {
                    for change in changes {
                        self.fib.insert(change.prefix, change.next_hops.to_vec());
                    }
                    self.fib.retain(|_, hops| !hops.is_empty());
                }
                Action::SessionDown {
                    reason,
                    routes_kept,
                    ..
                } => self.downs.push((reason.to_string(), routes_kept)),
                _ => (),
            }
        }
        later.into_iter().try_for_each(|event| self.handle(event))
    }

    fn connect(&mut self, conn: ConnId, remote: IpAddr) -> Result<Event, Failure> {
        // Loopback only answers for the peer's own address, so the local one has to be chosen.
        let local = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::new(local, 0).into())?;
        if socket
            .connect(&std::net::SocketAddr::new(remote, PORT).into())
            .is_err()
        {
            return Ok(Event::Closed { conn });
        }
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        let endpoint = Endpoint {
            local,
            remote,
            interface: None,
        };
        self.stream = Some((conn, stream));
        Ok(Event::Opened { conn, endpoint })
    }

    fn step(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; READ_SIZE];
        let event = match &mut self.stream {
            None => {
                std::thread::sleep(Duration::from_millis(20));
                Event::Timer
            }
            Some((conn, stream)) => match stream.read(&mut buffer) {
                Ok(0) => Event::Closed { conn: *conn },
                Ok(len) => Event::Received {
                    conn: *conn,
                    octets: Bytes::copy_from_slice(&buffer[..len]),
                },
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    Event::Timer
                }
                Err(_) => Event::Closed { conn: *conn },
            },
        };
        if matches!(event, Event::Closed { .. }) {
            self.stream = None;
        }
        self.handle(event)
    }

    fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&Driver) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        while !holds(self)? {
            if start.elapsed() > PATIENCE {
                let status = self.speaker.status();
                return Err(format!("not within {PATIENCE:?}: {what}\n{status:#?}").into());
            }
            self.step()?;
        }
        Ok(())
    }

    fn announce(&mut self, prefixes: &[&str]) -> Result<(), Failure> {
        let route = LocalRoute {
            communities: vec![Community::new(64512, 9)],
            ..LocalRoute::default()
        };
        let mut routes = BTreeMap::new();
        for prefix in prefixes {
            routes.insert(prefix.parse()?, route.clone());
        }
        self.handle(Event::Announce(routes))
    }

    fn prefixes(&self) -> Vec<String> {
        self.fib.keys().map(ToString::to_string).collect()
    }
}

fn peer() -> Box<PeerConfig> {
    let mut peer = PeerConfig::new(PeerKey::Address(BIRD), RemoteAs::Is(Asn(4_200_000_001)));
    peer.import = Policy::accept_all().into();
    peer.export = Policy::accept_all().into();
    peer.connect_retry = Duration::from_millis(200);
    peer.long_lived_secs = 600;
    peer.own.v6 = "2001:db8::2".parse().ok();
    Box::new(peer)
}

#[test]
#[ignore = "needs BIRD 2: apt install bird2"]
fn exchanges_both_families_and_survives_a_restart() -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("hextet-bgp-bird-{}", std::process::id()));
    let more = "route 192.0.2.0/25 blackhole;";
    let mut bird = Bird::start(&dir, more)?;
    let mut driver = Driver::new();
    driver.handle(Event::Configure(peer()))?;
    driver.announce(&["203.0.113.5/32", "2001:db8:1::5/128"])?;
    driver.until("BIRD's routes", |d| Ok(d.fib.len() == 3))?;
    assert_eq!(
        driver.prefixes(),
        ["192.0.2.0/25", "198.51.100.0/24", "2001:db8:77::/48"]
    );
    let status = driver.speaker.status();
    assert_eq!(
        status.peers[0].capabilities,
        [
            "four-octet-as",
            "route-refresh",
            "enhanced-route-refresh",
            "extended-message",
            "extended-next-hop",
            "graceful-restart",
            "long-lived-graceful-restart",
        ]
    );
    let route = driver.speaker.route("198.51.100.0/24".parse()?);
    let path = route.ok_or("no route")?.paths.remove(0);
    assert_eq!((path.as_path.as_str(), path.med), ("4200000001", Some(7)));
    assert_eq!(path.communities, [Community::new(64513, 5)]);
    let told = |bird: &Bird, prefix: &str| bird.ask(&format!("show route {prefix} all"));
    driver.until("our routes at BIRD", |_| {
        let v6 = told(&bird, "2001:db8:1::5/128")?;
        Ok(v6.contains("2001:db8::2") && v6.contains("(64512,9)"))
    })?;
    assert!(told(&bird, "203.0.113.5/32")?.contains("BGP.as_path: 64512"));
    driver.announce(&["203.0.113.5/32"])?;
    driver.until("the withdrawal at BIRD", |_| {
        Ok(!told(&bird, "2001:db8:1::5/128").is_ok_and(|t| t.contains("64512")))
    })?;
    // BIRD is killed; its routes stay until it is back and says what is left of them.
    bird.child.kill()?;
    bird.child.wait()?;
    driver.until("the loss of BIRD", |d| Ok(!d.downs.is_empty()))?;
    assert_eq!(driver.downs, [("connection lost".to_owned(), true)]);
    assert_eq!(driver.fib.len(), 3);
    drop(bird);
    let bird = Bird::start(&dir, "")?;
    driver.until("the return of BIRD", |_| {
        Ok(told(&bird, "203.0.113.5/32").is_ok_and(|t| t.contains("64512")))
    })?;
    driver.until("the end of what is gone", |d| Ok(d.fib.len() == 2))?;
    Ok(())
}
