//! Two registries of one network, that hear of each other now and then: no prefix twice, and in the end both know the same.

use std::{
    collections::BTreeMap,
    pin::pin,
    task::{Context, Poll, Waker},
};

use hextet_mesh::{
    key::SigningKey,
    request::{Enrolment, Renewal},
};
use hextet_store::MemoryStore;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{accession, message::Grant, told::AccessionAnswer};

const NOW: UnixTime = UnixTime(1_800_000_000);
const FIRST: &str = "url = 'https://a.example'\nprefix = '2001:db8::/58'\nipv4 = '10.0.0.0/25'\n\
    settle_secs = 0\ncommunities = { fr = '2001:db8::/60' }";

/// Memory's stores are always ready.
fn done<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
}

fn grant(class: Class) -> Grant {
    Grant {
        class,
        groups: Vec::new(),
        minutes: 60,
    }
}

struct One {
    store: Arc<dyn Store>,
    config: Config,
    book: Book,
    /// What the other told, up to there.
    heard: (u64, u64),
}

impl One {
    fn open(store: Arc<dyn Store>, config: Config) -> One {
        let (book, _) = done(Book::open(Arc::clone(&store), &config, NOW)).unwrap();
        One {
            store,
            config,
            book,
            heard: (0, 0),
        }
    }

    fn first() -> One {
        let config = Config::parse(FIRST).unwrap();
        One::open(Arc::new(MemoryStore::default()), config)
    }

    fn second(first: &mut Book, url: &str) -> Result<One> {
        let invitation = done(first.invite(grant(Class::Registry), NOW))?;
        let join = invitation.text();
        let text = format!("url = '{url}'\nsettle_secs = 0\njoin = '{join}'");
        let config = Config::parse(&text)?;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let stored = Stored::of_another(&config.url()?)?;
        let asked = accession::asked(&stored, &config, &invitation)?;
        // The first answer is lost.
        for _ in 0..2 {
            done(first.accede(&asked, NOW))?;
        }
        let answer = AccessionAnswer {
            network: first.network(),
            plan: first.plan().clone(),
        };
        done(accession::found(&*store, stored, &answer))?;
        Ok(One::open(store, config))
    }

    fn restart(&mut self) {
        let (store, config) = (Arc::clone(&self.store), self.config.clone());
        *self = One::open(store, config);
    }

    /// Asks until there is no more.
    fn pull(&mut self, other: &mut Book, at: UnixTime) -> Result<()> {
        loop {
            let request = self.book.ask(self.heard.0, self.heard.1, at);
            let pull = request.pull.read()?;
            done(other.hear(&pull, request.parameters.read()?, at))?;
            let answer = other.tell(&pull.body);
            let (run, upto, more) = (answer.run, answer.upto, answer.more);
            done(self.book.adopt(answer.read()?, !more, at))?;
            self.heard = (run, upto);
            if !more {
                return Ok(());
            }
        }
    }
}

fn enrol(book: &mut Book, seed: u8, at: UnixTime) -> Result<Signed<Certificate>> {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let token = done(book.invite(grant(Class::Node), at))?.token;
    let communities = match seed % 3 {
        0 => vec!["fr".parse().unwrap()],
        _ => Vec::new(),
    };
    let enrolment = Enrolment {
        token,
        key: key.public(),
        name: None,
        communities,
        client: false,
    };
    match done(book.enrol(Signed::sign(enrolment, &key), at))? {
        Admission::Admitted(certificate) => Ok(*certificate),
        Admission::Waiting => panic!("a token lets in"),
    }
}

fn renew(
    book: &mut Book,
    seed: u8,
    old: &Signed<Certificate>,
    at: UnixTime,
) -> Result<Signed<Certificate>> {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let renewal = Renewal {
        network: old.body.network,
        node: old.body.node,
        serial: old.body.serial,
        at,
    };
    done(book.renew(&Signed::sign(renewal, &key), old, at))
}

fn agree(a: &Book, b: &Book) {
    let nodes = |book: &Book| {
        let all = book.nodes.values().map(|node| {
            let body = &node.certificate.body;
            (body.node, body.serial, node.revoked)
        });
        all.collect::<Vec<_>>()
    };
    assert_eq!(nodes(a), nodes(b));
    assert_eq!(a.by_key, b.by_key);
    let version = |book: &Book| book.trust.parameters().body.version;
    assert_eq!(version(a), version(b));
    let taken = |book: &Book| book.ipv6.taken().collect::<Vec<_>>();
    assert_eq!(taken(a), taken(b));
}

/// What is revoked stands in the list of either.
fn both_revoke(a: &Book, b: &Book) {
    for node in a.nodes.values().filter(|node| node.is_out()) {
        let body = &node.certificate.body;
        for book in [a, b] {
            let issuer = book.authority.issuing.public().id();
            let mut lists = book.trust.revocations();
            let list = lists.find(|list| list.signer == issuer).unwrap();
            assert!(list.body.names(body.node, body.serial));
        }
    }
}

fn no_prefix_twice(book: &Book) {
    let bodies = book.nodes.values().map(|node| &node.certificate.body);
    let mut all: Vec<_> = bodies
        .flat_map(|body| body.prefixes.iter().chain(&body.ipv4))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

fn run(steps: Vec<(u8, u8, bool)>) {
    let mut a = One::first();
    let mut held: BTreeMap<u8, Signed<Certificate>> = BTreeMap::new();
    for seed in 200..203 {
        held.insert(seed, enrol(&mut a.book, seed, NOW).unwrap());
    }
    let mut b = One::second(&mut a.book, "https://b.example").unwrap();
    let early = enrol(&mut b.book, 1, NOW);
    assert!(matches!(early, Err(RegistryError::Learning)));
    b.pull(&mut a.book, NOW).unwrap();
    let mut at = NOW;
    for (kind, seed, is_b) in steps {
        at = at.plus(1);
        let (one, other) = match is_b {
            true => (&mut b, &mut a),
            false => (&mut a, &mut b),
        };
        match (kind, held.get(&seed)) {
            (0..=3, _) => {
                if let Ok(certificate) = enrol(&mut one.book, seed, at) {
                    held.insert(seed, certificate);
                }
            }
            (4, Some(old)) => {
                if let Ok(next) = renew(&mut one.book, seed, old, at) {
                    assert_eq!(next.body.prefixes, old.body.prefixes);
                    held.insert(seed, next);
                }
            }
            // Unknown there, as long as it has not heard.
            (5, Some(old)) => drop(done(one.book.revoke(old.body.node, at))),
            (6, _) => one.restart(),
            _ => one.pull(&mut other.book, at).unwrap(),
        }
    }
    for _ in 0..2 {
        a.pull(&mut b.book, at).unwrap();
        b.pull(&mut a.book, at).unwrap();
    }
    agree(&a.book, &b.book);
    both_revoke(&a.book, &b.book);
    no_prefix_twice(&a.book);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn two_give_no_prefix_twice_and_agree_in_the_end(
        steps in vec((0u8..9, 0u8..20, any::<bool>()), 0..60)
    ) {
        run(steps);
    }
}

#[test]
fn one_that_is_restored_from_before_the_other_hears_of_it_first() {
    let mut a = One::first();
    let mut backup = Vec::new();
    done(hextet_store::dump(&*a.store, &mut backup)).unwrap();
    let mut b = One::second(&mut a.book, "https://b.example").unwrap();
    b.pull(&mut a.book, NOW).unwrap();
    let given = enrol(&mut b.book, 1, NOW).unwrap();
    a.store = Arc::new(MemoryStore::default());
    done(hextet_store::load(&*a.store, &backup[..], false)).unwrap();
    a.restart();
    assert!(a.book.others().is_empty());
    b.pull(&mut a.book, NOW).unwrap();
    assert_eq!(a.book.others().len(), 1);
    a.pull(&mut b.book, NOW).unwrap();
    agree(&a.book, &b.book);
    for seed in 2..8 {
        for book in [&mut a.book, &mut b.book] {
            let next = enrol(book, seed, NOW).unwrap();
            assert!(!next.body.prefixes[0].overlaps(given.body.prefixes[0]));
        }
    }
    a.pull(&mut b.book, NOW).unwrap();
    b.pull(&mut a.book, NOW).unwrap();
    agree(&a.book, &b.book);
    no_prefix_twice(&a.book);
}

#[test]
fn the_one_that_is_left_has_all_that_is_free_and_another_may_come() {
    let mut a = One::first();
    let mut b = One::second(&mut a.book, "https://b.example").unwrap();
    b.pull(&mut a.book, NOW).unwrap();
    let third = One::second(&mut a.book, "https://c.example");
    assert!(matches!(third, Err(RegistryError::Full(_))));
    let no_root = done(b.book.invite(grant(Class::Registry), NOW));
    assert!(matches!(no_root, Err(RegistryError::NoRoot)));
    let by_b = enrol(&mut b.book, 1, NOW).unwrap();
    let url = b.config.url().unwrap();
    assert!(done(b.book.remove(&url, false, NOW)).is_err(), "not itself");
    assert!(done(a.book.remove(&url, false, NOW.plus(9))).unwrap());
    assert!(a.book.others().is_empty());
    // It came in where nobody else heard of it, and keeps what it has.
    let next = renew(&mut a.book, 1, &by_b, NOW.plus(10)).unwrap();
    assert_eq!(next.body.prefixes, by_b.body.prefixes);
    b.pull(&mut a.book, NOW.plus(11)).unwrap();
    let refused = enrol(&mut b.book, 2, NOW.plus(12)).unwrap_err();
    assert!(
        refused.to_string().contains("https://a.example"),
        "{refused}"
    );
    assert!(done(b.book.revoke(by_b.body.node, NOW)).is_err());
    let seeds = (10..200).filter(|seed| seed % 3 > 0);
    let given = seeds.map_while(|seed| enrol(&mut a.book, seed, NOW.plus(20)).ok());
    assert_eq!(given.count() + 1, 48, "all that is no community's");
    let mut c = One::second(&mut a.book, "https://c.example").unwrap();
    c.pull(&mut a.book, NOW.plus(21)).unwrap();
    agree(&a.book, &c.book);
}

#[test]
fn what_a_distrusted_one_signed_counts_no_more() {
    let mut a = One::first();
    let mut b = One::second(&mut a.book, "https://b.example").unwrap();
    b.pull(&mut a.book, NOW).unwrap();
    let by_b = enrol(&mut b.book, 1, NOW).unwrap();
    let by_a = enrol(&mut a.book, 2, NOW).unwrap();
    a.pull(&mut b.book, NOW).unwrap();
    let url = b.config.url().unwrap();
    done(a.book.remove(&url, true, NOW.plus(9))).unwrap();
    assert!(renew(&mut a.book, 1, &by_b, NOW.plus(10)).is_err());
    assert!(renew(&mut a.book, 2, &by_a, NOW.plus(10)).is_ok());
    let again = enrol(&mut a.book, 1, NOW.plus(11)).unwrap();
    assert_eq!(again.body.prefixes, by_b.body.prefixes);
    assert!(a.book.trust.verify(&again, NOW.plus(11)).is_ok());
    assert!(b.pull(&mut a.book, NOW.plus(12)).is_err());
}
