//! AS_PATH (RFC 4271 §4.3, RFC 6793).

use std::fmt;

use hextet_types::Asn;
use serde::{Serialize, Serializer};

use super::{Reader, put_u16, put_u32, wire::len_u8};

/// The kind of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// 1: unordered; counts as one hop.
    Set,
    /// 2: ordered.
    Sequence,
    /// 3: ordered, within a confederation (RFC 5065); counts as none.
    ConfedSequence,
    /// 4: unordered, within a confederation; counts as none.
    ConfedSet,
}

impl SegmentKind {
    const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            3 => Some(SegmentKind::ConfedSequence),
            4 => Some(SegmentKind::ConfedSet),
            _ => None,
        }
    }

    const fn octet(self) -> u8 {
        match self {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfedSequence => 3,
            SegmentKind::ConfedSet => 4,
        }
    }

    const fn is_confed(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }
}

/// A segment: its kind and 1 to 255 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its kind.
    pub kind: SegmentKind,
    asns: &'a [u32],
}

impl<'a> Segment<'a> {
    /// Its numbers, the nearest first.
    pub fn asns(self) -> impl ExactSizeIterator<Item = Asn> + 'a {
        self.asns.iter().map(|n| Asn(*n))
    }
}

/// The most numbers a segment holds.
const MAX_SEGMENT: usize = 255;

/// A path of autonomous systems in one allocation: for each segment a word with its kind (upper 16
/// bits) and count (lower 16), then its numbers.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath(Box<[u32]>);

impl AsPath {
    /// A path of one sequence (or of none, when there are no numbers).
    pub fn sequence(asns: &[Asn]) -> Self {
        AsPath::from_segments(&[(SegmentKind::Sequence, asns.to_vec())])
    }

    /// A path of these segments; empty ones are left out, long ones cut into several.
    pub fn from_segments(segments: &[(SegmentKind, Vec<Asn>)]) -> Self {
        let mut words = Vec::new();
        for (kind, asns) in segments {
            for part in asns.chunks(MAX_SEGMENT) {
                words.push(header(*kind, part.len()));
                words.extend(part.iter().map(|a| a.0));
            }
        }
        AsPath(words.into())
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut words: &[u32] = &self.0;
        std::iter::from_fn(move || {
            let (head, rest) = words.split_first()?;
            let (asns, rest) = rest.split_at_checked((*head & 0xffff) as usize)?;
            words = rest;
            let kind = SegmentKind::from_octet(u8::try_from(*head >> 16).ok()?)?;
            Some(Segment { kind, asns })
        })
    }

    /// Whether it has no segment: the route comes from our own AS.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its length for the decision process: a set is one hop, a confederation's segments are none
    /// (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3).
    pub fn hops(&self) -> usize {
        self.segments().map(hops).sum()
    }

    /// Whether a number is anywhere in it.
    pub fn contains(&self, asn: Asn) -> bool {
        self.segments().any(|s| s.asns.contains(&asn.0))
    }

    /// The AS that sent the route: the first of the first sequence.
    pub fn first(&self) -> Option<Asn> {
        let segment = self.segments().find(|s| !s.kind.is_confed())?;
        match segment.kind {
            SegmentKind::Sequence => segment.asns().next(),
            _ => None,
        }
    }

    /// The AS that the route began in: the last number, unless it ends in a set.
    pub fn origin(&self) -> Option<Asn> {
        let segment = self.segments().last()?;
        match segment.kind {
            SegmentKind::Sequence => segment.asns().last(),
            _ => None,
        }
    }

    /// The path with `asn` put in front `times` times (RFC 4271 §5.1.2).
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: u8) -> AsPath {
        let mut segments: Vec<(SegmentKind, Vec<Asn>)> = self
            .segments()
            .map(|s| (s.kind, s.asns().collect()))
            .collect();
        for _ in 0..times {
            match segments.first_mut() {
                Some((SegmentKind::Sequence, asns)) if asns.len() < MAX_SEGMENT => {
                    asns.insert(0, asn);
                }
                _ => segments.insert(0, (SegmentKind::Sequence, vec![asn])),
            }
        }
        AsPath::from_segments(&segments)
    }

    /// The path without confederation segments, which do not leave a confederation.
    #[must_use]
    pub fn without_confederations(&self) -> AsPath {
        let segments: Vec<_> = self
            .segments()
            .filter(|s| !s.kind.is_confed())
            .map(|s| (s.kind, s.asns().collect()))
            .collect();
        AsPath::from_segments(&segments)
    }

    /// The path that a two-octet speaker's AS_PATH and AS4_PATH make together: as many leading hops
    /// of the former as the latter lacks, then the latter (RFC 6793 §4.2.3). Where both have the same
    /// shape, confederation segments stay where they are.
    #[must_use]
    pub fn merged(&self, as4_path: &AsPath) -> AsPath {
        if let Some(path) = self.with_numbers_of(as4_path) {
            return path;
        }
        let Some(mut missing) = self.hops().checked_sub(as4_path.hops()) else {
            return self.clone();
        };
        let mut segments: Vec<(SegmentKind, Vec<Asn>)> = Vec::new();
        for segment in self.segments() {
            if missing == 0 && !segment.kind.is_confed() {
                break;
            }
            let taken = match segment.kind {
                SegmentKind::Sequence => missing.min(segment.asns.len()),
                _ => segment.asns.len(),
            };
            missing = missing.saturating_sub(hops(segment).min(taken));
            segments.push((segment.kind, segment.asns().take(taken).collect()));
        }
        for segment in as4_path.segments().filter(|s| !s.kind.is_confed()) {
            match segments.last_mut() {
                Some((SegmentKind::Sequence, asns)) if segment.kind == SegmentKind::Sequence => {
                    asns.extend(segment.asns());
                }
                _ => segments.push((segment.kind, segment.asns().collect())),
            }
        }
        AsPath::from_segments(&segments)
    }

    /// The path with the numbers of one that has the same segments, confederations aside.
    fn with_numbers_of(&self, as4_path: &AsPath) -> Option<AsPath> {
        let mut others = as4_path.segments();
        let mut segments = Vec::new();
        for segment in self.segments() {
            let numbers = if segment.kind.is_confed() {
                segment
            } else {
                others.next().filter(|other| {
                    other.kind == segment.kind && other.asns.len() == segment.asns.len()
                })?
            };
            segments.push((segment.kind, numbers.asns().collect()));
        }
        others
            .next()
            .is_none()
            .then(|| AsPath::from_segments(&segments))
    }

    /// Whether some number outside confederations needs four octets.
    pub(crate) fn needs_four_octets(&self) -> bool {
        self.segments()
            .filter(|s| !s.kind.is_confed())
            .any(|s| s.asns.iter().any(|n| *n > u32::from(u16::MAX)))
    }

    /// Reads the value of an AS_PATH or AS4_PATH; `None` when RFC 7606 §7.2 calls it malformed.
    pub(crate) fn decode(value: &[u8], four_octet: bool) -> Option<AsPath> {
        let mut r = Reader::new(value);
        let mut words = Vec::with_capacity(value.len() / if four_octet { 4 } else { 2 } + 1);
        while !r.is_empty() {
            let kind = SegmentKind::from_octet(r.u8()?)?;
            let count = r.u8()?;
            if count == 0 {
                return None;
            }
            words.push(header(kind, usize::from(count)));
            for _ in 0..count {
                words.push(if four_octet {
                    r.u32()?
                } else {
                    u32::from(r.u16()?)
                });
            }
        }
        Some(AsPath(words.into()))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, four_octet: bool) {
        for segment in self.segments() {
            out.extend_from_slice(&[segment.kind.octet(), len_u8(segment.asns.len())]);
            for asn in segment.asns {
                if four_octet {
                    put_u32(out, *asn);
                } else {
                    put_u16(out, u16::try_from(*asn).unwrap_or(23_456));
                }
            }
        }
    }
}

fn header(kind: SegmentKind, count: usize) -> u32 {
    u32::from(kind.octet()) << 16 | u32::from(len_u8(count))
}

fn hops(segment: Segment<'_>) -> usize {
    match segment.kind {
        SegmentKind::Sequence => segment.asns.len(),
        SegmentKind::Set => 1,
        SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            let text: Vec<String> = segment.asns().map(|a| a.to_string()).collect();
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{open}{}{close}", text.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPath({self})")
    }
}

impl Serialize for AsPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(asns: &[u32]) -> (SegmentKind, Vec<Asn>) {
        (
            SegmentKind::Sequence,
            asns.iter().map(|n| Asn(*n)).collect(),
        )
    }

    fn confed(asns: &[u32]) -> (SegmentKind, Vec<Asn>) {
        let (_, asns) = seq(asns);
        (SegmentKind::ConfedSequence, asns)
    }

    fn set(asns: &[u32]) -> (SegmentKind, Vec<Asn>) {
        (SegmentKind::Set, asns.iter().map(|n| Asn(*n)).collect())
    }

    fn path(segments: &[(SegmentKind, Vec<Asn>)]) -> AsPath {
        AsPath::from_segments(segments)
    }

    #[test]
    fn as4_path_takes_the_place_of_as_trans() {
        let cases = [
            // RFC 6793 §4.2.3: leading hops of old speakers are kept.
            (
                path(&[seq(&[100, 23456, 23456, 300])]),
                path(&[seq(&[70000, 80000, 300])]),
                path(&[seq(&[100, 70000, 80000, 300])]),
            ),
            // AS4_PATH longer than AS_PATH is ignored.
            (
                path(&[seq(&[23456])]),
                path(&[seq(&[70000, 80000])]),
                path(&[seq(&[23456])]),
            ),
            (
                path(&[seq(&[100, 23456]), set(&[23456, 5])]),
                path(&[seq(&[70000]), set(&[90000, 5])]),
                path(&[seq(&[100, 70000]), set(&[90000, 5])]),
            ),
            (
                path(&[seq(&[23456]), confed(&[9]), seq(&[23456])]),
                path(&[seq(&[70000]), seq(&[80000])]),
                path(&[seq(&[70000]), confed(&[9]), seq(&[80000])]),
            ),
            (
                path(&[confed(&[9]), seq(&[1, 23456])]),
                path(&[seq(&[70000])]),
                path(&[confed(&[9]), seq(&[1, 70000])]),
            ),
            (
                path(&[set(&[1, 2]), seq(&[23456])]),
                path(&[seq(&[70000])]),
                path(&[set(&[1, 2]), seq(&[70000])]),
            ),
        ];
        for (old, new, merged) in cases {
            assert_eq!(old.merged(&new), merged, "{old} + {new}");
        }
    }

    #[test]
    fn prepending_to_a_full_segment_opens_another() {
        let full = path(&[seq(&[7; 255])]);
        let longer = full.prepended(Asn(8), 2);
        let lens: Vec<_> = longer.segments().map(|s| s.asns().len()).collect();
        assert_eq!(lens, [2, 255]);
        assert_eq!(longer.hops(), 257);
        assert_eq!(longer.first(), Some(Asn(8)));
        assert_eq!(longer.origin(), Some(Asn(7)));
        assert_eq!(AsPath::default().prepended(Asn(1), 1).to_string(), "1");
    }

    #[test]
    fn a_set_is_one_hop_and_a_confederation_none() {
        let p = AsPath::from_segments(&[
            (SegmentKind::ConfedSequence, vec![Asn(65001), Asn(65002)]),
            seq(&[1, 2]),
            set(&[3, 4, 5]),
        ]);
        assert_eq!(p.hops(), 3);
        assert_eq!(p.to_string(), "(65001 65002) 1 2 {3 4 5}");
        assert_eq!(p.without_confederations().to_string(), "1 2 {3 4 5}");
        assert_eq!(p.first(), Some(Asn(1)));
    }

    #[test]
    fn malformed_paths_are_refused() {
        let cases: [&[u8]; 6] = [
            &[2],
            &[2, 0],
            &[5, 1, 0, 1],
            &[0, 1, 0, 1],
            &[2, 2, 0, 1],
            &[2, 1, 0, 1, 2],
        ];
        for value in cases {
            assert_eq!(AsPath::decode(value, false), None, "{value:?}");
        }
        assert_eq!(AsPath::decode(&[], true), Some(AsPath::default()));
    }
}
