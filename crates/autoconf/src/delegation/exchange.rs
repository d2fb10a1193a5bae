//! One exchange with servers, and when its message is sent again (RFC 8415 §15).

use std::time::Duration;

use hextet_types::Time;

use super::answer::Answer;
use crate::{dhcpv6::message::message_type, random::Random};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Solicit,
    Request,
    Renew,
    Rebind,
    /// A Rebind at a Confirm's pace: whether what is held is this link's (RFC 8415 §18.2.12).
    Confirm,
    Release,
}

/// RFC 8415 §7.6.
struct Pace {
    first: Duration,
    longest: Option<Duration>,
    times: Option<u32>,
    in_all: Option<Duration>,
}

impl Kind {
    pub(super) const fn message_type(self) -> u8 {
        match self {
            Kind::Solicit => message_type::SOLICIT,
            Kind::Request => message_type::REQUEST,
            Kind::Renew => message_type::RENEW,
            Kind::Rebind | Kind::Confirm => message_type::REBIND,
            Kind::Release => message_type::RELEASE,
        }
    }

    const fn pace(self) -> Pace {
        let secs = Duration::from_secs;
        let (first, longest, times, in_all) = match self {
            Kind::Solicit => (1, None, None, None),
            Kind::Request => (1, Some(secs(30)), Some(10), None),
            Kind::Renew | Kind::Rebind => (10, Some(secs(600)), None, None),
            Kind::Confirm => (1, Some(secs(4)), None, Some(secs(10))),
            Kind::Release => (1, Some(secs(4)), Some(4), None),
        };
        Pace {
            first: secs(first),
            longest,
            times,
            in_all,
        }
    }
}

/// An exchange.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) id: [u8; 3],
    /// When the message is sent, or sent again.
    pub(super) next: Time,
    /// The best that a server has offered.
    pub(super) offer: Option<Answer>,
    began: Option<Time>,
    times: u32,
    wait: Duration,
}

impl Exchange {
    pub(super) fn new(kind: Kind, at: Time, random: &mut Random) -> Exchange {
        Exchange {
            kind,
            id: random.octets(),
            next: at,
            offer: None,
            began: None,
            times: 0,
            wait: Duration::ZERO,
        }
    }

    /// Whether the message was sent more than once.
    pub(super) const fn is_repeated(&self) -> bool {
        self.times > 1
    }

    /// Whether it is not sent any more.
    pub(super) fn is_over(&self, now: Time) -> bool {
        let pace = self.kind.pace();
        let since = self.began.map(|began| now.saturating_since(began));
        pace.times.is_some_and(|most| self.times >= most)
            || pace
                .in_all
                .zip(since)
                .is_some_and(|(most, since)| since >= most)
    }

    /// Hundredths of seconds since the first (RFC 8415 §21.9).
    pub(super) fn elapsed(&self, now: Time) -> u16 {
        let since = self
            .began
            .map_or(Duration::ZERO, |began| now.saturating_since(began));
        u16::try_from(since.as_millis() / 10).unwrap_or(u16::MAX)
    }

    /// RFC 8415 §15: twice as long each time, a tenth more or less.
    pub(super) fn sent(&mut self, now: Time, longest_solicitation: Duration, random: &mut Random) {
        let pace = self.kind.pace();
        let longest = pace.longest.unwrap_or(longest_solicitation);
        let about = |random: &mut Random, base: Duration, of: Duration| {
            random.between(base - of / 10, base + of / 10)
        };
        self.wait = match self.times {
            // RFC 8415 §18.2.1: the first wait is long enough for all servers.
            0 if self.kind == Kind::Solicit => {
                random.between(pace.first, pace.first + pace.first / 10)
            }
            0 => about(random, pace.first, pace.first),
            _ => about(random, 2 * self.wait, self.wait),
        };
        if self.wait > longest {
            self.wait = about(random, longest, longest);
        }
        self.times = self.times.saturating_add(1);
        self.began.get_or_insert(now);
        self.next = now + self.wait;
        if let Some((most, began)) = pace.in_all.zip(self.began) {
            self.next = self
                .next
                .min(began + most)
                .max(now + Duration::from_millis(1));
        }
    }
}
