//! What strangers send to a registry, and its configuration: no panic, and what was read, written and read again, is the same.

#![no_main]

use hextet_mesh::{
    certificate::Certificate,
    letter::Presence,
    request::{Accession, Enrolment, Pull},
};
use hextet_registry::{
    config::Config,
    mail::mailbox,
    message::{
        EnrolRequest, InviteRequest, Network, ParametersShown, PresenceRequest, RenewRequest,
        TokenRequest,
    },
    told::{AccessionAnswer, AccessionRequest, PullAnswer, PullRequest, Removal},
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
    match kind % 13 {
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
        7 => {
            if let Some(request) = read::<AccessionRequest>(octets) {
                let _ = request.accession.read::<Accession>();
            }
        }
        8 => {
            if let Some(request) = read::<PullRequest>(octets) {
                let _ = request.pull.read::<Pull>();
            }
        }
        9 => {
            if let Some(answer) = read::<PullAnswer>(octets) {
                let _ = answer.read();
            }
        }
        10 => {
            if let Some(answer) = read::<AccessionAnswer>(octets) {
                let _ = answer.plan.communities();
            }
        }
        11 => drop(read::<Removal>(octets)),
        _ => {
            if let Ok(text) = std::str::from_utf8(octets) {
                let _ = Config::parse(text);
            }
        }
    }
});
