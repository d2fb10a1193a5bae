//! Why a registry doesn't do what it is asked.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hextet_mesh::{
    allocator::AllocatorError, certificate::NodeId, signed::Malformed, trust::Refusal,
};
use hextet_store::StoreError;
use thiserror::Error;

use crate::message::Refused;

/// Why not.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The store.
    #[error("the registry's store: {0}")]
    Store(#[from] StoreError),
    /// What the store holds can't be.
    #[error("the registry's store is damaged ({0}): restore a backup")]
    Damaged(String),
    /// TLS, sockets, files.
    #[error("{0}")]
    Setup(String),
    /// A request's octets.
    #[error("the request: {0}")]
    Malformed(#[from] Malformed),
    /// A request's fields.
    #[error("{0}")]
    Invalid(String),
    /// A signature.
    #[error("the request is not signed by the node's key")]
    Unsigned,
    /// A token.
    #[error("the token does not count: it was used, has expired, or never was; ask for another")]
    Token,
    /// Neither token nor open door.
    #[error("this registry lets nobody in without a token; ask for one")]
    Closed,
    /// A node that is out.
    #[error("node {0} is revoked; it comes back with a new token")]
    Revoked(NodeId),
    /// A node that never was.
    #[error("there is no such node: {0}")]
    Unknown(String),
    /// A clock.
    #[error("the request was made {0} s ago, or your clock is wrong: set it")]
    Clock(u64),
    /// A copy of a node, or a certificate that is no more.
    #[error("node {node}'s newest certificate has serial {newest}, not {asked}")]
    Serial {
        /// Whose.
        node: NodeId,
        /// By the registry.
        newest: u32,
        /// By the request.
        asked: u32,
    },
    /// A certificate.
    #[error("the certificate: {0}")]
    Certificate(#[from] Refusal),
    /// Addresses.
    #[error("addresses: {0}")]
    Addresses(#[from] AllocatorError),
    /// A bound.
    #[error("there are {0} already")]
    Full(String),
    /// After a restore.
    #[error(
        "this registry was restored a while ago and waits to hear of its nodes: ask again in {0} s"
    )]
    Settling(u64),
    /// One more registry.
    #[error(
        "this registry is new to its network and hears first of the nodes that are there: ask again in some seconds"
    )]
    Learning,
    /// A registry that was taken out.
    #[error("this registry was taken out of its network: ask {0}")]
    Out(String),
    /// What only the root's key can do.
    #[error(
        "this takes the network's root key, which is not here: `hextet mesh registries` shows at each registry whether it has it; a backup of the one that had it holds it, too"
    )]
    NoRoot,
    /// A token of the other kind.
    #[error("this invitation lets in {0}")]
    TokenFor(&'static str),
    /// Too often.
    #[error("too many requests from there; wait a minute")]
    Pace,
    /// Mail.
    #[error("mail: {0}")]
    Mail(String),
}

/// Our results.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

impl RegistryError {
    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            RegistryError::Store(_) | RegistryError::Damaged(_) | RegistryError::Setup(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            RegistryError::Malformed(_) | RegistryError::Invalid(_) | RegistryError::Clock(_) => {
                StatusCode::BAD_REQUEST
            }
            RegistryError::Unsigned | RegistryError::Token => StatusCode::UNAUTHORIZED,
            RegistryError::Closed
            | RegistryError::Revoked(_)
            | RegistryError::Certificate(_)
            | RegistryError::NoRoot
            | RegistryError::TokenFor(_) => StatusCode::FORBIDDEN,
            RegistryError::Unknown(_) => StatusCode::NOT_FOUND,
            RegistryError::Serial { .. } | RegistryError::Addresses(_) | RegistryError::Full(_) => {
                StatusCode::CONFLICT
            }
            RegistryError::Settling(_) | RegistryError::Learning | RegistryError::Out(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            RegistryError::Pace => StatusCode::TOO_MANY_REQUESTS,
            RegistryError::Mail(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %self, "a request fails");
        }
        // What is wrong inside is nobody's business outside.
        let error = match status {
            StatusCode::INTERNAL_SERVER_ERROR => "the registry fails; its log says why".to_owned(),
            _ => self.to_string(),
        };
        (status, Json(Refused { error })).into_response()
    }
}
