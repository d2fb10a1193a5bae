//! A store's content as a server takes it in, told to hosts, and deleted again: no panic, nothing left.
//!
//! The input is a dump.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|dump: &[u8]| {
    if let Ok(image) = hextet_store::read_image(dump) {
        hextet_server::fuzzing::read_store(image);
    }
});
