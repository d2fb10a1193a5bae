//! Metering labels, their rules, and what routers are told of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use hextet_model::{
    intent::MeterRule,
    neutron::{MeteringLabel, MeteringRule, Router},
};
use hextet_types::{MeteringLabelId, MeteringRuleId, ProjectId, RouterId};

use super::{
    State,
    table::{Index, Row, Table},
};
use crate::metered::{Sum, SumId};

/// All of it.
#[derive(Debug, Default)]
pub struct Metering {
    /// Labels.
    pub labels: Table<MeteringLabelId, MeteringLabel>,
    /// Their rules.
    pub rules: Table<MeteringRuleId, MeteringRule>,
    /// What has been counted, also for labels, routers and hosts that are gone.
    pub sums: Table<SumId, Sum>,
    rules_by_label: Index<MeteringLabelId, MeteringRuleId>,
    labels_by_project: Index<ProjectId, MeteringLabelId>,
    shared: BTreeSet<MeteringLabelId>,
    departed: VecDeque<(RouterId, ProjectId)>,
}

/// Routers that are known a while longer than they are there: what was counted of them last comes later.
const MAX_DEPARTED: usize = 10_000;

impl Metering {
    /// A label's rules.
    pub fn rules_of(&self, label: MeteringLabelId) -> impl Iterator<Item = &Row<MeteringRule>> {
        let ids = self.rules_by_label.get(&label);
        ids.filter_map(|id| self.rules.row(id))
    }

    /// A project's labels, without those that others share.
    pub fn labels_of(&self, project: &ProjectId) -> impl Iterator<Item = &Arc<MeteringLabel>> {
        let ids = self.labels_by_project.get(project);
        ids.filter_map(|id| self.labels.get(id))
    }

    /// What is counted for a project's routers; labels without rules count nothing.
    pub fn meters_of(&self, project: &ProjectId) -> BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> {
        let own = self.labels_by_project.get(project);
        let all: BTreeSet<MeteringLabelId> = own.chain(&self.shared).copied().collect();
        let meters = all.into_iter().map(|label| {
            let rules = self.rules_of(label).map(|row| told(&row.value));
            (label, rules.collect::<BTreeSet<_>>())
        });
        meters.filter(|(_, rules)| !rules.is_empty()).collect()
    }

    /// Whose a router was that has gone lately.
    pub fn departed(&self, id: RouterId) -> Option<&ProjectId> {
        let found = self.departed.iter().rev().find(|(gone, _)| *gone == id);
        found.map(|(_, project)| project)
    }

    pub(super) fn depart(&mut self, router: &Router) {
        if self.departed.len() >= MAX_DEPARTED {
            self.departed.pop_front();
        }
        let project = router.standard.project_id.clone();
        self.departed.push_back((router.id, project));
    }

    fn index_label(&mut self, label: &MeteringLabel, there: bool) {
        let (project, id) = (&label.project_id, label.id);
        if there {
            self.labels_by_project.insert(project.clone(), id);
        } else {
            self.labels_by_project.remove(project, &id);
        }
        if there && label.shared {
            self.shared.insert(id);
        } else {
            self.shared.remove(&id);
        }
    }
}

fn told(rule: &MeteringRule) -> MeterRule {
    let (source, destination) = rule.ends();
    MeterRule {
        direction: rule.direction,
        excluded: rule.excluded,
        source,
        destination,
    }
}

impl State {
    pub(super) fn set_metering_label(
        &mut self,
        id: MeteringLabelId,
        row: Option<Row<MeteringLabel>>,
    ) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.metering.labels.set(id, row);
        for (label, there) in [(&old, false), (&new, true)] {
            if let Some(label) = label {
                self.count(&label.project_id, "metering_label", there);
                self.metering.index_label(label, there);
            }
        }
        for label in [old, new].into_iter().flatten() {
            self.view_meters(&label);
        }
    }

    pub(super) fn set_metering_rule(&mut self, id: MeteringRuleId, row: Option<Row<MeteringRule>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.metering.rules.set(id, row);
        for (rule, there) in [(&old, false), (&new, true)] {
            let Some(rule) = rule else { continue };
            let label = rule.metering_label_id;
            if there {
                self.metering.rules_by_label.insert(label, id);
            } else {
                self.metering.rules_by_label.remove(&label, &id);
            }
            self.count(&rule.project_id, "metering_label_rule", there);
        }
        for rule in [old, new].into_iter().flatten() {
            let label = self.metering.labels.get(&rule.metering_label_id).cloned();
            label.iter().for_each(|label| self.view_meters(label));
        }
    }

    /// What routers are told of a label may be something else now.
    fn view_meters(&mut self, label: &MeteringLabel) {
        let routers = self.layer3.routers.values();
        let theirs = routers
            .filter(|router| label.shared || router.standard.project_id == label.project_id)
            .map(|router| router.id);
        let theirs: Vec<RouterId> = theirs.collect();
        for router in theirs {
            self.view_router(router);
        }
    }
}
