//! How round trips change in time.

use std::time::Duration;

use hextet_types::Time;

use crate::{
    chance::{Chance, chance_of},
    map::Map,
};

/// How restless the internet is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// What queues add to a round trip, as a part of it, on average.
    pub queues: f64,
    /// The part of ways between cities that are longer than usual in a period.
    pub detours: f64,
    /// A period.
    pub period: Duration,
}

/// Queues are short and ways stay.
pub const CALM: Weather = Weather {
    queues: 0.03,
    detours: 0.0,
    period: Duration::from_secs(300),
};

/// Queues add a fifth, and a tenth of all ways is 10 to 80 % longer for five minutes, another tenth in the next.
pub const ROUGH: Weather = Weather {
    queues: 0.2,
    detours: 0.1,
    period: Duration::from_secs(300),
};

impl Weather {
    /// A round trip without queues at this time, in microseconds.
    pub fn micros(&self, map: &Map, one: usize, other: usize, now: Time) -> u32 {
        let usual = map.micros(one, other);
        if self.detours <= 0.0 {
            return usual;
        }
        let (a, b) = (map.city[one] as u64, map.city[other] as u64);
        let period = now.as_nanos() / (self.period.as_nanos() as u64).max(1);
        let mut chance = chance_of(&[4, a.min(b), a.max(b), period]);
        if chance.unit() >= self.detours {
            return usual;
        }
        (f64::from(usual) * (1.1 + 0.7 * chance.unit())) as u32
    }

    /// What one probe takes. One in a hundred meets a long queue.
    pub fn probe(
        &self,
        map: &Map,
        (one, other): (usize, usize),
        now: Time,
        chance: &mut Chance,
    ) -> Duration {
        let way = f64::from(self.micros(map, one, other, now));
        let mut queue = chance.exponential(self.queues * way);
        if chance.unit() < 0.01 {
            queue += 2.0 * way;
        }
        Duration::from_micros((way + queue) as u64)
    }
}
