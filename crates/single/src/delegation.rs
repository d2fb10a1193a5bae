//! Prefixes that the uplink's router delegates to this host (RFC 8415 §6.3): asks for them, keeps them, remembers them over
//! restarts, gives them back at the end.
//!
//! The client has a DUID of its own and hears by a packet socket, so that it and one of the host's own are not in each other's
//! way.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use hextet_agent::clock::Clock;
use hextet_autoconf::{
    Duid,
    delegation::{Action, Client, Event, Held, Requester},
};
use hextet_kernel::{host::Host, packet::PacketSocket};
use hextet_types::{IfName, Mac, Prefix, Time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    places,
    uplink::{Asked, find_link},
};

/// For a server to offer something, before anything is set up.
const OFFERING: Duration = Duration::from_millis(2_500);
/// For a server to take everything back.
const RELEASING: Duration = Duration::from_secs(2);
const MAX_FRAME: usize = 2_048;
/// Frames taken in one go.
const BATCH: usize = 64;

/// What is remembered; by this the client is the same after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// Of the client (RFC 6355).
    client: Uuid,
    /// The server's DUID.
    #[serde(default)]
    server: Option<Vec<u8>>,
    /// When, in seconds since 1970.
    saved_at: u64,
    prefixes: Vec<Lease>,
}

/// Seconds count from when it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    prefix: Prefix,
    preferred_secs: u64,
    valid_secs: u64,
}

impl Remembered {
    fn new() -> Remembered {
        Remembered {
            client: Uuid::new_v4(),
            server: None,
            saved_at: now_secs(),
            prefixes: Vec::new(),
        }
    }

    /// One that can't be read is a new one: the server gives what it gave before, or something else.
    fn read(path: &Path) -> Remembered {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(_) => return Remembered::new(),
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "what was delegated is forgotten");
            Remembered::new()
        })
    }

    fn held(&self, now: Time) -> Vec<Held> {
        // A clock that went backwards says nothing about how long it was.
        let since = now_secs().saturating_sub(self.saved_at);
        let until = |secs: u64| now + Duration::from_secs(secs.saturating_sub(since));
        let held = self.prefixes.iter().map(|lease| Held {
            prefix: lease.prefix,
            preferred_until: until(lease.preferred_secs),
            valid_until: until(lease.valid_secs),
        });
        held.filter(|held| held.valid_until > now).collect()
    }
}

fn now_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A link that is there, with its own link-local address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Is {
    name: IfName,
    index: u32,
    mac: Mac,
    link_local: Ipv6Addr,
}

/// The uplink, as soon as it can be spoken on.
fn find(host: &Host, asked: &Asked) -> Option<Is> {
    let link = find_link(host, asked).ok()?;
    let own = host.addresses.iter().find_map(|own| match own.addr {
        IpAddr::V6(addr) if own.index == link.index && addr.is_unicast_link_local() => {
            let usable = !own.standing.tentative && !own.standing.duplicate;
            usable.then_some(addr)
        }
        _ => None,
    });
    Some(Is {
        name: link.name.clone(),
        index: link.index,
        mac: link.mac?,
        link_local: own?,
    })
}

/// What is said on one link.
#[derive(Debug)]
struct Conversation {
    is: Is,
    socket: PacketSocket,
    requester: Requester,
    clock: Clock,
}

impl Conversation {
    fn open(is: Is, remembered: &Remembered) -> Result<Conversation> {
        let socket = PacketSocket::of_dhcpv6_servers(is.index)?;
        let clock = Clock::start();
        let client = Client {
            mac: is.mac,
            duid: Duid::uuid(remembered.client.into_bytes()),
            seed: Uuid::new_v4().as_u64_pair().0,
        };
        let held = remembered.held(clock.now());
        let requester = Requester::new(client, held, remembered.server.clone());
        Ok(Conversation {
            is,
            socket,
            requester,
            clock,
        })
    }

    /// Takes an event; sends what is to be sent, and gives the rest.
    fn handle(&mut self, event: Event<'_>) -> Vec<Action> {
        let actions = self.requester.handle(event, self.clock.now());
        let (send, rest): (Vec<Action>, Vec<Action>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Send(_)));
        for action in send {
            let Action::Send(frame) = action else {
                continue;
            };
            if let Err(error) = self.socket.send(self.is.index, &frame) {
                debug!(link = %self.is.name, %error, "a DHCPv6 message was not sent");
            }
        }
        rest
    }

    /// Waits for something to happen, for so long at most.
    fn wait(&mut self, at_most: Duration) -> Result<Vec<Action>> {
        let now = self.clock.now();
        let due = self.requester.next_wakeup();
        let due = due.map_or(at_most, |at| at.saturating_since(now).min(at_most));
        // Rounded up, or it would be woken too early.
        let millis = u16::try_from(due.as_millis() + 1).unwrap_or(u16::MAX);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for DHCPv6 servers"),
        }
        let mut actions = Vec::new();
        let mut frame = [0; MAX_FRAME];
        for _ in 0..BATCH {
            let Ok((_, octets)) = self.socket.recv(&mut frame) else {
                break;
            };
            let octets = frame.get(..octets).unwrap_or_default();
            actions.extend(self.handle(Event::Frame(octets)));
        }
        actions.extend(self.handle(Event::Timer));
        Ok(actions)
    }
}

/// What servers on the uplink would delegate; nothing is taken. None, where nobody offers anything in good time.
///
/// # Errors
///
/// The link can't be listened to.
pub fn offers(host: &Host, asked: &Asked) -> Result<Vec<Prefix>> {
    let Some(is) = find(host, asked) else {
        return Ok(Vec::new());
    };
    let mut talk = Conversation::open(is, &Remembered::new())?;
    let end = talk.clock.now() + OFFERING;
    talk.handle(Event::Up(talk.is.link_local));
    loop {
        let left = end.saturating_since(talk.clock.now());
        if left.is_zero() {
            return Ok(Vec::new());
        }
        for action in talk.wait(left)? {
            if let Action::Offered(prefixes) = action {
                return Ok(prefixes);
            }
        }
    }
}

/// What is held, from one look at the host to the next.
#[derive(Debug)]
pub struct Delegation {
    remembered: Remembered,
    path: std::path::PathBuf,
    talk: Option<Conversation>,
    held: Vec<Prefix>,
}

impl Delegation {
    /// With what was held before.
    pub fn open(places: &places::Places) -> Delegation {
        let path = places.delegation();
        let remembered = Remembered::read(&path);
        let held = remembered.held(Time::ZERO);
        Delegation {
            held: held.iter().map(|held| held.prefix).collect(),
            remembered,
            path,
            talk: None,
        }
    }

    /// What is held, those first that are not deprecated.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.held
    }

    /// Speaks on the uplink that the host has now.
    ///
    /// # Errors
    ///
    /// It can't be listened to.
    pub fn follow(&mut self, host: &Host, asked: &Asked) -> Result<()> {
        let is = find(host, asked);
        if self.talk.as_ref().map(|talk| &talk.is) == is.as_ref() {
            return Ok(());
        }
        self.talk = None;
        if let Some(is) = is {
            info!(link = %is.name, "asking for prefixes by DHCPv6");
            let link_local = is.link_local;
            let talk = self.talk.insert(Conversation::open(is, &self.remembered)?);
            let actions = talk.handle(Event::Up(link_local));
            self.act(actions)?;
        }
        Ok(())
    }

    /// Listens, for so long; less, if something else is held now.
    ///
    /// # Errors
    ///
    /// The link can't be listened to, or it can't be written down.
    pub fn listen(&mut self, at_most: Duration) -> Result<()> {
        let clock = Clock::start();
        let end = clock.now() + at_most;
        let before = self.held.clone();
        while self.held == before {
            let left = end.saturating_since(clock.now());
            if left.is_zero() {
                break;
            }
            match &mut self.talk {
                Some(talk) => {
                    let actions = talk.wait(left)?;
                    self.act(actions)?;
                }
                None => std::thread::sleep(left),
            }
        }
        Ok(())
    }

    fn act(&mut self, actions: Vec<Action>) -> Result<()> {
        let mut told = actions.into_iter().filter_map(|action| match action {
            Action::Tell(held) => Some(held),
            _ => None,
        });
        match told.next_back() {
            Some(held) => self.take(&held),
            None => Ok(()),
        }
    }

    fn take(&mut self, held: &[Held]) -> Result<()> {
        let prefixes: Vec<Prefix> = held.iter().map(|held| held.prefix).collect();
        if self.held != prefixes {
            info!(prefixes = ?prefixes, "delegated by DHCPv6");
        }
        self.held = prefixes;
        let Some(talk) = &self.talk else {
            return Ok(());
        };
        let now = talk.clock.now();
        let secs = |until: Time| until.saturating_since(now).as_secs();
        self.remembered.server = talk.requester.server().map(<[u8]>::to_vec);
        self.remembered.saved_at = now_secs();
        self.remembered.prefixes = held
            .iter()
            .map(|held| Lease {
                prefix: held.prefix,
                preferred_secs: secs(held.preferred_until),
                valid_secs: secs(held.valid_until),
            })
            .collect();
        places::write(&self.path, &serde_json::to_string(&self.remembered)?)
    }

    /// Gives back what is held, if its server is still there to take it.
    ///
    /// # Errors
    ///
    /// The link can't be listened to.
    pub fn release(mut self, host: &Host, asked: &Asked) -> Result<()> {
        self.follow(host, asked)?;
        let Some(talk) = self.talk.as_mut().filter(|_| !self.held.is_empty()) else {
            return Ok(());
        };
        let end = talk.clock.now() + RELEASING;
        let mut actions = talk.handle(Event::Release);
        while !actions.contains(&Action::Released) {
            let left = end.saturating_since(talk.clock.now());
            if left.is_zero() {
                break;
            }
            actions = talk.wait(left)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(remembered: &Remembered) -> Vec<(String, u64)> {
        let now = Time::from_secs(1);
        let held = remembered.held(now);
        let left = |held: &Held| held.valid_until.saturating_since(now).as_secs();
        held.iter()
            .map(|held| (held.prefix.to_string(), left(held)))
            .collect()
    }

    #[test]
    fn what_is_remembered_runs_out_while_nobody_runs() {
        let lease = |text: &str, valid_secs| Lease {
            prefix: text.parse().unwrap(),
            preferred_secs: 10,
            valid_secs,
        };
        let mut remembered = Remembered {
            prefixes: vec![
                lease("2001:db8:1::/56", 50),
                lease("2001:db8:2::/56", 1_000),
            ],
            ..Remembered::new()
        };
        remembered.saved_at = now_secs() - 100;
        let [(prefix, left)] = &held(&remembered)[..] else {
            panic!("{remembered:?}")
        };
        assert_eq!(prefix, "2001:db8:2::/56");
        assert!((890..=900).contains(left), "{left}");
        // The clock was wrong, before or now.
        remembered.saved_at = now_secs() + 1_000_000;
        assert_eq!(held(&remembered).len(), 2);
    }

    #[test]
    fn what_cant_be_read_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("delegation.json");
        assert_eq!(Remembered::read(&path).prefixes, []);
        fs::write(&path, "{").unwrap();
        assert_eq!(Remembered::read(&path).prefixes, []);
        let mut kept = Remembered::new();
        kept.server = Some(vec![1, 2, 3]);
        fs::write(&path, serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(Remembered::read(&path), kept);
    }
}
