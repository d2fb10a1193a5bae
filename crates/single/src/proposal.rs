//! What `up` is going to do, for people and programs: pure.

use hextet_doctor::Finding;
use serde::Serialize;

use crate::{
    network,
    places::Places,
    uplink::{OnLink, Uplink},
};

/// What is going to be done.
#[derive(Clone, Debug, Serialize)]
pub struct Proposal {
    /// What the uplink has.
    pub uplink: Uplink,
    /// In words, a line each.
    pub steps: Vec<String>,
    /// What would be better, or is good to know.
    pub advice: Vec<String>,
}

impl Proposal {
    /// Puts it in words.
    pub fn new(
        uplink: Uplink,
        (places, by_systemd): (&Places, bool),
        rules: &[Finding],
    ) -> Proposal {
        let mut advice = advice(&uplink);
        advice.extend(rules.iter().map(in_the_way));
        Proposal {
            steps: steps(&uplink, places, by_systemd),
            advice,
            uplink,
        }
    }

    /// For a terminal or a pipe.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            text.push_str(&format!("- {step}\n"));
        }
        for advice in &self.advice {
            text.push_str(&format!("\n{advice}\n"));
        }
        text
    }
}

/// Rules of others stay theirs: whoever has made them is told what to add.
fn in_the_way(finding: &Finding) -> String {
    format!(
        "Rules of others are in the way: {}: {}. To let workloads through:\n  {}",
        finding.subject,
        finding.evidence,
        finding.remedy.replace("; ", "\n  ")
    )
}

fn steps(uplink: &Uplink, places: &Places, by_systemd: bool) -> Vec<String> {
    let link = &uplink.link;
    let mut steps = vec![format!("uplink {link}, MTU {}", uplink.mtu)];
    steps.extend(uplink.routed.iter().map(|routed| {
        let prefix = routed.prefix;
        let how = match routed.delegated {
            true => format!("the router on {link} delegates {prefix} to this host (DHCPv6)"),
            false => format!("{prefix} is routed here"),
        };
        format!("{how}: workloads get addresses of it, and nothing has to be answered for on {link}, which is better than on-link")
    }));
    steps.extend(uplink.on_link.iter().map(|p| on_link(p, uplink)));
    if let Some(v4) = &uplink.v4 {
        steps.push(format!(
            "private IPv4 for workloads, which leaves by {} as {}; 'hextet expose' opens ports of it",
            v4.link, v4.addr
        ));
    }
    let networks: Vec<_> = network::wanted(uplink).iter().map(|n| n.name).collect();
    steps.push(format!(
        "networks {}; security group {}",
        networks.join(", "),
        network::OPEN
    ));
    let how = match by_systemd {
        true => "a systemd unit, hextet.service, which comes back after a reboot",
        false => "a process in the background (there is no systemd here)",
    };
    steps.push(format!(
        "server and agent in one process: {how}; its files are in {}",
        places.state.display()
    ));
    steps
}

fn on_link(of: &OnLink, uplink: &Uplink) -> String {
    let (prefix, link) = (of.prefix, &uplink.link);
    let how = match (prefix.len(), of.by_router) {
        (64, true) => "workloads form their addresses from it, as the router there says",
        (64, false) => "workloads form their addresses from it, as hextet tells them",
        _ => "workloads get addresses of it, one by one",
    };
    let old = if of.preferred {
        ""
    } else {
        " (deprecated: the provider gives another)"
    };
    format!("{prefix} is on the link{old}: {how}, and this host answers for each of them on {link}")
}

fn advice(uplink: &Uplink) -> Vec<String> {
    let mut advice = Vec::new();
    if uplink.routed.is_empty() && !uplink.on_link.is_empty() {
        advice.push(
            "A prefix that is routed to this host is better than one on the link, and nobody on the link delegates one by \
             DHCPv6: ask the provider for one, and run 'hextet up --routed PREFIX'."
                .to_owned(),
        );
    }
    if uplink.routed.is_empty() && uplink.on_link.is_empty() {
        advice.push(
            "There is no IPv6 here. A mesh brings it over IPv4 to this host and its workloads: docs/mesh.md, \
             'hextet mesh join'."
                .to_owned(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::Routed;

    fn places() -> Places {
        Places {
            state: "/var/lib/hextet/single".into(),
            run: "/run/hextet".into(),
        }
    }

    fn uplink() -> Uplink {
        Uplink {
            link: "eth0".parse().unwrap(),
            mtu: 1500,
            on_link: vec![OnLink {
                prefix: "2001:db8::/64".parse().unwrap(),
                by_router: false,
                preferred: true,
                gateway: None,
                own: Vec::new(),
            }],
            routed: Vec::new(),
            v4: None,
            taken_v4: Vec::new(),
        }
    }

    #[test]
    fn it_says_what_it_understood_and_what_would_be_better() {
        let text = Proposal::new(uplink(), (&places(), true), &[]).text();
        for part in [
            "2001:db8::/64 is on the link",
            "hextet.service",
            "--routed PREFIX",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut routed = uplink();
        routed.routed.push(Routed {
            prefix: "2001:db8:1::/56".parse().unwrap(),
            delegated: false,
        });
        let text = Proposal::new(routed.clone(), (&places(), false), &[]).text();
        assert!(text.contains("2001:db8:1::/56 is routed here") && !text.contains("--routed"));
        routed.routed[0].delegated = true;
        let text = Proposal::new(routed, (&places(), false), &[]).text();
        assert!(text.contains("delegates 2001:db8:1::/56"), "{text}");
        let mut old = uplink();
        old.on_link.clear();
        let text = Proposal::new(old, (&places(), false), &[]).text();
        assert!(text.contains("hextet mesh join"), "{text}");
    }
}
