//! How a resource is described. Everything that handles it in general reads this.

/// Who may read or set something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Only the server itself.
    Nobody,
    /// Callers with the role `admin`.
    Admin,
    /// Besides, the owner of the network that it is on.
    NetworkOwner,
    /// Besides, members of the project that owns it.
    Owner,
    /// Whoever sees the resource.
    Anyone,
}

/// The type of an attribute, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text of at most so many characters.
    Text(usize),
    /// Text of printable characters, without space at its ends, of at most so many.
    Name(usize),
    /// A host's or a domain's name of at most so many characters, or empty.
    Domain(usize),
    /// True or false; also as `"true"`, `"0"` and so on.
    Bool,
    /// A whole number between these, both included; also as text.
    Int(i64, i64),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A project's identifier: at most 64 letters, digits, `-`, `_` and `.`; empty for the cloud.
    Project,
    /// An identifier.
    Uuid,
    /// Identifiers, each once.
    Uuids,
    /// An Ethernet address.
    Mac,
    /// An address of either family.
    Ip,
    /// A prefix; bits behind its length are cleared.
    Cidr,
    /// Addresses, each once (name servers).
    Addresses,
    /// `destination` and `nexthop`, each pair once.
    HostRoutes,
    /// Prefixes, each once.
    Prefixes,
    /// The length of a prefix: a whole number, shown as text.
    Length,
    /// Prefixes of `device_owner`, each once.
    ServiceTypes,
    /// `start` and `end`.
    Pools,
    /// `subnet_id`, `ip_address`, or both.
    FixedIps,
    /// `ip_address` and perhaps `mac_address`.
    AddressPairs,
    /// `opt_name`, `opt_value` and perhaps `ip_version`.
    DhcpOptions,
    /// An IP protocol by name or number, which is kept; `any` is null.
    Protocol,
    /// A prefix, or an address for its host prefix; bits behind its length are kept. Empty is null.
    WrittenPrefix,
    /// `IPv4` or `IPv6`, in any case.
    Ethertype,
    /// 0 to 65535: a port, or an ICMP type or code.
    PortNumber,
    /// Ports as `80` or `80:90`, none of them 0.
    PortRange,
    /// NAT44 of a subnet.
    Nat44,
    /// `prefixlen` of what ports get of a subnet, and whether it is `preferred`.
    Delegation,
    /// What a workload is told of itself.
    Metadata,
    /// `protocol`, `external_port` and perhaps `internal_port`, several.
    Exposed,
    /// `network_id`, and perhaps `enable_snat` and `external_fixed_ips`; `{}` is null.
    Gateway,
    /// Several of those.
    Gateways,
    /// At most 50 texts of at most 255 characters, each once.
    Tags,
    /// Texts of at most 255 characters, each once.
    Texts,
    /// Any JSON object.
    Object,
    /// Any list; only for what is shown.
    List,
    /// A moment, as `2026-01-31T12:00:00Z`; only for what is shown.
    Moment,
}

/// What a new resource has when a request does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// The request must say.
    Required,
    /// The server chooses.
    Chosen,
    /// `null`.
    Null,
    /// This.
    Bool(bool),
    /// This.
    Text(&'static str),
    /// This.
    Int(i64),
    /// `[]`.
    EmptyList,
    /// `{}`.
    EmptyObject,
}

/// One attribute of a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute {
    /// As it is written in JSON.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether `null` is a value, too.
    pub nullable: bool,
    /// Who may read it.
    pub read: Access,
    /// Who may set it in a POST.
    pub post: Access,
    /// Who may set it in a PUT.
    pub put: Access,
    /// What it is when a POST does not set it.
    pub default: Default,
    /// Whether lists can be filtered by it.
    pub filter: bool,
    /// Whether lists can be sorted by it.
    pub sort: bool,
}

impl Attribute {
    const fn new(name: &'static str, kind: Kind) -> Self {
        let scalar = !matches!(
            kind,
            Kind::Uuids
                | Kind::Addresses
                | Kind::HostRoutes
                | Kind::Prefixes
                | Kind::ServiceTypes
                | Kind::Pools
                | Kind::FixedIps
                | Kind::AddressPairs
                | Kind::DhcpOptions
                | Kind::Nat44
                | Kind::Delegation
                | Kind::Metadata
                | Kind::Exposed
                | Kind::Gateway
                | Kind::Gateways
                | Kind::Tags
                | Kind::Texts
                | Kind::Object
                | Kind::List
        );
        Attribute {
            name,
            kind,
            nullable: false,
            read: Access::Anyone,
            post: Access::Nobody,
            put: Access::Nobody,
            default: Default::Chosen,
            filter: scalar,
            sort: scalar,
        }
    }

    /// Set by the server alone.
    pub const fn shown(name: &'static str, kind: Kind) -> Self {
        Self::new(name, kind)
    }

    /// Named in each POST, and fixed from then on.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        let mut a = Self::new(name, kind);
        a.post = Access::Owner;
        a.default = Default::Required;
        a
    }

    /// Named in a POST or not, and open to PUT.
    pub const fn optional(name: &'static str, kind: Kind, default: Default) -> Self {
        let mut a = Self::new(name, kind);
        a.post = Access::Owner;
        a.put = Access::Owner;
        a.nullable = matches!(default, Default::Null);
        a.default = default;
        a
    }

    /// `null` is a value, too.
    pub const fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Only these may set it; where nobody may, this changes nothing.
    pub const fn set_by(mut self, access: Access) -> Self {
        if !matches!(self.post, Access::Nobody) {
            self.post = access;
        }
        if !matches!(self.put, Access::Nobody) {
            self.put = access;
        }
        self
    }

    /// Fixed once it is made.
    pub const fn fixed(mut self) -> Self {
        self.put = Access::Nobody;
        self
    }

    /// Only these may read it.
    pub const fn read_by(mut self, access: Access) -> Self {
        self.read = access;
        self
    }

    /// Lists can be filtered by it although it is no plain value.
    pub const fn filtered(mut self) -> Self {
        self.filter = true;
        self
    }

    /// Lists can be neither filtered nor sorted by it.
    pub const fn unlisted(mut self) -> Self {
        self.filter = false;
        self.sort = false;
        self
    }
}

/// How many of a resource a project may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The name in `/v2.0/quotas`.
    pub name: &'static str,
    /// Where an administrator has not said otherwise; -1 for no limit.
    pub default: i64,
}

/// What can be done, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// Who may list and show.
    pub read: Access,
    /// Who may create.
    pub create: Access,
    /// Who may update.
    pub update: Access,
    /// Who may delete.
    pub delete: Access,
}

impl Operations {
    /// Everything, by the owner.
    pub const OWNER: Operations = Operations {
        read: Access::Owner,
        create: Access::Owner,
        update: Access::Owner,
        delete: Access::Owner,
    };
}

/// A resource of the networking API.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// One of it: `security_group`.
    pub name: &'static str,
    /// Many of it: `security_groups`.
    pub collection: &'static str,
    /// Its path behind `/v2.0/`: `security-groups`; what it is part of stands in braces.
    pub path: &'static str,
    /// One sentence about it.
    pub summary: &'static str,
    /// Attributes that it shares with others.
    pub standard: &'static [Attribute],
    /// Attributes of its own.
    pub attributes: &'static [Attribute],
    /// What can be done with it.
    pub operations: Operations,
    /// Whether a POST may bring many, and whether each can have tags.
    pub tagged: bool,
    /// Its quota, if it has one.
    pub quota: Option<Quota>,
    /// The error for one that is not there: type, and the message around its identifier.
    pub not_found: (&'static str, &'static str, &'static str),
    /// Extensions that stand when it does.
    pub aliases: &'static [&'static str],
}

/// A PUT that is more than a change of attributes.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Of this resource.
    pub resource: &'static Resource,
    /// Its path behind `/v2.0/`, with `{id}` for the resource's identifier.
    pub path: &'static str,
    /// One sentence about it.
    pub summary: &'static str,
    /// What its body holds: names, and JSON's types.
    pub body: &'static [(&'static str, &'static str)],
}

impl Resource {
    /// All its attributes.
    pub fn all_attributes(&self) -> impl Iterator<Item = &'static Attribute> + use<> {
        self.standard.iter().chain(self.attributes)
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.all_attributes().find(|a| a.name == name)
    }

    /// The error for one that is not there, or that the caller does not see.
    pub fn missing(&self, id: impl std::fmt::Display) -> crate::ApiError {
        let (kind, before, after) = self.not_found;
        crate::ApiError::new(404, kind, format!("{before}{id}{after}"))
    }
}
