//! TAPs as OpenStack Nova makes them for servers' ports: persistent, up, and nobody has opened them.

use hextet_types::{IfName, Mac};

use crate::{Error, Node};

impl Node {
    /// Makes one with that Ethernet address and MTU, as Nova 34 does (`plug_tap` in `nova/virt/libvirt/vif.py`): what is
    /// there is taken as it is.
    ///
    /// # Errors
    ///
    /// It can't be made.
    pub fn plug(&self, tap: &IfName, mac: Mac, mtu: u16) -> Result<(), Error> {
        let (name, mac, mtu) = (tap.as_str(), mac.to_string(), mtu.to_string());
        if !self.has_link(tap)? {
            self.run(&["ip", "tuntap", "add", name, "mode", "tap"])?;
            self.run(&["ip", "link", "set", name, "address", &mac])?;
            self.run(&["ip", "link", "set", name, "up"])?;
        }
        self.run(&["ip", "link", "set", name, "mtu", &mtu])
            .map(drop)
    }

    /// Deletes one, as Nova does; whether there was one.
    ///
    /// # Errors
    ///
    /// It can't be deleted.
    pub fn unplug(&self, tap: &IfName) -> Result<bool, Error> {
        let there = self.has_link(tap)?;
        if there {
            self.run(&["ip", "link", "del", tap.as_str()])?;
        }
        Ok(there)
    }

    fn has_link(&self, link: &IfName) -> Result<bool, Error> {
        let shown = self.output(&["ip", "link", "show", "dev", link.as_str()])?;
        Ok(shown.status.success())
    }
}
