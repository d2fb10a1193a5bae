//! Metering labels and their rules by the client's commands.

use serde_json::json;

use super::Session;

pub fn meters(os: &mut Session) {
    let made = os.json("network meter create traffic --description all --share");
    assert_eq!(
        (&made["name"], &made["shared"]),
        (&json!("traffic"), &json!(true))
    );
    let id = made["id"].as_str().unwrap().to_owned();
    let own = os.json("network meter create own");
    assert_eq!(own["shared"], false);
    assert_eq!(os.list("network meter list", |_| true), 2);

    let rule = os.json("network meter rule create traffic --source-ip-prefix 10.0.0.0/8 --egress");
    assert_eq!(rule["source_ip_prefix"], "10.0.0.0/8");
    assert_eq!(rule["metering_label_id"], id.as_str());
    assert_eq!(
        (&rule["direction"], &rule["is_excluded"]),
        (&json!("egress"), &json!(false))
    );
    let rule_id = rule["id"].as_str().unwrap().to_owned();
    os.json("network meter rule create traffic --remote-ip-prefix 2001:db8::/32 --exclude");
    let words =
        os.fails("network meter rule create traffic --remote-ip-prefix 2001:db8:1::/48 --exclude");
    assert!(words.contains("overlaps another"), "{words}");
    let words = os.fails("network meter rule create traffic");
    assert!(words.contains("at least one of"), "{words}");
    assert_eq!(os.list("network meter rule list", |_| true), 2);
    let shown = os.json(&format!("network meter rule show {rule_id}"));
    assert_eq!(shown["destination_ip_prefix"], json!(null));
    os.quiet(&format!("network meter rule delete {rule_id}"));
    assert_eq!(os.list("network meter rule list", |_| true), 1);

    let shown = os.json("network meter show traffic");
    assert_eq!(shown["description"], "all");
    os.quiet("network meter delete traffic own");
    assert_eq!(os.list("network meter list", |_| true), 0);
    assert_eq!(
        os.list("network meter rule list", |_| true),
        0,
        "they go with it"
    );
}
