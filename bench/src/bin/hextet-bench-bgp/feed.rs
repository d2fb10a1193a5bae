//! The routes that are fed: the same each time, so that who is fed has the same work.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use hextet_bgp::{
    packet::{
        AsPath, Community, Encoding, NextHop, PathAttributes, encode_end_of_rib, encode_reach,
    },
    speaker::READ_SIZE,
};
use hextet_types::{Asn, Family, Prefix};

use crate::{
    contest::{FEEDER_IPV4, FEEDER_IPV6},
    roles::FEEDER,
};

/// Prefixes of IPv4, each a /24.
pub const IPV4: u32 = 800_000;
/// Prefixes of IPv6, each a /48.
pub const IPV6: u32 = 200_000;
/// All prefixes.
pub const ROUTES: usize = (IPV4 + IPV6) as usize;

/// The feed in pieces of a few messages; on average five prefixes have one set of attributes.
pub struct Feed {
    random: u64,
    next: u32,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { random: 1, next: 0 }
    }
}

impl Feed {
    fn random(&mut self, below: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.random >> 33) % u64::from(below)).unwrap_or(0)
    }

    fn attributes(&mut self, family: Family) -> PathAttributes {
        let mut attributes = PathAttributes::new(match family {
            Family::V4 => NextHop::V4(FEEDER_IPV4),
            Family::V6 => NextHop::from_addr(FEEDER_IPV6.into()),
        });
        let hops = 2 + self.random(5);
        let mut path = vec![FEEDER];
        path.extend((0..hops).map(|_| Asn(1 + self.random(60_000))));
        attributes.as_path = AsPath::sequence(&path);
        attributes.med = Some(self.random(10));
        let communities = 1 + self.random(8);
        attributes.communities = (0..communities)
            .map(|_| Community(self.random(u32::MAX)))
            .collect();
        attributes
    }

    /// Appends the next messages; returns whether there were any.
    pub fn next(&mut self, octets: &mut Vec<u8>) -> Result<bool> {
        let encoding = Encoding {
            four_octet_as: true,
            extended: false,
        };
        while octets.len() < READ_SIZE - 4096 && self.next < IPV4 + IPV6 {
            let (family, end) = if self.next < IPV4 {
                (Family::V4, IPV4)
            } else {
                (Family::V6, IPV4 + IPV6)
            };
            let count = (1 + self.random(9)).min(end - self.next);
            let prefixes = (self.next..self.next + count)
                .map(prefix)
                .collect::<Result<Vec<_>>>()?;
            self.next += count;
            let attributes = self.attributes(family);
            encode_reach(octets, encoding, family, &attributes, &prefixes)?;
        }
        if self.next == IPV4 + IPV6 {
            self.next += 1;
            encode_end_of_rib(octets, Family::V4);
            encode_end_of_rib(octets, Family::V6);
        }
        Ok(!octets.is_empty())
    }
}

fn prefix(number: u32) -> Result<Prefix> {
    let made = if number < IPV4 {
        Prefix::new(Ipv4Addr::from((number + 0x1_0000) << 8).into(), 24)
    } else {
        let bits = 0x2a00_u128 << 112 | u128::from(number) << 80;
        Prefix::new(Ipv6Addr::from(bits).into(), 48)
    };
    Ok(made?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_prefixes_differ() {
        let all: HashSet<Prefix> = (0..IPV4 + IPV6).map(|n| prefix(n).unwrap()).collect();
        assert_eq!(all.len(), ROUTES);
    }

    #[test]
    fn it_is_the_same_each_time() {
        let (mut one, mut other) = (Feed::default(), Feed::default());
        for _ in 0..10 {
            let (mut octets, mut others) = (Vec::new(), Vec::new());
            assert!(one.next(&mut octets).unwrap());
            assert!(other.next(&mut others).unwrap());
            assert_eq!(octets, others);
        }
    }
}
