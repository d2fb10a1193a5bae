//! An attack of one project on another: against hosts as they stand, and against hosts, or a cloud, without what is meant
//! to stop it.

use hextet_tests::{defence::Defence, hypervisor::in_own_namespace};
use hextet_types::Family;

use super::{setting::Setting, world::World};

type Change = Box<dyn Fn(&mut Setting) + Send + Sync>;
type Attempt = Box<dyn Fn(&mut World) -> bool + Send + Sync>;

/// What is tried, and where.
pub struct Between {
    underlay: Family,
    given: Vec<Change>,
    /// What is otherwise where it ought to succeed.
    without: Vec<Change>,
    attempt: Attempt,
}

impl Between {
    /// Tries that.
    pub fn new(attempt: impl Fn(&mut World) -> bool + Send + Sync + 'static) -> Between {
        Between {
            underlay: Family::V6,
            given: Vec::new(),
            without: Vec::new(),
            attempt: Box::new(attempt),
        }
    }

    /// Hosts reach each other by that family.
    pub fn over(&mut self, underlay: Family) {
        self.underlay = underlay;
    }

    /// In a cloud that differs in this from the usual.
    pub fn given(&mut self, change: impl Fn(&mut Setting) + Send + Sync + 'static) {
        self.given.push(Box::new(change));
    }

    /// It succeeds in a cloud that differs in this.
    pub fn without(&mut self, change: impl Fn(&mut Setting) + Send + Sync + 'static) {
        self.without.push(Box::new(change));
    }

    /// Tries it with everything that is meant to stop it.
    pub fn run_defended(&self) -> bool {
        self.run(&[], false)
    }

    /// Tries it without.
    pub fn run_undefended(&self, left_out: &[Defence]) -> bool {
        self.run(left_out, true)
    }

    fn run(&self, left_out: &[Defence], open: bool) -> bool {
        in_own_namespace(|| {
            let mut setting = Setting::new(self.underlay);
            let without = self.without.iter().filter(|_| open);
            for change in self.given.iter().chain(without) {
                change(&mut setting);
            }
            let mut world = World::new(setting, left_out, open);
            (self.attempt)(&mut world)
        })
    }
}
