//! What tests tell workloads.

use std::collections::BTreeMap;

use hextet_types::Mac;

use crate::document::{Address, Facts, Link, Source};

/// A workload with two keys and three addresses.
pub fn facts() -> Facts {
    let strings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let address = |text: &str, subnet: &str, source, gateway: Option<&str>| Address {
        address: text.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        source,
        gateway: gateway.map(|g| g.parse().unwrap()),
        routes: Vec::new(),
    };
    Facts {
        instance_id: "5b1a".to_owned(),
        project_id: "p".to_owned(),
        hostname: "web-1.example.net".to_owned(),
        public_keys: strings(&[
            ("alice", "ssh-ed25519 AAAA alice"),
            ("bob", "ssh-rsa BBBB bob"),
        ]),
        meta: strings(&[("role", "web")]),
        user_data: Some(b"#!/bin/sh\n\xff".to_vec()),
        availability_zone: "nova".to_owned(),
        link: Link {
            port_id: "c0de".to_owned(),
            name: "tapc0de".to_owned(),
            mac: Mac::new([2, 0, 0, 0, 0, 7]),
            mtu: 1430,
            network_id: "feed".to_owned(),
            addresses: vec![
                address("10.0.0.7", "10.0.0.0/24", Source::Dhcp, Some("10.0.0.1")),
                address("2001:db8::7", "2001:db8::/64", Source::Slaac, None),
                address(
                    "192.0.2.7",
                    "192.0.2.0/26",
                    Source::Static,
                    Some("192.0.2.1"),
                ),
            ],
            dns_servers: vec!["2001:db8::53".parse().unwrap()],
        },
        by_nova: false,
    }
}
