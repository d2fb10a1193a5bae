//! One session: the state machine of RFC 5880 §6 in asynchronous mode.
//!
//! It gets packets that belong to it, the time, and what the operator wants; it knows neither
//! sockets nor the other sessions. What always holds: the state moves only along RFC 5880 §6.2;
//! while not Up we state and keep a transmit interval of at least 1 s; a passive session is silent
//! until it is spoken to; no input makes it send more than its own configured rate and 100 packets
//! a second out of turn.
//!
//! Not offered, and so never claimed in our packets: Demand mode (the peer's is honoured), the Echo
//! function, authentication.

mod change;
#[cfg(test)]
mod tests;
mod timing;

use std::{num::NonZeroU8, time::Duration};

use hextet_types::Time;

pub use self::change::{Change, Reason, Verdict};
use self::timing::{Intervals, Schedule, Timing};
use crate::{
    config::{Config, Role},
    packet::{Diagnostic, Discriminator, Micros, Packet, State},
};

/// The shortest transmit interval when not Up (RFC 5880 §6.8.3).
const SLOW: Micros = Micros(1_000_000);

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet for this session, decoded, without an authentication section.
    Received(Packet),
    /// The time that [`Session::next_wakeup`] named has come. Harmless when it has not.
    Timer,
    /// What the operator wants from now on. Harmless when it is what holds.
    Configure(Config),
    /// The path is known to be down: its interface lost the carrier.
    PathDown,
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the peer.
    Send(Packet),
    /// Tell whoever relies on the path.
    Changed(Change),
}

/// What the peer's last packet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its state.
    pub state: State,
    /// Why it last changed its state.
    pub diagnostic: Diagnostic,
    /// Its number for this session.
    pub discriminator: Discriminator,
    /// Detect Mult.
    pub detect_mult: NonZeroU8,
    /// Desired Min TX Interval.
    pub desired_min_tx: Micros,
    /// Required Min RX Interval; zero: it wants nothing periodic.
    pub required_min_rx: Micros,
    /// It asks us to stop sending periodically while both are Up.
    pub demand: bool,
    /// Its BFD lives on when its control plane does not (C).
    pub control_plane_independent: bool,
    /// When that packet came.
    pub heard: Time,
}

impl Remote {
    fn new(packet: &Packet, now: Time) -> Self {
        Remote {
            state: packet.state,
            diagnostic: packet.diagnostic,
            discriminator: packet.my_discriminator,
            detect_mult: packet.detect_mult,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
            heard: now,
        }
    }
}

/// What is to be told of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// What our packets say about why.
    pub diagnostic: Diagnostic,
    /// Our number for the session.
    pub discriminator: Discriminator,
    /// The peer, unless it was never heard or not for a detection time.
    pub remote: Option<Remote>,
    /// The agreed interval between our packets, before jitter.
    pub transmit_interval: Duration,
    /// How long the peer may be silent; `None` while it is not known.
    pub detection_time: Option<Duration>,
    /// A Poll Sequence of ours runs.
    pub polling: bool,
    /// When and why the session last ceased to be Up; `None` if it never was.
    pub last_loss: Option<Change>,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    discriminator: Discriminator,
    state: State,
    since: Time,
    diagnostic: Diagnostic,
    remote: Option<Remote>,
    timing: Timing,
    schedule: Schedule,
    /// Our last packet, but for its P and F bits.
    said: Option<Packet>,
    last_loss: Option<Change>,
    sent: u64,
    received: u64,
}

impl State {
    /// Our next state when the peer says that it is in `received` (RFC 5880 §6.2, §6.8.6).
    pub const fn after(self, received: State) -> State {
        match (self, received) {
            (State::AdminDown, _) => State::AdminDown,
            (_, State::AdminDown) => State::Down,
            (State::Down, State::Down) => State::Init,
            (State::Down, State::Init) => State::Up,
            (State::Down, State::Up) => State::Down,
            (State::Init, State::Down) => State::Init,
            (State::Init, State::Init | State::Up) => State::Up,
            (State::Up, State::Down) => State::Down,
            (State::Up, State::Init | State::Up) => State::Up,
        }
    }
}

impl Session {
    /// A session in state Down, or AdminDown if it is not enabled; wants [`Event::Timer`] at once.
    ///
    /// `discriminator` differs from those of all other sessions of this system. `seed` is for the
    /// jitter of its packets: any number, another one at each start.
    pub fn new(config: Config, discriminator: Discriminator, seed: u64, now: Time) -> Self {
        let (state, diagnostic) = if config.enabled {
            (State::Down, Diagnostic::NONE)
        } else {
            (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN)
        };
        Session {
            timing: Timing::new(wanted(&config, state)),
            schedule: Schedule::new(seed, now),
            config,
            discriminator,
            state,
            since: now,
            diagnostic,
            remote: None,
            said: None,
            last_loss: None,
            sent: 0,
            received: 0,
        }
    }

    /// Takes one event; `now` never goes back. A packet that came before `now` is handed in before
    /// the timer is, or a driver that was late would take its own sleep for the peer's.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut answer_poll = false;
        match event {
            Event::Received(packet) => {
                self.receive(&packet, now, &mut actions);
                answer_poll = packet.poll && self.state != State::AdminDown;
            }
            Event::Timer => self.expire(now, &mut actions),
            Event::Configure(config) => self.configure(config, now, &mut actions),
            Event::PathDown => {
                if matches!(self.state, State::Init | State::Up) {
                    self.change(State::Down, Reason::PathDown, now, &mut actions);
                }
            }
        }
        self.timing
            .state(wanted(&self.config, self.state), self.state == State::Up);
        if self.remote.is_none() {
            self.timing.abandon_poll();
        }
        self.transmit(answer_poll, now, &mut actions);
        actions
    }

    /// When [`Event::Timer`] is due, unless another event comes first; `None` if never. After the
    /// timer was handled, always later than its `now`.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.transmit_due()
            .into_iter()
            .chain(self.detection_due())
            .min()
    }

    /// What is configured.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Everything worth telling.
    pub fn status(&self) -> Status {
        Status {
            state: self.state,
            since: self.since,
            diagnostic: self.diagnostic,
            discriminator: self.discriminator,
            remote: self.remote,
            transmit_interval: self.transmit_interval().as_duration(),
            detection_time: self.detection_time(),
            polling: self.timing.is_polling(),
            last_loss: self.last_loss,
            sent: self.sent,
            received: self.received,
        }
    }

    /// How long the peer waits for a packet of ours before it gives us up; `None` while the peer is
    /// not known.
    pub fn remote_detection_time(&self) -> Option<Duration> {
        let interval = self.transmit_interval().as_duration();
        self.remote
            .map(|_| interval * u32::from(self.config.detect_mult.get()))
    }

    /// RFC 5880 §6.8.6, from where the session has been selected.
    fn receive(&mut self, packet: &Packet, now: Time, actions: &mut Vec<Action>) {
        self.received += 1;
        self.remote = Some(Remote::new(packet, now));
        if packet.is_final {
            self.timing.finish_poll();
        }
        let to = self.state.after(packet.state);
        if to != self.state {
            let reason = match (to, packet.state) {
                (State::Down, State::AdminDown) => Reason::NeighborAdminDown,
                (State::Down, _) => Reason::NeighborDown(packet.diagnostic),
                _ => Reason::Handshake,
            };
            self.change(to, reason, now, actions);
        }
    }

    /// RFC 5880 §6.8.4; and §6.8.1: a peer that is silent for so long is forgotten, in any state.
    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.detection_due().is_none_or(|due| now < due) {
            return;
        }
        if matches!(self.state, State::Init | State::Up) {
            self.change(State::Down, Reason::DetectionTimeExpired, now, actions);
        }
        self.remote = None;
    }

    fn configure(&mut self, config: Config, now: Time, actions: &mut Vec<Action>) {
        self.config = config;
        match (config.enabled, self.state) {
            (true, State::AdminDown) => self.change(State::Down, Reason::Enabled, now, actions),
            (true, _) | (false, State::AdminDown) => {}
            (false, _) => self.change(State::AdminDown, Reason::Disabled, now, actions),
        }
    }

    fn change(&mut self, to: State, reason: Reason, now: Time, actions: &mut Vec<Action>) {
        let change = Change {
            at: now,
            from: self.state,
            to,
            reason,
            control_plane_independent: self.config.control_plane_independent,
            peer_control_plane_independent: self
                .remote
                .is_some_and(|remote| remote.control_plane_independent),
        };
        if self.state == State::Up {
            self.last_loss = Some(change);
        }
        if to != State::Init {
            // In Init the peer may still want to know why the session failed.
            self.diagnostic = reason.diagnostic();
        }
        self.state = to;
        self.since = now;
        actions.push(Action::Changed(change));
    }

    /// RFC 5880 §6.8.7: a Final when asked for, the periodic packet when due, and otherwise one out
    /// of turn when we have something new to say.
    fn transmit(&mut self, answer_poll: bool, now: Time, actions: &mut Vec<Action>) {
        if self.is_silent() {
            return;
        }
        let packet = self.packet();
        if answer_poll && self.schedule.take_extra(now) {
            self.send(
                Packet {
                    is_final: true,
                    ..packet
                },
                actions,
            );
        }
        let due = self.transmit_due().is_some_and(|due| due <= now);
        if due {
            self.schedule.sent_periodic(now);
        }
        if due || (self.said != Some(packet) && self.schedule.take_extra(now)) {
            self.send(
                Packet {
                    poll: self.timing.is_polling(),
                    ..packet
                },
                actions,
            );
        }
    }

    fn send(&mut self, packet: Packet, actions: &mut Vec<Action>) {
        self.sent += 1;
        self.said = Some(Packet {
            poll: false,
            is_final: false,
            ..packet
        });
        actions.push(Action::Send(packet));
    }

    /// What we have to say now, without P and F.
    fn packet(&self) -> Packet {
        let intervals = self.timing.stated();
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            is_final: false,
            control_plane_independent: self.config.control_plane_independent,
            demand: false,
            detect_mult: self.config.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: intervals.desired_min_tx,
            required_min_rx: intervals.required_min_rx,
            required_min_echo_rx: Micros(0),
            authentication: None,
        }
    }

    /// A passive session that has not been spoken to sends nothing at all.
    fn is_silent(&self) -> bool {
        self.config.role == Role::Passive && self.remote.is_none()
    }

    /// When the next periodic packet is due; `None` while there must be none (RFC 5880 §6.8.7).
    fn transmit_due(&self) -> Option<Time> {
        let unwanted = self.remote.is_some_and(|remote| {
            let demand = remote.demand && self.state == State::Up && remote.state == State::Up;
            remote.required_min_rx == Micros(0) || (demand && !self.timing.is_polling())
        });
        (!unwanted && !self.is_silent()).then(|| {
            self.schedule
                .due(self.transmit_interval(), self.config.detect_mult)
        })
    }

    /// RFC 5880 §6.8.2.
    fn transmit_interval(&self) -> Micros {
        let required = self
            .remote
            .map_or(Micros(0), |remote| remote.required_min_rx);
        self.timing.in_use().desired_min_tx.max(required)
    }

    fn detection_due(&self) -> Option<Time> {
        Some(self.remote?.heard + self.detection_time()?)
    }

    /// RFC 5880 §6.8.4, asynchronous mode.
    fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        let interval = self
            .timing
            .in_use()
            .required_min_rx
            .max(remote.desired_min_tx);
        Some(interval.as_duration() * u32::from(remote.detect_mult.get()))
    }
}

/// What we state in a state: slowly unless Up.
fn wanted(config: &Config, state: State) -> Intervals {
    let desired = config.desired_min_tx.micros();
    Intervals {
        desired_min_tx: if state == State::Up {
            desired
        } else {
            desired.max(SLOW)
        },
        required_min_rx: config.required_min_rx.micros(),
    }
}
