//! The kernel puts a datagram's fragments together by its addresses and number, whichever ports they have come from: so
//! that of a neighbour could be finished by somebody else.

use hextet_tests::{
    defence::Defence,
    packet::{Ends, Ip, MARKER, fragments, udp},
};
use hextet_types::Family;

use crate::{
    case::Attack,
    world::{OPEN, World},
};

const GROUP: &str = "fragments";
/// Sources are checked before, of each fragment.
pub const WITHOUT: &[Defence] = &[Defence::EachFragment];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    Family::BOTH.into_iter().flat_map(of_family).collect()
}

/// A datagram to the open port in two fragments, of which the second carries the marker.
pub fn halves(ends: Ends) -> [Vec<u8>; 2] {
    let body = [&[0; 8][..], MARKER].concat();
    let datagram = udp(ends, 4000, OPEN, &body);
    let both = fragments(&Ip::default(), ends, &datagram, &[(0, 16), (16, 64)]);
    both.try_into().expect("two of them")
}

fn of_family(family: Family) -> [Attack; 2] {
    let attack = |name, forged_first: bool| {
        Attack::new(GROUP, name, family, WITHOUT, move |world: &mut World| {
            let ends = Ends::new(world.bystander(family), world.victim(family));
            let [first, rest] = halves(ends);
            let forged = world.frame(&rest);
            if forged_first {
                world.send(&forged);
            }
            world.send_as(world.cast.bystander, &first);
            if !forged_first {
                world.send(&forged);
            }
            world.victim_is_hit()
        })
    };
    [
        attack("the end of another port's datagram", false),
        attack("the end of another port's datagram, ahead of it", true),
    ]
}
