//! The identity API over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::os::unix::fs::PermissionsExt;

use cloud::{Client, TestCloud};
use hextet_server::{Server, StoreKind};
use serde_json::{Value, json};

fn by_password(user: &str, password: &str, scope: Option<Value>) -> Value {
    let mut body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": user, "domain": {"name": "Default"}, "password": password}}}}});
    if let Some(scope) = scope {
        body["auth"]["scope"] = scope;
    }
    body
}

async fn token(client: &Client, body: Value) -> (Client, Value) {
    let answer = client.post("/identity/v3/auth/tokens", body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let token = answer.headers["x-subject-token"]
        .to_str()
        .unwrap()
        .to_owned();
    (
        Client {
            token: Some(token),
            ..client.clone()
        },
        answer.body["token"].clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_administrator_whose_secret_only_its_owner_reads() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let file = std::fs::metadata(cloud.clouds_yaml()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let store = std::fs::metadata(cloud.config.store_file()).unwrap();
    assert_eq!(store.permissions().mode() & 0o777, 0o600);
    let password = cloud.password();
    assert!(password.len() >= 40, "as long as a key");
    let before = cloud.admin().await;
    // A second start leaves everything as it is: the token counts still.
    let TestCloud {
        server,
        config,
        directory,
    } = cloud;
    server.stop().await.unwrap();
    let stored = std::fs::read(config.store_file()).unwrap();
    assert!(
        !stored
            .windows(password.len())
            .any(|w| w == password.as_bytes()),
        "never stored plainly"
    );
    let token = before.token.clone().unwrap();
    assert!(
        !stored.windows(token.len()).any(|w| w == token.as_bytes()),
        "stored as a hash"
    );
    let server = Server::start(config.clone()).await.unwrap();
    let cloud = TestCloud {
        server,
        config,
        directory,
    };
    assert_eq!(cloud.password(), password);
    let again = Client {
        address: cloud.server.addresses.clients,
        ..before
    };
    again.get("/networking/v2.0/networks").await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_a_project_a_domain_the_system_or_nothing() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (anybody, password) = (cloud.anybody(), cloud.password());
    let domain = json!({"id": "default"});
    let project = json!({"project": {"name": "admin", "domain": domain}});
    let (_, shown) = token(&anybody, by_password("admin", &password, Some(project))).await;
    assert_eq!(shown["project"]["name"], "admin");
    let services: Vec<_> = shown["catalog"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["type"].clone())
        .collect();
    assert_eq!(services, ["identity", "network"]);
    let (_, shown) = token(
        &anybody,
        by_password("admin", &password, Some(json!({"system": {"all": true}}))),
    )
    .await;
    assert_eq!(shown["system"], json!({"all": true}));
    let (_, shown) = token(
        &anybody,
        by_password("admin", &password, Some(json!({"domain": domain}))),
    )
    .await;
    assert_eq!(shown["domain"]["id"], "default");
    // Without a scope: the default project.
    let (_, shown) = token(&anybody, by_password("admin", &password, None)).await;
    assert_eq!(shown["project"]["name"], "admin");
    let (unscoped, shown) = token(
        &anybody,
        by_password("admin", &password, Some(json!("unscoped"))),
    )
    .await;
    assert!(shown.get("catalog").is_none() && shown.get("roles").is_none());
    unscoped
        .get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
    let projects = unscoped.get("/identity/v3/auth/projects").await.ok(200);
    let id = projects["projects"][0]["id"].clone();
    let by_token = json!({"auth": {
        "identity": {"methods": ["token"], "token": {"id": unscoped.token}},
        "scope": {"project": {"id": id}},
    }});
    let (scoped, _) = token(&anybody, by_token).await;
    scoped.get("/networking/v2.0/networks").await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_and_revoked() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    let subject = |of: &Client| vec![("x-subject-token", of.token.clone().unwrap())];
    let ask = async |by: &Client, method: &str, of: &Client| {
        let headers = subject(of);
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        by.request(method, "/identity/v3/auth/tokens", &headers, None)
            .await
    };
    let shown = ask(&admin, "GET", &user).await.ok(200);
    assert_eq!(shown["token"]["user"]["name"], "alpha");
    let roles: Vec<_> = shown["token"]["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    assert_eq!(roles, ["member", "reader"]);
    ask(&admin, "HEAD", &user).await.ok(200);
    ask(&user, "GET", &admin).await.ok(403);
    ask(&user, "DELETE", &user).await.ok(204);
    user.get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
    ask(&admin, "GET", &user).await.ok(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_are_refused_without_saying_why_and_not_for_ever() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let anybody = cloud.anybody();
    let mut answers = Vec::new();
    for user in ["admin", "nobody"] {
        let body = by_password(user, "wrong", None);
        answers.push(anybody.post("/identity/v3/auth/tokens", body).await.ok(401));
    }
    assert_eq!(
        answers[0], answers[1],
        "whether the user exists is not told"
    );
    for _ in 0..9 {
        let body = by_password("admin", "wrong", None);
        anybody.post("/identity/v3/auth/tokens", body).await.ok(401);
    }
    let right = by_password("admin", &cloud.password(), None);
    anybody
        .post("/identity/v3/auth/tokens", right)
        .await
        .ok(429);
    for body in [
        json!({}),
        json!({"auth": {}}),
        json!([]),
        json!({"auth": {"identity": {"methods": ["x"]}}}),
    ] {
        anybody.post("/identity/v3/auth/tokens", body).await.ok(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn application_credentials_act_for_their_user_in_one_project() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, project) = cloud.project("alpha", "member").await;
    let me = user
        .request(
            "GET",
            "/identity/v3/auth/tokens",
            &[("x-subject-token", user.token.as_deref().unwrap())],
            None,
        )
        .await
        .ok(200);
    let id = me["token"]["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/identity/v3/users/{id}/application_credentials");
    let body = json!({"application_credential": {"name": "ci", "roles": [{"name": "reader"}]}});
    let made = user.post(&path, body.clone()).await.ok(201)["application_credential"].clone();
    user.post(&path, body).await.ok(409);
    let login = json!({"auth": {"identity": {"methods": ["application_credential"],
        "application_credential": {"id": made["id"], "secret": made["secret"]}}}});
    let (robot, shown) = token(&cloud.anybody(), login.clone()).await;
    assert_eq!(shown["project"]["id"], json!(project));
    assert_eq!(shown["roles"].as_array().unwrap().len(), 1);
    robot.get("/networking/v2.0/networks").await.ok(200);
    robot
        .try_create("networks", "network", json!({}))
        .await
        .refused(403, "PolicyNotAuthorized");
    robot
        .post(&path, json!({"application_credential": {"name": "more"}}))
        .await
        .ok(403);
    let listed = user.get(&path).await.ok(200);
    assert!(listed["application_credentials"][0].get("secret").is_none());
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    user.send("DELETE", &one, None).await.ok(204);
    robot
        .get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
    cloud
        .anybody()
        .post("/identity/v3/auth/tokens", login)
        .await
        .ok(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_never_wider_than_what_was_asked_for() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, project) = cloud.project("alpha", "member").await;
    let own = user.token.clone().unwrap();
    let header = [("x-subject-token", own.as_str())];
    let me = user.request("GET", "/identity/v3/auth/tokens", &header, None);
    let id = me.await.ok(200)["token"]["user"]["id"].clone();
    let path = format!(
        "/identity/v3/users/{}/application_credentials",
        id.as_str().unwrap()
    );
    for wrong in [
        json!({"name": "ci", "roles": "reader"}),
        json!({"name": "ci", "expires_at": "2020-01-01T00:00:00"}),
        json!({"name": "ci", "expires_at": "tomorrow"}),
        json!({"name": "ci", "access_rules": [{"path": "/v2.0/networks", "method": "GET"}]}),
    ] {
        let body = json!({"application_credential": wrong});
        user.post(&path, body).await.ok(400);
    }
    let body = json!({"application_credential": {"name": "ci"}});
    let made = user.post(&path, body).await.ok(201)["application_credential"].clone();
    let login = async |scope: Option<Value>| {
        let mut login = json!({"auth": {"identity": {"methods": ["application_credential"],
            "application_credential": {"id": made["id"], "secret": made["secret"]}}}});
        if let Some(scope) = scope {
            login["auth"]["scope"] = scope;
        }
        let anybody = cloud.anybody();
        anybody.post("/identity/v3/auth/tokens", login).await
    };
    let scope = json!({"project": {"id": project}});
    login(Some(scope)).await.ok(401);
    login(None).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_a_deleted_project_s_credentials_are_free_again() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    let users = admin.get("/identity/v3/users?name=alpha").await.ok(200);
    let id = users["users"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/identity/v3/users/{id}/application_credentials");
    let body = json!({"application_credential": {"name": "ci"}});
    user.post(&path, body.clone()).await.ok(201);
    let gone = format!("/identity/v3/projects/{project}");
    admin.send("DELETE", &gone, None).await.ok(204);
    let beta = json!({"project": {"name": "beta", "domain_id": "default"}});
    let beta = admin.post("/identity/v3/projects", beta).await.ok(201);
    let beta = beta["project"]["id"].as_str().unwrap().to_owned();
    let roles = admin.get("/identity/v3/roles?name=member").await.ok(200);
    let role = roles["roles"][0]["id"].as_str().unwrap();
    let grant = format!("/identity/v3/projects/{beta}/users/{id}/roles/{role}");
    admin.send("PUT", &grant, None).await.ok(204);
    let user = cloud.anybody().login("alpha", "a password", "beta").await;
    user.post(&path, body).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_user_s_tokens_stay_dead_and_nobody_locks_everybody_out() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    let networks = "/networking/v2.0/networks";
    let by_name = async |name: &str| {
        let users = admin.get(&format!("/identity/v3/users?name={name}")).await;
        let id = users.ok(200)["users"][0]["id"].clone();
        format!("/identity/v3/users/{}", id.as_str().unwrap())
    };
    let path = by_name("alpha").await;
    for enabled in [false, true] {
        let body = json!({"user": {"enabled": enabled}});
        admin.send("PATCH", &path, Some(body)).await.ok(200);
        user.get(networks).await.refused(401, "HTTPUnauthorized");
    }
    let again = cloud.anybody().login("alpha", "a password", "alpha").await;
    again.get(networks).await.ok(200);
    let own = by_name("admin").await;
    let off = json!({"user": {"enabled": false}});
    admin.send("PATCH", &own, Some(off)).await.ok(403);
    admin.send("DELETE", &own, None).await.ok(403);
    let off = json!({"domain": {"enabled": false}});
    let domain = "/identity/v3/domains/default";
    admin.send("PATCH", domain, Some(off)).await.ok(403);
    admin.get(networks).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_domain_alone_has_no_networks() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    cloud.project("alpha", "member").await;
    let users = admin.get("/identity/v3/users?name=alpha").await.ok(200);
    let id = users["users"][0]["id"].as_str().unwrap().to_owned();
    let roles = admin.get("/identity/v3/roles?name=member").await.ok(200);
    let role = roles["roles"][0]["id"].as_str().unwrap();
    let grant = format!("/identity/v3/domains/default/users/{id}/roles/{role}");
    admin.send("PUT", &grant, None).await.ok(204);
    let scope = json!({"domain": {"id": "default"}});
    let login = by_password("alpha", "a password", Some(scope));
    let (member, _) = token(&cloud.anybody(), login).await;
    let answer = member.get("/networking/v2.0/ports").await;
    answer.refused(403, "PolicyNotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_manage_domains_and_projects() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let body = json!({"domain": {"name": "lab"}});
    let domain = admin.post("/identity/v3/domains", body).await.ok(201)["domain"].clone();
    let found = admin.get("/identity/v3/domains?name=lab").await.ok(200);
    assert_eq!(found["domains"].as_array().unwrap().len(), 1);
    let body = json!({"project": {"name": "p", "domain_id": domain["id"]}});
    let project = admin
        .post("/identity/v3/projects", body.clone())
        .await
        .ok(201);
    admin.post("/identity/v3/projects", body).await.ok(409);
    for wrong in [
        json!({"parent_id": project["project"]["id"]}),
        json!({"is_domain": true}),
    ] {
        let mut body = json!({"project": wrong});
        body["project"]["name"] = json!("nested");
        admin.post("/identity/v3/projects", body).await.ok(400);
    }
    let path = format!(
        "/identity/v3/projects/{}",
        project["project"]["id"].as_str().unwrap()
    );
    let renamed = json!({"project": {"name": "q", "description": "x", "tags": ["a", "b"]}});
    admin.send("PATCH", &path, Some(renamed)).await.ok(200);
    for (query, count) in [
        ("tags=a,b", 1),
        ("tags=a,c", 0),
        ("tags-any=a,c", 1),
        ("not-tags-any=a,c&name=q", 0),
        ("not-tags=a,c&name=q", 1),
    ] {
        let found = admin.get(&format!("/identity/v3/projects?{query}")).await;
        let found = found.ok(200)["projects"].as_array().unwrap().len();
        assert_eq!(found, count, "{query}");
    }
    let shown = admin.get(&path).await.ok(200);
    assert_eq!(shown["project"]["name"], "q");
    admin.get("/identity/v3/projects/none").await.ok(404);
    let (member, _) = cloud.project("alpha", "member").await;
    member.get(&path).await.ok(403);
    member.get("/identity/v3/domains").await.ok(403);
    let of = format!("/identity/v3/domains/{}", domain["id"].as_str().unwrap());
    admin.send("DELETE", &of, None).await.ok(403);
    admin.send("DELETE", &path, None).await.ok(204);
    let off = json!({"domain": {"enabled": false}});
    admin.send("PATCH", &of, Some(off)).await.ok(200);
    admin.send("DELETE", &of, None).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_manage_users_and_their_roles() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let projects = admin
        .get("/identity/v3/projects?name=service")
        .await
        .ok(200);
    let project = projects["projects"][0]["id"].as_str().unwrap().to_owned();
    let body = json!({"user": {"name": "u", "password": "secret!"}});
    let user = admin.post("/identity/v3/users", body).await.ok(201)["user"].clone();
    assert!(user.get("password").is_none());
    let user = user["id"].as_str().unwrap().to_owned();
    let login = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {"id": user, "password": "secret!"}}},
        "scope": {"project": {"id": project}},
    }});
    let anybody = cloud.anybody();
    anybody
        .post("/identity/v3/auth/tokens", login.clone())
        .await
        .ok(401);
    let roles = admin.get("/identity/v3/roles?name=member").await.ok(200);
    let member = roles["roles"][0]["id"].as_str().unwrap().to_owned();
    let grant = format!("/identity/v3/projects/{project}/users/{user}/roles/{member}");
    admin.send("HEAD", &grant, None).await.ok(404);
    admin.send("PUT", &grant, None).await.ok(204);
    admin.send("HEAD", &grant, None).await.ok(204);
    let path = format!("/identity/v3/role_assignments?user.id={user}&include_names=1");
    let listed = admin.get(&path).await.ok(200);
    assert_eq!(listed["role_assignments"][0]["role"]["name"], "member");
    let (client, _) = token(&anybody, login.clone()).await;
    client.get("/identity/v3/users").await.ok(403);
    let theirs = client
        .get(&format!("/identity/v3/users/{user}/projects"))
        .await
        .ok(200);
    assert_eq!(theirs["projects"][0]["name"], "service");
    // Taking the role takes the token's power at once.
    admin.send("DELETE", &grant, None).await.ok(204);
    client
        .get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
    admin.send("PUT", &grant, None).await.ok(204);
    client.get("/networking/v2.0/networks").await.ok(200);
    // So does a new password, for good.
    let change = json!({"user": {"original_password": "secret!", "password": "another"}});
    let path = format!("/identity/v3/users/{user}/password");
    anybody.post(&path, change).await.ok(204);
    client
        .get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
    anybody
        .post("/identity/v3/auth/tokens", login)
        .await
        .ok(401);
    admin
        .send("DELETE", &format!("/identity/v3/users/{user}"), None)
        .await
        .ok(204);
    admin
        .get(&format!("/identity/v3/users/{user}"))
        .await
        .ok(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_found_from_the_root() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let anybody = cloud.anybody();
    for path in ["/", "/identity", "/identity/"] {
        let values = anybody.get(path).await.ok(300)["versions"]["values"].clone();
        assert_eq!(values[0]["id"], "v3.14", "{path}");
    }
    for path in ["/identity/v3", "/identity/v3/"] {
        assert_eq!(
            anybody.get(path).await.ok(200)["version"]["status"],
            "stable",
            "{path}"
        );
    }
    anybody.get("/identity/v3/nothing").await.ok(404);
}
