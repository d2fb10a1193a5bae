//! What agents and the server say to each other, and a plan made of it: no panic, and what was read is read
//! the same after it was written.
//!
//! The first octet says which message it is.

#![no_main]

use std::fmt::Debug;

use hextet_api::agent::{
    IntentMessage, JoinRequest, JoinResponse, Metered, RenewRequest, StatusReport,
};
use hextet_model::{
    intent::Intent,
    plan::{HostConfig, plan},
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|input: &[u8]| {
    let [which, octets @ ..] = input else { return };
    match which % 5 {
        0 => drop(read_again::<JoinRequest>(octets)),
        1 => drop(read_again::<JoinResponse>(octets)),
        2 => drop(read_again::<RenewRequest>(octets)),
        3 => {
            let _ = read_again::<StatusReport>(octets);
            let _ = read_again::<Metered>(octets);
        }
        _ => follow(octets),
    }
});

fn read_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(octets: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(octets).ok()?;
    let Ok(written) = serde_json::to_vec(&read) else {
        panic!("{read:?} can't be written")
    };
    assert_eq!(
        serde_json::from_slice::<T>(&written).ok().as_ref(),
        Some(&read)
    );
    Some(read)
}

/// A stream of lines, as an agent takes it in.
fn follow(octets: &[u8]) {
    let mut intent = Intent::default();
    for line in octets.split(|octet| *octet == b'\n') {
        match read_again(line) {
            Some(IntentMessage::Reset) => intent = Intent::default(),
            Some(IntentMessage::Change(change)) => intent.apply(change),
            Some(IntentMessage::Synced { .. }) | None => {}
        }
    }
    let mut again = Intent::default();
    for change in intent.as_changes() {
        again.apply(change);
    }
    assert_eq!(again, intent);
    let Ok(host) = "host".parse() else {
        panic!("a host's name")
    };
    plan(&intent, &HostConfig::new(host));
}
