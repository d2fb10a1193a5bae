//! Answers: JSON, and errors in the shape of the API that is asked.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
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

/// Refusals that the framework words (a body that is too large, a path that is no text, a method that
/// a path does not have) get the shape of the API that was asked.
pub async fn in_shape(request: Request, next: Next) -> Response {
    const LONGEST: usize = 1024;
    let networking = request.uri().path().starts_with("/networking");
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !(status.is_client_error() || status.is_server_error())
        || kind.is_some_and(|k| k == "application/json")
    {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = to_bytes(body, LONGEST).await.unwrap_or_default();
    let mut error = ApiError::of_status(status.as_u16());
    if !said.is_empty() {
        error.message = String::from_utf8_lossy(&said).into_owned();
    }
    let mut answer = if networking {
        NetworkingError(error).into_response()
    } else {
        IdentityError(error).into_response()
    };
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}
