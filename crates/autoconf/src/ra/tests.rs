use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{nd::tests::any_option, samples};

fn of(mode: Ipv6Mode) -> RouterAdvertisement {
    RouterAdvertisement::of_port(&samples::port(mode)).unwrap()
}

fn prefixes_of(ra: &RouterAdvertisement) -> Vec<PrefixInformation> {
    let prefix = |option: &NdOption| match option {
        NdOption::Prefix(prefix) => Some(*prefix),
        _ => None,
    };
    ra.options.iter().filter_map(prefix).collect()
}

#[test]
fn flags_follow_the_mode() {
    for (mode, managed, other, autonomous) in [
        (Ipv6Mode::None, false, false, None),
        (Ipv6Mode::Slaac, false, false, Some(true)),
        (Ipv6Mode::Dhcpv6Stateless, false, true, Some(true)),
        (Ipv6Mode::Dhcpv6Stateful, true, true, Some(false)),
    ] {
        let ra = of(mode);
        assert_eq!((ra.managed, ra.other), (managed, other), "{mode:?}");
        let prefix = prefixes_of(&ra).first().copied();
        assert_eq!(prefix.map(|p| p.autonomous), autonomous, "{mode:?}");
        assert!(!prefix.is_some_and(|p| p.on_link), "{mode:?}");
        assert_eq!(ra.router_lifetime_secs, 9_000);
        assert_eq!(ra.preference, Preference::High);
    }
}

#[test]
fn all_that_is_configured_is_said() {
    let bytes = of(Ipv6Mode::Slaac).encode();
    let expected = samples::octets(
        "86000000 40 08 2328 00*8 \
         0101 020000000001 \
         0501 0000 000005dc \
         0304 40 40 00278d00 00093a80 00*4 20010db800010002 00*8 \
         1802 28 08 00002328 20010db8 ff 00*3 \
         1903 0000 00002328 20010db8 00*11 53 \
         1f05 0000 00002328 05 636c6f7564 07 6578616d706c65 00 07 6578616d706c65 03 6f7267 00 00*4 \
         2602 2328 0064ff9b 00*8",
    );
    assert_eq!(bytes, expected);
}

#[test]
fn no_default_router_means_lifetime_zero_and_medium() {
    let mut config = samples::port(Ipv6Mode::Slaac);
    if let Some(advertise) = &mut config.advertise {
        advertise.default_router = false;
    }
    let ra = RouterAdvertisement::of_port(&config).unwrap();
    assert_eq!(
        (ra.router_lifetime_secs, ra.preference),
        (0, Preference::Medium)
    );
    config.advertise = None;
    assert_eq!(RouterAdvertisement::of_port(&config), None);
}

#[test]
fn what_is_gone_is_taken_back() {
    let old = of(Ipv6Mode::Slaac);
    assert_eq!(old.withdrawals(&old), []);
    let mut config = samples::port(Ipv6Mode::Slaac);
    config.ipv6[0].prefix = "2001:db8:5::/64".parse().unwrap();
    config.ipv6[0].dns_servers.clear();
    config.dns_search.clear();
    let new = RouterAdvertisement::of_port(&config).unwrap();
    let back = new.withdrawals(&old);
    assert_eq!(back.len(), 3, "{back:?}");
    assert!(matches!(&back[0], NdOption::Prefix(p)
        if p.prefix.to_string() == "2001:db8:1:2::/64"
            && p.autonomous && p.valid_lifetime_secs == 0 && p.preferred_lifetime_secs == 0));
    assert!(
        matches!(&back[1], NdOption::Rdnss { lifetime_secs: 0, servers }
        if servers == &["2001:db8::53".parse::<Ipv6Addr>().unwrap()])
    );
    assert!(
        matches!(&back[2], NdOption::Dnssl { lifetime_secs: 0, domains }
        if domains[0].as_str() == "example.org" && domains.len() == 1)
    );
    // Lifetimes and preferences may change without taking anything back.
    config = samples::port(Ipv6Mode::Slaac);
    config.ipv6[0].valid_lifetime_secs += 1;
    config.advertise.as_mut().unwrap().preference = Preference::Low;
    let new = RouterAdvertisement::of_port(&config).unwrap();
    assert_eq!(new.withdrawals(&old), []);
    // An address by SLAAC goes when the subnet becomes a stateful one.
    assert_eq!(of(Ipv6Mode::Dhcpv6Stateful).withdrawals(&old).len(), 1);
}

#[test]
fn the_last_one_takes_everything_back() {
    let last = of(Ipv6Mode::Slaac).ceased();
    assert_eq!(last.router_lifetime_secs, 0);
    for option in &last.options {
        assert!(
            option
                .withdrawn()
                .is_none_or(|withdrawn| withdrawn == *option),
            "{option:?}"
        );
    }
    assert_eq!(last.options.len(), of(Ipv6Mode::Slaac).options.len());
}

#[test]
fn many_options_go_into_several_messages_that_fit() {
    let mut config = samples::port(Ipv6Mode::Slaac);
    let subnet = config.ipv6[0].clone();
    config.ipv6.clear();
    for i in 0..16 {
        let mut subnet = subnet.clone();
        subnet.prefix = format!("2001:db8:{i}::/64").parse().unwrap();
        subnet.address = None;
        subnet.dns_servers = (0..8)
            .map(|j| format!("2001:db8:{i}::{j}").parse().unwrap())
            .collect();
        config.ipv6.push(subnet);
    }
    let long = [
        "a".repeat(60),
        "b".repeat(60),
        "c".repeat(60),
        "d".repeat(60),
    ]
    .join(".");
    config.dns_search = (0..3)
        .map(|i| format!("{i}.{long}").parse().unwrap())
        .collect();
    config.advertise.as_mut().unwrap().routes = (0..64)
        .map(|i| format!("2001:db8:{i}:1::1/128").parse().unwrap())
        .collect();
    assert_eq!(config.check(), Ok(()));
    let ra = RouterAdvertisement::of_port(&config).unwrap();
    let messages = ra.messages();
    assert!(messages.len() > 1);
    let mut options = Vec::new();
    for message in messages {
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
        let part = RouterAdvertisement::decode(&message).unwrap();
        assert_eq!(part.router_lifetime_secs, 9_000);
        options.extend(part.options);
    }
    assert_eq!(options, ra.options);
}

#[test]
fn truncations_are_malformed_or_shorter() {
    let bytes = of(Ipv6Mode::Slaac).encode();
    for len in 0..bytes.len() {
        if let Ok(ra) = RouterAdvertisement::decode(&bytes[..len]) {
            assert!(ra.options.len() < 7, "{len}");
        }
    }
}

#[test]
fn the_reserved_preference_counts_as_medium() {
    let mut bytes = of(Ipv6Mode::Slaac).encode();
    bytes[5] = 0x10;
    assert_eq!(
        RouterAdvertisement::decode(&bytes).unwrap().preference,
        Preference::Medium
    );
}

proptest! {
    #[test]
    fn round_trips(
        options in vec(any_option(), 0..6),
        hop_limit: u8,
        [managed, other]: [bool; 2],
        router_lifetime_secs: u16,
        [reachable_time_millis, retrans_timer_millis]: [u32; 2],
        preference in prop::sample::select(vec![Preference::Low, Preference::Medium, Preference::High]),
    ) {
        let ra = RouterAdvertisement {
            hop_limit, managed, other, preference, router_lifetime_secs, reachable_time_millis,
            retrans_timer_millis, options,
        };
        prop_assert_eq!(RouterAdvertisement::decode(&ra.encode()), Ok(ra));
    }
}
