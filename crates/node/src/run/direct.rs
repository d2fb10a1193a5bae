//! Direct routes: what is asked by them, and what the mesh takes over.

use tracing::info;

use super::Runner;
use crate::direct::{Action, echo::Reply};

impl Runner {
    pub(super) fn look_for_direct(&mut self) {
        let found = self.ways.direct();
        let actions = self.direct.found(&found, self.clock.now());
        self.do_direct(actions);
        self.echo
            .keep(|link| found.iter().any(|route| route.link == link));
    }

    pub(super) fn ask_direct(&mut self) {
        let actions = self.direct.wake(self.clock.now());
        self.do_direct(actions);
    }

    pub(super) fn direct_answers(&mut self, reply: Reply) {
        let Reply { link, from, number } = reply;
        let actions = self.direct.answered(link, from, number, self.clock.now());
        self.do_direct(actions);
    }

    fn do_direct(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask {
                    link,
                    target,
                    number,
                } => self.echo.ask(link, target, number),
                Action::TakeOver { to, way, link } => {
                    info!(%to, "a direct route has failed: the mesh takes over");
                    self.ways.take_over(to, Some((way, link)));
                }
                Action::GiveBack { to } => {
                    info!(%to, "a direct route is good again, or gone");
                    self.ways.take_over(to, None);
                }
            }
        }
    }
}
