//! What the state sees happen to ports, for those who have to be told of it.

use std::sync::Arc;

use hextet_model::neutron::{FloatingIp, Port};
use hextet_types::HostId;

use super::{State, bindings::migrating_to};

/// Something that has happened to a port.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The port, as it was last.
    pub port: Arc<Port>,
    /// What.
    pub what: What,
}

/// What has happened to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is gone.
    Deleted,
    /// It has other addresses, or other floating IPs.
    Readdressed,
    /// A binding of it is gone: it may live on that host no longer.
    Left(HostId),
    /// It is being migrated to that host, and whoever does so waits there for its interface.
    Awaited(HostId),
}

impl State {
    /// What has happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// A port changes or goes.
    pub(super) fn notice_port(&mut self, old: Option<&Arc<Port>>, new: Option<&Arc<Port>>) {
        let host = |port: &Arc<Port>| port.binding.host_id.clone();
        if let (Some(old), Some(new)) = (old, new)
            && let Some(left) = host(old).filter(|left| host(new).as_ref() != Some(left))
        {
            self.notice_left(new, left);
        }
        if let Some(new) = new
            && let Some(to) = migrating_to(new)
            && old.is_none_or(|old| migrating_to(old) != Some(to))
            && let Ok(to) = to.parse()
        {
            self.notices.push(Notice {
                port: Arc::clone(new),
                what: What::Awaited(to),
            });
        }
        let what = match (old, new) {
            (Some(_), None) => What::Deleted,
            (Some(old), Some(new)) if old.fixed_ips != new.fixed_ips => What::Readdressed,
            _ => return,
        };
        let port = new.or(old).filter(|port| !port.device_id.is_empty());
        self.notices.extend(port.map(|port| Notice {
            port: Arc::clone(port),
            what,
        }));
    }

    /// A port has lost a binding on a host.
    pub(super) fn notice_left(&mut self, port: &Arc<Port>, host: HostId) {
        self.notices.push(Notice {
            port: Arc::clone(port),
            what: What::Left(host),
        });
    }

    /// A floating IP comes, changes or goes: of the port that it stood for, and of that which it stands for.
    pub(super) fn notice_floating_ip(
        &mut self,
        old: Option<&FloatingIp>,
        new: Option<&FloatingIp>,
    ) {
        let inside = |ip: Option<&FloatingIp>| ip.and_then(|ip| ip.port_id);
        let (old, new) = (inside(old), inside(new));
        if old == new {
            return;
        }
        for id in [old, new].into_iter().flatten() {
            let port = self.ports.get(&id);
            let port = port.filter(|port| port.binding.host_id.is_some()).cloned();
            self.notices.extend(port.map(|port| Notice {
                port,
                what: What::Readdressed,
            }));
        }
    }
}
