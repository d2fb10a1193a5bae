//! All ports of a host.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, LazyLock},
    time::Duration,
};

use hextet_types::{Bucket, Mac, Time};

use crate::{
    Facts, frame,
    http::Answer,
    stack::{Given, Question, QuestionId, Stack},
};

/// So many ports may have connections at a time; the others' segments are dropped, and sent again.
pub const MAX_STACKS: usize = 512;
/// So many octets that others have answered may wait for workloads to take them.
pub const MAX_WAITING: usize = 64 << 20;

/// Questions of one port to others in one go: a guest that starts has some forty.
const BURST: u32 = 100;
/// One more each.
const REFILL: Duration = Duration::from_millis(100);

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
    /// Somebody else has answered what [`Action::Ask`] asked.
    Answered {
        /// The link.
        link: u32,
        /// The question's.
        id: QuestionId,
        /// None if nobody could be asked.
        answer: Option<&'a Answer>,
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
    /// Have Nova answer a workload; [`Event::Answered`] has to follow.
    Ask {
        /// The link.
        link: u32,
        /// What it asks.
        question: Question,
    },
}

static TOO_MANY: LazyLock<Answer> = LazyLock::new(|| Answer {
    status: 429,
    content_type: "text/plain".to_owned(),
    body: Vec::new(),
});

#[derive(Debug)]
struct Port {
    config: PortConfig,
    /// Of questions to others.
    questions: Bucket,
}

/// The metadata service of a host's ports, which go by the indexes of their links.
#[derive(Debug)]
pub struct Metadata {
    seed: u64,
    /// Stacks that there have been.
    made: u64,
    ports: HashMap<u32, Port>,
    stacks: BTreeMap<u32, Stack>,
}

impl Metadata {
    /// Without ports. What `seed` is makes sequence numbers differ.
    pub fn new(seed: u64) -> Metadata {
        Metadata {
            seed,
            made: 0,
            ports: HashMap::new(),
            stacks: BTreeMap::new(),
        }
    }

    /// A port is there, or is another now; its connections go on.
    pub fn set_port(&mut self, link: u32, config: PortConfig) {
        match self.ports.get_mut(&link) {
            Some(port) => port.config = config,
            None => {
                let questions = Bucket::new(BURST, REFILL, Time::ZERO);
                self.ports.insert(link, Port { config, questions });
            }
        }
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
            Event::Answered { link, id, answer } => self.answered(link, id, answer, now),
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
        let (seed, made) = (self.seed, &mut self.made);
        let new = || {
            *made += 1;
            Stack::new(*made, port.config.facts.link.mtu, seed, now)
        };
        let stack = self.stacks.entry(link).or_insert_with(new);
        let PortConfig { host_mac, facts } = &port.config;
        let given = stack.receive(inbound, *host_mac, facts, now);
        self.given(link, given, now)
    }

    fn answered(
        &mut self,
        link: u32,
        id: QuestionId,
        answer: Option<&Answer>,
        now: Time,
    ) -> Vec<Action> {
        let waiting: usize = self.stacks.values().map(Stack::waiting).sum();
        let room = MAX_WAITING.saturating_sub(waiting);
        let (Some(port), Some(stack)) = (self.ports.get(&link), self.stacks.get_mut(&link)) else {
            return Vec::new();
        };
        let answer = answer.filter(|answer| answer.body.len() <= room);
        let PortConfig { host_mac, facts } = &port.config;
        let given = stack.answered(id, answer, (*host_mac, facts, now));
        self.given(link, given, now)
    }

    fn turn(&mut self, link: u32, now: Time) -> Vec<Action> {
        let (Some(port), Some(stack)) = (self.ports.get(&link), self.stacks.get_mut(&link)) else {
            return Vec::new();
        };
        let PortConfig { host_mac, facts } = &port.config;
        let given = stack.turn(*host_mac, facts, now);
        self.given(link, given, now)
    }

    /// What a port asks too often is answered at once.
    fn given(&mut self, link: u32, given: Given, now: Time) -> Vec<Action> {
        let send = |frame| Action::Send { link, frame };
        let mut actions: Vec<Action> = given.frames.into_iter().map(send).collect();
        let mut questions = VecDeque::from(given.questions);
        while let Some(question) = questions.pop_front() {
            let (Some(port), Some(stack)) = (self.ports.get_mut(&link), self.stacks.get_mut(&link))
            else {
                break;
            };
            if port.questions.take(now) {
                actions.push(Action::Ask { link, question });
                continue;
            }
            let PortConfig { host_mac, facts } = &port.config;
            let more = stack.answered(question.id, Some(&TOO_MANY), (*host_mac, facts, now));
            actions.extend(more.frames.into_iter().map(send));
            questions.extend(more.questions);
        }
        if self.stacks.get(&link).is_some_and(Stack::is_idle) {
            self.stacks.remove(&link);
        }
        actions
    }
}

#[cfg(test)]
mod tests;
