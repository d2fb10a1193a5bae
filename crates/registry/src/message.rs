//! What a registry and its clients say to each other, as JSON around signed octets.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hextet_mesh::{
    certificate::Class,
    label::Label,
    signed::{Body, Malformed, Signed},
};
use hextet_types::Way;
use serde::{Deserialize, Serialize};

use crate::rules::RulesShown;

/// Octets, as text in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blob(pub Vec<u8>);

impl Blob {
    /// Of something signed.
    pub fn of<B: Body>(signed: &Signed<B>) -> Self {
        Blob(signed.encode())
    }

    /// Reads it as something signed.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read<B: Body>(&self) -> Result<Signed<B>, Malformed> {
        Signed::decode(&self.0)
    }
}

impl TryFrom<String> for Blob {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_URL_SAFE_NO_PAD.decode(text).map(Blob)
    }
}

impl From<Blob> for String {
    fn from(blob: Blob) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(blob.0)
    }
}

/// Some are secrets, so none is printed.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} octets)", self.0.len())
    }
}

/// `POST /mesh/v1/enrol`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// A signed enrolment.
    pub enrolment: Blob,
}

/// `POST /mesh/v1/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The newest certificate, from which a registry learns that was restored from an older backup.
    pub certificate: Blob,
    /// A signed renewal.
    pub renewal: Blob,
}

/// `POST /mesh/v1/presence`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceRequest {
    /// The newest certificate.
    pub certificate: Blob,
    /// A signed [`hextet_mesh::letter::Presence`].
    pub presence: Blob,
    /// A digest of what the node knows ([`hextet_mesh::letter::Known`]): the answer waits for news, 20 s at most. Without it, it comes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceAnswer {
    /// What everybody may know.
    pub network: Network,
    /// Nodes that anybody can reach.
    pub others: Vec<OtherShown>,
    /// Whether news were waited for: there are as many who wait as may be, otherwise, and they tell the rest.
    pub waited: bool,
}

/// A node that anybody can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherShown {
    /// Which.
    pub node: String,
    /// Where, and by what.
    pub at: Way,
}

/// `POST /mesh/v1/invite`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Where an invitation is sent to.
    pub email: String,
}

/// `GET /mesh/v1/network`, and with a certificate the answer to [`EnrolRequest`] and [`RenewRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// The root's public key.
    pub root: Blob,
    /// The parameters.
    pub parameters: Blob,
    /// A list of each issuing key.
    pub revocations: Vec<Blob>,
    /// The certificate that was asked for; none while an administrator has to approve.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<Blob>,
}

/// Any refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub error: String,
}

/// An administrator's wish for a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What its bearer becomes.
    pub class: String,
    /// The groups that its bearer is in.
    pub groups: Vec<String>,
    /// How long it is good for.
    pub minutes: u32,
    /// Sent there, too.
    pub email: Option<String>,
}

/// An invitation that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// For `hextet mesh join`.
    pub invitation: String,
}

/// Names a node, or, of those that wait, a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// As lists show it.
    pub name: String,
}

/// A node as administrators see it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct NodeShown {
    /// Its number.
    pub node: String,
    /// What it calls itself.
    pub name: Option<String>,
    /// Its class.
    pub class: String,
    /// All prefixes, of both families.
    pub prefixes: Vec<String>,
    /// Where it is.
    pub community: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Of its newest certificate.
    pub serial: u32,
    /// The end of that, in seconds since 1970.
    pub not_after: u64,
    /// Whether it is out.
    pub revoked: bool,
}

/// Somebody who waits for an approval.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct WaitingShown {
    /// Its key.
    pub key: String,
    /// What it calls itself.
    pub name: Option<String>,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// `GET /nodes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nodes {
    /// All that were let in.
    pub nodes: Vec<NodeShown>,
    /// All that wait.
    pub waiting: Vec<WaitingShown>,
}

/// The parameters as administrators see them; in a change, what is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParametersShown {
    /// Ignored in a change.
    pub network: Option<String>,
    /// Ignored in a change.
    pub version: Option<u64>,
    /// Ignored in a change.
    pub prefix: Option<String>,
    /// Ignored in a change.
    pub ipv4: Option<String>,
    /// How long a certificate counts.
    pub lifetime_secs: Option<u32>,
    /// How much longer where it can't be renewed.
    pub grace_secs: Option<u32>,
    /// Between Hellos.
    pub hello_secs: Option<u16>,
    /// Tunnels by chance.
    pub random: Option<u8>,
    /// Tunnels to the nearest.
    pub nearest: Option<u8>,
    /// Tunnels that shorten paths.
    pub gain: Option<u8>,
    /// Tunnels in all.
    pub most: Option<u8>,
    /// Who may talk to whom.
    pub rules: Option<RulesShown>,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What its bearer becomes.
    pub class: Class,
    /// The groups that its bearer is in.
    pub groups: Vec<Label>,
    /// How long it is good for.
    pub minutes: u32,
}
