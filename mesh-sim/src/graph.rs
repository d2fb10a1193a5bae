//! Paths and pieces of a graph of tunnels.

use std::{cmp::Reverse, collections::BinaryHeap};

/// No path.
pub const FAR: u32 = u32::MAX;

/// A tunnel's other end and its cost in microseconds.
pub type Links = Vec<Vec<(usize, u32)>>;

/// Shortest paths from one node: costs, and by which neighbour they leave.
pub fn paths(links: &Links, from: usize) -> (Vec<u32>, Vec<usize>) {
    let mut costs = vec![FAR; links.len()];
    let mut by = vec![from; links.len()];
    let mut open = BinaryHeap::from([Reverse((0u32, from))]);
    costs[from] = 0;
    while let Some(Reverse((cost, node))) = open.pop() {
        if cost > costs[node] {
            continue;
        }
        for (next, more) in &links[node] {
            let sum = cost.saturating_add(*more);
            if sum < costs[*next] {
                costs[*next] = sum;
                by[*next] = if node == from { *next } else { by[node] };
                open.push(Reverse((sum, *next)));
            }
        }
    }
    (costs, by)
}

/// For each node the number of its piece, or none if it is not alive; and how many pieces there are.
pub fn pieces(links: &Links, alive: &[bool]) -> (Vec<Option<usize>>, usize) {
    let mut piece = vec![None; links.len()];
    let mut count = 0;
    for start in 0..links.len() {
        if !alive[start] || piece[start].is_some() {
            continue;
        }
        piece[start] = Some(count);
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            for (next, _) in &links[node] {
                if alive[*next] && piece[*next].is_none() {
                    piece[*next] = Some(count);
                    open.push(*next);
                }
            }
        }
        count += 1;
    }
    (piece, count)
}
