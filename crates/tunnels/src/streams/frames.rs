//! Datagrams in a stream: the length of each in two octets, and then the datagram.

/// Octets of a datagram at most: the largest packet of a tunnel, sealed.
pub const MAX_FRAME: usize = 9_100;
const HEADER: usize = 2;

/// A length that no datagram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} octets in a stream")]
pub struct FrameError(usize);

/// Puts a datagram behind others, if it is one.
pub fn push(to: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(len) = u16::try_from(datagram.len()) else {
        return false;
    };
    if len == 0 || datagram.len() > MAX_FRAME {
        return false;
    }
    to.extend_from_slice(&len.to_be_bytes());
    to.extend_from_slice(datagram);
    true
}

/// What came of a stream, until it is a whole datagram.
#[derive(Debug, Default)]
pub struct Frames {
    came: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// More has come.
    pub fn push(&mut self, octets: &[u8]) {
        self.came.drain(..std::mem::take(&mut self.taken));
        self.came.extend_from_slice(octets);
    }

    /// The next datagram; nothing until more has come.
    ///
    /// # Errors
    ///
    /// Nothing after this can be understood.
    pub fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = self.came.get(self.taken..).unwrap_or_default();
        let Some((len, rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*len));
        if !(1..=MAX_FRAME).contains(&len) {
            return Err(FrameError(len));
        }
        let frame = rest.get(..len);
        if frame.is_some() {
            self.taken += HEADER + len;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_empty_or_too_long_is_no_datagram() {
        let mut octets = Vec::new();
        assert!(!push(&mut octets, &[]) && !push(&mut octets, &[0; MAX_FRAME + 1]));
        assert!(!push(&mut octets, &[0; 70_000]) && octets.is_empty());
        assert!(push(&mut octets, &[7; MAX_FRAME]));
        assert_eq!(octets[..3], [0x23, 0x8c, 7]);
        let refused = |octets: &[u8]| {
            let mut frames = Frames::default();
            frames.push(octets);
            frames.next().map(|frame| frame.map(<[u8]>::to_vec))
        };
        assert_eq!(refused(&[0, 0]), Err(FrameError(0)));
        assert_eq!(refused(&[0x23, 0x8d]), Err(FrameError(MAX_FRAME + 1)));
        assert_eq!(refused(&[0x23]), Ok(None));
        assert_eq!(refused(&octets), Ok(Some(vec![7; MAX_FRAME])));
    }

    proptest! {
        #[test]
        fn datagrams_come_as_they_went_however_the_stream_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3_000), 0..20),
            piece in 1..5_000_usize,
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                prop_assert!(push(&mut stream, datagram));
            }
            let (mut frames, mut came) = (Frames::default(), Vec::new());
            for octets in stream.chunks(piece) {
                frames.push(octets);
                while let Some(frame) = frames.next().unwrap() {
                    came.push(frame.to_vec());
                }
                prop_assert!(frames.came.len() - frames.taken < 2 + MAX_FRAME);
            }
            prop_assert_eq!(came, datagrams);
        }
    }
}
