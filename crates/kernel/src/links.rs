//! The links of a namespace as they are, with their counters: for status, metrics and discovery.

use hextet_model::state::Netns;

use crate::{
    error::Error,
    netlink::{Batch, Socket},
    netns::Handle,
    route::link,
};

pub use crate::route::link::{Found, Stats};

/// Looks at one namespace's links.
#[derive(Debug)]
pub struct Links(Socket);

impl Links {
    /// Opens a view; `Main` is the namespace of the calling thread.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        let open = || Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink");
        match netns {
            Netns::Main => open().map(Links),
            Netns::Named(_) => Handle::open(netns)?.run(open)?.map(Links),
        }
    }

    /// All links. Counters cost about as much again, so say whether you want them.
    pub fn list(&mut self, with_stats: bool) -> Result<Vec<Found>, Error> {
        let mut request = Batch::default();
        link::request_all(&mut request, with_stats);
        self.0.dump(&mut request, link::read)
    }
}
