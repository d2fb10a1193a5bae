//! Requests of a project's member: what succeeds is the project's own, and makes hosts announce nothing outside
//! of `member_prefixes`.

#![no_main]

use std::{cell::RefCell, net::IpAddr, sync::LazyLock};

use hextet_fuzz::server::{Asked, Client, Running, start};
use hextet_types::Prefix;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const OPEN: [&str; 2] = ["10.0.0.0/8", "2001:db8::/32"];

static SERVER: LazyLock<Running> = LazyLock::new(|| start(&OPEN));

struct Member {
    client: Client,
    project: Value,
    open: Vec<Prefix>,
}

thread_local! {
    static MEMBER: RefCell<Member> = RefCell::new(Member::new());
}

fuzz_target!(|input: &[u8]| {
    let Some(asked) = Asked::read(input) else {
        return;
    };
    MEMBER.with_borrow_mut(|member| {
        let (status, answer) = member.client.try_out(&asked);
        if (200..300).contains(&status) && matches!(asked.method, "POST" | "PUT") {
            member.check(&answer);
        }
    });
});

impl Member {
    /// A project with a member, and a shared network that is the administrator's.
    fn new() -> Member {
        let mut admin = Client::admin(&SERVER);
        let identity = "/identity/v3";
        let project = admin.make(
            &format!("{identity}/projects"),
            &json!({"project": {"name": "fuzz"}}),
        );
        let user = json!({"user": {"name": "fuzz", "password": "fuzz"}});
        let user = admin.make(&format!("{identity}/users"), &user);
        let (_, roles) = admin.ask("GET", &format!("{identity}/roles"), b"name=member", b"");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (owner, who) = (text(&project["id"]), text(&user["id"]));
        let role = text(&roles["roles"][0]["id"]);
        let path = format!("{identity}/projects/{owner}/users/{who}/roles/{role}");
        let (status, answer) = admin.ask("PUT", &path, b"", b"");
        assert_eq!(status, 204, "{answer}");
        let networking = "/networking/v2.0";
        let shared = json!({"network": {"name": "public", "shared": true, "is_default": true}});
        let network = admin.make(&format!("{networking}/networks"), &shared);
        let subnet = json!({"subnet": {"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8:1::/64",
            "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}});
        let subnet = admin.make(&format!("{networking}/subnets"), &subnet);
        let by_name = json!({"name": "fuzz", "password": "fuzz", "domain": {"id": "default"}});
        let scope = json!({"project": {"id": project["id"]}});
        let mut client = Client::login(&SERVER, &by_name, &scope);
        client.know(&subnet);
        client.know(&network);
        Member {
            client,
            project: project["id"].clone(),
            open: OPEN.iter().flat_map(|p| p.parse()).collect(),
        }
    }

    /// One resource or many, as an answer has them.
    fn check(&self, answer: &Value) {
        for (name, made) in answer.as_object().into_iter().flatten() {
            match made {
                Value::Array(many) => many.iter().for_each(|one| self.check_one(name, one)),
                one => self.check_one(name, one),
            }
        }
    }

    fn check_one(&self, name: &str, made: &Value) {
        let within = |text: &str| {
            let host = text.parse::<IpAddr>().map(Prefix::host);
            let prefix = host.or_else(|_| text.parse::<Prefix>());
            prefix.is_ok_and(|prefix| self.open.iter().any(|open| open.covers(prefix)))
        };
        let open = |value: &Value| value.as_str().is_some_and(within);
        let all_open = |list: &str| {
            let items = made[list].as_array().into_iter().flatten();
            items.map(|item| &item["ip_address"]).all(open)
        };
        match name.trim_end_matches('s') {
            "subnet" => assert!(open(&made["cidr"]), "{made}"),
            "port" => {
                assert_eq!(made["port_security_enabled"], true, "{made}");
                assert!(
                    all_open("fixed_ips") && all_open("allowed_address_pairs"),
                    "{made}"
                );
            }
            "network" => {
                let shared = (&made["shared"], &made["router:external"]);
                assert_eq!(shared, (&json!(false), &json!(false)), "{made}");
            }
            "security_group" | "security_group_rule" | "tag" | "token" => {}
            "user" | "application_credential" => return,
            _ => panic!("a member made {name}: {made}"),
        }
        if let Some(owner) = made.get("project_id") {
            assert_eq!(*owner, self.project, "{made}");
        }
    }
}
