//! The numbers that the main namespace has for others (`nsid`): by these the kernel tells where something changed,
//! to a socket that hears of all namespaces.
//!
//! A number is given to another namespace once its own is gone; each namespace that we look into is asked anew.

use std::collections::BTreeMap;

use hextet_model::state::Netns;

use super::{Kernel, Namespace};
use crate::{
    error::Error,
    netlink::{Batch, Everywhere},
    route::made,
};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    known: BTreeMap<i32, Netns>,
    /// Who hears of all namespaces once there are such.
    ears: Option<Everywhere>,
    is_heard: bool,
}

impl Kernel {
    /// From the first namespace on that we make or look into, this hears of all.
    pub fn hear_everywhere(&mut self, ears: Everywhere) {
        self.numbers.ears = Some(ears);
    }

    /// The namespace of that number, as far as we have looked into it; what is told of any other is not our
    /// business.
    pub fn numbered(&self, number: i32) -> Option<&Netns> {
        self.numbers.known.get(&number)
    }

    /// It is gone, and its number may be another's.
    pub(super) fn forget_number(&mut self, netns: &Netns) {
        self.numbers.known.retain(|_, of| of != netns);
    }

    /// Gives it a number, where it has none yet.
    pub(super) fn learn_number(
        &mut self,
        netns: &Netns,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        if self.onlooks || *netns == Netns::Main {
            return Ok(());
        }
        let Some(main) = self.namespaces.get_mut(&Netns::Main) else {
            return Ok(());
        };
        for _ in 0..2 {
            let mut request = Batch::default();
            made::request_nsid(&mut request, namespace.handle.fd());
            let mut number = None;
            main.route.query(&mut request, |_, answer| {
                number = made::read_nsid(answer).or(number);
            })?;
            if let Some(number) = number {
                self.numbers.known.retain(|_, of| of != netns);
                self.numbers.known.insert(number, netns.clone());
                break;
            }
            let mut request = Batch::default();
            made::give_nsid(&mut request, namespace.handle.fd());
            main.route.request(&mut request)?;
        }
        if let (Some(ears), false) = (&self.numbers.ears, self.numbers.is_heard) {
            ears.open()?;
            self.numbers.is_heard = true;
        }
        Ok(())
    }
}
