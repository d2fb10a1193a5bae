use hextet_mesh::{key::SigningKey, request::Enrolment, token::Secret};
use hextet_store::MemoryStore;

use super::*;
use crate::message::Grant;

const NOW: UnixTime = UnixTime(1_800_000_000);
const CONFIG: &str =
    "url = 'https://registry.example'\nprefix = '2001:db8::/60'\nstrangers = 'welcome'";

fn asks(seed: u8, token: Option<Secret>) -> Signed<Enrolment> {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let enrolment = Enrolment {
        token,
        key: key.public(),
        name: None,
        communities: Vec::new(),
        client: false,
    };
    Signed::sign(enrolment, &key)
}

async fn let_in(book: &mut Book, seed: u8, token: Option<Secret>, at: UnixTime) -> Certificate {
    match book.enrol(asks(seed, token), at).await.unwrap() {
        Admission::Admitted(certificate) => certificate.body,
        Admission::Waiting => panic!("the door is open"),
    }
}

async fn invite(book: &mut Book, at: UnixTime) -> Secret {
    let grant = Grant {
        class: Class::Node,
        groups: Vec::new(),
        minutes: 1,
    };
    book.invite(grant, at).await.unwrap().token.unwrap()
}

#[tokio::test]
async fn what_nobody_can_use_any_more_is_free_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = Config::parse(CONFIG).unwrap();
    let (mut book, _) = Book::open(Arc::clone(&store), &config, NOW).await.unwrap();
    let token = invite(&mut book, NOW).await;
    let stays = let_in(&mut book, 1, Some(token), NOW).await;
    let token = invite(&mut book, NOW).await;
    let out = let_in(&mut book, 2, Some(token), NOW).await;
    let anonymous = let_in(&mut book, 3, None, NOW).await;
    book.revoke(out.node, NOW).await.unwrap();
    let end = NOW.plus(u64::from(LIFETIME_SECS) + u64::from(GRACE_SECS));
    book.sweep(end).await.unwrap();
    assert_eq!(
        (book.nodes.len(), book.tokens.len()),
        (3, 0),
        "some still accept them"
    );
    book.sweep(end.plus(1)).await.unwrap();
    assert_eq!(book.nodes.keys().copied().collect::<Vec<_>>(), [stays.node]);
    let (book_again, _) = Book::open(store, &config, end).await.unwrap();
    assert_eq!(book_again.ipv6, book.ipv6);
    let next = let_in(&mut book, 4, None, end.plus(1)).await;
    assert!(
        [&out, &anonymous]
            .iter()
            .any(|old| old.prefixes == next.prefixes)
    );
}

#[tokio::test]
async fn a_full_network_lets_nobody_in_and_takes_no_token() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = Config::parse(CONFIG).unwrap();
    let (mut book, _) = Book::open(store, &config, NOW).await.unwrap();
    for seed in 0..16 {
        let_in(&mut book, seed, None, NOW).await;
    }
    let token = invite(&mut book, NOW).await;
    let refused = book.enrol(asks(16, Some(token.clone())), NOW).await;
    assert!(matches!(refused, Err(RegistryError::Addresses(_))));
    let gone = book.by_key.values().next().copied().unwrap();
    book.revoke(gone, NOW).await.unwrap();
    let end = NOW.plus(u64::from(LIFETIME_SECS) + u64::from(GRACE_SECS) + 1);
    book.sweep(end).await.unwrap();
    assert!(book.tokens.is_empty(), "its minute is over");
    let token = invite(&mut book, end).await;
    assert_eq!(let_in(&mut book, 16, Some(token), end).await.serial, 1);
}
