//! The BFD Control packet: a typed codec (RFC 5880 §4).
//!
//! It knows the bytes and what RFC 5880 §6.8.6 refuses by looking at the packet alone, nothing of
//! sessions. What [`Packet::decode`] accepts, [`Packet::encode`] writes again with the same meaning;
//! decoding never panics, whatever the bytes are.

mod auth;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU8, num::NonZeroU32, time::Duration};

use thiserror::Error;

pub use auth::{Authentication, Password, PasswordError};

/// Octets of the mandatory section, and so the length of every packet without authentication.
pub const MANDATORY_LEN: usize = 24;

const VERSION: u8 = 1;
const POLL: u8 = 0b10_0000;
const FINAL: u8 = 0b01_0000;
const CONTROL_PLANE_INDEPENDENT: u8 = 0b00_1000;
const AUTHENTICATION_PRESENT: u8 = 0b00_0100;
const DEMAND: u8 = 0b00_0010;
const MULTIPOINT: u8 = 0b00_0001;

/// The state of a session, as a system has it and says it (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Switched off by an administrator, which says nothing about the path.
    AdminDown,
    /// No agreement with the peer; the path may be dead.
    Down,
    /// The peer is heard, but does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    /// All four, in the order of their numbers.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    const fn from_flags(flags: u8) -> State {
        match flags >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    const fn to_flags(self) -> u8 {
        (self as u8) << 6
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        })
    }
}

/// Why a system last changed its state: five bits (RFC 5880 §4.1); 9 to 31 are reserved and kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// 0.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// 1: nothing came for the detection time.
    pub const CONTROL_DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// 2: the sender's Echo packets did not come back.
    pub const ECHO_FUNCTION_FAILED: Diagnostic = Diagnostic(2);
    /// 3: the other side said Down or AdminDown.
    pub const NEIGHBOR_SIGNALED_SESSION_DOWN: Diagnostic = Diagnostic(3);
    /// 4: the sender lost its forwarding state.
    pub const FORWARDING_PLANE_RESET: Diagnostic = Diagnostic(4);
    /// 5: something outside BFD told the sender that the path is down.
    pub const PATH_DOWN: Diagnostic = Diagnostic(5);
    /// 6: a path behind the sender is down.
    pub const CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(6);
    /// 7: an administrator switched it off.
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);
    /// 8: a path towards the sender is down.
    pub const REVERSE_CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(8);

    /// The lower five bits of `bits`.
    pub const fn from_bits(bits: u8) -> Diagnostic {
        Diagnostic(bits & 0x1f)
    }

    /// The number, 0 to 31.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            reserved => return write!(f, "Reserved ({reserved})"),
        })
    }
}

/// A system's own number for a session; never zero (RFC 5880 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Discriminator(NonZeroU32);

impl Discriminator {
    /// The discriminator with this number; `None` for zero, which on the wire means "not known".
    pub const fn new(number: u32) -> Option<Discriminator> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Discriminator(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Discriminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.get())
    }
}

/// Microseconds, the unit of every interval on the wire: at most 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u32);

impl Micros {
    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.0 as u64)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_duration(), f)
    }
}

/// A BFD Control packet of version 1 (RFC 5880 §4.1). The Multipoint bit is always clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last changed its state.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the receiver must answer at once with F set.
    pub poll: bool,
    /// F: the answer to P.
    pub is_final: bool,
    /// C: the sender's BFD lives on when its control plane does not.
    pub control_plane_independent: bool,
    /// D: once both are Up, the receiver shall stop sending periodically.
    pub demand: bool,
    /// Detect Mult: how many intervals without a packet mean that the sender is lost.
    pub detect_mult: NonZeroU8,
    /// The sender's number for the session.
    pub my_discriminator: Discriminator,
    /// The receiver's number for the session, once the sender has learned it.
    pub your_discriminator: Option<Discriminator>,
    /// The sender would not send more often than this.
    pub desired_min_tx: Micros,
    /// The sender can't take more often than this; zero: nothing periodic at all.
    pub required_min_rx: Micros,
    /// As `required_min_rx`, for Echo packets; zero: the sender does not do Echo.
    pub required_min_echo_rx: Micros,
    /// The authentication section, if there is one (A bit).
    pub authentication: Option<Authentication>,
}

/// Bytes that are no BFD Control packet which a receiver may look at (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Less than the mandatory section arrived.
    #[error("decode BFD packet: {0} octets, less than the mandatory 24")]
    Short(usize),
    /// Not version 1.
    #[error("decode BFD packet: version {0}, not 1")]
    Version(u8),
    /// The Length field says less than the packet's sections need.
    #[error("decode BFD packet: Length {stated} is less than its sections' {needed}")]
    LengthTooSmall {
        /// What the field says.
        stated: u8,
        /// 24, or 26 with the A bit.
        needed: u8,
    },
    /// The Length field says more than what arrived.
    #[error("decode BFD packet: Length {stated}, but only {arrived} octets arrived")]
    LengthTooLarge {
        /// What the field says.
        stated: u8,
        /// Octets of the payload.
        arrived: usize,
    },
    /// Detect Mult is zero.
    #[error("decode BFD packet: Detect Mult is zero")]
    DetectMultZero,
    /// The Multipoint bit is set.
    #[error("decode BFD packet: the Multipoint bit is set")]
    Multipoint,
    /// My Discriminator is zero.
    #[error("decode BFD packet: My Discriminator is zero")]
    MyDiscriminatorZero,
    /// An Auth Type that RFC 5880 §4.1 does not define.
    #[error("decode BFD packet: unknown Auth Type {0}")]
    AuthType(u8),
    /// Auth Len does not fit the type, or reaches beyond the packet.
    #[error("decode BFD packet: Auth Len {len} does not fit Auth Type {kind}")]
    AuthLen {
        /// Auth Type.
        kind: u8,
        /// Auth Len.
        len: u8,
    },
}

impl Packet {
    /// Reads the payload of a UDP datagram; octets behind the packet's own length are ignored.
    ///
    /// # Errors
    ///
    /// What RFC 5880 §6.8.6 tells to discard before a session is selected, in that order, and an
    /// authentication section that does not follow §4.2 to §4.4.
    pub fn decode(payload: &[u8]) -> Result<Packet, DecodeError> {
        let (words, _) = payload.as_chunks::<4>();
        let [[version, flags, mult, length], my, your, tx, rx, echo, ..] = *words else {
            return Err(DecodeError::Short(payload.len()));
        };
        if version >> 5 != VERSION {
            return Err(DecodeError::Version(version >> 5));
        }
        let authenticated = flags & AUTHENTICATION_PRESENT != 0;
        let needed = if authenticated { 26 } else { 24 };
        if length < needed {
            return Err(DecodeError::LengthTooSmall {
                stated: length,
                needed,
            });
        }
        let packet = payload
            .get(..usize::from(length))
            .ok_or(DecodeError::LengthTooLarge {
                stated: length,
                arrived: payload.len(),
            })?;
        let detect_mult = NonZeroU8::new(mult).ok_or(DecodeError::DetectMultZero)?;
        if flags & MULTIPOINT != 0 {
            return Err(DecodeError::Multipoint);
        }
        let discriminator = |octets| Discriminator::new(u32::from_be_bytes(octets));
        let micros = |octets| Micros(u32::from_be_bytes(octets));
        Ok(Packet {
            diagnostic: Diagnostic::from_bits(version),
            state: State::from_flags(flags),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator: discriminator(my).ok_or(DecodeError::MyDiscriminatorZero)?,
            your_discriminator: discriminator(your),
            desired_min_tx: micros(tx),
            required_min_rx: micros(rx),
            required_min_echo_rx: micros(echo),
            authentication: match packet.get(MANDATORY_LEN..) {
                Some(section) if authenticated => Some(Authentication::decode(section)?),
                _ => None,
            },
        })
    }

    /// The packet as the payload of a UDP datagram: 24 octets, and up to 28 of authentication.
    pub fn encode(&self) -> Vec<u8> {
        let section_len = self.authentication.map_or(0, |section| section.len());
        let mut out = Vec::with_capacity(MANDATORY_LEN + usize::from(section_len));
        out.push(VERSION << 5 | self.diagnostic.bits());
        out.push(self.flags());
        out.push(self.detect_mult.get());
        out.push(MANDATORY_LEN as u8 + section_len);
        for word in [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, Discriminator::get),
            self.desired_min_tx.0,
            self.required_min_rx.0,
            self.required_min_echo_rx.0,
        ] {
            out.extend(word.to_be_bytes());
        }
        if let Some(section) = &self.authentication {
            section.encode(&mut out);
        }
        out
    }

    fn flags(&self) -> u8 {
        [
            (self.poll, POLL),
            (self.is_final, FINAL),
            (self.control_plane_independent, CONTROL_PLANE_INDEPENDENT),
            (self.authentication.is_some(), AUTHENTICATION_PRESENT),
            (self.demand, DEMAND),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(self.state.to_flags(), |flags, (_, bit)| flags | bit)
    }
}
