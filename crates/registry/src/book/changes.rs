//! Nodes by when something of them changed last, so that another registry is told what it has not heard of, and no more.
//!
//! What always holds: each node is there once; who has heard of everything up to [`Changes::last`] has heard of everything.

use std::collections::BTreeMap;

use hextet_mesh::certificate::NodeId;

/// All changes of one run of the program.
#[derive(Debug)]
pub struct Changes {
    /// Drawn at the start: numbers of another run mean nothing.
    run: u64,
    last: u64,
    order: BTreeMap<u64, NodeId>,
    of: BTreeMap<NodeId, u64>,
}

/// A part of what changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Which run.
    pub run: u64,
    /// Everything up to there was told.
    pub upto: u64,
    /// Whether there is more behind it.
    pub more: bool,
    /// Nodes.
    pub nodes: Vec<NodeId>,
}

impl Changes {
    /// Nothing has changed.
    pub fn new(run: u64) -> Self {
        Changes {
            run,
            last: 0,
            order: BTreeMap::new(),
            of: BTreeMap::new(),
        }
    }

    /// The newest one.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Something changed that is of no node.
    pub fn tick(&mut self) {
        self.last += 1;
    }

    /// A node changed.
    pub fn mark(&mut self, node: NodeId) {
        self.tick();
        if let Some(before) = self.of.insert(node, self.last) {
            self.order.remove(&before);
        }
        self.order.insert(self.last, node);
    }

    /// A node is no more.
    pub fn forget(&mut self, node: NodeId) {
        if let Some(at) = self.of.remove(&node) {
            self.order.remove(&at);
        }
    }

    /// What changed after `heard`, which is of that run.
    pub fn after(&self, run: u64, heard: u64, most: usize) -> Page {
        let heard = if run == self.run { heard } else { 0 };
        let mut rest = self.order.range(heard.saturating_add(1)..);
        let told: Vec<(u64, NodeId)> = rest.by_ref().take(most).map(|(a, n)| (*a, *n)).collect();
        let more = rest.next().is_some();
        let upto = match (more, told.last()) {
            (true, Some((at, _))) => *at,
            _ => self.last,
        };
        Page {
            run: self.run,
            upto,
            more,
            nodes: told.into_iter().map(|(_, node)| node).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn who_asks_until_there_is_no_more_has_heard_of_each_change(
            steps in vec((0u64..12, 0u8..8), 0..80), most in 1usize..5
        ) {
            let mut changes = Changes::new(7);
            let (mut run, mut heard) = (0, 0);
            let mut unheard = BTreeSet::new();
            for (node, step) in steps {
                match step {
                    0 => changes.tick(),
                    1 => {
                        changes.forget(NodeId(node));
                        unheard.remove(&node);
                    }
                    2..=5 => {
                        changes.mark(NodeId(node));
                        unheard.insert(node);
                    }
                    _ => loop {
                        let page = changes.after(run, heard, most);
                        prop_assert!(page.nodes.len() <= most && page.upto <= changes.last());
                        for NodeId(node) in page.nodes {
                            prop_assert!(unheard.remove(&node) || heard == 0, "told in vain");
                        }
                        (run, heard) = (page.run, page.upto);
                        if !page.more {
                            prop_assert!(unheard.is_empty());
                            break;
                        }
                    },
                }
            }
        }
    }
}
