//! The rules of a state, applied to a packet: what nftables does, for the statements that plans use.
//!
//! Rates and numbers of connections count as not exceeded.

use std::net::IpAddr;

use crate::{
    explain::{
        packet::Flight,
        step::{Reason, RuleStep, Step},
    },
    state::{
        Chain, ChainName, CmpOp, CtState, Element, Hook, HostState, Key, KeyPart, NatEnd, NatRange,
        Netns, NftRule, Object, Policy, SetName, Statement, Value, Verdict,
    },
};

/// Chains that call one another deeper than this are refused by the kernel (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

/// Where the evaluation of a chain ended.
enum End {
    /// At its last rule, or by `return`.
    Fell,
    /// The base chain accepts.
    Accepted,
    /// The packet is dropped, and why.
    Dropped(Reason),
}

/// What a rule said.
enum Said {
    Nothing,
    Verdict(Verdict),
}

/// The rules of one namespace.
pub(super) struct Table<'a> {
    state: &'a HostState,
    netns: &'a Netns,
    base: Vec<&'a Chain>,
}

impl<'a> Table<'a> {
    pub fn new(state: &'a HostState, netns: &'a Netns) -> Self {
        let first = Key::Chain(netns.clone(), ChainName(String::new()));
        let chains = state
            .objects
            .range(first..)
            .map_while(|(_, object)| match object {
                Object::Chain(ns, chain) if ns == netns => Some(chain),
                _ => None,
            });
        let mut base: Vec<_> = chains.filter(|chain| chain.hook.is_some()).collect();
        base.sort_by_key(|chain| chain.hook.map(|hook| hook.priority));
        Table { state, netns, base }
    }

    /// The packet passes a hook; an error is the reason why it does not.
    pub fn pass(
        &self,
        hook: Hook,
        flight: &mut Flight<'_>,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<(), Reason> {
        self.pass_some((hook, |_| true), flight, steps)
    }

    /// It passes those chains of a hook that have such a priority.
    pub fn pass_some(
        &self,
        (hook, has): (Hook, fn(i32) -> bool),
        flight: &mut Flight<'_>,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<(), Reason> {
        for chain in &self.base {
            let Some(at) = chain.hook.filter(|at| at.hook == hook && has(at.priority)) else {
                continue;
            };
            if at.nat && (flight.tracked.bound || flight.connection() != CtState::New) {
                continue;
            }
            let mut run = Run {
                table: self,
                hook,
                steps: steps.as_deref_mut(),
            };
            match run.chain(chain, flight, 0) {
                End::Dropped(reason) => return Err(reason),
                End::Fell if at.policy == Policy::Drop => return Err(Reason::NotAdmitted),
                End::Fell | End::Accepted => {}
            }
        }
        Ok(())
    }

    fn chain(&self, name: &ChainName) -> Option<&'a Chain> {
        match self
            .state
            .objects
            .get(&Key::Chain(self.netns.clone(), name.clone()))
        {
            Some(Object::Chain(_, chain)) => Some(chain),
            _ => None,
        }
    }

    fn element(&self, set: &SetName, key: Vec<Value>) -> Option<&'a Element> {
        match self
            .state
            .objects
            .get(&Key::Element(self.netns.clone(), set.clone(), key))
        {
            Some(Object::Element(_, element)) => Some(element),
            _ => None,
        }
    }
}

/// One hook's evaluation.
struct Run<'t, 'a> {
    table: &'t Table<'a>,
    hook: Hook,
    steps: Option<&'t mut Vec<Step>>,
}

impl Run<'_, '_> {
    fn chain(&mut self, chain: &Chain, flight: &mut Flight<'_>, depth: usize) -> End {
        for rule in &chain.rules {
            let Said::Verdict(verdict) = self.rule(rule, flight) else {
                continue;
            };
            if !matches!(verdict, Verdict::Jump(_) | Verdict::Return) {
                self.record(chain, rule);
            }
            match verdict {
                Verdict::Accept => return End::Accepted,
                Verdict::Drop => {
                    let comment = rule.comment.as_deref();
                    return End::Dropped(Reason::of_rule(&chain.name, comment));
                }
                Verdict::Return => return End::Fell,
                Verdict::Goto(to) => return self.call(&to, flight, depth),
                Verdict::Jump(to) => match self.call(&to, flight, depth) {
                    End::Fell => {}
                    end => return end,
                },
            }
        }
        End::Fell
    }

    /// A chain that is not there cannot stand in the kernel either: nothing passes.
    fn call(&mut self, name: &ChainName, flight: &mut Flight<'_>, depth: usize) -> End {
        match self.table.chain(name).filter(|_| depth < MAX_DEPTH) {
            Some(chain) => self.chain(chain, flight, depth + 1),
            None => End::Dropped(Reason::Other(format!("no chain {name}"))),
        }
    }

    fn record(&mut self, chain: &Chain, rule: &NftRule) {
        if let Some(steps) = &mut self.steps {
            steps.push(Step::Rule(RuleStep {
                hook: self.hook,
                chain: chain.name.clone(),
                rule: rule.to_string(),
                group: None,
                group_rules: Vec::new(),
            }));
        }
    }

    fn rule(&mut self, rule: &NftRule, flight: &mut Flight<'_>) -> Said {
        for statement in &rule.statements {
            let goes_on = match statement {
                Statement::Verdict(verdict) => return Said::Verdict(verdict.clone()),
                Statement::VerdictMap(key, map) => match self.mapped(key, map, flight) {
                    Some(verdict) => return Said::Verdict(verdict),
                    None => true,
                },
                Statement::Snat(range) => {
                    flight.translated = Some(*range);
                    if let Some(steps) = &mut self.steps {
                        steps.push(Step::Translates(*range));
                    }
                    return Said::Verdict(Verdict::Accept);
                }
                Statement::Masquerade => {
                    flight.translated = Some(NatRange::OF_LINK);
                    if let Some(steps) = &mut self.steps {
                        steps.push(Step::Translates(NatRange::OF_LINK));
                    }
                    return Said::Verdict(Verdict::Accept);
                }
                Statement::NatMap(end, key, map, _) => match self.translation(key, map, flight) {
                    Some(to) => {
                        self.translate(*end, to, flight);
                        return Said::Verdict(Verdict::Accept);
                    }
                    None => false,
                },
                Statement::Notrack => {
                    flight.untracked = true;
                    true
                }
                Statement::Reject => return Said::Verdict(Verdict::Drop),
                Statement::SetMark { value, mask } => {
                    flight.mark = flight.mark & !mask | value;
                    true
                }
                Statement::SetPktType(to) => {
                    flight.pkt_type = *to;
                    true
                }
                condition => self.holds(condition, flight),
            };
            if !goes_on {
                break;
            }
        }
        Said::Nothing
    }

    fn mapped(&self, key: &[KeyPart], map: &SetName, flight: &Flight<'_>) -> Option<Verdict> {
        self.table.element(map, flight.key(key)?)?.verdict.clone()
    }

    /// What a map has for the packet: an address, and a port where it says so.
    fn translation(
        &self,
        key: &[KeyPart],
        map: &SetName,
        flight: &Flight<'_>,
    ) -> Option<(IpAddr, Option<u16>)> {
        let element = self.table.element(map, flight.key(key)?)?;
        match element.data[..] {
            [Value::Addr(addr)] => Some((addr, None)),
            [Value::Addr(addr), Value::Port(port)] => Some((addr, Some(port))),
            _ => None,
        }
    }

    fn translate(
        &mut self,
        end: NatEnd,
        (addr, port): (IpAddr, Option<u16>),
        flight: &mut Flight<'_>,
    ) {
        let step = match end {
            NatEnd::Source => {
                let range = NatRange {
                    first: addr,
                    last: addr,
                };
                flight.translated = Some(range);
                Step::Translates(range)
            }
            NatEnd::Destination => {
                flight.redirect((addr, port));
                flight.redirected = true;
                Step::Redirects { to: addr, port }
            }
        };
        if let Some(steps) = &mut self.steps {
            steps.push(step);
        }
    }

    /// A condition on something that the packet does not have never holds, negated or not.
    fn holds(&self, condition: &Statement, flight: &Flight<'_>) -> bool {
        match condition {
            Statement::Compare(part, op, value) => flight
                .part(part)
                .is_some_and(|found| (found == *value) == (*op == CmpOp::Eq)),
            Statement::NamePrefix(field, prefix) => match flight.field(*field) {
                Some(Value::IfName(name)) => name.as_str().starts_with(prefix.as_str()),
                _ => false,
            },
            Statement::CtStateIn(states) => states.contains(&flight.connection()),
            Statement::Lookup(lookup) => flight
                .key(&lookup.key)
                .is_some_and(|key| self.table.element(&lookup.set, key).is_some() != lookup.negate),
            // Whether a rate is passed nobody can say of one packet.
            Statement::Dynamic(..) | Statement::LimitMap(..) => false,
            Statement::Limit(_, over) => !over,
            _ => true,
        }
    }
}
