//! Answers: JSON, and errors in the shape of the API that is asked.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hextet_api::error::ApiError;
use serde::Serialize;

/// A refusal in Neutron's shape.
pub struct NetworkingError(pub ApiError);
/// A refusal in Keystone's shape.
pub struct IdentityError(pub ApiError);

impl From<ApiError> for NetworkingError {
    fn from(error: ApiError) -> Self {
        NetworkingError(error)
    }
}

impl From<ApiError> for IdentityError {
    fn from(error: ApiError) -> Self {
        IdentityError(error)
    }
}

impl IntoResponse for NetworkingError {
    fn into_response(self) -> Response {
        refusal(&self.0, &self.0.neutron_body())
    }
}

impl IntoResponse for IdentityError {
    fn into_response(self) -> Response {
        refusal(&self.0, &self.0.keystone_body())
    }
}

fn refusal(error: &ApiError, body: &serde_json::Value) -> Response {
    let mut answer = json(error.status, body);
    if error.status == 401 {
        let value = HeaderValue::from_static("Keystone uri=\"/identity/v3\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    answer
}

/// JSON with that status.
pub fn json(status: u16, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => bytes(status, body),
        Err(_) => empty(500),
    }
}

/// JSON that is encoded already.
pub fn bytes(status: u16, body: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// That status and no body.
pub fn empty(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    status.into_response()
}
