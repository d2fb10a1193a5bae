use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::Ipv6Mode,
    ra::{INITIAL_INTERVAL, MAX_INTERVAL, MIN_DELAY},
    samples::{self, GUEST, HOST},
};

const PORT: PortKey = PortKey(7);
const START: Time = Time::from_secs(1_000);

fn responder() -> Responder {
    let mut responder = Responder::new(1, Duid::link_layer(HOST));
    let config = samples::port(Ipv6Mode::Dhcpv6Stateful);
    assert_eq!(responder.set_port(PORT, config, START), Ok(Vec::new()));
    responder
}

fn frame(responder: &mut Responder, bytes: &[u8], now: Time) -> Vec<Vec<u8>> {
    let actions = responder.handle(Event::Frame { port: PORT, bytes }, now);
    actions
        .into_iter()
        .map(|Action::Send { port, frame }| {
            assert_eq!(port, PORT);
            frame
        })
        .collect()
}

fn advertisement(frame: &[u8]) -> RouterAdvertisement {
    RouterAdvertisement::decode(&frame[54..]).unwrap()
}

/// A router solicitation from `::`.
fn early_rs() -> Vec<u8> {
    Envelope {
        source_mac: GUEST,
        destination_mac: Mac::for_ipv6_multicast(ALL_ROUTERS),
        source: Ipv6Addr::UNSPECIFIED,
        destination: ALL_ROUTERS,
    }
    .neighbour_discovery(&[133, 0, 0, 0, 0, 0, 0, 0])
    .unwrap()
}

#[test]
fn answers_go_back_to_who_asked() {
    let mut responder = responder();
    let guest_addr = GUEST.link_local().octets();
    for (bytes, done) in [
        (samples::kernel_rs(), Done::RouterAdvertisement),
        (samples::dhclient_solicit(), Done::Dhcpv6Advertise),
        (samples::dhclient_request6(), Done::Dhcpv6Reply),
        (samples::dhclient_information_request(), Done::Dhcpv6Reply),
    ] {
        let sent = frame(&mut responder, &bytes, START);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][..6], GUEST.octets());
        assert_eq!(sent[0][6..12], HOST.octets());
        assert_eq!(sent[0][22..38], crate::config::LINK_LOCAL.octets());
        assert_eq!(sent[0][38..54], guest_addr);
        assert!(responder.counters(PORT).unwrap().done(done) > 0);
    }
    for (bytes, broadcast, done) in [
        (samples::dhclient_discover(), false, Done::Dhcpv4Offer),
        (samples::dhclient_request(), false, Done::Dhcpv4Ack),
    ] {
        let sent = frame(&mut responder, &bytes, START);
        assert_eq!(sent[0][..6] == Mac::BROADCAST.octets(), broadcast);
        assert_eq!(sent[0][26..30], [192, 0, 2, 1]);
        assert_eq!(sent[0][30..34], [192, 0, 2, 77]);
        assert_eq!(responder.counters(PORT).unwrap().done(done), 1);
    }
}

#[test]
fn a_broadcast_answer_is_broadcast_on_ethernet_too() {
    let mut responder = responder();
    let mut bytes = samples::dhclient_discover();
    bytes[52] = 0x80;
    bytes[40..42].fill(0);
    let sent = frame(&mut responder, &bytes, START);
    assert_eq!(sent[0][..6], [0xff; 6]);
    assert_eq!(sent[0][30..34], [0xff; 4]);
}

#[test]
fn what_is_not_answered_is_counted_by_its_reason() {
    let rs = samples::kernel_rs();
    let solicit = samples::dhclient_solicit();
    let discover = samples::dhclient_discover();
    let to = |mac: Mac, bytes: &[u8]| [&mac.octets()[..], &bytes[6..]].concat();
    let from = |mac: Mac, bytes: &[u8]| [&bytes[..6], &mac.octets()[..], &bytes[12..]].concat();
    let other = Mac::new([2, 9, 9, 9, 9, 9]);
    let foreign_source = |bytes: &[u8], source: &str| {
        let parsed = frame::parse(bytes).unwrap();
        let envelope = Envelope {
            source_mac: GUEST,
            destination_mac: parsed.destination,
            source: source.parse().unwrap(),
            destination: ALL_ROUTERS,
        };
        envelope
            .neighbour_discovery(&[133, 0, 0, 0, 0, 0, 0, 0])
            .unwrap()
    };
    for (bytes, reason) in [
        (rs[..40].to_vec(), Reason::Truncated),
        (from(other, &rs), Reason::ForeignMac),
        (from(other, &discover), Reason::ForeignMac),
        (to(other, &solicit), Reason::NotForUs),
        (foreign_source(&rs, "ff02::1"), Reason::Source),
        (foreign_source(&rs, "::1"), Reason::Source),
        (foreign_source(&rs, "fe80::1"), Reason::Source),
    ] {
        let mut responder = responder();
        assert_eq!(frame(&mut responder, &bytes, START), Vec::<Vec<u8>>::new());
        assert_eq!(
            responder.counters(PORT).unwrap().dropped(reason),
            1,
            "{reason:?}"
        );
    }
    let mut responder = responder();
    let actions = responder.handle(
        Event::Frame {
            port: PortKey(8),
            bytes: &rs,
        },
        START,
    );
    assert_eq!((actions, responder.unknown_port()), (Vec::new(), 1));
}

#[test]
fn dhcpv6_comes_from_link_local_addresses() {
    let mut responder = responder();
    let mut bytes = samples::dhclient_solicit();
    // 2001:db8:: for fe80::, with a checksum that is the sum over the pseudo header.
    bytes[22..26].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let partial =
        u32::from(u16::from_be_bytes([bytes[60], bytes[61]])) + 0xffff - 0xfe80 + 0x2001 + 0x0db8;
    let folded = ((partial & 0xffff) + (partial >> 16)) as u16;
    bytes[60..62].copy_from_slice(&folded.to_be_bytes());
    frame(&mut responder, &bytes, START);
    assert_eq!(responder.counters(PORT).unwrap().dropped(Reason::Source), 1);
}

#[test]
fn a_port_is_told_three_times_and_then_now_and_then() {
    let mut responder = responder();
    let mut times = Vec::new();
    for _ in 0..6 {
        let now = responder.next_wakeup().unwrap();
        let early = Time::from_nanos(now.as_nanos() - 1);
        assert_eq!(responder.handle(Event::Timer, early), Vec::new());
        let actions = responder.handle(Event::Timer, now);
        let [Action::Send { port: PORT, frame }] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[38..54], ALL_NODES.octets());
        assert_eq!(advertisement(frame).router_lifetime_secs, 9_000);
        times.push(now);
    }
    assert_eq!(times[2] - times[1], INITIAL_INTERVAL);
    assert!(times[4] - times[3] >= Duration::from_secs(600));
    assert!(times[5] - times[4] <= MAX_INTERVAL);
    assert_eq!(
        responder
            .counters(PORT)
            .unwrap()
            .done(Done::RouterAdvertisement),
        6
    );
}

#[test]
fn who_has_no_address_is_answered_by_multicast_at_a_bounded_rate() {
    let mut responder = responder();
    let sent = frame(&mut responder, &early_rs(), START);
    assert_eq!(sent[0][38..54], ALL_NODES.octets());
    let again = START + Duration::from_secs(1);
    assert_eq!(
        frame(&mut responder, &early_rs(), again),
        Vec::<Vec<u8>>::new()
    );
    assert_eq!(responder.next_wakeup(), Some(START + MIN_DELAY));
    assert_eq!(responder.handle(Event::Timer, START + MIN_DELAY).len(), 1);
    // One with an address does not wait.
    assert_eq!(frame(&mut responder, &samples::kernel_rs(), again).len(), 1);
}

#[test]
fn a_flood_is_answered_at_a_bounded_rate_and_costs_neighbours_nothing() {
    let mut responder = responder();
    let neighbour = PortKey(8);
    let config = samples::port(Ipv6Mode::Slaac);
    responder.set_port(neighbour, config, START).unwrap();
    for bytes in [
        samples::kernel_rs(),
        samples::dhclient_discover(),
        samples::dhclient_solicit(),
    ] {
        for _ in 0..1_000 {
            frame(&mut responder, &bytes, START);
        }
    }
    let counters = responder.counters(PORT).unwrap();
    assert_eq!(counters.done(Done::RouterAdvertisement), u64::from(BURST));
    assert_eq!(
        counters.dropped(Reason::RateLimited),
        3_000 - u64::from(BURST)
    );
    let event = Event::Frame {
        port: neighbour,
        bytes: &samples::dhclient_discover(),
    };
    assert_eq!(responder.handle(event, START).len(), 1);
    assert_eq!(
        frame(
            &mut responder,
            &samples::dhclient_discover(),
            START + REFILL
        )
        .len(),
        1
    );
}

#[test]
fn setting_the_same_again_does_nothing() {
    let mut responder = responder();
    while responder.next_wakeup().unwrap() < START + Duration::from_secs(60) {
        responder.handle(Event::Timer, responder.next_wakeup().unwrap());
    }
    let before = responder.next_wakeup();
    let now = START + Duration::from_secs(60);
    let config = samples::port(Ipv6Mode::Dhcpv6Stateful);
    assert_eq!(responder.set_port(PORT, config, now), Ok(Vec::new()));
    assert_eq!(responder.next_wakeup(), before);
}

#[test]
fn a_change_is_told_soon_with_what_it_takes_back() {
    let mut responder = responder();
    let mut config = samples::port(Ipv6Mode::Dhcpv6Stateful);
    let old = config.ipv6[0].prefix;
    config.ipv6[0].prefix = "2001:db8:5::/64".parse().unwrap();
    config.ipv6[0].address = None;
    let now = START + Duration::from_secs(100_000);
    responder.handle(Event::Timer, now);
    responder.set_port(PORT, config.clone(), now).unwrap();
    let withdrawn = |ra: &RouterAdvertisement| {
        ra.options.iter().any(
            |o| matches!(o, NdOption::Prefix(p) if p.prefix == old && p.valid_lifetime_secs == 0),
        )
    };
    // Also to who asks in between.
    let sent = frame(&mut responder, &samples::kernel_rs(), now);
    assert!(withdrawn(&advertisement(&sent[0])));
    for i in 0..4 {
        let at = responder.next_wakeup().unwrap();
        assert!(i > 2 || at - now < Duration::from_secs(60));
        let actions = responder.handle(Event::Timer, at);
        let [Action::Send { frame, .. }] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(withdrawn(&advertisement(frame)), i < 3, "{i}");
    }
    // What comes back is not taken back any more.
    responder
        .set_port(PORT, samples::port(Ipv6Mode::Dhcpv6Stateful), now)
        .unwrap();
    responder.set_port(PORT, config, now).unwrap();
    responder
        .set_port(PORT, samples::port(Ipv6Mode::Dhcpv6Stateful), now)
        .unwrap();
    let sent = frame(
        &mut responder,
        &samples::kernel_rs(),
        now + Duration::from_secs(10),
    );
    assert!(!withdrawn(&advertisement(&sent[0])));
}

#[test]
fn what_is_taken_back_has_a_bound() {
    let mut responder = responder();
    for i in 0..100 {
        let mut config = samples::port(Ipv6Mode::Slaac);
        config.ipv6[0].prefix = format!("2001:db8:{i}::/64").parse().unwrap();
        config.ipv6[0].address = None;
        responder.set_port(PORT, config, START).unwrap();
    }
    let sent = frame(&mut responder, &samples::kernel_rs(), START);
    let options: usize = sent.iter().map(|f| advertisement(f).options.len()).sum();
    assert!(options <= MAX_WITHDRAWALS + 10, "{options}");
    assert!(sent.iter().all(|f| f.len() <= 1_280 + 14));
}

#[test]
fn the_last_word_is_said_only_when_asked_for() {
    let mut responder = responder();
    let mut gone = responder.clone();
    gone.remove_port(PORT);
    assert_eq!((gone.next_wakeup(), gone.config(PORT)), (None, None));
    let actions = responder.handle(Event::Cease { port: PORT }, START);
    let [Action::Send { frame: last, .. }] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(advertisement(last).router_lifetime_secs, 0);
    assert_eq!(responder.next_wakeup(), None);
    assert_eq!(
        frame(&mut responder, &samples::kernel_rs(), START),
        Vec::<Vec<u8>>::new()
    );
    assert_eq!(
        responder.handle(Event::Cease { port: PORT }, START),
        Vec::new()
    );
    assert_eq!(
        responder.handle(Event::Cease { port: PortKey(9) }, START),
        Vec::new()
    );
    // DHCP goes on, and a change brings advertisements back.
    assert_eq!(
        frame(&mut responder, &samples::dhclient_discover(), START).len(),
        1
    );
    responder
        .set_port(PORT, samples::port(Ipv6Mode::Slaac), START)
        .unwrap();
    assert!(responder.next_wakeup().is_some());
    // A port that shall not be advertised to any more is told so.
    let mut config = samples::port(Ipv6Mode::Slaac);
    config.advertise = None;
    let actions = responder.set_port(PORT, config, START).unwrap();
    assert!(matches!(&actions[..], [Action::Send { frame, .. }]
        if advertisement(frame).router_lifetime_secs == 0));
    assert_eq!(responder.next_wakeup(), None);
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let mut responder = responder();
    let mut config = samples::port(Ipv6Mode::Slaac);
    config.mtu = 100;
    let refused = responder.set_port(PORT, config, START);
    assert_eq!(refused, Err(SetPortError::Config(ConfigError::Mtu(100))));
    assert_eq!(
        responder.config(PORT),
        Some(&samples::port(Ipv6Mode::Dhcpv6Stateful))
    );
}

fn small_port() -> PortConfig {
    let json = r#"{"host_mac": "02:00:00:00:00:01", "guest_mac": "fa:16:3e:aa:bb:cc", "mtu": 1500,
        "advertise": {"default_router": true}}"#;
    serde_json::from_str(json).unwrap()
}

#[test]
fn ports_have_a_bound() {
    let mut responder = Responder::new(1, Duid::link_layer(HOST));
    let mut config = small_port();
    config.advertise = None;
    for i in 0..MAX_PORTS as u64 {
        responder
            .set_port(PortKey(i), config.clone(), START)
            .unwrap();
    }
    let one_more = PortKey(MAX_PORTS as u64);
    assert_eq!(
        responder.set_port(one_more, config.clone(), START),
        Err(SetPortError::Full)
    );
    // Those that are there may still change.
    assert_eq!(
        responder.set_port(PortKey(1), small_port(), START),
        Ok(Vec::new())
    );
    responder.remove_port(PortKey(0));
    assert_eq!(responder.set_port(one_more, config, START), Ok(Vec::new()));
}

#[test]
fn ten_thousand_ports_are_told_within_seconds_in_bounded_steps() {
    let mut responder = Responder::new(1, Duid::link_layer(HOST));
    for i in 0..10_000 {
        responder.set_port(PortKey(i), small_port(), START).unwrap();
    }
    // A driver that was away for a while: everything is due at once.
    let now = START + Duration::from_secs(60);
    let mut told = BTreeSet::new();
    let mut steps = 0;
    while responder.next_wakeup().is_some_and(|at| at <= now) {
        let actions = responder.handle(Event::Timer, now);
        assert!(actions.len() <= MAX_ADVERTISEMENTS);
        told.extend(actions.iter().map(|Action::Send { port, .. }| *port));
        steps += 1;
    }
    assert_eq!(
        (told.len(), steps),
        (10_000, 10_000_usize.div_ceil(MAX_ADVERTISEMENTS))
    );
    assert_eq!(responder.deadlines.len(), 10_000);
}

/// What a driver may do, in any order.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Frame(u8, usize, Vec<(usize, u8)>),
    Cease(u8),
    Timer,
}

fn any_step() -> impl Strategy<Value = Step> {
    let flips = vec((0..400_usize, any::<u8>()), 0..3);
    prop_oneof![
        (0..4_u8, 0..4_u8).prop_map(|(port, config)| Step::Set(port, config)),
        (0..4_u8).prop_map(Step::Remove),
        (0..4_u8, 0..8_usize, flips)
            .prop_map(|(port, sample, flips)| Step::Frame(port, sample, flips)),
        (0..4_u8).prop_map(Step::Cease),
        Just(Step::Timer),
    ]
}

fn configuration(n: u8) -> PortConfig {
    let modes = [
        Ipv6Mode::None,
        Ipv6Mode::Slaac,
        Ipv6Mode::Dhcpv6Stateless,
        Ipv6Mode::Dhcpv6Stateful,
    ];
    let mut config = samples::port(modes[usize::from(n) % 4]);
    if n == 3 {
        config.advertise = None;
    }
    config
}

proptest! {
    /// After any steps: one deadline for each port that is advertised to, at the time that its
    /// schedule says; answers go only to the port that asked.
    #[test]
    fn deadlines_follow_the_ports(steps in vec((any_step(), 0..5_000_u64), 0..60)) {
        let mut responder = Responder::new(1, Duid::link_layer(HOST));
        let mut now = START;
        let mut last = std::collections::BTreeMap::new();
        for (step, millis) in steps {
            now += Duration::from_millis(millis);
            let actions = match step {
                Step::Set(port, n) => {
                    responder.set_port(PortKey(port.into()), configuration(n), now).unwrap()
                }
                Step::Remove(port) => {
                    responder.remove_port(PortKey(port.into()));
                    last.remove(&PortKey(port.into()));
                    Vec::new()
                }
                Step::Frame(port, sample, flips) => {
                    let mut bytes = samples::all().swap_remove(sample);
                    for (at, value) in flips {
                        if let Some(octet) = bytes.get_mut(at) {
                            *octet = value;
                        }
                    }
                    let port = PortKey(port.into());
                    let actions = responder.handle(Event::Frame { port, bytes: &bytes }, now);
                    let all_here = actions.iter().all(|Action::Send { port: to, .. }| *to == port);
                    prop_assert!(all_here);
                    actions
                }
                Step::Cease(port) => responder.handle(Event::Cease { port: PortKey(port.into()) }, now),
                Step::Timer => responder.handle(Event::Timer, now),
            };
            let expected: BTreeSet<(Time, PortKey)> = responder
                .ports
                .iter()
                .filter_map(|(key, port)| Some((port.deadline()?, *key)))
                .collect();
            prop_assert_eq!(&responder.deadlines, &expected);
            // RFC 4861 §6.2.6: to all nodes at most every three seconds, the last word aside.
            for Action::Send { port, frame } in actions {
                let to_all = frame[12..14] == [0x86, 0xdd] && frame[38..54] == ALL_NODES.octets();
                if to_all && advertisement(&frame).router_lifetime_secs > 0 {
                    if let Some(before) = last.insert(port, now) {
                        prop_assert!(now - before >= MIN_DELAY);
                    }
                } else if to_all {
                    last.remove(&port);
                }
            }
        }
    }
}
