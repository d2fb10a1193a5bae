//! Hosts: each a network namespace with its plan's state, all held by one thread, and what comes out of
//! them.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use hextet_model::{
    intent::Intent,
    plan::{HostConfig, Planner},
    state::{HostState, TABLE},
};
use hextet_types::{IfName, Mac, PortId};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use serde_json::Value as Json;

use crate::{
    defence::Defence,
    hypervisor::{Hypervisor, UPLINK, run, wait_for_address},
    packet::{Ether, ether_ip},
    wire::{Frame, Wire},
};

/// Where a host's namespaces have their names.
const NAMES: &str = "/run/netns";
/// How long to wait for what should have come; only a disagreement waits so long.
const PATIENCE: Duration = Duration::from_millis(300);

/// What one host is told.
pub struct HostSetting {
    /// Its own configuration, without uplinks.
    pub config: HostConfig,
    /// Its part of the cloud.
    pub intent: Intent,
    /// Its own address for tunnels, where it has one.
    pub endpoint: Option<IpAddr>,
}

/// By which link a packet comes to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A port of the host.
    Port(PortId),
    /// The uplink.
    Uplink,
    /// An interface that is named like a port and that no plan knows.
    Stray,
}

/// How often rules have dropped something, by [`drop_name`].
pub type Drops = BTreeMap<String, u64>;

/// What tells a rule that drops from others.
pub fn drop_name(chain: &str, comment: &str) -> String {
    format!("chain {chain}: {comment}")
}

/// A host.
pub struct Site {
    namespaces: [(File, CloneFlags); 2],
    host: Hypervisor,
    stray: Wire,
    ports: Vec<PortId>,
    /// What must stand.
    pub state: HostState,
    /// Its configuration, with the uplink.
    pub config: HostConfig,
    /// Its address for tunnels.
    pub endpoint: Option<IpAddr>,
}

impl Site {
    /// A host in a namespace of its own, in which the calling thread then is. It must be a thread that
    /// may be.
    pub fn new(setting: &HostSetting) -> Site {
        Site::without(setting, &[])
    }

    /// The same, without these defences, as far as it has them.
    pub fn without(setting: &HostSetting, left_out: &[Defence]) -> Site {
        let namespaces = own_namespaces();
        let mut host = Hypervisor::new(setting.config.clone(), &setting.intent, left_out);
        host.leave_out_what_there_is();
        let ports: Vec<PortId> = setting.intent.ports.keys().copied().collect();
        ports.iter().for_each(|port| host.plug(*port));
        if let Some(own) = setting.endpoint {
            take_address(own);
        }
        let stray = Wire::new(&link(Entry::Stray)).expect("make a TAP");
        let gateway = setting.config.gateway_mac;
        let up = format!("link set {} address {gateway} up\n", stray.name());
        run("ip", &["-batch", "-"], &up);
        host.settle();
        let planner: &Planner = host.planner();
        Site {
            state: planner.state().clone(),
            config: planner.config().clone(),
            namespaces,
            endpoint: setting.endpoint,
            host,
            stray,
            ports,
        }
    }

    /// Whether it was made without that.
    pub fn lacks(&self, defence: Defence) -> bool {
        self.host.lacks(defence)
    }

    /// What plans for it.
    pub fn planner(&self) -> &Planner {
        self.host.planner()
    }

    /// The calling thread goes there. A moment ago it may have shared what it leaves with another, which has ended
    /// but for what Linux does last.
    fn enter(&self) {
        for (file, kind) in &self.namespaces {
            let end = Instant::now() + PATIENCE;
            while let Err(error) = setns(file, *kind) {
                assert!(Instant::now() < end, "enter a host's namespaces: {error}");
                thread::yield_now();
            }
        }
    }

    /// Gives the kernel that state.
    pub fn impose(&mut self, state: &HostState) {
        self.enter();
        self.host.settle_to(&state.objects);
    }

    /// How often each rule that counts what it drops has done so, by chain and comment.
    pub fn drops(&self) -> Drops {
        self.enter();
        let listing = run("nft", &["-j", "list", "table", "inet", TABLE], "");
        let listing: Json = serde_json::from_str(&listing).expect("JSON");
        let mut drops = Drops::new();
        for rule in listing["nftables"].as_array().into_iter().flatten() {
            let rule = &rule["rule"];
            let statements = rule["expr"].as_array().into_iter().flatten();
            let mut counters = statements.filter_map(|s| s["counter"]["packets"].as_u64());
            let names = rule["chain"].as_str().zip(rule["comment"].as_str());
            if let (Some((chain, comment)), Some(count)) = (names, counters.next()) {
                *drops.entry(drop_name(chain, comment)).or_default() += count;
            }
        }
        drops
    }

    /// Sends an IP packet to the host.
    pub fn send(&mut self, entry: Entry, from: Mac, packet: &[u8]) {
        self.send_to(entry, [from, self.config.gateway_mac], packet);
    }

    /// The same in a frame with that source and destination; by the uplink it is the spine's.
    pub fn send_to(&mut self, entry: Entry, [src, dst]: [Mac; 2], packet: &[u8]) {
        let addresses = Ether { src, dst };
        match entry {
            Entry::Port(port) => self.host.send(port, &ether_ip(addresses, packet)),
            Entry::Stray => self.stray.send(&ether_ip(addresses, packet)),
            Entry::Uplink => self.host.send_from_fabric(packet),
        }
    }

    /// Sends a frame as it is, but by the uplink, by which only IP packets come.
    pub fn send_frame(&mut self, entry: Entry, frame: &[u8]) {
        match entry {
            Entry::Port(port) => self.host.send(port, frame),
            Entry::Stray => self.stray.send(frame),
            Entry::Uplink => self
                .host
                .send_from_fabric(frame.get(14..).unwrap_or_default()),
        }
    }

    /// Does something in the host's main namespace.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.enter();
        work()
    }

    /// What has come out, and by which link; waits for the link by which something must come.
    pub fn receive(
        &mut self,
        expected: Option<&IfName>,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Vec<(IfName, Frame)> {
        let mut all = self.take();
        let end = Instant::now() + PATIENCE;
        let came = |all: &[(IfName, Frame)]| match expected {
            Some(link) => all.iter().any(|(by, frame)| by == link && is_it(frame)),
            None => true,
        };
        while !came(&all) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
            all.extend(self.take());
        }
        all
    }

    fn take(&mut self) -> Vec<(IfName, Frame)> {
        let mut all: Vec<(IfName, Frame)> = Vec::new();
        let mut of = |wire: &mut Wire| {
            let name = wire.name().clone();
            all.extend(wire.take().into_iter().map(|frame| (name.clone(), frame)));
        };
        of(&mut self.host.uplink);
        of(&mut self.stray);
        for port in &self.ports {
            of(self.host.port(*port));
        }
        all
    }

    /// The port with that link.
    pub fn port_of(&self, link: &IfName) -> Option<PortId> {
        let mut ports = self.ports.iter().copied();
        ports.find(|port| IfName::for_port(*port) == *link)
    }
}

/// A network namespace, and a mount namespace in which names of others are the host's own. The calling thread then is
/// in both.
fn own_namespaces() -> [(File, CloneFlags); 2] {
    const NONE: Option<&str> = None;
    let (network, mounts) = (CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWNS);
    unshare(network | mounts).expect("make namespaces (needs root)");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("keep mounts");
    std::fs::create_dir_all(NAMES).expect("make a directory");
    mount(Some("none"), NAMES, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount names");
    let open = |name| File::open(format!("/proc/thread-self/ns/{name}")).expect("open");
    [(open("net"), network), (open("mnt"), mounts)]
}

/// The host has that address for tunnels.
fn take_address(own: IpAddr) {
    let (len, nodad) = match own {
        IpAddr::V4(_) => (32, ""),
        IpAddr::V6(_) => (128, " nodad"),
    };
    run(
        "ip",
        &["-batch", "-"],
        &format!("address add {own}/{len} dev lo{nodad}\n"),
    );
    if own.is_ipv6() {
        wait_for_address(&own.to_string());
    }
}

/// The link of an entry.
pub fn link(entry: Entry) -> IfName {
    match entry {
        Entry::Port(port) => IfName::for_port(port),
        Entry::Uplink => UPLINK.parse().expect("a name"),
        Entry::Stray => "tapstray".parse().expect("a name"),
    }
}
