//! An attack, and what comes of it: once against a host as it stands, which it must not get past, and once
//! against a host without the defences that are meant to stop it, which shows that it could.

use hextet_tests::{defence::Defence, hypervisor::in_own_namespace, wire::Frame};
use hextet_types::Family;

use super::{
    projects::{self, Between},
    world::{Setting, World},
};

type Change = Box<dyn Fn(&mut Setting) + Send + Sync>;
type Attempt = Box<dyn Fn(&mut World) -> bool + Send + Sync>;

/// What a workload may try.
pub struct Attack {
    /// What it is about.
    pub group: &'static str,
    /// What it does.
    pub name: String,
    /// The family of its packets; none for what is below IP.
    pub family: Option<Family>,
    /// Without these it succeeds.
    pub without: Vec<Defence>,
    /// What else it needs to succeed, in words.
    pub without_besides: Option<&'static str>,
    stage: Stage,
}

/// Where it takes place.
enum Stage {
    Host(Vec<Change>, Attempt),
    Projects(Between),
}

/// What came of an attack.
pub struct Outcome {
    /// Whether it succeeded against the host as it stands.
    pub defended: bool,
    /// Whether it succeeded without the defences.
    pub undefended: bool,
}

impl Attack {
    /// An attack that says itself whether it succeeded.
    pub fn new(
        group: &'static str,
        name: impl Into<String>,
        family: impl Into<Option<Family>>,
        without: &[Defence],
        attempt: impl Fn(&mut World) -> bool + Send + Sync + 'static,
    ) -> Attack {
        Attack {
            group,
            name: name.into(),
            family: family.into(),
            without: without.to_vec(),
            without_besides: None,
            stage: Stage::Host(Vec::new(), Box::new(attempt)),
        }
    }

    /// An attack between projects, that says itself whether it succeeded.
    pub fn between(
        group: &'static str,
        name: impl Into<String>,
        family: impl Into<Option<Family>>,
        without: &[Defence],
        attempt: impl Fn(&mut projects::World) -> bool + Send + Sync + 'static,
    ) -> Attack {
        Attack {
            group,
            name: name.into(),
            family: family.into(),
            without: without.to_vec(),
            without_besides: None,
            stage: Stage::Projects(Between::new(attempt)),
        }
    }

    /// An attack that sends frames from the attacker's port, and succeeded if the sign is there.
    pub fn by_frames(
        group: &'static str,
        name: impl Into<String>,
        family: impl Into<Option<Family>>,
        without: &[Defence],
        frames: impl Fn(&World) -> Vec<Frame> + Send + Sync + 'static,
        sign: impl Fn(&mut World) -> bool + Send + Sync + 'static,
    ) -> Attack {
        Attack::new(group, name, family, without, move |world| {
            for frame in frames(world) {
                world.send(&frame);
            }
            sign(world)
        })
    }

    /// The same with packets of either family in turn, of which both have to come to the same.
    pub fn between_in_both(
        group: &'static str,
        name: &'static str,
        without: &[Defence],
        attempt: impl Fn(&mut projects::World, Family) -> bool + Send + Sync + 'static,
    ) -> Attack {
        Attack::between(group, name, None, without, move |world| {
            for family in Family::BOTH {
                let hit = attempt(world, family);
                world.tried(family.to_string(), hit);
            }
            world.outcome()
        })
    }

    /// In a cloud, or on a host, that differs in this from the usual.
    #[must_use]
    pub fn given(mut self, change: impl Fn(&mut Setting) + Send + Sync + 'static) -> Attack {
        match &mut self.stage {
            Stage::Host(given, _) => given.push(Box::new(change)),
            Stage::Projects(_) => panic!("{}: its cloud is another", self.name),
        }
        self
    }

    /// The same of an attack between projects.
    #[must_use]
    pub fn given_projects(
        mut self,
        change: impl Fn(&mut projects::Setting) + Send + Sync + 'static,
    ) -> Attack {
        self.projects().given(change);
        self
    }

    /// It succeeds only in a cloud that differs in this, in words and in deed.
    #[must_use]
    pub fn but_for(
        mut self,
        what: &'static str,
        change: impl Fn(&mut projects::Setting) + Send + Sync + 'static,
    ) -> Attack {
        self.without_besides = Some(what);
        self.projects().without(change);
        self
    }

    /// Hosts reach each other by that family.
    #[must_use]
    pub fn over(mut self, underlay: Family) -> Attack {
        self.projects().over(underlay);
        self
    }

    fn projects(&mut self) -> &mut Between {
        match &mut self.stage {
            Stage::Host(..) => panic!("{}: there are no projects", self.name),
            Stage::Projects(between) => between,
        }
    }

    /// Its name among all.
    pub fn full_name(&self) -> String {
        match self.family {
            Some(family) => format!("{}: {} ({family})", self.group, self.name),
            None => format!("{}: {}", self.group, self.name),
        }
    }

    /// Carries it out, with and without the defences.
    pub fn run(&self) -> Outcome {
        match &self.stage {
            Stage::Host(given, attempt) => Outcome {
                defended: on_a_host(given, attempt, &[]),
                undefended: on_a_host(given, attempt, &self.without),
            },
            Stage::Projects(between) => Outcome {
                defended: between.run_defended(),
                undefended: between.run_undefended(&self.without),
            },
        }
    }

    /// What it succeeds without, in words.
    pub fn lacks(&self) -> String {
        let defences = self.without.iter().map(|d| format!("{d:?}"));
        let besides = self.without_besides.map(str::to_owned);
        defences.chain(besides).collect::<Vec<_>>().join(", ")
    }
}

fn on_a_host(given: &[Change], attempt: &Attempt, left_out: &[Defence]) -> bool {
    in_own_namespace(|| {
        let mut setting = Setting::new();
        for change in given {
            change(&mut setting);
        }
        let mut world = World::new(setting, left_out);
        attempt(&mut world)
    })
}

impl Outcome {
    /// Whether the defence holds, and the attack was one.
    pub fn judge(&self, attack: &Attack) -> Result<(), String> {
        match (self.defended, self.undefended) {
            (false, true) => Ok(()),
            (true, _) => Err("it succeeded against the host as it stands".to_owned()),
            (false, false) => Err(format!(
                "it failed also without {}: it proves nothing",
                attack.lacks()
            )),
        }
    }
}
