//! Where letters are written and read: numbers, certificates, what is old and what is forged.
//!
//! Of each correspondent the newest certificate is kept, and which numbers have come. A letter is believed if its writer's certificate counts,
//! signed it, it is for us, and of now: its number has not come before, and either it answers a letter of ours, or its time is
//! near to our clock's.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Envelope, Known, Letter, MAX_DATAGRAM, Said};
use crate::{
    certificate::{Certificate, NodeId, UnixTime},
    key::SigningKey,
    signed::{Malformed, Signed},
    trust::{self, Trust},
};

/// How far clocks may be apart for a letter that answers none, in seconds.
const SKEW_SECS: u64 = 300;
/// Correspondents that are remembered; who has been silent for longest is forgotten.
const MAX_CORRESPONDENTS: usize = 10_000;
/// How many letters back one that was overtaken is still taken.
const WINDOW: u64 = 64;
/// How many letters without a certificate may stay without an answer.
const PATIENCE: u8 = 2;

/// Why a letter is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is none.
    #[error("no letter: {0}")]
    Malformed(#[from] Malformed),
    /// It is for somebody else.
    #[error("it is for {0}, not for us")]
    Astray(NodeId),
    /// It says to be our own.
    #[error("it says to be from us")]
    Own,
    /// Its writer has shown no certificate, then or before.
    #[error("no certificate of {0} is known")]
    Unknown(NodeId),
    /// The certificate is another's.
    #[error("it comes from {from} with the certificate of {of}")]
    Borrowed {
        /// Who writes.
        from: NodeId,
        /// Whose certificate it is.
        of: NodeId,
    },
    /// The certificate does not count.
    #[error("the certificate of {0}: {1}")]
    Certificate(NodeId, trust::Refusal),
    /// The writer did not sign it.
    #[error("{0} did not sign it")]
    Forged(NodeId),
    /// It has come before, or is too old to tell.
    #[error("letter {number} of {from} has come before")]
    Again {
        /// Whose.
        from: NodeId,
        /// Which.
        number: u64,
    },
    /// Its clock and ours differ by too much.
    #[error("the clock of {from} is {secs} s from ours")]
    Clock {
        /// Whose.
        from: NodeId,
        /// By so much.
        secs: u64,
    },
    /// With a certificate it is longer than a datagram may be.
    #[error("a letter of {0} octets does not fit into a datagram")]
    Long(usize),
}

/// What is known of one with whom letters were exchanged.
#[derive(Clone, Debug)]
struct Correspondent {
    certificate: Signed<Certificate>,
    /// The highest number that came, and which of those before it did.
    highest: u64,
    came: u64,
    /// Whether it has answered a letter with our present certificate.
    has_ours: bool,
    /// Letters to it since it answered one.
    unanswered: u8,
    heard: UnixTime,
}

/// A node's.
#[derive(Debug)]
pub struct Desk {
    own: Signed<Certificate>,
    key: SigningKey,
    /// Of the last letter that was written, and what the first came after.
    number: u64,
    first: u64,
    correspondents: BTreeMap<NodeId, Correspondent>,
}

impl Desk {
    /// With a certificate and its key. Numbers begin by the clock, so that after a restart they are greater than before.
    pub fn new(own: Signed<Certificate>, key: SigningKey, now: UnixTime) -> Desk {
        Desk {
            own,
            key,
            number: now.0 << 20,
            first: now.0 << 20,
            correspondents: BTreeMap::new(),
        }
    }

    /// Takes the next certificate of our own.
    pub fn renew(&mut self, own: Signed<Certificate>) {
        self.own = own;
        for correspondent in self.correspondents.values_mut() {
            correspondent.has_ours = false;
        }
    }

    /// Our own certificate.
    pub const fn own(&self) -> &Signed<Certificate> {
        &self.own
    }

    /// Our own number.
    pub const fn node(&self) -> NodeId {
        self.own.body.node
    }

    /// The certificate of a correspondent.
    pub fn certificate(&self, node: NodeId) -> Option<&Signed<Certificate>> {
        let correspondent = self.correspondents.get(&node);
        correspondent.map(|correspondent| &correspondent.certificate)
    }

    /// Certificates of all correspondents; they counted when they were seen last.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let correspondents = self.correspondents.values();
        correspondents.map(|one| &one.certificate.body)
    }

    /// Forgets correspondents whose certificates count no more, and says why: for when the trust has changed, and once a minute, since certificates end.
    /// Tunnels with them are to be closed. Their next certificates, if they show any that count, are taken as ever.
    pub fn cast_out(&mut self, trust: &Trust, now: UnixTime) -> Vec<(NodeId, trust::Refusal)> {
        let correspondents = self.correspondents.iter();
        let out: Vec<_> = correspondents
            .filter_map(|(node, one)| Some((*node, trust.stands(&one.certificate, now).err()?)))
            .collect();
        for (node, _) in &out {
            self.correspondents.remove(node);
        }
        out
    }

    /// Writes a letter: gives its number, and its octets.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn write(
        &mut self,
        to: Option<NodeId>,
        answers: Option<u64>,
        known: Known,
        said: Said,
        now: UnixTime,
    ) -> Result<(u64, Vec<u8>), Refusal> {
        self.number += 1;
        let letter = Letter {
            network: self.own.body.network,
            from: self.node(),
            to,
            at: now,
            number: self.number,
            answers,
            known,
            said,
        };
        let correspondent = to.and_then(|to| self.correspondents.get_mut(&to));
        // Who does not answer may have forgotten us.
        let has_ours = correspondent.is_some_and(|one| {
            one.unanswered = one.unanswered.saturating_add(1);
            one.has_ours && one.unanswered <= PATIENCE
        });
        let envelope = Envelope {
            certificate: (!has_ours).then(|| self.own.clone()),
            letter: Signed::sign(letter, &self.key),
        };
        let octets = envelope.encode();
        match octets.len() {
            len if len > MAX_DATAGRAM => Err(Refusal::Long(len)),
            _ => Ok((self.number, octets)),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is not to be believed, and nothing has changed by it.
    pub fn read(&mut self, octets: &[u8], trust: &Trust, now: UnixTime) -> Result<Letter, Refusal> {
        let envelope = Envelope::decode(octets)?;
        let letter = &envelope.letter.body;
        let from = letter.from;
        if let Some(to) = letter.to.filter(|to| *to != self.node()) {
            return Err(Refusal::Astray(to));
        }
        if from == self.node() {
            return Err(Refusal::Own);
        }
        let known = self.correspondents.get(&from);
        let shown = envelope.certificate.as_ref();
        let certificate = shown.or(known.map(|known| &known.certificate));
        let certificate = certificate.ok_or(Refusal::Unknown(from))?;
        self.judge(&envelope, certificate, trust, now)?;
        let (mut highest, mut came) = known.map_or((0, 0), |known| (known.highest, known.came));
        if !is_new(letter.number, &mut highest, &mut came) {
            let number = letter.number;
            return Err(Refusal::Again { from, number });
        }
        let is_answer = self.is_answer(letter);
        let newest = known.map(|known| &known.certificate);
        let newest = newest.filter(|held| held.body.serial > certificate.body.serial);
        let correspondent = Correspondent {
            certificate: newest.unwrap_or(certificate).clone(),
            highest,
            came,
            // Who begins by showing its own may have begun anew, and have forgotten ours.
            has_ours: is_answer || shown.is_none() && known.is_some_and(|known| known.has_ours),
            unanswered: if is_answer {
                0
            } else {
                known.map_or(0, |known| known.unanswered)
            },
            heard: now,
        };
        self.keep(from, correspondent);
        Ok(envelope.letter.body)
    }

    /// Whether it answers a letter that we have written: then its writer has our certificate, and it is of now.
    const fn is_answer(&self, letter: &Letter) -> bool {
        match letter.answers {
            Some(number) => self.first < number && number <= self.number,
            None => false,
        }
    }

    fn judge(
        &self,
        envelope: &Envelope,
        certificate: &Signed<Certificate>,
        trust: &Trust,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let letter = &envelope.letter.body;
        let (from, of) = (letter.from, certificate.body.node);
        if from != of || letter.network != certificate.body.network {
            return Err(Refusal::Borrowed { from, of });
        }
        let secs = letter.at.since(now).max(now.since(letter.at));
        if secs > SKEW_SECS && !self.is_answer(letter) {
            return Err(Refusal::Clock { from, secs });
        }
        let counts = trust.verify(certificate, now);
        counts.map_err(|refusal| Refusal::Certificate(from, refusal))?;
        match envelope.letter.is_by(&certificate.body.key) {
            true => Ok(()),
            false => Err(Refusal::Forged(from)),
        }
    }

    fn keep(&mut self, node: NodeId, correspondent: Correspondent) {
        let is_full = self.correspondents.len() >= MAX_CORRESPONDENTS;
        if is_full && !self.correspondents.contains_key(&node) {
            let silent = self.correspondents.iter().min_by_key(|(_, one)| one.heard);
            if let Some(silent) = silent.map(|(node, _)| *node) {
                self.correspondents.remove(&silent);
            }
        }
        self.correspondents.insert(node, correspondent);
    }
}

/// Whether a number has not come; notes that it has.
fn is_new(number: u64, highest: &mut u64, came: &mut u64) -> bool {
    if number > *highest {
        let ahead = number - *highest;
        let shift = u32::try_from(ahead).ok();
        *came = shift.and_then(|shift| came.checked_shl(shift)).unwrap_or(0) | 1;
        *highest = number;
        return true;
    }
    let behind = *highest - number;
    if behind >= WINDOW || *came & (1 << behind) != 0 {
        return false;
    }
    *came |= 1 << behind;
    true
}
