use proptest::prelude::*;

use super::*;
use crate::netlink::Batch;

fn octets() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..16)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Return),
        "[a-z]{1,9}".prop_map(|c| Verdict::Jump(ChainName(c))),
        "[a-z]{1,9}".prop_map(|c| Verdict::Goto(ChainName(c))),
    ]
}

fn loads() -> impl Strategy<Value = Expr> {
    let slot = 0u8..16;
    prop_oneof![
        (any::<u32>(), 0u8..2, slot.clone()).prop_map(|(key, direction, to)| Expr::CtOf {
            key,
            direction,
            to
        }),
        (any::<u32>(), slot.clone()).prop_map(|(below, to)| Expr::Random { below, to }),
        (
            any::<u32>(),
            any::<u32>(),
            slot,
            proptest::sample::select(&Checksum::ALL)
        )
            .prop_map(|(base, n, from, checksum)| Expr::PayloadSet {
                base,
                offset: n,
                len: n,
                from,
                checksum
            }),
    ]
}

fn ends() -> impl Strategy<Value = Expr> {
    let slot = 0u8..16;
    prop_oneof![
        (
            slot.clone(),
            slot.clone(),
            proptest::option::of(slot.clone())
        )
            .prop_map(|(first, last, port)| Expr::Nat {
                kind: 0,
                family: 2,
                first,
                last,
                port,
                flags: NAT_PERSISTENT
            }),
        ("[a-z]{1,9}", slot.clone(), slot).prop_map(|(set, slot, to)| Expr::Map {
            set: SetName(set),
            slot,
            to
        }),
        ("[a-z]{1,9}", 0u8..16).prop_map(|(set, slot)| Expr::ObjectMap {
            set: SetName(set),
            slot
        }),
        (any::<u32>(), any::<u8>()).prop_map(|(kind, code)| Expr::Reject { kind, code }),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let slot = 0u8..16;
    prop_oneof![
        (any::<u32>(), slot.clone()).prop_map(|(key, to)| Expr::Meta { key, to }),
        (any::<u32>(), slot.clone()).prop_map(|(key, from)| Expr::MetaSet { key, from }),
        (any::<u32>(), any::<u32>(), any::<u32>(), slot.clone()).prop_map(
            |(base, offset, len, to)| Expr::Payload {
                base,
                offset,
                len,
                to
            }
        ),
        (any::<u32>(), slot.clone()).prop_map(|(key, to)| Expr::Ct { key, to }),
        (any::<u32>(), slot.clone()).prop_map(|(n, to)| Expr::Fib {
            flags: n,
            result: n,
            to
        }),
        (any::<u8>(), slot.clone()).prop_map(|(header, to)| Expr::HeaderPresent { header, to }),
        loads(),
        (slot.clone(), octets()).prop_map(|(slot, mask)| Expr::Bitwise {
            slot,
            xor: vec![0; mask.len()],
            mask
        }),
        (any::<u32>(), slot.clone(), octets()).prop_map(|(op, slot, data)| Expr::Cmp {
            op,
            slot,
            data
        }),
        (slot.clone(), octets()).prop_map(|(to, data)| Expr::Immediate { to, data }),
        verdict().prop_map(Expr::Verdict),
        ("[a-z]{1,9}", slot.clone(), any::<u32>(), any::<bool>()).prop_map(
            |(set, slot, flags, verdict)| {
                Expr::Lookup {
                    set: SetName(set),
                    slot,
                    flags,
                    verdict,
                }
            }
        ),
        ("[a-z]{1,9}", slot.clone(), any::<u32>()).prop_map(|(set, slot, n)| Expr::Dynset {
            set: SetName(set),
            op: n,
            slot,
            inner: Box::new(Expr::Connlimit { count: n, flags: 1 })
        }),
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(rate, burst, flags)| {
            Expr::Limit {
                rate,
                seconds: 60,
                burst,
                kind: 0,
                flags,
            }
        }),
        ends(),
        Just(Expr::Notrack),
        Just(Expr::Masquerade),
        Just(Expr::Counter),
        Just(Expr::CounterRef("meter".into())),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(exprs in proptest::collection::vec(expr(), 0..8)) {
        let mut batch = Batch::default();
        batch.message(0, 0, &[]).nest(4, |m| exprs.iter().for_each(|e| e.write(m)));
        let octets = batch.octets_of_last();
        let list = Attrs(octets).get(4).unwrap_or_default();
        prop_assert_eq!(Expr::read_all(list), exprs);
    }

    #[test]
    fn no_octets_make_it_panic(bytes: Vec<u8>) {
        let _ = Expr::read_all(&bytes);
    }
}

#[test]
fn sixteen_octet_registers_are_the_four_octet_ones() {
    let expected = [
        (1, Some(0)),
        (2, Some(4)),
        (4, Some(12)),
        (8, Some(0)),
        (23, Some(15)),
    ];
    for (register, slot) in expected
        .into_iter()
        .chain([(0, None), (5, None), (24, None)])
    {
        assert_eq!(slot_of(register), slot, "{register}");
    }
}
