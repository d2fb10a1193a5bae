//! One document on its way from one node: which of its pieces are here, and which are asked for.
//!
//! Nothing is taken that was not asked for, and memory is held for what is asked for only.

use std::time::Duration;

use hextet_types::Time;

use super::document::{Digest, Holding};
use crate::{
    certificate::NodeId,
    letter::{MAX_PIECE, Said},
};

/// Pieces that are asked for at one time.
const WINDOW: usize = 32;
/// Octets of a piece that fits beside the longest certificate.
const LEAST_PIECE: usize = 128;
/// How often the first piece is asked for before smaller ones are.
const PATIENCE: u32 = 3;
/// An answer is waited for so long before a round trip is known; twice as long after three in vain.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// Whoever gives nothing for so long is given up.
const STALL: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Missing,
    Asked { at: Time, tries: u32 },
    Here,
}

/// One.
#[derive(Debug)]
pub struct Fetch {
    pub from: NodeId,
    pub holding: Holding,
    pub began: Time,
    /// When the last piece came.
    progress: Time,
    octets: Vec<u8>,
    size: usize,
    pieces: Vec<Piece>,
    /// Smoothed; of pieces that came at the first try.
    pub round_trip: Option<Duration>,
}

impl Fetch {
    /// With the round trip of the last one from there. The holding's length is within the document's bound.
    pub fn new(from: NodeId, holding: Holding, round_trip: Option<Duration>, now: Time) -> Fetch {
        let len = usize::try_from(holding.len).unwrap_or(0);
        let len = len.min(holding.document.max_len());
        let mut fetch = Fetch {
            from,
            holding,
            began: now,
            progress: now,
            octets: vec![0; len],
            size: MAX_PIECE,
            pieces: Vec::new(),
            round_trip,
        };
        fetch.cut(MAX_PIECE);
        fetch
    }

    fn cut(&mut self, size: usize) {
        self.size = size;
        self.pieces = vec![Piece::Missing; self.octets.len().div_ceil(size)];
    }

    /// Whether nothing has come for too long.
    pub fn is_stalled(&self, now: Time) -> bool {
        now - self.progress >= STALL
    }

    /// How long nothing has come.
    pub fn idle(&self, now: Time) -> Duration {
        now - self.progress
    }

    /// What to ask for now.
    pub fn asks(&mut self, now: Time) -> Vec<Said> {
        self.cut_smaller();
        let mut free = WINDOW.saturating_sub(self.asked());
        let wait = |tries| self.wait(tries);
        let due: Vec<bool> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Missing if free > 0 => {
                    free -= 1;
                    true
                }
                Piece::Asked { at, tries } => *at + wait(*tries) <= now,
                _ => false,
            })
            .collect();
        let mut asks = Vec::new();
        for (index, due) in due.into_iter().enumerate() {
            if due {
                asks.extend(self.ask(index, now));
            }
        }
        asks
    }

    fn ask(&mut self, index: usize, now: Time) -> Option<Said> {
        let offset = index * self.size;
        let len = self.size.min(self.octets.len().checked_sub(offset)?);
        let piece = self.pieces.get_mut(index)?;
        let tries = match piece {
            Piece::Asked { tries, .. } => tries.saturating_add(1),
            _ => 1,
        };
        *piece = Piece::Asked { at: now, tries };
        Some(Said::Wanted {
            digest: self.holding.digest,
            offset: u32::try_from(offset).ok()?,
            len: u16::try_from(len).ok()?,
        })
    }

    /// Long pieces do not fit beside a long certificate, and their writer can't send them at all.
    fn cut_smaller(&mut self) {
        let patient =
            matches!(self.pieces.first(), Some(Piece::Asked { tries, .. }) if *tries >= PATIENCE);
        let nothing = !self.pieces.contains(&Piece::Here);
        if patient && nothing && self.size > LEAST_PIECE {
            self.cut(LEAST_PIECE);
        }
    }

    fn asked(&self) -> usize {
        let asked = |piece: &&Piece| matches!(piece, Piece::Asked { .. });
        self.pieces.iter().filter(asked).count()
    }

    fn wait(&self, tries: u32) -> Duration {
        let least = Duration::from_millis(100);
        match self.round_trip {
            Some(time) => (2 * time + least / 2).clamp(least, STALL / 2),
            None => FIRST_WAIT * (1 << (tries / 3).min(3)),
        }
    }

    /// Takes a piece, if it was asked for.
    pub fn take(&mut self, digest: Digest, offset: u32, octets: &[u8], now: Time) {
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        if digest != self.holding.digest || !offset.is_multiple_of(self.size) {
            return;
        }
        let Some(Piece::Asked { at, tries }) = self.pieces.get(offset / self.size).copied() else {
            return;
        };
        let len = self.size.min(self.octets.len().saturating_sub(offset));
        let place = self.octets.get_mut(offset..offset + len);
        let Some(place) = place.filter(|place| place.len() == octets.len()) else {
            return;
        };
        place.copy_from_slice(octets);
        if let Some(piece) = self.pieces.get_mut(offset / self.size) {
            *piece = Piece::Here;
        }
        self.progress = now;
        if tries == 1 {
            let taken = now - at;
            self.round_trip = Some(self.round_trip.map_or(taken, |had| (had * 3 + taken) / 4));
        }
    }

    /// The octets, when all are here.
    pub fn whole(&self) -> Option<&[u8]> {
        let here = self.pieces.iter().all(|piece| *piece == Piece::Here);
        here.then_some(&self.octets)
    }

    /// When something is to be asked for again.
    pub fn next_wakeup(&self) -> Time {
        let again = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Asked { at, tries } => Some(*at + self.wait(*tries)),
            _ => None,
        });
        again.min().unwrap_or(self.began).min(self.progress + STALL)
    }
}
