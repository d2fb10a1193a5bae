//! Hears when a workload arrives whose port stands by here, and tells the server, so that its addresses follow at once.
//!
//! A machine that migrates says on its link that it is there (RARP, gratuitous ARP, unsolicited neighbour
//! advertisements), before whoever moves it says so by the API. On a standby's link nobody sends before: so each frame
//! with the port's Ethernet address shows that it runs here. A socket for each such link, and none otherwise: what
//! other ports send costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hextet_api::agent::Heard;
use hextet_kernel::packet::PacketSocket;
use hextet_types::{IfName, Mac, PortId};
use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use crate::{
    client::{self, Connection, Told},
    identity::Identity,
};

/// Ports that stand by, each with its link and its workload's Ethernet address.
pub type Standbys = BTreeMap<PortId, (IfName, Mac)>;

/// Links that are listened on at once; of more, the first.
const MAX_LINKS: usize = 256;
/// How often it is looked whether a link has come, or is another.
const LOOK_MILLIS: u16 = 50;
/// How often an arrival is told while frames come.
const TOLD: Duration = Duration::from_secs(1);
/// How often an arrival that the server was not told is tried again, and how often at most.
const RETRY: Duration = Duration::from_millis(200);
const TRIES: usize = 50;
/// Arrivals that wait to be told; more come again.
const QUEUE: usize = 64;

/// A standby's link, as long as it is the same.
struct Link {
    index: u32,
    sender: Mac,
    socket: PacketSocket,
    /// When it was told last.
    told: Option<Instant>,
}

/// Starts the thread that listens; gives the ports whose workloads have arrived. It ends when nobody can tell of
/// standbys any more.
///
/// # Errors
///
/// No thread can be started.
pub fn listen(mut standbys: watch::Receiver<Standbys>) -> Result<mpsc::Receiver<PortId>> {
    let (arrived, told) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("make a runtime for arrivals")?;
    let run = move || {
        let mut links = BTreeMap::new();
        loop {
            if links.is_empty() && standbys.borrow().is_empty() {
                if runtime.block_on(standbys.changed()).is_err() {
                    return;
                }
            } else if standbys.has_changed().is_err() {
                return;
            }
            look(&mut links, &standbys.borrow_and_update().clone());
            wait(&links);
            for port in heard(&mut links, Instant::now()) {
                // Where there is no room, it comes again.
                let _ = arrived.try_send(port);
            }
        }
    };
    thread::Builder::new()
        .name("arrivals".to_owned())
        .spawn(run)
        .context("start the thread that hears of arrivals")?;
    Ok(told)
}

/// Listens on the links that there are, each by its present index.
fn look(links: &mut BTreeMap<PortId, Link>, standbys: &Standbys) {
    links.retain(|port, _| standbys.contains_key(port));
    for (port, (name, sender)) in standbys.iter().take(MAX_LINKS) {
        let index = if_nametoindex(name.as_str()).ok();
        let same = |link: &Link| Some(link.index) == index && link.sender == *sender;
        if links.get(port).is_some_and(same) {
            continue;
        }
        links.remove(port);
        let Some(index) = index else { continue };
        match PacketSocket::of_sender(index, *sender) {
            Ok(socket) => {
                let link = Link {
                    index,
                    sender: *sender,
                    socket,
                    told: None,
                };
                links.insert(*port, link);
            }
            Err(error) => debug!(%port, %error, "its workload's arrival would not be heard"),
        }
    }
}

/// Until a frame comes, or it is time to look again.
fn wait(links: &BTreeMap<PortId, Link>) {
    let sockets = links.values().map(|link| link.socket.as_fd());
    let mut polled: Vec<PollFd<'_>> = sockets
        .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
        .collect();
    if let Err(error) = poll(&mut polled, PollTimeout::from(LOOK_MILLIS)) {
        debug!(%error, "wait for arrivals");
        thread::sleep(Duration::from_millis(LOOK_MILLIS.into()));
    }
}

/// The ports whose workloads have sent something, unless that was told lately.
fn heard(links: &mut BTreeMap<PortId, Link>, now: Instant) -> BTreeSet<PortId> {
    let mut all = BTreeSet::new();
    for (port, link) in links {
        let mut any = false;
        // What comes meanwhile may wait; a full buffer takes in no more.
        for _ in 0..QUEUE {
            any |= match link.socket.recv(&mut [0; 14]) {
                Ok(_) => true,
                Err(_) => break,
            };
        }
        let lately = link
            .told
            .is_some_and(|told| now.saturating_duration_since(told) < TOLD);
        if any && !lately {
            link.told = Some(now);
            all.insert(*port);
        }
    }
    all
}

/// Tells the server of arrivals, for ever. While a port stands by, a connection is open beforehand: each moment that it
/// would take is one without the workload.
pub async fn report(
    server: String,
    identity: Identity,
    mut standbys: watch::Receiver<Standbys>,
    mut arrived: mpsc::Receiver<PortId>,
) {
    let mut connection = None;
    loop {
        tokio::select! {
            changed = standbys.changed() => {
                if changed.is_err() {
                    return;
                }
                let none = standbys.borrow_and_update().is_empty();
                connection = match none {
                    true => None,
                    false => open(&server, &identity).await.ok(),
                };
            }
            first = arrived.recv() => {
                let Some(first) = first else { return };
                let mut ports = BTreeSet::from([first]);
                ports.extend(std::iter::from_fn(|| arrived.try_recv().ok()));
                info!(?ports, "workloads have arrived");
                let ports = ports.into_iter().map(|port| (port, BTreeSet::new()));
                let heard = Heard {
                    ports: ports.collect(),
                };
                tell(&server, &identity, &mut connection, &heard).await;
            }
        }
    }
}

async fn tell(
    server: &str,
    identity: &Identity,
    connection: &mut Option<Connection>,
    heard: &Heard,
) {
    for attempt in 1..=TRIES {
        let done = match connection.take() {
            Some(open) => say(open, heard).await,
            None => match open(server, identity).await {
                Ok(open) => say(open, heard).await,
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(open) => {
                *connection = Some(open);
                return;
            }
            Err(error) if attempt == TRIES => {
                warn!(
                    error = format!("{error:#}"),
                    "the server does not know of arrivals"
                );
            }
            // The first may have been a connection that was open for too long.
            Err(_) if attempt == 1 => {}
            Err(_) => sleep(RETRY).await,
        }
    }
}

async fn open(server: &str, identity: &Identity) -> Result<Connection> {
    client::connect(server, identity.tls()?).await
}

async fn say(mut connection: Connection, heard: &Heard) -> Result<Connection> {
    let told = connection.heard(heard).await?;
    ensure!(told == Told::All, "a port comes and goes too often");
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_follows_the_links_that_there_are() {
        let port = |n| PortId(uuid::Uuid::from_u128(n));
        let mut links = BTreeMap::new();
        let lo: IfName = "lo".parse().unwrap();
        let none: IfName = "nothere".parse().unwrap();
        // What goes by lo has no Ethernet address.
        let zero: Mac = "00:00:00:00:00:00".parse().unwrap();
        let other: Mac = "02:00:00:00:00:01".parse().unwrap();
        let standbys = Standbys::from([
            (port(1), (lo.clone(), zero)),
            (port(2), (lo.clone(), other)),
            (port(3), (none, zero)),
        ]);
        look(&mut links, &standbys);
        assert_eq!(
            links.keys().copied().collect::<Vec<_>>(),
            [port(1), port(2)]
        );
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = || socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        send();
        wait(&links);
        let now = Instant::now();
        assert_eq!(heard(&mut links, now), [port(1)].into());
        send();
        wait(&links);
        assert_eq!(heard(&mut links, now), [].into(), "told lately");
        send();
        wait(&links);
        assert_eq!(heard(&mut links, now + TOLD), [port(1)].into());
        look(&mut links, &Standbys::new());
        assert!(links.is_empty());
    }
}
