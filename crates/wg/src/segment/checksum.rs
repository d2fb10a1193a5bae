//! The Internet checksum (RFC 1071).

/// A one's complement sum that isn't folded yet, of words in the machine's own order (RFC 1071 §2 (B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of octets that begin at an even place; an odd one at the end is as if a zero followed.
    pub fn of(octets: &[u8]) -> Sum {
        let (words, rest) = octets.as_chunks::<4>();
        let mut sum: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_ne_bytes(last));
        Sum(sum)
    }

    /// With one more word, as its number is.
    pub fn and(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word.to_be()))
    }

    /// With what another sum is of.
    pub const fn with(self, other: Sum) -> Sum {
        Sum(self.0 + other.0)
    }

    /// The sum as 16 bits.
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// What belongs into a checksum's field that was zero in the sum.
    pub const fn complement(self) -> u16 {
        !self.fold()
    }

    /// As [`Sum::complement`] for TCP and UDP: never zero, which in UDP says that there is none.
    pub const fn complement_of_transport(self) -> u16 {
        match self.complement() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slowly(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_rfcs_example() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&octets).fold(), 0xddf2);
        assert_eq!(Sum::of(&octets).complement(), 0x220d);
        assert_eq!(Sum::of(&[0xff, 0xff]).complement_of_transport(), 0xffff);
    }

    proptest! {
        #[test]
        fn it_is_what_a_slow_one_is(octets in prop::collection::vec(any::<u8>(), 0..3_000), word: u16) {
            prop_assert_eq!(Sum::of(&octets).fold(), slowly(&octets));
            let mut longer = word.to_be_bytes().to_vec();
            longer.extend(&octets);
            prop_assert_eq!(Sum::of(&octets).and(word).fold(), slowly(&longer));
            prop_assert_eq!(Sum::of(&octets).with(Sum::default().and(word)).fold(), slowly(&longer));
        }
    }
}
