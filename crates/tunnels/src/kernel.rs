//! Tunnels of the kernel's own WireGuard, for the same requests as the process with userspace tunnels takes.
//!
//! All of a tunnel stands in the kernel. Whoever asked for it may go, and whoever comes next finds it; no process is needed. What differs:
//! each tunnel has a port of its own, of both families; outer packets leave as routes say; octets are counted as they are outside,
//! handshakes and keepalives included; and when something was sent or heard is known from asking alone: the answer
//! before knew less.

use std::{
    collections::HashMap,
    io,
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use hextet_kernel::{
    Error,
    wireguard::{Counts, Peer, Standing, Wanted, WireGuard},
};
use hextet_types::{IfName, Way};

use crate::{
    Key, Listen, Mtu, Spec,
    control::{Answer, Controller, Request, Status},
};

pub use hextet_kernel::wireguard::is_there;

/// Tunnels at most.
const MAX_TUNNELS: usize = 1_024;
/// Keys hold that long after they were agreed upon (`REJECT_AFTER_TIME`).
const KEYS_HOLD: Duration = Duration::from_secs(180);
/// What stands for a key where somebody has taken it away.
const NO_KEY: [u8; 32] = [0; 32];

/// Whoever makes tunnels and tells how they stand.
pub trait Tunnels {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    fn ask(&mut self, request: &Request) -> io::Result<Answer>;
}

impl Tunnels for Controller {
    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        Controller::ask(self, request)
    }
}

impl Tunnels for Kernel {
    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        Ok(self.answer(request, Instant::now()))
    }
}

/// The kernel's tunnels in the namespace where it was opened.
#[derive(Debug)]
pub struct Kernel {
    wireguard: WireGuard,
    tallies: HashMap<IfName, Tally>,
}

/// What was counted when somebody asked last, and when it had grown.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tx_octets: u64,
    rx_octets: u64,
    sent: Option<Instant>,
    heard: Option<Instant>,
}

impl Kernel {
    /// In the thread's network namespace.
    ///
    /// # Errors
    ///
    /// The kernel has no WireGuard.
    pub fn open() -> Result<Kernel, Error> {
        Ok(Kernel {
            wireguard: WireGuard::open()?,
            tallies: HashMap::new(),
        })
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Answer {
        let done = match request {
            Request::List => {
                return match self.list(now) {
                    Ok(tunnels) => Answer::Tunnels(tunnels),
                    Err(error) => Answer::Error(error.to_string()),
                };
            }
            Request::Doors => return Answer::Doors(Vec::new()),
            // The kernel counts by tunnel alone.
            Request::Destinations => return Answer::Destinations(HashMap::new()),
            Request::Door { listen, .. } => Err(format!(
                "open the door {listen}: each of the kernel's tunnels has a port of its own"
            )),
            Request::Up(spec) => self.up(spec),
            Request::Down(name) => {
                self.tallies.remove(name);
                self.wireguard.delete(name).map_err(|e| e.to_string())
            }
            Request::Endpoint { name, endpoint } => self.set_endpoint(name, *endpoint),
            Request::Candidates { name, .. } => Err(format!(
                "tunnel {name}: the kernel's tunnels have one endpoint, and no candidates"
            )),
            Request::Mtu { name, mtu } => {
                let set = self.wireguard.set_mtu(name, (*mtu).into());
                set.map_err(|e| e.to_string())
            }
        };
        match done {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Error(error),
        }
    }

    fn up(&mut self, spec: &Spec) -> Result<(), String> {
        let name = &spec.name;
        let wanted = wanted(spec)?;
        let standing = self.wireguard.list().map_err(|e| e.to_string())?;
        match standing.iter().find(|standing| standing.name == *name) {
            Some(standing) if is_so(standing, spec) => return Ok(()),
            Some(_) => {
                return Err(format!(
                    "tunnel {name} stands, and is otherwise: take it down first"
                ));
            }
            None if standing.len() >= MAX_TUNNELS => {
                return Err(format!("there are {MAX_TUNNELS} tunnels already"));
            }
            None => {}
        }
        self.wireguard.make(&wanted).map_err(|e| e.to_string())?;
        self.tallies.insert(name.clone(), Tally::default());
        Ok(())
    }

    fn set_endpoint(&mut self, name: &IfName, endpoint: Way) -> Result<(), String> {
        let endpoint = by_udp(name, endpoint)?;
        let standing = self.wireguard.look(name).map_err(|e| e.to_string())?;
        let peer = standing.and_then(|standing| standing.device.peer);
        let (peer, _) = peer.ok_or_else(|| format!("there is no tunnel {name}"))?;
        let set = self.wireguard.set_endpoint(name, &peer.key, endpoint);
        set.map_err(|e| e.to_string())
    }

    fn list(&mut self, now: Instant) -> Result<Vec<Status>, Error> {
        let standing = self.wireguard.list()?;
        self.tallies
            .retain(|name, _| standing.iter().any(|standing| standing.name == *name));
        let today = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let told = standing.into_iter().filter_map(|standing| {
            let tally = self.tallies.entry(standing.name.clone());
            let tally = tally.or_insert_with(|| Tally::found(&standing));
            status(standing, tally, now, today)
        });
        Ok(told.collect())
    }
}

/// What the kernel is to make.
fn wanted(spec: &Spec) -> Result<Wanted, String> {
    let name = &spec.name;
    if let Some(uplink) = &spec.uplink {
        return Err(format!(
            "tunnel {name}: the kernel's tunnels leave as routes say, not always by {uplink}"
        ));
    }
    if !spec.candidates.is_empty() {
        return Err(format!(
            "tunnel {name}: the kernel's tunnels have one endpoint, and no candidates"
        ));
    }
    let Listen::Own(listen) = spec.listen else {
        return Err(format!(
            "tunnel {name}: each of the kernel's tunnels has a port of its own, and no door"
        ));
    };
    if !listen.ip().is_unspecified() {
        return Err(format!(
            "tunnel {name}: the kernel's tunnels listen at all addresses, not at {} alone",
            listen.ip()
        ));
    }
    let endpoint = spec.endpoint.map(|at| by_udp(name, at)).transpose()?;
    Ok(Wanted {
        name: name.clone(),
        mtu: mtu_of(spec).into(),
        link_local: spec.private_key.public().link_local(),
        private_key: spec.private_key.octets(),
        port: listen.port(),
        peer: Peer {
            key: spec.peer_key.octets(),
            preshared_key: spec.preshared_key.as_ref().map(Key::octets),
            endpoint,
            keepalive_secs: spec.keepalive_secs,
        },
    })
}

fn by_udp(name: &IfName, at: Way) -> Result<SocketAddr, String> {
    let refused = || format!("tunnel {name}: the kernel's tunnels have no streams, as {at} is one");
    at.udp().ok_or_else(refused)
}

/// Whether a link is what a tunnel is to be, wherever its peer has gone since, and whatever MTU was found.
fn is_so(standing: &Standing, spec: &Spec) -> bool {
    let device = &standing.device;
    let Some((peer, _)) = &device.peer else {
        return false;
    };
    let Listen::Own(listen) = &spec.listen else {
        return false;
    };
    let port = listen.port();
    device.public_key == Some(spec.private_key.public().octets())
        && (port == 0 || device.port == port)
        && peer.key == spec.peer_key.octets()
        && peer.preshared_key == spec.preshared_key.as_ref().map(Key::octets)
        && peer.keepalive_secs == spec.keepalive_secs
}

fn status(standing: Standing, tally: &mut Tally, now: Instant, today: Duration) -> Option<Status> {
    let device = standing.device;
    let public_key = Key::from(device.public_key.unwrap_or(NO_KEY));
    let (peer_key, endpoint, counts) = match device.peer {
        Some((peer, counts)) => (Key::from(peer.key), peer.endpoint, counts),
        None => (Key::from(NO_KEY), None, Counts::default()),
    };
    tally.note(&counts, now);
    let since = |when: Option<Instant>| {
        when.map(|when| now.saturating_duration_since(when).as_millis() as u64)
    };
    Some(Status {
        name: standing.name,
        link_local: public_key.link_local(),
        peer_link_local: peer_key.link_local(),
        public_key,
        peer_key,
        listen: vec![(Ipv6Addr::UNSPECIFIED, device.port).into()],
        endpoint: endpoint.map(Way::Udp),
        endpoint_proven: counts.handshake.is_some(),
        candidates: Vec::new(),
        searching: false,
        mtu: mtu(standing.mtu)?,
        device_lost: false,
        handshake_secs: handshake_secs(counts.handshake, today),
        sent_millis: since(tally.sent),
        heard_millis: since(tally.heard),
        octets_out: counts.tx_octets,
        octets_in: counts.rx_octets,
        unsent: 0,
        refused: 0,
        dropped: 0,
    })
}

/// The nearest that a tunnel may have: somebody else may have set another.
/// The kernel's tunnels find nothing out, but let others fragment what is too large: where more may be tried, it is what usual paths carry.
fn mtu_of(spec: &Spec) -> Mtu {
    let usual = Mtu::try_from(1_420).unwrap_or(spec.mtu);
    spec.most_mtu
        .map_or(spec.mtu, |most| usual.min(most).max(spec.mtu))
}

fn mtu(octets: u32) -> Option<Mtu> {
    let octets = u16::try_from(octets.clamp(1_280, 9_000)).ok()?;
    Mtu::try_from(octets).ok()
}

/// Seconds since keys were agreed upon, as long as these hold; both times since 1970.
fn handshake_secs(handshake: Option<Duration>, today: Duration) -> Option<u64> {
    let age = today.saturating_sub(handshake?);
    (age < KEYS_HOLD).then_some(age.as_secs())
}

impl Tally {
    /// Nobody knows when that was.
    fn found(standing: &Standing) -> Tally {
        let counts = standing.device.peer.as_ref().map(|(_, counts)| counts);
        let counts = counts.copied().unwrap_or_default();
        Tally {
            tx_octets: counts.tx_octets,
            rx_octets: counts.rx_octets,
            sent: None,
            heard: None,
        }
    }

    fn note(&mut self, counts: &Counts, now: Instant) {
        let (sent, heard) = (
            counts.tx_octets.saturating_sub(self.tx_octets),
            counts.rx_octets.saturating_sub(self.rx_octets),
        );
        if carries_packets(sent) {
            self.sent = Some(now);
        }
        if heard > 0 {
            self.heard = Some(now);
        }
        (self.tx_octets, self.rx_octets) = (counts.tx_octets, counts.rx_octets);
    }
}

/// Whether that many octets were more than a keepalive, a message of a handshake, or one of each: what carries a packet has 64 or more,
/// filled up to a multiple of 16 but where the MTU is reached.
const fn carries_packets(octets: u64) -> bool {
    const KEEPALIVE: u64 = 32;
    const INITIATION: u64 = 148;
    const RESPONSE: u64 = 92;
    !matches!(octets, 0 | KEEPALIVE | INITIATION | RESPONSE)
        && octets != INITIATION + KEEPALIVE
        && octets != RESPONSE + KEEPALIVE
}

#[cfg(test)]
mod tests {
    use hextet_kernel::wireguard::Device;

    use super::*;

    fn spec() -> Spec {
        Spec {
            name: "wg0".parse().unwrap(),
            private_key: Key::from([1; 32]),
            peer_key: Key::from([2; 32]).public(),
            preshared_key: Some(Key::from([3; 32])),
            listen: Listen::Own("[::]:5000".parse().unwrap()),
            uplink: None,
            endpoint: Some("192.0.2.1:5000".parse().unwrap()),
            candidates: Vec::new(),
            keepalive_secs: 20,
            mtu: Mtu::try_from(1_420).unwrap(),
            most_mtu: None,
            segments: true,
        }
    }

    fn standing(spec: &Spec, counts: Counts) -> Standing {
        let wanted = wanted(spec).unwrap();
        let public_key = Some(spec.private_key.public().octets());
        Standing {
            name: wanted.name,
            index: 7,
            mtu: wanted.mtu.into(),
            device: Device {
                public_key,
                port: 5_000,
                peer: Some((wanted.peer, counts)),
            },
        }
    }

    #[test]
    fn a_tunnel_is_the_same_wherever_its_peer_has_gone_and_no_other() {
        let standing = standing(&spec(), Counts::default());
        type Change = fn(&mut Spec);
        let same: [Change; 4] = [
            |_| {},
            |spec| spec.endpoint = None,
            |spec| spec.listen = Listen::Own("[::]:0".parse().unwrap()),
            |spec| spec.mtu = Mtu::try_from(1_280).unwrap(),
        ];
        let others: [Change; 5] = [
            |spec| spec.private_key = Key::from([9; 32]),
            |spec| spec.peer_key = Key::from([9; 32]),
            |spec| spec.preshared_key = None,
            |spec| spec.listen = Listen::Own("[::]:5001".parse().unwrap()),
            |spec| spec.keepalive_secs = 0,
        ];
        let of = |change: &Change| {
            let mut spec = spec();
            change(&mut spec);
            is_so(&standing, &spec)
        };
        assert!(same.iter().all(of) && !others.iter().any(of));
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused() {
        let mut bound = spec();
        bound.listen = Listen::Own("192.0.2.2:5000".parse().unwrap());
        let refused = wanted(&bound).map(drop).unwrap_err();
        assert!(refused.contains("192.0.2.2"), "{refused}");
        let mut uplink = spec();
        uplink.uplink = Some("eth0".parse().unwrap());
        assert!(wanted(&uplink).map(drop).unwrap_err().contains("eth0"));
    }

    #[test]
    fn keepalives_and_handshakes_are_no_packets_and_a_find_is_no_news() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let counts = |tx_octets, rx_octets| Counts {
            handshake: Some(Duration::from_secs(1_000)),
            rx_octets,
            tx_octets,
        };
        let today = |secs: u64| Duration::from_secs(1_000 + secs);
        let mut tally = Tally::found(&standing(&spec(), counts(5_000, 5_000)));
        let mut told = |tx, rx, millis, secs| {
            let standing = standing(&spec(), counts(tx, rx));
            let status = status(standing, &mut tally, at(millis), today(secs)).unwrap();
            (
                status.sent_millis,
                status.heard_millis,
                status.handshake_secs,
            )
        };
        assert_eq!(told(5_000, 5_000, 0, 1), (None, None, Some(1)));
        assert_eq!(told(5_032, 5_000, 100, 1), (None, None, Some(1)));
        assert_eq!(told(5_180, 5_092, 200, 2), (None, Some(0), Some(2)));
        assert_eq!(told(5_276, 5_092, 300, 3), (Some(0), Some(100), Some(3)));
        assert_eq!(
            told(5_276, 5_092, 400, 179),
            (Some(100), Some(200), Some(179))
        );
        assert_eq!(told(5_276, 5_092, 500, 180).2, None);
    }

    #[test]
    fn a_foreign_mtu_is_told_as_the_nearest_of_ours() {
        let told = [68, 1_280, 1_420, 9_000, 65_535].map(|octets| mtu(octets).map(u16::from));
        assert_eq!(told, [1_280, 1_280, 1_420, 9_000, 9_000].map(Some));
    }
}
