//! A dump that somebody loads: no panic, whatever it holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|dump: &[u8]| drop(hextet_store::read_image(dump)));
