//! What a mesh's node reads from anybody, from programs and from its operator: no panic; a request written and read again is the same.
//!
//! The first octet says which.

#![no_main]

use hextet_node::{control::Request, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [which, octets @ ..] = input else { return };
    match which % 3 {
        0 => {
            if let [a, b, c, d, octets @ ..] = octets {
                let of = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
                fuzzing::read_answer(octets, (of(a, b), of(c, d)));
            }
        }
        1 => request(octets),
        _ => fuzzing::read_config(&String::from_utf8_lossy(octets)),
    }
});

fn request(octets: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(octets) {
        let again = serde_json::to_vec(&request).expect("a request is written");
        let again: Request = serde_json::from_slice(&again).expect("and read again");
        assert_eq!(again, request);
    }
}
