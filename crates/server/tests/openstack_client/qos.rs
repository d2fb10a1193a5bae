//! QoS policies and their rules by the client's commands.

use serde_json::{Value, json};

use super::Session;

pub fn policies(os: &mut Session) {
    let made = os.json("network qos policy create gold --share --description d");
    assert_eq!(
        (&made["shared"], &made["is_default"]),
        (&json!(true), &json!(false))
    );
    let rule = os.json(
        "network qos rule create gold --type bandwidth-limit --max-kbps 8000 \
         --max-burst-kbits 800 --ingress",
    );
    assert_eq!(
        (&rule["max_kbps"], &rule["direction"]),
        (&json!(8000), &json!("ingress"))
    );
    let id = rule["id"].as_str().unwrap().to_owned();
    os.json("network qos rule create gold --type dscp-marking --dscp-mark 46");
    let words = os.fails("network qos rule create gold --type dscp-marking --dscp-mark 8");
    assert!(words.contains("conflicts with rule"), "{words}");
    os.quiet(&format!("network qos rule set gold {id} --max-kbps 9000"));
    let shown = os.json(&format!("network qos rule show gold {id}"));
    assert_eq!(shown["max_kbps"], 9000);
    assert_eq!(os.list("network qos rule list gold", |_| true), 2);
    assert_eq!(os.list("network qos rule type list", |_| true), 3);
    let kind = os.json("network qos rule type show bandwidth_limit");
    assert!(
        kind["drivers"].to_string().contains("max_burst_kbps"),
        "{kind}"
    );
    os.quiet("network qos policy set gold --name silver --no-share");
    assert_eq!(os.json("network qos policy show silver")["id"], made["id"]);
    let is_silver = |policy: &Value| policy["Name"] == "silver";
    assert_eq!(os.list("network qos policy list --no-share", is_silver), 1);
    os.json("network create limited --qos-policy silver");
    os.json("port create limited-1 --network limited --qos-policy silver");
    let words = os.fails("network qos policy delete silver");
    assert!(words.contains("is used by"), "{words}");
    os.quiet("port unset limited-1 --qos-policy");
    assert_eq!(os.json("port show limited-1")["qos_policy_id"], json!(null));
    os.quiet("network set limited --no-qos-policy");
    os.quiet("port delete limited-1");
    os.quiet("network delete limited");
    os.quiet(&format!("network qos rule delete silver {id}"));
    os.quiet("network qos policy delete silver");
}
