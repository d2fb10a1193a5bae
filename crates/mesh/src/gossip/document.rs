//! What is told from node to node: parameters, and each issuing key's list of revocations, as they were signed.

use ring::digest::{SHA256, digest};

use crate::{
    issuers::MAX_KEYS,
    key::KeyId,
    letter::Known,
    parameters::Parameters,
    revocation::Revocations,
    signed::{Body, Malformed, Signed},
    trust::{Refusal, Trust},
};

/// Documents of a network: the parameters, and a list of each issuing key.
pub const MAX_DOCUMENTS: usize = 1 + MAX_KEYS;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    /// The parameters, and in them who issues certificates.
    Parameters,
    /// What this key has revoked.
    Revocations(KeyId),
}

impl Document {
    /// Octets in the longest.
    pub const fn max_len(self) -> usize {
        match self {
            Document::Parameters => Parameters::MAX_LEN,
            Document::Revocations(_) => Revocations::MAX_LEN,
        }
    }
}

/// Which of two is the newer one: all nodes keep the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The version of the issuers; 0 of a list.
    pub issuers: u32,
    /// The version.
    pub version: u64,
    /// The begin of the signature, for two that have one version.
    pub tie: u64,
}

/// SHA-256 of a document's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of these.
    pub fn of(octets: &[u8]) -> Digest {
        let digest = digest(&SHA256, octets);
        Digest(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// A document that somebody says to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub document: Document,
    /// How new.
    pub rank: Rank,
    /// How many octets.
    pub len: u32,
    /// Of them.
    pub digest: Digest,
}

/// A document itself, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paper {
    /// The parameters.
    Parameters(Box<Signed<Parameters>>),
    /// A list.
    Revocations(Signed<Revocations>),
}

impl Paper {
    /// Reads one of which it was said what it is.
    ///
    /// # Errors
    ///
    /// It is no such document.
    pub fn decode(document: Document, octets: &[u8]) -> Result<Paper, Malformed> {
        let paper = match document {
            Document::Parameters => Paper::Parameters(Box::new(Signed::decode(octets)?)),
            Document::Revocations(_) => Paper::Revocations(Signed::decode(octets)?),
        };
        match paper.document() == document {
            true => Ok(paper),
            false => Err(Malformed::Value("the signer")),
        }
    }

    /// What it is.
    pub const fn document(&self) -> Document {
        match self {
            Paper::Parameters(_) => Document::Parameters,
            Paper::Revocations(signed) => Document::Revocations(signed.signer),
        }
    }

    /// How new it is.
    pub fn rank(&self) -> Rank {
        match self {
            Paper::Parameters(signed) => rank_of_parameters(signed),
            Paper::Revocations(signed) => rank_of_revocations(signed),
        }
    }
}

fn rank_of_parameters(signed: &Signed<Parameters>) -> Rank {
    Rank {
        issuers: signed.body.issuers.body.version,
        version: signed.body.version,
        tie: tie(&signed.signature),
    }
}

fn rank_of_revocations(signed: &Signed<Revocations>) -> Rank {
    Rank {
        issuers: 0,
        version: signed.body.version,
        tie: tie(&signed.signature),
    }
}

fn tie(signature: &[u8]) -> u64 {
    let head = signature.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(head)
}

/// A document that is held, in octets as others ask for it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub holding: Holding,
    pub octets: Vec<u8>,
}

impl Held {
    fn new(document: Document, rank: Rank, octets: Vec<u8>) -> Held {
        let holding = Holding {
            document,
            rank,
            len: u32::try_from(octets.len()).unwrap_or(u32::MAX),
            digest: Digest::of(&octets),
        };
        Held { holding, octets }
    }
}

/// All that a network's trust consists of, ascending.
pub(super) fn held(trust: &Trust) -> Vec<Held> {
    let parameters = trust.parameters();
    let rank = rank_of_parameters(parameters);
    let mut held = vec![Held::new(Document::Parameters, rank, parameters.encode())];
    held.extend(trust.revocations().map(|list| {
        let document = Document::Revocations(list.signer);
        Held::new(document, rank_of_revocations(list), list.encode())
    }));
    held
}

/// What a letter says of it: alike if all of it is, and, but for 2⁻⁶⁴, only then. A sum of versions would hide that each of two nodes has a list
/// that the other lacks.
pub(super) fn known(held: &[Held]) -> Known {
    let digests = held.iter().flat_map(|one| one.holding.digest.0);
    let all = Digest::of(&digests.collect::<Vec<u8>>());
    Known(u64::from_be_bytes(
        all.0.first_chunk().copied().unwrap_or_default(),
    ))
}

/// Hands it to the trust; says whether it was new.
pub(super) fn offer(trust: &mut Trust, paper: Paper) -> Result<bool, Refusal> {
    match paper {
        Paper::Parameters(signed) => trust.offer_parameters(*signed),
        Paper::Revocations(signed) => trust.offer_revocations(signed),
    }
}
