//! A port of ours, open at the gateway in front of us: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP (IGD), whichever the gateway speaks.
//!
//! One task keeps one port open: it asks, renews at half its life, asks anew when the gateway has forgotten or gone, and gives the port back
//! at the end. What a gateway says is one more candidate for where we may be reached, never the truth: there may be another NAT behind it,
//! or nothing. It knows nothing of meshes or tunnels. Only what comes from the gateway's own address is believed.

mod means;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use means::Held;

/// For how long a port is asked for, in seconds: a gateway that has begun anew, and forgotten, is noticed at half of it.
pub const LIFETIME_SECS: u32 = 600;

/// Between two tries at first; twice as long each time.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Between two tries to renew what still counts.
const RENEW_AGAIN: Duration = Duration::from_secs(2);
/// However long or short a life a gateway grants, it is asked again within these bounds.
const RENEW: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3_600)];
/// For whoever waits for the end: what is being asked just then, and the giving back.
const END: Duration = Duration::from_secs(15);

/// What is to be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who is asked. Of its family is all that comes of it.
    pub gateway: Gateway,
    /// Our own address, as the gateway sees it.
    pub client: IpAddr,
    /// Ours.
    pub port: NonZeroU16,
    /// Of the port.
    pub transport: Transport,
    /// For how long each time; [`LIFETIME_SECS`] unless there is a reason.
    pub lifetime_secs: u32,
}

/// The next hop towards the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The number of the interface where a link-local one is.
    pub scope: Option<u32>,
}

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// How a gateway was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// RFC 6887; for IPv6 it opens a firewall.
    Pcp,
    /// RFC 6886, IPv4 alone.
    NatPmp,
    /// An Internet Gateway Device of UPnP, IPv4 alone.
    Upnp,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Means::Pcp => "PCP",
            Means::NatPmp => "NAT-PMP",
            Means::Upnp => "UPnP",
        })
    }
}

/// What is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the gateway says that we are reached.
    pub external: SocketAddr,
    /// How it was asked.
    pub by: Means,
}

/// One who keeps a port open. When it is dropped the port is given back, if the runtime goes on for that long.
#[derive(Debug)]
pub struct Keeper {
    told: watch::Receiver<Option<Mapping>>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Begins to ask. To be called in a runtime.
    pub fn start(wanted: Wanted) -> Keeper {
        let (tell, told) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(keep(wanted, tell, ended));
        Keeper { told, end, task }
    }

    /// Tells what is open, and each change.
    pub fn watch(&self) -> watch::Receiver<Option<Mapping>> {
        self.told.clone()
    }

    /// Gives the port back, and waits for that; 15 s at most.
    pub async fn end(self) {
        drop(self.end);
        // What is not given back by then ends by itself.
        let _ = timeout(END, self.task).await;
    }
}

type Ended = oneshot::Receiver<()>;

async fn keep(wanted: Wanted, tell: watch::Sender<Option<Mapping>>, mut end: Ended) {
    let mut pause = PAUSE;
    loop {
        // Not to be left in the middle: nobody would know what has been opened.
        if let Some((held, granted)) = means::open(&wanted).await {
            pause = PAUSE;
            tell.send_replace(Some(granted.mapping));
            let over = hold(&wanted, held, granted, &tell, &mut end).await;
            tell.send_replace(None);
            if over {
                return;
            }
        }
        tokio::select! {
            _ = &mut end => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What a gateway has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Granted {
    mapping: Mapping,
    lifetime: Duration,
}

impl Granted {
    fn renew_after(&self) -> Duration {
        let [shortest, longest] = RENEW;
        (self.lifetime / 2).clamp(shortest, longest)
    }
}

/// Holds a port until the end, which is `true`, or until the gateway has let it go.
async fn hold(
    wanted: &Wanted,
    mut held: Held,
    mut granted: Granted,
    tell: &watch::Sender<Option<Mapping>>,
    end: &mut Ended,
) -> bool {
    let mut lost = Instant::now() + granted.lifetime;
    let mut next = Instant::now() + granted.renew_after();
    loop {
        tokio::select! {
            _ = &mut *end => {
                held.give_back(wanted).await;
                return true;
            }
            () = sleep_until(next) => {}
        }
        match held.renew(wanted).await {
            Some(again) => {
                granted = again;
                lost = Instant::now() + granted.lifetime;
                next = Instant::now() + granted.renew_after();
                tell.send_if_modified(|told| {
                    told.replace(granted.mapping) != Some(granted.mapping)
                });
            }
            None if Instant::now() >= lost => return false,
            None => next = lost.min(Instant::now() + RENEW_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_asked_for_again_at_half_its_life_within_bounds() {
        let after = |secs| {
            let mapping = Mapping {
                external: "192.0.2.1:5".parse().unwrap(),
                by: Means::Pcp,
            };
            let lifetime = Duration::from_secs(secs);
            Granted { mapping, lifetime }.renew_after().as_secs()
        };
        let all = [0, 1, 120, 600, 86_400, u64::from(u32::MAX)].map(after);
        assert_eq!(all, [1, 1, 60, 300, 3_600, 3_600]);
    }
}
