//! What a workload sends to the metadata service: no panic, whatever it is and however late it comes, and no more
//! comes back than a connection may send. What Nova is asked, it answers late, or not at all.
//!
//! The input is runs of frames: an octet for its length, one for the time since the last one, then what follows the
//! Ethernet header; addresses and protocol are made right, or nothing would get further.

#![no_main]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hextet_metadata::{
    ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6, Action, Event, Facts, Metadata, PortConfig,
    QuestionId, document::Link, http::Answer,
};
use hextet_types::{Mac, Time};
use libfuzzer_sys::fuzz_target;

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 7]);

fuzz_target!(|input: &[u8]| {
    let mut engine = Metadata::new(1);
    let (by_nova, input) = match input {
        [first, rest @ ..] => (first % 2 == 1, rest),
        [] => (false, input),
    };
    let facts = Arc::new(facts(by_nova));
    let mut asked = Vec::new();
    engine.set_port(
        1,
        PortConfig {
            host_mac: MAC,
            facts,
        },
    );
    let (mut rest, mut now) = (input, Time::ZERO);
    while let [len, wait, more @ ..] = rest {
        let (octets, after) = more.split_at(usize::from(*len).min(more.len()));
        rest = after;
        now += Duration::from_millis(u64::from(*wait) * u64::from(*wait));
        engine.handle(Event::Timer, now);
        if wait % 3 == 0 {
            answer(&mut engine, &mut asked, now);
        }
        let bytes = frame(octets);
        let actions = engine.handle(
            Event::Frame {
                link: 1,
                bytes: &bytes,
            },
            now,
        );
        assert!(actions.len() < 64, "{} frames for one", actions.len());
        asked.extend(actions.into_iter().filter_map(|action| match action {
            Action::Ask { question, .. } => Some(question.id),
            Action::Send { .. } => None,
        }));
    }
});

fn answer(engine: &mut Metadata, asked: &mut Vec<QuestionId>, now: Time) {
    let answer = Answer {
        status: 200,
        content_type: "text/plain".to_owned(),
        body: vec![0; 20_000],
    };
    for id in asked.drain(..) {
        let answer = Some(&answer);
        let event = Event::Answered {
            link: 1,
            id,
            answer,
        };
        engine.handle(event, now);
    }
}

/// The first octet says to which address; the source and what follows the headers are as they are.
fn frame(octets: &[u8]) -> Vec<u8> {
    let [which, octets @ ..] = octets else {
        return Vec::new();
    };
    let mut frame = [MAC.octets(), MAC.octets()].concat();
    let len = u16::try_from(octets.len()).unwrap_or(0);
    match which % 4 {
        0 => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
            let (source, payload) = octets.split_at(octets.len().min(4));
            frame.extend(source);
            frame.extend(ADDRESS_V4.octets());
            frame.extend(payload);
            sum(&mut frame);
        }
        3 => {
            frame.extend([8, 0]);
            frame.extend(octets);
        }
        n => {
            let to = if n == 1 {
                ADDRESS_LINK_LOCAL
            } else {
                ADDRESS_V6
            };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.saturating_sub(2).to_be_bytes());
            frame.extend([6, 64, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let (source, payload) = octets.split_at(octets.len().min(2));
            frame.extend(source);
            frame.extend(to.octets());
            frame.extend(payload);
        }
    }
    frame
}

/// The checksum of an IPv4 header (RFC 1071).
fn sum(frame: &mut [u8]) {
    let Some(header) = frame.get(14..34) else {
        return;
    };
    let words = header
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn facts(by_nova: bool) -> Facts {
    Facts {
        instance_id: "i".to_owned(),
        project_id: "p".to_owned(),
        hostname: "h".to_owned(),
        public_keys: BTreeMap::new(),
        meta: BTreeMap::new(),
        user_data: Some(vec![0; 20_000]),
        availability_zone: "nova".to_owned(),
        link: Link {
            port_id: String::new(),
            name: "tap".to_owned(),
            mac: MAC,
            mtu: 1400,
            network_id: String::new(),
            addresses: Vec::new(),
            dns_servers: Vec::new(),
        },
        by_nova,
    }
}
