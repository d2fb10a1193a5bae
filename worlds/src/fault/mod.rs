//! Planted faults: what a planner might get wrong, done to its plan before the kernel gets it. A generator
//! that does not notice each of them within a few worlds does not look closely enough.
//!
//! Names of chains and sets are the planner's; a fault whose place is gone fits in no world, and that
//! fails the suite like one that nobody notices. Those of projects are in [`project`].

mod policy;
pub mod project;
mod way;

use hextet_model::state::{Chain, Element, HostState, NftRule, Object, Source, Statement, Verdict};
use hextet_tests::hypervisor::in_own_namespace;
use hextet_types::Family;
use rand::{rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    run::{self, Checked},
    tenant,
};

/// Packets to show that a plan without the fault is right again.
const MENDED: usize = 40;

/// A fault, and what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What is wrong, in words.
    pub name: &'static str,
    /// Does it to a host's plan; false if there is nothing to do it to.
    pub plant: fn(&mut HostState, &mut StdRng) -> bool,
}

macro_rules! faults {
    ($($place:ident :: $plant:ident: $name:literal,)*) => {
        /// All of them.
        pub const FAULTS: &[Fault] = &[$(Fault { name: $name, plant: $place::$plant },)*];
    };
}

faults! {
    policy::source_missing: "a port may not use one of its sources",
    policy::wide_source_missing: "a port may not use one of its prefixes",
    policy::source_of_another: "ports may use the address of another",
    policy::source_of_another_mac: "a port's source goes with another MAC",
    policy::unchecked_port: "a port's sources are not checked",
    policy::spoofers_pass: "what fails the source check passes",
    policy::profile_of_another: "a port is judged by the groups of another",
    policy::ends_swapped: "a remote prefix or group is looked for at the wrong end",
    policy::group_left_out: "a profile leaves out a group",
    policy::port_off_by_one: "a rule is about the port beside",
    policy::port_mask_widened: "a rule's port mask is a bit too short",
    policy::element_missing: "a rule is not there",
    policy::icmp_type_wrong: "a rule is about another ICMP type",
    policy::remote_prefix_wrong: "a rule is about another remote prefix",
    policy::family_swapped: "a rule is about the other family",
    policy::members_missing: "the members of a remote group are not there",
    policy::members_added: "a remote group has members too many",
    policy::guard_bypassed: "an accept stands before the guard",
    policy::discovery_forwarded: "neighbour discovery may be forwarded",
    policy::dhcp_forwarded: "anybody may be a DHCP server",
    policy::invalid_passes: "what belongs to no connection passes",
    policy::answers_judged: "answers are judged like first packets",
    policy::related_judged: "errors about connections are judged like first packets",
    policy::errors_of_others: "errors about connections pass, whoever sends them",
    policy::stateless_forgotten: "a stateless port is taken for a stateful one",
    way::private_reached: "private addresses are reached from outside",
    way::private_leaks: "private addresses leave for outside untranslated",
    way::translated_inside: "what stays inside is translated",
    way::nat_range_wrong: "translation uses an address that is not the host's",
    way::route_to_another: "an address leads to another port",
    way::neighbour_wrong: "a port's packets go to another MAC",
    way::black_hole_missing: "a black hole is not there",
    way::link_state_swapped: "a port that is down is up, or the other way round",
    way::host_open: "the host's services are open to workloads",
    way::unknown_ports_pass: "what comes from a port that no plan knows passes",
}

/// A world in which faults can be planted.
pub trait Planted {
    /// That of a seed, in namespaces that end with the calling thread.
    fn of(seed: u64) -> Self;
    /// What must stand on each host.
    fn states(&self) -> Vec<HostState>;
    /// Gives its hosts another state than they are explained by; `None` gives the right one back.
    fn impose(&mut self, states: Option<&[HostState]>);
    /// Random numbers that depend on the seed and on what has been sent.
    fn fork(&mut self) -> StdRng;
    /// Sends so many packets.
    ///
    /// # Errors
    ///
    /// The first disagreement.
    fn holds(&mut self, packets: usize) -> Checked<()>;
}

impl Planted for run::World {
    fn of(seed: u64) -> Self {
        run::World::new(seed)
    }

    fn states(&self) -> Vec<HostState> {
        self.sites.iter().map(|site| site.state.clone()).collect()
    }

    fn impose(&mut self, states: Option<&[HostState]>) {
        self.impose(states);
    }

    fn fork(&mut self) -> StdRng {
        self.fork()
    }

    fn holds(&mut self, packets: usize) -> Checked<()> {
        self.batch(packets)
    }
}

impl Planted for tenant::run::World {
    fn of(seed: u64) -> Self {
        tenant::run::World::new(seed)
    }

    fn states(&self) -> Vec<HostState> {
        self.sites.iter().map(|site| site.state.clone()).collect()
    }

    fn impose(&mut self, states: Option<&[HostState]>) {
        self.impose(states);
    }

    fn fork(&mut self) -> StdRng {
        self.fork()
    }

    fn holds(&mut self, packets: usize) -> Checked<()> {
        self.batch(packets)
    }
}

/// The names of those faults that none of so many worlds notices, of the first seed and those after it.
pub fn survivors<W: Planted>(
    faults: &[Fault],
    first: u64,
    worlds: u64,
    packets: usize,
) -> Vec<&'static str> {
    let mut left = faults.to_vec();
    for seed in first..first + worlds {
        if left.is_empty() {
            break;
        }
        left = in_own_namespace(|| not_noticed::<W>(seed, packets, &left));
    }
    left.iter().map(|fault| fault.name).collect()
}

fn not_noticed<W: Planted>(seed: u64, packets: usize, faults: &[Fault]) -> Vec<Fault> {
    let mut world = W::of(seed);
    let is_noticed = |fault: &&Fault| {
        let mut states = world.states();
        let mut rng = world.fork();
        let planted = states
            .iter_mut()
            .filter_map(|state| (fault.plant)(state, &mut rng).then_some(()))
            .count();
        if planted == 0 {
            return false;
        }
        world.impose(Some(&states));
        let noticed = world.holds(packets).is_err();
        world.impose(None);
        let mended = world.holds(MENDED);
        assert!(
            mended.is_ok(),
            "after {:?} was mended: {mended:?}",
            fault.name
        );
        noticed
    };
    let mut is_noticed = is_noticed;
    let left = faults.iter().filter(|fault| !is_noticed(fault));
    left.copied().collect()
}

/// Some element of a set that is named so.
fn element(
    state: &HostState,
    rng: &mut StdRng,
    is_it: impl Fn(&Element) -> bool,
) -> Option<Element> {
    let elements = state.objects.values().filter_map(|object| match object {
        Object::Element(_, element) if is_it(element) => Some(element),
        _ => None,
    });
    let elements: Vec<&Element> = elements.collect();
    elements.choose(rng).map(|element| (*element).clone())
}

fn remove(state: &mut HostState, element: Option<&Element>) -> bool {
    let Some(gone) = element else { return false };
    let before = state.objects.len();
    state.objects.retain(|_, object| match object {
        Object::Element(_, element) => element.set != gone.set || element.key != gone.key,
        _ => true,
    });
    before != state.objects.len()
}

fn add(state: &mut HostState, element: Element) -> bool {
    let netns = hextet_model::state::Netns::Main;
    state.insert(Object::Element(netns, element)).is_none()
}

/// Puts another in place of an element.
fn change(
    state: &mut HostState,
    old: Option<Element>,
    change: impl Fn(&mut Element) -> bool,
) -> bool {
    let Some(old) = old else { return false };
    let mut new = old.clone();
    if !change(&mut new) || !remove(state, Some(&old)) {
        return false;
    }
    add(state, new);
    true
}

fn named(prefix: &'static str) -> impl Fn(&Element) -> bool {
    move |element| element.set.0.starts_with(prefix)
}

/// The set of a rule of a group: its name tells group and shape.
fn of_rule(element: &Element) -> bool {
    let prefixes = ["e4-", "e6-", "i4-", "i6-"];
    prefixes
        .iter()
        .any(|prefix| element.set.0.starts_with(prefix))
}

fn each_chain(state: &mut HostState, mut change: impl FnMut(&mut Chain) -> bool) -> bool {
    let mut changed = false;
    for object in state.objects.values_mut() {
        if let Object::Chain(_, chain) = object {
            changed |= change(chain);
        }
    }
    changed
}

fn chain_named(state: &mut HostState, name: &str, mut to: impl FnMut(&mut Chain) -> bool) -> bool {
    each_chain(state, |chain| chain.name.0 == name && to(chain))
}

/// Takes rules out of all chains.
fn without(state: &mut HostState, is_it: impl Fn(&Chain, &NftRule) -> bool) -> bool {
    each_chain(state, |chain| {
        let before = chain.clone();
        chain.rules.retain(|rule| !is_it(&before, rule));
        before.rules.len() != chain.rules.len()
    })
}

fn rule(verdict: Verdict) -> NftRule {
    NftRule {
        statements: vec![Statement::Verdict(verdict)],
        comment: None,
    }
}

fn drops(rule: &NftRule) -> bool {
    rule.statements.contains(&Statement::Verdict(Verdict::Drop))
}

fn sources(state: &HostState, family: Option<Family>) -> Vec<Source> {
    let sources = state.objects.values().filter_map(|object| match object {
        Object::Source(source) => Some(source.clone()),
        _ => None,
    });
    let of_family = |s: &Source| family.is_none_or(|family| Family::of(s.addr) == family);
    sources.filter(of_family).collect()
}
