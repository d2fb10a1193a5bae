//! RFC 7606 as a table: a malformed UPDATE and what becomes of it.

#![allow(clippy::too_many_lines, reason = "tables")]

use super::*;

#[derive(Debug, PartialEq)]
enum Outcome {
    Accepted,
    Discarded(u8),
    Withdrawn(u8),
    Disabled(Family),
    Reset(Code),
}

use Outcome::{Accepted, Disabled, Discarded, Reset, Withdrawn};

const ORIGIN: &str = "40010100";
const PATH: &str = "4002060201 0000fc00";
const HOP: &str = "400304c0000201";

/// An UPDATE with the three mandatory attributes, `more`, and 10.0.0.0/8.
fn with(more: &str) -> Vec<u8> {
    update("", &format!("{ORIGIN}{PATH}{HOP}{more}"), "080a")
}

fn update(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let (withdrawn, attributes) = (hex(withdrawn), hex(attributes));
    let mut body = Vec::new();
    put_u16(&mut body, u16::try_from(withdrawn.len()).unwrap());
    body.extend(withdrawn);
    put_u16(&mut body, u16::try_from(attributes.len()).unwrap());
    body.extend(attributes);
    body.extend(hex(nlri));
    body
}

fn outcome(body: &[u8], context: &Context) -> Outcome {
    let parsed = match Update::decode_body(body, context) {
        Err(notification) => return Reset(notification.code),
        Ok(parsed) => parsed,
    };
    if let Some((family, _)) = parsed.disabled {
        return Disabled(family);
    }
    let Some(worst) = parsed.problems.iter().max_by_key(|p| p.consequence) else {
        assert!(!parsed.update.reach.is_empty());
        return Accepted;
    };
    match worst.consequence {
        Consequence::TreatAsWithdraw => {
            assert!(parsed.update.reach.is_empty(), "announced nevertheless");
            assert!(!parsed.update.withdrawn.is_empty(), "nothing withdrawn");
            Withdrawn(worst.attribute)
        }
        Consequence::AttributeDiscard => {
            assert!(!parsed.update.reach.is_empty(), "lost its routes");
            Discarded(worst.attribute)
        }
        Consequence::DisableFamily => unreachable!("told by `disabled`"),
    }
}

fn check(cases: &[(&str, Vec<u8>, Outcome)], context: &Context) {
    for (what, body, expected) in cases {
        assert_eq!(outcome(body, context), *expected, "{what}");
    }
}

#[test]
fn lengths_and_missing_attributes() {
    let attrs = |text: &str| update("", text, "080a");
    check(
        &[
            ("fine", with(""), Accepted),
            ("no body", vec![], Reset(Code::UPDATE_ATTRIBUTE_LIST)),
            (
                "withdrawn over the end",
                hex("0009 0000"),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
            (
                "attributes over the end",
                hex("0000 0009 00"),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
            (
                "withdrawn length 33",
                update("21 0a00000000", "", ""),
                Reset(Code::UPDATE_NETWORK),
            ),
            (
                "NLRI length 33",
                update("", &format!("{ORIGIN}{PATH}{HOP}"), "21"),
                Reset(Code::UPDATE_NETWORK),
            ),
            (
                "NLRI cut",
                update("", &format!("{ORIGIN}{PATH}{HOP}"), "20 0a"),
                Reset(Code::UPDATE_NETWORK),
            ),
            (
                "attribute over the end (§4)",
                with("c0080c 00010001"),
                Withdrawn(8),
            ),
            ("one octet left (§4)", with("c0"), Withdrawn(0)),
            ("no length left (§4)", with("c008"), Withdrawn(8)),
            ("extended length cut (§4)", with("d00800"), Withdrawn(8)),
            (
                "MP_REACH over the end (§3 j)",
                with("800e7f 0002"),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
            (
                "no ORIGIN (§3 d)",
                attrs(&format!("{PATH}{HOP}")),
                Withdrawn(1),
            ),
            (
                "no AS_PATH (§3 d)",
                attrs(&format!("{ORIGIN}{HOP}")),
                Withdrawn(2),
            ),
            (
                "no NEXT_HOP (§3 d)",
                attrs(&format!("{ORIGIN}{PATH}")),
                Withdrawn(3),
            ),
            ("ORIGIN twice (§3 g)", with("40010102"), Discarded(1)),
            (
                "MP_UNREACH twice (§3 g)",
                with("800f03000201 800f03000201"),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
            (
                "unknown and well-known",
                with("40630101"),
                Reset(Code::UPDATE_UNRECOGNIZED),
            ),
            (
                "error without any NLRI (§5.2)",
                update("", "40010103", ""),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
            (
                "withdrawals and an error (§5.2)",
                update("080a", "40010103", ""),
                Reset(Code::UPDATE_ATTRIBUTE_LIST),
            ),
        ],
        &CONTEXT,
    );
}

#[test]
fn each_attribute_from_an_internal_peer() {
    let attrs = |text: &str| update("", text, "080a");
    check(
        &[
            (
                "ORIGIN 3 (§7.1)",
                attrs(&format!("40010103{PATH}{HOP}")),
                Withdrawn(1),
            ),
            (
                "ORIGIN of two octets (§7.1)",
                attrs(&format!("4001020000{PATH}{HOP}")),
                Withdrawn(1),
            ),
            (
                "ORIGIN optional (§3 c)",
                attrs(&format!("c0010100{PATH}{HOP}")),
                Withdrawn(1),
            ),
            (
                "segment type 9 (§7.2)",
                attrs(&format!("{ORIGIN}400206090100000001{HOP}")),
                Withdrawn(2),
            ),
            (
                "segment overrun (§7.2)",
                attrs(&format!("{ORIGIN}400206020200000001{HOP}")),
                Withdrawn(2),
            ),
            (
                "empty segment (§7.2)",
                attrs(&format!("{ORIGIN}4002020200{HOP}")),
                Withdrawn(2),
            ),
            (
                "one octet behind (§7.2)",
                attrs(&format!("{ORIGIN}40020702010000000102{HOP}")),
                Withdrawn(2),
            ),
            (
                "NEXT_HOP of 3 (§7.3)",
                attrs(&format!("{ORIGIN}{PATH}400303c00002")),
                Withdrawn(3),
            ),
            (
                "NEXT_HOP 0.0.0.0",
                attrs(&format!("{ORIGIN}{PATH}40030400000000")),
                Withdrawn(3),
            ),
            (
                "NEXT_HOP multicast",
                attrs(&format!("{ORIGIN}{PATH}400304e0000001")),
                Withdrawn(3),
            ),
            ("MED of 3 (§7.4)", with("800403000001"), Withdrawn(4)),
            (
                "MED transitive (§3 c)",
                with("c0040400000001"),
                Withdrawn(4),
            ),
            (
                "LOCAL_PREF of 5 (§7.5)",
                with("4005050000000001"),
                Withdrawn(5),
            ),
            (
                "ATOMIC_AGGREGATE of 1 (§7.6)",
                with("40060100"),
                Discarded(6),
            ),
            (
                "AGGREGATOR of 6 with AS4 (§7.7)",
                with("c00706fc0001010101"),
                Discarded(7),
            ),
            ("COMMUNITIES of 0 (§7.8)", with("c00800"), Withdrawn(8)),
            (
                "COMMUNITIES of 6 (§7.8)",
                with("c00806000100010001"),
                Withdrawn(8),
            ),
            (
                "ORIGINATOR_ID of 3 (§7.9)",
                with("800903010101"),
                Withdrawn(9),
            ),
            ("CLUSTER_LIST of 0 (§7.10)", with("800a00"), Withdrawn(10)),
            (
                "CLUSTER_LIST of 5 (§7.10)",
                with("800a050101010101"),
                Withdrawn(10),
            ),
            (
                "extended communities of 4 (§7.14)",
                with("c0100400020001"),
                Withdrawn(16),
            ),
            (
                "large communities of 8 (RFC 8092 §6)",
                with("c020080000000000000000"),
                Withdrawn(32),
            ),
            (
                "AS4_PATH from a four-octet speaker",
                with("c01106020100000001"),
                Discarded(17),
            ),
            (
                "AS4_PATH with the wrong flags",
                with("801106020100000001"),
                Discarded(17),
            ),
        ],
        &CONTEXT,
    );
}

#[test]
fn what_only_internal_peers_may_send_is_dropped_from_others() {
    let external = Context {
        internal: false,
        ..CONTEXT
    };
    check(
        &[
            ("LOCAL_PREF (§7.5)", with("40050400000064"), Discarded(5)),
            (
                "LOCAL_PREF malformed (§7.5)",
                with("4005020000"),
                Discarded(5),
            ),
            ("ORIGINATOR_ID (§7.9)", with("80090401010101"), Discarded(9)),
            (
                "CLUSTER_LIST (§7.10)",
                with("800a0401010101"),
                Discarded(10),
            ),
        ],
        &external,
    );
    let parsed = Update::decode_body(&with("40050400000064"), &external).unwrap();
    assert_eq!(parsed.update.reach[0].attributes.local_pref, None);
}

#[test]
fn multiprotocol_attributes() {
    let hop = "20010db8000000000000000000000001";
    let reach = |text: &str| update("", &format!("{text}{ORIGIN}{PATH}"), "");
    check(
        &[
            (
                "next hop of 16",
                reach(&format!("800e1a 000201 10 {hop} 00 20 20010db8")),
                Accepted,
            ),
            (
                "next hop of 24 (§7.11)",
                reach(&format!("800e1d 000201 18 {hop} 0000000000000000 00")),
                Disabled(Family::V6),
            ),
            (
                "next hop of 4 (§7.11)",
                reach("800e0d 000201 04 c0000201 00 20 20010db8"),
                Disabled(Family::V6),
            ),
            (
                "next hop over the end",
                reach("800e05 000201 10 00"),
                Disabled(Family::V6),
            ),
            (
                "prefix of 129 (§5.3)",
                reach(&format!("800e16 000201 10 {hop} 00 81")),
                Disabled(Family::V6),
            ),
            (
                "prefix cut (§5.3)",
                reach(&format!("800e17 000201 10 {hop} 00 40 20")),
                Disabled(Family::V6),
            ),
            (
                "no AFI (§7.11)",
                reach("800e020002"),
                Reset(Code::UPDATE_OPTIONAL),
            ),
            (
                "MP_UNREACH prefix of 129 (§7.12)",
                update("", "800f04 000201 81", ""),
                Disabled(Family::V6),
            ),
            (
                "MP_UNREACH without SAFI (§7.12)",
                update("", "800f02 0002", ""),
                Reset(Code::UPDATE_OPTIONAL),
            ),
            (
                "MP_REACH well-known (§3 c)",
                reach(&format!("400e1a 000201 10 {hop} 00 20 20010db8")),
                Withdrawn(14),
            ),
            (
                "next hop multicast",
                reach("800e1a 000201 10 ff020000000000000000000000000001 00 20 20010db8"),
                Withdrawn(14),
            ),
        ],
        &CONTEXT,
    );
}

#[test]
fn the_worst_of_several_errors_counts() {
    let both = with("40060100 800403000001");
    assert_eq!(outcome(&both, &CONTEXT), Withdrawn(4));
}

#[test]
fn a_family_that_was_not_negotiated_is_ignored() {
    let v4_only = Context {
        families: [Family::V4].into_iter().collect(),
        ..CONTEXT
    };
    let hop = "20010db8000000000000000000000001";
    let body = update(
        "",
        &format!("800e1a 000201 10 {hop} 00 20 20010db8 {ORIGIN}{PATH}"),
        "",
    );
    let parsed = Update::decode_body(&body, &v4_only).unwrap();
    assert!(parsed.update.reach.is_empty() && parsed.update.withdrawn.is_empty());
    let v6_only = Context {
        families: [Family::V6].into_iter().collect(),
        ..CONTEXT
    };
    let parsed = Update::decode_body(&with(""), &v6_only).unwrap();
    assert_eq!(parsed.update, Update::default());
}

#[test]
fn a_thirty_two_octet_next_hop_keeps_its_second_address_only_if_it_is_link_local() {
    let hop = "20010db8000000000000000000000001";
    let reach = |second: &str| {
        let text = format!("800e2a 000201 20 {hop} {second} 00 20 20010db8 {ORIGIN}{PATH}");
        let parsed = Update::decode_body(&update("", &text, ""), &CONTEXT).unwrap();
        parsed.update.reach[0].attributes.next_hop
    };
    let local = reach("fe800000000000000000000000000009");
    assert_eq!(local.link_local(), Some("fe80::9".parse().unwrap()));
    assert_eq!(reach(hop).link_local(), None);
    // No global address at all, as BIRD says it.
    let hop = "00000000000000000000000000000000";
    let text = format!("800e2a 000201 20 {hop} fe800000000000000000000000000009 00 20 20010db8");
    let body = update("", &format!("{text} {ORIGIN}{PATH}"), "");
    assert_eq!(outcome(&body, &CONTEXT), Accepted);
}
