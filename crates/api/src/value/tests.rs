use super::*;

fn check(kind: Kind, raw: Value) -> Result<Value> {
    Attribute::optional("a", kind, crate::describe::Default::Chosen).normalize(raw)
}

const ID: &str = "0C0A1F1E-8F2E-4B2A-9D5C-0A6F0A2B3C4D";

/// What is written, and its normal form.
fn scalars() -> Vec<(Kind, Value, Value)> {
    let id = ID;
    vec![
        (Kind::Bool, json!("True"), json!(true)),
        (Kind::Bool, json!(0), json!(false)),
        (Kind::Bool, json!("On"), json!(true)),
        (Kind::Bool, json!("n"), json!(false)),
        (Kind::Domain(63), json!("Web"), json!("web")),
        (Kind::Mac, json!("fa163e000001"), json!("fa:16:3e:00:00:01")),
        (
            Kind::Mac,
            json!("FA16.3E00.0001"),
            json!("fa:16:3e:00:00:01"),
        ),
        (Kind::Int(0, 9), json!("7"), json!(7)),
        (Kind::Uuid, json!(id), json!(id.to_lowercase())),
        (
            Kind::Mac,
            json!("FA-16-3E-00-00-01"),
            json!("fa:16:3e:00:00:01"),
        ),
        (Kind::Ip, json!("2001:DB8:0::1"), json!("2001:db8::1")),
        (Kind::Cidr, json!("10.0.0.7/24"), json!("10.0.0.0/24")),
        (
            Kind::Cidr,
            json!("10.0.0.7/255.255.255.0"),
            json!("10.0.0.0/24"),
        ),
        (Kind::Protocol, json!(6), json!("6")),
        (Kind::Protocol, json!(" 17 "), json!("17")),
        (Kind::Protocol, json!("0"), json!("0")),
        (Kind::Protocol, json!("IP"), json!("ip")),
        (Kind::Protocol, json!("TCP"), json!("tcp")),
        (Kind::Protocol, json!("ANY"), Value::Null),
        (Kind::Protocol, json!("icmpv6"), json!("ipv6-icmp")),
        (Kind::WrittenPrefix, json!(""), Value::Null),
        (Kind::WrittenPrefix, json!("10.0.0.5"), json!("10.0.0.5/32")),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.5/24"),
            json!("10.0.0.5/24"),
        ),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.5/255.255.255.0"),
            json!("10.0.0.5/24"),
        ),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.5/0.0.0.255"),
            json!("10.0.0.5/24"),
        ),
        (
            Kind::WrittenPrefix,
            json!("1.2.3.4/0.0.0.0"),
            json!("1.2.3.4/0"),
        ),
        (
            Kind::WrittenPrefix,
            json!("2001:DB8:0::1/ffff::"),
            json!("2001:db8::1/16"),
        ),
        (Kind::Ethertype, json!("ipv6"), json!("IPv6")),
        (Kind::PortNumber, json!("443"), json!(443)),
    ]
}

/// As [`scalars`].
fn lists() -> Vec<(Kind, Value, Value)> {
    let id = ID;
    vec![
        (
            Kind::FixedIps,
            json!([{"subnet_id": id}, {"subnet_id": id}]),
            json!([{"subnet_id": id.to_lowercase()}, {"subnet_id": id.to_lowercase()}]),
        ),
        (Kind::PortRange, json!(80), json!("80:80")),
        (Kind::PortRange, json!("80:90"), json!("80:90")),
        (Kind::Gateway, json!({}), Value::Null),
        (
            Kind::Gateway,
            json!({"network_id": id, "enable_snat": "False", "external_fixed_ips": null}),
            json!({"network_id": id.to_lowercase(), "enable_snat": false}),
        ),
        (Kind::Addresses, Value::Null, json!([])),
        (Kind::Tags, json!(["b", "a"]), json!(["a", "b"])),
        (
            Kind::AddressPairs,
            json!([{"ip_address": "10.0.0.5/32"}]),
            json!([{"ip_address": "10.0.0.5"}]),
        ),
        (
            Kind::DhcpOptions,
            json!([{"opt_name": "bootfile-name", "opt_value": "x"}]),
            json!([{"opt_name": "bootfile-name", "opt_value": "x", "ip_version": 4}]),
        ),
        (
            Kind::Nat44,
            json!({"pool_subnet_id": id}),
            json!({"pool_subnet_id": id.to_lowercase(), "addresses_per_host": 1,
                   "max_connections_per_port": 4096}),
        ),
        (
            Kind::Nat44,
            json!({}),
            json!({"pool_subnet_id": null, "addresses_per_host": 1, "max_connections_per_port": 4096}),
        ),
        (Kind::Metadata, json!({}), json!({})),
        (
            Kind::Metadata,
            json!({"hostname": "DB.example.org", "public_keys": {"a": " ssh-rsa AA a\n"},
                   "user_data": "aGV4dGV0", "meta": {"role": ""}}),
            json!({"hostname": "db.example.org", "public_keys": {"a": "ssh-rsa AA a"},
                   "user_data": "aGV4dGV0", "meta": {"role": ""}}),
        ),
        (Kind::Metadata, json!({"user_data": null}), json!({})),
    ]
}

#[test]
fn what_is_written_in_many_ways_has_one_normal_form() {
    for (kind, raw, normal) in scalars().into_iter().chain(lists()) {
        assert_eq!(check(kind, raw.clone()), Ok(normal), "{kind:?} {raw}");
    }
}

/// Kind, what is written, and the words that refuse it.
fn refusals() -> Vec<(Kind, Value, &'static str)> {
    vec![
        (
            Kind::Bool,
            json!("maybe"),
            "Invalid input for operation: 'maybe' cannot be converted to boolean.",
        ),
        (
            Kind::Text(3),
            json!("abcd"),
            "Invalid input for a. Reason: 'abcd' exceeds maximum length of 3.",
        ),
        (
            Kind::Text(3),
            json!(1),
            "Invalid input for a. Reason: '1' is not a valid string.",
        ),
        (
            Kind::Name(9),
            json!(" x"),
            "Invalid input for a. Reason: ' x' is not a valid string.",
        ),
        (
            Kind::Int(1, 9),
            json!(10),
            "Invalid input for a. Reason: '10' is too large - must be no larger than '9'.",
        ),
        (
            Kind::Int(1, 9),
            json!(true),
            "Invalid input for a. Reason: 'True' is not an integer.",
        ),
        (
            Kind::Uuid,
            json!("x"),
            "Invalid input for a. Reason: 'x' is not a valid UUID.",
        ),
        (
            Kind::Mac,
            json!("00:00:00:00:00:00"),
            "Invalid input for a. Reason: '00:00:00:00:00:00' is not a valid MAC address.",
        ),
        (
            Kind::Ip,
            json!("10.0.0.300"),
            "Invalid input for a. Reason: '10.0.0.300' is not a valid IP address.",
        ),
        (
            Kind::Cidr,
            json!("10.0.0.0"),
            "Invalid input for a. Reason: '10.0.0.0' is not a valid IP subnet.",
        ),
        (
            Kind::Uuids,
            json!("x"),
            "Invalid input for a. Reason: 'x' is not a list.",
        ),
        (
            Kind::Addresses,
            json!(["1.1.1.1", "1.1.1.1"]),
            "Invalid input for a. Reason: Duplicate nameserver '1.1.1.1'.",
        ),
    ]
}

/// As [`refusals`].
fn other_refusals() -> Vec<(Kind, Value, &'static str)> {
    vec![
        (
            Kind::FixedIps,
            json!([{"ip_address": "1.1.1.1"}, {"ip_address": "1.1.1.1"}]),
            "Invalid input for a. Reason: Duplicate IP address '1.1.1.1'.",
        ),
        (
            Kind::Metadata,
            json!({"keys": {}}),
            "Invalid input for a. Reason: Validation of dictionary's keys failed. Expected keys: \
             ['hostname', 'public_keys', 'user_data', 'meta'] Provided keys: ['keys'].",
        ),
        (
            Kind::Metadata,
            json!({"user_data": "hextet!"}),
            "Invalid input for a. Reason: 'user_data' has to be in Base64, as `base64 -w0 FILE` \
             writes it.",
        ),
        (
            Kind::Metadata,
            json!({"public_keys": {"a/b": "ssh-rsa AA"}}),
            "Invalid input for a. Reason: a name in 'public_keys' has 1 to 255 characters, without \
             '/', '=' and control characters.",
        ),
        (
            Kind::Metadata,
            json!({"public_keys": {"a": "ssh-rsa AA\nssh-rsa BB"}}),
            "Invalid input for a. Reason: a public key is one line, as in a file \
             ~/.ssh/id_ed25519.pub.",
        ),
        (
            Kind::Metadata,
            json!({"meta": []}),
            "Invalid input for a. Reason: 'meta' of '[]' is not a dictionary.",
        ),
        (
            Kind::DhcpOptions,
            json!([{"opt_name": "a\nb", "opt_value": "x"}]),
            "Invalid input for a. Reason: 'opt_name' needs 1 to 64 characters on one line.",
        ),
        (
            Kind::Mac,
            json!("fa16.3e00.001"),
            "Invalid input for a. Reason: 'fa16.3e00.001' is not a valid MAC address.",
        ),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.1/255.0.255.0"),
            "Invalid CIDR 10.0.0.1/255.0.255.0 given as IP prefix.",
        ),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.1/33"),
            "Invalid CIDR 10.0.0.1/33 given as IP prefix.",
        ),
        (
            Kind::WrittenPrefix,
            json!("10.0.0.1/"),
            "Invalid CIDR 10.0.0.1/ given as IP prefix.",
        ),
        (
            Kind::WrittenPrefix,
            json!("::/0.0.0.0"),
            "Invalid CIDR ::/0.0.0.0 given as IP prefix.",
        ),
    ]
}

/// As [`refusals`].
fn more_refusals() -> Vec<(Kind, Value, &'static str)> {
    vec![
        (
            Kind::PortNumber,
            json!(65536),
            "Invalid value for port 65536",
        ),
        (
            Kind::Choice(&["one", "two"]),
            json!("ONE"),
            "Invalid input for a. Reason: 'ONE' is not in ['one', 'two'].",
        ),
        (
            Kind::Domain(63),
            json!("web 1"),
            "Invalid input for a. Reason: 'web 1' is no domain name: labels of 1 to 63 letters, digits, \
             '-' and '_', joined by dots, at most 253 characters.",
        ),
        (
            Kind::Tags,
            json!(["a", ""]),
            "Invalid input for a. Reason: a tag has at least one character.",
        ),
        (
            Kind::HostRoutes,
            json!([{"destination": "10.0.0.0/8"}]),
            "Invalid input for a. Reason: Validation of dictionary's keys failed. Expected keys: \
             ['destination', 'nexthop'] Provided keys: ['destination'].",
        ),
    ]
}

#[test]
fn what_is_wrong_is_refused_in_neutron_s_words() {
    for (kind, raw, words) in refusals()
        .into_iter()
        .chain(more_refusals())
        .chain(other_refusals())
    {
        let error = check(kind, raw.clone()).unwrap_err();
        assert_eq!(
            (error.status, error.message.as_str()),
            (400, words),
            "{kind:?} {raw}"
        );
    }
}

#[test]
fn every_list_has_a_bound() {
    let many = |n: usize| {
        json!(
            (0..n)
                .map(|i| format!("10.0.{}.{}", i / 250, i % 250))
                .collect::<Vec<_>>()
        )
    };
    assert!(check(Kind::Addresses, many(MAX_LIST)).is_ok());
    assert!(check(Kind::Addresses, many(MAX_LIST + 1)).is_err());
    let tags = |n: usize| json!((0..n).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(check(Kind::Tags, tags(MAX_TAGS)).is_ok());
    assert!(check(Kind::Tags, tags(MAX_TAGS + 1)).is_err());
    assert!(check(Kind::Object, json!({"a": "x".repeat(4000)})).is_ok());
    assert!(check(Kind::Object, json!({"a": "x".repeat(4096)})).is_err());
}

#[test]
fn dhcp_options_that_follow_from_the_port_are_refused() {
    for name in ["51", "netmask", ""] {
        let option = json!([{"opt_name": name, "opt_value": "x"}]);
        assert!(check(Kind::DhcpOptions, option).is_err(), "{name}");
    }
}

#[test]
fn multicast_is_nobody_s_address() {
    for address in ["224.0.0.5", "ff02::1", "239.0.0.0/8"] {
        assert!(
            check(Kind::AddressPairs, json!([{"ip_address": address}])).is_err(),
            "{address}"
        );
    }
    assert!(check(Kind::AddressPairs, json!([{"ip_address": "0.0.0.0/0"}])).is_ok());
}

proptest::proptest! {
    #[test]
    fn normal_forms_stay_as_they_are(text in "\\PC{0,20}", number: i64) {
        let kinds = [
            Kind::Bool, Kind::Int(-5, 5), Kind::Uuid, Kind::Mac, Kind::Ip, Kind::Cidr,
            Kind::Protocol, Kind::WrittenPrefix, Kind::Ethertype, Kind::PortNumber, Kind::Tags, Kind::Object, Kind::Name(9),
        ];
        for kind in kinds {
            for raw in [json!(text), json!(number), json!([text]), json!({"k": text}), Value::Null] {
                if let Ok(normal) = check(kind, raw) && !normal.is_null() {
                    proptest::prop_assert_eq!(check(kind, normal.clone()), Ok(normal));
                }
            }
        }
    }
}

#[test]
fn metadata_has_its_bounds() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let user_data = |octets| json!({"user_data": BASE64_STANDARD.encode(vec![7; octets])});
    assert!(check(Kind::Metadata, user_data(super::MAX_USER_DATA)).is_ok());
    assert!(check(Kind::Metadata, user_data(super::MAX_USER_DATA + 1)).is_err());
    let of = |name: &str, count: usize| {
        let pairs = (0..count).map(|n| (n.to_string(), json!("x")));
        json!({name: pairs.collect::<serde_json::Map<_, _>>()})
    };
    for (name, most) in [("public_keys", 32), ("meta", 128)] {
        assert!(check(Kind::Metadata, of(name, most)).is_ok(), "{name}");
        assert!(check(Kind::Metadata, of(name, most + 1)).is_err(), "{name}");
    }
}
