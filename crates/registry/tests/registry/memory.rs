//! What a registry still knows after it was stopped, killed, or restored.

use std::{
    fs,
    io::Cursor,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hextet_mesh::{certificate::Certificate, signed::Signed, token::Invitation};
use hextet_registry::{client, restore};

use crate::bench::{Place, block_on, join, joined, refusal, renew};

#[test]
fn a_restart_changes_nothing() {
    block_on(async {
        let place = Place::new("ipv4 = '10.0.0.0/24'\n");
        let running = place.run().await;
        let used = place.invite(&[]).await;
        let unused = place.invite(&["later"]).await;
        let first = joined(&used, 1).await;
        let gone = joined(&place.invite(&[]).await, 2).await;
        place.revoke(&gone).await;
        let (nodes, parameters) = (place.nodes().await, place.parameters().await);
        let door = place.door().await;
        running.stop().await;
        let running = place.run().await;
        assert_eq!(place.door().await, door, "nodes know its key");
        assert_eq!(place.nodes().await.nodes, nodes.nodes);
        assert_eq!(place.parameters().await.version, parameters.version);
        assert_eq!(joined(&used, 1).await, first);
        let next = joined(&unused, 3).await;
        for old in [&first, &gone] {
            assert!(!next.body.prefixes[0].overlaps(old.body.prefixes[0]));
            assert_ne!(next.body.ipv4, old.body.ipv4);
        }
        assert!(refusal(join(&unused, 4).await).contains("token does not count"));
        assert!(
            join(&used, 1)
                .await
                .unwrap()
                .trust
                .verify(&gone, hextet_registry::clock::now())
                .is_err()
        );
        running.stop().await;
        let other = Place {
            more: "prefix = '2001:db8::/40'\n".into(),
            ..place
        };
        let error = hextet_registry::Registry::open(&other.config())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("this network was made with"),
            "{error}"
        );
    });
}

#[test]
fn a_restore_renumbers_nothing() {
    block_on(async {
        let mut place = Place::new("prefix = '2001:db8::/40'\nsettle_secs = 3600\n");
        let running = place.run().await;
        let first = joined(&place.invite(&[]).await, 1).await;
        let second = joined(&place.invite(&[]).await, 2).await;
        let backup = client::ask_admin(&place.path("socket"), "/backup", None::<&()>)
            .await
            .unwrap();
        // What follows is not in the backup.
        let late = joined(&place.invite(&[]).await, 3).await;
        let door = place.door().await;
        let renewed = renew(&door, 1, &first).await.unwrap().certificate.unwrap();
        place.revoke(&second).await;
        let list = join(&door, 1)
            .await
            .unwrap()
            .trust
            .revocations()
            .next()
            .unwrap()
            .clone();
        running.stop().await;
        fs::remove_file(place.path("store")).unwrap();
        restore(&place.config(), Cursor::new(&backup), false)
            .await
            .unwrap();
        let again = restore(&place.config(), Cursor::new(&backup), false).await;
        assert!(again.is_err(), "not empty");

        let running = place.run().await;
        assert_eq!(place.door().await, door);
        let invitation = place.invite(&[]).await;
        assert!(
            refusal(join(&invitation, 4).await).contains("restored"),
            "first it listens"
        );
        let blob = hextet_registry::message::Blob::of(&list);
        assert!(
            client::ask::<bool>(&door, "/mesh/v1/revocations", Some(&blob))
                .await
                .unwrap()
        );
        assert!(
            refusal(renew(&door, 2, &second).await).contains("revoked"),
            "it is out still"
        );
        let after = renew(&door, 3, &late).await.unwrap().certificate.unwrap();
        assert_eq!(
            (after.body.prefixes, after.body.node),
            (late.body.prefixes.clone(), late.body.node)
        );
        let after = renew(&door, 1, &renewed)
            .await
            .unwrap()
            .certificate
            .unwrap();
        assert_eq!(
            (&after.body.prefixes, after.body.serial),
            (&first.body.prefixes, 3)
        );
        running.stop().await;

        place.more = place.more.replace("3600", "0");
        let running = place.run().await;
        let fresh = joined(&invitation, 4).await;
        let apart = |old: &Signed<Certificate>| {
            let fresh = fresh.body.prefixes[0];
            !fresh.overlaps(old.body.prefixes[0])
        };
        assert!([&first, &second, &late].into_iter().all(apart));
        running.stop().await;
    });
}

/// Ends with its owner, whatever becomes of the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(place: &Place, config: &Path) -> Killed {
    fs::write(config, place.text()).unwrap();
    let _ = fs::remove_file(place.path("socket"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_registry_to_be_killed", "--ignored"])
        .env("REGISTRY_CONFIG", config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    let end = Instant::now() + Duration::from_secs(60);
    while std::os::unix::net::UnixStream::connect(place.path("socket")).is_err() {
        assert!(Instant::now() < end, "the registry does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn killed_amid_enrolments_it_forgets_nothing_that_was_answered() {
    const NODES: u8 = 15;
    let place = Place::new("prefix = '2001:db8::/40'\n");
    let config = place.path("registry.toml");
    for killed_after in [0, 3, 9] {
        fs::remove_file(place.path("store"))
            .or_else(|e| match e.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            })
            .unwrap();
        let child = process(&place, &config);
        block_on(async {
            let mut invitations: Vec<Invitation> = Vec::new();
            for _ in 0..NODES {
                invitations.push(place.invite(&[]).await);
            }
            let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
            for (seed, invitation) in (1..).zip(invitations.clone()) {
                let told = told.clone();
                tokio::spawn(async move {
                    if let Ok(got) = join(&invitation, seed).await {
                        let _ = told.send((seed, got.certificate.unwrap()));
                    }
                });
            }
            drop(told);
            let mut before = Vec::new();
            while before.len() < killed_after {
                before.push(answers.recv().await.unwrap());
            }
            drop(child);
            while let Some(answer) = answers.recv().await {
                before.push(answer);
            }
            let _again = process(&place, &config);
            let mut prefixes = Vec::new();
            for (seed, invitation) in (1..).zip(&invitations) {
                let certificate = joined(invitation, seed).await;
                prefixes.push(certificate.body.prefixes[0]);
                if let Some((_, old)) = before.iter().find(|(s, _)| *s == seed) {
                    assert_eq!(&certificate, old, "it was answered before");
                }
            }
            prefixes.sort();
            prefixes.dedup();
            assert_eq!(prefixes.len(), usize::from(NODES), "no prefix twice");
            assert_eq!(
                place.nodes().await.nodes.len(),
                usize::from(NODES),
                "no node twice"
            );
        });
    }
}
