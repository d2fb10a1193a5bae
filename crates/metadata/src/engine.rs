//! All ports of a host.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use hextet_types::{Mac, Time};

use crate::{Facts, frame, stack::Stack};

/// So many ports may have connections at a time; the others' segments are dropped, and sent again.
pub const MAX_STACKS: usize = 512;

/// What a port's answers depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The Ethernet address of the host's end.
    pub host_mac: Mac,
    /// What its workload is told.
    pub facts: Arc<Facts>,
}

/// What happens to the engine.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A frame came in by the link of that index.
    Frame {
        /// The link.
        link: u32,
        /// From its Ethernet header on.
        bytes: &'a [u8],
    },
    /// It is as late as [`Metadata::next_wakeup`] said.
    Timer,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame by the link of that index.
    Send {
        /// The link.
        link: u32,
        /// From its Ethernet header on.
        frame: Vec<u8>,
    },
}

/// The metadata service of a host's ports, which go by the indexes of their links.
#[derive(Debug)]
pub struct Metadata {
    seed: u64,
    ports: HashMap<u32, PortConfig>,
    stacks: BTreeMap<u32, Stack>,
}

impl Metadata {
    /// Without ports. What `seed` is makes sequence numbers differ.
    pub fn new(seed: u64) -> Metadata {
        Metadata {
            seed,
            ports: HashMap::new(),
            stacks: BTreeMap::new(),
        }
    }

    /// A port is there, or is another now; its connections go on.
    pub fn set_port(&mut self, link: u32, config: PortConfig) {
        self.ports.insert(link, config);
    }

    /// A port is gone, with its connections.
    pub fn remove_port(&mut self, link: u32) {
        self.ports.remove(&link);
        self.stacks.remove(&link);
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.stacks.values().filter_map(Stack::next_wakeup).min()
    }

    /// Takes an event in. A frame that is not for the metadata service does nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Vec<Action> {
        match event {
            Event::Frame { link, bytes } => self.frame(link, bytes, now),
            Event::Timer => {
                let due = |stack: &Stack| stack.next_wakeup().is_some_and(|at| at <= now);
                let due = self.stacks.iter().filter(|(_, stack)| due(stack));
                let links: Vec<u32> = due.map(|(link, _)| *link).collect();
                let actions = links.into_iter().map(|link| self.turn(link, now));
                actions.flatten().collect()
            }
        }
    }

    fn frame(&mut self, link: u32, bytes: &[u8], now: Time) -> Vec<Action> {
        let (Some(inbound), Some(port)) = (frame::parse(bytes), self.ports.get(&link)) else {
            return Vec::new();
        };
        if self.stacks.len() >= MAX_STACKS && !self.stacks.contains_key(&link) {
            return Vec::new();
        }
        self.seed = self
            .seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        let seed = self.seed;
        let new = || Stack::new(port.facts.link.mtu, seed, now);
        let stack = self.stacks.entry(link).or_insert_with(new);
        let frames = stack.receive(inbound, port.host_mac, &port.facts, now);
        self.sent(link, frames)
    }

    fn turn(&mut self, link: u32, now: Time) -> Vec<Action> {
        let (Some(port), Some(stack)) = (self.ports.get(&link), self.stacks.get_mut(&link)) else {
            return Vec::new();
        };
        let frames = stack.turn(port.host_mac, &port.facts, now);
        self.sent(link, frames)
    }

    fn sent(&mut self, link: u32, frames: Vec<Vec<u8>>) -> Vec<Action> {
        if self.stacks.get(&link).is_some_and(Stack::is_idle) {
            self.stacks.remove(&link);
        }
        let frames = frames.into_iter();
        frames.map(|frame| Action::Send { link, frame }).collect()
    }
}

#[cfg(test)]
mod tests;
