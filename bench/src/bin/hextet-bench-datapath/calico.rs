//! Calico's iptables layout, as Felix renders it (`felix/rules` of Calico 3.2x: `static.go`, `dispatch.go`,
//! `endpoints.go`), for workloads in the policy that stands for OpenStack's default group.
//!
//! Its chains for host endpoints, which have nothing in them here, are there and jumped to as with Felix.
//! Left out is what no forwarded packet meets: INPUT, OUTPUT, failsafes. Felix's comments are left out, too:
//! with iptables-nft they would cost a match.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use clap::ValueEnum;
use hextet_types::Family;

use crate::site::{Port, Site};

/// Which iptables. Felix takes the one that kubelet and others have put rules into; without any, nft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// `iptables-nft`: what Debian since 10 and RHEL since 8 have.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

const ACCEPT: &str = "0x10000";
const PASS: &str = "0x20000";
const FROM_WORKLOAD: &str = "0x40000";
const ALL: &str = "0xf0000";
const DISPATCH_FROM: &str = "cali-from-wl-dispatch";
const DISPATCH_TO: &str = "cali-to-wl-dispatch";

/// Makes the host what Felix would make it.
///
/// # Errors
///
/// `ipset` or `iptables-restore` fails.
pub fn apply(site: &Site, ports: &[Port], backend: Backend) -> Result<()> {
    let sets = site.file("sets", &sets(ports)?)?;
    site.host.run(&["ipset", "-file", &sets, "restore"])?;
    for family in Family::BOTH {
        let rules = site.file("rules", &rules(ports, family)?)?;
        let program = match (family, backend) {
            (Family::V4, Backend::Nft) => "iptables-nft-restore",
            (Family::V6, Backend::Nft) => "ip6tables-nft-restore",
            (Family::V4, Backend::Legacy) => "iptables-legacy-restore",
            (Family::V6, Backend::Legacy) => "ip6tables-legacy-restore",
        };
        site.host.run(&[program, &rules])?;
    }
    Ok(())
}

fn set(family: Family, name: &str) -> String {
    match family {
        Family::V4 => format!("cali40{name}"),
        Family::V6 => format!("cali60{name}"),
    }
}

/// The members of the group; the pools whose workloads are translated, none.
fn sets(ports: &[Port]) -> Result<String> {
    let mut text = String::new();
    for (family, kind) in [(Family::V4, "inet"), (Family::V6, "inet6")] {
        let members = set(family, "s:members");
        writeln!(
            text,
            "create {members} hash:net family {kind} maxelem 1048576"
        )?;
        for pool in ["all-ipam-pools", "masq-ipam-pools"] {
            let name = set(family, pool);
            writeln!(text, "create {name} hash:net family {kind} maxelem 1048576")?;
        }
        for port in ports {
            writeln!(text, "add {members} {}", port.address(family))?;
        }
    }
    Ok(text)
}

/// All tables, in the words of iptables-restore(8).
fn rules(ports: &[Port], family: Family) -> Result<String> {
    let mut text = raw() + &mangle() + &nat(family);
    let mut filter = Table::default();
    forward(&mut filter);
    dispatch(&mut filter, ports, DISPATCH_FROM, "-i", "cali-fw-");
    dispatch(&mut filter, ports, DISPATCH_TO, "-o", "cali-tw-");
    for port in ports {
        workload(&mut filter, port, "cali-fw-", "cali-po-_default");
        workload(&mut filter, port, "cali-tw-", "cali-pi-_default");
    }
    let members = set(family, "s:members");
    filter.chain(
        "cali-pi-_default",
        &[
            &format!("-m set --match-set {members} src -j MARK --set-xmark {ACCEPT}/{ACCEPT}"),
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"),
        ],
    );
    filter.chain(
        "cali-po-_default",
        &[
            &format!("-j MARK --set-xmark {ACCEPT}/{ACCEPT}"),
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"),
        ],
    );
    write!(
        text,
        "{}",
        filter.text("filter", &["INPUT", "FORWARD", "OUTPUT"])
    )?;
    Ok(text)
}

/// A table in the making.
#[derive(Default)]
struct Table {
    declared: String,
    rules: String,
}

impl Table {
    fn chain(&mut self, name: &str, rules: &[&str]) {
        self.declared.push_str(&format!(":{name} - [0:0]\n"));
        self.append(name, rules);
    }

    /// To a chain of the kernel's own.
    fn append(&mut self, name: &str, rules: &[&str]) {
        for rule in rules {
            self.rules.push_str(&format!("-A {name} {rule}\n"));
        }
    }

    fn text(&self, name: &str, hooks: &[&str]) -> String {
        let hooks: String = hooks
            .iter()
            .map(|hook| format!(":{hook} ACCEPT [0:0]\n"))
            .collect();
        format!("*{name}\n{hooks}{}{}COMMIT\n", self.declared, self.rules)
    }
}

fn raw() -> String {
    let mut table = Table::default();
    table.append("PREROUTING", &["-j cali-PREROUTING"]);
    table.chain("cali-rpf-skip", &[]);
    table.chain("cali-from-host-endpoint", &[]);
    let from = format!("-m mark --mark {FROM_WORKLOAD}/{FROM_WORKLOAD}");
    table.chain(
        "cali-PREROUTING",
        &[
            &format!("-j MARK --set-xmark 0x0/{ALL}"),
            &format!("-i tap+ -j MARK --set-xmark {FROM_WORKLOAD}/{FROM_WORKLOAD}"),
            &format!("{from} -j cali-rpf-skip"),
            &format!("{from} -m rpfilter --validmark --invert -j DROP"),
            &format!("-m mark --mark 0x0/{FROM_WORKLOAD} -j cali-from-host-endpoint"),
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"),
        ],
    );
    table.text("raw", &["PREROUTING", "OUTPUT"])
}

fn mangle() -> String {
    let mut table = Table::default();
    table.append("PREROUTING", &["-j cali-PREROUTING"]);
    table.append("POSTROUTING", &["-j cali-POSTROUTING"]);
    table.chain("cali-from-host-endpoint", &[]);
    table.chain("cali-to-host-endpoint", &[]);
    table.chain(
        "cali-PREROUTING",
        &[
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"),
            "-j cali-from-host-endpoint",
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"),
        ],
    );
    table.chain(
        "cali-POSTROUTING",
        &[
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"),
            &format!("-j MARK --set-xmark 0x0/{ALL}"),
            "-m conntrack --ctstate DNAT -j cali-to-host-endpoint",
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"),
        ],
    );
    let hooks = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    table.text("mangle", &hooks)
}

fn nat(family: Family) -> String {
    let mut table = Table::default();
    table.append("PREROUTING", &["-j cali-PREROUTING"]);
    table.append("OUTPUT", &["-j cali-OUTPUT"]);
    table.append("POSTROUTING", &["-j cali-POSTROUTING"]);
    table.chain("cali-fip-dnat", &[]);
    table.chain("cali-fip-snat", &[]);
    table.chain("cali-PREROUTING", &["-j cali-fip-dnat"]);
    table.chain("cali-OUTPUT", &["-j cali-fip-dnat"]);
    let chain = ["-j cali-fip-snat", "-j cali-nat-outgoing"];
    table.chain("cali-POSTROUTING", &chain);
    let [all, masq] = ["all-ipam-pools", "masq-ipam-pools"].map(|name| set(family, name));
    table.chain(
        "cali-nat-outgoing",
        &[&format!(
            "-m set --match-set {masq} src -m set ! --match-set {all} dst -j MASQUERADE --random-fully"
        )],
    );
    table.text("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"])
}

fn forward(table: &mut Table) {
    table.append(
        "FORWARD",
        &[
            "-j cali-FORWARD",
            &format!("-m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"),
            &format!("-j MARK --set-xmark {ACCEPT}/{ACCEPT}"),
        ],
    );
    for empty in [
        "cali-from-hep-forward",
        "cali-to-hep-forward",
        "cali-cidr-block",
    ] {
        table.chain(empty, &[]);
    }
    table.chain(
        "cali-FORWARD",
        &[
            "-j MARK --set-xmark 0x0/0xe0000",
            &format!("-m mark --mark 0x0/{ACCEPT} -j cali-from-hep-forward"),
            &format!("-i tap+ -j {DISPATCH_FROM}"),
            &format!("-o tap+ -j {DISPATCH_TO}"),
            "-j cali-to-hep-forward",
            "-j cali-cidr-block",
        ],
    );
}

/// The tree of Felix: a rule for each character that follows what all names begin with, behind it a chain of
/// all names with that character, or the workload's own chain where there is just one.
fn dispatch(table: &mut Table, ports: &[Port], root: &str, direction: &str, chain: &str) {
    let mut names: Vec<String> = ports.iter().map(|port| port.link().to_string()).collect();
    names.sort();
    let shared = shared_prefix(&names);
    let mut by_prefix: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in &names {
        let prefix = name.get(..=shared).unwrap_or(name);
        by_prefix.entry(prefix).or_default().push(name);
    }
    let to_workload = |name: &str| format!("{direction} {name} -g {chain}{name}");
    let mut roots = Vec::new();
    for (prefix, names) in by_prefix {
        if let [name] = names.as_slice() {
            roots.push(to_workload(name));
            continue;
        }
        let child = format!("{root}-{}", prefix.get(shared..).unwrap_or_default());
        roots.push(format!("{direction} {prefix}+ -g {child}"));
        let mut rules: Vec<String> = names.into_iter().map(to_workload).collect();
        rules.push("-j DROP".to_owned());
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        table.chain(&child, &rules);
    }
    roots.push("-j DROP".to_owned());
    let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
    table.chain(root, &roots);
}

/// How many octets all of them begin with, of sorted names.
fn shared_prefix(names: &[String]) -> usize {
    let (Some(first), Some(last)) = (names.first(), names.last()) else {
        return 0;
    };
    let pairs = first.bytes().zip(last.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

/// One workload, one direction, one policy.
fn workload(table: &mut Table, port: &Port, prefix: &str, policy: &str) {
    let mut rules = vec![
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        "-m conntrack --ctstate INVALID -j DROP".to_owned(),
        "-j MARK --set-xmark 0x0/0x30000".to_owned(),
    ];
    if prefix == "cali-fw-" {
        rules.push("-p udp -m multiport --dports 4789 -j DROP".to_owned());
        rules.push("-p 4 -j DROP".to_owned());
    }
    rules.extend([
        format!("-j MARK --set-xmark 0x0/{PASS}"),
        format!("-m mark --mark 0x0/{PASS} -j {policy}"),
        format!("-m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"),
        format!("-m mark --mark 0x0/{PASS} -j DROP"),
        "-j DROP".to_owned(),
    ]);
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    table.chain(&format!("{prefix}{}", port.link()), &rules);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_behind_the_next_character() {
        let mut table = Table::default();
        dispatch(&mut table, &Port::first(1000), "root", "-i", "cali-fw-");
        assert_eq!(table.declared.lines().count(), 17);
        let roots = table
            .rules
            .lines()
            .filter(|l| l.starts_with("-A root -i tap"));
        assert_eq!(roots.count(), 16);
        let names = table
            .rules
            .lines()
            .filter(|l| l.contains(" -g cali-fw-tap"));
        assert_eq!(names.count(), 1000);
        assert!(table.rules.contains("-A root -i tap7+ -g root-7\n"));
        assert!(table.rules.ends_with("-A root -j DROP\n"));
    }

    #[test]
    fn two_names_need_no_second_level() {
        let mut table = Table::default();
        dispatch(&mut table, &Port::first(2), "root", "-o", "cali-tw-");
        assert_eq!(
            table.rules,
            "-A root -o tap78000000-00 -g cali-tw-tap78000000-00\n\
             -A root -o tap88000000-00 -g cali-tw-tap88000000-00\n-A root -j DROP\n"
        );
    }
}
