use std::net::IpAddr;

use hextet_types::Prefix;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    certificate::{Certificate, NodeId},
    parameters::{Change, Parameters},
    signed::{Body, Signed},
    trust::tests::Authority,
};

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn groups(names: &[&str]) -> Who {
    Who::Groups(names.iter().map(|name| label(name)).collect())
}

fn node(number: u64, names: &[&str]) -> Certificate {
    Authority::new(1)
        .issue(|certificate| {
            certificate.node = NodeId(number);
            certificate.prefixes = vec![format!("2001:db8:{number:x}::/64").parse().unwrap()];
            certificate.ipv4 = Some(format!("10.0.0.{number}/32").parse().unwrap());
            certificate.groups = names.iter().map(|name| label(name)).collect();
        })
        .body
}

/// What becomes of a packet, by a filter: what nftables is to do.
fn judge(filter: &Filter, from: IpAddr, service: (u8, u16)) -> Verdict {
    let has = |set: &std::collections::BTreeSet<Prefix>| set.iter().any(|p| p.contains(from));
    let fits = |clause: &&Clause| {
        let source = match clause.source {
            Source::Any => true,
            Source::Set(place) => has(&filter.sets[place]),
            Source::SetOrUnknown(place) => has(&filter.sets[place]) || !has(&filter.known),
        };
        let to = |ports: &Ports| {
            let within = |(first, last): &(u16, u16)| (*first..=*last).contains(&service.1);
            ports.ranges().is_empty() || ports.ranges().iter().any(within)
        };
        source
            && match &clause.service {
                Service::Any => true,
                Service::Icmp => [1, 58].contains(&service.0),
                Service::Tcp(ports) => service.0 == 6 && to(ports),
                Service::Udp(ports) => service.0 == 17 && to(ports),
                Service::Other(protocol) => service.0 == *protocol,
            }
    };
    let first = filter.clauses.iter().find(fits);
    first.map_or(filter.default, |clause| clause.verdict)
}

fn rule(from: Who, to: Who, service: Service, verdict: Verdict) -> Rule {
    Rule {
        from,
        to,
        service,
        verdict,
    }
}

#[test]
fn who_gets_in_and_who_does_not() {
    let sql = Service::Tcp(Ports::new([5432..=5432]).unwrap());
    let web = Service::Tcp(Ports::new([80..=80, 443..=443]).unwrap());
    let rules = Rules {
        list: vec![
            rule(groups(&["guest"]), Who::Any, Service::Any, Verdict::Deny),
            rule(groups(&["web"]), groups(&["db"]), sql, Verdict::Allow),
            rule(Who::Any, groups(&["web"]), web, Verdict::Allow),
            rule(Who::Any, Who::Any, Service::Icmp, Verdict::Allow),
        ],
        default: Verdict::Deny,
    };
    let (web, db, guest) = (
        node(1, &["web"]),
        node(2, &["db"]),
        node(3, &["guest", "web"]),
    );
    let plain = node(4, &[]);
    let all = [&web, &db, &guest, &plain];
    let at_db = compile(&rules, &db, all);
    assert_eq!(
        at_db.own,
        [
            "2001:db8:2::/64".parse().unwrap(),
            "10.0.0.2/32".parse().unwrap()
        ]
    );
    let at_web = compile(&rules, &web, all);
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);
    let (sql, http, ping, ping6) = ((6, 5432), (6, 80), (1, 0), (58, 0));
    for (filter, from, service, expected) in [
        (&at_db, 1, sql, allow),
        (&at_db, 1, http, deny),
        (&at_db, 3, sql, deny),
        (&at_db, 4, sql, deny),
        (&at_db, 4, ping, allow),
        (&at_db, 4, ping6, allow),
        (&at_db, 3, ping6, deny),
        (&at_web, 4, http, allow),
        (&at_web, 3, http, deny),
        // Nobody knows who that is: perhaps a guest.
        (&at_web, 9, http, deny),
        (&at_db, 9, sql, deny),
        (&at_db, 9, ping, deny),
    ] {
        for addr in [format!("2001:db8:{from}::7"), format!("10.0.0.{from}")] {
            let judged = judge(filter, addr.parse().unwrap(), service);
            assert_eq!(judged, expected, "from {addr}: {service:?}");
        }
    }
    // As many rules for a thousand nodes as for four, and no more sets than groups are named.
    let many: Vec<_> = (1..1_000).map(|n| node(n % 250 + 1, &["web"])).collect();
    let filter = compile(&rules, &db, &many);
    assert_eq!((filter.clauses.len(), filter.sets.len()), (3, 2));
    assert_eq!(compile(&Rules::default(), &db, all).clauses, []);
}

fn any_who() -> impl Strategy<Value = Who> {
    vec("[a-z]{1,4}", 0..=MAX_GROUPS).prop_map(|mut names| {
        names.sort();
        names.dedup();
        let labels: Vec<Label> = names.iter().map(|name| label(name)).collect();
        match labels.is_empty() {
            true => Who::Any,
            false => Who::Groups(labels),
        }
    })
}

fn any_ports() -> impl Strategy<Value = Ports> {
    let ranges = vec((any::<u16>(), 0_u16..99), 0..=MAX_PORTS);
    ranges.prop_map(|ranges| {
        let ranges = ranges.into_iter();
        Ports::new(ranges.map(|(first, more)| first..=first.saturating_add(more))).unwrap()
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let service = prop_oneof![
        Just(Service::Any),
        Just(Service::Icmp),
        any_ports().prop_map(Service::Tcp),
        any_ports().prop_map(Service::Udp),
        (59_u8..).prop_map(Service::Other),
    ];
    let verdict =
        || any::<bool>().prop_map(|deny| if deny { Verdict::Deny } else { Verdict::Allow });
    let parts = (any_who(), any_who(), service, verdict());
    let one = parts.prop_map(|(from, to, service, verdict)| rule(from, to, service, verdict));
    (vec(one, 0..=MAX_RULES), verdict()).prop_map(|(list, default)| Rules { list, default })
}

proptest! {
    #[test]
    fn rules_are_signed_with_the_parameters(rules in any_rules()) {
        let authority = Authority::new(1);
        let parameters = Parameters { rules, ..authority.parameters(1) };
        prop_assert_eq!(parameters.check(), Ok(()));
        let signed = Signed::sign(parameters, &authority.issuing);
        let octets = signed.encode();
        prop_assert!(octets.len() <= Parameters::MAX_LEN);
        prop_assert_eq!(Signed::decode(&octets), Ok(signed));
    }

    /// Nobody unknown gets in where somebody known, whoever that may be, is kept out.
    #[test]
    fn who_is_unknown_may_do_no_more_than_anybody(
        rules in any_rules(), port in any::<u16>(), protocol in any::<u8>(), mine in any_who()
    ) {
        let named = |who: &Who| match who {
            Who::Any => Vec::new(),
            Who::Groups(groups) => groups.clone(),
        };
        let mut own = node(1, &[]);
        own.groups = named(&mine);
        let mut filter = compile(&rules, &own, []);
        let service = (protocol, port);
        let stranger: IpAddr = "2001:db8:77::1".parse().unwrap();
        if judge(&filter, stranger, service) == Verdict::Allow {
            for who in rules.list.iter().map(|rule| &rule.from) {
                let mut member = node(0x77, &[]);
                member.groups = named(who);
                filter = compile(&rules, &own, [&member]);
                prop_assert_eq!(judge(&filter, stranger, service), Verdict::Allow);
            }
        }
    }
}

#[test]
fn no_rules_are_no_octets_and_bad_ones_are_not_read() {
    let authority = Authority::new(1);
    let without = Signed::sign(authority.parameters(1), &authority.issuing).encode();
    let mut with = authority.parameters(1);
    with.rules.default = Verdict::Deny;
    assert_eq!(authority.parameters(1).changes(&with), [Change::Rules]);
    let denied = Signed::sign(with, &authority.issuing).encode();
    assert_eq!(denied.len(), without.len() + 2);
    let mut second_way = without.clone();
    let end = without.len() - 72;
    second_way.splice(end..end, [0, 0]);
    assert!(Signed::<Parameters>::decode(&second_way).is_err());
    let bad = |octets: &[u8]| Rules::read(&mut Reader::new(octets)).is_err();
    assert!(bad(&[2, 0]) && bad(&[0, 65]) && bad(&[0, 1, 0, 0, 0, 9]));
    assert!(bad(&[0, 1, 0, 0, 0, OTHER_SERVICE, TCP]));
    assert!(
        bad(&[0, 1, 0, 0, 0, TCP_SERVICE, 1, 0, 9, 0, 8]),
        "turned around"
    );
    assert!(
        bad(&[0, 1, 0, 0, 0, TCP_SERVICE, 2, 0, 8, 0, 9, 0, 10, 0, 11]),
        "touching"
    );
    assert!(bad(&[0, 1, 0, 2, 1, b'b', 1, b'a', 0, 0]), "not in order");
    assert!(!bad(&[0, 1, 0, 2, 1, b'a', 1, b'b', 0, 0]));
}
