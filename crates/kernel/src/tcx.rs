//! A port's eBPF programs on its link by TCX, which costs a packet less than tc does.
//!
//! What of ours hangs on a link is known by the programs' names. Others' programs stay where they are; ours
//! go before those that are there, and what ours let pass others no longer see.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::BorrowedFd,
};

use crate::{
    bpf::{self, DIRECTIONS, Direction, Program},
    patch::PROGRAM as PATCH,
    tc::{EGRESS, INGRESS, name_of},
    uplink::PROGRAM as UPLINK,
};

/// By these names programs of ours are known.
const NAMES: [&str; 4] = [INGRESS, EGRESS, PATCH, UPLINK];

/// The numbers of all programs on links that have any, ours or not, by direction.
pub type Found = HashMap<u32, [Vec<u32>; 2]>;

/// Programs of ours, by number.
pub type Ours = BTreeMap<u32, Program>;

/// What of ours hangs on a link in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Has {
    /// Nothing.
    #[default]
    None,
    /// The right program.
    Right,
    /// Another version's, or several.
    Other,
}

/// Two programs, to be hung on links.
#[derive(Debug)]
pub struct Pair<'a> {
    pub fds: [BorrowedFd<'a>; 2],
    /// A program is right if it is this one, since its maps are.
    pub ids: [u32; 2],
}

/// Looks at these links. Two cheap calls for each.
pub fn look(links: impl IntoIterator<Item = u32>) -> io::Result<Found> {
    let mut found = Found::new();
    for link in links {
        let Some(ingress) = there(bpf::on_link(link, Direction::Ingress))? else {
            continue;
        };
        let egress = there(bpf::on_link(link, Direction::Egress))?.unwrap_or_default();
        if !ingress.is_empty() || !egress.is_empty() {
            found.insert(link, [ingress, egress]);
        }
    }
    Ok(found)
}

/// Of the programs that were found, those that are ours.
pub fn ours(found: &Found) -> io::Result<Ours> {
    let mut ours = Ours::new();
    let mut seen = BTreeSet::new();
    for id in found.values().flatten().flatten() {
        if !seen.insert(*id) {
            continue;
        }
        if let Some(program) = Program::open(*id)?
            && NAMES.iter().any(|name| program.is_named(name))
        {
            ours.insert(*id, program);
        }
    }
    Ok(ours)
}

/// What the programs on a link are, given those of all links that are ours.
pub fn judge(
    on_link: &[Vec<u32>; 2],
    ours: &Ours,
    right: impl Fn(Direction, &Program) -> bool,
) -> [Has; 2] {
    DIRECTIONS.map(|direction| {
        let [ingress, egress] = on_link;
        let ids = match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        };
        judge_one(ids, ours, name_of(direction), |program| {
            right(direction, program)
        })
    })
}

/// What the programs of that name are, of those on a link in one direction.
pub fn judge_one(ids: &[u32], ours: &Ours, name: &str, right: impl Fn(&Program) -> bool) -> Has {
    let mut has = Has::None;
    let ours = ids.iter().filter_map(|id| ours.get(id));
    for program in ours.filter(|program| program.is_named(name)) {
        has = match has {
            Has::None if right(program) => Has::Right,
            _ => Has::Other,
        };
    }
    has
}

impl Pair<'_> {
    /// Hangs both on a link: in place of ours that hang there, or else before all others.
    pub fn hang(&self, link: u32) -> io::Result<()> {
        for direction in DIRECTIONS {
            if !self.renew_one(link, direction)? {
                bpf::attach(link, direction, self.fd(direction))?;
            }
        }
        Ok(())
    }

    /// Puts them in place of those of ours that hang on a link; whether both hang there now.
    pub fn renew(&self, link: u32) -> io::Result<bool> {
        let mut both = true;
        for direction in DIRECTIONS {
            both &= self.renew_one(link, direction)?;
        }
        Ok(both)
    }

    /// Whether a program is one of these.
    pub fn has(&self, direction: Direction, program: &Program) -> bool {
        let [ingress, egress] = self.ids;
        let id = match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        };
        program.id() == id
    }

    fn renew_one(&self, link: u32, direction: Direction) -> io::Result<bool> {
        let has = |program: &Program| self.has(direction, program);
        renew(link, direction, name_of(direction), has, self.fd(direction))
    }

    fn fd(&self, direction: Direction) -> BorrowedFd<'_> {
        let [ingress, egress] = self.fds;
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }
}

/// Puts a program into the place of those of its name that hang on a link in one direction; whether it hangs there now.
pub fn renew(
    link: u32,
    direction: Direction,
    name: &str,
    right: impl Fn(&Program) -> bool,
    new: BorrowedFd<'_>,
) -> io::Result<bool> {
    let ours = named_on(link, direction, name)?;
    let mut stands = ours.iter().position(right);
    for (i, other) in ours.iter().enumerate() {
        match stands {
            Some(right) if right == i => {}
            Some(_) => bpf::detach(link, direction, other.fd())?,
            None => {
                bpf::replace(link, direction, other.fd(), new)?;
                stands = Some(i);
            }
        }
    }
    Ok(stands.is_some())
}

/// Takes a port's programs off a link; one that has gone has nothing.
pub fn take_away(link: u32) -> io::Result<()> {
    let mut both = DIRECTIONS.into_iter();
    both.try_for_each(|direction| take_away_named(link, direction, name_of(direction)))
}

/// Takes programs of that name off a link.
pub fn take_away_named(link: u32, direction: Direction, name: &str) -> io::Result<()> {
    for program in there(named_on(link, direction, name))?.unwrap_or_default() {
        there(bpf::detach(link, direction, program.fd()))?;
    }
    Ok(())
}

fn named_on(link: u32, direction: Direction, name: &str) -> io::Result<Vec<Program>> {
    let mut named = Vec::new();
    for id in bpf::on_link(link, direction)? {
        let program = Program::open(id)?;
        named.extend(program.filter(|program| program.is_named(name)));
    }
    Ok(named)
}

/// A link that has gone meanwhile is no fault, nor is a program that somebody else took off.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(None),
        Err(e) => Err(e),
    }
}
