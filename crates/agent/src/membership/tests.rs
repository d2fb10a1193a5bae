use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [2, 3, 4, 5, 6, 7];

fn v4(message: &[u8]) -> Vec<u8> {
    let length = (24 + message.len()) as u8;
    let mut packet = vec![0x46, 0, 0, length, 0, 0, 0, 0, 1, IGMP, 0, 0, 10, 0, 0, 5];
    packet.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
    packet.extend(message);
    [&[1, 0, 0x5e, 0, 0, 22][..], &MAC, &IPV4, &packet].concat()
}

fn v6(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, (8 + message.len()) as u8, HOP_BY_HOP, 1];
    packet.extend([0; 16]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22]);
    packet.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    packet.extend(message);
    [&[0x33, 0x33, 0, 0, 0, 22][..], &MAC, &IPV6, &packet].concat()
}

fn said(frame: &[u8]) -> Vec<(String, bool)> {
    let report = parse(frame).unwrap_or_default().into_iter();
    report
        .map(|(group, joined)| (group.to_string(), joined))
        .collect()
}

fn one(group: &str, joined: bool) -> Vec<(String, bool)> {
    vec![(group.to_owned(), joined)]
}

/// Of both families, a record of that kind with so many sources.
fn record(kind: u8, sources: u8) -> [Vec<u8>; 2] {
    let mut v4_message = vec![IGMP_V3_REPORT, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, sources];
    v4_message.extend([239, 1, 2, 3]);
    v4_message.extend(vec![10; 4 * usize::from(sources)]);
    let mut v6_message = vec![MLD_V2_REPORT, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, sources];
    v6_message.extend([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    v6_message.extend(vec![10; 16 * usize::from(sources)]);
    [v4(&v4_message), v6(&v6_message)]
}

#[test]
fn older_versions_join_and_leave() {
    let group = [239, 1, 2, 3];
    for (kind, joined) in [(0x12, true), (0x16, true), (0x17, false)] {
        let message = [&[kind, 0, 0, 0][..], &group].concat();
        assert_eq!(said(&v4(&message)), one("239.1.2.3", joined));
    }
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    for (kind, joined) in [(131, true), (132, false)] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
        assert_eq!(said(&v6(&message)), one("ff02::fb", joined));
    }
    assert_eq!(parse(&v4(&[0x11, 0, 0, 0, 0, 0, 0, 0])), None, "a query");
    assert_eq!(parse(&v6(&[0; 24])), None);
    let mut fragment = v4(&[0x16, 0, 0, 0, 239, 1, 2, 3]);
    fragment[ETHERNET + 7] = 1;
    assert_eq!(parse(&fragment), None);
}

/// RFC 3376 §4.2.12: whoever includes nothing has left, whatever else is said is of one who hears something.
#[test]
fn records_say_whether_anything_is_wanted() {
    for (kind, sources, joined) in [
        (1, 0, Some(false)),
        (1, 2, Some(true)),
        (2, 0, Some(true)),
        (2, 2, Some(true)),
        (3, 0, Some(false)),
        (3, 1, Some(true)),
        (4, 0, Some(true)),
        (4, 1, Some(true)),
        (5, 1, Some(true)),
        (6, 1, None),
        (7, 0, None),
    ] {
        for (frame, group) in record(kind, sources).iter().zip(["239.1.2.3", "ff05::9"]) {
            let expected = joined.map_or_else(Vec::new, |joined| one(group, joined));
            assert_eq!(said(frame), expected, "{kind} {sources}");
        }
    }
}

#[test]
fn of_what_is_cut_off_the_whole_records_count() {
    let [mut frame, _] = record(4, 0);
    // There shall be two, of which the second is short.
    frame[ETHERNET + 24 + 7] = 2;
    frame[ETHERNET + 3] += 4;
    frame.extend([4, 0, 0, 0]);
    assert_eq!(said(&frame), one("239.1.2.3", true));
    let mut long = vec![IGMP_V3_REPORT, 0, 0, 0, 0, 0, 255, 255];
    for n in 0..200 {
        long.extend([4, 0, 0, 0, 239, 0, 0, n]);
    }
    let mut frame = v4(&long);
    frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&(24 + 8 + 1600_u16).to_be_bytes());
    assert_eq!(said(&frame).len(), MOST);
}

#[test]
fn questions_are_as_the_standards_have_them() {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let [v4, v6] = queries(Mac::new([2, 0x68, 0x78, 0, 0, 1]), link_local);
    let ethernet = [1, 0, 0x5e, 0, 0, 1, 2, 0x68, 0x78, 0, 0, 1, 8, 0];
    let header = [
        0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 4, 0x13, 0, 0, 0, 0, 224, 0, 0, 1, 0x94, 4, 0, 0,
    ];
    let message = [0x11, 10, 0xec, 0x78, 0, 0, 0, 0, 2, 125, 0, 0];
    assert_eq!(v4, [&ethernet[..], &header, &message].concat());
    for part in [&v4[14..38], &v4[38..]] {
        assert_eq!(checksum(&[part]), 0, "{part:?}");
    }
    assert_eq!(
        v6[..14],
        [0x33, 0x33, 0, 0, 0, 1, 2, 0x68, 0x78, 0, 0, 1, 0x86, 0xdd]
    );
    assert_eq!(v6[14..22], [0x60, 0, 0, 0, 0, 36, 0, 1]);
    assert_eq!(v6[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
    assert_eq!(
        (v6[62], &v6[66..68], &v6[86..90]),
        (130, &[3, 0xe8][..], &[2, 125, 0, 0][..])
    );
    let pseudo = [0, 0, 0, 28, 0, 0, 0, 58];
    assert_eq!(checksum(&[&v6[22..54], &pseudo, &v6[62..]]), 0);
    assert_eq!(v6.len(), 14 + 40 + 36);
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        parse(&octets);
        for kind in [IPV4, IPV6] {
            let frame = [&[0; 12][..], &kind, &octets].concat();
            prop_assert!(parse(&frame).is_none_or(|report| report.len() <= MOST));
        }
        for frame in [v4(&octets[..octets.len().min(200)]), v6(&octets[..octets.len().min(200)])] {
            prop_assert!(parse(&frame).is_none_or(|report| report.len() <= MOST));
        }
    }
}
