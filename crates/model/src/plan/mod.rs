//! From intent to state, at once or change by change.
//!
//! The state is made of units ([`unit`]), each a pure function of the intent, no two of which make the
//! same thing. [`plan`] computes them all; a [`Planner`] keeps the union and computes again only what a
//! change touches, which never depends on how many ports, members or rules there are besides.
//!
//! Nothing here knows what stands in the kernel: that is the reconciler's business.

mod address;
pub(crate) mod base;
mod config;
mod flood;
mod group;
pub(crate) mod index;
mod ledger;
pub(crate) mod names;
mod nat;
mod nft;
mod port;
mod report;
mod responder;
pub(crate) mod rules;
mod source;
mod step;
mod unit;
pub(crate) mod why;

use std::net::IpAddr;

use crate::{
    intent::{Change, Intent},
    neutron::Port,
    state::{Changed, HostState},
};

pub use address::{BLACKHOLE_METRIC, PORT_METRIC, SOURCE_METRIC};
pub use config::{Aggregate, HostConfig};

use index::Index;
use ledger::Ledger;
use step::Touched;
use unit::{Output, Unit, View};

/// Everything that the intent asks of a host with that configuration.
pub fn plan(intent: &Intent, config: &HostConfig) -> HostState {
    let index = Index::of(intent);
    let view = View {
        config,
        intent,
        index: &index,
    };
    let mut ledger = Ledger::default();
    ledger.replace(compute(view, view.all_units()));
    ledger.state().clone()
}

fn compute(view: View<'_>, units: impl IntoIterator<Item = Unit>) -> Vec<(Unit, Output)> {
    let with_output = |unit: Unit| {
        let output = unit.compute(view);
        (unit, output)
    };
    units.into_iter().map(with_output).collect()
}

/// A host's state, kept equal to what [`plan`] makes of its intent.
#[derive(Clone, Debug)]
pub struct Planner {
    config: HostConfig,
    intent: Intent,
    index: Index,
    ledger: Ledger,
    units_computed: u64,
}

impl Planner {
    /// A host that has been told nothing yet: what stands on every host.
    pub fn new(config: HostConfig) -> Planner {
        let mut planner = Planner {
            config,
            intent: Intent::default(),
            index: Index::default(),
            ledger: Ledger::default(),
            units_computed: 0,
        };
        let all = planner.view().all_units();
        planner.compute(all);
        planner
    }

    /// Takes one step.
    pub fn apply(&mut self, change: Change) -> Changed {
        self.apply_all([change])
    }

    /// Takes several steps as one: what they touch is computed once, at the end.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> Changed {
        let mut touched = Touched::default();
        for change in changes {
            step::step(&mut self.intent, &mut self.index, change, &mut touched);
        }
        step::settle(&self.intent, &mut self.index, &mut touched);
        let mut changed = self.compute(touched.units);
        changed.recheck = touched.recheck;
        changed
    }

    /// Goes to another intent altogether, by the changes that lead there.
    pub fn replace(&mut self, intent: &Intent) -> Changed {
        let changes = self.intent.changes_to(intent);
        self.apply_all(changes)
    }

    /// As [`Planner::replace`], of an intent that nobody else needs. From none, each part is moved.
    pub fn replace_with(&mut self, intent: Intent) -> Changed {
        if self.intent == Intent::default() {
            return self.apply_all(intent.into_changes());
        }
        self.replace(&intent)
    }

    /// What the intent asks of this host.
    pub fn state(&self) -> &HostState {
        self.ledger.state()
    }

    /// The intent.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The configuration.
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// The port that an address leads to, on this host.
    pub fn port_with(&self, addr: IpAddr) -> Option<&Port> {
        self.view().port_with(addr)
    }

    /// How many units have been computed so far: the work done.
    pub fn units_computed(&self) -> u64 {
        self.units_computed
    }

    fn view(&self) -> View<'_> {
        View {
            config: &self.config,
            intent: &self.intent,
            index: &self.index,
        }
    }

    fn compute(&mut self, units: impl IntoIterator<Item = Unit>) -> Changed {
        let outputs = compute(self.view(), units);
        self.units_computed += outputs.len() as u64;
        self.ledger.replace(outputs)
    }
}
