//! Whatever clients of sites send first: no panic, and more of it never changes what was understood.

#![no_main]

use hextet_proxy::{MAX_HEAD, Reading, hello, http};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = &input[..input.len().min(MAX_HEAD)];
    for read in [hello::read, http::read] {
        let understood = read(whole);
        for end in [whole.len() / 2, whole.len() / 3] {
            let before = read(&whole[..end]);
            assert!(
                before == Reading::More || before == understood,
                "{before:?}, then {understood:?}"
            );
        }
    }
});
