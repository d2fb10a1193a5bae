//! What can be found.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, and may not always.
    Warning,
    /// Something does not work.
    Fault,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Somebody else has an address of this host (RFC 4862 §5.4).
    DuplicateAddress,
    /// Two routers say different things of the same link (RFC 4861 §6.2.7).
    TwoRoutersDisagree,
    /// What a router says can't be followed.
    WrongFlags,
    /// The host waits for a router that nobody hears.
    NoRouterAdvertisement,
    /// Nobody answers for an address that is on the link.
    SilentProxy,
    /// Somebody's rules drop what IPv6 can't do without (RFC 4890).
    FilteredIcmpv6,
    /// Large packets vanish without a word (RFC 8201).
    MtuHole,
    /// The host forwards, and forgets what routers said.
    ForwardingWithAcceptRa,
    /// Somebody's rules drop what workloads send or get.
    ForeignFirewall,
    /// The host drops what comes by another way than it would answer (RFC 3704).
    RpFilter,
    /// There is hardly any room for more neighbours.
    GcThresh,
}

impl Code {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::DuplicateAddress => "duplicate-address",
            Code::TwoRoutersDisagree => "two-routers-disagree",
            Code::WrongFlags => "wrong-flags",
            Code::NoRouterAdvertisement => "no-router-advertisement",
            Code::SilentProxy => "silent-proxy",
            Code::FilteredIcmpv6 => "filtered-icmpv6",
            Code::MtuHole => "mtu-hole",
            Code::ForwardingWithAcceptRa => "forwarding-with-accept-ra",
            Code::ForeignFirewall => "foreign-firewall",
            Code::RpFilter => "rp-filter",
            Code::GcThresh => "gc-thresh",
        }
    }
}

/// A thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Of whom: a link, an address, a rule set.
    pub subject: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn fault(code: Code, subject: impl ToString) -> Finding {
        Finding {
            code,
            severity: Severity::Fault,
            subject: subject.to_string(),
            evidence: String::new(),
            remedy: String::new(),
        }
    }

    pub(crate) fn warning(code: Code, subject: impl ToString) -> Finding {
        Finding {
            severity: Severity::Warning,
            ..Finding::fault(code, subject)
        }
    }

    pub(crate) fn seen(mut self, evidence: impl Into<String>) -> Finding {
        self.evidence = evidence.into();
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = remedy.into();
        self
    }
}
