use proptest::prelude::*;

use super::*;
use crate::{
    certificate::tests::{any_certificate, certificate},
    key::SigningKey,
    parameters::{RegistryAt, Tunnels},
    rules::Rules,
    signed::Body,
    token::Pin,
};

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: u64 = 86_400;

/// A root with one issuing key.
pub(crate) struct Authority {
    root: SigningKey,
    pub(crate) issuing: SigningKey,
}

impl Authority {
    pub(crate) fn new(seed: u8) -> Self {
        Authority {
            root: SigningKey::from_seed(&[seed; 32]).unwrap(),
            issuing: SigningKey::from_seed(&[seed ^ 0x80; 32]).unwrap(),
        }
    }

    pub(crate) fn network(&self) -> NetworkId {
        NetworkId::of(&self.root.public())
    }

    pub(crate) fn issuers(&self, version: u32, keys: &[&SigningKey]) -> Signed<Issuers> {
        let keys = keys.iter().map(|key| Issuer {
            key: key.public(),
            not_before: UnixTime(NOW.0 - DAY),
            not_after: NOW.plus(DAY),
        });
        let issuers = Issuers::new(self.network(), version, keys.collect()).unwrap();
        Signed::sign(issuers, &self.root)
    }

    pub(crate) fn parameters(&self, version: u64) -> Parameters {
        Parameters {
            network: self.network(),
            version,
            issuers: self.issuers(1, &[&self.issuing]),
            prefix: "2001:db8::/32".parse().unwrap(),
            ipv4: Some("10.0.0.0/8".parse().unwrap()),
            registries: vec![RegistryAt {
                url: "https://[2001:db8::1]:8443".parse().unwrap(),
                pin: Pin([9; 32]),
            }],
            lifetime_secs: 7 * 86_400,
            grace_secs: 3 * 86_400,
            hello_secs: 4,
            tunnels: Tunnels {
                random: 6,
                nearest: 1,
                gain: 2,
                most: 16,
            },
            rules: Rules::default(),
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        let parameters = Signed::sign(self.parameters(1), &self.issuing);
        Trust::new(self.root.public(), parameters).unwrap()
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate {
            network: self.network(),
            not_before: NOW,
            not_after: NOW.plus(7 * DAY),
            ..certificate()
        }
    }

    pub(crate) fn issue(&self, change: impl FnOnce(&mut Certificate)) -> Signed<Certificate> {
        let mut body = self.certificate();
        change(&mut body);
        Signed::sign(body, &self.issuing)
    }

    pub(crate) fn revoke(&self, version: u64, entries: &[(NodeId, u32)]) -> Signed<Revocations> {
        let list = Revocations::new(self.network(), version, entries.to_vec()).unwrap();
        Signed::sign(list, &self.issuing)
    }
}

#[test]
fn every_refusal_has_its_reason() {
    let ours = Authority::new(1);
    let theirs = Authority::new(2);
    let trust = ours.trust();
    let good = ours.issue(|_| ());
    assert_eq!(trust.verify(&good, NOW), Ok(Standing::Current));
    let mut forged = good.clone();
    forged.body.groups.clear();
    let cases = [
        (forged, Refusal::Signature(good.signer)),
        (theirs.issue(|_| ()), Refusal::Network(theirs.network())),
        (
            theirs.issue(|c| c.network = ours.network()),
            Refusal::Signer(theirs.issuing.public().id()),
        ),
        (
            ours.issue(|c| c.not_before = UnixTime(NOW.0 - 2 * DAY)),
            Refusal::IssuerSpan,
        ),
        (
            ours.issue(|c| c.not_before = NOW.plus(SKEW_SECS + 1)),
            Refusal::Early(SKEW_SECS + 1),
        ),
        (
            ours.issue(|c| c.prefixes = vec!["2001:db9::/64".parse().unwrap()]),
            Refusal::Prefix,
        ),
        (
            ours.issue(|c| c.ipv4 = Some("192.0.2.0/24".parse().unwrap())),
            Refusal::Prefix,
        ),
        (ours.issue(|c| c.prefixes.clear()), Refusal::Malformed),
    ];
    for (certificate, reason) in cases {
        assert_eq!(trust.verify(&certificate, NOW), Err(reason));
    }
}

#[test]
fn a_certificate_counts_through_its_grace() {
    let ours = Authority::new(1);
    let trust = ours.trust();
    let certificate = ours.issue(|_| ());
    let end = certificate.body.not_after;
    let grace = 3 * DAY;
    assert_eq!(trust.verify(&certificate, end), Ok(Standing::Current));
    assert_eq!(trust.verify(&certificate, end.plus(1)), Ok(Standing::Grace));
    assert_eq!(
        trust.verify(&certificate, end.plus(grace)),
        Ok(Standing::Grace)
    );
    let late = end.plus(grace + 1);
    assert_eq!(
        trust.verify(&certificate, late),
        Err(Refusal::Late(grace + 1))
    );
    let early = UnixTime(NOW.0 - SKEW_SECS);
    assert_eq!(trust.verify(&certificate, early), Ok(Standing::Current));
}

#[test]
fn a_revoked_node_is_out_and_may_come_back() {
    let ours = Authority::new(1);
    let mut trust = ours.trust();
    let first = ours.issue(|c| c.serial = 4);
    let node = first.body.node;
    let list = ours.revoke(1, &[(node, 4)]);
    assert_eq!(trust.offer_revocations(list.clone()), Ok(true));
    assert_eq!(trust.offer_revocations(list), Ok(false));
    assert_eq!(trust.verify(&first, NOW), Err(Refusal::Revoked(node, 4)));
    let grace = first.body.not_after.plus(1);
    assert_eq!(trust.verify(&first, grace), Err(Refusal::Revoked(node, 4)));
    let next = ours.issue(|c| c.serial = 5);
    assert_eq!(trust.verify(&next, NOW), Ok(Standing::Current));
    assert_eq!(
        trust.offer_revocations(ours.revoke(3, &[(node, 5)])),
        Ok(true)
    );
    assert_eq!(trust.offer_revocations(ours.revoke(2, &[])), Ok(false));
    assert!(trust.verify(&next, NOW).is_err());
    let forged = Signed {
        signer: ours.issuing.public().id(),
        ..Authority::new(2).revoke(9, &[])
    };
    assert!(trust.offer_revocations(forged).is_err());
    let mut forged = ours.revoke(9, &[]);
    forged.body.version = 10;
    assert_eq!(
        trust.offer_revocations(forged),
        Err(Refusal::Signature(ours.issuing.public().id()))
    );
}

#[test]
fn a_key_that_is_out_can_not_come_back() {
    let ours = Authority::new(1);
    let mut trust = ours.trust();
    let next = SigningKey::from_seed(&[77; 32]).unwrap();
    let certificate = ours.issue(|_| ());
    let both = Parameters {
        issuers: ours.issuers(2, &[&ours.issuing, &next]),
        ..ours.parameters(2)
    };
    assert_eq!(trust.offer_parameters(Signed::sign(both, &next)), Ok(true));
    assert_eq!(trust.verify(&certificate, NOW), Ok(Standing::Current));
    let alone = Parameters {
        issuers: ours.issuers(3, &[&next]),
        ..ours.parameters(3)
    };
    assert_eq!(trust.offer_parameters(Signed::sign(alone, &next)), Ok(true));
    let out = Refusal::Signer(ours.issuing.public().id());
    assert_eq!(trust.verify(&certificate, NOW), Err(out));
    let back = Signed::sign(ours.parameters(u64::MAX), &ours.issuing);
    assert_eq!(trust.offer_parameters(back), Ok(false));
    assert_eq!(trust.parameters().body.version, 3);
}

#[test]
fn parameters_are_by_who_the_root_names() {
    let ours = Authority::new(1);
    let theirs = Authority::new(2);
    let root = ours.root.public();
    let of = |parameters, key| Trust::new(root, Signed::sign(parameters, key)).map(drop);
    assert_eq!(of(ours.parameters(1), &ours.issuing), Ok(()));
    let stranger = theirs.issuing.public().id();
    assert_eq!(
        of(ours.parameters(1), &theirs.issuing),
        Err(Refusal::Signer(stranger))
    );
    let network = Refusal::Network(theirs.network());
    assert_eq!(of(theirs.parameters(1), &theirs.issuing), Err(network));
    let mut own = ours.parameters(1);
    let set = Issuers::new(
        ours.network(),
        9,
        theirs.parameters(1).issuers.body.keys().to_vec(),
    );
    own.issuers = Signed::sign(set.unwrap(), &theirs.root);
    assert_eq!(of(own, &theirs.issuing), Err(Refusal::Issuers));
}

proptest! {
    /// Whatever order parameters and lists come in, all nodes end with the same.
    #[test]
    fn order_does_not_matter(versions in proptest::collection::vec((1u32..4, 1u64..4, 1u64..4, 4u16..6), 1..8)) {
        let ours = Authority::new(1);
        let offers: Vec<_> = versions.iter().map(|&(issuers, version, list, hello_secs)| {
            let parameters = Parameters {
                issuers: ours.issuers(issuers, &[&ours.issuing]),
                hello_secs,
                ..ours.parameters(version)
            };
            (Signed::sign(parameters, &ours.issuing), ours.revoke(list, &[(NodeId(list), u32::from(hello_secs))]))
        }).collect();
        let told = |offers: &mut dyn Iterator<Item = &(Signed<Parameters>, Signed<Revocations>)>| {
            let mut trust = ours.trust();
            for (parameters, list) in offers {
                trust.offer_parameters(parameters.clone()).unwrap();
                trust.offer_revocations(list.clone()).unwrap();
            }
            let lists: Vec<_> = trust.revocations().cloned().collect();
            (trust.parameters().clone(), lists)
        };
        prop_assert_eq!(told(&mut offers.iter()), told(&mut offers.iter().rev()));
    }

    /// No octet of a certificate can be changed.
    #[test]
    fn no_change_survives(body in any_certificate(), at: proptest::sample::Index, with in 1u8..) {
        let ours = Authority::new(1);
        let trust = ours.trust();
        let issued = Signed::sign(Certificate { network: ours.network(), not_before: NOW, not_after: NOW.plus(DAY), ..body }, &ours.issuing);
        let mut octets = issued.encode();
        prop_assert!(octets.len() <= Certificate::MAX_LEN);
        let at = at.index(octets.len());
        octets[at] ^= with;
        if let Ok(changed) = Signed::decode(&octets) {
            prop_assert!(trust.verify(&changed, NOW).is_err());
        }
    }
}
