use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn europe_and_japan() -> Vec<(Label, Prefix)> {
    vec![
        (label("eu"), prefix("2001:db8:0:4000::/50")),
        (label("jp"), prefix("2001:db8:0:8000::/52")),
    ]
}

fn ipv6(share: Share) -> Allocator {
    Allocator::new(prefix("2001:db8::/48"), &europe_and_japan(), share).unwrap()
}

#[test]
fn a_community_has_its_own_part() {
    let mut all = ipv6(Share::Whole);
    let given = all.allocate(&[label("fr"), label("eu")], 64).unwrap();
    assert_eq!(given, prefix("2001:db8:0:4000::/64"));
    let given = all.allocate(&[label("fr"), label("eu")], 56).unwrap();
    assert_eq!(given, prefix("2001:db8:0:4100::/56"));
    let given = all.allocate(&[label("br")], 64).unwrap();
    assert!(europe_and_japan().iter().all(|(_, p)| !p.overlaps(given)));
}

#[test]
fn a_full_community_gives_of_what_is_everybodys() {
    let mut all = ipv6(Share::Whole);
    let of = |all: &mut Allocator| all.allocate(&[label("jp")], 53);
    let japan = prefix("2001:db8:0:8000::/52");
    assert!(japan.covers(of(&mut all).unwrap()));
    assert!(japan.covers(of(&mut all).unwrap()));
    assert!(!japan.covers(of(&mut all).unwrap()));
    while of(&mut all).is_ok() {}
    assert!(matches!(
        of(&mut all),
        Err(AllocatorError::Exhausted { len: 53, .. })
    ));
}

#[test]
fn a_fact_may_lie_across_parts() {
    let mut all = ipv6(Share::Whole);
    let empty = all.clone();
    all.take(prefix("2001:db8::/49")).unwrap();
    assert!(matches!(
        all.take(prefix("2001:db8:0:4000::/64")),
        Err(AllocatorError::Taken { .. })
    ));
    let given = all.allocate(&[label("eu")], 64).unwrap();
    assert!(!prefix("2001:db8::/49").covers(given));
    all.release(given).unwrap();
    all.release(prefix("2001:db8::/49")).unwrap();
    assert_eq!(all, empty);
    assert_eq!(all.release(given), Err(AllocatorError::Free(given)));
}

#[test]
fn what_can_not_be_asked_for() {
    let mut all = ipv6(Share::Whole);
    for len in [0, 48, 129] {
        assert!(matches!(
            all.allocate(&[], len),
            Err(AllocatorError::Length { .. })
        ));
    }
    let outside = prefix("2001:db9::/64");
    assert_eq!(all.take(outside), Err(AllocatorError::Outside(outside)));
    assert_eq!(
        all.take(prefix("192.0.2.0/24")),
        Err(AllocatorError::Outside(prefix("192.0.2.0/24")))
    );
    let network = prefix("2001:db8::/48");
    let pair = |a: &str, b: &str| [(label("a"), prefix(a)), (label("b"), prefix(b))];
    let bad = [
        pair("2001:db8::/52", "2001:db8::/56"),
        pair("2001:db8::/52", "2001:db9::/52"),
        pair("2001:db8::/48", "2001:db8:0:8000::/52"),
    ];
    for communities in bad {
        let made = Allocator::new(network, &communities, Share::Whole);
        assert!(matches!(made, Err(AllocatorError::Communities(_))));
    }
    let twice = [
        (label("a"), prefix("2001:db8::/52")),
        (label("a"), prefix("2001:db8:0:8000::/52")),
    ];
    assert!(Allocator::new(network, &twice, Share::Whole).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, u8),
    Take(u32, u8),
    Release(Index),
}

fn steps(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, 1u8..9).prop_map(|(c, l)| Step::Allocate(c, l)),
        2 => (any::<u32>(), 1u8..9).prop_map(|(a, l)| Step::Take(a, l)),
        3 => any::<Index>().prop_map(Step::Release),
    ];
    vec(step, len)
}

/// A network of either family, 8 bits deep, with a community in it.
fn small(six: bool, share: Share) -> Allocator {
    let (network, community) = match six {
        true => ("2001:db8::/48", "2001:db8:0:4000::/50"),
        false => ("198.51.0.0/20", "198.51.4.0/22"),
    };
    Allocator::new(prefix(network), &[(label("c"), prefix(community))], share).unwrap()
}

fn nth(network: Prefix, number: u32, len: u8) -> Prefix {
    let base = Block::of(network);
    let len = network.len() + len;
    let bits = base.bits | (u128::from(number) << 96 >> network.len());
    Block { bits, len }
        .prefix(network.family())
        .map(|p| Prefix::new(p.addr(), len).unwrap())
        .unwrap()
}

fn step(all: &mut Allocator, given: &mut Vec<Prefix>, step: &Step) {
    let network = all.network();
    match step {
        Step::Allocate(community, len) => {
            let communities = [label("x"), label("c")];
            let communities = &communities[..*community];
            if let Ok(got) = all.allocate(communities, network.len() + len) {
                assert!(network.covers(got) && got.len() == network.len() + len);
                assert!(given.iter().all(|g| !g.overlaps(got)), "{got} twice");
                given.push(got);
            }
        }
        Step::Take(number, len) => {
            let fact = nth(network, *number, *len);
            let free = given.iter().all(|g| !g.overlaps(fact));
            assert_eq!(all.take(fact).is_ok(), free, "{fact}");
            if free {
                given.push(fact);
            }
        }
        Step::Release(at) => {
            if !given.is_empty() {
                let gone = given.remove(at.index(given.len()));
                all.release(gone).unwrap();
            }
        }
    }
}

proptest! {
    /// Against a plain list; and what is free follows from what is taken alone, so a restored registry goes on as the old one did.
    #[test]
    fn never_the_same_prefix_twice(six: bool, steps in steps(0..200)) {
        let mut all = small(six, Share::Whole);
        let mut given = Vec::new();
        for s in &steps {
            step(&mut all, &mut given, s);
        }
        let mut again = small(six, Share::Whole);
        for fact in given.iter().rev() {
            again.take(*fact).unwrap();
        }
        prop_assert_eq!(&again, &all);
        given.sort();
        prop_assert_eq!(all.taken().collect::<Vec<_>>(), given.clone());
        for fact in given {
            all.release(fact).unwrap();
        }
        prop_assert_eq!(all, small(six, Share::Whole));
    }

    /// All of what is left is given, and no more.
    #[test]
    fn every_address_is_given_once(six: bool, steps in steps(0..60)) {
        let mut all = small(six, Share::Whole);
        let mut given = Vec::new();
        for s in &steps {
            step(&mut all, &mut given, s);
        }
        let len = all.network().len() + 8;
        let size = |p: &Prefix| 1usize << (len - p.len().min(len));
        let used: usize = given.iter().map(size).sum();
        let mut more = 0;
        while all.allocate(&[label("c")], len).is_ok() {
            more += 1;
        }
        prop_assert_eq!(used + more, 256);
    }

    /// Two registries that don't hear of each other for a while, and then do.
    #[test]
    fn halves_never_meet(six: bool, before in steps(0..40), lower in steps(0..60), upper in steps(0..60)) {
        let mut all = small(six, Share::Whole);
        let mut common = Vec::new();
        for s in &before {
            step(&mut all, &mut common, s);
        }
        let apart = |share, steps: &[Step]| {
            let (mut half, mut own) = (all.clone(), Vec::new());
            half.set_share(share);
            for s in steps.iter().filter(|s| !matches!(s, Step::Take(..))) {
                step(&mut half, &mut own, s);
            }
            (half, own)
        };
        let (mut low, given_low) = apart(Share::Lower, &lower);
        let (mut up, given_up) = apart(Share::Upper, &upper);
        given_up.iter().for_each(|p| low.take(*p).unwrap());
        given_low.iter().for_each(|p| up.take(*p).unwrap());
        low.set_share(Share::Whole);
        up.set_share(Share::Whole);
        prop_assert_eq!(low, up);
    }
}
