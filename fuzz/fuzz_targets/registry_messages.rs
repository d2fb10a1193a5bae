//! What strangers send to a registry, and its configuration: no panic, and what was read, written and read again, is the same.

#![no_main]

use hextet_mesh::{certificate::Certificate, letter::Presence, request::Enrolment};
use hextet_registry::{
    config::Config,
    mail::mailbox,
    message::{
        EnrolRequest, InviteRequest, Network, ParametersShown, PresenceRequest, RenewRequest,
        TokenRequest,
    },
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn read<T: Serialize + DeserializeOwned>(octets: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(octets).ok()?;
    let written = serde_json::to_vec(&read).expect("JSON");
    let again: T = serde_json::from_slice(&written).expect("read again");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    Some(read)
}

fuzz_target!(|octets: &[u8]| {
    let Some((kind, octets)) = octets.split_first() else {
        return;
    };
    match kind % 8 {
        0 => {
            if let Some(request) = read::<EnrolRequest>(octets) {
                let _ = request.enrolment.read::<Enrolment>();
            }
        }
        1 => {
            if let Some(request) = read::<RenewRequest>(octets) {
                let _ = request.certificate.read::<Certificate>();
            }
        }
        2 => {
            if let Some(request) = read::<InviteRequest>(octets)
                && let Ok(mailbox) = mailbox(&request.email)
            {
                assert!(!mailbox.to_string().contains(['\r', '\n']));
            }
        }
        3 => drop(read::<Network>(octets)),
        4 => drop(read::<ParametersShown>(octets)),
        5 => drop(read::<TokenRequest>(octets)),
        6 => {
            if let Some(request) = read::<PresenceRequest>(octets) {
                let _ = request.presence.read::<Presence>();
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(octets) {
                let _ = Config::parse(text);
            }
        }
    }
});
