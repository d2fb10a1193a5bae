use hextet_model::intent::{Change, Joined};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn network() -> NetworkId {
    NetworkId(Uuid::from_u128(1))
}

fn port(n: u128) -> Port {
    let port = json!({
        "id": Uuid::from_u128(n), "network_id": network(), "mac_address": "02:00:00:00:00:01",
        "fixed_ips": [{"subnet_id": network(), "ip_address": "10.0.0.1"}], "security_groups": [], "port_security_enabled": true, "device_owner": "",
        "project_id": "p", "revision_number": 0, "admin_state_up": true, "status": "DOWN",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(port).expect("a port")
}

fn group(n: u8) -> IpAddr {
    [239, 0, 0, n].into()
}

fn intent(ports: &[u128], joined: &[(u128, u8)]) -> Intent {
    let mut intent = Intent::default();
    for n in ports {
        intent.apply(Change::PutPort(Box::new(port(*n))));
    }
    for (n, of) in joined {
        let one = Joined {
            mac: port(*n).mac_address,
            addr: [10, 0, 0, 1].into(),
        };
        let all = [(port(*n).id, one)].into();
        intent.apply(Change::PutAudience(network(), group(*of), all));
    }
    intent
}

fn says(all: &[(u8, bool)]) -> Report {
    all.iter().map(|(n, joined)| (group(*n), *joined)).collect()
}

fn groups(all: &[u8]) -> BTreeSet<IpAddr> {
    all.iter().map(|n| group(*n)).collect()
}

#[test]
fn what_is_said_counts_until_it_is_said_otherwise_or_not_at_all() {
    let now = Instant::now();
    let after = |secs| now + Duration::from_secs(secs);
    let mut joins = Joins::new(now);
    let intent = intent(&[1], &[]);
    let hear = |joins: &mut Joins, all: &[(u8, bool)], secs| {
        joins.hear(&port(1), &intent, &says(all), after(secs))
    };
    assert_eq!(
        hear(&mut joins, &[(1, true), (2, true)], 0),
        Some(groups(&[1, 2]))
    );
    assert_eq!(hear(&mut joins, &[(1, true)], 125), None, "known");
    assert_eq!(hear(&mut joins, &[(9, false)], 125), None, "never joined");
    assert_eq!(
        hear(&mut joins, &[(3, true)], 130),
        Some(groups(&[1, 2, 3]))
    );
    assert_eq!(hear(&mut joins, &[(3, false)], 131), Some(groups(&[1, 2])));
    let all: Report = [
        IpAddr::from([224, 0, 0, 1]),
        "ff02::1:ff00:1".parse().unwrap(),
    ]
    .map(|group| (group, true))
    .into();
    assert_eq!(joins.hear(&port(1), &intent, &all, after(131)), None);
    assert_eq!(joins.look(&intent, after(259)), []);
    assert_eq!(joins.look(&intent, after(262)), [], "not so soon again");
    assert_eq!(
        joins.look(&intent, after(270)),
        [(port(1).id, groups(&[1]))]
    );
    assert_eq!(joins.look(&intent, after(385)), [(port(1).id, groups(&[]))]);
    let none = super::tests::intent(&[], &[]);
    assert_eq!(joins.look(&none, after(400)), []);
    assert!(joins.ports.is_empty());
}

#[test]
fn a_restart_begins_with_what_is_known() {
    let now = Instant::now();
    let after = |secs| now + Duration::from_secs(secs);
    let intent = intent(&[1, 2], &[(1, 1), (2, 2), (3, 3)]);
    let mut joins = Joins::new(now);
    let heard = joins.hear(&port(1), &intent, &says(&[(1, true)]), now);
    assert_eq!(heard, None, "it goes on");
    assert_eq!(joins.look(&intent, after(10)), []);
    let heard = joins.hear(&port(1), &intent, &says(&[(1, false)]), after(11));
    assert_eq!(heard, Some(groups(&[])));
    assert_eq!(
        joins.look(&intent, after(30)),
        [],
        "the server knows it later"
    );
    let mut intent = intent;
    intent.apply(Change::RemoveAudience(network(), group(1)));
    let mut later = intent.clone();
    later.apply(Change::PutStandby(port(2).id));
    assert_eq!(joins.look(&later, after(280)), [], "it is not here");
    assert_eq!(joins.look(&intent, after(530)), []);
    assert_eq!(joins.look(&intent, after(545)), [(port(2).id, groups(&[]))]);
}

/// The server had no room, or a port's changes were too many for it.
#[test]
fn what_others_do_not_know_is_said_again_and_ever_more_rarely() {
    let now = Instant::now();
    let after = |secs| now + Duration::from_secs(secs);
    let mut joins = Joins::new(now);
    let none = intent(&[1], &[]);
    let ipv6 = "ff02::fb".parse().unwrap();
    let mut all = says(&[(1, true), (2, true)]);
    all.insert(ipv6, true);
    let expected: BTreeSet<IpAddr> = all.keys().copied().collect();
    let heard = joins.hear(&port(1), &none, &all, now);
    assert_eq!(heard.as_ref(), Some(&expected));
    let some = intent(&[1], &[(1, 1)]);
    let said = |joins: &mut Joins, intent: &Intent, secs: std::ops::Range<u64>| -> Vec<u64> {
        let mut all_said = Vec::new();
        for secs in secs {
            // It answers questions all the time, and that is nothing new.
            assert_eq!(joins.hear(&port(1), intent, &all, after(secs)), None);
            let said = joins.look(intent, after(secs));
            assert!(said.iter().all(|(_, groups)| *groups == expected));
            all_said.extend(said.iter().map(|_| secs));
        }
        all_said
    };
    let times = said(&mut joins, &some, 0..3_600);
    assert_eq!(times[..6], [10, 20, 40, 80, 160, 280]);
    assert_eq!(times.len(), 6 + (3_600 - 280) / 120);
    // Now there is room: nothing more is said, as the port has no address of IPv6.
    let both = intent(&[1], &[(1, 1), (1, 2)]);
    assert!(said(&mut joins, &both, 3_600..3_900).is_empty());
    // What it has left, but is still told.
    let more = intent(&[1], &[(1, 1), (1, 2), (1, 3)]);
    assert_eq!(said(&mut joins, &more, 3_900..3_915), [3_905]);
}

#[test]
fn a_port_that_goes_and_comes_back_begins_anew() {
    let now = Instant::now();
    let there = intent(&[1], &[]);
    let mut joins = Joins::new(now);
    let all = says(&[(1, true)]);
    assert_eq!(joins.hear(&port(1), &there, &all, now), Some(groups(&[1])));
    assert_eq!(joins.look(&intent(&[], &[]), now), []);
    assert_eq!(joins.hear(&port(1), &there, &all, now), Some(groups(&[1])));
    // Nor are the two the same for whoever tells them.
    let [one, other] = [(); 2].map(|()| joins.saying(groups(&[1])));
    assert_ne!(one, other);
}

#[test]
fn what_is_joined_where_a_port_migrates_to_is_said_again_once_it_is_there() {
    let now = Instant::now();
    let after = |secs| now + Duration::from_secs(secs);
    let mut joins = Joins::new(now);
    let home = intent(&[1], &[(1, 1)]);
    let mut standby = home.clone();
    standby.apply(Change::PutStandby(port(1).id));
    assert_eq!(joins.look(&standby, after(5)), []);
    let heard = joins.hear(&port(1), &standby, &says(&[(2, true)]), after(6));
    assert_eq!(heard, Some(groups(&[1, 2])));
    for secs in 7..60 {
        assert_eq!(joins.look(&standby, after(secs)), []);
    }
    // Where it was it has joined one more meanwhile.
    standby.apply(Change::PutAudience(
        network(),
        group(3),
        home.audiences[&(network(), group(1))].clone(),
    ));
    assert_eq!(joins.look(&standby, after(60)), []);
    standby.apply(Change::RemoveStandby(port(1).id));
    let said: Vec<_> = (61..75)
        .flat_map(|secs| joins.look(&standby, after(secs)))
        .collect();
    assert_eq!(said, [(port(1).id, groups(&[1, 2, 3]))]);
}

#[test]
fn a_port_joins_so_many_and_no_more() {
    let now = Instant::now();
    let intent = intent(&[1], &[]);
    let all: Vec<(u8, bool)> = (0..100).map(|n| (n, true)).collect();
    let mut joins = Joins::new(now);
    let heard = joins.hear(&port(1), &intent, &says(&all), now);
    assert_eq!(heard.map(|h| h.len()), Some(Memberships::MAX_GROUPS));
}
