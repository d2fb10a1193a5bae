//! Rows of a store's file: no panic, and what was read is written as it was.
//!
//! The first octet says of which table, the second how long the key is.

#![no_main]

use hextet_store::fuzzing::{read_change, read_key, read_lease};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [table, length, rest @ ..] = input else {
        return;
    };
    let Some((key, row)) = rest.split_at_checked(usize::from(*length)) else {
        return;
    };
    match table % 3 {
        0 => read_key(key, row),
        1 => read_lease(key, row),
        _ => read_change(u64::from(*length), rest),
    }
});
