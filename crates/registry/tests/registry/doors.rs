//! Who is let in, who is not, and who is sent away again.

use hextet_mesh::{
    certificate::Class,
    label::Label,
    signed::Signed,
    token::{Invitation, Pin, SECRET_LEN, Secret},
    trust::Standing,
};
use hextet_registry::{
    client::{self, About, ClientError},
    clock::now,
    message::{Blob, EnrolRequest, Named, Network, ParametersShown, TokenRequest},
    rules::RulesShown,
};

use crate::bench::{Place, block_on, enrolment, join, joined, key, refusal, renew};

const BOTH: &str = "prefix = '2001:db8::/40'\nipv4 = '10.64.0.0/16'\nipv4_len = 28\n\
                    communities = { eu = '2001:db8:40::/44' }\n";

#[test]
fn a_token_lets_one_node_in() {
    block_on(async {
        let place = Place::new(BOTH);
        let running = place.run().await;
        let invitation = place.invite(&["web", "db"]).await;
        let about = About {
            name: Some("paris".parse().unwrap()),
            communities: ["fr", "eu"].map(|l| l.parse::<Label>().unwrap()).into(),
            client: false,
        };
        let got = client::join(&invitation, &key(1), about, now())
            .await
            .unwrap();
        let certificate = got.certificate.unwrap();
        assert_eq!(got.trust.verify(&certificate, now()), Ok(Standing::Current));
        let body = &certificate.body;
        let [prefix] = body.prefixes[..] else {
            panic!("{body:?}")
        };
        assert!(
            "2001:db8:40::/44"
                .parse::<hextet_types::Prefix>()
                .unwrap()
                .covers(prefix)
        );
        assert_eq!(
            (prefix.len(), body.ipv4.unwrap().len(), body.class),
            (64, 28, Class::Node)
        );
        assert_eq!(
            body.groups.iter().map(Label::as_str).collect::<Vec<_>>(),
            ["db", "web"]
        );
        assert!(certificate.encode().len() <= 200);
        assert_eq!(
            joined(&invitation, 1).await,
            certificate,
            "an answer was lost"
        );
        assert!(refusal(join(&invitation, 2).await).contains("token does not count"));
        let next = joined(&place.invite(&[]).await, 2).await;
        assert!(!next.body.prefixes[0].overlaps(prefix));
        assert_ne!(next.body.ipv4, body.ipv4);
        running.stop().await;
    });
}

#[test]
fn who_is_not_let_in() {
    block_on(async {
        let place = Place::new("");
        let running = place.run().await;
        let invitation = place.invite(&[]).await;
        assert!(refusal(join(&place.door().await, 1).await).contains("without a token"));
        let wrong = Invitation {
            token: Some(Secret([1; SECRET_LEN])),
            ..invitation.clone()
        };
        assert!(refusal(join(&wrong, 1).await).contains("token does not count"));
        let other = Invitation {
            pin: Pin([1; 32]),
            ..invitation.clone()
        };
        let error = join(&other, 1).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Unreachable { why, .. } if why.contains("key")),
            "{error}"
        );
        let stolen = Signed::sign(enrolment(&invitation, 1, "a"), &key(2));
        let request = EnrolRequest {
            enrolment: Blob::of(&stolen),
        };
        let asked = client::ask::<Network>(&invitation, "/mesh/v1/enrol", Some(&request)).await;
        assert!(refusal(asked).contains("not signed"));
        let request = EnrolRequest {
            enrolment: Blob(vec![1; 40]),
        };
        let asked = client::ask::<Network>(&invitation, "/mesh/v1/enrol", Some(&request)).await;
        assert!(refusal(asked).contains("cut short"));
        assert!(place.nodes().await.nodes.is_empty());
        joined(&invitation, 1).await;
        running.stop().await;
    });
}

#[test]
fn an_administrator_approves() {
    block_on(async {
        let place = Place::new("strangers = 'ask'\n");
        let running = place.run().await;
        let door = place.door().await;
        assert_eq!(join(&door, 1).await.unwrap().certificate, None);
        assert_eq!(join(&door, 2).await.unwrap().certificate, None);
        assert_eq!(join(&door, 1).await.unwrap().certificate, None);
        let waiting = place.nodes().await.waiting;
        assert_eq!(waiting.len(), 2);
        let name = key(1).public().to_string();
        let _: Named = place.ask("/approve", &Named { name }).await;
        let name = key(2).public().to_string();
        place.ask::<()>("/refuse", &Named { name }).await;
        assert_eq!(joined(&door, 1).await.body.class, Class::Node);
        assert!(place.nodes().await.waiting.is_empty());
        let name = "nobody".to_owned();
        assert!(
            refusal(
                place
                    .try_ask::<Named>("/approve", Some(&Named { name }))
                    .await
            )
            .contains("no such")
        );
        running.stop().await;
    });
}

#[test]
fn an_open_door_makes_anonymous_nodes_at_a_bounded_rate() {
    block_on(async {
        let place = Place::new("strangers = 'welcome'\n");
        let running = place.run().await;
        let door = place.door().await;
        assert_eq!(joined(&door, 1).await.body.class, Class::Anonymous);
        let mut refused = None;
        for seed in 2..60 {
            if let Err(error) = join(&door, seed).await {
                refused = Some(error.to_string());
                break;
            }
        }
        assert!(refused.unwrap().contains("too many requests"));
        running.stop().await;
    });
}

#[test]
fn a_revoked_node_comes_back_by_a_new_token_alone() {
    block_on(async {
        let place = Place::new("strangers = 'ask'\n");
        let running = place.run().await;
        let invitation = place.invite(&[]).await;
        let door = place.door().await;
        let first = joined(&invitation, 1).await;
        let other = joined(&place.invite(&[]).await, 2).await;
        place.revoke(&first).await;
        assert!(place.nodes().await.nodes.iter().any(|n| n.revoked));
        assert!(refusal(renew(&door, 1, &first).await).contains("revoked"));
        assert!(refusal(join(&invitation, 1).await).contains("token does not count"));
        assert!(refusal(join(&door, 1).await).contains("revoked"));
        let trust = join(&door, 2).await.unwrap().trust;
        assert!(trust.verify(&first, now()).is_err());
        assert_eq!(trust.verify(&other, now()), Ok(Standing::Current));
        let again = joined(&place.invite(&[]).await, 1).await;
        assert_eq!(again.body.prefixes, first.body.prefixes);
        assert_eq!((again.body.node, again.body.serial), (first.body.node, 2));
        assert_eq!(trust.verify(&again, now()), Ok(Standing::Current));
        running.stop().await;
    });
}

#[test]
fn a_certificate_is_renewed_by_its_key() {
    block_on(async {
        let place = Place::new("");
        let running = place.run().await;
        let first = joined(&place.invite(&["web"]).await, 1).await;
        let door = place.door().await;
        let second = renew(&door, 1, &first).await.unwrap().certificate.unwrap();
        assert_eq!(second.body.serial, 2);
        assert_eq!(second.body.prefixes, first.body.prefixes);
        assert_eq!(second.body.groups, first.body.groups);
        let again = renew(&door, 1, &first).await.unwrap().certificate.unwrap();
        assert_eq!(again, second, "an answer was lost");
        let third = renew(&door, 1, &second).await.unwrap().certificate.unwrap();
        assert_eq!(third.body.serial, 3);
        assert!(refusal(renew(&door, 1, &first).await).contains("serial 3, not 1"));
        let stranger = joined(&place.invite(&[]).await, 2).await;
        let stolen = Signed::sign(
            hextet_mesh::request::Renewal {
                network: third.body.network,
                node: third.body.node,
                serial: 3,
                at: now(),
            },
            &key(2),
        );
        let request = hextet_registry::message::RenewRequest {
            certificate: Blob::of(&third),
            renewal: Blob::of(&stolen),
        };
        let asked = client::ask::<Network>(&door, "/mesh/v1/renew", Some(&request)).await;
        assert!(refusal(asked).contains("not signed"));
        assert_eq!(stranger.body.serial, 1);
        running.stop().await;
    });
}

#[test]
fn parameters_are_signed_anew_and_tokens_bounded() {
    block_on(async {
        let place = Place::new("prefix = 'fd12:3456:789a::/48'\n");
        let running = place.run().await;
        let invitation = place.invite(&[]).await;
        let before = join(&invitation, 1).await.unwrap().trust;
        let change = ParametersShown {
            hello_secs: Some(9),
            lifetime_secs: Some(3_600),
            ..ParametersShown::default()
        };
        let after: ParametersShown = place.ask("/parameters", &change).await;
        assert_eq!((after.hello_secs, after.random), (Some(9), Some(6)));
        let again: ParametersShown = place.ask("/parameters", &change).await;
        assert_eq!(again.version, after.version, "nothing is different");
        let bad = ParametersShown {
            most: Some(1),
            ..ParametersShown::default()
        };
        assert!(
            place
                .try_ask::<ParametersShown>("/parameters", Some(&bad))
                .await
                .is_err()
        );
        assert_eq!(place.parameters().await.most, Some(32));
        let rules =
            "default = 'deny'\n[[rule]]\nfrom = ['web']\nprotocol = 'icmp'\naction = 'allow'";
        let rules = RulesShown::parse(rules).unwrap();
        let change = ParametersShown {
            rules: Some(rules.clone()),
            ..ParametersShown::default()
        };
        let ruled: ParametersShown = place.ask("/parameters", &change).await;
        assert_eq!(ruled.rules.as_ref(), Some(&rules));
        assert!(ruled.version > after.version);
        let mut trust = before;
        let newer = join(&invitation, 1)
            .await
            .unwrap()
            .trust
            .parameters()
            .clone();
        assert_eq!(trust.offer_parameters(newer), Ok(true));
        assert_eq!(trust.parameters().body.hello_secs, 9);
        for minutes in [0, u32::MAX] {
            let request = TokenRequest {
                class: "node".into(),
                groups: Vec::new(),
                minutes,
                email: None,
            };
            assert!(
                place
                    .try_ask::<Named>("/token", Some(&request))
                    .await
                    .is_err()
            );
        }
        running.stop().await;
    });
}
