use proptest::prelude::*;

use super::*;
use crate::samples::octets;

/// Name, value, family, and what is sent.
#[rustfmt::skip]
const VALUES: &[(&str, &str, u8, u16, &str)] = &[
    ("mtu", "1400", 4, 26, "0578"),
    ("26", "1400", 4, 26, "0578"),
    ("MTU", "1400", 4, 26, "0578"),
    ("dns-server", "192.0.2.1, 192.0.2.2", 4, 6, "c0000201 c0000202"),
    ("dns-server", "2001:db8::1,[2001:db8::2]", 6, 23, "20010db8 00*11 01 20010db8 00*11 02"),
    ("domain-name", "cloud.example", 4, 15, "636c6f75642e6578616d706c65"),
    ("domain-search", "a.b,c", 4, 119, "0161016200 016300"),
    ("domain-search", "a.b,c", 6, 24, "0161016200 016300"),
    ("ntp-server", "192.0.2.1", 4, 42, "c0000201"),
    ("ntp-server", "2001:db8::1,a.b,ff05::101", 6, 56, "00010010 20010db8 00*11 01 00030005 0161016200 00020010 ff05 00*12 0101"),
    ("sntp-server", "2001:db8::1", 6, 31, "20010db8 00*11 01"),
    ("bootfile-name", "pxelinux.0", 4, 67, "7078656c696e75782e30"),
    ("67", "pxelinux.0", 4, 67, "7078656c696e75782e30"),
    ("tftp-server", "192.0.2.1", 4, 66, "3139322e302e322e31"),
    ("tftp-server-address", "192.0.2.1", 4, 150, "c0000201"),
    ("150", "192.0.2.1", 4, 150, "c0000201"),
    ("server-ip-address", "192.0.2.1", 4, 255, "c0000201"),
    ("bootfile-url", "tftp://[::1]/a", 6, 59, "746674703a2f2f5b3a3a315d2f61"),
    ("bootfile-param", "a,bc", 6, 60, "0001 61 0002 6263"),
    ("lease-time", "1h", 4, 51, "00000e10"),
    ("lease-time", "90", 4, 51, "0000005a"),
    ("lease-time", "infinite", 4, 51, "ffffffff"),
    ("T1", "2d", 4, 58, "0002a300"),
    ("information-refresh-time", "1w", 6, 32, "00093a80"),
    ("time-offset", "-3600", 4, 2, "fffff1f0"),
    ("ip-forward-enable", "1", 4, 19, "01"),
    ("default-ttl", "0x40", 4, 23, "40"),
    ("static-route", "10.0.0.1,192.0.2.1", 4, 33, "0a000001 c0000201"),
    ("classless-static-route", "10.0.0.0/8,192.0.2.1,0.0.0.0/0,192.0.2.2", 4, 121, "08 0a c0000201 00 c0000202"),
    ("121", "169.254.169.254,192.0.2.1", 4, 121, "20 a9fea9fe c0000201"),
    ("ipv6-only", "1800", 4, 108, "00000708"),
    ("vendor-encap", "06:01:0f", 4, 43, "06010f"),
    // Without a type: what it looks like.
    ("224", "7", 4, 224, "07"),
    ("224", "700", 4, 224, "02bc"),
    ("224", "70000", 4, 224, "00011170"),
    ("224", "192.0.2.1", 4, 224, "c0000201"),
    ("224", "a text", 4, 224, "612074657874"),
    ("1234", "2001:db8::1", 6, 1234, "20010db8 00*11 01"),
    // Takes an option away.
    ("router", "", 4, 3, ""),
];

#[test]
fn values_are_encoded_by_their_type() {
    for (name, value, ip_version, code, data) in VALUES {
        let option = ExtraOption::parse(name, value, *ip_version);
        let option = option.unwrap_or_else(|e| panic!("{name}={value}: {e}"));
        assert_eq!(option.code(), *code, "{name}");
        assert_eq!(option.data(), octets(data), "{name}={value}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_reason() {
    let long = "a".repeat(256);
    for (name, value, ip_version, reason) in [
        ("mtu", "1400", 5, "ip_version 5 is neither 4 nor 6"),
        (
            "no-such-option",
            "1",
            4,
            "'no-such-option' is no IPv4 DHCP option",
        ),
        ("bootfile-url", "a", 4, "no IPv4 DHCP option"),
        ("mtu", "1400", 6, "no IPv6 DHCP option"),
        ("0", "1", 4, "no IPv4 DHCP option"),
        ("255", "1", 4, "no IPv4 DHCP option"),
        ("256", "1", 4, "no IPv4 DHCP option"),
        ("65536", "1", 6, "no IPv6 DHCP option"),
        ("53", "1", 4, "the protocol's own"),
        ("message-type", "1", 4, "the protocol's own"),
        ("client-id", "1", 4, "the protocol's own"),
        ("3", "1", 6, "the protocol's own"),
        ("mtu", "65536", 4, "between 0 and 65535"),
        ("mtu", "many", 4, "between 0 and 65535"),
        ("default-ttl", "256", 4, "between 0 and 255"),
        ("dns-server", "2001:db8::1", 4, "an IPv4 address"),
        ("dns-server", "192.0.2.1", 6, "an IPv6 address"),
        ("dns-server", "192.0.2.1,", 4, "an IPv4 address"),
        ("netmask", "255.0.0.0,255.0.0.0", 4, "an IPv4 address"),
        ("domain-search", "a..b", 4, "domain names"),
        ("lease-time", "1y", 4, "seconds, or a number with"),
        ("lease-time", "9999999w", 4, "seconds, or a number with"),
        ("static-route", "10.0.0.1", 4, "pairs of IPv4 addresses"),
        ("121", "10.0.0.0/8", 4, "a destination and its router"),
        (
            "121",
            "2001:db8::/64,192.0.2.1",
            4,
            "a destination and its router",
        ),
        ("bootfile-name", "a\u{7}b", 4, "without control characters"),
        ("bootfile-name", &long, 4, "256 octets"),
        ("ntp-server", "a..b", 6, "IPv6 addresses or domain names"),
        ("time-offset", "noon", 4, "seconds between"),
    ] {
        let error = ExtraOption::parse(name, value, ip_version)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(reason),
            "'{error}' says nothing of '{reason}'"
        );
    }
}

#[test]
fn json_is_neutron_s() {
    let text = r#"{"opt_name":"bootfile-name","opt_value":"pxelinux.0","ip_version":4}"#;
    let option: ExtraOption = serde_json::from_str(text).unwrap();
    assert_eq!(option.code(), 67);
    assert_eq!(serde_json::to_string(&option).unwrap(), text);
    let bad = text.replace("bootfile-name", "bootfile");
    let error = serde_json::from_str::<ExtraOption>(&bad)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("'bootfile' is no IPv4 DHCP option"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(name in "\\PC{0,12}|[0-9]{1,5}", value in "\\PC{0,40}|[0-9.:,/a-f]{0,40}", ip_version in 4..=6_u8) {
        if let Ok(option) = ExtraOption::parse(&name, &value, ip_version) {
            prop_assert!(option.data().len() <= 255);
            let text = serde_json::to_string(&option).unwrap();
            prop_assert_eq!(serde_json::from_str::<ExtraOption>(&text).unwrap(), option);
        }
    }
}
