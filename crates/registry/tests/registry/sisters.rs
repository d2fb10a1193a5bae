//! Two registries of one network: what one does the other knows, and either is enough.

use std::{future::Future, time::Duration};

use hextet_registry::{
    Registry,
    message::{ParametersShown, TokenAnswer, TokenRequest},
    told::{Registries, Removal, Removed},
};
use tokio::time::{Instant, sleep};

use crate::bench::{Place, block_on, join, joined, refusal, renew, root_of};

async fn invitation(first: &Place) -> String {
    let request = TokenRequest {
        class: "registry".into(),
        groups: Vec::new(),
        minutes: 5,
        email: None,
    };
    let answer: TokenAnswer = first.ask("/token", &request).await;
    answer.invitation
}

async fn second(first: &Place) -> Place {
    let join = invitation(first).await;
    Place::new(&format!("settle_secs = 0\njoin = '{join}'\n"))
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < end, "not so after 30 s: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn same_nodes(a: &Place, b: &Place) {
    until("both know the same nodes", || async {
        a.nodes().await.nodes == b.nodes().await.nodes
    })
    .await;
}

#[test]
fn either_lets_in_renews_and_revokes() {
    block_on(async {
        let a = Place::new("prefix = '2001:db8::/40'\nprefix_len = 60\nsettle_secs = 0\n");
        let running_a = a.run().await;
        let first = joined(&a.invite(&["web"]).await, 1).await;
        let b = second(&a).await;
        let running_b = b.run().await;
        let (door_a, door_b) = (a.door().await, b.door().await);
        assert_eq!(root_of(&door_a).await, root_of(&door_b).await);
        same_nodes(&a, &b).await;
        let by_b = joined(&b.invite(&[]).await, 2).await;
        assert_eq!(by_b.body.prefixes[0].len(), 60, "as the first one cuts");
        assert!(!by_b.body.prefixes[0].overlaps(first.body.prefixes[0]));
        let renewed = renew(&door_b, 1, &first).await.unwrap();
        let renewed = renewed.certificate.unwrap();
        assert_eq!(renewed.body.prefixes, first.body.prefixes);
        same_nodes(&a, &b).await;

        running_a.stop().await;
        let alone = joined(&b.invite(&[]).await, 3).await;
        b.revoke(&renewed).await;
        let change = ParametersShown {
            hello_secs: Some(9),
            ..ParametersShown::default()
        };
        let changed: ParametersShown = b.ask("/parameters", &change).await;
        assert_eq!(changed.hello_secs, Some(9));
        until("the other one is missed", || async {
            let all: Registries = b.look("/registries").await;
            all.registries.iter().any(|r| r.away.is_some())
        })
        .await;

        let running_a = a.run().await;
        same_nodes(&a, &b).await;
        assert_eq!(a.parameters().await.hello_secs, Some(9));
        let refused = refusal(renew(&door_a, 1, &renewed).await);
        assert!(refused.contains("revoked"), "{refused}");
        let next = renew(&door_a, 3, &alone).await.unwrap();
        assert_eq!(next.certificate.unwrap().body.prefixes, alone.body.prefixes);
        let known = join(&door_a, 3).await.unwrap().trust;
        assert_eq!(known.revocations().count(), 2);
        let lists = known.revocations();
        assert!(lists.into_iter().all(|list| {
            let body = &renewed.body;
            list.body.names(body.node, body.serial)
        }));
        running_b.stop().await;
        running_a.stop().await;
    });
}

#[test]
fn a_second_one_goes_on_where_it_was_killed_and_is_taken_out() {
    block_on(async {
        let a = Place::new("ipv4 = '10.0.0.0/24'\nsettle_secs = 0\n");
        let running_a = a.run().await;
        let first = joined(&a.invite(&[]).await, 1).await;
        let b = second(&a).await;
        // What it was answered, and nothing more, is in its store.
        drop(Registry::open(&b.config()).await.unwrap());
        let running_b = b.run().await;
        same_nodes(&a, &b).await;
        let by_b = joined(&b.invite(&[]).await, 2).await;
        assert_ne!(by_b.body.ipv4, first.body.ipv4);
        same_nodes(&a, &b).await;
        let all: Registries = a.look("/registries").await;
        let urls: Vec<_> = all.registries.iter().map(|r| &r.url).collect();
        assert_eq!(urls.len(), 2);

        let node = a.invite(&[]).await;
        let wrong = Place::new(&format!("join = '{}'\n", node.text()));
        let error = Registry::open(&wrong.config()).await.unwrap_err();
        assert!(error.to_string().contains("hextet mesh join"), "{error}");
        let registry = invitation(&a).await;
        let refused = refusal(join(&registry.parse().unwrap(), 3).await);
        assert!(refused.contains("configuration"), "{refused}");
        let third = Place::new(&format!("join = '{registry}'\n"));
        let error = Registry::open(&third.config()).await.unwrap_err();
        assert!(error.to_string().contains("registry-remove"), "{error}");

        let removal = Removal {
            url: format!("https://{}", b.at),
            distrust: false,
        };
        let removed: Removed = a.ask("/registries/remove", &removal).await;
        assert!(removed.is_closed);
        until("the other one knows that it is out", || async {
            let all: Registries = b.look("/registries").await;
            all.registries.len() == 1
        })
        .await;
        let refused = refusal(renew(&b.door().await, 1, &first).await);
        assert!(refused.contains(&a.at.to_string()), "{refused}");
        let kept = renew(&a.door().await, 2, &by_b).await.unwrap();
        assert_eq!(kept.certificate.unwrap().body.ipv4, by_b.body.ipv4);
        running_b.stop().await;
        running_a.stop().await;
    });
}
