//! What a project may try against another that has the same addresses on the same hosts: by its own network, by routers,
//! by tunnels between hosts, and by what they share, the external network and the hosts themselves.

mod apart;
mod case;
mod limits;
mod multicast;
mod outside;
mod setting;
mod shared;
mod tunnels;
mod world;

pub use case::Between;
pub use setting::Setting;
pub use world::World;

use hextet_tests::hypervisor::in_own_namespace;
use hextet_types::Family;

use crate::case::Attack;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let all = [
        apart::attacks(),
        tunnels::attacks(),
        outside::attacks(),
        shared::attacks(),
        limits::attacks(),
        multicast::attacks(),
    ];
    all.into_iter().flatten().collect()
}

/// Whether what no defence is meant to stop gets through, over an underlay of that family: within a network and between
/// hosts, to the outside, and from there.
pub fn honest_packets_get_through(family: Family, underlay: Family) -> Result<(), String> {
    in_own_namespace(|| {
        let mut world = World::new(Setting::new(underlay), &[], true);
        outside::honest(&mut world, family)
    })
}
