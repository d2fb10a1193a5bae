//! What comes from outside by other ways than HTTP requests, for its fuzz targets.

use hextet_store::{Event, Image};
use hextet_types::HostId;
use rustls::pki_types::CertificateDer;

use crate::{admin::TokenRequest, agents::pki::read_peer, state::State};

/// What a client's certificate names, once TLS has found it to be of our authority.
pub fn read_certificate(der: &[u8]) {
    let Some(peer) = read_peer(&CertificateDer::from(der)) else {
        return;
    };
    let name = peer.host.to_string();
    assert_eq!(name.parse::<HostId>().ok(), Some(peer.host));
}

/// A request to the administrator's socket.
pub fn read_token_request(body: &[u8]) {
    let _ = serde_json::from_slice::<TokenRequest>(body);
}

/// Everything that a store holds, taken in as at a start, told to each host, and deleted again.
pub fn read_store(image: Image) {
    let mut state = State::default();
    for kv in &image.kvs {
        // What cannot be understood changes nothing.
        let _ = state.apply(&Event::Put(kv.clone()));
    }
    let bound = state
        .ports
        .values()
        .filter_map(|p| p.binding.host_id.clone());
    let hosts: Vec<HostId> = bound.chain(state.hosts.ids().cloned()).collect();
    for host in &hosts {
        for step in state.snapshot(host) {
            let _ = step.to_change();
        }
    }
    for kv in &image.kvs {
        let key = kv.key.clone();
        let gone = state.apply(&Event::Delete { key });
        assert!(gone.is_ok(), "{gone:?}");
    }
    assert_eq!((state.networks.len(), state.ports.len()), (0, 0));
}
