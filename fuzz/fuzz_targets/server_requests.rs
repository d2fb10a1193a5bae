//! Requests of an administrator, by HTTP, to a server that runs: each is answered, and never with 500.
//!
//! What a request made stays, as far as quotas let it.

#![no_main]

use std::{cell::RefCell, sync::LazyLock};

use hextet_fuzz::server::{Asked, Client, Running, start};
use libfuzzer_sys::fuzz_target;

static SERVER: LazyLock<Running> = LazyLock::new(|| start(&[]));

thread_local! {
    static CLIENT: RefCell<Client> = RefCell::new(Client::admin(&SERVER));
}

fuzz_target!(|input: &[u8]| {
    if let Some(asked) = Asked::read(input) {
        CLIENT.with_borrow_mut(|client| drop(client.try_out(&asked)));
    }
});
