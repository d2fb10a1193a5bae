//! A letter from the network: no panic, what is read is written the same, and nobody is believed who has not signed.

#![no_main]

use hextet_mesh::letter::{Envelope, Letter, MAX_DATAGRAM};
use hextet_mesh::signed::Signed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(letter) = Signed::<Letter>::decode(octets) {
        assert_eq!(letter.encode(), octets);
    }
    let Ok(envelope) = Envelope::decode(octets) else {
        return;
    };
    assert!(octets.len() <= MAX_DATAGRAM);
    assert_eq!(envelope.encode(), octets);
    if let Some(certificate) = envelope.certificate {
        let key = certificate.body.key;
        assert!(!envelope.letter.is_by(&key) || envelope.letter.signer == key.id());
    }
});
