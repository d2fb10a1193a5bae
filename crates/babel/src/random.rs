//! Numbers that come from a secret: the same secret, the same run, and nobody else can tell the next one.

use ring::hmac;

/// HMAC-SHA256 of a counter.
#[derive(Clone, Debug)]
pub struct Random {
    key: hmac::Key,
    count: u64,
}

impl Random {
    pub fn new(seed: &[u8; 32]) -> Random {
        Random {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            count: 0,
        }
    }

    /// Sixteen octets that nobody can guess.
    pub fn octets(&mut self) -> [u8; 16] {
        self.count += 1;
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        let mut octets = [0; 16];
        octets.copy_from_slice(&tag.as_ref()[..16]);
        octets
    }

    /// A number up to and with `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        let number = u128::from_be_bytes(self.octets()) % (u128::from(most) + 1);
        u64::try_from(number).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_run() {
        let run = |seed| {
            let mut random = Random::new(&[seed; 32]);
            [random.octets(), random.octets()]
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let [one, other] = run(1);
        assert_ne!(one, other);
    }

    #[test]
    fn numbers_stay_within_their_bound() {
        let mut random = Random::new(&[7; 32]);
        let drawn: Vec<u64> = (0..200).map(|_| random.up_to(2)).collect();
        for number in 0..=2 {
            assert!(drawn.contains(&number), "{number}");
        }
        assert!(drawn.iter().all(|number| *number <= 2));
    }
}
