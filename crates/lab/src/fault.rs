//! Faults on a link: dead silence, or the loss of some packets, with the link looking fine.
//!
//! Both ends drop what arrives, by a table of their own at the ingress hook, so what the node itself does
//! with its rules neither sees nor undoes it.

use crate::{Error, Lab, node::succeed};

/// What a link does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Drops every packet in both directions; the carrier stays.
    Silence,
    /// Drops so many of a hundred packets, by chance, in each direction.
    Loss(u8),
}

impl Lab {
    /// Breaks a link, given by one of its ends; a fault that it already has is replaced.
    ///
    /// # Errors
    ///
    /// The lab has no such link, or `nft` refuses.
    pub fn break_link(&self, node: &str, dev: &str, fault: Fault) -> Result<(), Error> {
        let verdict = match fault {
            Fault::Silence => "drop".to_owned(),
            Fault::Loss(percent) => format!("numgen random mod 100 < {} drop", percent.min(100)),
        };
        self.at_both_ends(node, dev, |dev| {
            format!(
                "table netdev {table} {{}}; delete table netdev {table}; table netdev {table} {{ chain c {{ \
                 type filter hook ingress device \"{dev}\" priority -500; {verdict}; }}; }}",
                table = table(dev)
            )
        })
    }

    /// Mends a link; one that is whole stays so.
    ///
    /// # Errors
    ///
    /// The lab has no such link, or `nft` refuses.
    pub fn mend_link(&self, node: &str, dev: &str) -> Result<(), Error> {
        self.at_both_ends(node, dev, |dev| {
            format!(
                "table netdev {table} {{}}; delete table netdev {table}",
                table = table(dev)
            )
        })
    }

    fn at_both_ends(
        &self,
        node: &str,
        dev: &str,
        rules: impl Fn(&str) -> String,
    ) -> Result<(), Error> {
        let Some((near, far)) = self.file().link_of(node, dev) else {
            let ends = self.file().links.iter().flat_map(|link| [&link.a, &link.b]);
            let known = ends.map(|end| format!("{} {}", end.node.get_ref(), end.dev.get_ref()));
            return Err(self.unknown("link", &format!("{node} {dev}"), known.collect()));
        };
        for end in [near, far] {
            let node = self.node(end.node.get_ref())?;
            let rules = rules(end.dev.get_ref().as_str());
            let output = node.output(&["nft", &rules]).map_err(no_nft)?;
            succeed(&["nft", &rules], Some(node.name()), output)?;
        }
        Ok(())
    }
}

/// A table for each interface; its name takes fewer characters than an interface's.
fn table(dev: &str) -> String {
    let plain = dev
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    format!("hxlab_{}", plain.collect::<String>())
}

fn no_nft(error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::NoProgram {
                program: "nft".to_owned(),
                package: "nftables",
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_any_interface_name() {
        assert_eq!(table("eth0.7"), "hxlab_eth0_7");
    }
}
