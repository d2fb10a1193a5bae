//! Policy routing rules (`RTM_*RULE`).

use hextet_model::state::{Netns, Rule, RuleAction};
use hextet_types::{Family, IfName};

use super::{PROTOCOL, af, family};
use crate::netlink::{Answer, Attrs, Batch, flags, ne32, octet, text};

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const HEADER: usize = 12;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_BLACKHOLE: u8 = 6;
const NO_SUPPRESSION: u32 = u32::MAX;
/// The rule's link is not there now (`FIB_RULE_IIF_DETACHED`).
const DETACHED: u32 = 8;

/// A rule as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its family.
    pub family: Family,
    /// Lower comes first.
    pub priority: u32,
    /// (value, mask).
    pub fwmark: Option<(u32, u32)>,
    /// Only what comes in by this link.
    pub iif: Option<IfName>,
    /// What it does; none, where it does or asks what no rule of the model does.
    pub action: Option<RuleAction>,
    /// Whether it bears our number.
    pub ours: bool,
}

/// Asks for all rules of one family.
pub fn request_all(batch: &mut Batch, family: Family) {
    let mut header = [0; HEADER];
    header[0] = af(family);
    batch.message(RTM_GETRULE, 0, &header);
}

/// Reads a rule.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if answer.kind != RTM_NEWRULE {
        return None;
    }
    let head = answer.payload.get(..HEADER)?;
    let attrs = Attrs::after(answer.payload, HEADER);
    let number = |kind| attrs.get(kind).and_then(ne32);
    let known = |(kind, value): (u16, &[u8])| match kind {
        FRA_IIFNAME | FRA_PRIORITY | FRA_FWMARK | FRA_FWMASK | FRA_TABLE | FRA_PROTOCOL => true,
        FRA_SUPPRESS_PREFIXLEN => ne32(value) == Some(NO_SUPPRESSION),
        _ => false,
    };
    let plain =
        head[1..4] == [0; 3] && ne32(&head[8..])? & !DETACHED == 0 && attrs.into_iter().all(known);
    let action = match head[7] {
        FR_ACT_BLACKHOLE => Some(RuleAction::Blackhole),
        FR_ACT_TO_TBL => Some(RuleAction::Table(
            number(FRA_TABLE).unwrap_or(u32::from(head[4])),
        )),
        _ => None,
    };
    let mask = number(FRA_FWMASK).unwrap_or(0);
    let iif = attrs.get(FRA_IIFNAME).and_then(text);
    Some(Found {
        family: family(head[0])?,
        priority: number(FRA_PRIORITY).unwrap_or(0),
        fwmark: (mask != 0).then(|| (number(FRA_FWMARK).unwrap_or(0), mask)),
        iif: iif.and_then(|name| name.parse().ok()),
        action: action.filter(|_| plain),
        ours: attrs.get(FRA_PROTOCOL).and_then(octet) == Some(PROTOCOL),
    })
}

impl Found {
    /// The rule in the model's words.
    pub fn rule(&self, netns: &Netns) -> Option<Rule> {
        Some(Rule {
            netns: netns.clone(),
            family: self.family,
            priority: self.priority,
            fwmark: self.fwmark,
            iif: self.iif.clone(),
            action: self.action?,
        })
    }
}

/// Adds a rule with our number.
pub fn add(batch: &mut Batch, rule: &Rule) {
    let (action, table) = match rule.action {
        RuleAction::Blackhole => (FR_ACT_BLACKHOLE, None),
        RuleAction::Table(table) => (FR_ACT_TO_TBL, Some(table)),
    };
    let header = header(rule.family, action);
    let mut m = batch.message(RTM_NEWRULE, flags::CREATE | flags::EXCL, &header);
    m.ne32(FRA_PRIORITY, rule.priority)
        .octet(FRA_PROTOCOL, PROTOCOL);
    if let Some(table) = table {
        m.ne32(FRA_TABLE, table);
    }
    if let Some((value, mask)) = rule.fwmark {
        m.ne32(FRA_FWMARK, value).ne32(FRA_FWMASK, mask);
    }
    if let Some(link) = &rule.iif {
        m.text(FRA_IIFNAME, link.as_str());
    }
}

/// Deletes one rule of ours with that priority, mark and link, whatever it does.
pub fn delete(
    batch: &mut Batch,
    family: Family,
    priority: u32,
    fwmark: Option<(u32, u32)>,
    iif: Option<&IfName>,
) {
    let mut m = batch.message(RTM_DELRULE, 0, &header(family, 0));
    m.ne32(FRA_PRIORITY, priority).octet(FRA_PROTOCOL, PROTOCOL);
    if let Some((value, mask)) = fwmark {
        m.ne32(FRA_FWMARK, value).ne32(FRA_FWMASK, mask);
    }
    if let Some(link) = iif {
        m.text(FRA_IIFNAME, link.as_str());
    }
}

fn header(family: Family, action: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = af(family);
    header[7] = action;
    header
}
