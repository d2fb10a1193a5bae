//! Errors as clients see them: a status, Neutron's type name, and a message.

use serde_json::{Value, json};
use thiserror::Error;

/// What a request is refused with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The exception's name in Neutron; clients branch on it.
    pub kind: &'static str,
    /// For people: what was refused, why, and the way out.
    pub message: String,
}

/// The result of handling a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// An error of any kind.
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            kind,
            message: message.into(),
        }
    }

    /// 400, of the kind that the request's form is refused with.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "HTTPBadRequest", message)
    }

    /// 400 `InvalidInput`.
    pub fn invalid_input(reason: impl std::fmt::Display) -> Self {
        Self::new(
            400,
            "InvalidInput",
            format!("Invalid input for operation: {reason}."),
        )
    }

    /// 401: no token, or none that counts.
    pub fn unauthorized() -> Self {
        Self::new(
            401,
            "HTTPUnauthorized",
            "The request you have made requires authentication.",
        )
    }

    /// 403 for an action or attribute that the caller's roles do not allow.
    pub fn forbidden(action: impl std::fmt::Display) -> Self {
        let message = format!("rule:{action} is disallowed by policy");
        Self::new(403, "PolicyNotAuthorized", message)
    }

    /// 404 without naming what is not there.
    pub fn not_found() -> Self {
        Self::new(404, "HTTPNotFound", "The resource could not be found.")
    }

    /// 409 of a kind.
    pub fn conflict(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(409, kind, message)
    }

    /// 503: the server cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// What HTTP itself refuses, of this status.
    pub fn of_status(status: u16) -> Self {
        let (kind, message) = match status {
            404 => return Self::not_found(),
            405 => (
                "HTTPMethodNotAllowed",
                "The server could not comply with the request since it does not support that method.",
            ),
            413 => (
                "HTTPRequestEntityTooLarge",
                "The request's body is too large.",
            ),
            400..500 => (
                "HTTPBadRequest",
                "The server could not comply with the request since it is either malformed or \
                 otherwise incorrect.",
            ),
            _ => (
                "HTTPInternalServerError",
                "The server has either erred or is incapable of performing the requested operation.",
            ),
        };
        Self::new(status, kind, message)
    }

    /// The body as the networking API has it.
    pub fn neutron_body(&self) -> Value {
        json!({"NeutronError": {"type": self.kind, "message": self.message, "detail": ""}})
    }

    /// The body as the identity API has it.
    pub fn keystone_body(&self) -> Value {
        json!({"error": {"code": self.status, "title": self.title(), "message": self.message}})
    }

    /// The status in words.
    pub fn title(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            412 => "Precondition Failed",
            413 => "Request Entity Too Large",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        }
    }
}
