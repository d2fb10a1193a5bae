//! Rules as administrators write and see them, and as the parameters have them.

use std::ops::RangeInclusive;

use hextet_mesh::{
    label::{BadLabel, Label},
    rules::{MAX_GROUPS, MAX_PORTS, MAX_RULES, Ports, Rule, Rules, Service, Verdict, Who},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A file with rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesShown {
    /// Where no rule fits.
    pub default: Action,
    /// The first that fits decides.
    #[serde(default)]
    pub rule: Vec<RuleShown>,
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is let in.
    #[default]
    Allow,
    /// It is not.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleShown {
    /// Groups; without any, everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// `any`, `icmp`, `tcp`, `udp` or a protocol's number.
    #[serde(default = "any")]
    pub protocol: String,
    /// Ports and ranges of them; without any, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// What is done.
    pub action: Action,
}

fn any() -> String {
    "any".into()
}

/// What is wrong with rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRules {
    /// It is no such file.
    #[error("{0}")]
    Text(String),
    /// There are too many.
    #[error("{0} rules are too many: a network has up to {MAX_RULES}")]
    Many(usize),
    /// One is wrong.
    #[error("rule {number}: {why}")]
    Rule {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: BadRule,
    },
}

/// What is wrong with one rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRule {
    /// A group is none.
    #[error(transparent)]
    Group(#[from] BadLabel),
    /// One side has too many groups.
    #[error("{0} groups are too many: a side has up to {MAX_GROUPS}")]
    Groups(usize),
    /// No protocol.
    #[error("'{0}' is no protocol: any, icmp, tcp, udp, or the number of another one")]
    Protocol(String),
    /// No ports.
    #[error("'{0}' is no port and no range of ports such as 8000-8010")]
    Port(String),
    /// Too many ports.
    #[error("{0} ranges of ports are too many: a rule has up to {MAX_PORTS}")]
    Ports(usize),
    /// Ports where there are none.
    #[error("only tcp and udp have ports, {0} has none")]
    Portless(String),
}

impl RulesShown {
    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and in which rule.
    pub fn parse(text: &str) -> Result<RulesShown, BadRules> {
        let shown: RulesShown = toml::from_str(text).map_err(|e| BadRules::Text(e.to_string()))?;
        shown.read()?;
        Ok(shown)
    }

    /// As parameters have them.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which rule.
    pub fn read(&self) -> Result<Rules, BadRules> {
        if self.rule.len() > MAX_RULES {
            return Err(BadRules::Many(self.rule.len()));
        }
        let rules = self.rule.iter().enumerate().map(|(index, rule)| {
            let number = index + 1;
            rule.read().map_err(|why| BadRules::Rule { number, why })
        });
        Ok(Rules {
            list: rules.collect::<Result<_, _>>()?,
            default: self.default.into(),
        })
    }

    /// As administrators see them.
    pub fn of(rules: &Rules) -> RulesShown {
        RulesShown {
            default: rules.default.into(),
            rule: rules.list.iter().map(RuleShown::of).collect(),
        }
    }
}

impl RuleShown {
    fn read(&self) -> Result<Rule, BadRule> {
        Ok(Rule {
            from: who(&self.from)?,
            to: who(&self.to)?,
            service: self.service()?,
            verdict: self.action.into(),
        })
    }

    fn service(&self) -> Result<Service, BadRule> {
        let bad = || BadRule::Protocol(self.protocol.chars().take(32).collect());
        let service = match self.protocol.as_str() {
            "tcp" => return Ok(Service::Tcp(ports(&self.ports)?)),
            "udp" => return Ok(Service::Udp(ports(&self.ports)?)),
            "any" => Service::Any,
            "icmp" => Service::Icmp,
            number => match number.parse().map_err(|_| bad())? {
                // These have names, and one way to be written.
                1 | 6 | 17 | 58 => return Err(bad()),
                number => Service::Other(number),
            },
        };
        match self.ports.is_empty() {
            true => Ok(service),
            false => Err(BadRule::Portless(self.protocol.clone())),
        }
    }

    fn of(rule: &Rule) -> RuleShown {
        let names = |who: &Who| match who {
            Who::Any => Vec::new(),
            Who::Groups(groups) => groups.iter().map(Label::to_string).collect(),
        };
        let (protocol, ports) = match &rule.service {
            Service::Any => (any(), None),
            Service::Icmp => ("icmp".into(), None),
            Service::Tcp(ports) => ("tcp".into(), Some(ports)),
            Service::Udp(ports) => ("udp".into(), Some(ports)),
            Service::Other(number) => (number.to_string(), None),
        };
        let range = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        RuleShown {
            from: names(&rule.from),
            to: names(&rule.to),
            protocol,
            ports: ports
                .map_or(&[][..], Ports::ranges)
                .iter()
                .map(range)
                .collect(),
            action: rule.verdict.into(),
        }
    }
}

fn who(names: &[String]) -> Result<Who, BadRule> {
    let groups = names.iter().map(|name| name.parse::<Label>());
    let mut groups = groups.collect::<Result<Vec<_>, _>>()?;
    groups.sort();
    groups.dedup();
    match groups.len() {
        0 => Ok(Who::Any),
        1..=MAX_GROUPS => Ok(Who::Groups(groups)),
        many => Err(BadRule::Groups(many)),
    }
}

fn ports(texts: &[String]) -> Result<Ports, BadRule> {
    let ranges = texts.iter().map(|text| {
        let range = range(text).filter(|range| !range.is_empty());
        range.ok_or_else(|| BadRule::Port(text.chars().take(32).collect()))
    });
    let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
    let count = ranges.len();
    Ports::new(ranges).ok_or(BadRule::Ports(count))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Verdict {
        match action {
            Action::Allow => Verdict::Allow,
            Action::Deny => Verdict::Deny,
        }
    }
}

impl From<Verdict> for Action {
    fn from(verdict: Verdict) -> Action {
        match verdict {
            Verdict::Allow => Action::Allow,
            Verdict::Deny => Action::Deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_shown() {
        let text = r#"
            default = "deny"
            [[rule]]
            from = ["web", "admin"]
            to = ["db"]
            protocol = "tcp"
            ports = ["5432", "8000-8010"]
            action = "allow"
            [[rule]]
            protocol = "icmp"
            action = "allow"
            [[rule]]
            protocol = "132"
            action = "deny"
        "#;
        let shown = RulesShown::parse(text).unwrap();
        let rules = shown.read().unwrap();
        assert_eq!(rules.check(), Ok(()));
        let again = RulesShown::of(&rules);
        assert_eq!(again.read().unwrap(), rules);
        assert_eq!(again.rule[0].from, ["admin", "web"]);
        assert_eq!(again.rule[0].ports, ["5432", "8000-8010"]);
        let Service::Tcp(ports) = &rules.list[0].service else {
            panic!("{rules:?}");
        };
        assert_eq!(ports.ranges(), [(5432, 5432), (8000, 8010)]);
        assert_eq!(rules.list[2].service, Service::Other(132));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let rule = |line: &str| format!("default = 'allow'\n[[rule]]\naction = 'deny'\n{line}");
        let nine: Vec<_> = (0..9).map(|n| format!("'{}'", n * 10)).collect();
        let nine = nine.join(", ");
        for (text, said) in [
            (String::new(), "default"),
            ("default = 'maybe'".into(), "maybe"),
            (rule("colour = 'red'"), "colour"),
            (rule("from = ['A B']"), "rule 1: 'A B' is no label"),
            (rule(&format!("to = [{}]", nine.replace("'", "'g"))), ""),
            (rule("protocol = '6'"), "rule 1: '6' is no protocol"),
            (rule("protocol = 'ip'"), "'ip' is no protocol"),
            (rule("ports = ['80']"), "any has none"),
            (
                rule("protocol = 'tcp'\nports = ['9-8']"),
                "'9-8' is no port",
            ),
            (rule("protocol = 'tcp'\nports = ['65536']"), "'65536'"),
            (
                rule(&format!("protocol = 'udp'\nports = [{nine}]")),
                "9 ranges of ports are too many",
            ),
            (
                format!(
                    "default = 'deny'\n{}",
                    "[[rule]]\naction = 'deny'\n".repeat(65)
                ),
                "65 rules are too many",
            ),
        ] {
            let error = RulesShown::parse(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
