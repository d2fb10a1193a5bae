//! The links of physical networks: what routers there say, and telling all who are there where an address is now.
//!
//! The kernel answers who asks (`crates/kernel/bpf/uplink.c`), whether or not anybody runs here. What is here is for news: an
//! address that has come to this host is announced three times (RFC 4861 §7.2.6), so that those who know where it was learn
//! where it is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv6Addr},
    sync::mpsc::SyncSender,
    time::Duration,
};

use hextet_autoconf::upstream::{Action, Event, Listener, Upstream, announcement};
use hextet_kernel::{links::Links, packet::PacketSocket};
use hextet_model::state::Netns;
use hextet_types::{IfName, Mac, Time};
use nix::ifaddrs::getifaddrs;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use crate::{clock::Clock, reconciler::Input};

/// How often it is looked whether the link is the same.
const LOOK: Duration = Duration::from_secs(1);
/// Of one address (RFC 4861 §10: `MAX_NEIGHBOR_ADVERTISEMENT`), and between two of them.
const ANNOUNCED: u8 = 3;
const BETWEEN: Duration = Duration::from_secs(1);
/// By then the kernel answers for an address.
const SETTLED: Duration = Duration::from_millis(50);
/// So many are announced at once, so often: 1,000 in a second.
const AT_ONCE: usize = 50;
const TICK: Duration = Duration::from_millis(50);
const MAX_FRAME: usize = 2048;
/// Frames taken in one go.
const BATCH: usize = 64;

/// The host answers for an address on a link from now on, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering {
    /// The link.
    pub link: IfName,
    /// The address.
    pub addr: IpAddr,
    /// Whether it does.
    pub answers: bool,
    /// Whether that is news to those on the link.
    pub is_new: bool,
}

/// A physical network, and what was known of it.
#[derive(Clone, Debug)]
pub struct Physical {
    /// Its name.
    pub name: String,
    /// The link.
    pub link: IfName,
    /// What routers said.
    pub said: Upstream,
}

/// Starts a task for each.
pub fn start(
    all: Vec<Physical>,
    mut answering: mpsc::UnboundedReceiver<Answering>,
    clock: Clock,
    inputs: &SyncSender<Input>,
) {
    let mut tasks = BTreeMap::new();
    for physical in all {
        let (tell, told) = mpsc::unbounded_channel();
        tasks.insert(physical.link.clone(), tell);
        let task = Task {
            link: physical.link,
            name: physical.name,
            said: physical.said,
            answered: BTreeSet::new(),
            queue: VecDeque::new(),
            mac: None,
            clock,
            inputs: inputs.clone(),
        };
        tokio::spawn(task.run(told));
    }
    tokio::spawn(async move {
        while let Some(news) = answering.recv().await {
            if let Some(task) = tasks.get(&news.link) {
                let _ = task.send(news);
            }
        }
    });
}

/// A link that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Is {
    index: u32,
    mac: Mac,
    up: bool,
}

struct Task {
    name: String,
    link: IfName,
    said: Upstream,
    answered: BTreeSet<IpAddr>,
    /// When each is announced next, and how often still.
    queue: VecDeque<(Time, IpAddr, u8)>,
    /// Under which all is known that was announced.
    mac: Option<Mac>,
    clock: Clock,
    inputs: SyncSender<Input>,
}

impl Task {
    async fn run(mut self, mut told: mpsc::UnboundedReceiver<Answering>) {
        let mut complaint = String::new();
        loop {
            let outcome = match self.find() {
                Ok(Some(is)) if is.up => self.listen(is, &mut told).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if told.is_closed() && told.is_empty() {
                return;
            }
            if let Err(error) = outcome {
                let error = format!("{error:#}");
                if complaint != error {
                    warn!(link = %self.link, error, "nothing is heard on a physical network; trying again");
                    complaint = error;
                }
            }
            while let Ok(news) = told.try_recv() {
                self.take(news);
            }
            sleep(LOOK).await;
        }
    }

    fn find(&self) -> anyhow::Result<Option<Is>> {
        let links = Links::open(&Netns::Main)?.list(false)?;
        let found = links.into_iter().find(|is| is.name == self.link);
        Ok(found.and_then(|is| {
            Some(Is {
                index: is.index,
                mac: is.mac?,
                up: is.up,
            })
        }))
    }

    /// As long as the link is the same.
    async fn listen(
        &mut self,
        is: Is,
        told: &mut mpsc::UnboundedReceiver<Answering>,
    ) -> anyhow::Result<()> {
        let socket = PacketSocket::of_routers(is.index)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the socket owns its one descriptor"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        let mut listener = Listener::new(is.mac, self.said.clone());
        info!(link = %self.link, network = self.name, "listening to routers");
        if self
            .mac
            .replace(is.mac)
            .is_some_and(|former| former != is.mac)
        {
            let all: Vec<IpAddr> = self.answered.iter().copied().collect();
            all.into_iter().for_each(|addr| self.announce(addr));
        }
        let up = Event::Up(link_local(&self.link));
        self.act(listener.handle(up, self.clock.now()), &socket, is)
            .await;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wakeup = listener.next_wakeup();
            let actions = tokio::select! {
                news = told.recv() => match news {
                    Some(news) => {
                        self.take(news);
                        Vec::new()
                    }
                    None => return Ok(()),
                },
                ready = socket.readable() => {
                    ready?.clear_ready();
                    self.receive(&mut listener, &socket)
                }
                () = self.clock.sleep_until(wakeup) => {
                    listener.handle(Event::Timer, self.clock.now())
                }
                () = sleep(TICK), if !self.queue.is_empty() => {
                    self.announce_due(&socket, is);
                    Vec::new()
                }
                _ = look.tick() => match self.find()? {
                    Some(now) if now == is => Vec::new(),
                    _ => return Ok(()),
                },
            };
            self.act(actions, &socket, is).await;
        }
    }

    fn receive(&self, listener: &mut Listener, socket: &AsyncFd<PacketSocket>) -> Vec<Action> {
        let mut frame = [0; MAX_FRAME];
        let mut actions = Vec::new();
        for _ in 0..BATCH {
            match socket.get_ref().recv(&mut frame) {
                Ok((_, octets)) => {
                    let octets = frame.get(..octets).unwrap_or_default();
                    actions.extend(listener.handle(Event::Frame(octets), self.clock.now()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => debug!(%error, "read a frame"),
            }
        }
        actions
    }

    async fn act(&mut self, actions: Vec<Action>, socket: &AsyncFd<PacketSocket>, is: Is) {
        for action in actions {
            match action {
                Action::Send(frame) => self.send(socket, is, &frame),
                Action::Tell(said) => {
                    info!(
                        link = %self.link,
                        network = self.name,
                        routers = ?said.routers,
                        prefixes = said.prefixes.len(),
                        "routers say something else"
                    );
                    self.said = said.clone();
                    let input = Input::Upstream(self.name.clone(), Box::new(said));
                    let inputs = self.inputs.clone();
                    let _ = spawn_blocking(move || inputs.send(input)).await;
                }
            }
        }
    }

    fn send(&self, socket: &AsyncFd<PacketSocket>, is: Is, frame: &[u8]) {
        if let Err(error) = socket.get_ref().send(is.index, frame) {
            debug!(link = %self.link, %error, "a frame was not sent");
        }
    }

    fn take(&mut self, news: Answering) {
        match news.answers {
            true => {
                self.answered.insert(news.addr);
                if news.is_new {
                    self.announce(news.addr);
                }
            }
            false => drop(self.answered.remove(&news.addr)),
        }
    }

    fn announce(&mut self, addr: IpAddr) {
        let at = self.clock.now() + SETTLED;
        self.queue.push_back((at, addr, ANNOUNCED));
    }

    fn announce_due(&mut self, socket: &AsyncFd<PacketSocket>, is: Is) {
        let now = self.clock.now();
        for _ in 0..AT_ONCE {
            let due = self.queue.front().filter(|(at, ..)| *at <= now).copied();
            let Some((_, addr, left)) = due else { return };
            self.queue.pop_front();
            if !self.answered.contains(&addr) {
                continue;
            }
            if let Some(frame) = announcement(is.mac, addr) {
                self.send(socket, is, &frame);
            }
            if left > 1 {
                self.queue.push_back((now + BETWEEN, addr, left - 1));
            }
        }
    }
}

/// The link's own, which the kernel has made.
fn link_local(link: &IfName) -> Option<Ipv6Addr> {
    let addresses = getifaddrs().ok()?;
    let mut on_it = addresses.filter(|a| a.interface_name == link.as_str());
    on_it.find_map(|a| {
        let addr = a.address?.as_sockaddr_in6()?.ip();
        addr.is_unicast_link_local().then_some(addr)
    })
}
