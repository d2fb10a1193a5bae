//! Registries over real HTTPS on loopback, with real stores in files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bench;
mod doors;
mod mail;
mod memory;
mod presence;
mod sisters;

/// A registry in a process of its own, to be killed: started by `memory`, with its configuration's path in the environment.
#[test]
#[ignore = "runs until it is killed"]
fn a_registry_to_be_killed() {
    let path = std::env::var_os("REGISTRY_CONFIG").expect("the configuration's path");
    let config = hextet_registry::config::Config::load(path.as_ref()).unwrap();
    bench::block_on(async {
        let registry = hextet_registry::Registry::open(&config).await.unwrap();
        registry.run(std::future::pending()).await;
    });
}
