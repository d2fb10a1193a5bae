//! An attack, and what comes of it: once against a host as it stands, which it must not get past, and once
//! against a host without the defences that are meant to stop it, which shows that it could.

use hextet_tests::{defence::Defence, hypervisor::in_own_namespace, wire::Frame};
use hextet_types::Family;

use super::world::{Setting, World};

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
    given: Vec<Change>,
    attempt: Attempt,
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
            given: Vec::new(),
            attempt: Box::new(attempt),
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

    /// In a cloud, or on a host, that differs in this from the usual.
    #[must_use]
    pub fn given(mut self, change: impl Fn(&mut Setting) + Send + Sync + 'static) -> Attack {
        self.given.push(Box::new(change));
        self
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
        Outcome {
            defended: self.run_without(&[]),
            undefended: self.run_without(&self.without),
        }
    }

    fn run_without(&self, left_out: &[Defence]) -> bool {
        in_own_namespace(|| {
            let mut setting = Setting::new();
            for change in &self.given {
                change(&mut setting);
            }
            let mut world = World::new(setting, left_out);
            (self.attempt)(&mut world)
        })
    }
}

impl Outcome {
    /// Whether the defence holds, and the attack was one.
    pub fn judge(&self, attack: &Attack) -> Result<(), String> {
        match (self.defended, self.undefended) {
            (false, true) => Ok(()),
            (true, _) => Err("it succeeded against the host as it stands".to_owned()),
            (false, false) => Err(format!(
                "it failed also without {:?}: it proves nothing",
                attack.without
            )),
        }
    }
}
