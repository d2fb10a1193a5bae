//! Sites that can't hear each other, for a time.

use std::net::IpAddr;

use anyhow::Result;
use hextet_lab::Node;

use super::member::Member;

/// The internet has no way between two sites while this is there.
pub struct Wall<'a> {
    internet: &'a Node,
}

impl<'a> Wall<'a> {
    /// Between two members; there is one wall at a time.
    ///
    /// # Errors
    ///
    /// `nft` does not take it.
    pub fn between(internet: &'a Node, one: &Member, other: &Member) -> Result<Wall<'a>> {
        let rules: Vec<String> = pairs(&one.outside, &other.outside)
            .chain(pairs(&other.outside, &one.outside))
            .map(|(from, to, family)| {
                format!("{family} saddr {from} {family} daddr {to} counter drop;")
            })
            .collect();
        internet.run(&[
            "nft",
            &format!(
                "table inet wall {{ chain c {{ type filter hook forward priority 0; {} }}; }}",
                rules.join(" ")
            ),
        ])?;
        Ok(Wall { internet })
    }
}

impl Drop for Wall<'_> {
    fn drop(&mut self) {
        drop(
            self.internet
                .run(&["nft", "delete", "table", "inet", "wall"]),
        );
    }
}

/// All pairs of the same family.
fn pairs<'a>(
    from: &'a [IpAddr],
    to: &'a [IpAddr],
) -> impl Iterator<Item = (IpAddr, IpAddr, &'static str)> + 'a {
    let all = from
        .iter()
        .flat_map(|from| to.iter().map(|to| (*from, *to)));
    all.filter(|(from, to)| from.is_ipv4() == to.is_ipv4())
        .map(|(from, to)| (from, to, if from.is_ipv4() { "ip" } else { "ip6" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_is_between_addresses_of_one_family() {
        let p1: [IpAddr; 2] = [
            [192, 0, 2, 10].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
        ];
        let n1: [IpAddr; 1] = [[198, 51, 100, 2].into()];
        assert_eq!(pairs(&p1, &n1).collect::<Vec<_>>(), [(p1[0], n1[0], "ip")]);
        assert_eq!(pairs(&p1, &p1).count(), 2);
    }
}
