//! Rules of others, as `nft -j list ruleset` has them: pure.
//!
//! Whatever one table lets through, another can drop; so what workloads send passes only if all let it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    finding::{Code, Finding},
    observation::Chain,
};

/// Our table, and how ports' interfaces begin.
const OURS: &str = "hextet";
const PORTS: &str = "tap*";
/// Where Docker lets others have rules.
const DOCKER_USER: &str = "DOCKER-USER";

/// Reads base chains of others that decide about what passes the host, or comes to it.
pub fn read(listed: &Value) -> Vec<Chain> {
    let objects = || listed["nftables"].as_array().into_iter().flatten();
    let mut rules: BTreeMap<(String, String, String), Vec<&Value>> = BTreeMap::new();
    let mut docker = BTreeSet::new();
    for object in objects() {
        if let Some(rule) = object.get("rule") {
            let of = key(rule, "chain");
            rules.entry(of).or_default().push(&rule["expr"]);
        }
        if object["chain"]["name"] == DOCKER_USER {
            docker.insert((
                text(&object["chain"], "family"),
                text(&object["chain"], "table"),
            ));
        }
    }
    let mut chains = Vec::new();
    for chain in objects().filter_map(|o| o.get("chain")) {
        let hook = text(chain, "hook");
        let (family, table, name) = key(chain, "name");
        let concerns = ["ip", "ip6", "inet"].contains(&family.as_str());
        if !["input", "forward"].contains(&hook.as_str()) || table == OURS || !concerns {
            continue;
        }
        let of = |chain: &str| {
            let key = (family.clone(), table.clone(), chain.to_owned());
            rules.get(&key).map(Vec::as_slice).unwrap_or_default()
        };
        let own = of(&name);
        let early: Vec<&Value> = own.iter().chain(of(DOCKER_USER)).copied().collect();
        let is_about = |rule: &&&Value| is_about_icmpv6(rule);
        chains.push(Chain {
            drops: chain["policy"] == "drop" || own.last().is_some_and(|rule| drops_all(rule)),
            lets_ports: ["iifname", "oifname"]
                .iter()
                .all(|side| early.iter().any(|rule| lets(rule, side)))
                || table == "firewalld" && rules.iter().any(|(of, rules)| is_zone(of, rules)),
            accepts_icmpv6: own
                .iter()
                .filter(is_about)
                .any(|r| ends_by(r, &["accept", "jump", "goto"])),
            drops_icmpv6: own
                .iter()
                .filter(is_about)
                .find(|r| ends_by(r, &["drop", "reject"]))
                .map(|rule| rule.to_string()),
            has_docker_user: docker.contains(&(family.clone(), table.clone())),
            family: family.clone(),
            table: table.clone(),
            name: name.clone(),
            hook,
        });
    }
    chains
}

fn key(of: &Value, name: &str) -> (String, String, String) {
    (text(of, "family"), text(of, "table"), text(of, name))
}

fn text(of: &Value, name: &str) -> String {
    of[name].as_str().unwrap_or_default().to_owned()
}

/// Whether a rule lets all pass that comes in (or goes out) by a port.
fn lets(rule: &Value, side: &str) -> bool {
    let parts = rule.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_side = |part: &&Value| {
        part["match"]["left"]["meta"]["key"] == side && part["match"]["right"] == PORTS
    };
    let others = |part: &&Value| part.get("match").is_some() && !is_side(part);
    parts.iter().any(|p| is_side(&p))
        && !parts.iter().any(|p| others(&p))
        && ends_by(rule, &["accept"])
}

/// A last rule that takes all that came so far.
fn drops_all(rule: &Value) -> bool {
    let mut parts = rule.as_array().into_iter().flatten();
    parts.all(|part| part.get("match").is_none()) && ends_by(rule, &["drop", "reject"])
}

/// Whether ports have a zone of firewalld's.
fn is_zone((_, table, _): &(String, String, String), rules: &[&Value]) -> bool {
    table == "firewalld" && rules.iter().any(|rule| rule.to_string().contains(PORTS))
}

fn ends_by(rule: &Value, verdicts: &[&str]) -> bool {
    let parts = rule.as_array().into_iter().flatten();
    parts
        .into_iter()
        .any(|part| verdicts.iter().any(|v| part.get(v).is_some()))
}

fn is_about_icmpv6(rule: &Value) -> bool {
    let words = rule.to_string();
    words.contains("icmpv6") || words.contains("ipv6-icmp")
}

/// What is wrong with them.
pub fn findings(chains: &[Chain]) -> Vec<Finding> {
    let mut found = Vec::new();
    for chain in chains {
        if chain.hook == "forward" && chain.drops && !chain.lets_ports {
            found.push(
                Finding::fault(Code::ForeignFirewall, subject(chain))
                    .seen(format!(
                        "it drops what passes this host and no rule of it takes: {} of workloads",
                        match chain.family.as_str() {
                            "ip" => "IPv4",
                            "ip6" => "IPv6",
                            _ => "IPv4 and IPv6",
                        }
                    ))
                    .remedy(remedy(chain)),
            );
        }
        let carries_v6 = chain.family != "ip";
        let why = match &chain.drops_icmpv6 {
            Some(rule) => Some(format!("this rule drops ICMPv6: {rule}")),
            None if chain.hook == "input" && chain.drops && !chain.accepts_icmpv6 => Some(
                "it drops what comes to this host and no rule of it takes, and none takes ICMPv6"
                    .to_owned(),
            ),
            None => None,
        };
        if let Some(why) = why.filter(|_| carries_v6) {
            found.push(
                Finding::fault(Code::FilteredIcmpv6, subject(chain))
                    .seen(why)
                    .remedy(format!(
                        "neighbours, routers and packets that are too big are told of by ICMPv6 (RFC 4890): nft insert rule {} {} {} meta \
                         l4proto ipv6-icmp accept",
                        chain.family, chain.table, chain.name
                    )),
            );
        }
    }
    found
}

fn subject(chain: &Chain) -> String {
    format!(
        "chain {} of table {} {}",
        chain.name, chain.family, chain.table
    )
}

/// Commands that let ports of workloads through, for whoever made the table.
pub fn remedy(chain: &Chain) -> String {
    let program = if chain.family == "ip6" {
        "ip6tables"
    } else {
        "iptables"
    };
    if chain.has_docker_user {
        return format!(
            "{program} -I {DOCKER_USER} -i tap+ -j ACCEPT; {program} -I {DOCKER_USER} -o tap+ -j ACCEPT"
        );
    }
    if chain.table == "firewalld" {
        return "firewall-cmd --permanent --new-zone=hextet; firewall-cmd --permanent --zone=hextet --set-target=ACCEPT; firewall-cmd \
                --permanent --zone=hextet --add-interface=tap+; firewall-cmd --permanent --new-policy=hextet-out; firewall-cmd --permanent \
                --policy=hextet-out --add-ingress-zone=hextet --add-egress-zone=ANY --set-target=ACCEPT; the same the other way round for \
                what comes to workloads; firewall-cmd --reload"
            .to_owned();
    }
    if ["ip", "ip6"].contains(&chain.family.as_str()) && chain.table == "filter" {
        return format!(
            "{program} -I FORWARD -i tap+ -j ACCEPT; {program} -I FORWARD -o tap+ -j ACCEPT"
        );
    }
    let of = format!("{} {} {}", chain.family, chain.table, chain.name);
    format!(
        "nft insert rule {of} iifname \"tap*\" accept; nft insert rule {of} oifname \"tap*\" accept"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(family: &str, table: &str, name: &str, hook: Option<&str>) -> Value {
        let policy = hook.map(|_| "drop");
        json!({"chain": {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}})
    }

    fn lets_rule(chain: &str, side: &str) -> Value {
        json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": side}}, "right": "tap*"}},
            {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}})
    }

    #[test]
    fn docker_s_rules_are_told_with_docker_s_remedy() {
        let mut objects = vec![
            chain("ip", "filter", "FORWARD", Some("forward")),
            chain("ip", "filter", DOCKER_USER, None),
            chain("inet", "hextet", "forward", Some("forward")),
        ];
        let found = findings(&read(&json!({"nftables": objects.clone()})));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .remedy
                .starts_with("iptables -I DOCKER-USER -i tap+")
        );
        objects.push(lets_rule(DOCKER_USER, "iifname"));
        assert_eq!(
            findings(&read(&json!({"nftables": objects.clone()}))).len(),
            1
        );
        objects.push(lets_rule(DOCKER_USER, "oifname"));
        assert!(findings(&read(&json!({"nftables": objects}))).is_empty());
    }

    #[test]
    fn dropped_icmpv6_is_told_with_the_rule() {
        let rule = json!({"rule": {"family": "ip6", "table": "f", "chain": "in", "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "ipv6-icmp"}}, {"drop": null}]}});
        let mut input = chain("ip6", "f", "in", Some("input"));
        input["chain"]["policy"] = json!("accept");
        let found = findings(&read(&json!({"nftables": [input, rule]})));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, Code::FilteredIcmpv6);
        assert!(found[0].evidence.contains("l4proto"));
    }
}
