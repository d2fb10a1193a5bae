//! What a host gets by other ways than its connections, for its fuzz target.

use crate::{
    announcement,
    bgp::Drain,
    identity::{JoinToken, renewal_due},
    membership,
    report::ExplainRequest,
};

/// What somebody passes to `hextet agent join --token`.
pub fn read_join_token(text: &str) {
    let _ = JoinToken::parse(text);
}

/// The host's certificate, as it is looked at for its end.
pub fn read_certificate(der: &[u8]) {
    let _ = renewal_due(der);
}

/// A frame of a workload's: what it announces of itself, and which multicast groups it has joined.
pub fn read_frame(octets: &[u8]) {
    let _ = announcement::parse(octets);
    let report = membership::parse(octets);
    assert!(report.is_none_or(|report| report.len() <= 64));
}

/// The body of a request to the control socket.
pub fn read_control_request(body: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<ExplainRequest>(body) {
        let again = serde_json::to_vec(&request).ok();
        let again = again.and_then(|text| serde_json::from_slice(&text).ok());
        assert_eq!(again, Some(request));
    }
    let _ = serde_json::from_slice::<Drain>(body);
}
