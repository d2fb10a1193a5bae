//! The process: its tunnels, and who asks for them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, BufReader},
    net::IpAddr,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use hextet_types::IfName;

use crate::{
    Spec,
    control::{self, Answer, MAX_REQUEST, Request},
    door::Doors,
    letters::Letters,
    tunnel::{Error, Tunnel},
};

/// Tunnels of a process at most.
const MAX_TUNNELS: usize = 1_024;
/// Of an answer.
const MAX_DESTINATIONS: usize = 4_096;
/// Who may be connected at the same time.
const MAX_CONTROLLERS: usize = 8;

/// Which session is whose: boringtun has 24 bits for it.
const MAX_INDEX: u32 = (1 << 24) - 1;

/// All tunnels and doors. One request is served at a time.
struct Table {
    tunnels: BTreeMap<IfName, (u32, Tunnel)>,
    doors: Arc<Doors>,
    last: u32,
}

/// Serves the socket for ever.
///
/// # Errors
///
/// The socket can't be made, or another process serves it.
pub fn serve(socket: &Path) -> Result<()> {
    let listener = bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
    let letters = Letters::bind(socket).context("make a socket for letters")?;
    let doors = Arc::new(Doors::new(letters).context("set up TLS")?);
    let table = Arc::new(Mutex::new(Table {
        tunnels: BTreeMap::new(),
        doors: Arc::clone(&doors),
        last: 0,
    }));
    let thread = thread::Builder::new().name("letters".to_owned());
    thread.spawn(move || doors.send_letters())?;
    let connected = Arc::new(AtomicUsize::new(0));
    println!("tunnels: controlled at {}", socket.display());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if connected.fetch_add(1, SeqCst) >= MAX_CONTROLLERS {
            connected.fetch_sub(1, SeqCst);
            continue;
        }
        let (table, connected) = (Arc::clone(&table), Arc::clone(&connected));
        thread::spawn(move || {
            // Whoever leaves in the middle of a word leaves the tunnels as they are.
            let _ = attend(stream, &table);
            connected.fetch_sub(1, SeqCst);
        });
    }
    Ok(())
}

fn bind(socket: &Path) -> Result<UnixListener> {
    if UnixStream::connect(socket).is_ok() {
        bail!("another process serves it");
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn attend(stream: UnixStream, table: &Mutex<Table>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let answer = match control::read::<Request>(&mut stream, MAX_REQUEST) {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.answer(request)
            }
            Err(error) => {
                let answer = Answer::Error(format!("no request: {error}"));
                return control::write(stream.get_mut(), &answer);
            }
        };
        control::write(stream.get_mut(), &answer)?;
    }
}

impl Table {
    fn answer(&mut self, request: Request) -> Answer {
        let done = match request {
            Request::List => {
                let tunnels = self.tunnels.values();
                return Answer::Tunnels(tunnels.map(|(_, tunnel)| tunnel.status()).collect());
            }
            Request::Doors => {
                let doors = self.doors.all();
                let mut all: Vec<_> = doors.iter().map(|door| door.status()).collect();
                all.extend(self.doors.streams().status());
                return Answer::Doors(all);
            }
            Request::Destinations => return Answer::Destinations(self.destinations()),
            Request::Door { listen, uplink } => {
                return match self.doors.open(listen, uplink) {
                    Ok(address) => Answer::Door(address),
                    Err(error) => Answer::Error(error),
                };
            }
            Request::Up(spec) => self.up(*spec),
            Request::Down(name) => {
                self.tunnels.remove(&name);
                Ok(())
            }
            Request::Endpoint { name, endpoint } => {
                self.change(&name, |tunnel| tunnel.set_endpoint(endpoint))
            }
            Request::Candidates { name, candidates } => {
                self.change(&name, |tunnel| tunnel.set_candidates(candidates))
            }
            Request::Mtu { name, mtu } => self.change(&name, |tunnel| tunnel.set_mtu(mtu)),
        };
        match done {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Error(error),
        }
    }

    /// Of all tunnels, those to which most went.
    fn destinations(&self) -> HashMap<IpAddr, u64> {
        let mut sum: HashMap<IpAddr, u64> = HashMap::new();
        let tunnels = self.tunnels.values();
        for (to, octets) in tunnels.flat_map(|(_, tunnel)| tunnel.take_destinations()) {
            *sum.entry(to).or_default() += octets;
        }
        let mut all: Vec<(IpAddr, u64)> = sum.into_iter().collect();
        all.sort_unstable_by_key(|(to, octets)| (Reverse(*octets), *to));
        all.truncate(MAX_DESTINATIONS);
        all.into_iter().collect()
    }

    fn up(&mut self, spec: Spec) -> Result<(), String> {
        match self.tunnels.get(&spec.name) {
            Some((_, tunnel)) if *tunnel.spec() == spec => return Ok(()),
            Some(_) => {
                return Err(format!(
                    "tunnel {} stands, and is otherwise: take it down first",
                    spec.name
                ));
            }
            None if self.tunnels.len() >= MAX_TUNNELS => {
                return Err(format!("there are {MAX_TUNNELS} tunnels already"));
            }
            None => {}
        }
        let index = self.next_index();
        let name = spec.name.clone();
        let tunnel = Tunnel::up(spec, index, &self.doors).map_err(|error| error.to_string())?;
        self.tunnels.insert(name, (index, tunnel));
        Ok(())
    }

    /// One that no tunnel has: there are far more of them than tunnels.
    fn next_index(&mut self) -> u32 {
        loop {
            self.last = (self.last + 1) & MAX_INDEX;
            if self.tunnels.values().all(|(index, _)| *index != self.last) {
                return self.last;
            }
        }
    }

    fn change(
        &mut self,
        name: &IfName,
        change: impl FnOnce(&mut Tunnel) -> Result<(), Error>,
    ) -> Result<(), String> {
        let tunnel = self.tunnels.get_mut(name);
        let (_, tunnel) = tunnel.ok_or_else(|| format!("there is no tunnel {name}"))?;
        change(tunnel).map_err(|error| error.to_string())
    }
}
