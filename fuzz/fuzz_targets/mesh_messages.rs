//! What nodes and registries of a mesh sign, and invitations: no panic, and what was read is written the same.

#![no_main]

use hextet_mesh::{
    certificate::Certificate,
    issuers::Issuers,
    key::SigningKey,
    parameters::Parameters,
    request::{Accession, Enrolment, Pull, Renewal},
    revocation::Revocations,
    signed::{Body, Signed},
    token::Invitation,
    trust::Trust,
};
use libfuzzer_sys::fuzz_target;

fn read<B: Body>(octets: &[u8]) -> Option<Signed<B>> {
    let read = Signed::<B>::decode(octets).ok()?;
    assert_eq!(read.encode(), octets);
    assert!(octets.len() <= B::MAX_LEN);
    Some(read)
}

fuzz_target!(|octets: &[u8]| {
    let Some((kind, octets)) = octets.split_first() else {
        return;
    };
    match kind % 9 {
        0 => {
            if let Some(certificate) = read::<Certificate>(octets) {
                assert!(certificate.body.renew_at() <= certificate.body.not_after);
            }
        }
        1 => drop(read::<Issuers>(octets)),
        2 => {
            if let Some(parameters) = read::<Parameters>(octets) {
                let root = SigningKey::from_seed(&[1; 32]).expect("a seed").public();
                assert!(Trust::new(root, parameters).is_err());
            }
        }
        3 => drop(read::<Revocations>(octets)),
        4 => {
            if let Some(enrolment) = read::<Enrolment>(octets) {
                let _ = enrolment.is_by_its_key();
            }
        }
        5 => drop(read::<Renewal>(octets)),
        6 => {
            if let Some(accession) = read::<Accession>(octets) {
                let _ = accession.is_by_its_key();
            }
        }
        7 => drop(read::<Pull>(octets)),
        _ => {
            if let Ok(text) = std::str::from_utf8(octets)
                && let Ok(invitation) = text.parse::<Invitation>()
            {
                assert_eq!(invitation.text(), text);
            }
        }
    }
});
