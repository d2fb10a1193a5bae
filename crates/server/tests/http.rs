//! HTTP itself: what is refused before a handler looks at it has the shape of the API that was asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloud;

use hextet_server::StoreKind;
use serde_json::json;

use cloud::TestCloud;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_shape_of_the_api_that_was_asked() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let huge = json!({"network": {"name": "x".repeat(5 << 20)}});
    let answer = admin.post("/networking/v2.0/networks", huge).await;
    answer.refused(413, "HTTPRequestEntityTooLarge");
    let path = "/networking/v2.0/networks/%ff";
    let words = admin.get(path).await.refused(400, "HTTPBadRequest");
    assert!(words.contains("UTF-8"), "{words}");
    // Before anybody is known, less is taken.
    let large = json!({"auth": {"identity": {"methods": ["x".repeat(1 << 17)]}}});
    let anybody = cloud.anybody();
    let refused = anybody
        .post("/identity/v3/auth/tokens", large)
        .await
        .ok(413);
    assert_eq!(refused["error"]["title"], "Request Entity Too Large");
    let refused = admin.get("/identity/v3/projects/%ff").await.ok(400);
    assert_eq!(refused["error"]["code"], 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    for (method, path, allowed) in [
        ("PATCH", "/networking/v2.0/networks", "GET,HEAD,POST"),
        (
            "PUT",
            "/networking/v2.0/security-group-rules/x",
            "GET,HEAD,DELETE",
        ),
        ("PUT", "/identity/v3/projects", "GET,HEAD,POST"),
        ("DELETE", "/identity/v3", "GET,HEAD"),
    ] {
        let answer = admin.send(method, path, None).await;
        assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
        let body = answer.ok(405);
        let said = if path.starts_with("/networking") {
            &body["NeutronError"]["message"]
        } else {
            &body["error"]["message"]
        };
        assert!(said.as_str().unwrap().contains("method"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_for_another_that_is_ending() {
    let directory = tempfile::TempDir::new().unwrap();
    let config = cloud::config(&directory, StoreKind::Redb);
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let former = hextet_server::admin::open_store(&config).unwrap();
    let starting = tokio::spawn(hextet_server::Server::start(config.clone()));
    let locked = hextet_server::admin::open_store(&config);
    assert!(matches!(
        locked,
        Err(hextet_store::StoreError::Locked { .. })
    ));
    drop(former);
    let server = starting.await.unwrap().unwrap();
    server.stop().await.unwrap();
}
