//! What a tunnel's process reads: datagrams of strangers, packets that a peer itself has sealed, and requests. No panic; what was changed
//! on its way is refused; no packet is longer than what came; a request written and read again is the same.

#![no_main]

use std::cell::RefCell;

use hextet_tunnels::{control::Request, fuzzing::Ends};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ENDS: RefCell<Option<Ends>> = RefCell::new(Ends::agreed());
}

fuzz_target!(|input: &[u8]| {
    let Some((how, octets)) = input.split_first() else {
        return;
    };
    Ends::knock(octets);
    Ends::stream(octets);
    ENDS.with_borrow_mut(|ends| {
        let ends = ends.as_mut().expect("two of our own agree");
        match how % 4 {
            0 => {
                let len = ends.open(octets);
                assert_eq!(len, None, "a stranger's");
            }
            1 => assert!(ends.send(octets).is_none_or(|len| len <= octets.len())),
            2 => assert_eq!(ends.send_changed(octets, octets.len(), *how), None),
            _ => request(octets),
        }
    });
});

fn request(octets: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(octets) {
        let again = serde_json::to_vec(&request).expect("a request is written");
        let again: Request = serde_json::from_slice(&again).expect("and read again");
        assert_eq!(again, request);
    }
}
