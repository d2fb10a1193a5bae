//! The process that holds userspace tunnels: found or started, told what is to stand, and looked at ten times a second; and the kernel's own
//! WireGuard beside it, where it has it.
//!
//! A thread of its own talks to it, since each question waits for its answer. What always holds: the process outlives this program, and a
//! process that was lost is replaced by another, with the same doors.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hextet_tunnels::{
    Listen, Spec,
    control::{Answer, Controller, Request, Status},
    kernel::{self, Kernel, Tunnels},
    letters::{Letter, Post},
};
use hextet_types::{IfName, Way};
use tokio::{io::Interest, net::UnixDatagram, sync::mpsc};
use tracing::{info, warn};

use crate::config::{Config, port_of};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// How long a process may take to listen.
const STARTING: Duration = Duration::from_secs(5);
/// How often it is asked where packets went.
const SENT: Duration = Duration::from_secs(10);
/// From one try to the next.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks that wait for their reader.
const REPORTS: usize = 16;

/// What is wanted of it.
#[derive(Clone, Debug)]
pub enum Wish {
    /// This tunnel, in place of any of that name.
    Up(Box<Spec>),
    /// None of that name.
    Down(IfName),
    /// Streams of TLS are taken at that port.
    Streams(u16),
}

/// What it tells.
#[derive(Clone, Debug)]
pub enum Report {
    /// A process is there, with these doors, by uplink: all that stood in another before is gone, unless it is listed.
    Ready(Vec<Vec<SocketAddr>>),
    /// Streams are taken at that port.
    Streams(u16),
    /// The kernel has WireGuard.
    Kernel,
    /// These stand.
    Standing(Vec<Status>),
    /// As many octets went to each address since that was said last.
    Sent(HashMap<IpAddr, u64>),
    /// It is gone. Another will be ready soon.
    Lost,
}

/// Where the process is, and which program to start if it is not.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its socket.
    pub socket: PathBuf,
    /// Its port of UDP; of the first uplink, if there are several.
    pub port: u16,
    /// Which are to be used at once, if several.
    pub uplinks: Vec<IfName>,
    /// Whether the kernel's WireGuard is used besides, if it has it.
    pub kernel: bool,
}

impl Place {
    /// As an operator says.
    pub fn of(config: &Config) -> Place {
        Place {
            socket: config.tunnels.clone(),
            port: config.port,
            uplinks: config.uplinks.clone(),
            // Its tunnels leave as routes say, by one uplink.
            kernel: config.kernel && config.uplinks.is_empty(),
        }
    }
}

/// Begins to look after the process. Ends when nobody listens any more; the process goes on.
///
/// # Errors
///
/// No thread.
pub fn start(place: Place) -> Result<(Sender<Wish>, mpsc::Receiver<Report>)> {
    let (wishes, wished) = channel();
    let (reports, reported) = mpsc::channel(REPORTS);
    let mut keeper = Keeper {
        place,
        streams: None,
        child: None,
        kernel: None,
        wished,
        reports,
    };
    let thread = thread::Builder::new().name("tunnels".to_owned());
    let run = move || {
        keeper.look_for_kernel();
        while keeper.keep().is_some() {}
    };
    thread.spawn(run).context("start a thread for tunnels")?;
    Ok((wishes, reported))
}

struct Keeper {
    place: Place,
    /// Where streams are to be taken.
    streams: Option<u16>,
    /// The process, if this run started it.
    child: Option<Child>,
    kernel: Option<Kernel>,
    wished: Receiver<Wish>,
    reports: mpsc::Sender<Report>,
}

impl Keeper {
    fn look_for_kernel(&mut self) {
        if !self.place.kernel || !kernel::is_there() {
            return;
        }
        match Kernel::open() {
            Ok(kernel) => self.kernel = Some(kernel),
            Err(error) => warn!(%error, "use the kernel's WireGuard"),
        }
    }

    /// From one process's beginning to its end; nothing when nobody listens any more.
    fn keep(&mut self) -> Option<()> {
        let (mut controller, doors) = match self.find() {
            Ok(found) => found,
            Err(error) => {
                warn!("no process for tunnels: {error:#}");
                thread::sleep(AGAIN);
                return (!self.reports.is_closed()).then_some(());
            }
        };
        self.reports.blocking_send(Report::Ready(doors)).ok()?;
        if self.kernel.is_some() {
            self.reports.blocking_send(Report::Kernel).ok()?;
        }
        if let Err(error) = self.take_streams(&mut controller)? {
            warn!(%error, "the process for tunnels is gone");
            return Some(());
        }
        let ended = self.serve(&mut controller);
        if let Some(Err(error)) = &ended {
            warn!(%error, "the process for tunnels is gone");
            self.reports.blocking_send(Report::Lost).ok()?;
        }
        ended.map(drop)
    }

    fn serve(&mut self, controller: &mut Controller) -> Option<io::Result<()>> {
        let mut next = Instant::now();
        let mut next_sent = next + SENT;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let asked = match self.wished.recv_timeout(wait) {
                Ok(Wish::Up(spec)) => match (&mut self.kernel, &spec.listen) {
                    (Some(kernel), Listen::Own(_)) => up(kernel, spec),
                    _ => up(controller, spec),
                },
                Ok(Wish::Down(name)) => {
                    let mut kernel = self.kernel.as_mut();
                    match kernel.take_if(|kernel| holds(kernel, &name)) {
                        Some(kernel) => tell(kernel, &Request::Down(name)),
                        None => tell(controller, &Request::Down(name)),
                    }
                }
                Ok(Wish::Streams(port)) => {
                    self.streams = Some(port);
                    self.take_streams(controller)?
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + LOOK;
                    let mut asked = self.ask(controller, &Request::List)?;
                    if asked.is_ok() && next > next_sent {
                        next_sent = next + SENT;
                        asked = self.ask(controller, &Request::Destinations)?;
                    }
                    asked
                }
            };
            if asked.is_err() {
                return Some(asked);
            }
        }
    }

    /// Hands on what is answered; nothing when nobody listens any more.
    fn ask(&mut self, controller: &mut Controller, request: &Request) -> Option<io::Result<()>> {
        let report = match controller.ask(request) {
            Ok(Answer::Tunnels(mut all)) => {
                all.extend(self.kernel.iter_mut().flat_map(standing));
                Report::Standing(all)
            }
            Ok(Answer::Destinations(all)) => Report::Sent(all),
            Ok(answer) => return Some(Err(io::Error::other(format!("{answer:?}")))),
            Err(error) => return Some(Err(error)),
        };
        self.reports.blocking_send(report).ok()?;
        Some(Ok(()))
    }

    fn find(&mut self) -> Result<(Controller, Vec<Vec<SocketAddr>>)> {
        if let Some(mut child) = self.child.take() {
            // It has ended, or does not answer.
            let _ = child.kill();
            let _ = child.wait();
        }
        let mut controller = match Controller::connect(&self.place.socket) {
            Ok(controller) => controller,
            Err(_) => self.begin()?,
        };
        let doors = self.open_doors(&mut controller)?;
        Ok((controller, doors))
    }

    fn begin(&mut self) -> Result<Controller> {
        let socket = &self.place.socket;
        if let Some(directory) = socket.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        let program = std::env::current_exe().context("find this program")?;
        // Signals to this program's group are not for it.
        let child = Command::new(program)
            .args(["mesh", "tunnels"])
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the process for tunnels")?;
        info!(pid = child.id(), "a process for tunnels was started");
        self.child = Some(child);
        let end = Instant::now() + STARTING;
        loop {
            match Controller::connect(socket) {
                Ok(controller) => return Ok(controller),
                Err(error) if Instant::now() > end => {
                    return Err(error).with_context(|| format!("reach {}", socket.display()));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Nothing when nobody listens any more.
    fn take_streams(&self, controller: &mut Controller) -> Option<io::Result<()>> {
        let Some(port) = self.streams else {
            return Some(Ok(()));
        };
        let mut refused = None;
        let mut opened = 0;
        for ip in [
            Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ] {
            let listen = Way::Tls(SocketAddr::new(ip, port));
            match controller.ask(&Request::Door {
                listen,
                uplink: None,
            }) {
                Ok(Answer::Door(_)) => opened += 1,
                Ok(Answer::Error(error)) => refused = Some(error),
                Ok(answer) => refused = Some(format!("{answer:?}")),
                Err(error) => return Some(Err(error)),
            }
        }
        if let Some(error) = refused {
            warn!(
                error,
                port,
                "no streams for those whose UDP is blocked: `tls` names another port, or false"
            );
        }
        if opened > 0 {
            self.reports.blocking_send(Report::Streams(port)).ok()?;
        }
        Some(Ok(()))
    }

    /// For each uplink one of each family, if the host has it.
    fn open_doors(&self, controller: &mut Controller) -> Result<Vec<Vec<SocketAddr>>> {
        let uplinks = self.place.uplinks.iter().map(Some);
        let uplinks: Vec<Option<&IfName>> = match self.place.uplinks.len() {
            0 => vec![None],
            _ => uplinks.collect(),
        };
        let mut all = Vec::new();
        let mut fault = None;
        for (place, uplink) in uplinks.into_iter().enumerate() {
            let port = port_of(self.place.port, place).unwrap_or(self.place.port);
            let doors = open_doors(controller, port, uplink);
            // What is not there now comes with the next process.
            all.push(doors.unwrap_or_else(|error| {
                warn!("{error:#}");
                fault = Some(error);
                Vec::new()
            }));
        }
        match fault.filter(|_| all.iter().all(Vec::is_empty)) {
            Some(error) => Err(error),
            None => Ok(all),
        }
    }
}

fn open_doors(
    controller: &mut Controller,
    port: u16,
    uplink: Option<&IfName>,
) -> Result<Vec<SocketAddr>> {
    let mut doors = Vec::new();
    let mut refused = String::new();
    let everywhere: [SocketAddr; 2] = [
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ];
    for listen in everywhere {
        let uplink = uplink.cloned();
        let listen = Way::Udp(listen);
        match controller.ask(&Request::Door { listen, uplink })? {
            Answer::Door(door) => doors.push(door.address()),
            Answer::Error(error) => refused = error,
            answer => bail!("open a door: {answer:?}"),
        }
    }
    if doors.is_empty() {
        let by = uplink.map_or_else(String::new, |uplink| format!(" by {uplink}"));
        bail!("open port {port} of UDP{by}: {refused}");
    }
    Ok(doors)
}

fn up(tunnels: &mut impl Tunnels, spec: Box<Spec>) -> io::Result<()> {
    tell(tunnels, &Request::Down(spec.name.clone()))?;
    tell(tunnels, &Request::Up(spec))
}

/// The kernel's.
fn standing(kernel: &mut Kernel) -> Vec<Status> {
    match kernel.ask(&Request::List) {
        Ok(Answer::Tunnels(all)) => all,
        _ => Vec::new(),
    }
}

fn holds(kernel: &mut Kernel, name: &IfName) -> bool {
    let mut standing = standing(kernel).into_iter();
    standing.any(|status| status.name == *name)
}

/// What is refused is seen at the next look, and said here.
fn tell(tunnels: &mut impl Tunnels, request: &Request) -> io::Result<()> {
    if let Answer::Error(error) = tunnels.ask(request)? {
        warn!(error, "a tunnel is not as it should be");
    }
    Ok(())
}

/// Letters of the process, for a runtime.
#[derive(Debug)]
pub struct Letters {
    post: Post,
    /// The same socket, as the runtime knows it.
    readiness: UnixDatagram,
}

impl Letters {
    /// Reads the letters of the process at this socket from now on.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(place: &Place) -> Result<Letters> {
        let post = Post::bind(&place.socket).context("read letters")?;
        let same = std::os::unix::net::UnixDatagram::from(post.as_fd().try_clone_to_owned()?);
        // Both: whoever sends must not wait on the runtime's thread.
        same.set_nonblocking(true)?;
        Ok(Letters {
            post,
            readiness: UnixDatagram::from_std(same)?,
        })
    }

    /// The next one.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub async fn next(&self) -> io::Result<Letter> {
        let next = || self.post.try_recv()?.ok_or(ErrorKind::WouldBlock.into());
        self.readiness.async_io(Interest::READABLE, next).await
    }

    /// Sends one; what the process has no room for is lost, as on any network.
    pub fn send(&self, letter: &Letter) {
        let _ = self.post.send(letter);
    }
}
