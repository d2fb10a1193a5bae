//! Who says where it is, who is believed, and who hears of it.

use std::net::{IpAddr, SocketAddr};

use hextet_mesh::{
    certificate::{Certificate, NodeId, UnixTime},
    gossip,
    key::NetworkId,
    letter::{MAX_CANDIDATES, Presence},
    signed::Signed,
    token::Invitation,
};
use hextet_registry::{
    client::{self, ClientError, Presented},
    clock::now,
    message::{Blob, PresenceAnswer, PresenceRequest},
};
use hextet_types::Way;

use crate::bench::{Place, block_on, joined, key, refusal, root_of};

fn way(ip: IpAddr, port: u16) -> Way {
    Way::Udp(SocketAddr::new(ip, port))
}

#[test]
fn nodes_hear_of_others_that_anybody_can_reach() {
    block_on(async {
        let place = Place::new("strangers = 'ask'\n");
        let running = place.run().await;
        let door = place.door().await;
        let first = joined(&place.invite(&[]).await, 1).await;
        let second = joined(&place.invite(&[]).await, 2).await;
        let root = root_of(&door).await;
        let present = async |seed: u8, certificate: &Signed<Certificate>, at: &[&str]| {
            let at = at.iter().map(|at| at.parse().unwrap()).collect();
            client::present(&door, &key(seed), certificate, root, at, None, now()).await
        };
        let others = |presented: Presented| presented.others;
        let alone = present(1, &first, &["192.0.2.1:6698", "[::1]:6698"]).await;
        assert_eq!(others(alone.unwrap()), []);
        let found = present(2, &second, &["192.0.2.2:6698"]).await.unwrap();
        let at = "[::1]:6698".parse().unwrap();
        assert_eq!(
            others(found),
            [(first.body.node, at)],
            "where it asked from"
        );
        let found = present(1, &first, &["[::1]:6698"]).await.unwrap();
        assert_eq!(others(found), [], "an address that nobody asked from");
        let forged = present(2, &first, &["[::1]:1"]).await;
        assert!(refusal(forged).contains("not signed"));
        place.revoke(&first).await;
        assert!(refusal(present(1, &first, &[]).await).contains("revoked"));
        let news = present(2, &second, &[]).await.unwrap();
        assert!(news.trust.verify(&first, now()).is_err());
        running.stop().await;
    });
}

#[test]
fn who_waits_hears_of_a_revocation_at_once() {
    block_on(async {
        let place = Place::new("strangers = 'ask'\n");
        let running = place.run().await;
        let door = place.door().await;
        let first = joined(&place.invite(&[]).await, 1).await;
        let second = joined(&place.invite(&[]).await, 2).await;
        let root = root_of(&door).await;
        let listen = async |known| {
            let key = key(1);
            let answer = client::present(&door, &key, &first, root, vec![], known, now());
            answer.await.unwrap()
        };
        let heard = listen(None).await;
        assert!(!heard.waited);
        let known = Some(gossip::known(&heard.trust));
        let revoke = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            place.revoke(&second).await;
        };
        let (heard, ()) = tokio::join!(listen(known), revoke);
        assert!(heard.waited && heard.trust.verify(&second, now()).is_err());
        assert!(listen(known).await.trust.verify(&second, now()).is_err());
        running.stop().await;
    });
}

#[test]
fn others_hear_of_who_waits() {
    block_on(async {
        let place = Place::new("");
        let running = place.run().await;
        let door = place.door().await;
        let first = joined(&place.invite(&[]).await, 1).await;
        let second = joined(&place.invite(&[]).await, 2).await;
        let root = root_of(&door).await;
        let (key, at) = (key(1), way(place.at.ip(), 6698));
        let trust = client::present(&door, &key, &first, root, vec![], None, now());
        let known = Some(gossip::known(&trust.await.unwrap().trust));
        let waits = client::present(&door, &key, &first, root, vec![at], known, now());
        let is_heard = async { while heard(&door, 2, &second).await.is_empty() {} };
        tokio::select! {
            answer = waits => panic!("it did not wait: {answer:?}"),
            () = is_heard => {}
        }
        running.stop().await;
    });
}

/// Hands in whatever a hostile node may.
async fn hand_in(
    door: &Invitation,
    certificate: &Signed<Certificate>,
    presence: &Signed<Presence>,
) -> Result<PresenceAnswer, ClientError> {
    let request = PresenceRequest {
        certificate: Blob::of(certificate),
        presence: Blob::of(presence),
        known: None,
    };
    client::ask(door, "/mesh/v1/presence", Some(&request)).await
}

fn presence_of(certificate: &Signed<Certificate>, at: Way) -> Presence {
    Presence {
        network: certificate.body.network,
        node: certificate.body.node,
        at: now(),
        candidates: vec![at],
    }
}

async fn heard(
    door: &Invitation,
    seed: u8,
    certificate: &Signed<Certificate>,
) -> Vec<(NodeId, Way)> {
    let root = root_of(door).await;
    let key = key(seed);
    let asked = client::present(door, &key, certificate, root, Vec::new(), None, now());
    asked.await.unwrap().others
}

#[test]
fn forged_and_old_words_change_nothing_by_either_family() {
    for loopback in ["[::1]:0", "127.0.0.1:0"] {
        block_on(async {
            let place = Place::at(loopback, "");
            let running = place.run().await;
            let door = place.door().await;
            let first = joined(&place.invite(&[]).await, 1).await;
            let second = joined(&place.invite(&[]).await, 2).await;
            let at = way(place.at.ip(), 6698);
            let true_words = Signed::sign(presence_of(&first, at), &key(1));
            assert!(hand_in(&door, &first, &true_words).await.is_ok());

            let elsewhere = presence_of(&first, way(place.at.ip(), 53));
            let forged = [
                (&first, Signed::sign(elsewhere.clone(), &key(2))),
                (&second, Signed::sign(elsewhere.clone(), &key(2))),
                (&first, {
                    let network = NetworkId(!elsewhere.network.0);
                    let of_another = Presence {
                        network,
                        ..elsewhere.clone()
                    };
                    Signed::sign(of_another, &key(1))
                }),
            ];
            for (certificate, words) in &forged {
                assert!(refusal(hand_in(&door, certificate, words).await).contains("not signed"));
            }
            // A certificate that the node wrote itself.
            let own = Signed::sign(first.body.clone(), &key(1));
            assert!(refusal(hand_in(&door, &own, &true_words).await).contains("certificate"));
            for off in [now().0 - 1_000, now().0 + 1_000] {
                let late = Presence {
                    at: UnixTime(off),
                    ..elsewhere.clone()
                };
                let late = Signed::sign(late, &key(1));
                assert!(refusal(hand_in(&door, &first, &late).await).contains("clock is wrong"));
            }
            let older = Presence {
                at: UnixTime(true_words.body.at.0 - 1),
                ..elsewhere.clone()
            };
            let older = Signed::sign(older, &key(1));
            assert!(hand_in(&door, &first, &older).await.is_ok());
            let many = Presence {
                candidates: vec![at; MAX_CANDIDATES + 1],
                ..elsewhere
            };
            let many = Signed::sign(many, &key(1));
            assert!(refusal(hand_in(&door, &first, &many).await).contains("the request"));
            assert_eq!(heard(&door, 2, &second).await, [(first.body.node, at)]);
            running.stop().await;
        });
    }
}

#[test]
fn who_asks_too_often_is_refused_and_others_are_not() {
    block_on(async {
        let place = Place::new("");
        let running = place.run().await;
        let door = place.door().await;
        let first = joined(&place.invite(&[]).await, 1).await;
        let second = joined(&place.invite(&[]).await, 2).await;
        let words = presence_of(&first, way(place.at.ip(), 6698));
        let words = Signed::sign(words, &key(1));
        let mut refused = None;
        for _ in 0..60 {
            if let Err(error) = hand_in(&door, &first, &words).await {
                refused = Some(error.to_string());
                break;
            }
        }
        assert!(refused.unwrap().contains("too many requests"));
        assert_eq!(heard(&door, 2, &second).await.len(), 1);
        running.stop().await;
    });
}
