//! For tests: frames as real clients sent them, and a port that they could come from.

use hextet_types::Mac;

use crate::{
    ExtraOption, PortConfig,
    config::{Advertise, Delegation, HostRoute, Ipv4Subnet, Ipv6Mode, Ipv6Subnet, LINK_LOCAL},
    nd::Preference,
};

pub(crate) const GUEST: Mac = Mac::new([0xfa, 0x16, 0x3e, 0xaa, 0xbb, 0xcc]);
pub(crate) const HOST: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

/// Hexadecimal octets, with `NN*COUNT` for repeated ones; white space is for the reader.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let (digits, count) = word.split_once('*').unwrap_or((word, "1"));
        let part: Vec<u8> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        out.extend(part.repeat(count.parse().unwrap()));
    }
    out
}

/// Linux 6.18, as it brings the link up.
pub(crate) fn kernel_rs() -> Vec<u8> {
    octets(
        "333300000002 fa163eaabbcc 86dd 60000000 0010 3aff fe80000000000000f8163efffeaabbcc \
         ff020000000000000000000000000002 85009612 00000000 0101fa163eaabbcc",
    )
}

/// rdisc6 1.0.5: no options.
pub(crate) fn rdisc6_rs() -> Vec<u8> {
    octets(
        "333300000002 fa163eaabbcc 86dd 600c07b4 0008 3aff fe80000000000000f8163efffeaabbcc \
         ff020000000000000000000000000002 85008ba9 00000000",
    )
}

/// ISC dhclient 4.4.3: DHCPDISCOVER.
pub(crate) fn dhclient_discover() -> Vec<u8> {
    octets(
        "ffffffffffff fa163eaabbcc 0800 4510 0148 0000 0000 8011 3996 00000000 ffffffff \
         0044 0043 0134 b80a 01010600 c5053029 0000 0000 00*16 fa163eaabbcc 00*10 00*192 63825363 \
         350101 370a011c79030f06770c1a2a ff 00*44",
    )
}

/// ISC dhclient 4.4.3: DHCPREQUEST, SELECTING.
pub(crate) fn dhclient_request() -> Vec<u8> {
    octets(
        "ffffffffffff fa163eaabbcc 0800 4510 0148 0000 0000 8011 3996 00000000 ffffffff \
         0044 0043 0134 5e1e 01010600 c5053029 0000 0000 00*16 fa163eaabbcc 00*10 00*192 63825363 \
         350103 3604c0000201 3204c000024d 370a011c79030f06770c1a2a ff 00*32",
    )
}

/// BusyBox udhcpc 1.35: DHCPDISCOVER with client identifier, vendor class and maximum size.
pub(crate) fn udhcpc_discover() -> Vec<u8> {
    octets(
        "ffffffffffff fa163eaabbcc 0800 4500 0148 0000 0000 4011 79a6 00000000 ffffffff \
         0044 0043 0134 2fda 01010600 30981812 0000 0000 00*16 fa163eaabbcc 00*10 00*192 63825363 \
         350101 39020240 370a0103060c0f1a1c2a7779 3c0c756468637020312e33352e30 \
         3d0701fa163eaabbcc ff 00*17",
    )
}

/// ISC dhclient 4.4.3: Solicit. Its kernel left the checksum to hardware.
pub(crate) fn dhclient_solicit() -> Vec<u8> {
    octets(
        "333300010002 fa163eaabbcc 86dd 600bb169 003e 1101 fe80000000000000f8163efffeaabbcc \
         ff020000000000000000000000010002 0222 0223 003e ef63 01 4e91eb \
         0001000e000100013293cd3efa163eaabbcc 0006000600170018001f 000800020000 \
         0003000c3eaabbcc00000e1000001518",
    )
}

/// ISC dhclient 4.4.3: Request, with an address that is `2001:db8:1:2::77`.
pub(crate) fn dhclient_request6() -> Vec<u8> {
    octets(
        "333300010002 fa163eaabbcc 86dd 600bb169 0068 1101 fe80000000000000f8163efffeaabbcc \
         ff020000000000000000000000010002 0222 0223 0068 ef8d 03 98e3df \
         0001000e000100013293cd3efa163eaabbcc 0002000a00030001020000000001 \
         0006000600170018001f 000800020000 000300283eaabbcc00000e1000001518 \
         0005001820010db800010002000000000000007700001c2000001d4c",
    )
}

/// ISC dhclient 4.4.3: Information-request.
pub(crate) fn dhclient_information_request() -> Vec<u8> {
    octets(
        "333300010002 fa163eaabbcc 86dd 600bb169 002a 1101 fe80000000000000f8163efffeaabbcc \
         ff020000000000000000000000010002 0222 0223 002a ef4f 0b 7b23c6 \
         0001000a00030001fa163eaabbcc 0006000600170018001f 000800020000",
    )
}

/// All of them.
pub(crate) fn all() -> Vec<Vec<u8>> {
    vec![
        kernel_rs(),
        rdisc6_rs(),
        dhclient_discover(),
        dhclient_request(),
        udhcpc_discover(),
        dhclient_solicit(),
        dhclient_request6(),
        dhclient_information_request(),
    ]
}

/// A port with everything.
pub(crate) fn port(mode: Ipv6Mode) -> PortConfig {
    let address = Some("2001:db8:1:2::77".parse().unwrap());
    let mut v6 = Ipv6Subnet::new("2001:db8:1:2::/64".parse().unwrap(), mode, address);
    v6.dns_servers = vec!["2001:db8::53".parse().unwrap()];
    let prefix = "192.0.2.0/25".parse().unwrap();
    let mut v4 = Ipv4Subnet::new("192.0.2.77".parse().unwrap(), prefix);
    v4.gateway = Some("192.0.2.1".parse().unwrap());
    v4.dns_servers = vec!["198.51.100.53".parse().unwrap()];
    v4.host_routes = vec![HostRoute {
        destination: "169.254.169.254/32".parse().unwrap(),
        nexthop: "192.0.2.2".parse().unwrap(),
    }];
    PortConfig {
        host_mac: HOST,
        guest_mac: GUEST,
        link_local: LINK_LOCAL,
        mtu: 1_500,
        hostname: Some("web-1".parse().unwrap()),
        dns_domain: Some("cloud.example".parse().unwrap()),
        dns_search: vec!["example.org".parse().unwrap()],
        ntp_servers: vec![
            "2001:db8::123".parse().unwrap(),
            "198.51.100.123".parse().unwrap(),
        ],
        advertise: Some(Advertise {
            default_router: true,
            preference: Preference::High,
            routes: vec!["2001:db8:ff00::/40".parse().unwrap()],
            pref64: Some("64:ff9b::/96".parse().unwrap()),
        }),
        ipv6: vec![v6],
        delegated: vec![Delegation {
            prefix: "2001:db8:77::/56".parse().unwrap(),
            valid_lifetime_secs: 7_200,
            preferred_lifetime_secs: 3_600,
        }],
        ipv4: vec![v4],
        ipv6_only_wait_secs: None,
        extra_dhcp_opts: vec![
            ExtraOption::parse("tftp-server", "boot.example", 4).unwrap(),
            ExtraOption::parse("bootfile-url", "tftp://[2001:db8::1]/boot", 6).unwrap(),
        ],
    }
}
