//! Whatever servers on an uplink say: no panic, nothing held without bound or that has run out, and time is never asked for
//! twice.
//!
//! The input is messages, each behind an octet that says how much later it comes and one with its length. Type, transaction and
//! the client's identifier are right, so that what is behind them counts.

#![no_main]

use std::net::Ipv6Addr;

use hextet_autoconf::{
    Duid,
    delegation::{Action, Client, Event, MAX_PREFIXES, Requester},
    dhcpv6::message::{Message, Options, code, message_type},
    frame::{self, Envelope, Request},
};
use hextet_types::{Mac, Time};
use libfuzzer_sys::fuzz_target;

const OURS: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const SERVER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

fuzz_target!(|input: &[u8]| {
    let duid = Duid::uuid([7; 16]);
    let client = Client {
        mac: OURS,
        duid: duid.clone(),
        seed: 1,
    };
    let mut requester = Requester::new(client, Vec::new(), None);
    let mut now = Time::from_secs(1);
    let mut transaction = [0; 3];
    let actions = requester.handle(Event::Up(LINK_LOCAL), now);
    check(&requester, &actions, (now, &mut transaction));
    let mut rest = input;
    while let [when, length, behind @ ..] = rest {
        let (body, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let later = u64::from(when >> 2);
        now += std::time::Duration::from_millis(later * later * 500);
        let actions = requester.handle(Event::Timer, now);
        check(&requester, &actions, (now, &mut transaction));
        let mut options = Options::default();
        options.push(code::CLIENT_ID, duid.as_bytes());
        options.push(code::SERVER_ID, &[9; 10]);
        options.push(code::PREFERENCE, &[(when & 2) << 6]);
        for (code, data) in Options::decode(body).iter().flat_map(Options::iter) {
            options.push(code, data);
        }
        let message = Message {
            message_type: [message_type::ADVERTISE, message_type::REPLY][usize::from(when & 1)],
            transaction_id: transaction,
            options,
        };
        let envelope = Envelope {
            source_mac: SERVER,
            destination_mac: OURS,
            source: ROUTER,
            destination: LINK_LOCAL,
        };
        if let Some(frame) = envelope.dhcpv6(&message.encode()) {
            let actions = requester.handle(Event::Frame(&frame), now);
            check(&requester, &actions, (now, &mut transaction));
        }
        requester.handle(Event::Frame(body), now);
    }
});

fn check(requester: &Requester, actions: &[Action], (now, transaction): (Time, &mut [u8; 3])) {
    assert!(requester.next_wakeup().is_none_or(|at| at > now));
    for action in actions {
        match action {
            Action::Tell(held) => {
                assert!(held.len() <= MAX_PREFIXES);
                assert!(held.iter().all(|held| held.valid_until > now));
            }
            Action::Send(frame) => {
                let sent = frame::parse(frame).map(|frame| frame.request);
                let Ok(Request::Dhcpv6 { payload, .. }) = sent else {
                    panic!("{sent:?}");
                };
                let message = Message::decode(payload).expect("it was encoded so");
                *transaction = message.transaction_id;
            }
            Action::Offered(_) | Action::Released => {}
        }
    }
}
