use dhcproto::{Decodable, Decoder, v6};
use proptest::prelude::*;

use super::*;
use crate::dhcpv6::message::{message_type, status};

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn client() -> Client {
    Client {
        mac: MAC,
        duid: Duid::uuid([7; 16]),
        seed: 1,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// A requester and its clock.
struct Test {
    requester: Requester,
    now: Time,
}

impl Test {
    fn new(held: Vec<Held>) -> Test {
        let mut test = Test {
            requester: Requester::new(client(), held, None),
            now: at(1_000),
        };
        assert_eq!(
            test.requester.next_wakeup().filter(|at| *at <= test.now),
            None
        );
        test.event(Event::Up(LINK_LOCAL));
        test
    }

    fn event(&mut self, event: Event<'_>) -> Vec<Action> {
        let actions = self.requester.handle(event, self.now);
        assert!(self.requester.next_wakeup().is_none_or(|at| at > self.now));
        actions
    }

    /// Goes on to the next wake-up.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.requester.next_wakeup().unwrap();
        self.event(Event::Timer)
    }

    /// Goes on until something is sent.
    fn sent(&mut self) -> Message {
        for _ in 0..10 {
            if let Some(message) = sent(&self.wait()) {
                return message;
            }
        }
        panic!("nothing is sent: {:?}", self.requester)
    }

    fn answer(&mut self, message: &Message) -> Vec<Action> {
        self.event(Event::Frame(&frame(message)))
    }

    /// Asks, is offered and given these; lifetimes are valid, preferred.
    fn bound(prefixes: &[(&str, u32, u32)]) -> Test {
        let mut test = Test::new(Vec::new());
        let solicit = test.sent();
        let offer = reply(&solicit, message_type::ADVERTISE, &ia((0, 0), prefixes));
        let mut offer = offer;
        offer.options.push(code::PREFERENCE, &[255]);
        let request = sent(&test.answer(&offer)).unwrap();
        assert_eq!(request.message_type, message_type::REQUEST);
        assert_eq!(request.options.get(code::SERVER_ID), Some(&[9; 10][..]));
        let given = reply(&request, message_type::REPLY, &ia((0, 0), prefixes));
        let told = told(&test.answer(&given)).unwrap();
        assert_eq!(told.len(), prefixes.len());
        test
    }

    fn held(&self) -> Vec<String> {
        let held = self.requester.held.iter();
        held.map(|held| held.prefix.to_string()).collect()
    }
}

fn sent(actions: &[Action]) -> Option<Message> {
    let frame = actions.iter().find_map(|action| match action {
        Action::Send(frame) => Some(frame),
        _ => None,
    })?;
    let parsed = crate::frame::parse(frame).unwrap();
    let crate::frame::Request::Dhcpv6 {
        source,
        destination,
        payload,
    } = parsed.request
    else {
        panic!("{parsed:?}")
    };
    assert_eq!((source, destination), (LINK_LOCAL, ALL_SERVERS));
    Message::decode(payload)
}

fn told(actions: &[Action]) -> Option<Vec<Held>> {
    actions.iter().find_map(|action| match action {
        Action::Tell(held) => Some(held.clone()),
        _ => None,
    })
}

fn ia((t1, t2): (u32, u32), prefixes: &[(&str, u32, u32)]) -> Vec<u8> {
    let mut inner = Options::default();
    for (text, valid, preferred) in prefixes {
        let prefix = prefix(text);
        let std::net::IpAddr::V6(addr) = prefix.addr() else {
            panic!("{text}")
        };
        let times = [preferred.to_be_bytes(), valid.to_be_bytes()].concat();
        let data = [&times[..], &[prefix.len()], &addr.octets()].concat();
        inner.push(code::IA_PREFIX, &data);
    }
    let head = [IAID.to_be_bytes(), t1.to_be_bytes(), t2.to_be_bytes()].concat();
    [head, inner.encode()].concat()
}

fn refusal((number, text): status::Status) -> Vec<u8> {
    let mut inner = Options::default();
    inner.push_status((number, text));
    [&IAID.to_be_bytes()[..], &[0; 8], &inner.encode()].concat()
}

fn reply(to: &Message, message_type: u8, ia: &[u8]) -> Message {
    let mut options = Options::default();
    options.push(code::CLIENT_ID, to.options.get(code::CLIENT_ID).unwrap());
    options.push(code::SERVER_ID, &[9; 10]);
    options.push(code::IA_PD, ia);
    Message {
        message_type,
        transaction_id: to.transaction_id,
        options,
    }
}

fn frame(message: &Message) -> Vec<u8> {
    let envelope = Envelope {
        source_mac: Mac::new([2, 0, 0, 0, 0, 9]),
        destination_mac: MAC,
        source: ROUTER,
        destination: LINK_LOCAL,
    };
    envelope.dhcpv6(&message.encode()).unwrap()
}

#[test]
fn it_asks_as_the_rfc_says() {
    let solicit = Test::new(Vec::new()).sent();
    let octets = solicit.encode();
    let judged = v6::Message::decode(&mut Decoder::new(&octets)).unwrap();
    assert_eq!(judged.msg_type(), v6::MessageType::Solicit);
    let options = judged.opts();
    assert!(options.get(v6::OptionCode::ElapsedTime).is_some());
    assert!(options.get(v6::OptionCode::ORO).is_some());
    let Some(v6::DhcpOption::IAPD(pd)) = options.get(v6::OptionCode::IAPD) else {
        panic!("{judged:?}")
    };
    let Some(v6::DhcpOption::IAPrefix(hint)) = pd.opts.get(v6::OptionCode::IAPrefix) else {
        panic!("{pd:?}")
    };
    assert_eq!(
        (hint.prefix_len, hint.prefix_ip),
        (56, Ipv6Addr::UNSPECIFIED)
    );
}

#[test]
fn it_holds_what_it_is_given() {
    let mut test = Test::bound(&[("2001:db8:100::/56", 7_200, 3_600)]);
    assert_eq!(test.held(), ["2001:db8:100::/56"]);
    // T1 is half, of the server.
    let bound = test.now;
    let renew = test.sent();
    assert_eq!(renew.message_type, message_type::RENEW);
    assert_eq!(renew.options.get(code::SERVER_ID), Some(&[9; 10][..]));
    assert_eq!(test.now, bound + Duration::from_secs(1_800));
    let again = reply(
        &renew,
        message_type::REPLY,
        &ia((10, 20), &[("2001:db8:100::/56", 7_200, 3_600)]),
    );
    let told = told(&test.answer(&again)).unwrap();
    assert_eq!(told[0].valid_until, test.now + Duration::from_secs(7_200));
    let renewed = test.now;
    assert_eq!(test.sent().message_type, message_type::RENEW);
    assert_eq!(test.now, renewed + Duration::from_secs(10));
}

#[test]
fn silent_servers_lose_to_others_and_then_to_time() {
    let mut test = Test::bound(&[("2001:db8:100::/56", 7_200, 3_600)]);
    let bound = test.now;
    let mut kinds = Vec::new();
    loop {
        let message = test.sent();
        let since = test.now.saturating_since(bound).as_secs();
        if kinds
            .last()
            .is_none_or(|(kind, _)| *kind != message.message_type)
        {
            kinds.push((message.message_type, since));
        }
        if message.message_type == message_type::SOLICIT {
            break;
        }
        let has_server = message.options.get(code::SERVER_ID).is_some();
        assert_eq!(has_server, message.message_type == message_type::RENEW);
    }
    let expected = [
        (message_type::RENEW, 1_800),
        (message_type::REBIND, 2_880),
        (message_type::SOLICIT, 7_200),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(test.held(), Vec::<String>::new());
}

#[test]
fn nobody_is_asked_faster_than_the_rfc_says() {
    let mut test = Test::new(Vec::new());
    let mut before: Option<(Time, Duration)> = None;
    for _ in 0..40 {
        assert_eq!(test.sent().message_type, message_type::SOLICIT);
        before = before.map(|(at, wait)| {
            let now = test.now.saturating_since(at);
            let longest = SOL_MAX_RT + SOL_MAX_RT / 10;
            let least = (wait * 19 / 10).min(SOL_MAX_RT * 9 / 10);
            assert!(now >= least && now <= longest, "{wait:?}, then {now:?}");
            (test.now, now)
        });
        before.get_or_insert((test.now, Duration::ZERO));
    }
}

#[test]
fn the_most_preferred_of_the_first_second_is_asked() {
    let mut test = Test::new(Vec::new());
    let solicit = test.sent();
    for (server, preference, given) in [
        (1, 5, "2001:db8:1::/56"),
        (2, 9, "2001:db8:2::/56"),
        (3, 7, "2001:db8:3::/56"),
    ] {
        let mut offer = reply(
            &solicit,
            message_type::ADVERTISE,
            &ia((0, 0), &[(given, 60, 60)]),
        );
        offer.options = Options::default();
        offer
            .options
            .push(code::CLIENT_ID, client().duid.as_bytes());
        offer.options.push(code::SERVER_ID, &[server; 10]);
        offer.options.push(code::PREFERENCE, &[preference]);
        offer
            .options
            .push(code::IA_PD, &ia((0, 0), &[(given, 60, 60)]));
        let actions = test.answer(&offer);
        assert_eq!(sent(&actions), None);
    }
    let request = test.sent();
    assert_eq!(request.message_type, message_type::REQUEST);
    assert_eq!(request.options.get(code::SERVER_ID), Some(&[2; 10][..]));
    // Another server's answer is none.
    let mut other = reply(
        &request,
        message_type::REPLY,
        &ia((0, 0), &[("2001:db8:3::/56", 60, 60)]),
    );
    assert_eq!(told(&test.answer(&other)), None);
    other.options = Options::default();
    other
        .options
        .push(code::CLIENT_ID, client().duid.as_bytes());
    other.options.push(code::SERVER_ID, &[2; 10]);
    other
        .options
        .push(code::IA_PD, &ia((0, 0), &[("2001:db8:2::/56", 60, 60)]));
    assert!(told(&test.answer(&other)).is_some());
}

#[test]
fn what_was_held_before_a_restart_is_asked_about_first() {
    let held = Held {
        prefix: prefix("2001:db8:100::/56"),
        preferred_until: at(3_600_000),
        valid_until: at(7_200_000),
    };
    let mut test = Test::new(vec![held]);
    let rebind = test.sent();
    assert_eq!(rebind.message_type, message_type::REBIND);
    // Nobody answers for ten seconds: it stays.
    while matches!(test.requester.phase, Phase::Asking(_)) {
        test.wait();
    }
    assert!(test.now <= at(13_000), "{:?}", test.now);
    assert_eq!(test.held(), ["2001:db8:100::/56"]);
    // Which server gave it is not known.
    assert_eq!(test.sent().message_type, message_type::REBIND);
}

#[test]
fn a_provider_renumbers() {
    let mut test = Test::bound(&[("2001:db8:100::/56", 7_200, 3_600)]);
    let renew = test.sent();
    let both = [
        ("2001:db8:100::/56", 3_600, 0),
        ("2001:db8:200::/56", 7_200, 3_600),
    ];
    let told = told(&test.answer(&reply(&renew, message_type::REPLY, &ia((0, 0), &both)))).unwrap();
    let seen: Vec<(String, bool)> = told
        .iter()
        .map(|held| (held.prefix.to_string(), held.preferred_until > test.now))
        .collect();
    assert_eq!(
        seen,
        [
            ("2001:db8:200::/56".to_owned(), true),
            ("2001:db8:100::/56".to_owned(), false)
        ]
    );
    let renew = test.sent();
    let over = [
        ("2001:db8:100::/56", 0, 0),
        ("2001:db8:200::/56", 7_200, 3_600),
    ];
    test.answer(&reply(&renew, message_type::REPLY, &ia((0, 0), &over)));
    assert_eq!(test.held(), ["2001:db8:200::/56"]);
}

#[test]
fn a_server_that_forgot_is_asked_again() {
    let mut test = Test::bound(&[("2001:db8:100::/56", 7_200, 3_600)]);
    let renew = test.sent();
    let actions = test.answer(&reply(
        &renew,
        message_type::REPLY,
        &refusal(status::NO_BINDING),
    ));
    let request = sent(&actions).unwrap();
    assert_eq!(request.message_type, message_type::REQUEST);
    // It refuses that, too: what is held stays until it runs out, and all are asked, later.
    let refused = test.now;
    test.answer(&reply(
        &request,
        message_type::REPLY,
        &refusal(status::NO_PREFIX_AVAIL),
    ));
    assert_eq!(test.held(), ["2001:db8:100::/56"]);
    assert_eq!(test.sent().message_type, message_type::SOLICIT);
    assert!(test.now.saturating_since(refused) >= AFTER_REFUSAL);
}

#[test]
fn an_answer_to_others_is_none() {
    let mut test = Test::new(Vec::new());
    let solicit = test.sent();
    let good = ia((0, 0), &[("2001:db8:100::/56", 60, 60)]);
    let offers = |test: &mut Test, message: &Message| {
        let actions = test.answer(message);
        actions
            .iter()
            .any(|action| matches!(action, Action::Offered(_)))
    };
    let mut other = reply(&solicit, message_type::ADVERTISE, &good);
    other.transaction_id[0] ^= 1;
    assert!(!offers(&mut test, &other));
    let mut other = reply(&solicit, message_type::ADVERTISE, &good);
    other.options = Options::default();
    other.options.push(code::CLIENT_ID, &[1, 2, 3, 4]);
    other.options.push(code::SERVER_ID, &[9; 10]);
    other.options.push(code::IA_PD, &good);
    assert!(!offers(&mut test, &other));
    for bad in [
        ia((20, 10), &[("2001:db8:100::/56", 60, 60)]),
        ia((0, 0), &[("2001:db8:100::/56", 60, 61)]),
        ia((0, 0), &[("2001:db8:100::/80", 60, 60)]),
        ia((0, 0), &[("fe80::/56", 60, 60)]),
        ia((0, 0), &[("ff02::/56", 60, 60)]),
        refusal(status::NO_PREFIX_AVAIL),
    ] {
        let bad = reply(&solicit, message_type::ADVERTISE, &bad);
        assert!(!offers(&mut test, &bad), "{bad:?}");
    }
    let twice = reply(&solicit, message_type::ADVERTISE, &good);
    assert!(offers(&mut test, &twice));
}

#[test]
fn no_more_than_so_many_are_held() {
    let texts: Vec<String> = (0..20).map(|n| format!("2001:db8:{n:x}::/56")).collect();
    let many: Vec<(&str, u32, u32)> = texts.iter().map(|text| (text.as_str(), 60, 60)).collect();
    let mut test = Test::new(Vec::new());
    let solicit = test.sent();
    test.answer(&reply(
        &solicit,
        message_type::ADVERTISE,
        &ia((0, 0), &many),
    ));
    let request = test.sent();
    test.answer(&reply(&request, message_type::REPLY, &ia((0, 0), &many)));
    assert_eq!(test.held().len(), MAX_PREFIXES);
}

#[test]
fn all_is_given_back_at_the_end() {
    let mut test = Test::bound(&[("2001:db8:100::/56", 7_200, 3_600)]);
    let release = sent(&test.event(Event::Release)).unwrap();
    assert_eq!(release.message_type, message_type::RELEASE);
    let actions = test.answer(&reply(&release, message_type::REPLY, &[]));
    assert_eq!(actions, [Action::Released, Action::Tell(Vec::new())]);
    assert_eq!(test.requester.next_wakeup(), None);
}

proptest! {
    /// Whatever comes, whenever: no panic, and time is never asked for twice.
    #[test]
    fn servers_can_say_what_they_like(
        messages in proptest::collection::vec((any::<u8>(), 0..20_000u64, any::<[u32; 4]>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..40)
    ) {
        let mut test = Test::new(Vec::new());
        let mut last = None;
        for (kind, later, [t1, t2, valid, preferred], is_refusal, octets) in messages {
            test.now += Duration::from_millis(later);
            last = sent(&test.event(Event::Timer)).or(last);
            let Some(asked) = &last else { continue };
            let body = match is_refusal {
                true => refusal((u16::from(kind) % 8, "")),
                false => ia((t1, t2), &[("2001:db8:100::/56", valid, preferred)]),
            };
            let message = reply(asked, [message_type::ADVERTISE, message_type::REPLY][usize::from(kind & 1)], &body);
            last = sent(&test.answer(&message)).or(last);
            test.event(Event::Frame(&octets));
            prop_assert!(test.requester.held.len() <= MAX_PREFIXES);
        }
    }
}
