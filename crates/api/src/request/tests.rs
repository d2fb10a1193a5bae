use hextet_types::ProjectId;

use super::*;
use crate::resources::{NETWORK, PORT, SECURITY_GROUP};

fn caller(admin: bool) -> Caller {
    Caller {
        project: ProjectId("mine".into()),
        admin,
        member: true,
    }
}

fn create(resource: &'static Resource, item: Value, admin: bool) -> Result<Input> {
    let body = json!({resource.name: item}).to_string();
    parse_create(resource, body.as_bytes(), &caller(admin)).map(|(mut inputs, _)| inputs.remove(0))
}

#[test]
fn a_request_is_refused_in_neutron_s_words() {
    let cases = [
        (
            json!({"colour": "red"}),
            "Unrecognized attribute(s) 'colour'",
        ),
        (
            json!({"status": "ACTIVE"}),
            "Attribute 'status' not allowed in POST",
        ),
        (
            json!({"project_id": "other"}),
            "Specifying 'project_id' or 'tenant_id' other than the \
            authenticated project in request requires admin privileges",
        ),
        (
            json!({"project_id": "a", "tenant_id": "b"}),
            "'project_id' and 'tenant_id' do not match",
        ),
    ];
    for (item, words) in cases {
        assert_eq!(create(&NETWORK, item, false).unwrap_err().message, words);
    }
    let caller = caller(false);
    for (body, words) in [
        ("", "Resource body required"),
        ("[]", "Body contains invalid data"),
        ("{}", "Unable to find 'network' in request body"),
        (
            r#"{"network": []}"#,
            "Object 'network' contains invalid data",
        ),
        (r#"{"networks": []}"#, "Resources required"),
    ] {
        let error = parse_create(&NETWORK, body.as_bytes(), &caller).unwrap_err();
        assert_eq!(
            (error.status, error.message.as_str()),
            (400, words),
            "{body}"
        );
    }
}

#[test]
fn administrators_attributes_are_theirs_unless_left_at_the_default() {
    assert_eq!(
        create(&NETWORK, json!({"shared": true}), false)
            .unwrap_err()
            .status,
        403
    );
    assert!(create(&NETWORK, json!({"shared": false}), false).is_ok());
    assert!(create(&NETWORK, json!({"shared": true}), true).is_ok());
    let body = json!({"network": {"shared": false}}).to_string();
    let update = parse_update(&NETWORK, body.as_bytes(), &caller(false));
    assert_eq!(
        update.unwrap_err().message,
        "rule:update_network:shared is disallowed by policy"
    );
}

#[test]
fn defaults_are_filled_in_and_the_owner_is_the_caller() {
    let input = create(&SECURITY_GROUP, json!({"name": "web"}), false).unwrap();
    assert_eq!(input.take::<bool>("stateful"), Ok(true));
    assert_eq!(input.take::<String>("project_id"), Ok("mine".into()));
    assert!(input.names("name") && !input.names("stateful"));
    let input = create(&SECURITY_GROUP, json!({"tenant_id": "other"}), true).unwrap();
    assert_eq!(input.take::<String>("project_id"), Ok("other".into()));
}

#[test]
fn what_needs_the_network_s_owner_is_told() {
    let id = uuid::Uuid::nil();
    let port = json!({"network_id": id, "mac_address": "fa:16:3e:00:00:01", "name": "x"});
    let input = create(&PORT, port, false).unwrap();
    assert_eq!(
        input.needing(&PORT, Access::NetworkOwner, true),
        ["mac_address"]
    );
}

#[test]
fn read_only_attributes_cannot_be_updated() {
    for (item, words) in [
        (json!({"id": "x"}), "Cannot update read-only attribute id"),
        (
            json!({"project_id": "x"}),
            "Cannot update read-only attribute project_id",
        ),
        (json!({"colour": 1}), "Unrecognized attribute(s) 'colour'"),
    ] {
        let body = json!({"network": item}).to_string();
        let error = parse_update(&NETWORK, body.as_bytes(), &caller(true)).unwrap_err();
        assert_eq!(error.message, words);
    }
}

#[test]
fn a_bulk_request_has_a_stated_bound() {
    let many = |n: usize| json!({"networks": vec![json!({}); n]}).to_string();
    let parsed = parse_create(&NETWORK, many(MAX_BULK).as_bytes(), &caller(false)).unwrap();
    assert_eq!((parsed.0.len(), parsed.1), (MAX_BULK, true));
    let error = parse_create(&NETWORK, many(MAX_BULK + 1).as_bytes(), &caller(false)).unwrap_err();
    assert!(error.message.contains("at most 1000"), "{error}");
}
