//! Open flows, after a change of policy: those that it no longer allows end.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_kernel::{
    Error,
    conntrack::{Conntrack, Entry, Filter, Place, Tuple},
};

/// Up to here the kernel is asked for each address; beyond, the whole table is read once.
const FEW: usize = 8;

/// Ends the flows from or to these addresses that may not begin now; gives how many there were.
///
/// # Errors
///
/// The table can't be read or written; some flows may have ended.
pub fn cut(
    table: &mut Conntrack,
    addresses: &BTreeSet<IpAddr>,
    allows: impl Fn(&Tuple) -> bool,
) -> Result<usize, Error> {
    let mut forbidden: Vec<Entry> = Vec::new();
    let concerns =
        |tuple: &Tuple| addresses.contains(&tuple.source) || addresses.contains(&tuple.destination);
    for filter in filters(addresses) {
        table.walk(&filter, |entry| {
            if concerns(&entry.original) && !allows(&entry.original) {
                forbidden.push(entry);
            }
        })?;
    }
    table.delete(&forbidden)
}

fn filters(addresses: &BTreeSet<IpAddr>) -> Vec<Filter> {
    if addresses.len() > FEW {
        return vec![Filter::default()];
    }
    let of_address = |address: &IpAddr| {
        [Place::OriginalSource, Place::OriginalDestination].map(|place| Filter {
            address: Some((place, *address)),
            ..Filter::default()
        })
    };
    addresses.iter().flat_map(of_address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_addresses_are_found_in_one_walk() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(filters(&(0..3).map(address).collect()).len(), 6);
        assert_eq!(
            filters(&(0..200).map(address).collect()),
            [Filter::default()]
        );
    }
}
