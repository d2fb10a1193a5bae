use proptest::{collection::vec, prelude::*};

use super::*;

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const ROUTER: Mac = Mac::new([2, 0, 0, 0, 0, 0xfe]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn router(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

fn said(lifetime: u16, preference: Preference, options: Vec<NdOption>) -> RouterAdvertisement {
    RouterAdvertisement {
        hop_limit: 64,
        managed: false,
        other: true,
        preference,
        router_lifetime_secs: lifetime,
        reachable_time_millis: 0,
        retrans_timer_millis: 0,
        options,
    }
}

fn information(text: &str, valid: u32, preferred: u32) -> NdOption {
    NdOption::Prefix(PrefixInformation {
        prefix: prefix(text),
        on_link: true,
        autonomous: true,
        prefer_delegation: false,
        valid_lifetime_secs: valid,
        preferred_lifetime_secs: preferred,
    })
}

fn frame(from: Ipv6Addr, said: &RouterAdvertisement) -> Vec<u8> {
    let envelope = Envelope {
        source_mac: ROUTER,
        destination_mac: TO_ALL_NODES,
        source: from,
        destination: ALL_NODES,
    };
    envelope.neighbour_discovery(&said.encode()).unwrap()
}

fn listener() -> Listener {
    Listener::new(MAC, Upstream::default())
}

/// What it tells when that router says that.
fn hear(l: &mut Listener, from: u16, what: &RouterAdvertisement, at: u64) -> Option<Upstream> {
    let frame = frame(router(from), what);
    let actions = l.handle(Event::Frame(&frame), Time::from_secs(at));
    told(actions)
}

fn told(actions: Vec<Action>) -> Option<Upstream> {
    let mut told = actions.into_iter().filter_map(|action| match action {
        Action::Tell(upstream) => Some(upstream),
        Action::Send(_) => None,
    });
    told.next()
}

#[test]
fn it_asks_ever_more_seldom_until_somebody_answers() {
    let mut l = listener();
    let mut now = Time::from_secs(100);
    let first = l.handle(Event::Up(Some(LINK_LOCAL)), now);
    let [Action::Send(octets)] = first.as_slice() else {
        panic!("{first:?}");
    };
    let (envelope, message) = frame::neighbour_discovery(octets).unwrap();
    assert_eq!(
        (envelope.source, envelope.destination),
        (LINK_LOCAL, ALL_ROUTERS)
    );
    let solicitation = RouterSolicitation::decode(message).unwrap();
    assert_eq!(solicitation.options, [NdOption::SourceLinkLayer(MAC)]);
    let mut waits = Vec::new();
    for _ in 0..14 {
        let next = l.next_wakeup().unwrap();
        waits.push((next - now).as_secs());
        now = next;
        let actions = l.handle(Event::Timer, now);
        assert!(matches!(actions[..], [Action::Send(_)]));
    }
    assert_eq!(waits[..4], [4, 8, 16, 32]);
    assert_eq!(waits[13], 3_600);
    let options = vec![information("2001:db8::/64", 7_200, 3_600)];
    assert!(
        hear(
            &mut l,
            1,
            &said(1_800, Preference::Medium, options),
            10_000_000
        )
        .is_some()
    );
    assert_eq!(l.next_wakeup(), Some(Time::from_secs(10_001_800)));
}

#[test]
fn without_an_address_it_asks_from_nowhere() {
    let actions = listener().handle(Event::Up(None), Time::ZERO);
    let [Action::Send(octets)] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let (envelope, message) = frame::neighbour_discovery(octets).unwrap();
    assert_eq!(envelope.source, Ipv6Addr::UNSPECIFIED);
    assert_eq!(RouterSolicitation::decode(message).unwrap().options, []);
}

#[test]
fn the_best_router_comes_first_and_goes_when_its_time_is_over() {
    let mut l = listener();
    let mtu = |mtu| vec![NdOption::Mtu(mtu)];
    let low = said(3_000, Preference::Low, mtu(1_480));
    let high = said(1_000, Preference::High, mtu(9_000));
    hear(&mut l, 1, &low, 0).unwrap();
    let both = hear(&mut l, 2, &high, 0).unwrap();
    assert_eq!(both.routers, [router(2), router(1)]);
    assert_eq!((both.preference, both.mtu), (Preference::High, Some(1_480)));
    assert!(both.other && !both.managed);
    assert_eq!(hear(&mut l, 2, &high, 500), None, "nothing new");
    assert_eq!(l.next_wakeup(), Some(Time::from_secs(1_500)));
    let one = told(l.handle(Event::Timer, Time::from_secs(1_500))).unwrap();
    assert_eq!(one.routers, [router(1)]);
    // One that says that it is none any more goes at once (RFC 4861 §6.2.5).
    let none = hear(&mut l, 1, &said(0, Preference::Medium, mtu(1_480)), 1_600).unwrap();
    assert_eq!(none, Upstream::default());
    assert_eq!(l.next_wakeup(), None);
}

#[test]
fn a_prefix_is_taken_back_and_runs_out() {
    let mut l = listener();
    let first = information("2001:db8:1::/64", 7_200, 3_600);
    let lasting = information("2001:db8:9::/64", u32::MAX, u32::MAX);
    let both = said(1_800, Preference::Medium, vec![first, lasting.clone()]);
    let all = hear(&mut l, 1, &both, 0).unwrap();
    let prefixes: Vec<Prefix> = all.prefixes.iter().map(|p| p.prefix).collect();
    assert_eq!(
        prefixes,
        [prefix("2001:db8:1::/64"), prefix("2001:db8:9::/64")]
    );
    // RFC 9096: a prefix that is no longer the provider's is not preferred any more.
    let options = vec![information("2001:db8:1::/64", 300, 0), lasting];
    let deprecated = hear(&mut l, 1, &said(1_800, Preference::Medium, options), 10).unwrap();
    assert_eq!(deprecated.prefixes[0].preferred_lifetime_secs, 0);
    let gone = told(l.handle(Event::Timer, Time::from_secs(310))).unwrap();
    assert_eq!(gone.prefixes.len(), 1);
    // Of one that makes no sense nothing is kept.
    let options = vec![
        information("2001:db8:2::/64", 10, 20),
        information("fe80::/64", 10, 10),
        NdOption::Mtu(500),
    ];
    assert_eq!(
        hear(&mut l, 1, &said(1_800, Preference::Medium, options), 400),
        None
    );
}

#[test]
fn servers_and_domains_of_all_are_told_once() {
    let mut l = listener();
    let server = |n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
    let dns = |all: &[u16]| NdOption::Rdnss {
        lifetime_secs: 600,
        servers: all.iter().map(|n| server(*n)).collect(),
    };
    let search = NdOption::Dnssl {
        lifetime_secs: 600,
        domains: vec!["example.net".parse().unwrap()],
    };
    let pref64 = NdOption::Pref64 {
        lifetime_secs: 600,
        prefix: prefix("64:ff9b::/96"),
    };
    let one = vec![dns(&[1, 2]), search.clone(), pref64];
    hear(&mut l, 1, &said(1_800, Preference::Medium, one), 0).unwrap();
    let two = vec![dns(&[2, 3]), search];
    let sum = hear(&mut l, 2, &said(1_800, Preference::Medium, two), 0).unwrap();
    assert_eq!(sum.dns_servers, [server(1), server(2), server(3)]);
    assert_eq!(sum.dns_search.len(), 1);
    assert_eq!(sum.pref64, Some(prefix("64:ff9b::/96")));
    let later = told(l.handle(Event::Timer, Time::from_secs(600))).unwrap();
    assert!(later.dns_servers.is_empty() && later.pref64.is_none());
}

#[test]
fn only_routers_on_the_link_are_believed_and_so_many() {
    let mut l = listener();
    let what = said(1_800, Preference::Medium, vec![]);
    let global = frame("2001:db8::1".parse().unwrap(), &what);
    let mut far = frame(router(1), &what);
    far[21] = 254;
    let mut wrong = frame(router(1), &what);
    wrong[56] ^= 1;
    for (what, octets) in [("global", global), ("far", far), ("wrong", wrong)] {
        assert_eq!(l.handle(Event::Frame(&octets), Time::ZERO), [], "{what}");
    }
    for n in 1..100 {
        hear(&mut l, n, &what, 0);
    }
    assert_eq!(l.told.routers.len(), MAX_ROUTERS);
    let many = (0..1_000).map(|n| information(&format!("2001:db8:{n:x}::/64"), 100, 100));
    for option in many {
        hear(&mut l, 1, &said(1_800, Preference::Medium, vec![option]), 0);
    }
    assert_eq!(l.told.prefixes.len(), MAX_OPTIONS);
}

#[test]
fn silence_at_the_beginning_says_nothing() {
    let before = Upstream {
        routers: vec![router(1)],
        ..Upstream::default()
    };
    let mut l = Listener::new(MAC, before);
    l.handle(Event::Up(None), Time::ZERO);
    assert_eq!(told(l.handle(Event::Timer, Time::from_secs(4))), None);
    let other = said(1_800, Preference::Medium, vec![]);
    let now = hear(&mut l, 2, &other, 5).unwrap();
    assert_eq!(now.routers, [router(2)]);
}

#[test]
fn whoever_is_on_the_link_learns_where_an_address_is() {
    let v6: Ipv6Addr = "2001:db8::5".parse().unwrap();
    let octets = announcement(MAC, v6.into()).unwrap();
    let (envelope, message) = frame::neighbour_discovery(&octets).unwrap();
    assert_eq!((envelope.source, envelope.destination), (v6, ALL_NODES));
    let said = NeighbourAdvertisement::decode(message).unwrap();
    assert!(said.override_entry && !said.solicited && !said.router);
    assert_eq!(
        (said.target, said.options),
        (v6, vec![NdOption::TargetLinkLayer(MAC)])
    );
    let octets = announcement(MAC, [192, 0, 2, 5].into()).unwrap();
    assert_eq!(octets.len(), 42);
    assert_eq!(
        (&octets[28..32], &octets[38..42]),
        (&[192, 0, 2, 5][..], &[192, 0, 2, 5][..])
    );
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in vec(any::<u8>(), 0..200), at in 0_u64..10_000) {
        let mut l = listener();
        l.handle(Event::Frame(&octets), Time::from_secs(at));
        let mut whole = frame(router(1), &said(1_800, Preference::Medium, vec![]));
        whole.truncate(54);
        whole.extend_from_slice(&octets);
        l.handle(Event::Frame(&whole), Time::from_secs(at));
        l.handle(Event::Timer, Time::from_secs(at + 100_000));
    }
}
