//! What administrators and hosts are handed: join tokens, certificates, requests to the control sockets; and what
//! workloads say of themselves on their links. No
//! panic, and what was read is read the same after it was written.
//!
//! The first octet says which.

#![no_main]

use hextet_agent::fuzzing as agent;
use hextet_server::fuzzing as server;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [which, octets @ ..] = input else { return };
    match which % 6 {
        0 => agent::read_join_token(&String::from_utf8_lossy(octets)),
        1 => agent::read_certificate(octets),
        2 => agent::read_control_request(octets),
        3 => server::read_certificate(octets),
        4 => server::read_token_request(octets),
        _ => agent::read_frame(octets),
    }
});
