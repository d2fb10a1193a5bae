//! What answers router solicitations and DHCP on a host's ports: the packet socket and the engine that an
//! agent has, driven when a test says so. So it can be late as often as a test wants it to be.

use std::collections::HashMap;

use hextet_autoconf::{Action, Duid, Event, PortKey, Responder as Engine};
use hextet_kernel::packet::PacketSocket;
use hextet_model::state::marks;
use hextet_types::Time;
use nix::net::if_::if_nametoindex;

use crate::{defence::Defence, hypervisor::Hypervisor};

/// The answering part of an agent.
pub struct Responder {
    engine: Engine,
    socket: PacketSocket,
    configs: HashMap<PortKey, hextet_autoconf::PortConfig>,
    unlimited: bool,
    now: Time,
}

impl Responder {
    /// For all ports of a host, in the namespace of the calling thread. From now on questions wait for it.
    pub fn new(host: &Hypervisor) -> Responder {
        let state = host.planner().state();
        let unlimited = host.lacks(Defence::RequestLimit);
        let open = match unlimited {
            true => PacketSocket::unlimited,
            false => PacketSocket::open,
        };
        let socket = open(marks::ADMITTED).expect("a packet socket");
        let keyed = |responder: &hextet_model::state::Responder| {
            let index = if_nametoindex(responder.link.as_str()).ok()?;
            Some((PortKey(u64::from(index)), responder.config.clone()))
        };
        let configs: HashMap<_, _> = state.responders.values().filter_map(keyed).collect();
        let server = Duid::link_layer(hextet_types::Mac::new([2, 0x68, 0x78, 0, 0, 1]));
        let mut responder = Responder {
            engine: Engine::new(1, server),
            socket,
            configs,
            unlimited,
            now: Time::from_secs(1000),
        };
        let keys: Vec<PortKey> = responder.configs.keys().copied().collect();
        keys.into_iter().for_each(|key| responder.configure(key));
        responder
    }

    /// Makes a port's configuration known, and what it has been answered forgotten.
    fn configure(&mut self, key: PortKey) {
        let Some(config) = self.configs.get(&key) else {
            return;
        };
        self.engine.remove_port(key);
        let set = self.engine.set_port(key, config.clone(), self.now);
        set.expect("what a planner says can be used");
    }

    /// Answers all that waits. No time passes.
    pub fn answer(&mut self) {
        let mut frame = [0; 2048];
        while let Ok((index, len)) = self.socket.recv(&mut frame) {
            let port = PortKey(u64::from(index));
            if self.unlimited {
                self.configure(port);
            }
            let bytes = &frame[..len];
            let actions = self.engine.handle(Event::Frame { port, bytes }, self.now);
            for Action::Send { port, frame } in actions {
                let index = u32::try_from(port.0).expect("an index");
                self.socket.send(index, &frame).expect("it is admitted");
            }
        }
    }
}
