//! A table of nf_tables that is somebody's alone and written as a whole, for who has few rules and changes them seldom: a node of a mesh.

use hextet_model::state::{Chain, Element, Set};

use crate::{
    Error,
    netlink::Socket,
    nft::{self, Change, Exists},
};

/// All of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its sets.
    pub sets: Vec<Set>,
    /// Its chains; those that others jump to may come in any order.
    pub chains: Vec<Chain>,
    /// What is in the sets.
    pub elements: Vec<Element>,
}

/// Writes tables, in the namespace where it was opened.
#[derive(Debug)]
pub struct Filter {
    socket: Socket,
    /// `inet`, of this name.
    name: &'static str,
}

impl Filter {
    /// In the thread's network namespace.
    ///
    /// # Errors
    ///
    /// No socket.
    pub fn open(name: &'static str) -> Result<Filter, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER as isize, "nf_tables")?;
        Ok(Filter { socket, name })
    }

    /// The table is this from now on, in one step.
    ///
    /// # Errors
    ///
    /// The kernel refuses; everything is as it was.
    pub fn replace(&mut self, table: &Table) -> Result<(), Error> {
        let sets = table.sets.iter().map(|set| Change::Set(set, false));
        let chains = table.chains.iter();
        let chains = chains.map(|chain| Change::Chain(chain, Exists::No));
        let elements = table.elements.iter();
        let elements = elements.map(|element| Change::Element(element, false));
        let changes: Vec<Change<'_>> = sets.chain(chains).chain(elements).collect();
        let refused = nft::replace_table(&mut self.socket, self.name, &changes)?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some((_, refusal)) => Err(refusal.of(format!("write table inet {}", self.name))),
        }
    }

    /// There is no such table.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn remove(&mut self) -> Result<(), Error> {
        nft::delete_table(&mut self.socket, self.name)
    }
}
