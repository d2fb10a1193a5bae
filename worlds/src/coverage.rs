//! What the packets of a run have met. A run that has met too little proves nothing, and fails.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::Table;
use hextet_model::{
    explain::{Outcome, Reason, Step},
    state::{Chain, Field, HostState, Key, Netns, NftRule, Object, Statement, Verdict},
};
use serde::Serialize;

/// Of a hundred packets, at least so many have to be delivered to a port.
pub const LEAST_DELIVERED: u64 = 20;
/// So often at least each reason for a drop has to be met.
pub const LEAST_OF_EACH: u64 = 50;

/// Reasons that are no rule's.
const WITHOUT_RULE: [Reason; 4] = [
    Reason::LinkDown,
    Reason::Edge,
    Reason::Blackhole,
    Reason::NoRoute,
];

/// Reasons for which the planner has one comment and explanations two words.
const OF_PROFILES: [Reason; 2] = [Reason::EgressNotAllowed, Reason::IngressNotAllowed];

/// What was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Worlds.
    pub worlds: u64,
    /// Packets sent.
    pub packets: u64,
    /// To a port.
    pub delivered: u64,
    /// To the world outside.
    pub left: u64,
    /// To a host itself.
    pub host: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Dropped, by the comment of the rule.
    pub rules: BTreeMap<String, u64>,
    /// Comments of all rules that drop and that a packet can meet.
    pub planned: BTreeSet<String>,
}

impl Coverage {
    /// Takes note of the rules that a state has.
    pub fn plan(&mut self, state: &HostState) {
        for object in state.objects.values() {
            let Object::Chain(_, chain) = object else {
                continue;
            };
            let before = [None].into_iter().chain(chain.rules.iter().map(Some));
            let rules = chain.rules.iter().zip(before);
            let met = rules.filter(|(rule, before)| drops(rule) && can_be_met(rule, *before));
            self.planned
                .extend(met.filter_map(|(rule, _)| rule.comment.clone()));
        }
    }

    /// Takes note of what becomes of a packet. Gives chain and comment of the rule that drops it, if
    /// that is one that counts.
    pub fn count(
        &mut self,
        state: &HostState,
        outcome: &Outcome,
        steps: &[Step],
    ) -> Option<(String, String)> {
        match outcome {
            Outcome::Host => self.host += 1,
            Outcome::Dropped(reason) => {
                *self.dropped.entry(reason.to_string()).or_default() += 1;
                let (chain, rule) = rule_of(state, steps)?;
                let comment = rule.comment.clone()?;
                *self.rules.entry(comment.clone()).or_default() += 1;
                let counts = drops(rule) && rule.statements.contains(&Statement::Counter);
                return counts.then(|| (chain.name.0.clone(), comment));
            }
            Outcome::Delivered { .. } | Outcome::Leaves { .. } | Outcome::Router(_) => {}
        }
        None
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Coverage) {
        self.worlds += 1;
        self.packets += other.packets;
        self.delivered += other.delivered;
        self.left += other.left;
        self.host += other.host;
        for (to, from) in [
            (&mut self.dropped, &other.dropped),
            (&mut self.rules, &other.rules),
        ] {
            for (name, count) in from {
                *to.entry(name.clone()).or_default() += count;
            }
        }
        self.planned.extend(other.planned.iter().cloned());
    }

    /// What was met too rarely.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.delivered * 100 < self.packets * LEAST_DELIVERED {
            all.push(format!(
                "{} of {} packets delivered",
                self.delivered, self.packets
            ));
        }
        let reasons = WITHOUT_RULE
            .iter()
            .chain(&OF_PROFILES)
            .map(ToString::to_string);
        let reasons = reasons.map(|reason| (self.dropped.get(&reason), reason));
        let rules = self.planned.iter();
        let rules = rules.map(|comment| (self.rules.get(comment), comment.clone()));
        for (count, name) in reasons.chain(rules) {
            let count = count.copied().unwrap_or_default();
            if count < LEAST_OF_EACH {
                all.push(format!("{name}: {count} times"));
            }
        }
        all
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["packets", "number", "of a hundred"]);
        let share =
            |count: u64| format!("{:.1}", count as f64 * 100.0 / self.packets.max(1) as f64);
        let mut row = |name: &str, count| {
            table.add_row([name.to_owned(), count_text(count), share(count)]);
        };
        row("sent", self.packets);
        row("delivered to a port", self.delivered);
        row("left for outside", self.left);
        row("reached a host itself", self.host);
        for (reason, count) in &self.dropped {
            row(&format!("dropped: {reason}"), *count);
        }
        table
    }
}

fn count_text(count: u64) -> String {
    count.to_string()
}

fn drops(rule: &NftRule) -> bool {
    rule.statements
        .iter()
        .any(|s| matches!(s, Statement::Verdict(Verdict::Drop)))
}

/// No plan leaves a port without its program. Explanations know no rates and numbers of connections; and behind a map in which every port stands
/// nothing is met.
fn can_be_met(rule: &NftRule, before: Option<&NftRule>) -> bool {
    let counts = |s: &Statement| matches!(s, Statement::Dynamic(..) | Statement::Limit(..));
    let of_ports = |s: &Statement| match s {
        Statement::VerdictMap(key, _) => key
            .iter()
            .any(|part| matches!(part.field, Field::IifGroup | Field::OifGroup)),
        _ => false,
    };
    let behind_ports = before.is_some_and(|before| before.statements.iter().any(of_ports));
    let without_program = rule.comment == Some(Reason::NoProgram.to_string());
    !rule.statements.iter().any(counts) && !behind_ports && !without_program
}

/// The rule that decided last.
fn rule_of<'a>(state: &'a HostState, steps: &[Step]) -> Option<(&'a Chain, &'a NftRule)> {
    let Some(Step::Rule(step)) = steps.last() else {
        return None;
    };
    let key = Key::Chain(Netns::Main, step.chain.clone());
    let Some(Object::Chain(_, chain)) = state.objects.get(&key) else {
        return None;
    };
    let rule = chain
        .rules
        .iter()
        .find(|rule| rule.to_string() == step.rule);
    rule.map(|rule| (chain, rule))
}
